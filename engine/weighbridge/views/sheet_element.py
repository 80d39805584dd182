"""A sheet of small pictures as HoloViews elements, for a notebook and for the page."""

from typing import Any

import numpy as np

from weighbridge.views.colours import Theme, colours
from weighbridge.views.frame import framed, load
from weighbridge.views.placeholder import placeholder
from weighbridge.views.sheet import Sheet

_LONGEST = 900
"""Pixels that the longer side takes on the screen."""


def drawn(sheet: Sheet, *, theme: Theme = "light") -> Any:
    """An `hv.Overlay`: an `hv.Image` of the signed pictures, an `hv.RGB` of the coloured ones, frames, captions.

    Frames tell on hovering what a tile is. A sheet without tiles gives a text.
    """
    if not sheet.tiles:
        return placeholder(f"{sheet.title}: nothing to show", theme=theme)
    hv, paint = load(), colours(theme)
    height, width = sheet.shape
    bounds = (0, 0, width, height)
    layers: list[Any] = []
    if len(sheet.signed) < len(sheet.tiles):
        layers.append(hv.RGB(sheet.colours(), bounds=bounds, kdims=["x", "y"], vdims=["red", "green", "blue", "alpha"]))
    if sheet.signed:
        image = hv.Image(sheet.values(), bounds=bounds, kdims=["x", "y"], vdims="weight")
        look = {"cmap": list(paint.diverging), "clim": (-sheet.limit, sheet.limit), "colorbar": True}
        ends = {"clipping_colors": {"NaN": "transparent", "min": paint.below, "max": paint.above}}
        layers.append(image.opts(**look, **ends, backend="bokeh"))
    layers.append(_frames(hv, sheet, paint))
    if sheet.captioned:
        layers.append(_captions(hv, sheet, paint))
    scale = _LONGEST / max(height, width)
    return framed(
        hv.Overlay(layers),
        sheet.title,
        theme=theme,
        width=None,
        height=None,
        frame_width=round(width * scale),
        frame_height=round(height * scale),
        xlim=(0, width),
        ylim=(0, height),
        show_legend=False,
        show_frame=False,
        **_named_axes(sheet),
    )


def _frames(hv: Any, sheet: Sheet, paint: Any) -> Any:
    boxes = [sheet.box(tile) for tile in sheet.tiles]
    edges = [(b.left, sheet.shape[0] - b.top - b.height, b.left + b.width, sheet.shape[0] - b.top) for b in boxes]
    columns = tuple(np.array(side, float) for side in zip(*edges, strict=True))
    says = np.array([tile.says or tile.caption for tile in sheet.tiles], object)
    frames = hv.Rectangles((*columns, says), ["left", "bottom", "right", "top"], "says")
    look = {"fill_alpha": 0, "line_color": paint.grid, "line_width": 0.5}
    return frames.opts(**look, tools=["hover"], hover_tooltips=[("", "@says")], backend="bokeh")


def _captions(hv: Any, sheet: Sheet, paint: Any) -> Any:
    told = [(tile, sheet.box(tile)) for tile in sheet.tiles if tile.caption]
    x = [b.left + b.width / 2 for _, b in told]
    y = [sheet.shape[0] - sheet.caption_top(tile) for tile, _ in told]
    labels = hv.Labels((x, y, [tile.caption for tile, _ in told]), ["x", "y"], "caption")
    look = {"text_color": paint.muted, "text_font_size": "8pt", "text_baseline": "top"}
    return labels.opts(**look, backend="bokeh")


def _named_axes(sheet: Sheet) -> dict[str, Any]:
    """Names of columns above, of rows at the left; no axis without names."""
    options: dict[str, Any] = {"xaxis": None, "yaxis": None, "xlabel": "", "ylabel": ""}
    half = sheet.side / 2
    if sheet.col_names:
        ticks = [(i * sheet.pitch[1] + half, name) for i, name in enumerate(sheet.col_names)]
        options |= {"xaxis": "top", "xticks": ticks}
    if sheet.row_names:
        ticks = [(sheet.shape[0] - i * sheet.pitch[0] - half, name) for i, name in enumerate(sheet.row_names)]
        options |= {"yaxis": "left", "yticks": ticks}
    return options
