"""Unit rows and norms against NumPy in float64, over the whole range of the dtypes."""

from types import SimpleNamespace

import jax
import ml_dtypes
import numpy as np
import pytest

from weighbridge_kernels import unit_rows, unit_rows_host

SHAPES = ((0, 5), (1, 1), (2, 3), (19, 23), (61, 257))


def _in_jax(x: np.ndarray, **static: str) -> tuple[np.ndarray, np.ndarray]:
    with jax.enable_x64(True):
        units, norms = unit_rows.unit_rows(x, **static)
        return np.asarray(units), np.asarray(norms)


@pytest.fixture(params=[unit_rows_host, SimpleNamespace(unit_rows=_in_jax)], ids=["host", "jax"])
def form(request: pytest.FixtureRequest) -> SimpleNamespace:
    return request.param


def oracle(x: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    y = x.astype(np.longdouble)
    y = y - y.mean(axis=1, keepdims=True) if kind == "pearson" else y
    norms = np.sqrt((y * y).sum(axis=1))
    return (y / np.where(norms > 0, norms, 1)[:, None]).astype(np.float64), norms.astype(np.float64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16], ids=lambda d: d.__name__)
@pytest.mark.parametrize("kind", ["cosine", "pearson"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_units_and_norms(form: SimpleNamespace, shape: tuple[int, int], kind: str, dtype: type) -> None:
    x = (np.random.default_rng(shape).standard_normal(shape) * 3 + 1).astype(dtype)
    units, norms = form.unit_rows(x, kind=kind)
    expected = oracle(x, kind)
    assert (units.dtype, norms.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(units, expected[0], rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(norms, expected[1], rtol=1e-13)


@pytest.mark.parametrize(
    ("dtype", "size"), [(np.float32, 1e-30), (np.float32, 1e38), (np.float64, 1e-290), (np.float64, 1e306)], ids=str
)
def test_no_square_leaves_the_range(form: SimpleNamespace, dtype: type, size: float) -> None:
    x = (np.random.default_rng(0).uniform(-1, 1, (7, 23)) * size).astype(dtype)
    for kind in ("cosine", "pearson"):
        units, norms = form.unit_rows(x, kind=kind)
        np.testing.assert_allclose(units, oracle(x, kind)[0], atol=1e-7)
        np.testing.assert_allclose(norms / size, oracle(x, kind)[1] / size, rtol=1e-13)


def test_a_mean_far_above_the_spread(form: SimpleNamespace) -> None:
    x = 1e4 + np.random.default_rng(1).standard_normal((5, 101))
    np.testing.assert_allclose(form.unit_rows(x, kind="pearson")[0], oracle(x, "pearson")[0], atol=1e-7)


def test_rows_without_direction(form: SimpleNamespace) -> None:
    x = np.random.default_rng(2).standard_normal((7, 13)).astype(np.float32)
    x[1], x[2], x[3, 4], x[4, 0], x[5, 12] = 0, 0.1, np.nan, np.inf, -np.inf
    units, norms = form.unit_rows(x, kind="cosine")
    assert (norms > 0).tolist() == [True, False, True, False, False, False, True]
    assert norms[1] == 0
    assert np.isnan(norms[3:6]).all()
    assert not units[[1, 3, 4, 5]].any()
    units, norms = form.unit_rows(x, kind="pearson")
    assert norms[1] == norms[2] == 0
    assert not units[1:6].any()
