"""Extremes, L1 and central moments of a span, against exactly rounded sums and against fractions."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from weighbridge_kernels.states import Moments
from weighbridge_kernels.variants import Variant

CHUNK = 4096
SIZES = (1, 2, 3, 7, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3, 100_003)
DTYPES = (np.float32, np.float64)


def normal(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.normal(size=size)


def far_from_zero(rng: np.random.Generator, size: int) -> np.ndarray:
    """Mean ≫ std: a shared shift would lose six digits."""
    return rng.normal(100, 0.01, size)


def skewed(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.exponential(1e-3, size) - 1e-3


def heavy_tailed(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.standard_t(2, size)


def constant(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.full(size, 0.1)


def mostly_not_finite(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.where(rng.random(size) < 0.1, rng.normal(size=size), rng.choice([np.nan, np.inf, -np.inf], size))


CONTENTS = (normal, far_from_zero, skewed, heavy_tailed, constant, mostly_not_finite)


@pytest.mark.parametrize("content", CONTENTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_equals_exactly_rounded_sums(
    variant: Variant, assert_moments: Callable, dtype: type, size: int, content: Callable
) -> None:
    x = content(np.random.default_rng(size), size).astype(dtype)
    assert_moments(variant.central_moments(variant.put(x)), x)


INTEGERS = {
    "one": (5,),
    "zeros": (0, 0, 0),
    "few": (-3, 1, 4, 1, 5, -9, 2, 6),
    "one far off": (1, 2, 3, 4, 100),
    "two values": (-1, 1) * 50,
    "large": (1 << 20, -(1 << 20), 3),
}


@pytest.mark.parametrize("entries", INTEGERS.values(), ids=list(INTEGERS))
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_integers_by_fractions(variant: Variant, dtype: type, entries: tuple[int, ...]) -> None:
    mean = Fraction(sum(entries), len(entries))
    got = variant.central_moments(variant.put(np.array(entries, dtype)))
    assert (got.count, got.min, got.max, got.l1) == (len(entries), min(entries), max(entries), sum(map(abs, entries)))
    assert got.mean == pytest.approx(float(mean), rel=1e-15, abs=0)
    for k, sum_of_powers in ((2, got.m2), (3, got.m3), (4, got.m4)):
        exact = float(sum((x - mean) ** k for x in entries))
        magnitude = float(sum(abs(x - mean) ** k for x in entries))
        assert abs(sum_of_powers - exact) <= 1e-14 * magnitude, f"m{k}"


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-5, 123.456])
@pytest.mark.parametrize("size", [3, 7, CHUNK + 1])
def test_equal_entries_have_no_spread(variant: Variant, size: int, value: float) -> None:
    """Not even the rounding of their mean, which would pass for a standard deviation and have a shape."""
    for dtype in DTYPES:
        got = variant.central_moments(variant.put(np.full(size, value, dtype)))
        assert (got.mean, got.m2) == (dtype(value), 0)
        assert np.isnan(got.skewness)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("entries", [(), (np.nan,), (np.inf, -np.inf, np.nan, np.inf)], ids=str)
def test_no_finite_entry_is_empty(variant: Variant, entries: tuple[float, ...], dtype: type) -> None:
    assert variant.central_moments(variant.put(np.array(entries, dtype))) == Moments.empty()


@pytest.mark.parametrize("at", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1])
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf], ids=str)
def test_one_entry_that_is_not_finite_is_passed_over(
    variant: Variant, assert_moments: Callable, special: float, at: int
) -> None:
    x = np.random.default_rng(3).normal(2, 1, CHUNK + 2).astype(np.float32)
    x[at] = special
    got = variant.central_moments(variant.put(x))
    assert got.count == CHUNK + 1
    assert_moments(got, x)


def test_float32_subnormals_count(variant: Variant, assert_moments: Callable) -> None:
    x = np.array([1e-45, -3e-42, 1e-40, 5e-39, 0, -0.0, 1.2e-38], np.float32)
    assert_moments(variant.central_moments(variant.put(x)), x)


def test_powers_of_a_float64_may_overflow(variant: Variant) -> None:
    got = variant.central_moments(variant.put(np.array([1e200, -1e200, 0.0])))
    assert (got.count, got.min, got.max, got.l1, got.mean) == (3, -1e200, 1e200, 2e200, 0.0)
    assert got.m2 == np.inf
    assert got.m4 == np.inf


def test_float64_extremes_are_not_rounded_to_float32(variant: Variant) -> None:
    x = np.array([1 + 2.0**-50, 1 - 2.0**-50, 1])
    got = variant.central_moments(variant.put(x))
    assert (got.min, got.max) == (1 - 2.0**-50, 1 + 2.0**-50)
    assert got.m2 == pytest.approx(2 * 2.0**-100, rel=1e-9)
