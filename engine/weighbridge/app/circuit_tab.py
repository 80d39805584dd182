"""The part of the page on what a unit is built from: typed or clicked, walked upstream and downstream."""

import re
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
import panel

from weighbridge.analyses.chain import Chain
from weighbridge.analyses.circuits import TOP, find, named
from weighbridge.analyses.transformer import neurons_of
from weighbridge.analyses.wiring import Direction, opened
from weighbridge.app.style import html
from weighbridge.checkpoints.protocol import Checkpoint
from weighbridge.circuit import Circuit, Edge, Unit
from weighbridge.errors import WeighbridgeError
from weighbridge.views.circuit import circuit
from weighbridge.views.circuit_layout import Drawing, drawing
from weighbridge.views.colours import Theme

_SIDES: dict[str, Direction] = {"what it is built from": "upstream", "what reads it": "downstream"}
_MOST, _DRAWN = 120, 30
"""Edges that are drawn at most, and to begin with."""
_LISTED = 12
_ICON_SIDE = 48

Changed = Callable[..., None]


class CircuitTab:
    """The circuit of one unit of a tensor, of which a click on any unit opens more; `changed` is told the unit.

    Raises `BadArgument` for a tensor without units and a unit that is not there.
    """

    def __init__(self, checkpoint: Checkpoint, tensor: str, unit: str, theme: Theme, changed: Changed) -> None:
        self._checkpoint, self._tensor, self._theme, self._changed = checkpoint, tensor, theme, changed
        self._neurons = neurons_of(checkpoint, tensor)
        self._unit = panel.widgets.TextInput(name="unit", value=unit or "0", width=200)
        self._side = panel.widgets.RadioButtonGroup(name="a click shows", options=_SIDES)
        told = html("a click on a unit shows", theme, width=150, sizing_mode="fixed")
        self._most = panel.widgets.IntSlider(name="strongest edges", start=1, end=_MOST, value=_DRAWN, width=220)
        self._said = html("", theme)
        self._shown = panel.Column(margin=0)
        self._list = html("", theme, width=420, sizing_mode="fixed")
        self._ask(unit or "0")
        self._unit.param.watch(lambda event: self._typed(event.new), "value")
        self._most.param.watch(lambda _: self._draw(), "value_throttled")
        controls = panel.Row(self._unit, panel.Column(told, self._side, margin=0), self._most, margin=0)
        shown = panel.FlexBox(self._shown, self._list, align_items="flex-start")
        self.view = panel.Column(controls, self._said, shown, sizing_mode="stretch_both", scroll=True, margin=0)

    def _typed(self, text: str) -> None:
        """A number is a unit of the tensor, anything else names one as the command line does."""
        try:
            self._ask(text)
        except WeighbridgeError as error:
            self._say(str(error))

    def _ask(self, text: str) -> None:
        """Begins with a unit: its inputs, and its readers where it has none."""
        self._wiring, unit = find(self._checkpoint, self._called(text.strip()))
        self._found = Circuit(unit, self._wiring.layers, (), {})
        self._opened: set[tuple[Unit, Direction]] = set()
        self._changed(unit=text.strip() if text.strip() != "0" else "")
        self._open(unit, "upstream")
        if not self._found.edges:
            self._open(unit, "downstream")

    def _called(self, text: str) -> str:
        if not re.fullmatch(r"\d+", text):
            return text
        return f"mlp.{self._neurons}.{text}" if self._neurons is not None else f"{self._tensor}:{text}"

    def _open(self, unit: Unit, direction: Direction) -> None:
        """Adds a unit's edges on one side; a second time it takes them away."""
        if (unit, direction) in self._opened:
            self._opened.remove((unit, direction))
            own = {edge for edge in self._found.edges if _end(edge, direction) == unit}
            edges = tuple(edge for edge in self._found.edges if edge not in own)
        else:
            self._opened.add((unit, direction))
            edges = tuple(dict.fromkeys([*self._found.edges, *opened(self._wiring, [unit], direction, TOP)]))
        self._found = named(self._wiring, Circuit(self._found.unit, self._found.layers, edges, {}))
        self._tell(unit)
        self._draw()

    def _draw(self) -> None:
        from holoviews import streams

        icons = self._icons()
        self._drawn = drawing(self._found, self._most.value, icons)
        picture = circuit(self._found, icons=icons, most=self._most.value, theme=self._theme)
        streams.Tap(source=picture.Points.I).add_subscriber(self._tapped)
        self._shown.objects = [panel.pane.HoloViews(picture, linked_axes=False)]
        self._say("")

    def _tapped(self, x: float | None, y: float | None) -> None:
        unit = nearest(self._drawn, x, y)
        if unit is None:
            return
        try:
            self._open(unit, self._side.value)
        except WeighbridgeError as error:
            self._say(str(error))

    def _tell(self, unit: Unit) -> None:
        """Lists the strongest weights of a unit on both sides, so far as they have been asked for."""
        sides = "".join(self._listed(unit, words, direction) for words, direction in _SIDES.items())
        head = f"<h3>{escape(unit.layer)}, unit {escape(self._found.label(unit))}</h3>"
        self._list.object = head + (sides or "<p class='note'>nothing on this side</p>")

    def _listed(self, unit: Unit, words: str, direction: Direction) -> str:
        own = [edge for edge in self._found.edges if _end(edge, direction) == unit]
        if not own:
            return ""
        lines = []
        for edge in sorted(own, key=lambda edge: -abs(edge.weight))[:_LISTED]:
            other = edge.source if direction == "upstream" else edge.target
            weight = f"{edge.weight:+.4g}".replace("-", "−")
            lines.append(f"<tr><td>{escape(other.layer)} {escape(self._found.label(other))}</td><td>{weight}</td></tr>")
        head = f"<tr><th>{escape(words)}</th><th>weight</th></tr>"
        return f"<table class='figures'>{head}{''.join(lines)}</table>"

    def _icons(self) -> Mapping[Unit, npt.NDArray[Any]]:
        """Filters that read an image, as images: grey is no weight."""
        if not isinstance(self._wiring, Chain):
            return {}
        kernels = {unit: self._wiring.filter(unit) for unit in self._found.units}
        return {unit: _icon(kernel) for unit, kernel in kernels.items() if kernel is not None}

    def _say(self, text: str) -> None:
        self._said.object = f"<p class='note' role='alert'>{escape(text)}</p>" if text else ""


def _end(edge: Edge, direction: Direction) -> Unit:
    """The end of an edge that is opened in a direction."""
    return edge.target if direction == "upstream" else edge.source


def nearest(drawn: Drawing, x: float | None, y: float | None) -> Unit | None:
    """The unit at a place of the drawing, if there is one."""
    if x is None or y is None:
        return None
    far = {unit: float(np.hypot(place[0] - x, place[1] - y)) for unit, place in drawn.places.items()}
    unit = min(far, key=lambda unit: far[unit])
    return unit if far[unit] <= drawn.pitch / 2 else None


def _icon(kernel: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    image = 0.5 + kernel / (2 * (float(np.abs(kernel).max()) or 1.0))
    across = max(1, _ICON_SIDE // max(kernel.shape[:2]))
    return np.broadcast_to(image, (*image.shape[:2], 3)).repeat(across, 0).repeat(across, 1)
