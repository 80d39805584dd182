"""Building a pyramid: one pass over a tensor by the stream, block reductions by the kernels, levels to the store."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge import stream
from weighbridge.checkpoints.dtypes import DType
from weighbridge.checkpoints.protocol import Tensor
from weighbridge.errors import BadArgument, Cancelled, WeighbridgeError
from weighbridge.matrix import Folded, MatrixView
from weighbridge.pyramid.store import Layout, Pyramid, PyramidWriter
from weighbridge.stream import Bytes, Fold, Piece
from weighbridge_kernels import formats
from weighbridge_kernels.blocks import BASE, Blocks, coarsened, entries
from weighbridge_kernels.variants import Variant

STRIP_ENTRIES = 1 << 22
MEMORY = 256 << 20
_COARSEN_BLOCKS = 1 << 20


def build(
    tensor: Tensor,
    view: MatrixView | Folded,
    folder: Path,
    variant: Variant,
    *,
    memory: int = MEMORY,
    workers: int = 2,
    advanced: Callable[[int], None] = lambda nbytes: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Pyramid:
    """Writes the pyramid of a tensor, seen as a matrix, into an empty folder.

    Each strip of whole blocks is read once and reduced as far as it goes; the levels above follow from the last of
    those. `memory` bounds what is read ahead. Raises what reading raises, `Cancelled` once `cancelled` says so, and
    `BadArgument` for a matrix that has none.
    """
    layout = layout_of(tensor, view)
    plan: list[stream.Span] = [(piece,) for piece in _strips(tensor, layout.shape)]
    _check(plan, memory)
    writer = PyramidWriter(folder, layout)
    fold = _PyramidFold(layout, writer, variant, cancelled)
    stream.run(plan, fold, memory=memory, workers=workers, advanced=advanced)
    if fold.error is not None:
        raise fold.error
    pyramid = Pyramid(folder, layout)
    for level in range(fold.strip_levels, layout.levels):
        _coarsen_level(pyramid, writer, level)
    writer.complete()
    return pyramid


def layout_of(tensor: Tensor, view: MatrixView | Folded) -> Layout:
    """The layout of a tensor's pyramid. Raises `BadArgument` where it has no order or no entries."""
    if tensor.dtype.kind == "complex" or tensor.count == 0:
        what = "has no entries" if tensor.count == 0 else f"is {tensor.dtype}, and complex numbers have no order"
        raise BadArgument(f"{tensor.name}: {what}; choose another tensor")
    return Layout((view.rows, view.cols), tensor.dtype.name)


def decoding(dtype: DType) -> npt.NDArray[np.float32] | None:
    """The table of what bit patterns stand for, of types that NumPy's arithmetic does not know."""
    return formats.values(dtype.name).astype(np.float32) if dtype.bits <= 16 else None


def _strips(tensor: Tensor, shape: tuple[int, int]) -> list[Piece]:
    """Rows by a power of two of blocks, or parts of a single row."""
    rows, cols = shape
    unit = BASE if rows == 1 else BASE * cols
    step = unit << max(max(STRIP_ENTRIES // unit, 1).bit_length() - 1, 0)
    starts = range(0, tensor.count, step)
    return [Piece(tensor, i, len(starts) - 1, at, min(step, tensor.count - at)) for i, at in enumerate(starts)]


def _check(plan: list[stream.Span], memory: int) -> None:
    largest = plan[0][0]
    if largest.nbytes > memory // 2:
        raise BadArgument(f"{largest.tensor.name}: {BASE} rows are {largest.nbytes:,} bytes, too many for a picture")


class _PyramidFold(Fold[list[Blocks]]):
    def __init__(self, layout: Layout, writer: PyramidWriter, variant: Variant, cancelled: Callable[[], bool]) -> None:
        self._layout = layout
        self._writer = writer
        self._variant = variant
        self._cancelled = cancelled
        self._table = decoding(layout.entry_dtype)
        self.strip_levels = 1
        self.error: WeighbridgeError | None = None

    def summarize(self, piece: Piece, packed: Bytes) -> list[Blocks]:
        if self._cancelled():
            raise Cancelled(f"{piece.tensor.name}: its pyramid is no longer wanted")
        x = self._matrix(piece, packed)
        levels = [self._variant.block_reductions(self._variant.put(x), self._table)]
        for level in range(1, self._levels_of(piece)):
            levels.append(coarsened(levels[-1], entries(x.shape, self._layout.side(level - 1))))
        return levels

    def _matrix(self, piece: Piece, packed: Bytes) -> npt.NDArray[Any]:
        found = piece.tensor.dtype.unpack(packed, piece.count)
        cols = piece.count if self._layout.shape[0] == 1 else self._layout.shape[1]
        if piece.tensor.dtype.bits <= 16:
            found = found.view(f"u{found.dtype.itemsize}")
        return found.reshape(-1, cols)

    def _levels_of(self, piece: Piece) -> int:
        """Levels whose blocks no strip cuts; all where one strip is the whole."""
        if piece.last == 0:
            return self._layout.levels
        first = piece.count if piece.index < piece.last else piece.start // piece.index
        blocks = first // BASE if self._layout.shape[0] == 1 else first // self._layout.shape[1] // BASE
        return min(blocks.bit_length(), self._layout.levels)

    def absorb(self, piece: Piece, packed: Bytes, state: list[Blocks]) -> None:
        self.strip_levels = len(state)
        for level, blocks in enumerate(state):
            self._writer.append(level, blocks)

    def fail(self, tensor: Tensor, error: WeighbridgeError) -> None:
        self.error = error


def _coarsen_level(pyramid: Pyramid, writer: PyramidWriter, level: int) -> None:
    """Writes a level from the one before, by parts that fit in memory."""
    layout = pyramid.layout
    rows, cols = layout.blocks(level - 1)
    across = layout.shape[0] == 1
    extent, width = (cols, rows) if across else (rows, cols)
    step = max(_COARSEN_BLOCKS // width // 2, 1) * 2
    for start in range(0, extent, step):
        part = slice(start, start + step)
        at = (slice(None), part) if across else (part, slice(None))
        writer.append(level, coarsened(pyramid.blocks(level - 1, *at), layout.entries(level - 1, at)))
