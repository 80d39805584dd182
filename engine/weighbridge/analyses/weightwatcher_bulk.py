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
    """The bulk under eigenvalues of matrices of a `shape`, the long side first."""
    from scipy.optimize import brute

    total = float(eigenvalues.sum())
    if eigenvalues.size < 2 or not total > 0:
        return Bulk(np.nan, np.nan, 0)
    scaled = eigenvalues * (eigenvalues.size / total)
    long, short = shape
    root = np.sqrt(short / long)
    fitted = np.sqrt(scaled) if long == short else scaled
    at = np.linspace(0, fitted.max() + 0.5, _POINTS)
    observed = triangular_density(fitted, at)
    kept = observed > _EMPTY
    at, observed = at[kept], observed[kept]
    largest = np.sqrt(scaled.max()) / (1 + root)
    low, high, step = (factor * largest for factor in _SIGMAS)
    cost = _semicircle_cost if long == short else _bulk_cost
    found = brute(cost, (slice(low, high, step),), args=(at, observed, root), full_output=True)
    sigma = float(found[0][0])
    edge = (sigma * (1 + root)) ** 2
    width = np.sqrt(root * edge ** (2 / 3) * short ** (-2 / 3))
    return Bulk(sigma, edge / float(scaled.max()), int((scaled > edge + width).sum()))


def triangular_density(values: FloatArray, at: FloatArray) -> FloatArray:
    """The density of `values` smoothed by a triangle that reaches to the bandwidth on each side."""
    rise = np.maximum(1 - np.abs(at[:, None] - values) / _BANDWIDTH, 0)
    smoothed: FloatArray = rise.sum(axis=1) / (values.size * _BANDWIDTH)
    return smoothed


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


def _semicircle_cost(parameters: FloatArray, at: FloatArray, observed: FloatArray, root: float) -> float:
    residuals = np.sqrt(np.maximum(4 - at * at, 0)) / (np.pi * float(parameters[0]) ** 2) - observed
    return float(residuals @ residuals)
