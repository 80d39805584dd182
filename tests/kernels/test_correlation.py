"""Lists, distribution and groups of all pairs against a float64 product of all rows."""

from types import SimpleNamespace

import numpy as np
import pytest

from weighbridge_kernels import correlation, correlation_host, unit_rows_host
from weighbridge_kernels.similar_pairs import (
    BINS,
    EDGES,
    NO_ROW,
    Correlations,
    Lists,
    Neighbours,
    PairState,
    SimilarityCounts,
)

CLOSE = 4e-6
FORMS = {"host": correlation_host, "jax": correlation}


@pytest.fixture(params=FORMS.values(), ids=list(FORMS))
def form(request: pytest.FixtureRequest) -> SimpleNamespace:
    return request.param


def cosines(x: np.ndarray, kind: str = "cosine") -> np.ndarray:
    """All similarities in float64, NaN where a row has no direction."""
    y = x.astype(np.float64)
    y[~np.isfinite(y).all(axis=1)] = np.nan
    y = y - y.mean(axis=1, keepdims=True) if kind == "pearson" else y
    norms = np.linalg.norm(y, axis=1, keepdims=True)
    y = y / np.where(norms > 1e-12, norms, np.nan)
    return np.clip(y @ y.T, -1, 1)


def assert_neighbours(got: Neighbours, scores: np.ndarray, sign: int, close: float = CLOSE) -> None:
    """`scores[i, j]` are to be great, NaN for pairs that do not exist; they are `sign` times the values."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    count = got.indices.shape[1]
    for i, row in enumerate(scores):
        there = min(int((row > -np.inf).sum()), count)
        found = got.indices[i, :there]
        assert (got.indices[i, there:] == NO_ROW).all()
        assert np.isnan(got.values[i, there:]).all()
        assert len(set(found.tolist())) == there
        best = np.sort(row)[::-1][:there]
        np.testing.assert_allclose(row[found], best, atol=close, rtol=0)
        np.testing.assert_allclose(sign * got.values[i, :there], row[found], atol=close, rtol=0)
        assert (np.diff(sign * got.values[i, :there]) <= 0).all()


def assert_counts(got: SimilarityCounts, s: np.ndarray) -> None:
    """Cumulative counts lie between those of edges shifted by `CLOSE`; the groupings are sums of the fine bins."""
    pairs = np.sort(s[np.triu_indices(len(s), 1)])
    pairs = pairs[np.isfinite(pairs)]
    below = np.cumsum(got.counts)[:-1]
    assert (np.searchsorted(pairs, EDGES[1:-1] - CLOSE) <= below).all()
    assert (below <= np.searchsorted(pairs, EDGES[1:-1] + CLOSE)).all()
    assert got.pairs == got.linear.sum() == got.near_one.sum() + got.near_minus_one.sum() == pairs.size
    assert (got.linear.size, got.near_one.size, got.near_minus_one.size) == (2048, 17, 17)


def components(linked: np.ndarray) -> list[int]:
    labels = list(range(len(linked)))
    for i, j in zip(*np.nonzero(linked), strict=True):
        low, high = sorted((labels[i], labels[j]))
        labels = [low if label == high else label for label in labels]
    return labels


def assert_all(got: Correlations, x: np.ndarray, kind: str = "cosine", threshold: float = 0.99) -> None:
    s = cosines(x, kind)
    pairs = s.copy()
    np.fill_diagonal(pairs, np.nan)
    assert_neighbours(got.similar, pairs, 1)
    assert_neighbours(got.opposed, -pairs, -1)
    assert_counts(got.distribution, s)
    assert got.duplicates.tolist() == components(np.nan_to_num(pairs) >= threshold)
    assert got.opposites.tolist() == components(-np.nan_to_num(pairs) >= threshold)


def planted() -> np.ndarray:
    """Random rows with groups of near copies and near opposites, dead rows, NaN and Inf."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((151, 37)).astype(np.float32)
    x[[17, 90, 149]] = 3 * x[4]
    x[55] = x[90] * 0.1 + 1e-3 * rng.standard_normal(37).astype(np.float32)
    x[[8, 60]] = -2 * x[7]
    x[[0, 100]], x[101], x[20, 3], x[150, 0] = 0, 0.3, np.nan, -np.inf
    return x


@pytest.mark.parametrize("kind", ["cosine", "pearson"])
@pytest.mark.parametrize("block", [7, 150, 256])
def test_planted_rows(form: SimpleNamespace, block: int, kind: str) -> None:
    assert_all(form.correlations(planted(), kind=kind, count=5, block=block), planted(), kind)


@pytest.mark.parametrize(("rows", "cols"), [(0, 3), (1, 3), (2, 3), (3, 1), (13, 2), (67, 5)], ids=str)
def test_sizes(form: SimpleNamespace, rows: int, cols: int) -> None:
    """Also fewer rows than a list has places."""
    x = np.random.default_rng(rows).standard_normal((rows, cols)).astype(np.float32)
    assert_all(form.correlations(x, count=17, block=11), x)


