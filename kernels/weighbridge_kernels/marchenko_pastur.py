"""What the spectrum of a matrix of independent entries looks like, and how far a spectrum is from it.

Sources: Marchenko and Pastur 1967, doi:10.1070/SM1967v001n04ABEH001994; the fit by the median is that of Gavish and
Donoho 2014, "The optimal hard threshold for singular values is 4/sqrt(3)", doi:10.1109/TIT.2014.2323359; the width of
the edge is that of Johnstone 2001, doi:10.1214/aos/1009210544. NumPy alone.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_POINTS = 20_001
_EDGE_WIDTHS = 2.0
"""Widths of the Tracy-Widom law that the greatest eigenvalue of noise exceeds once in a hundred times."""


@dataclass(frozen=True, slots=True)
class MarchenkoPastur:
    """A bulk of noise under a spectrum.

    `sigma` is the standard deviation of the entries of the noise, `low` and `high` the bulk's edges as eigenvalues
    (squared singular values), `spikes` how many eigenvalues lie beyond the upper one by more than noise of this size
    reaches once in a hundred times, and `soft_rank` = high / greatest eigenvalue (Martin and Mahoney 2021).
    """

    sigma: float
    low: float
    high: float
    spikes: int
    soft_rank: float


def marchenko_pastur(eigenvalues: FloatArray, shape: tuple[int, int]) -> MarchenkoPastur:
    """The bulk under the eigenvalues of the short side's Gram matrix of a `shape`, by their median.

    sigma² is the median eigenvalue over that of a matrix of unit noise. NaN where there is none or its median is 0.
    """
    long, short = max(shape), min(shape)
    median = float(np.median(eigenvalues)) if eigenvalues.size else 0.0
    if not median > 0:
        return MarchenkoPastur(np.nan, np.nan, np.nan, 0, np.nan)
    variance = median / (long * _median(short / long))
    low, high = (variance * (np.sqrt(long) + sign * np.sqrt(short)) ** 2 for sign in (-1, 1))
    width = variance * (np.sqrt(long) + np.sqrt(short)) * (1 / np.sqrt(long) + 1 / np.sqrt(short)) ** (1 / 3)
    spikes = int((eigenvalues > high + _EDGE_WIDTHS * width).sum())
    return MarchenkoPastur(float(np.sqrt(variance)), float(low), float(high), spikes, float(high / eigenvalues.max()))


def density(eigenvalues: FloatArray, sigma: float, shape: tuple[int, int]) -> FloatArray:
    """The density of Marchenko and Pastur at eigenvalues of a matrix of noise of a `shape`; 0 outside of the bulk."""
    long, ratio = max(shape), min(shape) / max(shape)
    x = np.asarray(eigenvalues, np.float64) / (sigma**2 * long)
    return _density(x, ratio) / (sigma**2 * long)


def _density(x: FloatArray, ratio: float) -> FloatArray:
    low, high = (1 - np.sqrt(ratio)) ** 2, (1 + np.sqrt(ratio)) ** 2
    inside = (x > low) & (x < high)
    safe = np.where(inside, x, 1.0)
    return np.where(inside, np.sqrt(np.maximum((high - safe) * (safe - low), 0)) / (2 * np.pi * ratio * safe), 0.0)


@lru_cache(maxsize=256)
def _median(ratio: float) -> float:
    """The median of the law for unit variance, over the long side: by its distribution on a grid fine at the edges."""
    low, high = (1 - np.sqrt(ratio)) ** 2, (1 + np.sqrt(ratio)) ** 2
    angle = np.linspace(0, np.pi, _POINTS)
    x = (low + high) / 2 - (high - low) / 2 * np.cos(angle)
    weight = _density(x, ratio) * np.sin(angle)
    cumulative = np.concatenate([[0.0], np.cumsum((weight[1:] + weight[:-1]) / 2)])
    return float(np.interp(0.5, cumulative / cumulative[-1], x))
