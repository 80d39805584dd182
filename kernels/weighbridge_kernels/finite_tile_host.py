"""Host forms of `finite_tile`."""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Tile = npt.NDArray[np.float32]


def decoded_tile(codes: npt.NDArray[np.unsignedinteger], table: Tile, *, padded: int) -> Tile:
    """See `weighbridge_kernels.finite_tile.decoded_tile`."""
    tile = _unfilled(codes.shape, padded)
    _decode(*_as_runs(codes, tile), table)
    return tile


def bfloat16_tile(codes: npt.NDArray[np.uint16], scale: float, *, padded: int) -> Tile:
    """`decoded_tile` for bfloat16, whose pattern is the upper half of its float32: arithmetic instead of a table."""
    tile = _unfilled(codes.shape, padded)
    _decode_bfloat16(*_as_runs(codes, tile), np.float32(scale))
    return tile


def scaled_tile(x: npt.NDArray[Any], scale: float, *, padded: int) -> Tile:
    """See `weighbridge_kernels.finite_tile.scaled_tile`."""
    tile = _unfilled(x.shape, padded)
    _scale(*_as_runs(x, tile), x.dtype.type(scale))
    return tile


def _unfilled(shape: tuple[int, ...], padded: int) -> Tile:
    rows, cols = shape
    tile = np.empty((rows, padded), np.float32)
    tile[:, cols:] = 0
    return tile


def _as_runs(source: npt.NDArray[Any], tile: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The source without gaps; where rows need no padding, the matrix is one run and the loops see one long row."""
    source = np.ascontiguousarray(source)
    if source.shape == tile.shape:
        return source.reshape(1, -1), tile.reshape(1, -1)
    return source, tile


@njit(nogil=True, cache=True)
def _decode(codes, tile, table):  # type: ignore[no-untyped-def]
    for i in range(codes.shape[0]):
        source, target = codes[i], tile[i]
        for j in range(source.size):
            target[j] = table[source[j]]


@njit(nogil=True, cache=True)
def _decode_bfloat16(codes, tile, scale):  # type: ignore[no-untyped-def]
    for i in range(codes.shape[0]):
        source, target = codes[i], tile[i]
        for j in range(source.size):
            word = np.uint32(source[j]) << np.uint32(16)
            finite = (word & np.uint32(0x7F800000)) != np.uint32(0x7F800000)
            target[j] = np.uint32(word if finite else np.uint32(0)).view(np.float32) * scale


@njit(nogil=True, cache=True)
def _scale(x, tile, scale):  # type: ignore[no-untyped-def]
    for i in range(x.shape[0]):
        source, target = x[i], tile[i]
        for j in range(source.size):
            value = source[j]
            target[j] = value * scale if np.isfinite(value) else np.float32(0)
