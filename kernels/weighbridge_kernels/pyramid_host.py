"""Host form of `pyramid`."""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from weighbridge_kernels.blocks import BASE, LARGE, SHIFT, SMALL, Blocks
from weighbridge_kernels.finite_tile_host import decoded_tile


def block_reductions(
    x: npt.NDArray[Any], table: npt.NDArray[np.float32] | None = None, *, block: tuple[int, int] = (BASE, BASE)
) -> Blocks:
    """See `weighbridge_kernels.pyramid.block_reductions`."""
    values = x if table is None else decoded_tile(x, table, padded=x.shape[1])
    shape = tuple(-(-extent // side) for extent, side in zip(values.shape, block, strict=True))
    mean_dtype = np.float64 if values.dtype == np.float64 else np.float32
    least, greatest = (np.empty(shape, values.dtype) for _ in range(2))
    mean, rms = (np.empty(shape, mean_dtype) for _ in range(2))
    zeros, nan, inf = (np.empty(shape, np.int32) for _ in range(3))
    _reduce(values, *block, least, greatest, mean, rms, zeros, nan, inf)
    if values.dtype == np.float64:
        _reduce_far(values, *block, np.maximum(np.abs(least), np.abs(greatest)), mean, rms)
    return Blocks(least, greatest, mean, rms, zeros, nan, inf)


@njit(nogil=True, cache=True, error_model="numpy")
def _reduce(x, height, width, least, greatest, mean, rms, zeros, nan, inf):  # type: ignore[no-untyped-def]
    rows, cols = x.shape
    for i in range(least.shape[0]):
        top, bottom = i * height, min(i * height + height, rows)
        for j in range(least.shape[1]):
            left, right = j * width, min(j * width + width, cols)
            low = high = x.dtype.type(0)
            total, squares = 0.0, 0.0
            n, n_zero, n_nan = 0, 0, 0
            for r in range(top, bottom):
                for c in range(left, right):
                    v = x[r, c]
                    if v != v:
                        n_nan += 1
                        continue
                    d = np.float64(v)
                    if abs(d) == np.inf:
                        continue
                    if n == 0:
                        low = high = v
                    else:
                        low, high = min(low, v), max(high, v)
                    n += 1
                    n_zero += d == 0.0
                    total += d
                    squares += d * d
            least[i, j], greatest[i, j] = low, high
            share = max(n, 1)
            mean[i, j], rms[i, j] = total / share, np.sqrt(squares / share)
            zeros[i, j], nan[i, j] = n_zero, n_nan
            inf[i, j] = (bottom - top) * (right - left) - n - n_nan


@njit(nogil=True, cache=True, error_model="numpy")
def _reduce_far(x, height, width, magnitude, mean, rms):  # type: ignore[no-untyped-def]
    """Means of the blocks whose squares do not exist in float64, of scaled entries."""
    for i in range(magnitude.shape[0]):
        for j in range(magnitude.shape[1]):
            if magnitude[i, j] == 0 or SMALL <= magnitude[i, j] <= LARGE:
                continue
            scale = SHIFT if magnitude[i, j] < SMALL else 1 / SHIFT
            total, squares, n = 0.0, 0.0, 0
            for row in x[i * height : i * height + height, j * width : j * width + width]:
                for v in row:
                    if abs(v) < np.inf:
                        n += 1
                        total += v * scale
                        squares += (v * scale) ** 2
            mean[i, j], rms[i, j] = total / n / scale, np.sqrt(squares / n) / scale
