"""How much of a neighbourhood a map of few dimensions keeps, in blocks of rows: memory is a block times all rows.

NumPy alone; float64. Rows tied in distance share the best rank that any of them has, so that ties cost no trust.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Metric = Literal["euclidean", "cosine"]
Distances = Callable[[IntArray], FloatArray]
"""Of some rows [b] to all [b, n], in the order of the distances; infinite from a row to itself."""

_CELLS = 1 << 21
"""Distances held at a time: 16 MiB."""
_FEW = 4
"""Dimensions up to which distances are sums of squared differences, exact for near neighbours."""


@dataclass(frozen=True, slots=True)
class Quality:
    """A mean over rows and its standard error, which is 0 where all `rows` of the map were taken."""

    value: float
    standard_error: float
    rows: int


def trustworthiness(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    *,
    neighbours: int = 5,
    metric: Metric = "euclidean",
    rows: int | None = None,
    key: int = 0,
) -> Quality:
    """Of a map y [n, c] of the rows of x [n, d]: 1 where no neighbour in the map is a stranger in x, 0 at worst.

    `1 - 2 / (n k (2n - 3k - 1)) · sum over i, and j among the k nearest to i in y, of max(0, r(i, j) - k)`, where j is
    the r-th nearest to i in x by `metric`; distances in y are euclidean. Equal to scikit-learn's
    `trustworthiness(x, y, n_neighbors=k)` where no distances are tied. With `rows`, the mean over so many drawn by
    `key`, each ranked among all n, with its standard error.

    Raises `ValueError` for NaN or Inf, for maps of other rows, and unless 1 <= k < n / 2.

    Source: Venna and Kaski 2001, "Neighborhood preservation in nonlinear projection methods: an experimental study",
    doi:10.1007/3-540-44668-0_68.
    """
    _check(x, y, metric, neighbours, len(x) / 2, rows)
    n, k = len(x), neighbours
    inputs, outputs = distances(x, metric), distances(y, "euclidean")

    def penalties(block: IntArray) -> FloatArray:
        ranks = ranks_of(inputs(block), nearest(outputs(block), k))
        beyond: FloatArray = np.maximum(ranks - k, 0).sum(axis=1) * (2 / (k * (2 * n - 3 * k - 1)))
        return beyond

    return _mean(lambda block: 1 - penalties(block), n, rows, key)


def neighbour_recall(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    *,
    neighbours: int = 5,
    metric: Metric = "euclidean",
    rows: int | None = None,
    key: int = 0,
) -> Quality:
    """Share of the k nearest neighbours in x, by `metric`, that are among the k nearest in the map y.

    `rows`, `key`, errors and distances in y as in `trustworthiness`, but 1 <= k < n. Of rows tied in distance either
    may count as a neighbour.
    """
    _check(x, y, metric, neighbours, len(x), rows)
    n, k = len(x), neighbours
    inputs, outputs = distances(x, metric), distances(y, "euclidean")

    def recall(block: IntArray) -> FloatArray:
        before, after = nearest(inputs(block), k), nearest(outputs(block), k)
        shares: FloatArray = (before[:, :, None] == after[:, None, :]).sum(axis=(1, 2)) / k
        return shares

    return _mean(recall, n, rows, key)


def distances(x: npt.NDArray[Any], metric: Metric) -> Distances:
    """Squared euclidean distances between rows, or 1 less their cosines, of which a row of zeros has 0 with all."""
    y = x.astype(np.float64)
    if metric == "cosine":
        norms = np.linalg.norm(y, axis=1, keepdims=True)
        return partial(_less_cosines, y / np.where(norms > 0, norms, 1))
    if y.shape[1] <= _FEW:
        return partial(_sums_of_squares, y)
    y -= y.mean(axis=0)
    return partial(_by_products, y, np.einsum("ij,ij->i", y, y))


def nearest(far: FloatArray, count: int) -> IntArray:
    """Which `count` columns are least in each row [b, count], in no order."""
    return np.argpartition(far, count - 1, axis=1)[:, :count]


def ranks_of(far: FloatArray, columns: IntArray) -> IntArray:
    """The rank in its row, from 1, of each of some columns [b, k]: one more than how many are strictly less."""
    limits = np.take_along_axis(far, columns, axis=1)
    return 1 + np.stack([(far < limit[:, None]).sum(axis=1) for limit in limits.T], axis=1)


def _less_cosines(y: FloatArray, block: IntArray) -> FloatArray:
    return _without_itself(1 - y[block] @ y.T, block)


def _sums_of_squares(y: FloatArray, block: IntArray) -> FloatArray:
    far = np.zeros((len(block), len(y)))
    for column in y.T:
        far += np.square(column[block][:, None] - column[None, :])
    return _without_itself(far, block)


def _by_products(y: FloatArray, squares: FloatArray, block: IntArray) -> FloatArray:
    far = y[block] @ y.T
    far *= -2
    far += squares[block][:, None]
    far += squares[None, :]
    return _without_itself(far, block)


def _without_itself(far: FloatArray, block: IntArray) -> FloatArray:
    far[np.arange(len(block)), block] = np.inf
    return far


def _mean(of_rows: Callable[[IntArray], FloatArray], n: int, rows: int | None, key: int) -> Quality:
    """The mean of a figure of each row, or of a sample without replacement, whose error is that of a finite whole."""
    chosen = np.arange(n) if rows is None else np.random.default_rng(key).permutation(n)[:rows]
    step = max(_CELLS // n, 1)
    figures = np.concatenate([of_rows(chosen[start : start + step]) for start in range(0, len(chosen), step)])
    m = len(figures)
    if m == n:
        return Quality(float(figures.mean()), 0.0, n)
    error = float(figures.std(ddof=1)) * np.sqrt((1 - m / n) / m) if m > 1 else np.nan
    return Quality(float(figures.mean()), float(error), m)


def _check(
    x: npt.NDArray[Any], y: npt.NDArray[Any], metric: str, neighbours: int, below: float, rows: int | None
) -> None:
    what = "projection_quality:"
    if len(x) != len(y):
        raise ValueError(f"{what} a map of {len(y)} rows for {len(x)}; expected as many: pass the same rows")
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f"{what} a metric of {metric!r}; expected 'euclidean' or 'cosine'")
    if not 1 <= neighbours < below:
        raise ValueError(f"{what} {neighbours} neighbours of {len(x)} rows; expected 1 and more, below {below:g}")
    if rows is not None and rows < 1:
        raise ValueError(f"{what} a sample of {rows} rows; expected at least 1, or None for all")
    _check_finite(x, "the rows")
    _check_finite(y, "the map")


def _check_finite(x: npt.NDArray[Any], name: str) -> None:
    (bad,) = np.nonzero(~np.isfinite(x).all(axis=1))
    if bad.size:
        raise ValueError(
            f"projection_quality: row {bad[0]} of {name} holds NaN or Inf, and {bad.size - 1} others do; expected "
            "finite entries: leave these rows out of both"
        )
