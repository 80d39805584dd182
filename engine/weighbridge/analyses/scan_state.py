"""What a scan keeps of a tensor while it streams by, and how a span is summarised into it.

The kind of the dtype decides what is counted: bit patterns (16 bits or fewer), upper halves with float64 moments
(float32, float64), exact integer sums (wider integers), or magnitudes (complex).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge.checkpoints.dtypes import DType
from weighbridge.checkpoints.protocol import Tensor
from weighbridge.matrix import MatrixView
from weighbridge.stream import Piece
from weighbridge_kernels import formats
from weighbridge_kernels.quantizers import BLOCK_MULTIPLE
from weighbridge_kernels.states import AxisSums, BlockErrors, FloatArray, IntArray, Moments
from weighbridge_kernels.variants import Variant

MAX_CHANNELS = 1 << 20
"""Rows or columns beyond which channels are not kept."""
_MAX_EXPONENT = 120
"""Tiles are scaled by at most 2^±120, which float32 still holds."""


@dataclass
class Classes:
    """Entries that are no finite non-zero number."""

    nan: int = 0
    posinf: int = 0
    neginf: int = 0
    zeros: int = 0

    def merge(self, other: "Classes") -> "Classes":
        return Classes(
            self.nan + other.nan, self.posinf + other.posinf, self.neginf + other.neginf, self.zeros + other.zeros
        )


@dataclass
class IntegerSums:
    """Exact extremes and sum of integers, as Python's."""

    least: int | None = None
    greatest: int | None = None
    total: int = 0

    def merge(self, other: "IntegerSums") -> "IntegerSums":
        if self.least is None or other.least is None:
            return other if self.least is None else self
        assert self.greatest is not None
        assert other.greatest is not None
        return IntegerSums(min(self.least, other.least), max(self.greatest, other.greatest), self.total + other.total)


@dataclass
class SpanSummary:
    """The state of one piece; what a kind of dtype has no use for stays None."""

    classes: Classes = field(default_factory=Classes)
    counts: IntArray | None = None
    beyond: tuple[int, int] = (0, 0)
    """float64 entries below and above float32's range."""
    low_halves: int = 0
    half_precision: bool = True
    """Every float32 is a float16 too; every float64 a float32."""
    moments: Moments = field(default_factory=Moments.empty)
    integers: IntegerSums = field(default_factory=IntegerSums)
    squares: float = 0.0
    errors: BlockErrors | None = None
    sparse_groups: int | None = None
    rows: AxisSums | None = None
    first_row: int = 0
    cols: AxisSums | None = None
    first_col: int = 0

    def merge(self, other: "SpanSummary") -> None:
        """Adds in place what does not depend on position."""
        self.classes = self.classes.merge(other.classes)
        if other.counts is not None:
            self.counts = other.counts if self.counts is None else self.counts + other.counts
        self.beyond = self.beyond[0] + other.beyond[0], self.beyond[1] + other.beyond[1]
        self.low_halves |= other.low_halves
        self.half_precision &= other.half_precision
        self.moments = self.moments.merge(other.moments)
        self.integers = self.integers.merge(other.integers)
        self.squares += other.squares
        if other.errors is not None:
            self.errors = other.errors if self.errors is None else self.errors.merge(other.errors)
        if other.sparse_groups is not None:
            self.sparse_groups = (self.sparse_groups or 0) + other.sparse_groups


def summarize(piece: Piece, packed: npt.NDArray[np.uint8], view: MatrixView, variant: Variant) -> SpanSummary:
    """The state of a piece from its bytes. Pure: it depends on nothing but its arguments."""
    dtype = piece.tensor.dtype
    entries = dtype.unpack(packed, piece.count)
    shape, first_row, first_col = _place(piece, view)
    summary = SpanSummary(first_row=first_row, first_col=first_col)
    if piece.count:
        _SUMMARIZERS[counting(dtype)](summary, entries, dtype, shape, variant)
    if not view.has_channels:
        summary.rows = summary.cols = None
    return summary


