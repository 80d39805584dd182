"""Which of many differences between two groups are beyond chance, and how sure each is: permutation and bootstrap.

Relabelled groups and resampled inputs are rows of weights, so that all of them together are one matrix product.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

_BLOCK = 256
"""Rows of weights at a time."""
_LEAST_SPREAD = 1e-6
"""Of the greatest: units that spread less are constant but for rounding."""
_TIE = 1e-5
"""Relative: statistics this near are equal but for rounding."""

FloatArray = npt.NDArray[np.float64]


class MaxT(NamedTuple):
    """Of each unit its statistic, the family-wise adjusted p and the difference that the level asks for."""

    statistic: FloatArray
    p: FloatArray
    threshold: FloatArray
    greatest: FloatArray
    """The greatest statistic of each permutation."""


def max_t(values: Any, first: int, *, paired: bool, permutations: int, level: float, key: Sequence[int]) -> MaxT:
    """Single-step max-T test of a difference of means for every column of values (inputs, units).

    Rows before `first` are one group. The statistic of two groups is the difference of means over the standard
    deviation of all rows together, times sqrt(n₁n₂/n); of pairs, whose second halves follow in order, the mean
    difference over its root mean square, times sqrt(n). Both grow with Student's t by one function for all units, and
    their denominators are the same in every permutation. These permute the groups' labels, or flip the signs of pairs
    at random. With B of them p = (1 + #{greatest |statistic| >= |own|}) / (1 + B), which holds the chance of any false
    find at the level, whatever the dependence between units, where nothing but chance tells the groups apart (the null
    of a permutation test). Of two groups of equal means but other spreads, and of very unequal sizes, the smaller one
    the wider, it finds too many; of groups of one size it does not. Constant columns have statistic 0, columns with
    NaN have NaN throughout. Products in float32 at the highest precision.

    Source: Westfall and Young 1993, "Resampling-based multiple testing", section 2.6; Phipson and Smyth 2010,
    doi:10.2202/1544-6115.1585 (the ones in p).
    """
    x = np.asarray(values, np.float64)
    if paired:
        x = x[:first] - x[first:]
        scale = np.sqrt((x**2).mean(axis=0))
        weights = np.full(len(x), 1 / np.sqrt(len(x)))
    else:
        n, second = len(x), len(x) - first
        x = x - x.mean(axis=0)
        scale = np.sqrt((x**2).mean(axis=0))
        weights = np.where(np.arange(n) < first, 1 / first, -1 / second) * np.sqrt(first * second / n)
    known = np.isfinite(scale)
    tested = known & (scale > _LEAST_SPREAD * np.max(scale[known], initial=0.0))
    standard = np.where(tested, x, 0.0) / np.where(tested, scale, 1.0)
    held, rng = jnp.asarray(standard, jnp.float32), np.random.default_rng(key)
    observed = weights @ standard
    blocks = []
    for _ in range(0, permutations, _BLOCK):
        drawn = relabelled(weights, rng, _BLOCK, paired=paired).astype(np.float32)
        blocks.append(np.asarray(_greatest(drawn, held), np.float64))
    greatest = np.sort(np.concatenate(blocks)[:permutations])
    reached = permutations - np.searchsorted(greatest, np.abs(observed) * (1 - _TIE))
    p = (1 + reached) / (1 + permutations)
    most = int(np.floor(level * (1 + permutations) + 1e-9))
    critical = greatest[permutations - most] if most >= 1 else np.inf
    unit = scale * np.sqrt(1 / len(x)) if paired else scale * np.sqrt(len(x) / (first * (len(x) - first)))
    nothing = np.where(known, 0.0, np.nan)
    return MaxT(
        np.where(tested, observed, nothing),
        np.where(tested, p, np.where(known, 1.0, np.nan)),
        critical * np.where(known, unit, np.nan),
        greatest,
    )


def relabelled(weights: FloatArray, rng: np.random.Generator, count: int, *, paired: bool) -> FloatArray:
    """Weights of so many permutations, (count, inputs)."""
    if paired:
        return np.asarray(weights * rng.choice(np.array([-1.0, 1.0]), size=(count, len(weights))))
    return np.asarray(rng.permuted(np.broadcast_to(weights, (count, len(weights))), axis=1))


@jax.jit
def _greatest(weights: Any, x: Any) -> Any:
    return jnp.abs(_product(weights, x)).max(axis=1, initial=0.0)


def _product(weights: Any, x: Any) -> Any:
    return jnp.matmul(weights, x, precision=lax.Precision.HIGHEST)


def intervals(
    values: Any,
    first: int,
    coefficients: Sequence[float],
    *,
    paired: bool,
    resamples: int,
    level: float,
    key: Sequence[int],
) -> tuple[FloatArray, FloatArray]:
    """Percentile bootstrap of c₁ · mean of the first group + c₂ · mean of the second, for each column: (low, high).

    Groups are resampled each by itself, pairs as pairs; the same draws serve all columns. Intervals leave `level` out,
    half of it on either side. A group without rows has a mean of 0; NaN in a column makes its interval NaN.

    Source: Efron and Tibshirani 1993, "An introduction to the bootstrap", chapter 13.
    """
    x = np.asarray(values, np.float64)
    sizes = first, len(x) - first
    rng = np.random.default_rng(key)
    drawn = np.empty((resamples, x.shape[1]))
    for start in range(0, resamples, _BLOCK):
        count = min(_BLOCK, resamples - start)
        times = [rng.multinomial(n, np.full(n, 1 / n), count) if n else np.zeros((count, 0)) for n in sizes]
        if paired:
            times[1] = times[0]
        parts = [c / max(n, 1) * t for c, n, t in zip(coefficients, sizes, times, strict=True)]
        drawn[start : start + count] = np.concatenate(parts, axis=1) @ x
    low, high = np.quantile(drawn, [level / 2, 1 - level / 2], axis=0)
    return low, high
