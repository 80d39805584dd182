"""A circuit's diagram as a file: PNG, SVG and PDF, and HTML in which units open and edges are let in by a slider."""

import io
import json
import os
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from weighbridge.circuit import Circuit, Unit
from weighbridge.errors import BadArgument
from weighbridge.views.circuit import MOST, alpha, folded, legend, round_icon, title
from weighbridge.views.circuit_layout import COLUMN, Drawing, Place, drawing
from weighbridge.views.colours import Colours, Theme, colours
from weighbridge.views.picture_file import STYLE, provenance, write

FORMATS = (".png", ".svg", ".pdf", ".html")
_TOP, _BOTTOM = 62, 56
"""Pixels above and below the columns."""
_INCH, _DPI = 100, 150
"""Pixels of the layout, and of a PNG, in an inch."""
_POINT = 72 / _INCH


def circuit_file(
    found: Circuit,
    file: str | os.PathLike[str],
    *,
    icons: Mapping[Unit, Any] | None = None,
    most: int | None = MOST,
    theme: Theme = "light",
) -> None:
    """The diagram as a .png, .svg, .pdf or .html file, with an icon, for units that have one,
    an image [h, w, 3] in [0, 1].

    Of more than `most` edges the strongest. In HTML, which needs no other file, a slider chooses how many of these, and
    a click on a unit shows or hides what it is built from.

    Raises `BadArgument` for another kind of file, `ReportError` where it cannot be written.
    """
    path = Path(file)
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise BadArgument(f"{path.name}: expected a name that ends in {', '.join(FORMATS)}")
    drawn, paint = drawing(found, most, icons), colours(theme)
    if kind == ".html":
        write(path, _page(found, drawn, icons or {}, paint).encode())
    else:
        write(path, _picture(found, drawn, icons or {}, paint, kind[1:]))


def _picture(found: Circuit, drawn: Drawing, icons: Mapping[Unit, Any], paint: Colours, kind: str) -> bytes:
    from matplotlib import style

    written = io.BytesIO()
    with style.context(STYLE | {"image.composite_image": False}, after_reset=True):
        figure = _figure(found, drawn, icons, paint)
        figure.savefig(written, format=kind, dpi=_DPI, facecolor=paint.background, metadata=provenance(kind))
    return written.getvalue()


def _figure(found: Circuit, drawn: Drawing, icons: Mapping[Unit, Any], paint: Colours) -> Any:
    """A figure whose axes count the layout's pixels, so that circles are round."""
    from matplotlib.figure import Figure

    half = drawn.height / 2
    left, bottom = -drawn.side, -half - _BOTTOM
    width, height = drawn.across + 2 * drawn.side, drawn.height + _TOP + _BOTTOM
    figure = Figure((width / _INCH, height / _INCH), dpi=_DPI, facecolor=paint.background)
    axes = figure.add_axes((0, 0, 1, 1), facecolor=paint.background)
    _lines(axes, drawn, paint)
    for i, (unit, place) in enumerate(drawn.places.items()):
        _unit(axes, i, place, found.label(unit) if drawn.named else "", icons.get(unit), drawn, paint)
    for column, layer in enumerate(drawn.layers):
        _text(axes, column * COLUMN, -half - 8, folded(layer), 8, paint.muted)
    _text(axes, drawn.across / 2, half + 48, title(found), 10, paint.text)
    _text(axes, drawn.across / 2, half + 28, legend(found, drawn), 7.5, paint.muted)
    axes.set(xlim=(left, left + width), ylim=(bottom, bottom + height))
    axes.axis("off")
    return figure


def _text(axes: Any, x: float, y: float, text: str, size: float, colour: str) -> None:
    axes.text(x, y, text, ha="center", va="top", fontsize=size, color=colour, parse_math=False)


