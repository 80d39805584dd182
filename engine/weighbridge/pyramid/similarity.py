"""The similarities of all rows, or columns, of a matrix as a `Matrix` that computes what is looked at.

The mean similarity of two blocks of rows is the product of their mean unit rows. So a picture of 128,256 × 128,256
similarities needs no more than the means of every 8, 16, 32, … unit rows, which one pass over the rows gives.
"""

import math
import threading
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from weighbridge.checkpoints.protocol import Tensor
from weighbridge.errors import BadArgument, Cancelled
from weighbridge.pyramid.build import layout_of
from weighbridge.pyramid.matrix import DIRECT_ENTRIES, View, view_of
from weighbridge.pyramid.mean_rows import MeanRows, Read, allocated, collected, cuts
from weighbridge.pyramid.product import ProductMatrix
from weighbridge_kernels.blocks import BASE
from weighbridge_kernels.similar_pairs import Kind

Side = Literal["rows", "cols"]
Order = Literal["stored", "seriated"]
SIDES: tuple[Side, ...] = get_args(Side)
KINDS: tuple[Kind, ...] = get_args(Kind)
ORDERS: tuple[Order, ...] = get_args(Order)
MEANINGS: dict[Kind, str] = {"cosine": "cosine", "pearson": "Pearson correlation"}
NAMES: dict[Side, str] = {"rows": "row", "cols": "column"}

SERIATED_ENTRIES = 1 << 27
"""Entries of a matrix whose rows are put in order at most: all are held as float32 meanwhile."""

Array = npt.NDArray[Any]


Raw = Callable[[slice | Array], Array]
"""Rows as they are stored, by their indices."""


class SimilarityMatrix(ProductMatrix):
    """Cosines or Pearson correlations of all pairs of rows or columns of a tensor: a `Matrix`, made by `similarities`.

    Entries are float32 products of unit rows, within 4e-6, clamped to ±1; NaN for rows that are constant zero (for
    `pearson`, constant) or hold NaN or Inf, and means are over the other pairs. `order` has the stored index of the row
    at each place, None where that is the place. Holds 4 bytes an entry of a tensor of up to 2^25 entries; of a larger
    one, whose rows are read as they are looked at, one byte an entry, in temporary files from 2^28 bytes on.
    """

    def __init__(
        self,
        tensor: Tensor,
        axes: tuple[int, ...],
        units: Read,
        base: MeanRows,
        *,
        side: Side,
        kind: Kind,
        order: Array | None,
    ) -> None:
        """`axes` are those that the rows are folded from, `base` the mean rows of every 8 of them."""
        count = math.prod(axes)
        super().__init__(
            f"{tensor.name}: {MEANINGS[kind]} of {NAMES[side]}s",
            (count, count),
            (units, base),
            sides=(NAMES[side], NAMES[side]),
            entry=MEANINGS[kind],
            axes=(axes, axes),
        )
        self.order = order

    def multiplied(self, rows: slice, cols: slice) -> npt.NDArray[np.float32]:
        found = super().multiplied(rows, cols)
        return np.clip(found, -1, 1, out=found)


