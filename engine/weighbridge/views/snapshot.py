"""A heatmap as a file for a paper: PNG, or SVG and PDF with the map as a picture and everything else as lines."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from weighbridge.checkpoints.protocol import Tensor
from weighbridge.errors import BadArgument
from weighbridge.pyramid.matrix import Matrix
from weighbridge.views.colours import Colours, Theme, colours
from weighbridge.views.heatmap import prepared
from weighbridge.views.picture_file import STYLE, provenance, write
from weighbridge.views.window import MEANINGS, Picture, Range, Reduction, check_reduction, picture, window

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
_DPI = 150
_LEAST_INCHES = 4, 3
"""Width and height a figure is laid out for at least; a smaller one is that in miniature."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.8, 1.1, 0.4, 0.6
"""Inches about the map."""
_BAR = 0.15
"""Inches the colour bar is wide, and away from the map."""


class _Sheet(NamedTuple):
    """A figure in pixels: its sides, and those of the map with its place from the left and from below.

    The map begins and ends at whole pixels and has a cell a pixel at most, so that none is lost in drawing.
    """

    width: int
    height: int
    dpi: float
    left: int
    bottom: int
    across: int
    down: int

    @classmethod
    def of(cls, width: int, height: int) -> "_Sheet":
        dpi = min(_DPI, width / _LEAST_INCHES[0], height / _LEAST_INCHES[1])
        left, right, top, bottom = (round(inches * dpi) for inches in (_LEFT, _RIGHT, _TOP, _BOTTOM))
        return cls(width, height, dpi, left, bottom, width - left - right, height - top - bottom)

    @property
    def inches(self) -> tuple[float, float]:
        """The figure's sides, a little more lest Matplotlib round a pixel away."""
        return (self.width + 1e-6) / self.dpi, (self.height + 1e-6) / self.dpi

    def share(self, left: float, bottom: float, across: float, down: float) -> tuple[float, float, float, float]:
        """A rectangle of pixels in shares of the figure."""
        return left / self.width, bottom / self.height, across / self.width, down / self.height

    @property
    def map(self) -> tuple[float, float, float, float]:
        return self.share(self.left, self.bottom, self.across, self.down)

    @property
    def bar(self) -> tuple[float, float, float, float]:
        side = _BAR * self.dpi
        return self.share(self.left + self.across + side, self.bottom, side, self.down)


def snapshot(
    tensor: Tensor | Matrix,
    file: str | os.PathLike[str],
    *,
    size: tuple[int, int] = (1200, 900),
    rows: Range | None = None,
    cols: Range | None = None,
    reduction: Reduction = "absmax",
    limit: float | None = None,
    theme: Theme = "light",
) -> None:
    """Writes a heatmap of a tensor, or of a window of it, to a .png, .svg or .pdf file.

    `size` is width and height in pixels; `rows` and `cols` are ranges of entries, end excluded. The map shows what
    `heatmap` shows. Raises `BadArgument` for another kind of file, a window outside of the tensor or a size beyond
    64 ... 8,192 pixels, `ReportError` where the file cannot be written.
    """
    path = Path(file)
    if path.suffix.lower() not in FORMATS:
        raise BadArgument(f"{path.name}: unknown kind of picture; expected one of {', '.join(FORMATS)}")
    drawn = _rendered(tensor, path.suffix[1:].lower(), size, rows, cols, reduction, limit, theme)
    write(path, drawn)


def png(tensor: Tensor | Matrix, *, size: tuple[int, int] = (1200, 900), theme: Theme = "light") -> bytes:
    """The whole tensor as the bytes of a PNG; see `snapshot`."""
    return _rendered(tensor, "png", size, None, None, "absmax", None, theme)


