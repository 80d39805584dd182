"""Host form of `channel_norms`."""

import numpy as np
import numpy.typing as npt
from numba import njit

_STRIP = 1024
"""Entries summed in float32 before the sum goes to float64: the relative error stays near 1e-7, the lanes stay full."""

Sums = npt.NDArray[np.float64]
"""Sum, sum of squares and greatest magnitude, a row each."""


def channel_sums(tile: npt.NDArray[np.float32]) -> tuple[Sums, Sums]:
    """See `weighbridge_kernels.channel_norms.channel_sums`; strips of 1,024 in float32, sums of strips in float64."""
    n_rows, n_cols = tile.shape
    rows, cols = np.zeros((3, n_rows)), np.zeros((3, n_cols))
    _row_sums(tile, tile.view(np.int32), rows)
    _column_sums(tile, cols)
    return rows, cols


@njit(nogil=True, cache=True, fastmath=True)
def _row_sums(tile, words, out):  # type: ignore[no-untyped-def]
    """Magnitudes are compared as integers, in which order they agree: that reduction runs in vector lanes."""
    for i in range(tile.shape[0]):
        for start in range(0, tile.shape[1], _STRIP):
            strip, bits = tile[i, start : start + _STRIP], words[i, start : start + _STRIP]
            total = square = np.float32(0)
            absmax = np.int32(0)
            for j in range(strip.size):
                value = strip[j]
                total += value
                square += value * value
                absmax = max(absmax, bits[j] & np.int32(0x7FFFFFFF))
            out[0, i] += total
            out[1, i] += square
            out[2, i] = max(out[2, i], np.int32(absmax).view(np.float32))


@njit(nogil=True, cache=True, fastmath=True)
def _column_sums(tile, out):  # type: ignore[no-untyped-def]
    """Strips of columns, four rows at a time, at most 256 rows in float32."""
    n_rows, n_cols = tile.shape
    total, square, absmax = np.empty(_STRIP, np.float32), np.empty(_STRIP, np.float32), np.empty(_STRIP, np.float32)
    for top in range(0, n_rows, 256):
        bottom = min(top + 256, n_rows)
        for start in range(0, n_cols, _STRIP):
            width = min(_STRIP, n_cols - start)
            total[:] = 0
            square[:] = 0
            absmax[:] = 0
            fours = top + (bottom - top) // 4 * 4
            for i in range(top, fours, 4):
                r0, r1 = tile[i, start : start + width], tile[i + 1, start : start + width]
                r2, r3 = tile[i + 2, start : start + width], tile[i + 3, start : start + width]
                for j in range(width):
                    a, b, c, d = r0[j], r1[j], r2[j], r3[j]
                    total[j] += (a + b) + (c + d)
                    square[j] += (a * a + b * b) + (c * c + d * d)
                    absmax[j] = max(absmax[j], max(max(abs(a), abs(b)), max(abs(c), abs(d))))
            for i in range(fours, bottom):
                row = tile[i, start : start + width]
                for j in range(width):
                    total[j] += row[j]
                    square[j] += row[j] * row[j]
                    absmax[j] = max(absmax[j], abs(row[j]))
            for j in range(width):
                out[0, start + j] += total[j]
                out[1, start + j] += square[j]
                out[2, start + j] = max(out[2, start + j], absmax[j])
