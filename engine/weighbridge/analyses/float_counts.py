"""Floats counted by the upper halves of their words: float64 rounded to such words, and what to take off the counts."""

from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge.analyses.scan_state import SpanSummary
from weighbridge_kernels.states import IntArray

BINS_OF_GREATEST = [0xFF7F, 0x7F7F]
"""Bins of the least and the greatest finite float32, where float64 beyond them is counted."""


def round_float64(summary: SpanSummary, entries: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], tuple[int, int]]:
    """The entries in float32 with the numbers of +0 and -0 among them.

    float64 is counted through its float32 rounding; what lies beyond float32's range is counted apart, in `summary`.
    """
    finite = np.isfinite(entries)
    with np.errstate(over="ignore", under="ignore"):
        rounded = entries.astype(np.float32)
    out = finite & ~np.isfinite(rounded)
    zero = entries == 0
    negzero = int((zero & np.signbit(entries)).sum())
    summary.beyond = int((out & (entries < 0)).sum()), int((out & (entries > 0)).sum())
    summary.low_halves = 1  # bins hold roundings
    summary.half_precision = bool(np.array_equal(rounded, entries, equal_nan=True))
    return rounded, (int(zero.sum()) - negzero, negzero)


def finite_nonzero(counts: IntArray, poszero: int, negzero: int) -> IntArray:
    """The counts without NaN, ±Inf and ±0, which share bins with nothing that is kept, or with subnormals."""
    counts = counts.copy()
    counts[0x7F80:0x8000] = 0
    counts[0xFF80:] = 0
    counts[0] -= poszero
    counts[0x8000] -= negzero
    return counts
