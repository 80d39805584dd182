"""Random projections: the law of their entries, distances kept, the same numbers whatever the chunks, in both forms."""

from collections.abc import Callable
from types import ModuleType

import ml_dtypes
import numpy as np
import pytest

from weighbridge_kernels import random_projection, random_projection_host
from weighbridge_kernels.johnson_lindenstrauss import LINES, dimensions_for, distortion

Project = Callable[..., np.ndarray]


@pytest.fixture(params=[random_projection_host, random_projection], ids=["host", "jax"])
def project(request: pytest.FixtureRequest) -> Project:
    module: ModuleType = request.param

    def call(x: np.ndarray, dimensions: int, **options: object) -> np.ndarray:
        return np.asarray(module.random_projection(x, dimensions, **options))

    return call


@pytest.mark.parametrize("law", ["gaussian", "sparse"])
def test_the_law_of_the_entries(project: Project, law: str) -> None:
    """An identity gives the matrix itself: mean, variance and fourth moment within five standard errors."""
    r = project(np.eye(311, dtype=np.float32), 251, key=3, law=law).astype(np.float64) * np.sqrt(251)
    n = r.size
    assert abs(r.mean()) < 5 / np.sqrt(n)
    assert abs((r**2).mean() - 1) < 5 * np.sqrt(2 / n)
    assert abs((r**4).mean() - 3) < 5 * np.sqrt(96 / n)
    if law == "sparse":
        np.testing.assert_allclose(np.unique(r), [-np.sqrt(3), 0, np.sqrt(3)], rtol=1e-6, atol=1e-9)
        assert abs((r == 0).mean() - 2 / 3) < 5 * np.sqrt(2 / 9 / n)
    lines = r - r.mean(axis=1, keepdims=True)
    assert np.abs(np.corrcoef(lines) - np.eye(311)).max() < 7 / np.sqrt(251)


@pytest.mark.parametrize("law", ["gaussian", "sparse"])
@pytest.mark.parametrize("cols", [1, LINES, 2 * LINES + 7])
def test_rows_in_any_chunks_and_lines_in_blocks(project: Project, cols: int, law: str) -> None:
    x = np.random.default_rng(0).standard_normal((23, cols)).astype(np.float32)
    whole = project(x, 5, key=11, law=law)
    parts = np.concatenate([project(part, 5, key=11, law=law) for part in np.split(x, [1, 12])])
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-5 * np.sqrt(cols))
    assert np.abs(project(x, 5, key=12, law=law) - whole).max() > 0
    edge = np.zeros((11, cols), np.float32)
    edge[0, 0] = edge[1, -1] = 1
    first, last, *_ = project(edge, 5, key=11)
    assert cols == 1 or np.abs(first - last).max() > 0
    np.testing.assert_array_equal(project(edge[::-1], 5, key=11)[-2], last)


@pytest.mark.parametrize("law", ["gaussian", "sparse"])
def test_distances_are_kept_within_the_bound(project: Project, law: str) -> None:
    x = np.random.default_rng(1).standard_normal((61, 1009)).astype(np.float32)
    y = project(x, 400, key=0, law=law).astype(np.float64)
    pairs = np.triu_indices(61, 1)
    before = ((x[pairs[0]].astype(np.float64) - x[pairs[1]]) ** 2).sum(axis=1)
    after = ((y[pairs[0]] - y[pairs[1]]) ** 2).sum(axis=1)
    bound = distortion(61, 400)
    assert 0.2 < bound < 0.4
    assert np.abs(after / before - 1).max() < bound


@pytest.mark.parametrize(("rows", "within"), [(2, 0.5), (1000, 0.1), (10**6, 0.9), (10**9, 0.01)])
def test_the_bound_and_the_dimensions_are_each_others_inverse(rows: int, within: float) -> None:
    k = dimensions_for(rows, within)
    assert distortion(rows, k) <= within
    assert distortion(rows, k - 1) > within or k == 1
    peer = pytest.importorskip("sklearn.random_projection").johnson_lindenstrauss_min_dim(rows, eps=within)
    assert k - 1 <= peer <= k


def test_bounds_at_the_edge() -> None:
    assert distortion(1, 3) == distortion(0, 3) == 0
    assert distortion(1000, 2) == np.inf
    with pytest.raises(ValueError, match=r"a distortion of 1\.0; expected one between 0 and 1"):
        dimensions_for(10, 1.0)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (2, 1)], ids=str)
def test_small_and_empty(project: Project, shape: tuple[int, int]) -> None:
    y = project(np.zeros(shape, ml_dtypes.bfloat16), 4, key=1)
    assert y.shape == (shape[0], 4)
    assert y.dtype == np.float32
    assert not y.any()


def test_what_is_not_finite_stays_in_its_row(project: Project) -> None:
    x = np.ones((3, 5), np.float32)
    x[1, 2] = np.nan
    assert np.isfinite(project(x, 2, key=0)).all(axis=1).tolist() == [True, False, True]


def test_what_cannot_be_asked(project: Project) -> None:
    with pytest.raises(ValueError, match="0 dimensions; expected at least 1"):
        project(np.ones((2, 2), np.float32), 0, key=0)
    with pytest.raises(ValueError, match="expected 'gaussian' or 'sparse'"):
        project(np.ones((2, 2), np.float32), 1, key=0, law="uniform")
