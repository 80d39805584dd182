"""The similarities of all rows, or columns, of a matrix as a `Matrix` that computes what is looked at.

The mean similarity of two blocks of rows is the product of their mean unit rows. So a picture of 128,256 × 128,256
similarities needs no more than the means of every 8, 16, 32, … unit rows, which one pass over the rows gives.
"""

import math
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from weighbridge.checkpoints.protocol import Slices, Tensor
from weighbridge.errors import BadArgument, Cancelled
from weighbridge.pyramid.build import layout_of
from weighbridge.pyramid.matrix import DIRECT_ENTRIES, Axes, Shape, View, view_of
from weighbridge.pyramid.store import Layout
from weighbridge_kernels import variants
from weighbridge_kernels.blocks import BASE, Blocks
from weighbridge_kernels.similar_pairs import Kind

Side = Literal["rows", "cols"]
Order = Literal["stored", "seriated"]
SIDES: tuple[Side, ...] = get_args(Side)
KINDS: tuple[Kind, ...] = get_args(Kind)
ORDERS: tuple[Order, ...] = get_args(Order)
MEANINGS: dict[Kind, str] = {"cosine": "cosine", "pearson": "Pearson correlation"}
NAMES: dict[Side, str] = {"rows": "row", "cols": "column"}

FULL_ENTRIES = 1 << 22
"""A window of up to so many similarities is computed entry by entry; of a larger one there are means alone."""
SERIATED_ENTRIES = 1 << 27
"""Entries of a matrix whose rows are put in order at most: all are held as float32 meanwhile."""
_TILE_ENTRIES = 1 << 22
"""Entries of unit rows that are worked on at a time."""
_TILE_ROWS = 256
"""Rows that are multiplied with others at a time, at least: the others are read for every such part."""
_MEMORY_BYTES = 1 << 28
"""An array of more is kept in a temporary file, of which the system holds in memory what is used."""
_DIGITS = 7

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class MeanRows:
    """Mean unit rows of blocks of rows, float32, each over the `live` rows of its block; zeros where there is none."""

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


Units = Callable[[slice], MeanRows]
"""Unit rows at places in the order, each a block of its own."""
Raw = Callable[[slice | Array], Array]
"""Rows as they are stored, by their indices."""


