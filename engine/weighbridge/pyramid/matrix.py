"""What a heatmap looks at: a matrix of which any window can be had, as entries or as reductions of blocks."""

import math
from collections.abc import Collection
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from weighbridge.checkpoints.dtypes import DType
from weighbridge.checkpoints.protocol import Tensor
from weighbridge.errors import BadArgument
from weighbridge.matrix import Folded, MatrixView, matrix_view
from weighbridge.pyramid.build import decoding, layout_of
from weighbridge.pyramid.store import Pyramid
from weighbridge.roles import assign
from weighbridge_kernels import variants
from weighbridge_kernels.blocks import Blocks

DIRECT_ENTRIES = 1 << 25
"""A window of up to so many entries is read from the source itself; a matrix of no more needs no pyramid."""
_GAP = 1 << 14
"""Bytes between two parts of rows that are rather read than skipped."""
_WHOLE_ROWS = 1 << 22
"""Entries of whole rows that are read at once, of which a window may keep little."""

Shape = tuple[int, int]
Axes = tuple[tuple[int, ...], tuple[int, ...]]
View = MatrixView | Folded


class Matrix(Protocol):
    """A matrix to look at. `levels` is how many levels of blocks it offers beyond its entries, perhaps none.

    `axes` are the sides that its rows and its columns are folded from; `digits` significant digits tell any two entries
    apart. `sides` are what a row and a column are called, `entry` what an entry is; `order` has the index of the row
    and the column at each place of a matrix that is put in order, else it is None.
    """

    name: str
    shape: Shape
    axes: Axes
    digits: int
    sides: tuple[str, str]
    entry: str
    order: npt.NDArray[Any] | None

    @property
    def levels(self) -> int: ...

    def entries(self, rows: slice, cols: slice) -> npt.NDArray[Any]:
        """The entries of a window, as floats or integers of NumPy's own."""
        ...

    def reduced(self, rows: slice, cols: slice, block: Shape) -> Blocks:
        """Reductions of the blocks that a window of entries is cut into."""
        ...

    def level(self, level: int, rows: slice, cols: slice) -> Blocks:
        """Reductions of blocks of 8 · 2^level entries a side; the window counts blocks."""
        ...

    def counts(self, level: int, rows: slice, cols: slice) -> npt.NDArray[np.int64]:
        """How many entries each of those blocks has."""
        ...

    def means_only(self, level: int, entries: int) -> bool:
        """Whether no reduction but the mean is known of a window of so many entries, had from a level or from them."""
        ...


class _OfWeights:
    """What matrices of stored weights have in common."""

    sides = ("row", "column")
    entry = "stored weight"
    order: npt.NDArray[Any] | None = None

    def means_only(self, level: int, entries: int) -> bool:
        return False


class WeightMatrix(_OfWeights):
    """A stored tensor as a `Matrix`, with its pyramid where it is too large to be read at once.

    Its axes fold into rows and columns as `view` says. Raises `BadArgument` for a tensor without picture.
    """

    def __init__(self, tensor: Tensor, view: MatrixView | Folded, pyramid: Pyramid | None = None) -> None:
        self._layout = layout_of(tensor, view)
        self.name = tensor.name
        self.shape = self._layout.shape
        self.axes: Axes = view.axes
        self.digits = _digits(tensor.dtype)
        self.pyramid = pyramid
        self.view = view
        self.tensor = tensor
        self._table = decoding(tensor.dtype)

    @property
    def needs_pyramid(self) -> bool:
        """Whether the whole is more than is read at once, and no pyramid is there yet."""
        return self.tensor.count > DIRECT_ENTRIES and self.pyramid is None

    @property
    def levels(self) -> int:
        return self._layout.levels if self.pyramid else 0

    def entries(self, rows: slice, cols: slice) -> npt.NDArray[Any]:
        codes = self._codes(rows, cols)
        return codes if self._table is None else self._table[codes]

    def reduced(self, rows: slice, cols: slice, block: Shape) -> Blocks:
        return variants.select("cpu").block_reductions(
            np.ascontiguousarray(self._codes(rows, cols)), self._table, block=block
        )

    def level(self, level: int, rows: slice, cols: slice) -> Blocks:
        if self.pyramid is None:
            raise BadArgument(f"{self.name}: its pyramid is not there yet; build it first")
        return self.pyramid.blocks(level, rows, cols)

    def counts(self, level: int, rows: slice, cols: slice) -> npt.NDArray[np.int64]:
        return self._layout.entries(level, (rows, cols))

    def _codes(self, rows: slice, cols: slice) -> npt.NDArray[Any]:
        """Entries of up to 16 bits as the unsigned integers that they are stored as, others as they are."""
        found = _window(self.tensor, self.shape[1], rows, cols)
        return found.view(f"u{found.dtype.itemsize}") if self._table is not None else found


