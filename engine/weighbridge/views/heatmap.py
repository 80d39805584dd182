"""A matrix of any size as an interactive heatmap: whole, and down to the single weight."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

import numpy as np

from weighbridge.checkpoints.protocol import Tensor
from weighbridge.errors import BadArgument, WeighbridgeError
from weighbridge.pyramid.matrix import Matrix, WeightMatrix
from weighbridge.views.colours import Colours, Theme, colours
from weighbridge.views.window import (
    MEANINGS,
    Picture,
    Range,
    Reduction,
    Window,
    check_reduction,
    known,
    picture,
    window,
)

if TYPE_CHECKING:
    from weighbridge.report import Entry

_NAN, _INF = 1, 2
"""Values of the flags that lie over cells with entries that are no number."""
_DEFAULT_HEIGHT, _DEFAULT_WIDTH = 600, 800
_NORMS = 110
"""Pixels that the norms beside the map take."""
_BORDERS = {"left": 96, "right": 112, "top": 34, "bottom": 54}
"""Pixels about the map's frame, by which the norms' frames align with it."""
_NAMED = 3
"""Rows of a cell that hover names, of a matrix that is put in order."""
_LOOK = {"toolbar": "above", "show_title": False, "fontsize": {"labels": 11, "ticks": 10}}

_ABOVE = {"height": _NORMS, "xaxis": "bare", "xlabel": "", "yticks": 3}
_BESIDE = {"width": _NORMS, "invert_axes": True, "invert_yaxis": True, "yaxis": "bare", "ylabel": "", "xticks": 2}

Limit = Callable[[Picture], float]

_HOVER = """
const {i, j} = special_vars.image_index, of = (key) => cells.data[key][0]
const digits = (v) => Number(v.toPrecision(of("digits"))).toString()
const place = (n, axes) => {
  const at = []
  for (const side of axes.slice().reverse()) { at.unshift(n % side); n = Math.floor(n / side) }
  return axes.length > 1 ? ` (${at.join(", ")})` : ""
}
const range = (k, names, first, side, extent, axes) => {
  if (cells.data[names]) return of(names)[k]
  const low = first + k * side, high = Math.min(low + side, extent) - 1
  const name = (n) => n.toLocaleString("en") + place(n, axes)
  return low == high ? name(low) : `${name(low)} – ${name(high)}`
}
if (format == "rows") return range(j, "row_names", of("row"), of("height"), of("rows"), of("row_axes"))
if (format == "cols") return range(i, "col_names", of("col"), of("width"), of("cols"), of("col_axes"))
return Number.isNaN(value) ? "no finite entry" : `${digits(value)} (${of("meaning")})`
"""


def heatmap(
    tensor: Tensor | Matrix,
    *,
    reduction: Reduction = "absmax",
    limit: float | None = None,
    theme: Theme = "light",
    norms: "Entry | None" = None,
) -> Any:
    """A tensor as a heatmap that reads what is looked at: a HoloViews `DynamicMap`.

    Every cell shows `reduction` over a whole number of entries; the window is snapped to cells. Colours are linear and
    symmetric about zero up to `limit`, by default the 0.995 quantile of the magnitudes shown, so that they follow
    reduction and window; what is beyond has a colour of its own, and so have cells that hold NaN or Inf. Hover names
    the rows and columns of a cell and what they come to: the stored value once a cell is one entry.

    A tensor of more than 2^25 entries gets a pyramid first, which takes seconds a billion entries and is kept in the
    user's cache. With the tensor's entry in a report as `norms`, norms of rows and columns run along the sides. Raises
    `BadArgument` for a tensor without picture, an unknown reduction or theme, and a limit that is not positive.
    """
    check_reduction(reduction)
    if limit is not None and not 0 < limit < np.inf:
        raise BadArgument(f"limit is {limit}; expected a positive number")
    colours(theme)
    matrix = prepared(tensor) if isinstance(tensor, Tensor) else tensor
    shown = Heatmap(matrix, theme)
    image = shown.element(lambda: reduction, lambda found: found.limit if limit is None else limit)
    return shown.beside_norms(image, norms) if norms is not None else image


def prepared(tensor: Tensor) -> Matrix:
    """The matrix of a tensor, its pyramid built and waited for where it needs one."""
    from weighbridge.pyramid import PyramidCache, matrix_of

    matrix = matrix_of(tensor)
    if isinstance(matrix, WeightMatrix) and matrix.needs_pyramid:
        build = PyramidCache().request(tensor, matrix.view)
        matrix.pyramid = build.result()
    return matrix


class Heatmap:
    """The elements of one matrix's heatmap, which share its ranges."""

    def __init__(
        self,
        matrix: Matrix,
        theme: Theme = "light",
        *,
        rows: Range | None = None,
        cols: Range | None = None,
        failed: Callable[[WeighbridgeError], None] | None = None,
    ) -> None:
        """`rows` and `cols` are the window to begin with. `failed` is told what reading raises instead."""
        from holoviews import streams

        self.matrix = matrix
        self.colours = colours(theme)
        self.range = streams.RangeXY(y_range=rows, x_range=cols)
        self.size = streams.PlotSize(height=_DEFAULT_HEIGHT, width=_DEFAULT_WIDTH)
        self.picture: Picture | None = None
        self._failed = failed
        self._begin = rows or (0, matrix.shape[0]), cols or (0, matrix.shape[1])
        self._figure: Any = None

    def element(self, reduction: Callable[[], Reduction], limit: Limit, *changes: Any) -> Any:
        """The map, drawn anew when the window changes, the plot's size, or one of the streams `changes`."""
        import holoviews as hv

        hv.extension("bokeh", logo=False)

        def draw(x_range: Range | None, y_range: Range | None, height: int | None, width: int | None, **_: Any) -> Any:
            asked = reduction()
            self.picture = self._read(y_range, x_range, (height, width), asked)
            return self._overlay(self.picture, limit(self.picture), asked)

        image = hv.DynamicMap(draw, streams=[self.range, self.size, *changes])
        return image.opts(*self._options())

    def go_to(self, rows: Range | None = None, cols: Range | None = None) -> None:
        """Shows other rows or columns."""
        y, x = rows or self.range.y_range, cols or self.range.x_range
        if self._figure is not None:
            for axis, range_ in ((self._figure.y_range, rows), (self._figure.x_range, cols)):
                if range_ is not None:
                    turned = axis.start > axis.end
                    axis.update(start=range_[turned], end=range_[not turned])
        self.range.event(y_range=y, x_range=x)

    def _read(
        self, rows: Range | None, cols: Range | None, size: tuple[int | None, int | None], reduction: Reduction
    ) -> Picture:
        """The picture of a window; where that cannot be read and somebody is told, an empty one."""
        at = window(self.matrix, rows, cols, size[0] or _DEFAULT_HEIGHT, size[1] or _DEFAULT_WIDTH)
        try:
            return picture(self.matrix, at, known(self.matrix, at, reduction))
        except WeighbridgeError as error:
            if self._failed is None:
                raise
            self._failed(error)
            empty = np.zeros(at.shape, bool)
            return Picture(at, reduction, np.full(at.shape, np.nan), empty, empty)

    def beside_norms(self, image: Any, entry: "Entry") -> Any:
        """The map with the L2 norms of its rows and columns along its sides, aligned: a Panel layout."""
        import panel

        fill = {"sizing_mode": "stretch_both", "margin": 0}
        right = self._norms(entry.row_l2, "row", lambda: (self.range.y_range, self.size.height))
        top = self._norms(entry.col_l2, "col", lambda: (self.range.x_range, self.size.width))
        corner = panel.Spacer(width=_NORMS, height=_NORMS, margin=0)
        above = panel.pane.HoloViews(top, margin=0, height=_NORMS, sizing_mode="stretch_width")
        beside = panel.pane.HoloViews(right, margin=0, width=_NORMS, sizing_mode="stretch_height")
        main = panel.pane.HoloViews(image, **fill)
        return panel.Column(
            panel.Row(above, corner, sizing_mode="stretch_width", margin=0),
            panel.Row(main, beside, sizing_mode="stretch_both", margin=0),
            sizing_mode="stretch_both",
            margin=0,
        )

    def _norms(self, norms: Any, axis: str, seen: Callable[[], tuple[Range | None, int | None]]) -> Any:
        import holoviews as hv
        from holoviews import opts

        values = np.zeros(0) if norms is None else norms

        def draw(**_: Any) -> Any:
            asked, pixels = seen()
            edges, peaks = buckets(values, asked, pixels or _DEFAULT_WIDTH)
            return hv.Histogram((edges, peaks), kdims=axis, vdims=hv.Dimension(f"{axis}_l2", label="L2 norm"))

        look = opts.Histogram(
            color=self.colours.accent,
            line_color=None,
            xlim=self._begin[axis == "col"],
            responsive=True,
            hooks=[_weakly(self._dress_norms)],
            show_title=False,
            toolbar=None,
            **_BESIDE if axis == "row" else _ABOVE,
        )
        return hv.DynamicMap(draw, streams=[self.range, self.size]).opts(look)

    def _dress_norms(self, plot: Any, element: Any) -> None:
        _paint(plot.state, self.colours)
        beside = plot.state.width == _NORMS
        _align(plot.state, *(("top", "bottom") if beside else ("left", "right")))
        along = plot.state.x_range if beside else plot.state.y_range
        along.update(start=0, end=1.05 * float(element.dimension_values(1).max(initial=0)) or 1.0)

    def _overlay(self, found: Picture, limit: float, asked: Reduction) -> Any:
        import holoviews as hv

        of = "" if isinstance(self.matrix, WeightMatrix) else f" of the {self.matrix.entry}"
        label = f"{MEANINGS[found.reduction]}{of}"
        if found.reduction != asked:
            label += f" (zoom in for {MEANINGS[asked]})"
        value = hv.Dimension(found.reduction, label=label, range=(-limit, limit))
        image = hv.Image(found.values[::-1], ["col", "row"], value, bounds=_bounds(found.window), group="Weights")
        return image * self._flags(found)

    def _flags(self, found: Picture) -> Any:
        """What is no number, over the map: as fine as it where there is any, of a single cell where there is none."""
        import holoviews as hv

        flags = np.where(found.inf, _INF, np.where(found.nan, _NAN, 0)).astype(np.uint8)
        flags = flags if flags.any() else np.zeros((1, 1), np.uint8)
        return hv.Image(flags[::-1], ["col", "row"], "flag", bounds=_bounds(found.window), group="Flags")

    def _options(self) -> list[Any]:
        from holoviews import opts

        colours, (rows, cols) = self.colours, self._begin
        shared = {"xlim": cols, "ylim": rows, "invert_yaxis": True, "framewise": False}
        weights = opts.Image(
            "Weights",
            cmap=list(colours.diverging),
            clipping_colors={"min": colours.below, "max": colours.above, "NaN": colours.nan},
            colorbar=True,
            tools=["box_zoom", "reset"],
            active_tools=["pan", "wheel_zoom"],
            xlabel=_label(self.matrix, 1),
            ylabel=_label(self.matrix, 0),
            hooks=[_weakly(self._dress)],
            **shared,
        )
        flags = opts.Image(
            "Flags", cmap=["#00000000", colours.nan, colours.inf], clim=(-0.5, 2.5), colorbar=False, **shared
        )
        return [weights, flags, opts.Overlay(responsive=True, min_height=300, **_LOOK)]

    def _dress(self, plot: Any, element: Any) -> None:
        """Theme, colour limits and hover of a plot: made with it, then brought up to date with every picture."""
        assert self.picture is not None
        _paint(plot.state, self.colours)
        _align(plot.state, *_BORDERS)
        for axis, extent in ((plot.state.y_range, self.matrix.shape[0]), (plot.state.x_range, self.matrix.shape[1])):
            axis.bounds, axis.min_interval = (0, extent), min(2, extent)
            axis.reset_start, axis.reset_end = (0, extent) if axis.start < axis.end else (extent, 0)
        for axis in plot.state.axis:
            axis.ticker.min_interval = 1
        self._figure = plot.state
        if "cells" not in plot.handles:
            plot.handles["cells"] = _add_hover(plot, self.matrix.sides)
        plot.handles["cells"].data = _described(self.matrix, self.picture)


