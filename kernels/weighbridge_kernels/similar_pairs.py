"""What the similarities of the rows of a matrix come to: nearest lists, their distribution, groups of near-equal rows.

The parts that both forms of `correlation` share. A state covers any set of pairs; states of disjoint sets merge. NumPy
alone, and SciPy for components.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

Kind = Literal["cosine", "pearson"]
Metric = Literal["cosine", "euclidean"]
FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int32]
CountArray = npt.NDArray[np.int64]

NO_ROW = -1
"""The index where a list has no row to name."""
LINEAR_BINS = 2048
LOG_BINS = 17
_FINE_BINADES = np.arange(11, LOG_BINS)
"""Binades of 1 - |s| that lie within the first or the last linear bin."""
FINE = _FINE_BINADES.size
EDGES: FloatArray = np.concatenate(
    [
        [-1.0],
        -1 + 0.5 ** _FINE_BINADES[::-1],
        np.arange(1, LINEAR_BINS) / (LINEAR_BINS // 2) - 1,
        1 - 0.5**_FINE_BINADES,
        [1.0],
    ]
)
"""Edges of all bins, each a float32 too. A bin holds its lower edge; the last one also holds 1."""
BINS = EDGES.size - 1


@dataclass(frozen=True, slots=True)
class SimilarityCounts:
    """How many unordered pairs of rows have a similarity within each of `BINS` bins between `EDGES`."""

    counts: CountArray

    @property
    def pairs(self) -> int:
        """All pairs: n (n - 1) / 2 of n rows with a direction."""
        return int(self.counts.sum())

    @property
    def linear(self) -> CountArray:
        """2,048 bins: bin i holds i / 1024 - 1 <= s < (i + 1) / 1024 - 1, the last one also 1."""
        ends = np.concatenate([[0], np.arange(FINE + 1, FINE + LINEAR_BINS)])
        linear: CountArray = np.add.reduceat(self.counts, ends)
        return linear

    @property
    def near_one(self) -> CountArray:
        """17 bins of s >= 0: bin j holds 1 - 2^-j <= s < 1 - 2^-(j + 1), the last one all from 1 - 2^-16 on."""
        starts = np.searchsorted(EDGES, 1 - 0.5 ** np.arange(LOG_BINS))
        near: CountArray = np.add.reduceat(self.counts, starts)
        return near

    @property
    def near_minus_one(self) -> CountArray:
        """17 bins of s < 0: bin j holds -1 + 2^-(j + 1) <= s < -1 + 2^-j, the last one all below -1 + 2^-16."""
        ends = np.searchsorted(EDGES, -1 + 0.5 ** np.arange(LOG_BINS))
        cumulative = np.concatenate([[0], np.cumsum(self.counts)])[ends]
        near: CountArray = cumulative - np.append(cumulative[1:], 0)
        return near


@dataclass(frozen=True, slots=True)
class Lists:
    """For every row those with the greatest scores, greatest first, ties by lower index; -inf and -1 where none is."""

    scores: Float32Array
    indices: IndexArray

    @classmethod
    def empty(cls, rows: int, count: int) -> Self:
        """Lists that name no row: the identity of `merge`."""
        return cls(np.full((rows, count), -np.inf, np.float32), np.full((rows, count), NO_ROW, np.int32))

    def merge(self, other: "Lists") -> "Lists":
        """The greatest of both; no row is named in both."""
        scores = np.concatenate([self.scores, other.scores], axis=1)
        indices = np.concatenate([self.indices, other.indices], axis=1)
        return Lists(*_first(scores, indices, self.scores.shape[1]))


def _first(scores: Float32Array, indices: IndexArray, count: int) -> tuple[Float32Array, IndexArray]:
    order = np.lexsort((indices, -scores), axis=1)[:, :count]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(indices, order, 1)


@dataclass(frozen=True, slots=True)
class PairState:
    """What a set of unordered pairs of rows comes to: scores s, scores -s, and counts of s."""

    similar: Lists
    opposed: Lists
    counts: CountArray

    @classmethod
    def empty(cls, rows: int, count: int) -> Self:
        """No pair: the identity of `merge`."""
        return cls(Lists.empty(rows, count), Lists.empty(rows, count), np.zeros(BINS, np.int64))

    def merge(self, other: "PairState") -> "PairState":
        """Both sets, which share no pair."""
        return PairState(
            self.similar.merge(other.similar), self.opposed.merge(other.opposed), self.counts + other.counts
        )


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Row `indices[i, j]` is the j-th nearest of query i, by `values[i, j]`: a similarity or a distance.

    -1 and NaN where there are fewer rows than asked for, and for queries without a direction.
    """

    indices: IndexArray
    values: Float32Array

    @classmethod
    def of(cls, lists: Lists, sign: int = 1) -> Self:
        """Lists whose scores are `sign` times the values."""
        missing = lists.indices == NO_ROW
        return cls(lists.indices, np.where(missing, np.float32(np.nan), np.float32(sign) * lists.scores))


