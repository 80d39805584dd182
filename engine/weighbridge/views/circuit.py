"""A circuit as a diagram: units as circles in a column a layer, lines as thick as the weight, coloured by its sign."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from weighbridge.circuit import Circuit, Edge, Unit
from weighbridge.errors import BadArgument, ReportError
from weighbridge.views.colours import Colours, Theme, colours
from weighbridge.views.frame import framed, load

FORMATS = (".png", ".svg", ".pdf")
_THICKEST, _THINNEST = 9.0, 0.6
"""Points that lines are wide."""
_ROW = 46
"""Pixels from unit to unit."""
_ICON_ROW, _ICON = 100, 44
"""Pixels from unit to unit where they have icons, and points that an icon is high."""
_COLUMN = 230
_DPI = 150


class Drawing(NamedTuple):
    """Where units lie, and the edges that are drawn, the weakest first."""

    places: dict[Unit, tuple[float, float]]
    edges: list[Edge]

    def width(self, edge: Edge) -> float:
        """How thick its line is, by the strongest of all."""
        strongest = max(abs(other.weight) for other in self.edges)
        return _THINNEST + (_THICKEST - _THINNEST) * abs(edge.weight) / strongest


def drawing(found: Circuit, most: int | None = None) -> Drawing:
    """Layers from left to right as far as units of them are drawn; in each, units near what they lead to.

    Of more than `most` edges the strongest, and of these such as lead on to the circuit's unit.
    """
    kept = sorted(found.edges, key=lambda edge: -abs(edge.weight))[:most]
    connected, front = {found.unit}, [found.unit]
    while front:
        reached = [edge.source for edge in kept if edge.target in front and edge.source not in connected]
        connected.update(reached)
        front = reached
    edges = [edge for edge in kept if edge.target in connected]
    layers = [layer for layer in found.layers if any(unit.layer == layer for unit in connected)]
    places: dict[Unit, tuple[float, float]] = {}
    for column in range(len(layers) - 1, -1, -1):
        here = [unit for unit in found.units if unit in connected and unit.layer == layers[column]]
        wanted = {unit: _height(unit, edges, places) for unit in here}
        for row, unit in enumerate(sorted(here, key=lambda unit: -wanted[unit])):
            places[unit] = (float(column), (len(here) - 1) / 2 - row)
    return Drawing(places, edges[::-1])


def _height(unit: Unit, edges: list[Edge], places: dict[Unit, tuple[float, float]]) -> float:
    """The mean height of what a unit leads to, weighted; those that lead nowhere drawn yet in the middle."""
    on = [(places[edge.target][1], abs(edge.weight)) for edge in edges if edge.source == unit and edge.target in places]
    return sum(y * w for y, w in on) / sum(w for _, w in on) if on else 0.0


def circuit(found: Circuit, *, most: int | None = 60, theme: Theme = "light") -> Any:
    """A circuit as an `hv.Overlay`, red for positive weights and blue for negative; hover tells weights and units.

    Of more than `most` edges the strongest are drawn.
    """
    hv, paint = load(), colours(theme)
    drawn = drawing(found, most)
    columns = max(int(x) for x, _ in drawn.places.values()) + 1
    layers = _columns(drawn)
    points = [(x, y, unit.layer, found.label(unit)) for unit, (x, y) in drawn.places.items()]
    lines = [
        (*drawn.places[edge.source], *drawn.places[edge.target], edge.weight, drawn.width(edge), np.sign(edge.weight))
        for edge in drawn.edges
    ]
    segments = hv.Segments(lines, ["x0", "y0", "x1", "y1"], ["weight", "width", "sign"]).opts(
        color="sign",
        cmap=[paint.diverging[0], paint.diverging[-1]],
        clim=(-1, 1),
        line_width="width",
        alpha=0.75,
        tools=["hover"],
        hover_tooltips=[("weight", "@weight")],
        backend="bokeh",
    )
    units = hv.Points(points, ["x", "y"], ["layer", "unit"]).opts(
        size=26,
        color=paint.surface,
        line_color=paint.text,
        tools=["hover"],
        hover_tooltips=[("layer", "@layer"), ("unit", "@unit")],
        backend="bokeh",
    )
    names = hv.Labels([(x, y, name) for x, y, _, name in points], ["x", "y"], "unit")
    tallest = max(sum(1 for x, _ in drawn.places.values() if x == column) for column in range(columns))
    return framed(
        hv.Overlay([segments, units, names.opts(text_color=paint.text, text_font_size="8pt", backend="bokeh")]),
        f"{found.unit.layer}, unit {found.label(found.unit)}",
        theme=theme,
        width=_COLUMN * columns + 120,
        height=_ROW * tallest + 120,
        xticks=[(column, layers[column]) for column in range(columns)],
        yaxis=None,
        xlabel="",
        xlim=(-0.6, columns - 0.4),
        ylim=(-(tallest + 1) / 2, (tallest + 1) / 2),
    )


def _columns(drawn: Drawing) -> dict[int, str]:
    """The layer of each column."""
    return {int(x): unit.layer for unit, (x, _) in drawn.places.items()}


def circuit_file(
    found: Circuit,
    file: str | os.PathLike[str],
    *,
    icons: Mapping[Unit, Any] | None = None,
    most: int | None = 60,
    theme: Theme = "light",
) -> None:
    """The diagram as a .png, .svg or .pdf file, with an icon, an image [h, w, 3] in [0, 1], for units that have one.

    Raises `BadArgument` for another kind of file, `ReportError` where it cannot be written.
    """
    import matplotlib

    path = Path(file)
    if path.suffix not in FORMATS:
        raise BadArgument(f"{path.name}: expected a name that ends in {', '.join(FORMATS)}")
    figure = _figure(found, drawing(found, most), icons or {}, colours(theme))
    try:
        with matplotlib.rc_context({"svg.hashsalt": "weighbridge", "svg.fonttype": "none"}):
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except OSError as error:
        raise ReportError(f"{path}: cannot be written: {error.strerror}; choose another file") from error


def _figure(found: Circuit, drawn: Drawing, icons: Mapping[Unit, Any], paint: Colours) -> Any:
    from matplotlib.figure import Figure

    columns = _columns(drawn)
    tallest = max(sum(1 for x, _ in drawn.places.values() if x == column) for column in columns)
    row = _ICON_ROW if icons else _ROW
    size = (_COLUMN * len(columns) + 120) / 100, (row * tallest + 110) / 100
    figure = Figure(figsize=size, dpi=_DPI, facecolor=paint.background)
    axes = figure.add_axes((0.02, 0.12, 0.96, 0.76), facecolor=paint.background)
    _lines(axes, drawn, paint)
    for unit, place in drawn.places.items():
        _node(axes, place, found.label(unit), icons.get(unit), paint)
    for column, layer in columns.items():
        axes.text(column, -(tallest + 1.2) / 2, layer, ha="center", va="top", fontsize=8, color=paint.muted)
    axes.set(xlim=(-0.6, len(columns) - 0.4), ylim=(-(tallest + 1) / 2, (tallest + 1) / 2))
    axes.axis("off")
    figure.suptitle(f"{found.unit.layer}, unit {found.label(found.unit)}", fontsize=10, color=paint.text)
    return figure


def _node(axes: Any, place: tuple[float, float], label: str, icon: Any, paint: Colours) -> None:
    """A unit: its icon with its name below, or its name in a bubble."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    if icon is None:
        look = {"fontsize": 8, "color": paint.text, "zorder": 3, "bbox": _bubble(paint)}
        axes.text(*place, label, ha="center", va="center", **look)
        return
    shown = OffsetImage(np.asarray(icon), zoom=_ICON / np.shape(icon)[0], interpolation="lanczos")
    axes.add_artist(AnnotationBbox(shown, place, pad=0.1, bboxprops={"edgecolor": paint.text}, zorder=3))
    axes.annotate(
        label,
        place,
        (0, -_ICON / 2 - 4),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=7,
        color=paint.text,
    )


def _lines(axes: Any, drawn: Drawing, paint: Colours) -> None:
    for edge in drawn.edges:
        (x0, y0), (x1, y1) = drawn.places[edge.source], drawn.places[edge.target]
        colour = paint.diverging[-1 if edge.weight > 0 else 0]
        look = {"color": colour, "linewidth": drawn.width(edge), "alpha": 0.75, "zorder": 1}
        axes.plot([x0, x1], [y0, y1], solid_capstyle="round", **look)


def _bubble(paint: Colours) -> dict[str, Any]:
    return {"boxstyle": "round,pad=0.45", "facecolor": paint.surface, "edgecolor": paint.text, "linewidth": 0.8}
