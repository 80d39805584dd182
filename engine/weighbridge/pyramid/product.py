"""A product of two thin matrices as a `Matrix` that computes what is looked at."""

import math
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from weighbridge.checkpoints.protocol import Slices
from weighbridge.pyramid.matrix import Axes, Shape
from weighbridge.pyramid.mean_rows import Levels, MeanRows, Read, collected, cuts
from weighbridge.pyramid.store import Layout
from weighbridge_kernels import variants
from weighbridge_kernels.blocks import BASE, Blocks

FULL_ENTRIES = 1 << 22
"""A window of up to so many entries is computed entry by entry; of a larger one there are means alone."""


class Rows(Protocol):
    """One side of a product: `count` rows of `rank` numbers, of which any span can be had."""

    @property
    def count(self) -> int: ...

    @property
    def rank(self) -> int: ...

    def rows(self, at: slice) -> npt.NDArray[np.float32]: ...


class ProductMatrix:
    """`left @ right.T` as a `Matrix`, of which nothing is held but mean rows of both sides.

    Entries are float32 products of the rows that `left` and `right` read; rows that are not live, and columns, are NaN,
    and means are over the other pairs. A window of up to 2^22 entries has every reduction, a larger one means alone.
    """

    digits = 7
    order: npt.NDArray[np.int64] | None = None

    def __init__(
        self,
        name: str,
        shape: Shape,
        left: tuple[Read, MeanRows],
        right: tuple[Read, MeanRows] | None = None,
        *,
        sides: tuple[str, str],
        entry: str,
        axes: Axes | None = None,
    ) -> None:
        """Each side reads its rows and has the mean rows of every 8; without `right` it is `left` again."""
        self.name, self.shape, self.sides, self.entry = name, shape, sides, entry
        self.axes: Axes = axes or ((shape[0],), (shape[1],))
        self._layout = Layout(shape, "F32")
        self._left = Levels(shape[0], *left, self._layout.levels)
        self._right = self._left if right is None else Levels(shape[1], *right, self._layout.levels)

    @property
    def levels(self) -> int:
        return self._layout.levels

    def means_only(self, level: int, entries: int) -> bool:
        return level >= 0 or entries > FULL_ENTRIES

    def entries(self, rows: slice, cols: slice) -> npt.NDArray[np.float32]:
        if math.prod(self.shape) <= FULL_ENTRIES:
            return self._whole[rows, cols]
        return self.multiplied(rows, cols)

    @cached_property
    def _whole(self) -> npt.NDArray[np.float32]:
        """All entries of a small matrix, whose rows may be long: multiplied once."""
        return self.multiplied(slice(0, self.shape[0]), slice(0, self.shape[1]))

    def multiplied(self, rows: slice, cols: slice) -> npt.NDArray[np.float32]:
        """The entries of a window out of the rows of both sides."""
        found = np.empty((rows.stop - rows.start, cols.stop - cols.start), np.float32)
        for part, down in self._left.tiles(rows):
            for at, across in self._right.tiles(cols):
                tile = found[part, at]
                tile[...] = down.means @ across.means.T
                tile[down.live == 0], tile[:, across.live == 0] = np.nan, np.nan
        return found

    def read(self, slices: Slices = ()) -> npt.NDArray[np.float32]:
        """The entries in `slices`, as a tensor's are read; all by default."""
        index = slices if isinstance(slices, tuple) else (slices,)
        (rows, down), (cols, across) = (
            _bounds(part, extent) for part, extent in zip([*index, slice(None), slice(None)], self.shape, strict=False)
        )
        found: npt.NDArray[np.float32] = self.entries(rows, cols)[down, across]
        return found

    def reduced(self, rows: slice, cols: slice, block: Shape) -> Blocks:
        if not self.means_only(-1, (rows.stop - rows.start) * (cols.stop - cols.start)):
            return variants.select("cpu").block_reductions(self.entries(rows, cols), block=block)
        down, across = self._left.merged(rows, block[0]), self._right.merged(cols, block[1])
        counts = np.multiply.outer(*(_sizes(span, side) for span, side in zip((rows, cols), block, strict=True)))
        return _mean_blocks(down, across, counts)

    def level(self, level: int, rows: slice, cols: slice) -> Blocks:
        return _mean_blocks(self._left[level][rows], self._right[level][cols], self.counts(level, rows, cols))

    def counts(self, level: int, rows: slice, cols: slice) -> npt.NDArray[np.int64]:
        return self._layout.entries(level, (rows, cols))


def product(name: str, left: Rows, right: Rows, *, sides: tuple[str, str], entry: str) -> ProductMatrix:
    """The matrix `left @ right.T`; reads all rows of both sides once, for their means."""
    return ProductMatrix(name, (left.count, right.count), _side(left), _side(right), sides=sides, entry=entry)


def _side(of: Rows) -> tuple[Read, MeanRows]:
    def read(span: slice) -> MeanRows:
        rows = of.rows(span)
        live = np.logical_and.reduce(np.isfinite(rows), axis=1)
        return MeanRows(rows if live.all() else np.where(live[:, None], rows, np.float32(0)), live.astype(np.int64))

    parts = (read(span).merged(BASE) for span in cuts(slice(0, of.count), of.rank, BASE))
    return read, collected(parts, -(-of.count // BASE), of.rank)


def _mean_blocks(down: MeanRows, across: MeanRows, counts: npt.NDArray[np.int64]) -> Blocks:
    """Blocks of which nothing but the mean and the pairs without an entry are known; the rest is NaN."""
    mean = down.means @ across.means.T
    unknown = np.broadcast_to(np.float32(np.nan), mean.shape)
    none = np.broadcast_to(np.int64(0), mean.shape)
    nan = counts - np.multiply.outer(down.live, across.live)
    return Blocks(unknown, unknown, mean, unknown, none, nan, none)


def _sizes(span: slice, side: int) -> npt.NDArray[np.int64]:
    """Rows of each block of a span."""
    return np.diff(np.append(np.arange(span.start, span.stop, side), span.stop))


def _bounds(part: slice | int, extent: int) -> tuple[slice, slice | int]:
    """The window that an index lies in, and what it takes of it."""
    every = range(extent)
    taken = every[part] if isinstance(part, slice) else range(every[part], every[part] + 1)
    low, high = (min(taken[0], taken[-1]), max(taken[0], taken[-1]) + 1) if taken else (0, 0)
    return slice(low, high), slice(None, None, taken.step) if isinstance(part, slice) else 0
