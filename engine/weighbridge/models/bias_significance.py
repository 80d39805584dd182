"""Which of many differences between two groups are beyond chance, and how sure each is: permutation and bootstrap.

Relabelled groups and resampled inputs are rows of weights, so that all of them together are one matrix product.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

_BLOCK = 256
"""Rows of weights at a time,"""
_COLUMNS = 8192
"""and units, for which all resampled means are held."""
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


def max_t(values: Any, first: int, *, paired: bool, permutations: int, level: float, key: Any) -> MaxT:
    """Single-step max-T test of a difference of means for every column of values (inputs, units).

    Rows before `first` are one group. The statistic of two groups is the difference of means over the standard
    deviation of all rows together, times sqrt(n₁n₂/n); of pairs, whose second halves follow in order, the mean
    difference over its root mean square, times sqrt(n). Both grow with Student's t by one function for all units, and
    their denominators are the same in every permutation. These permute the groups' labels, or flip the signs of pairs
    at random. With B of them p = (1 + #{greatest |statistic| >= |own|}) / (1 + B), which holds the chance of any false
    find at the level, whatever the dependence between units. Constant columns have statistic 0, columns with NaN have
    NaN throughout. Products in float32 at the highest precision.

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
    held, w = jnp.asarray(standard, jnp.float32), jnp.asarray(weights, jnp.float32)
    observed = np.asarray(_product(w[None], held), np.float64)[0]
    blocks = [
        np.asarray(_greatest(held, w, key, jnp.int32(i), paired), np.float64) for i in range(0, permutations, _BLOCK)
    ]
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


def relabelled(weights: Any, key: Any, first: Any, count: int, paired: bool) -> Any:
    """Weights of `count` permutations from number `first` on, (count, inputs): each depends on key and number alone."""
    keys = jax.vmap(partial(jax.random.fold_in, key))(first + jnp.arange(count))
    if paired:
        return jax.vmap(lambda k: jax.random.rademacher(k, weights.shape, weights.dtype) * weights)(keys)
    return jax.vmap(lambda k: jax.random.permutation(k, weights))(keys)


@partial(jax.jit, static_argnums=4)
def _greatest(x: Any, weights: Any, key: Any, first: Any, paired: bool) -> Any:
    return jnp.abs(_product(relabelled(weights, key, first, _BLOCK, paired), x)).max(axis=1, initial=0.0)


def _product(weights: Any, x: Any) -> Any:
    return jnp.matmul(weights, x, precision=lax.Precision.HIGHEST)


def intervals(
    values: Any,
    first: int,
    coefficients: tuple[float, float],
    *,
    paired: bool,
    resamples: int,
    level: float,
    key: Any,
) -> tuple[FloatArray, FloatArray]:
    """Percentile bootstrap of c₁ · mean of the first group + c₂ · mean of the second, for each column: (low, high).

    Groups are resampled each by itself, pairs as pairs; the same draws serve all columns. Intervals leave `level` out,
    half of it on either side. A group without rows has a mean of 0; NaN in a column makes its interval NaN.

    Source: Efron and Tibshirani 1993, "An introduction to the bootstrap", chapter 13.
    """
    x = np.asarray(values, np.float64)
    centre = np.nan_to_num(x.mean(axis=0) if len(x) else np.zeros(x.shape[1]))
    second = len(x) - first
    offset = centre * ((coefficients[0] if first else 0.0) + (coefficients[1] if second else 0.0))
    ends = []
    for start in range(0, x.shape[1], _COLUMNS):
        held = jnp.asarray(x[:, start : start + _COLUMNS] - centre[start : start + _COLUMNS], jnp.float32)
        c = jnp.asarray(coefficients, jnp.float32)
        drawn = [
            np.asarray(_resampled(held, c, key, jnp.int32(i), first, paired), np.float64)
            for i in range(0, resamples, _BLOCK)
        ]
        ends.append(np.quantile(np.concatenate(drawn)[:resamples], [level / 2, 1 - level / 2], axis=0))
    low, high = np.concatenate(ends, axis=1) if ends else np.zeros((2, 0))
    return low + offset, high + offset


@partial(jax.jit, static_argnums=(4, 5))
def _resampled(x: Any, coefficients: Any, key: Any, start: Any, first: int, paired: bool) -> Any:
    """Resampled sums of both groups' means, (block, columns)."""
    keys = jax.vmap(partial(jax.random.fold_in, key))(start + jnp.arange(_BLOCK))
    sizes = first, len(x) - first

    def weights(k: Any) -> Any:
        parts = []
        for i, size in enumerate(sizes):
            own = k if paired else jax.random.fold_in(k, i)
            drawn = jax.random.randint(own, (size,), 0, max(size, 1))
            parts.append(jnp.zeros(size).at[drawn].add(coefficients[i] / max(size, 1)))
        return jnp.concatenate(parts)

    return _product(jax.vmap(weights)(keys), x)
