"""Whether the tail of a spectrum falls as a power, and how steeply: maximum likelihood over every place it may begin.

Source: Clauset, Shalizi and Newman 2009, "Power-law distributions in empirical data", SIAM Review 51, 661-703,
doi:10.1137/070710111, for continuous data. NumPy alone.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_CELLS = 1 << 16
"""Pairs of candidate and value that are looked at together: as many as stay in a processor's cache."""


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """A density proportional to x^-alpha from `xmin` to the greatest value, `xmax`.

    `distance` is that of Kolmogorov and Smirnov between the `tail` values from xmin on and the law; `sigma` the
    standard error of alpha, (alpha - 1) / sqrt(tail). All NaN where fewer than two different values are positive.
    """

    alpha: float
    sigma: float
    xmin: float
    xmax: float
    distance: float
    tail: int


NO_LAW = PowerLaw(np.nan, np.nan, np.nan, np.nan, np.nan, 0)


def power_law(values: npt.ArrayLike, *, xmin: float | None = None) -> PowerLaw:
    """The law of the tail from `xmin` on, by default from the candidate whose tail is nearest to its law.

    Candidates are all different positive values but the greatest. For a tail of n values alpha = 1 + n / sum(log(x /
    xmin)) and distance = max |F(x_j) - j / n| over the sorted tail, j from 0. float64 throughout; zeros, negative
    numbers, NaN and Inf are passed over.
    """
    x = np.asarray(values, np.float64)
    x = np.sort(x[np.isfinite(x) & (x > 0)])
    if xmin is not None:
        return _law_from(x[x >= xmin], xmin)
    if x.size < 2 or x[0] == x[-1]:
        return NO_LAW
    starts = np.flatnonzero(np.diff(x, prepend=-1.0) > 0)
    starts = starts[x[starts] < x[-1]]
    logs = np.log(x)
    n = x.size - starts
    sums = np.cumsum(logs[::-1])[::-1][starts] - n * logs[starts]
    alphas = 1 + n / sums
    distances = _distances(logs, starts, alphas)
    best = int(np.argmin(distances))
    tail = int(n[best])
    alpha = float(alphas[best])
    start = float(x[starts[best]])
    return PowerLaw(alpha, (alpha - 1) / np.sqrt(tail), start, float(x[-1]), float(distances[best]), tail)


def _law_from(tail: FloatArray, xmin: float) -> PowerLaw:
    total = float(np.log(tail / xmin).sum()) if tail.size else 0.0
    if total == 0:
        return NO_LAW
    n = tail.size
    alpha = 1 + n / total
    law = 1 - (tail / xmin) ** (1 - alpha)
    distance = float(np.abs(law - np.arange(n) / n).max())
    return PowerLaw(alpha, (alpha - 1) / np.sqrt(n), xmin, float(tail[-1]), distance, n)


def _distances(logs: FloatArray, starts: npt.NDArray[np.int64], alphas: FloatArray) -> FloatArray:
    """The distance of each candidate's tail, by as many candidates at a time as fit."""
    found = np.empty(starts.size)
    first = 0
    while first < starts.size:
        width = logs.size - starts[first]
        last = min(first + max(_CELLS // width, 1), starts.size)
        found[first:last] = _distances_of(logs[starts[first] :], starts[first:last] - starts[first], alphas[first:last])
        first = last
    return found


def _distances_of(logs: FloatArray, starts: npt.NDArray[np.int64], alphas: FloatArray) -> FloatArray:
    beyond = np.maximum(logs[None, :] - logs[starts][:, None], 0)
    law = -np.expm1((1 - alphas)[:, None] * beyond)
    place = np.arange(logs.size)[None, :] - starts[:, None]
    counted = place / (logs.size - starts)[:, None]
    distances: FloatArray = np.where(place >= 0, np.abs(law - counted), 0.0).max(axis=1)
    return distances
