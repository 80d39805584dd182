"""The matrices in a tensor: itself, its experts, its heads, a convolution unfolded or cut; read in strips."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weighbridge.checkpoints.config import Heads
from weighbridge.checkpoints.protocol import Tensor
from weighbridge.matrix import MatrixView

Convolutions = Literal["unfolded", "slices", "circular"]
Attention = Literal["whole", "heads"]
Array = npt.NDArray[Any]

STRIP_ENTRIES = 1 << 22
"""Entries of a strip, and of all matrices of a batch together."""
_HELD_ENTRIES = 1 << 24
"""A tensor up to this size is read once, whatever is cut from it."""


@dataclass(frozen=True)
class Part:
    """`rows` × `cols` entries of a flat tensor from `start` on, `row_step` from row to row, `col_step` along one."""

    name: str
    start: int
    rows: int
    cols: int
    row_step: int
    col_step: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix."""
        return self.rows, self.cols


class Reader:
    """Matrices of one tensor as arrays, in its stored dtype."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self._held: Array | None = None

    @property
    def itemsize(self) -> int:
        """Bytes of an entry of the arrays."""
        return self._tensor.dtype.array.itemsize

    def _entries(self, start: int, count: int) -> Array:
        if self._tensor.count > _HELD_ENTRIES:
            return self._tensor.entries(start, count)
        if self._held is None:
            self._held = self._tensor.entries(0, self._tensor.count)
        return self._held[start : start + count]

    def window(self, part: Part, rows: slice, cols: slice) -> Array:
        """Some rows and columns of a matrix; of whole rows that follow one another, one read."""
        width = (cols.stop - cols.start - 1) * part.col_step + 1
        first = part.start + rows.start * part.row_step + cols.start * part.col_step
        height = rows.stop - rows.start
        if part.row_step == part.col_step * (cols.stop - cols.start) or self._tensor.count <= _HELD_ENTRIES:
            flat = self._entries(first, (height - 1) * part.row_step + width)
            steps = (part.row_step * flat.itemsize, part.col_step * flat.itemsize)
            return np.lib.stride_tricks.as_strided(flat, (height, cols.stop - cols.start), steps, writeable=False)
        lines = [self._entries(first + row * part.row_step, width)[:: part.col_step] for row in range(height)]
        return np.stack(lines)

    def whole(self, part: Part) -> Array:
        """A matrix whole."""
        return self.window(part, slice(0, part.rows), slice(0, part.cols))

    def strips(self, parts: Sequence[Part], entries: int | None = None) -> Iterator[Array]:
        """Strips of the long side, each with the short side across: of several small matrices of one shape stacked."""
        rows, cols = parts[0].shape
        step = max((entries or STRIP_ENTRIES) // (min(rows, cols) * len(parts)), 1)
        for at in range(0, max(rows, cols), step):
            stop = min(at + step, max(rows, cols))
            if rows >= cols:
                strips = [self.window(part, slice(at, stop), slice(0, cols)) for part in parts]
            else:
                strips = [self.window(part, slice(0, rows), slice(at, stop)).T for part in parts]
            yield strips[0] if len(strips) == 1 else np.stack(strips)


def parts_of(
    tensor: Tensor, view: MatrixView, *, convolutions: Convolutions = "unfolded", heads: Heads | None = None
) -> Iterator[Part]:
    """The matrices of a tensor of two axes or more.

    One of two axes is a matrix; of more, a stack of matrices, one for each index before the last two axes. A
    convolution is unfolded, or cut into one matrix for each place of its kernel. With `heads`, the slabs of an
    attention matrix follow the matrix itself.
    """
    if view.layout != "matrix":
        yield from [_whole(view)] if convolutions == "unfolded" else _slices(view)
    elif len(tensor.shape) == 2:
        yield _whole(view)
        if heads is not None:
            yield from _slabs(view, heads)
    else:
        *stack, rows, cols = tensor.shape
        for number, index in enumerate(np.ndindex(*stack)):
            yield Part(",".join(map(str, index)), number * rows * cols, rows, cols, cols)


def _whole(view: MatrixView) -> Part:
    return Part("", 0, view.rows, view.cols, view.cols)


def _slices(view: MatrixView) -> Iterator[Part]:
    """Output by input channels at each place of the kernel where stored so, input by output where stored last."""
    outputs, inputs, space = view.filters
    places = math.prod(space)
    for place, index in enumerate(np.ndindex(*space)):
        name = "place " + ",".join(map(str, index))
        if view.layout == "out_in_space":
            yield Part(name, place, outputs, inputs, inputs * places, places)
        else:
            yield Part(name, place * inputs * outputs, inputs, outputs, outputs)


def _slabs(view: MatrixView, heads: Heads) -> Iterator[Part]:
    """Rows or columns of an attention matrix, as many as a head has."""
    for head in range(heads.count):
        if heads.axis == "rows":
            yield Part(f"head {head}", head * heads.size * view.cols, heads.size, view.cols, view.cols)
        else:
            yield Part(f"head {head}", head * heads.size, view.rows, heads.size, view.cols)


def batches(parts: Iterator[Part]) -> Iterator[list[Part]]:
    """Parts that follow one another and are of one shape, as many as a strip holds; a larger one alone."""
    batch: list[Part] = []
    for part in parts:
        if batch and (part.shape != batch[0].shape or (len(batch) + 1) * part.rows * part.cols > STRIP_ENTRIES):
            yield batch
            batch = []
        batch.append(part)
    if batch:
        yield batch
