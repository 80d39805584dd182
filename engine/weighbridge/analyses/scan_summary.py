"""How a piece is summarised on the host.

The kind of the dtype decides what is counted: bit patterns (16 bits or fewer), upper halves with float64 moments
(float32, float64), exact integer sums (wider integers), or magnitudes (complex).
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge.analyses import scan_device
from weighbridge.analyses.float_counts import BINS_OF_GREATEST, finite_nonzero, round_float64
from weighbridge.analyses.scan_state import Classes, IntegerSums, SpanSummary, counting
from weighbridge.checkpoints.dtypes import DType
from weighbridge.matrix import MatrixView
from weighbridge.stream import Piece
from weighbridge_kernels import formats
from weighbridge_kernels.quantizers import BLOCK_MULTIPLE
from weighbridge_kernels.states import MAX_TILE_EXPONENT, AxisSums, BlockErrors, FloatArray, IntArray, Moments
from weighbridge_kernels.variants import Variant


def summarize(piece: Piece, packed: npt.NDArray[np.uint8], view: MatrixView, variant: Variant) -> SpanSummary:
    """The state of a piece from its bytes. Pure: it depends on nothing but its arguments."""
    dtype = piece.tensor.dtype
    entries = dtype.unpack(packed, piece.count)
    shape, first_row, first_col = _place(piece, view)
    summary = SpanSummary(first_row=first_row, first_col=first_col)
    way = counting(dtype)
    if piece.count and variant.spans is not None and way in scan_device.SENDERS:
        scan_device.SENDERS[way](summary, entries.reshape(shape), piece, view, variant.spans)
    elif piece.count:
        _SUMMARIZERS[way](summary, entries, dtype, shape, variant)
    if not view.has_channels:
        summary.rows = summary.cols = None
    return summary


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
    counts = variant.bit_histogram(codes, values.size)
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
        summary.sparse_groups = variant.groups_with_two_zeros(zero)
    exponent = _exponent(float(np.abs(finite).max(initial=0.0)))
    matrix = codes.reshape(shape)
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
    if dtype.bits == 64:
        counts, magnitude = _count_float64(summary, entries, variant)
    else:
        counts, magnitude = _count_float32(summary, entries, variant)
    summary.counts = counts
    summary.moments = variant.central_moments(entries)
    summary.sparse_groups = 0
    if summary.classes.zeros >= 2:
        summary.sparse_groups = variant.groups_with_two_zeros((entries == 0).reshape(shape))
    classes = summary.classes
    missing = None if classes.nan + classes.posinf + classes.neginf == 0 else ~np.isfinite(entries).reshape(shape)
    exponent = _exponent(magnitude)
    matrix = entries.reshape(shape)
    _tiles(
        summary,
        shape,
        exponent,
        missing,
        dtype,
        variant,
        lambda at, padded: variant.float_tile(matrix[at], exponent, padded),
    )


def _count_float32(summary: SpanSummary, entries: npt.NDArray[Any], variant: Variant) -> tuple[IntArray, float]:
    counts, summary.low_halves, (nan, posinf, neginf, poszero, negzero) = variant.high_half_histogram(
        entries.view(np.uint32)
    )
    summary.classes = Classes(int(nan), int(posinf), int(neginf), int(poszero + negzero))
    summary.half_precision = summary.low_halves & 0x1FFF == 0 and _fits(entries, np.float16)
    counts = finite_nonzero(counts, int(poszero), int(negzero))
    return counts, _greatest_high_half(counts)


def _count_float64(summary: SpanSummary, entries: npt.NDArray[Any], variant: Variant) -> tuple[IntArray, float]:
    rounded, zeros = round_float64(summary, entries)
    counts, _, (nan, posinf, neginf, _, _) = variant.high_half_histogram(rounded.view(np.uint32))
    below, above = summary.beyond
    summary.classes = Classes(int(nan), int(posinf) - above, int(neginf) - below, sum(zeros))
    magnitude = float(np.abs(np.where(np.isfinite(entries), entries, 0.0)).max(initial=0.0))
    counts = finite_nonzero(counts, *zeros)
    counts[BINS_OF_GREATEST] += below, above
    return counts, magnitude


def _greatest_high_half(counts: IntArray) -> float:
    (occupied,) = np.nonzero(counts[:0x8000] + counts[0x8000:])
    return float((np.uint32(occupied[-1]) << 16 | 0xFFFF).view(np.float32)) if occupied.size else 0.0


def _fits(entries: npt.NDArray[Any], narrower: type[np.floating[Any]]) -> bool:
    with np.errstate(over="ignore", under="ignore"):
        return bool(np.array_equal(entries.astype(narrower).astype(entries.dtype), entries, equal_nan=True))


def _exponent(magnitude: float) -> int:
    """Binary exponent e with 2^e <= magnitude, within what a tile can be scaled by; 0 for 0."""
    exponent = int(np.frexp(magnitude)[1]) - 1 if magnitude else 0
    return max(-MAX_TILE_EXPONENT, min(exponent, MAX_TILE_EXPONENT))


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
