"""Host form of `nmf`: products by BLAS, sweeps by Numba, in blocks of rows."""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from weighbridge_kernels import nonnegative_factors
from weighbridge_kernels.nonnegative_factors import NMF, Factor, OneSidedNMF
from weighbridge_kernels.pca_host import back_project, eigenpairs, project
from weighbridge_kernels.spectrum_host import gram

__all__ = ["back_project", "eigenpairs", "nmf", "one_sided_nmf", "project"]

FloatArray = npt.NDArray[np.float64]

_BLOCK_ENTRIES = 1 << 22
"""16 MiB of float32: smaller ones fit a cache, but then BLAS's threads wait for each other more than for memory."""


def nmf(x: npt.NDArray[Any], count: int, *, iterations: int = 200, tolerance: float = 1e-4, key: int = 0) -> NMF:
    """See `weighbridge_kernels.nmf.nmf`."""
    return nonnegative_factors.nmf(sys.modules[__name__], x, count, iterations=iterations, tolerance=tolerance, key=key)


def one_sided_nmf(
    x: npt.NDArray[Any],
    count: int,
    *,
    axis: int = 1,
    iterations: int = 200,
    tolerance: float = 1e-4,
    key: int = 0,
) -> OneSidedNMF:
    """See `weighbridge_kernels.nmf.one_sided_nmf`."""
    return nonnegative_factors.one_sided_nmf(
        sys.modules[__name__], x, count, axis=axis, iterations=iterations, tolerance=tolerance, key=key
    )


def put(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """See `weighbridge_kernels.nmf.put`."""
    return np.asarray(x, np.float64 if x.dtype == np.float64 else np.float32)


def extremes(x: npt.NDArray[Any]) -> tuple[float, float]:
    """See `weighbridge_kernels.nmf.extremes`."""
    return float(x.min()), float(x.max())


def signed_parts(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """See `weighbridge_kernels.nmf.signed_parts`."""
    parts = np.empty((2 * len(x), x.shape[1]), x.dtype)
    np.maximum(x, 0, out=parts[: len(x)])
    np.maximum(-x, 0, out=parts[len(x) :])
    return parts


def gram_of(x: npt.NDArray[Any]) -> FloatArray:
    """See `weighbridge_kernels.nmf.gram_of`."""
    return sum((gram(x[at]) for at in _blocks(x, max(x.shape[1], 1))), np.zeros((x.shape[1],) * 2))


def descend(
    x: npt.NDArray[Any], w: FloatArray, h: FloatArray, iterations: int, tolerance: float
) -> tuple[Factor, Factor, int]:
    """See `weighbridge_kernels.nmf.descend`; a block of `w` is improved and used before the next is read."""
    a, b = w.astype(x.dtype), np.ascontiguousarray(h.T, x.dtype)
    first = 0.0
    for swept in range(1, iterations + 1):
        violation = _sweep(x, a, b)
        first = violation if swept == 1 else first
        if violation <= tolerance * first:
            return a, b.T, swept
    return a, b.T, iterations


def squared_norms(x: npt.NDArray[Any], w: Factor, h: Factor) -> tuple[float, float]:
    """See `weighbridge_kernels.nmf.squared_norms`."""
    left = whole = 0.0
    h64 = h.astype(np.float64)
    for at in _blocks(x):
        y = x[at].astype(np.float64)
        whole += float(np.vdot(y, y))
        y -= w[at].astype(np.float64) @ h64
        left += float(np.vdot(y, y))
    return left, whole


def _sweep(x: npt.NDArray[Any], a: Factor, b: Factor) -> float:
    """Improves `a` [m, r], then `b` [n, r] in place, with x ~ a @ b.T; by how much they could be improved before."""
    gram_of_b, product, violation = b.T @ b, np.zeros_like(b), 0.0
    for at in _blocks(x):
        block, rows = a[at], x[at]
        violation += _improve(block, gram_of_b, rows @ b)
        product += rows.T @ block
    return violation + float(_improve(b, a.T @ a, product))


def _blocks(x: npt.NDArray[Any], least: int = 1) -> Iterator[slice]:
    step = max(_BLOCK_ENTRIES // max(x.shape[1], 1), least)
    return (slice(start, start + step) for start in range(0, len(x), step))


@njit(nogil=True, cache=True, error_model="numpy")
def _improve(w, gram_of_other, product):  # type: ignore[no-untyped-def]
    rows, count = w.shape
    violation = 0.0
    for i in range(rows):
        for t in range(count):
            curvature = gram_of_other[t, t]
            slope = -product[i, t]
            for s in range(count):
                slope += gram_of_other[t, s] * w[i, s]
            old = w[i, t]
            violation += abs(min(slope, 0.0) if old == 0 else slope)
            if curvature > 0:
                w[i, t] = max(old - slope / curvature, 0.0)
    return violation
