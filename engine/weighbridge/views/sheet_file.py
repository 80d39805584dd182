"""A sheet of small pictures as a file for a paper: PNG, SVG or PDF, and HTML that needs no other host."""

import io
import os
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.errors import BadArgument
from weighbridge.views.colours import Colours, Theme, colours
from weighbridge.views.picture_file import STYLE, provenance, write
from weighbridge.views.sheet import Sheet
from weighbridge.views.sheet_element import drawn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf", ".html")
_DPI = 150
_LONGEST = 10.0
"""Inches of the longer side of the pictures."""
_TITLE, _BAR, _NAMES, _MARGIN = 0.4, 0.9, 0.8, 0.15
"""Inches about them."""
_IMAGE = 16
"""Pixels of a side from which a coloured picture is taken for an image, whose pixels are no data to be told apart."""


def save(sheet: Sheet, file: str | os.PathLike[str], *, theme: Theme = "light") -> None:
    """Writes a sheet to a .png, .svg, .pdf or .html file.

    Raises `BadArgument` for another kind of file and a sheet without tiles, `ReportError` where it cannot be written.
    """
    path = Path(file)
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise BadArgument(f"{path.name}: unknown kind of picture; expected one of {', '.join(FORMATS)}")
    if not sheet.tiles:
        raise BadArgument(f"{path.name}: the sheet has no pictures; expected one at least")
    written = _page(sheet, theme) if kind == ".html" else picture(sheet, kind[1:], theme)
    write(path, written)


def _page(sheet: Sheet, theme: Theme) -> bytes:
    import holoviews
    from bokeh.embed import components
    from bokeh.resources import Resources

    script, place = components(holoviews.renderer("bokeh").get_plot(drawn(sheet, theme=theme)).state)
    # Not bokeh's own page: where Panel is loaded that asks for a file beside it.
    library = "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)
    head = f'<meta charset="utf-8">\n<title>{escape(sheet.title)}</title>\n<script>{library}</script>\n{script}'
    page = f"<!DOCTYPE html>\n<html>\n<head>\n{head}\n</head>\n<body>\n{place}\n</body>\n</html>\n"
    return page.encode()


def picture(sheet: Sheet, kind: str = "png", theme: Theme = "light") -> bytes:
    """The bytes of a PNG, an SVG or a PDF."""
    from matplotlib import style

    paint = colours(theme)
    written = io.BytesIO()
    with style.context(STYLE, after_reset=True):
        figure = _figure(sheet, paint)
        figure.savefig(written, format=kind, dpi=_DPI, facecolor=paint.background, metadata=provenance(kind))
    return written.getvalue()


def _figure(sheet: Sheet, paint: Colours) -> "Figure":
    from matplotlib.figure import Figure

    down, across = (_LONGEST * side / max(sheet.shape) for side in sheet.shape)
    left = _NAMES if sheet.row_names else _MARGIN
    top = (_TITLE if sheet.title else _MARGIN) + (_NAMES / 2 if sheet.col_names else 0)
    width, height = left + across + (_BAR if sheet.signed else _MARGIN), top + down + _MARGIN
    figure = Figure((width, height), dpi=_DPI, facecolor=paint.background)
    axes = figure.add_axes((left / width, _MARGIN / height, across / width, down / height))
    _draw(axes, sheet, paint)
    figure.text(left / width, 1 - 0.25 / height, sheet.title, color=paint.text, fontsize=10, parse_math=False)
    if sheet.signed:
        bar = figure.add_axes(((left + across + 0.1) / width, _MARGIN / height, 0.15 / width, min(down, 3) / height))
        _draw_bar(figure, bar, sheet, paint)
    return figure


def _draw(axes: Any, sheet: Sheet, paint: Colours) -> None:
    from matplotlib.patches import Rectangle

    height, width = sheet.shape
    placed = {"extent": (0, width, height, 0), "interpolation": "nearest", "aspect": "auto"}
    if sheet.signed:
        axes.imshow(sheet.values(), _colour_map(paint), vmin=-sheet.limit, vmax=sheet.limit, **placed)
    for tile in sheet.tiles:
        box = sheet.box(tile)
        if tile.picture.ndim == 3:
            extent = (box.left, box.left + box.width, box.top + box.height, box.top)
            smooth = "bicubic" if min(tile.picture.shape[:2]) >= _IMAGE else "nearest"
            axes.imshow(np.clip(tile.picture, 0, 1), extent=extent, interpolation=smooth, aspect="auto")
        axes.add_patch(Rectangle((box.left, box.top), box.width, box.height, fill=False, ec=paint.grid, lw=0.4))
        if tile.caption:
            at = box.left + box.width / 2, sheet.caption_top(tile)
            axes.text(*at, tile.caption, color=paint.muted, fontsize=_caption_size(sheet), ha="center", va="top")
    axes.set(xlim=(0, width), ylim=(height, 0), frame_on=False)
    _name_axes(axes, sheet, paint)


def _caption_size(sheet: Sheet) -> float:
    """Points that fit the line under a tile."""
    line = (sheet.pitch[0] - sheet.side) * _LONGEST * 72 / max(sheet.shape)
    return float(np.clip(0.7 * line, 3, 9))


def _name_axes(axes: Any, sheet: Sheet, paint: Colours) -> None:
    half = sheet.side / 2
    axes.set_xticks([i * sheet.pitch[1] + half for i in range(len(sheet.col_names))], sheet.col_names)
    axes.set_yticks([i * sheet.pitch[0] + half for i in range(len(sheet.row_names))], sheet.row_names)
    axes.tick_params(top=False, bottom=False, left=False, labeltop=True, labelbottom=False, labelsize=8)
    axes.tick_params(colors=paint.text)


def _draw_bar(figure: Any, place: Any, sheet: Sheet, paint: Colours) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(-sheet.limit, sheet.limit), _colour_map(paint))
    bar = figure.colorbar(scale, cax=place, extend=_extend(sheet))
    bar.ax.tick_params(labelsize=8, colors=paint.text)
    bar.set_label("weight", color=paint.text, fontsize=9)
    bar.outline.set_edgecolor(paint.grid)


def _extend(sheet: Sheet) -> str:
    """Which ends of the colour bar have weights beyond them."""
    values = sheet.values()
    below, above = bool((values < -sheet.limit).any()), bool((values > sheet.limit).any())
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[below, above]


def _colour_map(paint: Colours) -> Any:
    from matplotlib.colors import ListedColormap

    return ListedColormap(list(paint.diverging)).with_extremes(under=paint.below, over=paint.above, bad=(0, 0, 0, 0))