def _rendered(
    tensor: Tensor | Matrix,
    kind: str,
    size: tuple[int, int],
    rows: Range | None,
    cols: Range | None,
    reduction: Reduction,
    limit: float | None,
    theme: Theme,
) -> bytes:
    if not all(64 <= side <= 8192 for side in size):
        raise BadArgument(f"size {size[0]} × {size[1]}; expected 64 to 8,192 pixels a side")
    if limit is not None and not 0 < limit < np.inf:
        raise BadArgument(f"limit {limit!r}; expected a positive number")
    check_reduction(reduction)
    paint = colours(theme)
    matrix = prepared(tensor) if isinstance(tensor, Tensor) else tensor
    for asked, extent, what in ((rows, matrix.shape[0], "rows"), (cols, matrix.shape[1], "columns")):
        if asked is not None and not 0 <= asked[0] < asked[1] <= extent:
            raise BadArgument(f"{what} {asked[0]}:{asked[1]}; {matrix.name} has {extent:,}, give low:high in them")
    sheet = _Sheet.of(*size)
    # One less each way: a window that begins within a cell shows one more.
    found = picture(matrix, window(matrix, rows, cols, sheet.down - 1, sheet.across - 1), reduction)
    return _drawn(matrix, found, found.limit if limit is None else limit, sheet, paint, kind)


def _drawn(matrix: Matrix, found: Picture, limit: float, sheet: _Sheet, paint: Colours, kind: str) -> bytes:
    from matplotlib import style

    written = io.BytesIO()
    with style.context(STYLE, after_reset=True):
        figure = _figure(matrix, found, limit, sheet, paint)
        figure.savefig(written, format=kind, dpi=sheet.dpi, facecolor=paint.background, metadata=provenance(kind))
    return written.getvalue()


def _figure(matrix: Matrix, found: Picture, limit: float, sheet: _Sheet, paint: Colours) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(sheet.inches, dpi=sheet.dpi, facecolor=paint.background)
    axes = figure.add_axes(sheet.map, facecolor=paint.background)
    image = axes.imshow(found.values, _colour_map(paint), vmin=-limit, vmax=limit, **_placed(found))
    _draw_flags(axes, found, paint)
    _label(axes, matrix, found, paint)
    bar = figure.colorbar(image, cax=figure.add_axes(sheet.bar), extend=_extend(found, limit))
    bar.ax.tick_params(labelsize=8, colors=paint.text)
    bar.set_label(MEANINGS[found.reduction], color=paint.text, fontsize=9)
    bar.outline.set_edgecolor(paint.grid)
    return figure


def _placed(found: Picture) -> dict[str, Any]:
    """Cells in entries, those at the matrix's end in their full size, so that each has its pixel."""
    at, (down, across) = found.window, found.window.shape
    right, bottom = at.cols[0] + across * at.cell[1], at.rows[0] + down * at.cell[0]
    return {"extent": (at.cols[0], right, bottom, at.rows[0]), "aspect": "auto", "interpolation": "nearest"}


def _colour_map(paint: Colours) -> Any:
    from matplotlib.colors import ListedColormap

    made = ListedColormap(list(paint.diverging))
    return made.with_extremes(under=paint.below, over=paint.above, bad=paint.nan)


def _draw_flags(axes: Any, found: Picture, paint: Colours) -> None:
    from matplotlib.colors import ListedColormap

    if found.nan.any() or found.inf.any():
        flags = np.ma.masked_equal(np.where(found.inf, 2, np.where(found.nan, 1, 0)), 0)
        axes.imshow(flags, ListedColormap([paint.nan, paint.inf]), vmin=1, vmax=2, **_placed(found))


def _label(axes: Any, matrix: Matrix, found: Picture, paint: Colours) -> None:
    at = found.window
    block = "each weight" if at.cell == (1, 1) else f"blocks of {at.cell[0]} × {at.cell[1]}"
    title = f"{matrix.name}   {matrix.shape[0]:,} × {matrix.shape[1]:,}, {block}"
    axes.set_title(title, fontsize=9, color=paint.text, parse_math=False)
    axes.set_xlabel("column", fontsize=9, color=paint.text)
    axes.set_ylabel("row", fontsize=9, color=paint.text)
    axes.tick_params(labelsize=8, colors=paint.text)
    for spine in axes.spines.values():
        spine.set_edgecolor(paint.grid)
        spine.set_position(("outward", 0.6))  # not over the outermost cells


def _extend(found: Picture, limit: float) -> str:
    """Which ends of the colour bar have cells beyond them."""
    with np.errstate(invalid="ignore"):
        below, above = bool((found.values < -limit).any()), bool((found.values > limit).any())
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[below, above]
