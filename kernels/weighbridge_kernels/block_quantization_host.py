"""Host form of `block_quantization`: one pass over groups of 64 serves all four quantisers.

Every inner loop is 16 lanes wide and adds into 16 lanes, so that nothing is summed across lanes but once per strip.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from weighbridge_kernels.quantizers import BLOCK_MULTIPLE, NF4_LEVELS, SMALLEST_BLOCK

_STRIP = 4096
"""Entries whose errors are summed in float32 lanes before they go to float64."""
_TINY = np.float32(SMALLEST_BLOCK)
_F = np.float32
_U = np.uintp
# (t - l)² = t² - (2 l t - l²): the nearest level is the greatest of 16 lines, one multiply-add and one maximum each.
_SLOPES = tuple(_F(2 * level) for level in NF4_LEVELS)
_OFFSETS = tuple(_F(level * level) for level in np.asarray(NF4_LEVELS, np.float32).astype(np.float64))


def block_errors(
    tile: npt.NDArray[np.float32], *, exponent_bins: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """See `weighbridge_kernels.block_quantization.block_errors`; float32 in strips of 4,096, then float64."""
    if tile.shape[1] % BLOCK_MULTIPLE:
        raise ValueError(f"rows of {tile.shape[1]} entries; pad them with zeros to a multiple of {BLOCK_MULTIPLE}")
    squares, exponents = np.zeros(4), np.zeros(exponent_bins, np.int64)
    _all_blocks(tile.reshape(-1), tile.reshape(-1).view(np.int32), squares, exponents)
    return squares, exponents


@njit(nogil=True, fastmath=True, error_model="numpy")
def _e2m1(a):  # type: ignore[no-untyped-def]
    """Magnitude on the E2M1 grid: steps of 1/2 below 2, 1 below 4, 2 up to 6."""
    inverse = _F(2) if a < _F(2) else (_F(1) if a < _F(4) else _F(0.5))
    step = _F(0.5) if a < _F(2) else (_F(1) if a < _F(4) else _F(2))
    return min(np.rint(a * inverse) * step, _F(6))


@njit(nogil=True, fastmath=True, error_model="numpy")
def _nf4_squared(t):  # type: ignore[no-untyped-def]
    best = _F(0)
    best = max(best, t * _SLOPES[0] - _OFFSETS[0])
    best = max(best, t * _SLOPES[1] - _OFFSETS[1])
    best = max(best, t * _SLOPES[2] - _OFFSETS[2])
    best = max(best, t * _SLOPES[3] - _OFFSETS[3])
    best = max(best, t * _SLOPES[4] - _OFFSETS[4])
    best = max(best, t * _SLOPES[5] - _OFFSETS[5])
    best = max(best, t * _SLOPES[6] - _OFFSETS[6])
    best = max(best, t * _SLOPES[8] - _OFFSETS[8])
    best = max(best, t * _SLOPES[9] - _OFFSETS[9])
    best = max(best, t * _SLOPES[10] - _OFFSETS[10])
    best = max(best, t * _SLOPES[11] - _OFFSETS[11])
    best = max(best, t * _SLOPES[12] - _OFFSETS[12])
    best = max(best, t * _SLOPES[13] - _OFFSETS[13])
    best = max(best, t * _SLOPES[14] - _OFFSETS[14])
    best = max(best, t * _SLOPES[15] - _OFFSETS[15])
    return t * t - best


@njit(nogil=True, fastmath=True, error_model="numpy")
def _block_maxima(words, maxima, exponents, half, quarter, eighth):  # type: ignore[no-untyped-def]
    """Greatest magnitude of every 16 words, as integers: four halvings of neighbours."""
    for j in range(half.size):
        half[j] = max(words[2 * j] & np.int32(0x7FFFFFFF), words[2 * j + 1] & np.int32(0x7FFFFFFF))
    for j in range(quarter.size):
        quarter[j] = max(half[2 * j], half[2 * j + 1])
    for j in range(eighth.size):
        eighth[j] = max(quarter[2 * j], quarter[2 * j + 1])
    for j in range(maxima.size):
        maxima[j] = max(eighth[2 * j], eighth[2 * j + 1])
    shift = exponents.size // 2 - 127
    for j in range(maxima.size):
        exponent = (maxima[j] >> 23) + shift
        if exponent >= exponents.size // 2 - 100:
            exponents[exponent] += 1


@njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def _all_blocks(x, words, squares, exponents):  # type: ignore[no-untyped-def]
    half, quarter = np.empty(_STRIP // 2, np.int32), np.empty(_STRIP // 4, np.int32)
    eighth, maxima = np.empty(_STRIP // 8, np.int32), np.empty(_STRIP // 16, np.int32)
    m16 = maxima.view(np.float32)
    lanes = np.zeros((4, 16), np.float32)
    for start in range(0, x.size, _STRIP):
        strip = x[start : start + _STRIP]
        n = strip.size
        bits = words[start : start + n]
        _block_maxima(bits, maxima[: n // 16], exponents, half[: n // 2], quarter[: n // 4], eighth[: n // 8])
        lanes[:] = 0
        for group in range(_U(n // 64)):
            _group_of_64(strip, group * _U(64), m16, group * _U(4), lanes)
        for q in range(4):
            for k in range(16):
                squares[q] += lanes[q, k]


@njit(inline="always")  # as a call it would keep its lanes in memory
def _group_of_64(x, o, m16, h, lanes):  # type: ignore[no-untyped-def]
    m0, m1, m2, m3 = m16[h], m16[h + _U(1)], m16[h + _U(2)], m16[h + _U(3)]
    a0, a1 = max(m0, m1), max(m2, m3)
    m = max(max(a0, a1), _TINY)
    s0, s1 = _nvfp4_scale(m0), _nvfp4_scale(m1)
    s2, s3 = _nvfp4_scale(m2), _nvfp4_scale(m3)
    n0, n1, n2, n3 = _F(1) / s0, _F(1) / s1, _F(1) / s2, _F(1) / s3
    p0, p1 = max(a0, _TINY) / _F(7), max(a1, _TINY) / _F(7)
    b0, b1 = _F(1) / p0, _F(1) / p1
    q0, q1 = _mxfp4_scale(a0), _mxfp4_scale(a1)
    c0, c1 = _F(1) / q0, _F(1) / q1
    i = _F(1) / m
    mm = m * m
    for k in range(_U(16)):
        x0, x1, x2, x3 = x[o + k], x[o + _U(16) + k], x[o + _U(32) + k], x[o + _U(48) + k]
        y0, y1, y2, y3 = abs(x0), abs(x1), abs(x2), abs(x3)
        d0, d1 = x0 - np.rint(x0 * b0) * p0, x1 - np.rint(x1 * b0) * p0
        d2, d3 = x2 - np.rint(x2 * b1) * p1, x3 - np.rint(x3 * b1) * p1
        lanes[0, k] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
        e0, e1 = _nf4_squared(x0 * i), _nf4_squared(x1 * i)
        e2, e3 = _nf4_squared(x2 * i), _nf4_squared(x3 * i)
        lanes[1, k] += ((e0 + e1) + (e2 + e3)) * mm
        d0, d1 = y0 - _e2m1(y0 * c0) * q0, y1 - _e2m1(y1 * c0) * q0
        d2, d3 = y2 - _e2m1(y2 * c1) * q1, y3 - _e2m1(y3 * c1) * q1
        lanes[2, k] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
        d0, d1 = y0 - _e2m1(y0 * n0) * s0, y1 - _e2m1(y1 * n1) * s1
        d2, d3 = y2 - _e2m1(y2 * n2) * s2, y3 - _e2m1(y3 * n3) * s3
        lanes[3, k] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)


@njit(nogil=True, fastmath=True, error_model="numpy")
def _nvfp4_scale(m):  # type: ignore[no-untyped-def]
    """max(m, tiny) / 6 to four significant bits, ties to even (Veltkamp's splitting keeps the upper part)."""
    s = max(m, _TINY) / _F(6)
    bits = np.float32(s).view(np.int32)
    return np.int32((bits + np.int32(0x7FFFF) + ((bits >> 20) & np.int32(1))) & np.int32(~0xFFFFF)).view(np.float32)


@njit(nogil=True, fastmath=True, error_model="numpy")
def _mxfp4_scale(m):  # type: ignore[no-untyped-def]
    bits = np.float32(max(m, _TINY)).view(np.int32)
    return np.int32((bits & np.int32(0x7F800000)) - np.int32(2 << 23)).view(np.float32)
