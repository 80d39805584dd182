"""A sheet of saliency maps: a row for each input, a column for each method, as elements and as a file."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.errors import BadArgument
from weighbridge.views.colours import Colours, Theme, colours
from weighbridge.views.frame import framed, load
from weighbridge.views.picture_file import STYLE, provenance, write
from weighbridge.views.placeholder import placeholder
from weighbridge.views.saliency_maps import FloatArray, Map, Picture, blended, coloured, grey, maps, of_one, shades

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from weighbridge.report.saliency import Saliency

FORMATS = (".png", ".svg", ".pdf")
_SIDE = 190
"""Pixels of a picture in a sheet."""
_MOST = 8
"""Inputs in a sheet."""


def saliency_sheet(
    results: "Sequence[Saliency]",
    inputs: Any,
    *,
    captions: Sequence[str] | None = None,
    channel_axis: int = -1,
    theme: Theme = "light",
) -> Any:
    """A row for each of the first 8 inputs, a column for each method, on one scale of shares: an `hv.Layout`.

    Raises `BadArgument` for inputs that are no images.
    """
    hv, paint = load(), colours(theme)
    rows = _rows(results, inputs, captions, channel_axis)
    if not rows:
        return placeholder("saliency: there are no inputs to draw", theme=theme)
    panels = []
    for row in rows:
        panels.append(_panel(hv, row.picture, row.caption, theme))
        for one in row.maps:
            mixed = blended(one.shares, row.under, paint, signed=one.signed)
            panels.append(_panel(hv, mixed, one.title, theme))
    panels.extend(_key(hv, paint, signed, theme) for signed in _kinds(rows))
    layout = hv.Layout(panels).cols(1 + len(results))
    return layout.opts(toolbar=None, shared_axes=False, backend="bokeh")


def save_saliency_sheet(
    results: "Sequence[Saliency]",
    inputs: Any,
    file: str | os.PathLike[str],
    *,
    captions: Sequence[str] | None = None,
    channel_axis: int = -1,
    theme: Theme = "light",
) -> None:
    """Writes a sheet, as `saliency_sheet` draws it, with its scale, to a .png, .svg or .pdf file.

    The same maps are the same bytes. Raises `BadArgument` for another kind of file, inputs that are no images or none,
    `ReportError` where the file cannot be written.
    """
    path = Path(file)
    if path.suffix.lower() not in FORMATS:
        raise BadArgument(f"{path.name}: unknown kind of picture; expected one of {', '.join(FORMATS)}")
    rows = _rows(results, inputs, captions, channel_axis)
    if not rows:
        raise BadArgument("saliency: there are no inputs to draw")
    kind, written = path.suffix[1:].lower(), io.BytesIO()
    from matplotlib import style

    with style.context(STYLE, after_reset=True):
        figure = _figure(rows, colours(theme))
        figure.savefig(written, format=kind, dpi=150, facecolor=colours(theme).background, metadata=provenance(kind))
    write(path, written.getvalue())


@dataclass(frozen=True)
class _Row:
    """An input with its maps; `under` is its grey, which they are drawn over."""

    caption: str
    picture: Picture
    under: FloatArray
    maps: list[Map]


def _rows(results: "Sequence[Saliency]", inputs: Any, captions: Sequence[str] | None, channel_axis: int) -> list[_Row]:
    """Caption, picture and maps of each input of a sheet."""
    x = np.asarray(inputs)
    if x.ndim not in (3, 4):
        raise BadArgument(f"inputs have shape {x.shape}; a sheet needs images, (batch, height, width, channels)")
    if not results or 0 in x.shape:
        return []
    shape = x.shape if x.ndim == 4 else (*x.shape, 1)
    columns = [maps(found, shape, channel_axis=channel_axis) for found in results]
    names = captions if captions is not None else [f"input {i}" for i in range(len(x))]
    axis = of_one(channel_axis, x.ndim)
    return [
        _Row(str(names[i]), coloured(x[i], axis), grey(x[i], axis), [column[i] for column in columns])
        for i in range(min(len(x), _MOST))
    ]


def _panel(hv: Any, picture: Picture, title: str, theme: Theme) -> Any:
    rows, cols = picture.shape[:2]
    image = hv.RGB(picture, bounds=(0, 0, cols, rows))
    bare = {"xaxis": None, "yaxis": None, "toolbar": None}
    return framed(image, title, theme=theme, width=_SIDE, height=round(_SIDE * rows / cols) + 24, **bare)


def _kinds(rows: list[_Row]) -> list[bool]:
    """Which colour maps a sheet uses: the diverging one (True), the sequential one."""
    return sorted({one.signed for row in rows for one in row.maps}, reverse=True)


def _key(hv: Any, paint: Colours, signed: bool, theme: Theme) -> Any:
    """The scale of a colour map as a strip with an axis."""
    low = -1.0 if signed else 0.0
    strip = hv.Image(np.linspace(low, 1, 128)[None], bounds=(low, 0, 1, 1), vdims=hv.Dimension("share", range=(low, 1)))
    strip = strip.opts(cmap=shades(paint, signed), backend="bokeh")
    look = {"yaxis": None, "toolbar": None, "xlabel": "share of the method's limit"}
    return framed(strip, "with signs" if signed else "without signs", theme=theme, width=_SIDE, height=90, **look)


def _figure(rows: list[_Row], paint: Colours) -> "Figure":
    from matplotlib.figure import Figure

    across, down = 1 + len(rows[0].maps), len(rows)
    height, width = rows[0].under.shape
    inches = 1.4 * across + 0.7, 1.4 * height / width * down + 0.35
    figure = Figure(inches, facecolor=paint.background)
    grid = figure.subplots(down, across, squeeze=False)
    edges = {"left": 0.25 / inches[0], "right": 1 - 0.75 / inches[0], "bottom": 0.06 / inches[1]}
    figure.subplots_adjust(**edges, top=1 - 0.3 / inches[1], wspace=0.05, hspace=0.05)
    for line, row in zip(grid, rows, strict=True):
        line[0].imshow(row.picture, interpolation="nearest")
        line[0].set_ylabel(row.caption, fontsize=7, color=paint.text, parse_math=False)
        for axes, one in zip(line[1:], row.maps, strict=True):
            axes.imshow(blended(one.shares, row.under, paint, signed=one.signed), interpolation="nearest")
            axes.set_xlabel(one.warning, fontsize=6, color=paint.above)
    for axes, title in zip(grid[0], ["input", *(one.name for one in rows[0].maps)], strict=True):
        axes.set_title(title, fontsize=7, color=paint.text, pad=3)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    _scales(figure, rows, paint, inches[0])
    return figure


def _scales(figure: "Figure", rows: list[_Row], paint: Colours, width: float) -> None:
    """The bar of each colour map that a sheet uses, one below the other."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    kinds = _kinds(rows)
    for i, signed in enumerate(kinds):
        table = ListedColormap(shades(paint, signed))
        height = 0.8 / len(kinds)
        axes = figure.add_axes((1 - 0.62 / width, 0.9 - (i + 1) * height, 0.1 / width, 0.85 * height))
        bar = figure.colorbar(ScalarMappable(Normalize(-1 if signed else 0, 1), table), cax=axes)
        bar.ax.tick_params(labelsize=6, colors=paint.text, length=2)
        bar.set_label("share of the method's limit", fontsize=6, color=paint.text)
        bar.outline.set_edgecolor(paint.grid)
