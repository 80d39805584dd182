"""Host form of `central_moments`."""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from weighbridge_kernels.states import Moments

_CHUNK = 4096


def central_moments(x: npt.NDArray[Any]) -> Moments:
    """See `weighbridge_kernels.central_moments.central_moments`; chunks of 4,096 entries, merged pairwise in order."""
    total, l1 = _sums(x)
    if not np.isfinite(l1):  # a NaN or an infinity, or an overflow that the second try will show again
        x = x[np.isfinite(x)]
        total, l1 = _sums(x)
    if x.size == 0:
        return Moments.empty()
    return Moments(x.size, float(x.min()), float(x.max()), l1, *_central(x, total / x.size))


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _sums(x):  # type: ignore[no-untyped-def]
    total = l1 = 0.0
    for start in range(0, x.size, _CHUNK):
        chunk = x[start : start + _CHUNK]
        s = a = 0.0
        for i in range(chunk.size):
            value = np.float64(chunk[i])
            s += value
            a += abs(value)
        total += s
        l1 += a
    return total, l1


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _central(x, mean):  # type: ignore[no-untyped-def]
    first = m2 = m3 = m4 = 0.0
    for start in range(0, x.size, _CHUNK):
        chunk = x[start : start + _CHUNK]
        s1 = s2 = s3 = s4 = 0.0
        for i in range(chunk.size):
            d = np.float64(chunk[i]) - mean
            d2 = d * d
            s1 += d
            s2 += d2
            s3 += d2 * d
            s4 += d2 * d2
        first += s1
        m2 += s2
        m3 += s3
        m4 += s4
    return mean + first / x.size, m2 - first * first / x.size, m3, m4
