"""What singular values say of a matrix: norms, ranks and how evenly its energy is spread. NumPy alone."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_RANK_EPS = float(np.finfo(np.float32).eps)
_GRAM_EPS = 4 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class SpectralMetrics:
    """Of singular values s, greatest first, in units of the weights; with eigenvalues l = s² and p = s / sum(s).

    `spectral_norm` s_1, `frobenius_norm` sqrt(sum(l)), `nuclear_norm` sum(s); `stable_rank` sum(l) / l_1;
    `effective_rank` exp(-sum(p log p)) (Roy and Vetterli 2007); `participation_ratio` sum(l)² / sum(l²); `rank` how
    many exceed `rank_tolerance` = s_1 · max(shape) · 2^-23; `condition` s_1 / s_last, infinite where that is within the
    tolerance. Of a zero matrix norms and ranks are 0 and the rest NaN.
    """

    spectral_norm: float
    frobenius_norm: float
    nuclear_norm: float
    stable_rank: float
    effective_rank: float
    participation_ratio: float
    rank: int
    rank_tolerance: float
    condition: float


def spectral_metrics(singular_values: FloatArray, shape: tuple[int, int]) -> SpectralMetrics:
    """The metrics of all singular values of a matrix of a `shape`."""
    s = np.sort(np.asarray(singular_values, np.float64))[::-1]
    top = float(s[0]) if s.size else 0.0
    if top == 0:
        return SpectralMetrics(0.0, 0.0, 0.0, np.nan, np.nan, np.nan, 0, 0.0, np.nan)
    t = s / top  # so that squares stay in range
    energy = t * t
    p = t[t > 0] / t.sum()
    tolerance = max(shape) * _RANK_EPS
    return SpectralMetrics(
        spectral_norm=top,
        frobenius_norm=top * float(np.sqrt(energy.sum())),
        nuclear_norm=top * float(t.sum()),
        stable_rank=float(energy.sum()),
        effective_rank=float(np.exp(-(p @ np.log(p)))),
        participation_ratio=float(energy.sum() ** 2 / (energy * energy).sum()),
        rank=int((t > tolerance).sum()),
        rank_tolerance=top * tolerance,
        condition=float(1 / t[-1]) if t[-1] > tolerance else np.inf,
    )


def entropy(singular_values: FloatArray) -> float:
    """-sum(p log p) / log(rank) of p = s² / sum(s²): 1 for equal values, NaN for fewer than two."""
    energy = np.square(np.asarray(singular_values, np.float64))
    p = energy[energy > 0] / energy.sum() if energy.any() else energy[:0]
    return float(-(p @ np.log(p)) / np.log(p.size)) if p.size > 1 else np.nan


def spectral_distance(a: FloatArray, b: FloatArray) -> float:
    """Jensen-Shannon distance of two sets of n singular values, 0 to 1 (in bits, rooted).

    Of their histograms in sqrt(n), but at most 100, equal bins from 0 to the greatest of both: of finer ones chance
    alone would make a distance. NaN where one is empty or all are 0.
    """
    top = max(a.max(initial=0), b.max(initial=0))
    if not (a.size and b.size and top > 0):
        return np.nan
    bins = int(np.clip(np.sqrt(min(a.size, b.size)), 1, 100))
    p, q = (np.histogram(values, bins, range=(0, top))[0] / values.size for values in (a, b))
    middle = (p + q) / 2
    divergence = sum(float(d[d > 0] @ np.log2(d[d > 0] / middle[d > 0])) for d in (p, q)) / 2
    return float(np.sqrt(max(divergence, 0.0)))


def gram_floor(greatest: float, side: int) -> float:
    """The singular value below which those of a Gram matrix of a `side` are noise: greatest · sqrt(side · 4 eps)."""
    return greatest * float(np.sqrt(side * _GRAM_EPS))
