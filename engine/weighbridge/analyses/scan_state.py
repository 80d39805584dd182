"""What a scan keeps of a piece and of a tensor while it streams by."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from weighbridge.checkpoints.dtypes import DType
from weighbridge.checkpoints.protocol import Tensor
from weighbridge.matrix import MatrixView
from weighbridge_kernels.states import AxisSums, BlockErrors, IntArray, Moments

if TYPE_CHECKING:
    from weighbridge_kernels.device_spans import SpanOnDevice

MAX_CHANNELS = 1 << 20
"""Rows or columns beyond which channels are not kept."""


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
    on_device: "SpanOnDevice | None" = None
    """Where the kernels ran on a device: what has not come back yet (`scan_device`)."""

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


def counting(dtype: DType) -> str:
    """Which of the ways of counting serves a dtype: `codes`, `float`, `integer` or `complex`."""
    if dtype.kind == "complex":
        return "complex"
    if dtype.bits <= 16:
        return "codes"
    return "float" if dtype.kind == "float" else "integer"


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
