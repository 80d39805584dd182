"""How near neighbours are to each other as probabilities: the graph that an embedding keeps.

Source: van der Maaten and Hinton 2008, "Visualizing data using t-SNE", JMLR 9, 2579-2605; over the nearest neighbours
alone: van der Maaten 2014, "Accelerating t-SNE using tree-based algorithms", JMLR 15, 3221-3245. NumPy alone.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_ROWS = 4096
"""Points that are calibrated together."""
_BISECTIONS = 100
_TOLERANCE = 1e-8
"""Of the entropy, in nats."""
_ROUNDING = 1e-4
"""How far below zero, relative to the greatest distance, 1 - cos may round."""


@dataclass(frozen=True, slots=True)
class Graph:
    """Symmetric affinities of n points, row by row (CSR): P[i, indices[e]] = weights[e], indptr[i] <= e < indptr[i+1].

    The weights are positive or zero and sum to 1; indices rise within a row. `perplexity` is the one used.
    """

    indptr: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int32]
    weights: FloatArray
    perplexity: float

    @property
    def n(self) -> int:
        return self.indptr.size - 1


def neighbours_needed(perplexity: float, n: int) -> int:
    """How many nearest neighbours of each of n points `affinities` looks at: ceil(3 * perplexity), n - 1 at most."""
    return max(min(n - 1, math.ceil(3 * perplexity)), 0)


def affinities(
    distances: npt.NDArray[np.floating[Any]],
    indices: npt.NDArray[np.integer[Any]],
    perplexity: float = 30.0,
    *,
    kind: Literal["plain", "squared"] = "plain",
) -> Graph:
    """P = (C + C.T) / 2n, where row i of C is a Gaussian of the distances from point i to its k nearest neighbours.

    C[i, j] = exp(-b_i d_ij^2) / sum_j exp(-b_i d_ij^2), with b_i such that the row's entropy is log(perplexity), within
    1e-8. `distances` and `indices` are [n, k], nearest first, the point itself left out; the first ceil(3 * perplexity)
    columns are used. With fewer, which n - 1 < 3 * perplexity forces, the perplexity is lowered to k / 3, that is (n -
    1) / 3 where all others are given. (openTSNE 1.0.4 lowers it to the same, but only where k < perplexity.)

    `kind` says whether d or d^2 is given. Euclidean d is |x - y|; cosine d is 1 - cos(x, y), and its square stands in
    the Gaussian: what openTSNE does for `metric="cosine"` where it searches exactly or by NN-descent (its Annoy index
    gives the angular distance sqrt(2 - 2 cos) instead, which is the Euclidean one of rows scaled to length 1).

    float64. No entry of C is dropped: a hub has a long row. Where no b gives the perplexity (all distances equal, or
    more duplicates than it asks for) the row is what bisection tends to: even over the nearest. Raises `ValueError` for
    arrays of other shapes, distances that are not finite or negative beyond rounding, indices out of range or of the
    point itself, a perplexity that is not positive.
    """
    k = math.ceil(3 * _checked_perplexity(perplexity))
    _check_neighbours(distances, indices)
    return calibrated(_squares(distances[:, :k], kind), indices[:, :k], perplexity)


def calibrated(squares: FloatArray, indices: npt.NDArray[np.integer[Any]], perplexity: float) -> Graph:
    """`affinities` of squared distances over all columns given, unchecked."""
    perplexity = min(perplexity, squares.shape[1] / 3)
    conditional = np.empty(squares.shape)
    for start in range(0, len(squares), _ROWS):
        rows = slice(start, start + _ROWS)
        conditional[rows] = _gaussians(squares[rows], perplexity)
    return _symmetrised(conditional, indices, perplexity)


def _checked_perplexity(perplexity: float) -> float:
    if not (math.isfinite(perplexity) and perplexity > 0):
        raise ValueError(f"affinities: perplexity {perplexity}; expected a positive number, such as 30")
    return perplexity


def _check_neighbours(distances: npt.NDArray[Any], indices: npt.NDArray[Any]) -> None:
    if distances.ndim != 2 or distances.shape != indices.shape:
        raise ValueError(
            f"affinities: distances {distances.shape} and indices {indices.shape}; expected one shape [points, "
            "neighbours] for both; pass what one search gave"
        )
    if not np.isfinite(distances).all():
        row = int(np.flatnonzero(~np.isfinite(distances).all(axis=1))[0])
        raise ValueError(
            f"affinities: distances of point {row} hold NaN or Inf; expected finite numbers; leave out points that are "
            "not finite before the search"
        )
    n = len(indices)
    own = indices == np.arange(n)[:, None]
    if own.any() or ((indices < 0) | (indices >= n)).any():
        row = int(np.flatnonzero((own | (indices < 0) | (indices >= n)).any(axis=1))[0])
        raise ValueError(
            f"affinities: neighbours {indices[row].tolist()[:8]} of point {row}; expected other points, 0 to {n - 1}; "
            "leave the point itself and missing neighbours out of the search's answer"
        )


def _squares(distances: npt.NDArray[Any], kind: Literal["plain", "squared"]) -> FloatArray:
    d = distances.astype(np.float64)
    if d.size and d.min() < -_ROUNDING * np.abs(d).max():
        row = int(np.argmin(d.min(axis=1)))
        raise ValueError(
            f"affinities: distance {d.min():g} of point {row}; expected none below zero; for cosine give 1 - cos"
        )
    d = np.maximum(d, 0)
    return d if kind == "squared" else d * d


def _gaussians(squares: FloatArray, perplexity: float) -> FloatArray:
    """Rows of C.

    Distances are taken from the nearest and in units of their mean, which changes no C: the greatest term is then 1, no
    sum is 0, and the b sought is near 1 whatever the data's scale.
    """
    if squares.size == 0:
        return squares
    d = squares - squares.min(axis=1, keepdims=True)
    mean = d.mean(axis=1, keepdims=True)
    d /= np.where(mean > 0, mean, 1)
    e = np.exp(-_precisions(d, math.log(perplexity))[:, None] * d)
    normalised: FloatArray = e / e.sum(axis=1, keepdims=True)
    return normalised


def _precisions(d: FloatArray, entropy: float) -> FloatArray:
    """b of every row, by doubling and then bisection, while any row's entropy is off."""
    b, low, high = np.ones(len(d)), np.zeros(len(d)), np.full(len(d), np.inf)
    rows = np.arange(len(d))
    for _ in range(_BISECTIONS):
        off = _entropies(d[rows], b[rows]) - entropy
        rows, off = rows[np.abs(off) > _TOLERANCE], off[np.abs(off) > _TOLERANCE]
        if rows.size == 0:
            break
        low[rows] = np.where(off > 0, b[rows], low[rows])
        high[rows] = np.where(off > 0, high[rows], b[rows])
        b[rows] = np.where(np.isinf(high[rows]), 2 * b[rows], (low[rows] + high[rows]) / 2)
    return b


def _entropies(d: FloatArray, b: FloatArray) -> FloatArray:
    e = np.exp(-b[:, None] * d)
    total = e.sum(axis=1)
    entropies: FloatArray = b * (e * d).sum(axis=1) / total + np.log(total)
    return entropies


def _symmetrised(conditional: FloatArray, indices: npt.NDArray[Any], perplexity: float) -> Graph:
    """Both directions of every pair by one sort; at most two terms meet in a pair, so their order cannot matter."""
    n, k = conditional.shape
    own, other = np.repeat(np.arange(n, dtype=np.int64), k), indices.ravel().astype(np.int64)
    keys = np.concatenate([own * n + other, other * n + own])
    order = np.argsort(keys)
    keys = keys[order]
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    terms = np.tile(conditional.ravel(), 2)[order] / max(2 * n, 1)
    weights = np.add.reduceat(terms, first) if first.size else terms
    rows, columns = np.divmod(keys[first], max(n, 1))
    indptr = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=n), out=indptr[1:])
    return Graph(indptr, columns.astype(np.int32), weights, perplexity)
