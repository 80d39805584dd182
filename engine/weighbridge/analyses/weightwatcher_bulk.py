"""The bulk of noise under a spectrum as WeightWatcher 0.7.7 fits it: by least squares to a density of the eigenvalues.

The fit by the median that the table `spectra` has (`weighbridge_kernels.marchenko_pastur`) needs none of the choices
made here: a triangular kernel of width 0.1 over 1,000 points, densities below 0.01 left out, and for square matrices
the semicircle of radius 2 over singular values whatever sigma is.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_BANDWIDTH = 0.1
_POINTS = 1000
_EMPTY = 0.01
_REFUSED = 1000.0
"""The residual at every point where a bulk does not bracket the mode."""
_SIGMAS = (0.05, 2.0, 0.01)
"""Least, greatest and step of the sigmas tried, over that whose bulk would end at the greatest eigenvalue."""


@dataclass(frozen=True, slots=True)
class Bulk:
    """`sigma` for eigenvalues scaled to a mean of 1; `soft_rank` is the bulk's upper edge over the greatest of them.

    `spikes` are those beyond the edge and the root of its Tracy-Widom width. NaN and 0 where there is nothing to fit.
    """

    sigma: float
    soft_rank: float
    spikes: int


def bulk(eigenvalues: FloatArray, shape: tuple[int, int]) -> Bulk:
    """The bulk under eigenvalues, least first, of matrices of a `shape`."""
    total = float(eigenvalues.sum())
    if eigenvalues.size < 2 or not total > 0:
        return Bulk(np.nan, np.nan, 0)
    scaled = eigenvalues * (eigenvalues.size / total)
    short, long = sorted(shape)
    root = float(np.sqrt(short / long))
    fitted = np.sqrt(scaled) if long == short else scaled
    at = np.linspace(0, fitted[-1] + 0.5, _POINTS)
    observed = triangular_density(fitted, at)
    kept = observed > _EMPTY
    if not kept.any():  # the points are too far apart for what lies between them
        return Bulk(np.nan, np.nan, 0)
    at, observed = at[kept], observed[kept]
    largest = float(np.sqrt(scaled[-1])) / (1 + root)
    sigma = _of_semicircle(at, observed) if long == short else _of_bulk(at, observed, root, largest)
    edge = (sigma * (1 + root)) ** 2
    width = np.sqrt(root * edge ** (2 / 3) * short ** (-2 / 3))
    return Bulk(sigma, edge / float(scaled[-1]), int((scaled > edge + width).sum()))


def triangular_density(values: FloatArray, at: FloatArray) -> FloatArray:
    """The density of sorted `values` smoothed by a triangle that reaches to the bandwidth on each side.

    Equivalent to `maximum(1 - abs(at[:, None] - values) / h, 0).sum(axis=1) / (values.size * h)`, by sums from the
    least value on.
    """
    below = np.concatenate([[0.0], np.cumsum(values)])
    left, middle, right = (np.searchsorted(values, at + reach) for reach in (-_BANDWIDTH, 0.0, _BANDWIDTH))
    rising = (middle - left) * (_BANDWIDTH - at) + below[middle] - below[left]
    falling = (right - middle) * (_BANDWIDTH + at) - below[right] + below[middle]
    smoothed: FloatArray = np.maximum(rising + falling, 0) / (values.size * _BANDWIDTH**2)
    return smoothed


def _of_semicircle(at: FloatArray, observed: FloatArray) -> float:
    """The sigma whose semicircle is nearest: least squares in 1 / sigma², which scales it. NaN where it meets none."""
    law = np.sqrt(np.maximum(4 - at * at, 0)) / np.pi
    overlap = float(law @ observed)
    return float(np.sqrt(law @ law / overlap)) if overlap > 0 else np.nan


def _of_bulk(at: FloatArray, observed: FloatArray, root: float, largest: float) -> float:
    """The sigma whose bulk is nearest, by trial and refinement."""
    from scipy.optimize import brute

    low, high, step = (factor * largest for factor in _SIGMAS)
    found = brute(_bulk_cost, (slice(low, high, step),), args=(at, observed, root), full_output=True)
    return float(found[0][0])


def _bulk_cost(parameters: FloatArray, at: FloatArray, observed: FloatArray, root: float) -> float:
    """Squared residuals against Marchenko and Pastur's law for one sigma, over the eigenvalues' mean."""
    sigma = float(parameters[0])
    low, high = (sigma * (1 - root)) ** 2, (sigma * (1 + root)) ** 2
    mode = at[observed.argmax()]
    if high < mode or high > at[-1] or low > mode:
        return at.size * _REFUSED**2
    inside = (at > low) & (at < high)
    law = np.sqrt(np.where(inside, (high - at) * (at - low), 0)) / (2 * np.pi * sigma**2 * root**2)
    residuals = law / np.where(at > 0, at, 1) - observed
    return float(residuals @ residuals)
