"""How alike what matrices do with a shared axis is, whatever their other axes: debiased linear CKA.

Kornblith et al. 2019, arXiv 1905.00414, with the unbiased estimator HSIC_1 of Song et al. 2012, "Feature selection via
dependence maximization", as Nguyen et al. 2021, arXiv 2010.15327, use it. The plain estimator tends to 1 where the
shared axis is short and the others are long; this one is about 0 for unrelated matrices. NumPy alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Matrix = npt.NDArray[Any]

_STRIP_BYTES = 1 << 28
"""Memory of the strips of all Gram matrices that are held at once."""
_ROUNDING = 1e-13
"""Of the trace of a Gram matrix, whose norm is at least that over the root of its rank."""


@dataclass(frozen=True, slots=True)
class CkaNull:
    """What debiased CKA of matrices of independent directions, with the same row norms, comes to by chance."""

    mean: FloatArray
    std: FloatArray


def debiased_cka(matrices: Sequence[Matrix], *, strip_bytes: int = _STRIP_BYTES) -> FloatArray:
    """CKA of all pairs of matrices [d, p_i], whose rows are the shared axis: symmetric, 1 on the diagonal.

    Equivalent to `hsic(K, L) / sqrt(hsic(K, K) * hsic(L, L))` of Gram matrices K = X X^T whose diagonal is 0, where
    d (d - 3) hsic(K, L) = tr(K L) + 1'K1 1'L1 / ((d - 1)(d - 2)) - 2 1'KL1 / (d - 2), which centres by itself. That is
    the cosine of U-centred Gram matrices (Székely and Rizzo 2014, doi:10.1214/14-AOS1255), which is summed here over
    strips of their rows in float64: never are the Gram matrices of all in memory. May be below 0 by chance. Without
    dimension and whatever the scale. NaN where d < 4, a matrix has NaN or Inf, or its rows are all at one distance.
    Raises ValueError for matrices that share no axis.
    """
    sizes = {x.shape[0] for x in matrices}
    if len(sizes) > 1 or any(x.ndim != 2 for x in matrices):
        raise ValueError(f"debiased_cka: got shapes {[x.shape for x in matrices]}; expected one number of rows")
    d, m = max(sizes, default=0), len(matrices)
    if d < 4:
        return np.full((m, m), np.nan)
    sums = [_off_diagonal_row_sums(_scaled(x)) for x in matrices]
    products = np.zeros((m, m))
    step = max(strip_bytes // (8 * d * m), 1)
    for start in range(0, d, step):
        rows = slice(start, min(start + step, d))
        strips = np.stack(
            [_centred_strip(_scaled(x), total, rows).ravel() for x, total in zip(matrices, sums, strict=True)]
        )
        products += strips @ strips.T
    return _cosines(products, np.array([np.square(_scaled(x)).sum() for x in matrices]))


def cka_null(matrices: Sequence[Matrix], *, key: int, draws: int = 4) -> CkaNull:
    """Mean and standard deviation over draws of `debiased_cka` of random matrices.

    Each row has a direction from the uniform distribution, independently, and its own norm: what row norms alone, and
    chance, make of the pair. `key` seeds the draws. Of one draw the deviation is NaN.
    """
    norms = [np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in matrices]
    found = np.stack(
        [
            debiased_cka(
                [
                    _random_rows(np.random.default_rng((key, draw, i)), norm, x.shape[1])
                    for i, (x, norm) in enumerate(zip(matrices, norms, strict=True))
                ]
            )
            for draw in range(draws)
        ]
    )
    std = found.std(axis=0, ddof=1) if draws > 1 else np.full(found.shape[1:], np.nan)
    return CkaNull(found.mean(axis=0), std)


def _random_rows(rng: np.random.Generator, norms: FloatArray, cols: int) -> FloatArray:
    x = rng.standard_normal((norms.shape[0], cols))
    x *= norms / np.linalg.norm(x, axis=1, keepdims=True)
    return x


def _scaled(x: Matrix) -> FloatArray:
    """In float64, over the greatest magnitude, so that squares exist; all NaN where an entry is not finite."""
    y = x.astype(np.float64)
    top = float(np.abs(y).max(initial=0))
    return y / top if 0 < top < np.inf else np.where(top == 0, y, np.nan)


def _off_diagonal_row_sums(x: FloatArray) -> FloatArray:
    """Sums of the rows of X X^T without its diagonal."""
    sums: FloatArray = x @ x.sum(axis=0) - np.square(x).sum(axis=1)
    return sums


def _centred_strip(x: FloatArray, sums: FloatArray, rows: slice) -> FloatArray:
    """Rows of the U-centred Gram matrix: off its diagonal every row sums to 0."""
    d = x.shape[0]
    strip = x[rows] @ x.T
    strip -= sums[rows, None] / (d - 2)
    strip -= sums / (d - 2) - sums.sum() / ((d - 1) * (d - 2))
    strip[np.arange(strip.shape[0]), np.arange(rows.start, rows.stop)] = 0
    return strip


def _cosines(products: FloatArray, traces: FloatArray) -> FloatArray:
    """Products over those with themselves; NaN where what centring leaves of a Gram matrix is rounding."""
    sizes = np.sqrt(np.diagonal(products))
    sizes = np.where(sizes > _ROUNDING * traces, sizes, np.nan)
    return products / sizes[:, None] / sizes
