"""How much of a neighbourhood a map keeps, against scikit-learn, plain loops and maps whose answer is known."""

import tracemalloc

import numpy as np
import pytest

from weighbridge_kernels import projection_quality
from weighbridge_kernels.projection_quality import Metric, neighbour_recall, trustworthiness

MEASURES = pytest.mark.parametrize("measure", [trustworthiness, neighbour_recall], ids=lambda f: f.__name__)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection_quality, "_CELLS", 5000)


def rows_and_map(n: int, seed: int = 0, dims: int = 17) -> tuple[np.ndarray, np.ndarray]:
    """Rows far from the origin, and a map of them that keeps some neighbourhoods."""
    rng = np.random.default_rng(seed)
    x = 30 + rng.standard_normal((n, dims))
    return x, x[:, :2] + 0.3 * rng.standard_normal((n, 2))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(("n", "k"), [(3, 1), (11, 5), (101, 1), (307, 5), (307, 15)])
def test_trustworthiness_is_that_of_scikit_learn(n: int, k: int, metric: Metric) -> None:
    manifold = pytest.importorskip("sklearn.manifold")
    x, y = rows_and_map(n, seed=n)
    found = trustworthiness(x, y, neighbours=k, metric=metric)
    assert found.value == pytest.approx(manifold.trustworthiness(x, y, n_neighbors=k, metric=metric), abs=1e-12)
    assert (found.standard_error, found.rows) == (0, n)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(("n", "k"), [(2, 1), (3, 2), (53, 7)])
def test_recall_is_that_of_sorted_distances(n: int, k: int, metric: Metric) -> None:
    x, y = rows_and_map(n, seed=n)
    z = x / np.linalg.norm(x, axis=1, keepdims=True) if metric == "cosine" else x

    def neighbours(v: np.ndarray, i: int) -> set[int]:
        order = np.linalg.norm(v - v[i], axis=1).argsort()
        return set(order[order != i][:k].tolist())

    share = np.mean([len(neighbours(z, i) & neighbours(y, i)) / k for i in range(n)])
    assert neighbour_recall(x, y, neighbours=k, metric=metric).value == pytest.approx(share, abs=1e-12)


@MEASURES
def test_a_map_that_changes_nothing_keeps_all(measure) -> None:
    x, _ = rows_and_map(67)
    assert measure(x, 0.5 * x).value == 1
    assert measure(x.astype(np.float32), x[:, ::-1].astype(np.float32)).value == 1


def test_ties_cost_no_trust() -> None:
    grid = np.stack(np.meshgrid(np.arange(7.0), np.arange(7.0)), axis=-1).reshape(-1, 2)
    assert trustworthiness(grid, grid, neighbours=3).value == 1
    constant = np.ones((11, 2))
    assert trustworthiness(constant, rows_and_map(11)[1], neighbours=3).value == 1


@MEASURES
def test_a_sample_is_within_its_standard_error(measure) -> None:
    """Over 40 keys two standard errors cover the whole's figure in nine of ten and more, and not by being wide."""
    x, y = rows_and_map(211)
    whole = measure(x, y).value
    samples = [measure(x, y, rows=60, key=key) for key in range(40)]
    assert sum(abs(s.value - whole) <= 2 * s.standard_error for s in samples) >= 35
    values = np.array([s.value for s in samples])
    assert np.mean([s.standard_error for s in samples]) == pytest.approx(values.std(ddof=1), rel=0.5)
    assert samples[0].rows == 60
    assert measure(x, y, rows=60, key=3) == samples[3]
    assert measure(x, y, rows=211, key=3).value == pytest.approx(whole, rel=1e-14)
    assert measure(x, y, rows=10**6).standard_error == 0
    assert np.isnan(measure(x, y, rows=1).standard_error)


def test_a_row_of_zeros_is_one_from_all_by_cosine() -> None:
    x, y = rows_and_map(5)
    x[4] = 0
    assert projection_quality.distances(x, "cosine")(np.array([4])).tolist() == [[1, 1, 1, 1, np.inf]]
    assert trustworthiness(x, y, neighbours=2, metric="cosine").value <= 1


@MEASURES
def test_memory_is_that_of_a_block(measure) -> None:
    x, y = rows_and_map(2003, dims=3)
    tracemalloc.start()
    measure(x, y, rows=50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 * 2003 * 8 < 2003 * 2003 * 8


@MEASURES
def test_what_cannot_be_asked(measure) -> None:
    x, y = rows_and_map(11)
    with pytest.raises(ValueError, match="11 neighbours of 11 rows; expected 1 and more, below"):
        measure(x, y, neighbours=11)
    with pytest.raises(ValueError, match="0 neighbours of 11 rows"):
        measure(x, y, neighbours=0)
    with pytest.raises(ValueError, match="a map of 10 rows for 11; expected as many"):
        measure(x, y[:10])
    with pytest.raises(ValueError, match="a metric of 'l1'; expected"):
        measure(x, y, metric="l1")
    with pytest.raises(ValueError, match="a sample of 0 rows"):
        measure(x, y, rows=0)
    with pytest.raises(ValueError, match="0 rows; expected 1 and more"):
        measure(x[:0], y[:0])
    y[7, 1] = np.nan
    with pytest.raises(ValueError, match="row 7 of the map holds NaN or Inf, and 0 others do"):
        measure(x, y)
    with pytest.raises(ValueError, match=r"5 neighbours of 10 rows; expected 1 and more, below 5"):
        trustworthiness(x[:10], y[:10])
