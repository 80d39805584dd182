"""Principal components against float64 LAPACK on prescribed spectra, by every route and in both forms."""

from collections.abc import Callable, Iterator
from types import ModuleType

import jax
import ml_dtypes
import numpy as np
import pytest

from weighbridge_kernels import pca, principal_components

pca_host = pytest.importorskip("weighbridge_kernels.pca_host")

SHAPES = ((211, 61), (61, 211), (64, 64), (2, 7), (7, 2), (131, 1), (1, 5), (1, 1))
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float64": np.float64}


@pytest.fixture(params=[pca_host, pca], ids=["host", "jax"])
def form(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


def with_spectrum(shape: tuple[int, int], values: np.ndarray, mean: float = 0.0, seed: int = 0) -> np.ndarray:
    """Rows about `mean` that, centred, have these singular values before they are rounded."""
    rng = np.random.default_rng(seed)
    k = len(values)
    left = rng.standard_normal((shape[0], k))
    left = np.linalg.qr(left - left.mean(axis=0))[0]
    right = np.linalg.qr(rng.standard_normal((shape[1], k)))[0]
    return (left * values) @ right.T + mean * rng.uniform(0.5, 1.5, shape[1])


def oracle(x: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Singular values and components of the centred rows as stored, by LAPACK in float64."""
    y = x.astype(np.float64)
    _, values, rows = np.linalg.svd(y - y.mean(axis=0), full_matrices=False)
    return values, rows[:count]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The spectral norm of the difference of the projectors on the rows of each: the sine of the greatest angle."""
    return float(np.linalg.norm(a - (a @ b.T) @ b, 2))


def strips_of(x: np.ndarray, step: int) -> Callable[[], Iterator[np.ndarray]]:
    """A matrix in strips of its long side."""
    long = x.T if x.shape[0] < x.shape[1] else x
    pieces = [long[start : start + step] for start in range(0, len(long), step)]
    return lambda: (piece.T if x.shape[0] < x.shape[1] else piece for piece in pieces)


def assert_orthonormal_with_fixed_signs(components: np.ndarray) -> None:
    np.testing.assert_allclose(components @ components.T, np.eye(len(components)), rtol=0, atol=1e-12)
    greatest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    assert (greatest > 0).all()


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
@pytest.mark.parametrize("shape", [(307, 61), (61, 307)], ids=["tall", "wide"])
def test_exact_subspaces(form: ModuleType, shape: tuple[int, int], dtype: type) -> None:
    """The mean is far above the spread, within what the dtype still resolves; the gap is 0.9 and more."""
    mean = 3.0 if dtype is ml_dtypes.bfloat16 else 300.0
    x = with_spectrum(shape, 20 * 0.88 ** np.arange(40), mean).astype(dtype)
    values, components = oracle(x, 5)
    assert values[5] <= 0.9 * values[4]
    found = form.pca(strips_of(x, 53), shape, count=5)
    assert found.route == ("scatter" if shape[0] > shape[1] else "rows")
    assert distance(found.components, components) < 1e-9
    np.testing.assert_allclose(found.singular_values, values[:5], rtol=1e-9)
    assert (np.abs(found.singular_values - values[:5]) <= found.bounds + 1e-12).all()
    assert_orthonormal_with_fixed_signs(found.components)
    np.testing.assert_allclose(found.mean, x.astype(np.float64).mean(axis=0), rtol=1e-14)


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("shape", [(457, 303), (303, 457)], ids=["tall", "wide"])
def test_randomised_subspaces(
    form: ModuleType, shape: tuple[int, int], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal values over a bulk that begins at 0.7 of them, where most of it lies: the hardest that the gate allows."""
    monkeypatch.setattr(principal_components, "EXACT_UP_TO", 100)
    spectrum = 100 * np.concatenate([np.ones(count), 0.699 * np.linspace(1, 0, 290) ** 0.25])
    x = with_spectrum(shape, spectrum, mean=50.0).astype(np.float32)
    values, components = oracle(x, count)
    assert 0.69 < values[count] / values[count - 1] <= 0.7
    found = form.pca(strips_of(x, 199), shape, count=count, key=7)
    assert found.route == "lanczos"
    assert distance(found.components, components) < 1e-5
    assert (np.abs(found.singular_values - values[:count]) <= found.bounds + 1e-9).all()
    assert found.total_variance == pytest.approx((values**2).sum() / (shape[0] - 1), rel=1e-10)
    assert_orthonormal_with_fixed_signs(found.components)
    again = form.pca(strips_of(x, 199), shape, count=count, key=7)
    np.testing.assert_array_equal(found.components, again.components)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_components_of_any_shape(form: ModuleType, shape: tuple[int, int]) -> None:
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    count = min(shape)
    found = form.pca(strips_of(x, 29), shape, count=count)
    values, _ = oracle(x, count)
    np.testing.assert_allclose(found.singular_values, values, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.explained_variance, values**2 / max(shape[0] - 1, 1), rtol=1e-6, atol=1e-10)
    assert found.components.shape == (count, shape[1])
    assert_orthonormal_with_fixed_signs(found.components)
    if shape[0] > 1:
        assert found.explained_variance_ratio.sum() == pytest.approx(1, rel=1e-9)
    back = form.scores(x, found) @ found.components + found.mean
    if shape[0] <= shape[1] or shape[0] > count:
        np.testing.assert_allclose(back, x, rtol=0, atol=1e-10)


def test_scores_are_uncorrelated_with_the_variances_explained(form: ModuleType) -> None:
    x = with_spectrum((401, 37), 10 * 0.8 ** np.arange(20), mean=50.0).astype(np.float32)
    state = form.summarize(x)
    found = form.finalize(state, count=6)
    covariance = np.cov(form.scores(x, found).T)
    np.testing.assert_allclose(covariance, np.diag(found.explained_variance), rtol=0, atol=1e-9 * covariance.max())
    np.testing.assert_allclose((found.loadings**2).sum(axis=1), found.explained_variance, rtol=1e-12)
    whole = np.cov(x.astype(np.float64).T)
    np.testing.assert_allclose(form.finalize(state, count=37).total_variance, np.trace(whole), rtol=1e-12)


@pytest.mark.parametrize("shape", [(23, 5), (5, 23), (2, 3)], ids=str)
def test_constant_columns_have_no_variance(form: ModuleType, shape: tuple[int, int]) -> None:
    x = np.full(shape, 0.1, np.float32)
    found = form.pca(strips_of(x, 7), shape, count=2)
    assert found.total_variance == 0
    assert found.explained_variance.tolist() == [0, 0]
    assert np.isnan(found.explained_variance_ratio).all()
    assert_orthonormal_with_fixed_signs(found.components)
    x[:, 1] += np.arange(shape[0]) % 2
    alive = form.pca(strips_of(x, 7), shape, count=1)
    np.testing.assert_allclose(alive.components[0], np.eye(shape[1])[1], atol=1e-12)
    assert alive.explained_variance_ratio[0] == pytest.approx(1)


def test_the_law_of_partitions(form: ModuleType) -> None:
    hypothesis = pytest.importorskip("hypothesis")
    x = (1e4 + np.random.default_rng(4).standard_normal((67, 5))).astype(np.float32)
    y = x.astype(np.float64)
    mean, scatter = y.mean(axis=0), (len(y) - 1) * np.cov(y.T)

    @hypothesis.settings(max_examples=10, deadline=None)
    @hypothesis.given(hypothesis.strategies.lists(hypothesis.strategies.integers(0, 67), max_size=5))
    def law(cuts: list[int]) -> None:
        state = form.empty(5)
        for piece in np.split(x, sorted(cuts)):
            state = form.merge(state, form.summarize(piece))
        assert state.count == 67
        np.testing.assert_allclose(state.mean, mean, rtol=1e-15)
        np.testing.assert_allclose(state.scatter, scatter, rtol=0, atol=1e-12 * scatter.max())

    law()


def test_merging_is_associative_and_empty_its_identity(form: ModuleType) -> None:
    x = np.random.default_rng(5).standard_normal((30, 4)).astype(np.float32)
    a, b, c = (form.summarize(part) for part in np.split(x, [3, 11]))
    left, right = form.merge(form.merge(a, b), c), form.merge(a, form.merge(b, c))
    np.testing.assert_allclose(left.scatter, right.scatter, rtol=1e-13, atol=1e-13)
    for same in (form.merge(form.empty(4), a), form.merge(a, form.empty(4)), form.merge(a, form.summarize(x[:0]))):
        np.testing.assert_array_equal(same.scatter, a.scatter)
        np.testing.assert_array_equal(same.mean, a.mean)
    assert np.asarray(left.scatter).dtype == np.float64


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_an_error(form: ModuleType, bad: float) -> None:
    x = np.zeros((9, 4), np.float32)
    x[5, 2] = bad
    with pytest.raises(ValueError, match=r"row 5 of a chunk of 9 holds NaN or Inf, as do 0 others; expected finite"):
        form.summarize(x)
    with pytest.raises(ValueError, match="NaN or Inf"):
        form.pca(strips_of(x.T, 3), (4, 9), count=1)


def test_squares_beyond_float64_are_an_error(form: ModuleType) -> None:
    x = np.array([[1e200, 0], [-1e200, 1], [0, 2]])
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="exceed float64's range"):
        form.finalize(form.summarize(x), count=1)


@pytest.mark.parametrize(("shape", "count"), [((0, 3), 1), ((3, 0), 1), ((5, 3), 4), ((3, 5), 4), ((5, 3), 0)])
def test_components_that_are_not_there(form: ModuleType, shape: tuple[int, int], count: int) -> None:
    x = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=r"pca: .* expected"):
        form.pca(strips_of(x, 2), shape, count=count)
    with pytest.raises(ValueError, match=r"pca: .* expected"):
        form.finalize(form.summarize(x), count=count)


def test_the_jax_state_stays_on_the_device() -> None:
    state = pca.merge(pca.summarize(np.eye(3, dtype=np.float32)), pca.summarize(np.ones((2, 3), np.float32)))
    assert isinstance(state.scatter, jax.Array)