def similarities(
    tensor: Tensor,
    *,
    side: Side = "rows",
    kind: Kind = "cosine",
    order: Order = "stored",
    names: Collection[str] = (),
    advanced: Callable[[float], None] = lambda share: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> SimilarityMatrix:
    """The similarity matrix of a tensor's rows or columns, in stored order or with similar ones next to each other.

    Reads the tensor once, by strips; columns of a large one are copied to a temporary file first. Rows and columns are
    those of its heatmap, `names` those of the checkpoint, by which they are told. `advanced` is told the share of the
    work that is done. Raises what reading raises, `Cancelled` once `cancelled` says so, and `BadArgument` for unknown
    choices, for a tensor without rows, and for more entries than are put in order.
    """
    view = view_of(tensor, names)
    check(tensor, view, side, kind, order)
    held = tensor.count <= DIRECT_ENTRIES or order == "seriated"
    watch = _Watch(tensor, 1 + (side == "cols") + held, advanced, cancelled)
    count, width = (view.rows, view.cols) if side == "rows" else (view.cols, view.rows)
    read = partial(_unit_rows, _raw(tensor, view, side, watch), kind)
    units, places = partial(_placed, read, None), None
    if held:
        whole = collected(watch.strips(units, count, width), count, width)
        places = _seriated(whole) if order == "seriated" else None
        units = partial(_placed, whole.__getitem__, places)
    means = (strip.merged(BASE) for strip in watch.strips(units, count, width))
    base = collected(means, -(-count // BASE), width)
    if tensor.count > DIRECT_ENTRIES:
        units = partial(_placed, read, places)
    axes = view.axes[SIDES.index(side)]
    return SimilarityMatrix(tensor, axes, units, base, side=side, kind=kind, order=places)


def check(tensor: Tensor, view: View, side: str, kind: str, order: str) -> None:
    """Raises `BadArgument` for an unknown choice, and for a tensor that has no such similarities."""
    layout_of(tensor, view)
    for name, value, known in (("side", side, SIDES), ("kind", kind, KINDS), ("order", order, ORDERS)):
        if value not in known:
            raise BadArgument(f"{name} {value!r}; expected one of {', '.join(known)}")
    if len(tensor.shape) < 2:
        raise BadArgument(f"{tensor.name}: has {len(tensor.shape)} axes; similarities are of the rows of two or more")
    if order == "seriated" and tensor.count > SERIATED_ENTRIES:
        raise BadArgument(
            f"{tensor.name}: has {tensor.count:,} entries, and rows of up to {SERIATED_ENTRIES:,} are put in order; "
            "look at them in stored order"
        )


class Preparation:
    """A similarity matrix on its way, in a thread of its own, until nobody waits for it."""

    def __init__(self, tensor: Tensor, *, side: Side, kind: Kind, order: Order, names: Collection[str] = ()) -> None:
        self.progress = 0.0
        self._given_up = threading.Event()
        self._done = threading.Event()
        self._matrix: SimilarityMatrix | None = None
        self._error: BaseException | None = None
        make = partial(
            similarities,
            tensor,
            side=side,
            kind=kind,
            order=order,
            names=names,
            advanced=self._advance,
            cancelled=self._given_up.is_set,
        )
        threading.Thread(target=self._carry_out, args=(make,), daemon=True, name="similarities").start()

    @property
    def done(self) -> bool:
        """Whether there is a result, or an error."""
        return self._done.is_set()

    def result(self, timeout: float | None = None) -> SimilarityMatrix:
        """Waits for the matrix. Raises what making it raised, TimeoutError after `timeout` seconds."""
        if not self._done.wait(timeout):
            raise TimeoutError(f"no similarities after {timeout} s")
        if self._error is not None:
            raise self._error
        assert self._matrix is not None
        return self._matrix

    def release(self) -> None:
        """Gives it up."""
        self._given_up.set()

    def _advance(self, share: float) -> None:
        self.progress = share

    def _carry_out(self, make: Callable[[], SimilarityMatrix]) -> None:
        try:
            self._matrix = make()
        except BaseException as error:
            self._error = error
        self._done.set()


class _Watch:
    """Counts the entries that several passes over a tensor have gone through, and stops them."""

    def __init__(
        self, tensor: Tensor, passes: int, advanced: Callable[[float], None], cancelled: Callable[[], bool]
    ) -> None:
        self._name, self._total, self._through = tensor.name, passes * tensor.count, 0
        self._advanced, self._cancelled = advanced, cancelled

    def through(self, entries: int) -> None:
        """So many entries more. Raises `Cancelled`."""
        if self._cancelled():
            raise Cancelled(f"{self._name}: its similarities are no longer wanted")
        self._through += entries
        self._advanced(self._through / self._total)

    def strips(self, units: Read, count: int, width: int) -> Iterator[MeanRows]:
        """All unit rows, a strip of whole blocks at a time."""
        for part in cuts(slice(0, count), width, BASE):
            yield units(part)
            self.through((part.stop - part.start) * width)


def _raw(tensor: Tensor, view: View, side: Side, watch: _Watch) -> Raw:
    if side == "rows":
        return partial(_stored_rows, tensor, view.cols)
    return _transposed(tensor, view, watch).__getitem__


def _stored_rows(tensor: Tensor, width: int, at: slice | Array) -> Array:
    """Rows of a tensor, those that follow one another in one read."""
    if isinstance(at, slice):
        return tensor.entries(at.start * width, (at.stop - at.start) * width).reshape(-1, width)
    found = np.empty((at.size, width), tensor.dtype.array)
    ascending = np.argsort(at)
    for run in np.split(ascending, np.flatnonzero(np.diff(at[ascending]) != 1) + 1):
        found[run] = tensor.entries(int(at[run[0]]) * width, run.size * width).reshape(-1, width)
    return found


def _transposed(tensor: Tensor, view: View, watch: _Watch) -> Array:
    turned = allocated((view.cols, view.rows), tensor.dtype.array)
    for part in cuts(slice(0, view.rows), view.cols, 1):
        rows = _stored_rows(tensor, view.cols, part)
        codes = f"u{rows.itemsize}"  # NumPy copies entries of ml_dtypes one by one
        turned.view(codes)[:, part] = rows.view(codes).T
        watch.through((part.stop - part.start) * view.cols)
    return turned


def _unit_rows(raw: Raw, kind: Kind, at: slice | Array) -> MeanRows:
    from weighbridge_kernels.unit_rows_host import unit_rows

    units, norms = unit_rows(raw(at), kind=kind)
    return MeanRows(units, (norms > 0).astype(np.int64))


def _placed(of: Callable[[slice | Array], MeanRows], places: Array | None, span: slice) -> MeanRows:
    return of(span if places is None else places[span])


def _seriated(units: MeanRows) -> Array:
    from weighbridge_kernels.seriation import seriation

    return seriation(units.means)