def counting(dtype: DType) -> str:
    """Which of the ways of counting serves a dtype: `codes`, `float`, `integer` or `complex`."""
    if dtype.kind == "complex":
        return "complex"
    if dtype.bits <= 16:
        return "codes"
    return "float" if dtype.kind == "float" else "integer"


def _place(piece: Piece, view: MatrixView) -> tuple[tuple[int, int], int, int]:
    """The piece as rows × columns, with its first row and column in the tensor's view."""
    cols = max(view.cols, 1)
    if piece.count % cols == 0:
        return (piece.count // cols, cols), piece.start // cols, 0
    return (1, piece.count), piece.start // cols, piece.start % cols


def _codes(
    summary: SpanSummary, entries: npt.NDArray[Any], dtype: DType, shape: tuple[int, int], variant: Variant
) -> None:
    codes = entries.view(f"u{entries.dtype.itemsize}")
    values = formats.values(dtype.name)
    on_device = variant.put(codes)
    counts = variant.bit_histogram(on_device, values.size)
    summary.counts = counts
    (occupied,) = np.nonzero(counts)
    present = values[occupied]
    finite = present[np.isfinite(present)]
    if dtype.kind == "bool":
        return
    summary.sparse_groups = 0
    if counts[values == 0].sum() >= 2:
        patterns = np.flatnonzero(values == 0).astype(codes.dtype)
        zero = reduce(np.logical_or, [codes == pattern for pattern in patterns]).reshape(shape)
        summary.sparse_groups = variant.groups_with_two_zeros(variant.put(zero))
    exponent = _exponent(float(np.abs(finite).max(initial=0.0)))
    matrix = on_device.reshape(shape)
    missing = ~np.isfinite(values)[codes].reshape(shape) if finite.size < present.size else None
    _tiles(
        summary,
        shape,
        exponent,
        missing,
        dtype,
        variant,
        lambda at, padded: variant.code_tile(matrix[at], dtype.name, exponent, padded),
    )


def _floats(
    summary: SpanSummary, entries: npt.NDArray[Any], dtype: DType, shape: tuple[int, int], variant: Variant
) -> None:
    on_device = variant.put(entries)
    if dtype.bits == 64:
        counts, magnitude = _count_float64(summary, entries, variant)
    else:
        counts, magnitude = _count_float32(summary, entries, on_device, variant)
    summary.counts = counts
    summary.moments = variant.central_moments(on_device)
    summary.sparse_groups = 0
    if summary.classes.zeros >= 2:
        summary.sparse_groups = variant.groups_with_two_zeros(variant.put((entries == 0).reshape(shape)))
    classes = summary.classes
    missing = None if classes.nan + classes.posinf + classes.neginf == 0 else ~np.isfinite(entries).reshape(shape)
    exponent = _exponent(magnitude)
    matrix = on_device.reshape(shape)
    _tiles(
        summary,
        shape,
        exponent,
        missing,
        dtype,
        variant,
        lambda at, padded: variant.float_tile(matrix[at], exponent, padded),
    )


def _count_float32(
    summary: SpanSummary, entries: npt.NDArray[Any], on_device: Any, variant: Variant
) -> tuple[IntArray, float]:
    counts, summary.low_halves, (nan, posinf, neginf, poszero, negzero) = variant.high_half_histogram(
        on_device.view(np.uint32)
    )
    summary.classes = Classes(int(nan), int(posinf), int(neginf), int(poszero + negzero))
    summary.half_precision = summary.low_halves & 0x1FFF == 0 and _fits(entries, np.float16)
    counts = _finite_nonzero(counts, int(poszero), int(negzero))
    return counts, _greatest_high_half(counts)


def _count_float64(summary: SpanSummary, entries: npt.NDArray[Any], variant: Variant) -> tuple[IntArray, float]:
    """float64 is counted through its float32 rounding; what lies beyond float32's range is counted apart."""
    finite = np.isfinite(entries)
    with np.errstate(over="ignore", under="ignore"):
        rounded = entries.astype(np.float32)
    out = finite & ~np.isfinite(rounded)
    below, above = int((out & (entries < 0)).sum()), int((out & (entries > 0)).sum())
    counts, _, (nan, posinf, neginf, _, _) = variant.high_half_histogram(variant.put(rounded.view(np.uint32)))
    zero = entries == 0
    negzero = int((zero & np.signbit(entries)).sum())
    poszero = int(zero.sum()) - negzero
    summary.classes = Classes(int(nan), int(posinf) - above, int(neginf) - below, poszero + negzero)
    summary.beyond = below, above
    summary.low_halves = 1  # bins hold roundings
    summary.half_precision = bool(np.array_equal(rounded, entries, equal_nan=True))
    magnitude = float(np.abs(np.where(finite, entries, 0.0)).max(initial=0.0))
    counts = _finite_nonzero(counts, poszero, negzero)
    counts[[0xFF7F, 0x7F7F]] += below, above
    return counts, magnitude


def _finite_nonzero(counts: IntArray, poszero: int, negzero: int) -> IntArray:
    counts = counts.copy()
    counts[0x7F80:0x8000] = 0
    counts[0xFF80:] = 0
    counts[0] -= poszero
    counts[0x8000] -= negzero
    return counts


def _greatest_high_half(counts: IntArray) -> float:
    (occupied,) = np.nonzero(counts[:0x8000] + counts[0x8000:])
    return float((np.uint32(occupied[-1]) << 16 | 0xFFFF).view(np.float32)) if occupied.size else 0.0


def _fits(entries: npt.NDArray[Any], narrower: type[np.floating[Any]]) -> bool:
    with np.errstate(over="ignore", under="ignore"):
        return bool(np.array_equal(entries.astype(narrower).astype(entries.dtype), entries, equal_nan=True))


def _exponent(magnitude: float) -> int:
    """Binary exponent e with 2^e <= magnitude, within what a tile can be scaled by; 0 for 0."""
    exponent = int(np.frexp(magnitude)[1]) - 1 if magnitude else 0
    return max(-_MAX_EXPONENT, min(exponent, _MAX_EXPONENT))


def _tiles(
    summary: SpanSummary,
    shape: tuple[int, int],
    exponent: int,
    missing: npt.NDArray[np.bool_] | None,
    dtype: DType,
    variant: Variant,
    tile_at: Callable[[tuple[slice, slice], int], Any],
) -> None:
    """Runs the position-bound kernels over the piece, tile by tile."""
    n_rows, n_cols = shape
    rows, cols = np.zeros((3, n_rows)), np.zeros((3, n_cols))
    errors = []
    for down, across in _tiling(n_rows, n_cols, variant):
        width = across.stop - across.start
        tile = tile_at((down, across), -(-width // BLOCK_MULTIPLE) * BLOCK_MULTIPLE)
        of_rows, of_columns = variant.channel_sums(tile)
        _accumulate(rows[:, down], of_rows)
        _accumulate(cols[:, across], of_columns[:, :width])
        if dtype.kind == "float":
            errors.append(variant.block_errors(tile))
    summary.rows = _axis_sums(rows, exponent, n_cols, missing, 1)
    summary.cols = _axis_sums(cols, exponent, n_rows, missing, 0)
    if errors:
        summary.errors = reduce(BlockErrors.merge, errors).scaled(exponent)


def _tiling(n_rows: int, n_cols: int, variant: Variant) -> Iterator[tuple[slice, slice]]:
    """Tiles of up to `tile_entries` entries and `tile_cols` columns; none cuts a block of a quantiser."""
    width = min(n_cols, variant.tile_cols)
    height = max(variant.tile_entries // width, 1)
    for top in range(0, n_rows, height):
        for left in range(0, n_cols, width):
            yield slice(top, min(top + height, n_rows)), slice(left, min(left + width, n_cols))


def _accumulate(sums: FloatArray, of_tile: FloatArray) -> None:
    sums[:2] += of_tile[:2]
    np.maximum(sums[2], of_tile[2], out=sums[2])


def _axis_sums(
    sums: FloatArray, exponent: int, entries: int, missing: npt.NDArray[np.bool_] | None, axis: int
) -> AxisSums:
    """Sums of a scaled tile in the units of the weights, with the entries of each channel that are finite."""
    count = np.full(sums.shape[1], float(entries))
    if missing is not None:
        count -= missing.sum(axis=axis)
    return AxisSums(sums[0] * 2.0**exponent, sums[1] * 4.0**exponent, sums[2] * 2.0**exponent, count)


def _integers(
    summary: SpanSummary, entries: npt.NDArray[Any], dtype: DType, shape: tuple[int, int], variant: Variant
) -> None:
    summary.integers = IntegerSums(int(entries.min()), int(entries.max()), _exact_sum(entries))
    summary.classes = Classes(zeros=int(entries.size - np.count_nonzero(entries)))


def _exact_sum(entries: npt.NDArray[Any]) -> int:
    """The sum without wrapping around: 64-bit entries by halves."""
    if entries.dtype.itemsize < 8:
        return int(entries.sum(dtype=np.int64))
    low = entries & entries.dtype.type(0xFFFFFFFF)
    return (int((entries >> entries.dtype.type(32)).sum(dtype=np.int64)) << 32) + int(low.sum(dtype=np.int64))


def _complexes(
    summary: SpanSummary, entries: npt.NDArray[Any], dtype: DType, shape: tuple[int, int], variant: Variant
) -> None:
    """An entry is NaN where either part is, infinite (counted as +inf) where either part is; neither has a sign."""
    nan = np.isnan(entries)
    infinite = np.isinf(entries.real) | np.isinf(entries.imag)
    finite = entries[~nan & ~infinite].astype(np.complex128)
    summary.classes = Classes(int((nan & ~infinite).sum()), int(infinite.sum()), 0, int((entries == 0).sum()))
    magnitude = np.abs(finite)
    summary.moments = replace(
        Moments.empty(), count=finite.size, l1=float(magnitude.sum()), max=float(magnitude.max(initial=0.0))
    )
    summary.squares = float((magnitude * magnitude).sum())


_SUMMARIZERS = {"codes": _codes, "float": _floats, "integer": _integers, "complex": _complexes}


@dataclass
class TensorState:
    """The merged state of one tensor: position-free sums in `total`, channel sums along the whole of both sides."""

    tensor: Tensor
    view: MatrixView
    total: SpanSummary = field(default_factory=SpanSummary)
    rows: AxisSums | None = None
    cols: AxisSums | None = None

    def merge(self, piece: SpanSummary) -> None:
        self.total.merge(piece)
        if piece.rows is not None and self.view.rows <= MAX_CHANNELS:
            self.rows = AxisSums.zeros(self.view.rows) if self.rows is None else self.rows
            self.rows.add(piece.rows, slice(piece.first_row, piece.first_row + piece.rows.sum.size))
        if piece.cols is not None and self.view.cols <= MAX_CHANNELS:
            self.cols = AxisSums.zeros(self.view.cols) if self.cols is None else self.cols
            self.cols.add(piece.cols, slice(piece.first_col, piece.first_col + piece.cols.sum.size))

    def channels(self) -> tuple[AxisSums | None, AxisSums | None]:
        """Sums by row and by column, of a convolution by output and by input channel; None for none or too many."""
        shape = self.view.shape
        if self.view.layout == "out_in_space":
            by_input = self.cols.folded((shape[1], math.prod(shape[2:])), 0) if self.cols is not None else None
            return self.rows, by_input
        if self.view.layout == "space_in_out":
            by_input = self.rows.folded((math.prod(shape[:-2]), shape[-2]), 1) if self.rows is not None else None
            return self.cols, by_input
        return self.rows, self.cols
