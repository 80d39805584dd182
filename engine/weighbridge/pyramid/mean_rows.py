"""Rows of one side of a product of matrices, and the mean rows of ever larger blocks of them.

The mean of a block of `left @ right.T` is the product of its mean rows. So a picture of a matrix of any size needs no
more than the means of every 8, 16, 32, … rows of both sides, which one pass over the rows gives.
"""

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge_kernels.blocks import BASE

Array = npt.NDArray[Any]

_TILE_ENTRIES = 1 << 22
"""Entries of rows that are worked on at a time."""
_TILE_ROWS = 256
"""Rows that are multiplied with others at a time, at least: the others are read for every such part."""
_MEMORY_BYTES = 1 << 28
"""An array of more is kept in a temporary file, of which the system holds in memory what is used."""


@dataclass(frozen=True, slots=True)
class MeanRows:
    """Mean rows of blocks of rows, float32, each over the `live` rows of its block; zeros where there is none."""

    means: npt.NDArray[np.float32]
    live: npt.NDArray[np.int64]

    def __getitem__(self, part: slice | Array) -> "MeanRows":
        return MeanRows(self.means[part], self.live[part])

    def merged(self, factor: int) -> "MeanRows":
        """Every `factor` blocks as one, the last perhaps of fewer."""
        live = _summed(self.live, factor)
        sums = _summed(self.means * self.live[:, None].astype(np.float32), factor)
        sums /= np.maximum(live, 1)[:, None]
        return MeanRows(sums, live)


Read = Callable[[slice], MeanRows]
"""The rows of a span, each a block of its own."""


class Levels:
    """`count` rows that `read` gives, with the mean rows of blocks of 8 · 2^level of them."""

    def __init__(self, count: int, read: Read, base: MeanRows, levels: int) -> None:
        """`base` are the mean rows of every 8."""
        self.count = count
        self._read = read
        self._held = [base]
        for _ in range(1, levels):
            before = self._held[-1]
            parts = (before[part].merged(2) for part in cuts(slice(0, before.live.size), self.width, 2))
            self._held.append(collected(parts, -(-before.live.size // 2), self.width))

    @property
    def width(self) -> int:
        """Length of a row."""
        return int(self._held[0].means.shape[1])

    def __getitem__(self, level: int) -> MeanRows:
        return self._held[level]

    def tiles(self, span: slice, side: int = 1) -> Iterator[tuple[slice, MeanRows]]:
        """Rows of a span, some whole blocks of `side` at a time, with their place in the span."""
        for part in cuts(span, min(self.width, _TILE_ENTRIES // _TILE_ROWS), side):
            yield slice(part.start - span.start, part.stop - span.start), self._read(part)

    def merged(self, span: slice, side: int) -> MeanRows:
        """Mean rows of the blocks of `side` rows of a span, out of those of level 0 where they are whole."""
        if side % BASE == 0:
            at = slice(span.start // BASE, -(-span.stop // BASE))
            return self._held[0][at].merged(side // BASE)
        parts = (rows.merged(side) for _, rows in self.tiles(span, side))
        return collected(parts, -(-(span.stop - span.start) // side), self.width)


def cuts(span: slice, width: int, side: int) -> Iterator[slice]:
    """Parts of a span of rows, of whole blocks of `side` rows but the last, that are worked on at a time."""
    step = max(_TILE_ENTRIES // width // side, 1) * side
    for start in range(span.start, span.stop, step):
        yield slice(start, min(start + step, span.stop))


def collected(parts: Iterable[MeanRows], count: int, width: int) -> MeanRows:
    """Parts that follow one another as one."""
    whole = MeanRows(allocated((count, width), np.dtype(np.float32)), np.empty(count, np.int64))
    at = 0
    for part in parts:
        here = slice(at, at + part.live.size)
        whole.means[here], whole.live[here] = part.means, part.live
        at = here.stop
    return whole


def allocated(shape: tuple[int, int], dtype: np.dtype[Any]) -> Array:
    """In memory, or in a file that is removed with the array."""
    if math.prod(shape) * dtype.itemsize <= _MEMORY_BYTES:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def _summed(x: Array, factor: int) -> Array:
    """Sums of every `factor` along the first axis, of what is left at its end."""
    whole = len(x) // factor * factor
    sums: Array = x[:whole].reshape(-1, factor, *x.shape[1:]).sum(axis=1)
    return sums if whole == len(x) else np.concatenate([sums, x[whole:].sum(axis=0, keepdims=True)])
