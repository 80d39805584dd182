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
_LEAST_FIELD = 27
"""float32's exponent field of 2^-100, the smallest block."""
_F = np.float32
_U = np.uintp
_LEVELS = tuple(_F(level) for level in NF4_LEVELS)


def block_errors(
    tile: npt.NDArray[np.float32], *, exponent_bins: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """See `weighbridge_kernels.block_quantization.block_errors`; float32 in strips of 4,096, then float64."""
    if tile.shape[1] % BLOCK_MULTIPLE:
        raise ValueError(f"rows of {tile.shape[1]} entries; pad them with zeros to a multiple of {BLOCK_MULTIPLE}")
    squares, fields = np.zeros(4), np.zeros((4, 256), np.int64)
    _all_blocks(tile.reshape(-1), tile.reshape(-1).view(np.int32), squares, fields)
    exponents = np.zeros(exponent_bins, np.int64)
    exponents[exponent_bins // 2 + _LEAST_FIELD - 127 :][: 256 - _LEAST_FIELD] = fields.sum(axis=0)[_LEAST_FIELD:]
    return squares, exponents


@njit(nogil=True, fastmath=True, error_model="numpy")
def _integer_error(t):  # type: ignore[no-untyped-def]
    return t - np.rint(t)


@njit(nogil=True, fastmath=True, error_model="numpy")
def _e2m1_error(t):  # type: ignore[no-untyped-def]
    """Distance of a magnitude from the E2M1 grid: two significant bits from 1 on, steps of 1/2 below, 6 at most.

    Adding 1 below 1 puts those steps where two significant bits are, so one rounding of the bits serves both.
    """
    u = t + _F(1) if t < _F(1) else t
    bits = (np.float32(u).view(np.int32) + np.int32(0x200000)) & np.int32(~0x3FFFFF)
    return u - min(np.int32(bits).view(np.float32), _F(6))


@njit(nogil=True, fastmath=True, error_model="numpy")
def _from_level(t, i):  # type: ignore[no-untyped-def]
    return abs(t - _LEVELS[i])


@njit(nogil=True, fastmath=True, error_model="numpy")
def _nf4_squared(t):  # type: ignore[no-untyped-def]
    """Squared distance from the nearest level; a tree of minima, for a chain of 15 would wait on itself.

    1 - |t| is the distance from the outer levels. Lines 2 l t - l² would save an operation a level, but t² less the
    greatest of them cancels: weights that lie on the levels came out below 0.
    """
    a = min(min(_F(1) - abs(t), _from_level(t, 1)), min(_from_level(t, 2), _from_level(t, 3)))
    b = min(min(_from_level(t, 4), _from_level(t, 5)), min(_from_level(t, 6), abs(t)))
    c = min(min(_from_level(t, 8), _from_level(t, 9)), min(_from_level(t, 10), _from_level(t, 11)))
    d = min(min(_from_level(t, 12), _from_level(t, 13)), _from_level(t, 14))
    nearest = min(min(a, b), min(c, d))
    return nearest * nearest


@njit(nogil=True, fastmath=True, error_model="numpy")
def _block_maxima(words, maxima, exponents, half, quarter, eighth):  # type: ignore[no-untyped-def]
    """Greatest magnitude of every 16 words, as integers, by four halvings of neighbours; their exponents are counted.

    Four tables, so that a run of equal exponents does not wait for the store just before.
    """
    for j in range(half.size):
        half[j] = max(words[2 * j] & np.int32(0x7FFFFFFF), words[2 * j + 1] & np.int32(0x7FFFFFFF))
    for j in range(quarter.size):
        quarter[j] = max(half[2 * j], half[2 * j + 1])
    for j in range(eighth.size):
        eighth[j] = max(quarter[2 * j], quarter[2 * j + 1])
    for j in range(maxima.size):
        maxima[j] = max(eighth[2 * j], eighth[2 * j + 1])
    for j in range(0, maxima.size, 4):
        exponents[0, maxima[j] >> 23] += 1
        exponents[1, maxima[j + 1] >> 23] += 1
        exponents[2, maxima[j + 2] >> 23] += 1
        exponents[3, maxima[j + 3] >> 23] += 1


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
        d0, d1, d2, d3 = (
            _integer_error(x0 * b0),
            _integer_error(x1 * b0),
            _integer_error(x2 * b1),
            _integer_error(x3 * b1),
        )
        lanes[0, k] += (d0 * d0 + d1 * d1) * (p0 * p0) + (d2 * d2 + d3 * d3) * (p1 * p1)
        e0, e1 = _nf4_squared(x0 * i), _nf4_squared(x1 * i)
        e2, e3 = _nf4_squared(x2 * i), _nf4_squared(x3 * i)
        lanes[1, k] += ((e0 + e1) + (e2 + e3)) * mm
        d0, d1, d2, d3 = _e2m1_error(y0 * c0), _e2m1_error(y1 * c0), _e2m1_error(y2 * c1), _e2m1_error(y3 * c1)
        lanes[2, k] += (d0 * d0 + d1 * d1) * (q0 * q0) + (d2 * d2 + d3 * d3) * (q1 * q1)
        d0, d1, d2, d3 = _e2m1_error(y0 * n0), _e2m1_error(y1 * n1), _e2m1_error(y2 * n2), _e2m1_error(y3 * n3)
        lanes[3, k] += (d0 * d0 * (s0 * s0) + d1 * d1 * (s1 * s1)) + (d2 * d2 * (s2 * s2) + d3 * d3 * (s3 * s3))


@njit(nogil=True, fastmath=True, error_model="numpy")
def _nvfp4_scale(m):  # type: ignore[no-untyped-def]
    """max(m, tiny) / 6 to four significant bits, ties to even."""
    s = max(m, _TINY) / _F(6)
    bits = np.float32(s).view(np.int32)
    return np.int32((bits + np.int32(0x7FFFF) + ((bits >> 20) & np.int32(1))) & np.int32(~0xFFFFF)).view(np.float32)


@njit(nogil=True, fastmath=True, error_model="numpy")
def _mxfp4_scale(m):  # type: ignore[no-untyped-def]
    bits = np.float32(max(m, _TINY)).view(np.int32)
    return np.int32((bits & np.int32(0x7F800000)) - np.int32(2 << 23)).view(np.float32)