class MosaicMatrix(_OfWeights):
    """The kernels of a convolution as a `Matrix`: outputs down, inputs across, each pair's filter a small picture."""

    def __init__(self, tensor: Tensor, view: MatrixView) -> None:
        layout_of(tensor, view)
        outputs, inputs, space = view.filters
        down, across = (1, *space)[-2:] if len(space) < 3 else (math.prod(space[:-1]), space[-1])
        self.name = tensor.name
        self.shape = outputs * down, inputs * across
        self.axes: Axes = (outputs, down), (inputs, across)
        self.digits = _digits(tensor.dtype)
        self._tensor, self._view = tensor, view

    @property
    def levels(self) -> int:
        return 0

    @cached_property
    def _array(self) -> npt.NDArray[Any]:
        (outputs, down), (inputs, across) = self.axes
        table = decoding(self._tensor.dtype)
        flat = self._tensor.entries(0, self._tensor.count)
        values = flat if table is None else table[flat.view(f"u{flat.dtype.itemsize}")]
        if self._view.layout == "out_in_space":
            tiles = values.reshape(outputs, inputs, down, across).transpose(0, 2, 1, 3)
        else:
            tiles = values.reshape(down, across, inputs, outputs).transpose(3, 0, 2, 1)
        return np.ascontiguousarray(tiles).reshape(self.shape)

    def entries(self, rows: slice, cols: slice) -> npt.NDArray[Any]:
        return self._array[rows, cols]

    def reduced(self, rows: slice, cols: slice, block: Shape) -> Blocks:
        return variants.select("cpu").block_reductions(np.ascontiguousarray(self._array[rows, cols]), block=block)

    def level(self, level: int, rows: slice, cols: slice) -> Blocks:
        raise BadArgument(f"{self.name}: a mosaic has no levels")

    def counts(self, level: int, rows: slice, cols: slice) -> npt.NDArray[np.int64]:
        raise BadArgument(f"{self.name}: a mosaic has no levels")


def matrix_of(tensor: Tensor, names: Collection[str] = ()) -> "WeightMatrix | MosaicMatrix":
    """A tensor as it is best looked at: convolutions as a mosaic of filters, projections to heads with heads across.

    Others are seen as in a report (`matrix_view`). `names` are those of the checkpoint, by which roles are told. Raises
    `BadArgument` for a tensor without picture.
    """
    view = view_of(tensor, names)
    if isinstance(view, MatrixView) and view.layout not in ("vector", "matrix") and tensor.count <= DIRECT_ENTRIES:
        return MosaicMatrix(tensor, view)
    return WeightMatrix(tensor, view)


def view_of(tensor: Tensor, names: Collection[str] = ()) -> View:
    """How a tensor folds into rows and columns, heads across where it projects to them."""
    role = assign(tensor.name, tensor.shape, tensor.dtype.name, names or {tensor.name}).role
    by_head = role in ("attention_q", "attention_k", "attention_v", "attention_qkv") and len(tensor.shape) == 3
    return Folded(tensor.shape, 1) if by_head else matrix_view(tensor.name, tensor.shape, role)


def _digits(dtype: DType) -> int:
    return 17 if dtype.bits > 32 else 9 if dtype.kind == "float" else 10


def _window(tensor: Tensor, width: int, rows: slice, cols: slice) -> npt.NDArray[Any]:
    """A window of rows of `width` entries, read row by row where much would be skipped, else by some whole rows."""
    window = np.empty((rows.stop - rows.start, cols.stop - cols.start), tensor.dtype.array)
    if tensor.dtype.nbytes(width - window.shape[1]) >= _GAP:
        for i, row in enumerate(window, rows.start):
            row[:] = tensor.entries(i * width + cols.start, row.size)
        return window
    step = max(_WHOLE_ROWS // width, 1)
    for top in range(0, len(window), step):
        part = window[top : top + step]
        part[:] = tensor.entries((rows.start + top) * width, len(part) * width).reshape(-1, width)[:, cols]
    return window
