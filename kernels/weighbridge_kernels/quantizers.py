"""The grids that weights are rounded to, and the error of a quantiser with one scale a tensor. NumPy alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

BLOCK_QUANTIZERS = {"int4_32": 32, "nf4_64": 64, "mxfp4_32": 32, "nvfp4_16": 16}
"""Block quantisers in the order of their columns, with the entries of a block."""

BLOCK_MULTIPLE = 64
"""Every block size divides it, so a row padded to a multiple of it is whole blocks."""

SMALLEST_BLOCK = 2.0**-100
"""In a tile scaled to a magnitude of 1 to 2, a block below this is zero to float32's squares."""

_E2M1_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E2M1_LEVELS = (*(-v for v in reversed(_E2M1_MAGNITUDES[1:])), *_E2M1_MAGNITUDES)

# Dettmers et al. 2023, appendix E, rounded to float32.
_NF4_NEGATIVE = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453)
_NF4_NEGATIVE_SMALL = (-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0)
_NF4_POSITIVE = (0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224)
_NF4_POSITIVE_LARGE = (0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)
NF4_LEVELS = (*_NF4_NEGATIVE, *_NF4_NEGATIVE_SMALL, *_NF4_POSITIVE, *_NF4_POSITIVE_LARGE)


def int8(t: FloatArray) -> FloatArray:
    """Rounds to the integers -127 ... 127, ties to even."""
    return np.asarray(np.clip(np.rint(t), -127, 127))


def e4m3(t: FloatArray) -> FloatArray:
    """Rounds to FP8 E4M3, ties to even, saturating at ±448."""
    exponent = np.maximum(np.frexp(t)[1] - 1, -6)
    step = np.exp2(exponent - 3.0)
    return np.asarray(np.clip(np.rint(t / step) * step, -448, 448))


def tensor_error(
    values: FloatArray, counts: npt.NDArray[Any], grid: Callable[[FloatArray], FloatArray], largest: float
) -> float:
    """‖w - Q(w)‖² of a multiset under `grid` with the one scale max|w| / `largest`.

    Computed in float64 from `values` and how often each occurs. 0 where all values are zero.
    """
    absmax = float(np.abs(values).max(initial=0.0))
    if absmax == 0:
        return 0.0
    scale = absmax / largest
    error = values - grid(values / scale) * scale
    return float(counts @ (error * error))
