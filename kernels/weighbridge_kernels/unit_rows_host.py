"""Host form of `unit_rows`."""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from weighbridge_kernels.similar_pairs import Kind

_NATIVE = (np.float32, np.float64)
_BLOCK = 4096


def unit_rows(x: npt.NDArray[Any], *, kind: Kind = "cosine") -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """See `weighbridge_kernels.unit_rows.unit_rows`; what is neither float32 nor float64 is cast block by block."""
    units, norms = np.empty(x.shape, np.float32), np.empty(x.shape[0])
    for start in range(0, x.shape[0], _BLOCK):
        block = x[start : start + _BLOCK]
        native = block if block.dtype in _NATIVE else block.astype(np.float32)
        part = slice(start, start + block.shape[0])
        _divide(native, kind == "pearson", units[part], norms[part])
    return units, norms


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _divide(x, centred, units, norms):  # type: ignore[no-untyped-def]
    cols = x.shape[1]
    y = np.empty(cols)
    for r in range(x.shape[0]):
        top = total = 0.0
        for c in range(cols):
            y[c] = x[r, c]
            top = max(top, abs(y[c]))
            total += y[c] * 0.0  # NaN where an entry is not finite
        if total != 0.0 or top == 0.0:
            units[r] = 0.0
            norms[r] = np.nan if total != 0.0 else 0.0
            continue
        for c in range(cols):
            y[c] /= top
            total += y[c]
        mean = total / cols if centred else 0.0
        squares = 0.0
        for c in range(cols):
            y[c] -= mean
            squares += y[c] * y[c]
        norm = np.sqrt(squares)
        norms[r] = norm * top
        units[r] = 0.0
        if norm > 0.0:
            for c in range(cols):
                units[r, c] = y[c] / norm
