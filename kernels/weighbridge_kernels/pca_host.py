"""Host form of `pca`: NumPy's BLAS and LAPACK, in blocks of rows that Numba centres."""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from weighbridge_kernels import principal_components
from weighbridge_kernels.principal_components import PCA, Scatter, Spread, Strips, merged, not_finite, of_scatter
from weighbridge_kernels.spectrum_host import gram

FloatArray = npt.NDArray[np.float64]

_BLOCK_ENTRIES = 1 << 20
"""Entries in float64 at a time: 8 MiB, of which a cache holds most while a block is centred and multiplied."""
_FEW_ENTRIES = 1 << 16

merge = merged


def empty(cols: int) -> Scatter:
    """See `weighbridge_kernels.pca.empty`."""
    return Scatter(0, np.zeros(cols), np.zeros((cols, cols)))


def summarize(chunk: npt.NDArray[Any]) -> Scatter:
    """See `weighbridge_kernels.pca.summarize`; the scatter within blocks of rows and that of the blocks' means add."""
    rows, cols = chunk.shape
    step = max(_BLOCK_ENTRIES // max(cols, 1), cols, 1)  # as many rows as adding d x d matrices is cheap beside
    scatter, means = np.zeros((cols, cols)), []
    room = np.empty((min(step, rows), cols))
    for start in range(0, rows, step):
        mean, centred = _centred(chunk[start : start + step], room)
        means.append(mean)
        scatter += gram(centred)
    if not means:
        return empty(cols)
    counts = np.diff([*range(0, rows, step), rows]).astype(np.float64)
    mean = counts @ np.stack(means) / rows
    scatter += gram(np.sqrt(counts)[:, None] * (np.stack(means) - mean))
    return Scatter(rows, mean, scatter)


def spread(chunk: npt.NDArray[Any]) -> Spread:
    """See `weighbridge_kernels.pca.spread`."""
    mean, centred = _centred(chunk, np.empty(chunk.shape))
    return Spread(len(chunk), mean, float(np.vdot(centred, centred)))


def add_row_gram(total: FloatArray, strip: npt.NDArray[Any], mean: FloatArray) -> FloatArray:
    """See `weighbridge_kernels.pca.add_row_gram`."""
    return total + gram(_less(strip, mean).T)


def project(x: npt.NDArray[Any], mean: FloatArray, vectors: FloatArray) -> FloatArray:
    """See `weighbridge_kernels.pca.project`; few rows at a time, for the cache."""
    out = np.empty((len(x), vectors.shape[1]))
    for at in _few_rows(x):
        np.matmul(_less(x[at], mean), vectors, out=out[at])
    return out


def back_project(x: npt.NDArray[Any], mean: FloatArray, vectors: FloatArray) -> FloatArray:
    """See `weighbridge_kernels.pca.back_project`; few rows at a time, for the cache."""
    out = np.zeros((x.shape[1], vectors.shape[1]))
    for at in _few_rows(x):
        out += _less(x[at], mean).T @ vectors[at]
    return out


def eigenpairs(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """See `weighbridge_kernels.pca.eigenpairs`."""
    values, vectors = np.linalg.eigh(matrix)
    return values[::-1], vectors[:, ::-1]


def finalize(state: Scatter, *, count: int) -> PCA:
    """See `weighbridge_kernels.pca.finalize`."""
    return of_scatter(sys.modules[__name__], state, count=count)


def scores(chunk: npt.NDArray[Any], found: PCA) -> FloatArray:
    """See `weighbridge_kernels.pca.scores`."""
    return project(chunk, found.mean, found.components.T)


def pca(strips: Strips, shape: tuple[int, int], *, count: int, key: int = 0) -> PCA:
    """See `weighbridge_kernels.pca.pca`."""
    return principal_components.pca(sys.modules[__name__], strips, shape, count=count, key=key)


def _few_rows(x: npt.NDArray[Any]) -> Iterator[slice]:
    step = max(_FEW_ENTRIES // max(x.shape[1], 1), 1)
    return (slice(start, start + step) for start in range(0, len(x), step))


def _less(x: npt.NDArray[Any], mean: FloatArray) -> FloatArray:
    centred = x.astype(np.float64)
    centred -= mean
    return centred


def _centred(block: npt.NDArray[Any], room: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The mean and the rows less it, in float64, the latter in `room`; raises where the mean is not finite."""
    mean, centred = np.zeros(block.shape[1]), room[: len(block)]
    _centre(np.ascontiguousarray(block, block.dtype if block.dtype.char in "fd" else np.float32), mean, centred)
    if not np.isfinite(mean).all():
        raise not_finite(block)
    return mean, centred


@njit(nogil=True, cache=True, error_model="numpy")
def _centre(x, mean, out):  # type: ignore[no-untyped-def]
    rows, cols = x.shape
    for i in range(rows):
        for j in range(cols):
            mean[j] += x[i, j]
    for j in range(cols):
        mean[j] /= max(rows, 1)
    for i in range(rows):
        for j in range(cols):
            out[i, j] = x[i, j] - mean[j]