def test_near_copies_and_near_opposites_by_binade(form: SimpleNamespace) -> None:
    """Angles such that what similarities lack to ±1 spans all binades, and shows less than float32 can."""
    angles = np.geomspace(1e-4, 1.5, 211)
    x = np.column_stack([np.cos(angles), np.sin(angles)])
    x[::3] *= -1
    found = form.correlations(x, count=1, block=50).distribution
    assert_counts(found, cosines(x))
    assert found.near_one.min() > 0
    assert found.near_minus_one.min() > 0


@pytest.mark.parametrize("dtype", [np.float16, np.float64], ids=lambda dtype: dtype.__name__)
def test_dtypes(form: SimpleNamespace, dtype: type) -> None:
    x = np.random.default_rng(8).standard_normal((41, 19)).astype(dtype)
    assert_all(form.correlations(x, count=3, block=16), x)


@pytest.mark.parametrize("threshold", [0.9, 0.999])
def test_equal_rows_are_one_group(form: SimpleNamespace, threshold: float) -> None:
    x = np.ones((131, 5), np.float32)
    got = form.correlations(x, count=2, threshold=threshold, block=32)
    assert not got.duplicates.any()
    assert got.opposites.tolist() == list(range(131))
    assert got.distribution.near_one[-1] == 131 * 130 // 2
    assert got.similar.indices[0].tolist() == [1, 2]
    assert (got.similar.indices[2:] == [0, 1]).all()


def test_two_camps_are_one_group_of_opposites(form: SimpleNamespace) -> None:
    """Of opposites linked many times over the lists hold two each."""
    x = np.ones((61, 7), np.float32)
    x[::3] *= -2
    got = form.correlations(x, count=2, block=16)
    assert not got.opposites.any()
    assert sorted(set(got.duplicates.tolist())) == [0, 1]


def test_groups_longer_than_lists_and_blocks(form: SimpleNamespace) -> None:
    """Clusters of 40 near copies, joined in chains through one row between each two."""
    rng = np.random.default_rng(5)
    centres = np.linalg.qr(rng.standard_normal((16, 16)))[0]
    angles = np.repeat(np.arange(0, 3, 0.05), 7)
    x = np.cos(angles)[:, None] * centres[0] + np.sin(angles)[:, None] * centres[1]
    x = np.concatenate([x, np.repeat(centres[2:5], 40, axis=0) + 1e-3 * rng.standard_normal((120, 16))])
    x = rng.permutation(x).astype(np.float32)
    got = form.correlations(x, count=3, threshold=0.998, block=64)
    assert got.duplicates.tolist() == components(cosines(x) >= 0.998)
    assert len(set(got.duplicates.tolist())) == 4


def test_parts_merge_to_the_whole(form: SimpleNamespace) -> None:
    x = planted()
    units, norms = unit_rows_host.unit_rows(x)
    parts = [form.summarize(units, norms > 0, count=4, block=13, part=slice(i, None, 3)) for i in range(3)]
    whole = form.summarize(units, norms > 0, count=4, block=13)
    for merged in (parts[0].merge(parts[1]).merge(parts[2]), PairState.empty(151, 4).merge(whole)):
        assert (merged.counts == whole.counts).all()
        assert (merged.similar.scores == whole.similar.scores).all()
        assert (merged.opposed.indices == whole.opposed.indices).all()


def test_forms_agree() -> None:
    x = planted()
    host, device = (form.correlations(x, count=6, block=64) for form in FORMS.values())
    np.testing.assert_allclose(host.similar.values, device.similar.values, atol=CLOSE)
    assert (host.opposites == device.opposites).all()


@pytest.mark.parametrize("bad", [{"count": 0}, {"threshold": 0.0}, {"threshold": 1.5}], ids=str)
def test_bad_arguments(form: SimpleNamespace, bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        form.correlations(np.ones((3, 3), np.float32), **bad)
    with pytest.raises(ValueError, match="matrix"):
        form.correlations(np.ones(3, np.float32))


def test_every_edge_is_a_float32_in_order() -> None:
    assert (np.diff(EDGES) > 0).all()
    assert (EDGES.astype(np.float32) == EDGES).all()
    assert BINS == 2060


def test_groupings_of_bins() -> None:
    """A similarity in the middle of each fine bin is where its formula says."""
    s = (EDGES[1:] + EDGES[:-1]) / 2
    counts = SimilarityCounts(np.arange(1, BINS + 1))
    linear = np.bincount(np.floor((s + 1) * 1024).astype(int), counts.counts, 2048)
    assert counts.linear.tolist() == linear.tolist()
    binade = np.minimum(np.floor(-np.log2(1 - np.abs(s))).astype(int), 16)
    for near, side in ((counts.near_one, s > 0), (counts.near_minus_one, s < 0)):
        assert near.tolist() == np.bincount(binade[side], counts.counts[side], 17).tolist()


def test_lists_merge_by_score_then_index() -> None:
    a = Lists(np.array([[3, 2, -np.inf]], np.float32), np.array([[7, 9, NO_ROW]], np.int32))
    b = Lists(np.array([[3, 2, 1]], np.float32), np.array([[5, 1, 0]], np.int32))
    for merged in (a.merge(b), b.merge(a)):
        assert merged.indices.tolist() == [[5, 7, 1]]
        assert merged.scores.tolist() == [[3, 3, 2]]