class SimilarityMatrix:
    """Cosines or Pearson correlations of all pairs of rows or columns of a tensor: a `Matrix`, made by `similarities`.

    Entries are float32 products of unit rows, within 4e-6, clamped to ±1; NaN for rows that are constant zero (for
    `pearson`, constant) or hold NaN or Inf, and means are over the other pairs. `order` has the stored index of the row
    at each place, None where that is the place. Holds 4 bytes an entry of a tensor of up to 2^25 entries; of a larger
    one, whose rows are read as they are looked at, one byte an entry, in temporary files from 2^28 bytes on.
    """

    digits = _DIGITS

    def __init__(
        self,
        tensor: Tensor,
        axes: tuple[int, ...],
        units: Units,
        base: MeanRows,
        *,
        side: Side,
        kind: Kind,
        order: Array | None,
    ) -> None:
        """`axes` are those that the rows are folded from, `base` the mean rows of every 8 of them."""
        count = math.prod(axes)
        self.name = f"{tensor.name}: {MEANINGS[kind]} of {NAMES[side]}s"
        self.shape: Shape = count, count
        self.axes: Axes = axes, axes
        self.sides = NAMES[side], NAMES[side]
        self.entry = MEANINGS[kind]
        self.order = order
        self._layout = Layout(self.shape, "F32")
        self._units = units
        self._levels = _levels(base, self._layout)

    @property
    def levels(self) -> int:
        return len(self._levels)

    def means_only(self, level: int, entries: int) -> bool:
        return level >= 0 or entries > FULL_ENTRIES

    def entries(self, rows: slice, cols: slice) -> npt.NDArray[np.float32]:
        found = np.empty((rows.stop - rows.start, cols.stop - cols.start), np.float32)
        for part, down in self._tiles(rows):
            for at, across in self._tiles(cols):
                tile = found[part, at]
                np.clip(down.means @ across.means.T, -1, 1, out=tile)
                tile[down.live == 0], tile[:, across.live == 0] = np.nan, np.nan
        return found

    def read(self, slices: Slices = ()) -> npt.NDArray[np.float32]:
        """The similarities in `slices`, as a tensor's entries are read; all by default."""
        index = slices if isinstance(slices, tuple) else (slices,)
        (rows, down), (cols, across) = (
            _bounds(part, extent) for part, extent in zip([*index, slice(None), slice(None)], self.shape, strict=False)
        )
        found: npt.NDArray[np.float32] = self.entries(rows, cols)[down, across]
        return found

    def reduced(self, rows: slice, cols: slice, block: Shape) -> Blocks:
        if not self.means_only(-1, (rows.stop - rows.start) * (cols.stop - cols.start)):
            return variants.select("cpu").block_reductions(self.entries(rows, cols), block=block)
        down, across = (self._merged(span, side) for span, side in zip((rows, cols), block, strict=True))
        counts = np.multiply.outer(*(_sizes(span, side) for span, side in zip((rows, cols), block, strict=True)))
        return _mean_blocks(down, across, counts)

    def level(self, level: int, rows: slice, cols: slice) -> Blocks:
        held = self._levels[level]
        return _mean_blocks(held[rows], held[cols], self.counts(level, rows, cols))

    def counts(self, level: int, rows: slice, cols: slice) -> npt.NDArray[np.int64]:
        return self._layout.entries(level, (rows, cols))

    def _tiles(self, span: slice, side: int = 1) -> Iterator[tuple[slice, MeanRows]]:
        """Unit rows of a span, some whole blocks at a time, with their place in the span."""
        for part in _cuts(span, min(self._width, _TILE_ENTRIES // _TILE_ROWS), side):
            yield slice(part.start - span.start, part.stop - span.start), self._units(part)

    def _merged(self, span: slice, side: int) -> MeanRows:
        """Mean rows of the blocks of `side` rows of a span, out of those of level 0 where they are whole."""
        if side % BASE == 0:
            return self._levels[0][_blocks(span, BASE)].merged(side // BASE)
        parts = (units.merged(side) for _, units in self._tiles(span, side))
        return _collected(parts, -(-(span.stop - span.start) // side), self._width)

    @property
    def _width(self) -> int:
        return int(self._levels[0].means.shape[1])


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
        whole = _collected(watch.strips(units, count, width), count, width)
        places = _seriated(whole) if order == "seriated" else None
        units = partial(_placed, whole.__getitem__, places)
    means = (strip.merged(BASE) for strip in watch.strips(units, count, width))
    base = _collected(means, -(-count // BASE), width)
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

    def strips(self, units: Units, count: int, width: int) -> Iterator[MeanRows]:
        """All unit rows, a strip of whole blocks at a time."""
        for part in _cuts(slice(0, count), width, BASE):
            yield units(part)
            self.through((part.stop - part.start) * width)


def _cuts(span: slice, width: int, side: int) -> Iterator[slice]:
    """Parts of a span of rows, of whole blocks of `side` rows but the last, that are worked on at a time."""
    step = max(_TILE_ENTRIES // width // side, 1) * side
    for start in range(span.start, span.stop, step):
        yield slice(start, min(start + step, span.stop))


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
    turned = _allocated((view.cols, view.rows), tensor.dtype.array)
    for part in _cuts(slice(0, view.rows), view.cols, 1):
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


def _levels(base: MeanRows, layout: Layout) -> list[MeanRows]:
    """The base and all that follows from it."""
    levels = [base]
    for level in range(1, layout.levels):
        before, (blocks, _) = levels[-1], layout.blocks(level)
        width = before.means.shape[1]
        parts = (before[part].merged(2) for part in _cuts(slice(0, before.live.size), width, 2))
        levels.append(_collected(parts, blocks, width))
    return levels


def _collected(parts: Iterable[MeanRows], count: int, width: int) -> MeanRows:
    """Parts that follow one another as one."""
    whole = MeanRows(_allocated((count, width), np.dtype(np.float32)), np.empty(count, np.int64))
    at = 0
    for part in parts:
        here = slice(at, at + part.live.size)
        whole.means[here], whole.live[here] = part.means, part.live
        at = here.stop
    return whole


def _allocated(shape: Shape, dtype: np.dtype[Any]) -> Array:
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


def _mean_blocks(down: MeanRows, across: MeanRows, counts: npt.NDArray[np.int64]) -> Blocks:
    """Blocks of which nothing but the mean and the pairs without similarity are known; the rest is NaN."""
    mean = down.means @ across.means.T
    unknown = np.broadcast_to(np.float32(np.nan), mean.shape)
    none = np.broadcast_to(np.int64(0), mean.shape)
    nan = counts - np.multiply.outer(down.live, across.live)
    return Blocks(unknown, unknown, mean, unknown, none, nan, none)


def _blocks(span: slice, side: int) -> slice:
    return slice(span.start // side, -(-span.stop // side))


def _sizes(span: slice, side: int) -> npt.NDArray[np.int64]:
    """Rows of each block of a span."""
    return np.diff(np.append(np.arange(span.start, span.stop, side), span.stop))


def _bounds(part: slice | int, extent: int) -> tuple[slice, slice | int]:
    """The window that an index lies in, and what it takes of it."""
    every = range(extent)
    taken = every[part] if isinstance(part, slice) else range(every[part], every[part] + 1)
    low, high = (min(taken[0], taken[-1]), max(taken[0], taken[-1]) + 1) if taken else (0, 0)
    return slice(low, high), slice(None, None, taken.step) if isinstance(part, slice) else 0