def _unit(axes: Any, i: int, place: Place, label: str, icon: Any, drawn: Drawing, paint: Colours) -> None:
    """A circle with its icon and the name below, or with its name inside; a long name widens it."""
    from matplotlib.patches import Circle

    (x, y), r = place, drawn.radius(icon is not None)
    look = {"ha": "center", "fontsize": 8, "color": paint.text, "gid": f"name-{i}", "parse_math": False}
    if icon is None and len(label) > 3:
        bubble = {"boxstyle": "round,pad=0.4,rounding_size=0.9", "fc": paint.surface, "ec": paint.text, "lw": 0.8}
        axes.text(x, y, label, va="center", zorder=3, bbox=bubble, **look)
        return
    circle = Circle(place, r, facecolor=paint.surface, edgecolor=paint.text, linewidth=0.8, zorder=2, gid=f"unit-{i}")
    axes.add_patch(circle)
    if icon is not None:
        extent = (x - r, x + r, y - r, y + r)
        axes.imshow(round_icon(icon), extent=extent, interpolation="lanczos", aspect="auto", zorder=3, gid=f"icon-{i}")
    axes.text(x, y if icon is None else y - r - 2, label, va="center" if icon is None else "top", zorder=4, **look)


def _lines(axes: Any, drawn: Drawing, paint: Colours) -> None:
    for i, (edge, path) in enumerate(zip(drawn.edges, drawn.paths(), strict=True)):
        look = {
            "color": paint.diverging[-1 if edge.weight > 0 else 0],
            "alpha": alpha(drawn),
            "zorder": 1 - i / len(drawn.edges),
        }
        axes.plot(*path.T, linewidth=drawn.width(edge) * _POINT, solid_capstyle="round", gid=f"edge-{i}", **look)


def _page(found: Circuit, drawn: Drawing, shown: Mapping[Unit, Any], paint: Colours) -> str:
    """The picture with what the script needs: for each edge, in their order, the unit that opens it and the other.

    Matplotlib gives images no ids of their own choice, but draws icons in the order of the units.
    """
    number = {unit: i for i, unit in enumerate(drawn.places)}
    openers = found.openers()
    edges = [[number[end] for end in openers[edge]] for edge in drawn.edges]
    icons = iter([i for i, unit in enumerate(drawn.places) if unit in shown])
    svg = re.sub(
        r' id="image\w+"', lambda _: f' id="icon-{next(icons)}"', _picture(found, drawn, shown, paint, "svg").decode()
    )
    known = json.dumps({"edges": edges, "root": number[found.unit]})
    return _HTML.format(
        title=escape(title(found)),
        background=paint.background,
        text=paint.text,
        count=len(edges),
        svg=svg[svg.index("<svg") :],
        known=known,
        script=_SCRIPT,
    )


_HTML = """<!DOCTYPE html>
<html>
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ background: {background}; color: {text}; font: 14px sans-serif; margin: 12px }}
svg {{ max-width: 100%; height: auto }}
[id^=unit-], [id^=icon-], [id^=name-] {{ cursor: pointer }}
</style>
</head>
<body>
<label>strongest edges <input type="range" min="0" max="{count}" value="{count}"> <output>{count}</output></label>
<small>click a unit to show or hide what it is built from</small>
<div>{svg}</div>
<script>
const known = {known}
{script}
</script>
</body>
</html>
"""
_SCRIPT = """const slider = document.querySelector("input"), shut = new Set()
const parts = (i) => ["unit", "icon", "name"].map((kind) => document.getElementById(`${kind}-${i}`)).filter(Boolean)
const units = new Set([known.root, ...known.edges.flat()])
function show() {
  const kept = known.edges.slice(0, +slider.value), seen = new Set([known.root]), lines = new Set()
  let before
  do {
    before = seen.size
    kept.forEach(([from, to], rank) => {
      if (seen.has(from) && !shut.has(from)) { seen.add(to); lines.add(rank) }
    })
  } while (seen.size > before)
  known.edges.forEach((_, rank) => {
    document.getElementById(`edge-${rank}`).style.display = lines.has(rank) ? "" : "none"
  })
  for (const i of units) for (const part of parts(i)) part.style.display = seen.has(i) ? "" : "none"
  document.querySelector("output").value = lines.size
}
for (const i of units) for (const part of parts(i)) part.addEventListener("click", () => {
  shut.has(i) ? shut.delete(i) : shut.add(i)
  show()
})
slider.addEventListener("input", show)
show()"""