@dataclass(frozen=True, slots=True)
class Correlations:
    """Similarities of all pairs among the rows of a matrix.

    `similar` and `opposed`: for every row the rows of greatest and of least similarity. `distribution`: how often each
    similarity occurs. `duplicates` and `opposites`: for every row the least row of its group, where pairs with
    s >= threshold, or s <= -threshold, link; a row without such a pair is its own. `norms`: 0 for a dead row, NaN for
    one with NaN or Inf; neither is in any pair.
    """

    similar: Neighbours
    opposed: Neighbours
    distribution: SimilarityCounts
    duplicates: IndexArray
    opposites: IndexArray
    norms: FloatArray


Unseen = Callable[[IndexArray, IndexArray, float], IndexArray]
"""`unseen(rows, labels, threshold)`: for each of some rows one of another label whose score reaches a threshold.

Only these rows are gone through, `labels` are theirs, and -1 says that there is none.
"""


def finalize(
    state: PairState,
    norms: FloatArray,
    *,
    threshold: float,
    unseen: Callable[[int], Unseen],
) -> Correlations:
    """What a state of all pairs says; `unseen(sign)` is called for groups that the lists are too short to settle."""
    return Correlations(
        Neighbours.of(state.similar),
        Neighbours.of(state.opposed, -1),
        SimilarityCounts(state.counts),
        groups(state.similar, threshold, unseen(1)),
        groups(state.opposed, threshold, unseen(-1)),
        norms,
    )


def groups(lists: Lists, threshold: float, unseen: Unseen) -> IndexArray:
    """For every row the least row it is linked to, directly or not, by pairs whose score reaches a threshold.

    A pair that neither row's list names is of two rows whose lists are full of such pairs: only these are gone through
    again. Each pass links every group that is not yet whole to another (Borůvka), so passes number at most the
    logarithm of the rows.
    """
    rows = np.arange(lists.indices.shape[0], dtype=np.int32)
    linked = lists.scores >= threshold
    labels = _joined(rows, np.repeat(rows, linked.sum(1)), lists.indices[linked])
    full = rows[linked.all(axis=1)]
    while full.size:
        other = unseen(full, labels[full], threshold)
        found = other != NO_ROW
        if not found.any():
            break
        labels = _joined(labels, full[found], other[found])
    return labels


def _joined(labels: IndexArray, a: IndexArray, b: IndexArray) -> IndexArray:
    """The least row of every group after rows a[i] and b[i] are linked."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = labels.size
    rows = np.arange(n, dtype=np.int32)
    ends = np.concatenate([rows, a]), np.concatenate([labels, b])
    graph = coo_array((np.ones(ends[0].size, np.int8), ends), shape=(n, n))
    number, component = connected_components(graph, directed=False)
    least = np.full(number, n, np.int32)
    np.minimum.at(least, component, rows)
    joined: IndexArray = least[component]
    return joined


def checked(x: Any, count: int, threshold: float = 1.0) -> None:
    """Raises ValueError for what is no matrix, a count below 1, or a threshold outside of (0, 1]."""
    if x.ndim != 2:
        raise ValueError(f"similar rows: got an array of shape {x.shape}; expected a matrix; reshape it to rows")
    if count < 1:
        raise ValueError(f"similar rows: got count={count}; expected at least 1")
    if not 0 < threshold <= 1:
        raise ValueError(f"similar rows: got threshold={threshold}; expected a similarity above 0, at most 1")
