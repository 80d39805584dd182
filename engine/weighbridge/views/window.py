"""From a matrix and a window of it to the cells that are shown: which blocks to take, and what they come to.

A cell is a whole number of entries down and across, at least what a pixel spans, and cells begin at multiples of their
size: so the browser only enlarges, nothing is lost between pixels, and a picture does not shimmer when it is moved.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.pyramid.matrix import DIRECT_ENTRIES, Matrix
from weighbridge_kernels.blocks import BASE, Blocks

Reduction = Literal["absmax", "mean", "rms", "min", "max", "zeros"]
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)
MEANINGS = {
    "absmax": "signed absmax",
    "mean": "mean",
    "rms": "root mean square",
    "min": "minimum",
    "max": "maximum",
    "zeros": "share of zeros",
}
_LEVEL_BLOCKS = 1 << 22
"""Blocks of a level that are read for one picture, at most: two or so a pixel down and across."""
_CLEAR = 0.995
"""Share of the cells that lie within the limits of the colours."""

Array = npt.NDArray[Any]
Join = Callable[[Array, str], Array]
Range = tuple[float, float]


@dataclass(frozen=True)
class Window:
    """Rows and columns that are shown, cut into cells of `cell` entries; `level` is where from, -1 for the entries.

    Starts are multiples of the cell's sides; only at the matrix's end is a cell cut short.
    """

    rows: tuple[int, int]
    cols: tuple[int, int]
    cell: tuple[int, int]
    level: int

    @property
    def shape(self) -> tuple[int, int]:
        """Cells down and across."""
        down, across = (
            -(-(stop - start) // side) for (start, stop), side in zip((self.rows, self.cols), self.cell, strict=True)
        )
        return down, across


@dataclass(frozen=True)
class Picture:
    """What is shown of a window: one value a cell, NaN where no entry is finite.

    `nan` and `inf` tell in which cells there are such entries. `limit` is the magnitude beyond which colours saturate:
    all but one in two hundred cells are within.
    """

    window: Window
    reduction: Reduction
    values: Array
    nan: npt.NDArray[np.bool_]
    inf: npt.NDArray[np.bool_]

    @property
    def limit(self) -> float:
        """Quantile 0.995 of the magnitude of the cells; where it is 0 the greatest, and 1 where that is 0 too."""
        finite = np.abs(self.values[np.isfinite(self.values)])
        if finite.size == 0:
            return 1.0
        return float(np.quantile(finite, _CLEAR, method="inverted_cdf")) or float(finite.max()) or 1.0


def window(matrix: Matrix, y: Range | None, x: Range | None, height: int, width: int) -> Window:
    """The window of a matrix for a plot of `height` × `width` pixels; `y` and `x` in entries, None for all.

    Takes the finest source that is not too much to read: the entries themselves, else the finest level.
    """
    ranges = [_clipped(extent, asked) for extent, asked in zip(matrix.shape, (y, x), strict=True)]
    spans = [stop - start for start, stop in ranges]
    cell = [_needed(span, pixels) for span, pixels in zip(spans, (height, width), strict=True)]
    level = -1
    if matrix.levels and spans[0] * spans[1] > DIRECT_ENTRIES:
        level = _level(matrix.levels, spans)
        cell = [-(-side // (BASE << level)) * (BASE << level) for side in cell]
    rows, cols = (_snapped(r, side, extent) for r, side, extent in zip(ranges, cell, matrix.shape, strict=True))
    return Window(rows, cols, (cell[0], cell[1]), level)


def _clipped(extent: int, asked: Range | None) -> tuple[int, int]:
    """Whole entries within the matrix that a range touches; at least one."""
    if asked is None or not np.all(np.isfinite(asked)):
        return 0, extent
    start = min(max(int(np.floor(min(asked))), 0), extent - 1)
    return start, max(min(int(np.ceil(max(asked))), extent), start + 1)


def _needed(span: int, pixels: int) -> int:
    """Entries a cell must have so that there is no more than one a pixel."""
    return max(-(-span // max(pixels, 1)), 1)


def _level(levels: int, spans: list[int]) -> int:
    for level in range(levels):
        side = BASE << level
        if -(-spans[0] // side) * -(-spans[1] // side) <= _LEVEL_BLOCKS:
            return level
    return levels - 1


def _snapped(range_: tuple[int, int], side: int, extent: int) -> tuple[int, int]:
    start, stop = range_
    return start // side * side, min(-(-stop // side) * side, extent)


def check_reduction(reduction: str) -> None:
    """Raises `BadArgument` for an unknown one."""
    if reduction not in REDUCTIONS:
        raise BadArgument(f"reduction {reduction!r}; expected one of {', '.join(REDUCTIONS)}")


def known(matrix: Matrix, shown: Window, reduction: Reduction) -> Reduction:
    """A reduction, or the mean where a matrix knows nothing else of a window."""
    (top, bottom), (left, right) = shown.rows, shown.cols
    return "mean" if matrix.means_only(shown.level, (bottom - top) * (right - left)) else reduction


def picture(matrix: Matrix, shown: Window, reduction: Reduction = "absmax") -> Picture:
    """The cells of a window. Raises `BadArgument` for a reduction that is not known of it, and what reading raises."""
    check_reduction(reduction)
    if known(matrix, shown, reduction) != reduction:
        raise BadArgument(f"{matrix.name}: no {MEANINGS[reduction]} is known of so large a window; zoom in")
    if shown.level < 0:
        blocks = matrix.reduced(slice(*shown.rows), slice(*shown.cols), shown.cell)
        counts = _cell_entries(shown)
        return _picture(shown, reduction, blocks, counts)
    rows, cols = (_of_blocks(span, BASE << shown.level) for span in (shown.rows, shown.cols))
    blocks = matrix.level(shown.level, rows, cols)
    return _picture(shown, reduction, blocks, matrix.counts(shown.level, rows, cols))


def _of_blocks(span: tuple[int, int], side: int) -> slice:
    return slice(span[0] // side, -(-span[1] // side))


def _cell_entries(shown: Window) -> npt.NDArray[np.int64]:
    sides = (
        np.minimum(side, (stop - start) - np.arange(0, stop - start, side))
        for (start, stop), side in zip((shown.rows, shown.cols), shown.cell, strict=True)
    )
    return np.multiply.outer(*sides)


def _picture(shown: Window, reduction: Reduction, blocks: Blocks, counts: npt.NDArray[np.int64]) -> Picture:
    side = BASE << shown.level if shown.level >= 0 else None
    down, across = (1 if side is None else extent // side for extent in shown.cell)
    join = partial(rasterised, factors=(down, across))
    n = counts - blocks.nan - blocks.inf
    values = _REDUCERS[reduction](blocks, n, counts, join)
    nan, inf = (join(grid > 0, "max") > 0 for grid in (blocks.nan, blocks.inf))
    if reduction != "zeros":
        values = np.where(join(n > 0, "max") > 0, values, np.nan)
    return Picture(shown, reduction, values, nan, inf)


def rasterised(grid: Array, how: str, *, factors: tuple[int, int]) -> Array:
    """A grid of blocks rasterised by datashader to cells of so many blocks down and across; NaN does not count.

    What the last cells lack is NaN; there are two cells at least, since datashader knows no grid of one.
    """
    import datashader
    import xarray

    if factors == (1, 1):
        return grid
    down, across = (-(-extent // k) for extent, k in zip(grid.shape, factors, strict=True))
    rows, cols = (max(cells, 2) * k for cells, k in zip((down, across), factors, strict=True))
    padding = ((0, rows - grid.shape[0]), (0, cols - grid.shape[1]))
    values = np.pad(_floating(grid), padding, constant_values=np.nan)
    source = xarray.DataArray(values, {"y": np.arange(rows) + 0.5, "x": np.arange(cols) + 0.5}, ("y", "x"))
    canvas = datashader.Canvas(cols // factors[1], rows // factors[0], (0, cols), (0, rows))
    joined: Array = canvas.raster(source, agg=how).values
    return joined[:down, :across]


def _floating(grid: Array) -> Array:
    """float32 as it is, else float64: datashader knows no NaN among integers."""
    return grid if grid.dtype in (np.float32, np.float64) else grid.astype(np.float64)


def _least(blocks: Blocks, n: Array, counts: Array, join: Join) -> Array:
    return join(np.where(n > 0, _floating(blocks.least), np.nan), "min")


def _greatest(blocks: Blocks, n: Array, counts: Array, join: Join) -> Array:
    return join(np.where(n > 0, _floating(blocks.greatest), np.nan), "max")


def _absmax(blocks: Blocks, n: Array, counts: Array, join: Join) -> Array:
    """The entry of greatest magnitude with its sign; of two alike the positive one."""
    least, greatest = _least(blocks, n, counts, join), _greatest(blocks, n, counts, join)
    return np.where(greatest >= -least, greatest, least)


def _mean(blocks: Blocks, n: Array, counts: Array, join: Join) -> Array:
    return _weighted(blocks.mean.astype(np.float64), n, join)


def _rms(blocks: Blocks, n: Array, counts: Array, join: Join) -> Array:
    scale = max(float(blocks.rms.max(initial=0)), 1e-300)  # so that squares stay in range
    return np.sqrt(_weighted(np.square(blocks.rms / np.float64(scale)), n, join)) * scale


def _zeros(blocks: Blocks, n: Array, counts: Array, join: Join) -> Array:
    return _weighted(blocks.zeros / counts, counts, join)


def _weighted(values: Array, weights: Array, join: Join) -> Array:
    """Mean over a cell's blocks by weights, 0 where these are 0: their means are over as many blocks, which cancel."""
    scale = float(np.abs(values).max(initial=0)) or 1.0  # so that sums stay in range
    return join(values / scale * weights, "mean") / np.maximum(join(weights, "mean"), 1e-300) * scale


_REDUCERS = {"absmax": _absmax, "mean": _mean, "rms": _rms, "min": _least, "max": _greatest, "zeros": _zeros}