def _weakly(hook: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """A hook that does not keep its object alive: HoloViews never forgets options."""
    reference = WeakMethod(hook)

    def call(plot: Any, element: Any) -> None:
        method = reference()
        if method is not None:
            method(plot, element)

    return call


def _bounds(at: Window) -> tuple[int, int, int, int]:
    """Left, bottom, right and top of all cells, those at the matrix's end in their full size."""
    (down, across), (height, width) = at.shape, at.cell
    return at.cols[0], at.rows[0], at.cols[0] + across * width, at.rows[0] + down * height


def buckets(values: Any, asked: Range | None, pixels: int) -> tuple[Any, Any]:
    """Edges of equal buckets of channels, about one a pixel, and the greatest value in each."""
    low, high = 0, len(values)
    if asked is not None and np.all(np.isfinite(asked)):
        low, high = max(int(min(asked)), 0), min(int(max(asked)) + 1, len(values))
    if low >= high:
        return np.array([0.0, 1.0]), np.zeros(1)
    step = -(-(high - low) // max(pixels, 1))
    starts = np.arange(low // step * step, high, step)
    end = min(starts[-1] + step, len(values))
    return np.append(starts, end), np.maximum.reduceat(values[:end], starts)


def _label(matrix: Matrix, side: int) -> str:
    return matrix.sides[side] if matrix.order is None else f"{matrix.sides[side]}, by its place in the order"


def _add_hover(plot: Any, sides: tuple[str, str]) -> Any:
    """A hover that reads where a cell lies out of the source that it returns."""
    from bokeh.models import ColumnDataSource, CustomJSHover, HoverTool

    cells = ColumnDataSource()
    reader = CustomJSHover(args={"cells": cells}, code=_HOVER)
    plot.state.add_tools(
        HoverTool(
            tooltips=[(f"{sides[0]}s", "$y{rows}"), (f"{sides[1]}s", "$x{cols}"), ("value", "@image{value}")],
            formatters={"$y": reader, "$x": reader, "@image": reader},
            renderers=[plot.handles["glyph_renderer"]],
        )
    )
    return cells


def _described(matrix: Matrix, found: Picture) -> dict[str, list[Any]]:
    at = found.window
    cell = at.cell == (1, 1)
    named = {} if matrix.order is None else {"row_names": [_names(matrix, at, 0)], "col_names": [_names(matrix, at, 1)]}
    return named | {
        "row": [at.rows[0]],
        "col": [at.cols[0]],
        "height": [at.cell[0]],
        "width": [at.cell[1]],
        "rows": [matrix.shape[0]],
        "cols": [matrix.shape[1]],
        "row_axes": [list(matrix.axes[0])],
        "col_axes": [list(matrix.axes[1])],
        "digits": [matrix.digits],
        "meaning": [matrix.entry if cell and found.reduction != "zeros" else MEANINGS[found.reduction]],
    }


def _names(matrix: Matrix, at: Window, side: int) -> list[str]:
    """For each cell down or across the indices of its rows as stored, of many the first few in the order."""
    assert matrix.order is not None
    start, stop = (at.rows, at.cols)[side]
    cells = (matrix.order[first : min(first + at.cell[side], stop)] for first in range(start, stop, at.cell[side]))
    return [_listed(rows, matrix.axes[side]) for rows in cells]


def _listed(rows: Any, axes: tuple[int, ...]) -> str:
    said = [
        f"{row:,}" + (f" ({', '.join(map(str, np.unravel_index(row, axes)))})" if len(axes) > 1 else "")
        for row in rows[:_NAMED]
    ]
    return "; ".join(said) + (f"; … ({len(rows):,} of them)" if len(rows) > _NAMED else "")


def _align(figure: Any, *sides: str) -> None:
    for side in sides:
        setattr(figure, f"min_border_{side}", _BORDERS[side])


def _paint(figure: Any, colours: Colours) -> None:
    """A figure in the colours of a theme."""
    from bokeh.models.annotations import ColorBar

    figure.background_fill_color = figure.border_fill_color = colours.background
    figure.outline_line_color = colours.grid
    figure.toolbar.logo = None
    for bar in figure.select(type=ColorBar):
        bar.title_text_color = bar.major_label_text_color = colours.text
        bar.background_fill_color = colours.background
    for axis in figure.axis:
        axis.axis_label_text_color = axis.major_label_text_color = colours.text
        axis.axis_line_color = axis.major_tick_line_color = axis.minor_tick_line_color = colours.grid
        axis.axis_label_text_font_style = "normal"
    figure.grid.visible = False
