"""What the kernel tests share: the forms a kernel comes in, and how moments are judged.

The tests need JAX, NumPy and pytest. Without Numba they leave out the host forms, without hypothesis the laws.
"""

import math
from collections.abc import Callable, Iterator

import jax
import numpy as np
import pytest

from weighbridge_kernels import variants
from weighbridge_kernels.states import Moments
from weighbridge_kernels.variants import DeviceUnavailable, Variant

FORMS = ("host", "jax-cpu", pytest.param("jax-gpu", marks=pytest.mark.gpu))


@pytest.fixture(autouse=True, scope="module")
def strict_promotion() -> Iterator[None]:
    """A kernel that mixes dtypes or ranks by accident fails here rather than on the one device where it matters."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(scope="session", params=FORMS)
def variant(request: pytest.FixtureRequest) -> Variant:
    """The kernels in each form that this environment can run."""
    if request.param == "host":
        pytest.importorskip("numba")
        return variants.host()
    try:
        return variants.on_jax(request.param.removeprefix("jax-"))
    except DeviceUnavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def assert_moments() -> Callable[[Moments, np.ndarray], None]:
    return _assert_moments


def _assert_moments(got: Moments, x: np.ndarray) -> None:
    """`got` are the moments of the finite entries of `x`, by two passes of exactly rounded sums in float64.

    Within 1e-12 of the sum of |d|^k, and within what a mean does that is off by 1e-14 of the greatest magnitude.
    """
    y = x[np.isfinite(x)].astype(np.float64)
    if y.size == 0:
        assert got == Moments.empty()
        return
    assert (got.count, got.min, got.max) == (y.size, y.min(), y.max())
    mean = math.fsum(y) / y.size
    d = y - mean
    d -= math.fsum(d) / y.size  # the mean's own rounding
    magnitude, off = np.abs(d), 1e-14 * np.abs(y).max()
    l1 = math.fsum(np.abs(y))
    assert abs(got.l1 - l1) <= 1e-12 * l1
    assert abs(got.mean - mean) <= off
    for k, sum_of_powers in ((2, got.m2), (3, got.m3), (4, got.m4)):
        powers = math.fsum(magnitude**k)
        tolerance = 1e-12 * powers + math.fsum((magnitude + off) ** k) - powers
        assert abs(sum_of_powers - math.fsum(d**k)) <= tolerance, f"m{k}"
