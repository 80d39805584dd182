"""Host form of `bit_histogram`: NumPy in, NumPy out, compiled by Numba, free of the interpreter's lock."""

import numpy as np
import numpy.typing as npt
from numba import njit


def bit_histogram(codes: npt.NDArray[np.unsignedinteger], valid: int, *, patterns: int) -> npt.NDArray[np.int64]:
    """See `weighbridge_kernels.bit_histogram.bit_histogram`; counts are int64."""
    codes = codes[:valid]
    tables = np.zeros((2, max(patterns, 1 << (8 * codes.itemsize))), np.uint32)
    even = codes.size // 2 * 2
    _count_pairs(codes[:even], tables)
    np.add.at(tables[0], codes[even:], 1)
    return np.asarray(tables[:, :patterns].sum(axis=0, dtype=np.int64))


def high_half_histogram(
    words: npt.NDArray[np.uint32], valid: int
) -> tuple[npt.NDArray[np.int64], int, npt.NDArray[np.int64]]:
    """See `weighbridge_kernels.bit_histogram.high_half_histogram`; counts are int64."""
    words = words[:valid]
    tables = np.zeros((2, 1 << 16), np.uint32)
    even = words.size // 2 * 2
    _count_high_halves(words[:even], tables)
    np.add.at(tables[0], words[even:] >> 16, 1)
    classes = _classes(words) if _zero_or_not_finite(words) else np.zeros(5, np.int64)
    return tables.sum(axis=0, dtype=np.int64), int(_or_of_words(words)) & 0xFFFF, classes


@njit(nogil=True, cache=True)
def _count_pairs(codes, tables):  # type: ignore[no-untyped-def]
    """Two tables, so that a run of equal codes does not wait for the store just before."""
    for i in range(0, codes.size, 2):
        tables[0, codes[i]] += np.uint32(1)
        tables[1, codes[i + 1]] += np.uint32(1)


@njit(nogil=True, cache=True)
def _count_high_halves(words, tables):  # type: ignore[no-untyped-def]
    for i in range(0, words.size, 2):
        tables[0, words[i] >> np.uint32(16)] += np.uint32(1)
        tables[1, words[i + 1] >> np.uint32(16)] += np.uint32(1)


@njit(nogil=True, cache=True)
def _or_of_words(words):  # type: ignore[no-untyped-def]
    bits = np.uint32(0)
    for i in range(words.size):
        bits |= words[i]
    return bits


@njit(nogil=True, cache=True)
def _zero_or_not_finite(words):  # type: ignore[no-untyped-def]
    """How many words are; most spans of trained weights have none, and need no telling apart."""
    found = np.int32(0)
    for i in range(words.size):
        magnitude = words[i] & np.uint32(0x7FFFFFFF)
        found += np.int32(magnitude - np.uint32(1) >= np.uint32(0x7F7FFFFF))
    return found


@njit(nogil=True, cache=True)
def _classes(words):  # type: ignore[no-untyped-def]
    nan = posinf = neginf = poszero = negzero = np.int32(0)
    for i in range(words.size):
        word = words[i]
        nan += np.int32((word & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000))
        posinf += np.int32(word == np.uint32(0x7F800000))
        neginf += np.int32(word == np.uint32(0xFF800000))
        poszero += np.int32(word == np.uint32(0))
        negzero += np.int32(word == np.uint32(0x80000000))
    return np.array([nan, posinf, neginf, poszero, negzero], np.int64)
