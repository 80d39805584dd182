"""The scan on an accelerator: a piece sent there, and what comes back as the states that the host merges."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from weighbridge.analyses.float_counts import BINS_OF_GREATEST, finite_nonzero, round_float64
from weighbridge.analyses.scan_state import MAX_CHANNELS, Classes, SpanSummary
from weighbridge.checkpoints.dtypes import DType
from weighbridge.matrix import MatrixView
from weighbridge.stream import Piece
from weighbridge_kernels.states import AxisSums, BlockErrors, Moments

if TYPE_CHECKING:
    from weighbridge_kernels.device_spans import DeviceSpans
    from weighbridge_kernels.span_pass import Totals


def _send_codes(
    summary: SpanSummary, matrix: npt.NDArray[Any], piece: Piece, view: MatrixView, spans: "DeviceSpans"
) -> None:
    dtype = piece.tensor.dtype
    summary.on_device = spans.weigh_codes(
        matrix.view(f"u{matrix.dtype.itemsize}"),
        dtype.name,
        piece.index,
        channels=dtype.kind != "bool",
        columns=_keeps_columns(view),
        blocks=dtype.kind == "float",
    )


def _send_floats(
    summary: SpanSummary, matrix: npt.NDArray[Any], piece: Piece, view: MatrixView, spans: "DeviceSpans"
) -> None:
    rounded = matrix
    if matrix.dtype.itemsize == 8:
        rounded, (poszero, negzero) = round_float64(summary, matrix)
        below, above = summary.beyond
        summary.classes = Classes(0, -above, -below, poszero + negzero)
        summary.counts = np.zeros(1 << 16, np.int64)
        summary.counts[[0, 0x8000, *BINS_OF_GREATEST]] = -poszero, -negzero, below, above
    summary.on_device = spans.weigh_floats(matrix, rounded.view(np.uint32), piece.index, columns=_keeps_columns(view))


SENDERS = {"codes": _send_codes, "float": _send_floats}


def _keeps_columns(view: MatrixView) -> bool:
    return view.has_channels and view.cols <= MAX_CHANNELS


class TensorOnDevice:
    """What of one tensor lies on the devices while its pieces are merged."""

    def __init__(self, dtype: DType, view: MatrixView) -> None:
        from weighbridge_kernels.device_spans import Accumulator

        self._dtype = dtype
        self._view = view
        self._accumulator = Accumulator()

    def receive(self, summary: SpanSummary) -> None:
        """Gives a summary what belongs to its piece alone, and leaves the rest on the device; waits for the piece."""
        assert summary.on_device is not None
        span, summary.on_device = summary.on_device, None
        rows = self._accumulator.add(span)
        if rows is None:
            return
        if self._view.has_channels:
            scale = 2.0 ** int(rows.exponent)
            total, squares, absmax = rows.sums.astype(np.float64)
            present = float(span.shape[1]) - rows.missing
            summary.rows = AxisSums(total * scale, squares * scale**2, absmax * scale, present)
        if rows.moments is not None:
            count, *moments = (float(number) for number in rows.moments)
            summary.moments = Moments(int(count), *moments) if count else Moments.empty()

    def rest(self) -> list[SpanSummary]:
        """What was left there, as summaries to be merged with the others."""
        on_devices = self._accumulator.fetch()
        return [self._summary(totals, self._view.rows if i == 0 else 0) for i, totals in enumerate(on_devices)]

    def _summary(self, totals: "Totals", rows: int) -> SpanSummary:
        tallies, scale = totals.tallies, 2.0 ** int(totals.exponent)
        summary = SpanSummary(counts=tallies["counts"])
        if "classes" in tallies:
            self._set_classes(summary, totals)
        if "sparse_groups" in tallies:
            summary.sparse_groups = int(tallies["sparse_groups"])
        if "block_errors" in totals.squares:
            summary.errors = BlockErrors(totals.squares["block_errors"] * scale**2, tallies["block_exponents"])
        if "cols" in totals.sums:
            n = self._view.cols
            absmax, missing = totals.absmax["cols"][:n] * scale, tallies["missing"][:n]
            count = float(rows) - missing  # a column's rows are told once, whatever device they went to
            summary.cols = AxisSums(
                totals.sums["cols"][:n] * scale, totals.squares["cols"][:n] * scale**2, absmax, count
            )
        return summary

    def _set_classes(self, summary: SpanSummary, totals: "Totals") -> None:
        """What the words of floats say of themselves; of float64, whose zeros the host has counted, their rounding."""
        nan, posinf, neginf, poszero, negzero = (int(n) for n in totals.tallies["classes"])
        if self._dtype.bits == 64:
            poszero = negzero = 0
        else:
            summary.low_halves = int(totals.flags["low_halves"])
            summary.half_precision = not totals.flags["beyond_half"]
        summary.classes = Classes(nan, posinf, neginf, poszero + negzero)
        summary.counts = finite_nonzero(totals.tallies["counts"], poszero, negzero)
