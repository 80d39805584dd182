"""Where the units of a circuit lie and how its lines run, in pixels. Numbers alone."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge.circuit import Circuit, Edge, Unit

Place = tuple[float, float]
Path = npt.NDArray[np.float64]

COLUMN = 220
"""Pixels from layer to layer."""
RADIUS, ICON_RADIUS = 15, 30
"""Of a unit, without and with an icon."""
_ROW, _ICON_ROW = 46, 88
"""Pixels from unit to unit in a column."""
_SIDE, _NARROWEST = 90, 520
"""Pixels beside the columns, and of the width that the title needs."""
_TALLEST = 1500
"""Pixels of a column, at most; beyond, units stand closer and lose their names."""
_NAMED, _NAME = 18, 16
"""Pixels from unit to unit that leave room for names, and those that a name takes under an icon."""
_THICKEST, _THINNEST = 10.0, 0.7
BUNDLED = 250
"""Edges beyond which lines are bundled."""


@dataclass(frozen=True)
class Drawing:
    """Where units lie, y upwards, and the edges that are drawn, as they were chosen; columns are of layers."""

    places: dict[Unit, Place]
    edges: list[Edge]
    layers: list[str]
    pitch: float

    @property
    def named(self) -> bool:
        """Whether there is room for names of units."""
        return self.pitch >= _NAMED

    @property
    def bundled(self) -> bool:
        """Whether there are so many lines that they are bundled."""
        return len(self.edges) > BUNDLED

    @property
    def height(self) -> float:
        """Of the tallest column, a row for each unit."""
        ends = [y for _, y in self.places.values()]
        return max(ends) - min(ends) + self.pitch

    @property
    def across(self) -> float:
        """From the first column to the last."""
        return float(COLUMN * (len(self.layers) - 1))

    @property
    def side(self) -> float:
        """Room beside the columns, for the names of layers and of the whole."""
        return max(_SIDE, (_NARROWEST - self.across) / 2)

    @property
    def strongest(self) -> float:
        """The greatest magnitude of a weight that is drawn."""
        return max((abs(edge.weight) for edge in self.edges), default=0.0)

    def radius(self, icon: bool) -> float:
        """Of a unit's circle."""
        below = _NAME if icon and self.pitch > 3 * _NAME else 0.1 * self.pitch
        return min(ICON_RADIUS if icon else RADIUS, (self.pitch - below) / 2)

    def width(self, edge: Edge) -> float:
        """How thick its line is in pixels, by the strongest of all."""
        thickest = 2.5 if self.bundled else min(_THICKEST, 0.3 * self.pitch)
        return _THINNEST + max(thickest - _THINNEST, 0) * abs(edge.weight) / self.strongest

    def paths(self) -> list[Path]:
        """The line [points, 2] of every edge: straight, bowed past columns between, or bundled if beyond `BUNDLED`."""
        straight = [np.array([self.places[edge.source], self.places[edge.target]]) for edge in self.edges]
        return _bundled(self, straight) if self.bundled else [_bowed(line, self.pitch) for line in straight]


def drawing(found: Circuit, most: int | None = None, icons: Mapping[Unit, Any] | None = None) -> Drawing:
    """Layers from left to right as far as units of them are drawn; in each, units near those that they are tied to.

    Of more than `most` edges, one after another, the strongest that hangs on what is drawn already.
    """
    edges = _hanging(found, len(found.edges) if most is None else most)
    connected = {found.unit, *(end for edge in edges for end in edge[:2])}
    layers = [layer for layer in found.layers if any(unit.layer == layer for unit in connected)]
    columns = [[unit for unit in found.units if unit in connected and unit.layer == layer] for layer in layers]
    row = _ICON_ROW if icons and connected & icons.keys() else _ROW
    pitch = min(row, _TALLEST / max(map(len, columns)))
    places = _places(columns, layers.index(found.unit.layer), edges, pitch)
    return Drawing(places, edges, layers, pitch)


def _hanging(found: Circuit, most: int) -> list[Edge]:
    """The strongest edges, each opened by the circuit's unit or by one that an edge before it leads to."""
    own: dict[Unit, list[Edge]] = defaultdict(list)
    openers = found.openers()
    for edge, (opener, _) in openers.items():
        own[opener].append(edge)
    waiting: list[tuple[float, int, Edge]] = []
    order = {edge: i for i, edge in enumerate(openers)}
    kept: list[Edge] = []
    reached: set[Unit] = set()

    def reach(unit: Unit) -> None:
        if unit not in reached:
            reached.add(unit)
            for edge in own[unit]:
                heappush(waiting, (-abs(edge.weight), order[edge], edge))

    reach(found.unit)
    while waiting and len(kept) < most:
        edge = heappop(waiting)[2]
        kept.append(edge)
        reach(openers[edge][1])
    return kept


def _places(columns: list[list[Unit]], own: int, edges: list[Edge], pitch: float) -> dict[Unit, Place]:
    """Columns are laid from the circuit's own outwards, so that what a unit is tied to lies already."""
    tied: dict[Unit, list[Edge]] = defaultdict(list)
    for edge in edges:
        tied[edge.source].append(edge)
        tied[edge.target].append(edge)
    places: dict[Unit, Place] = {}
    for column in sorted(range(len(columns)), key=lambda column: abs(column - own)):
        wanted = {unit: _height(unit, tied[unit], places) for unit in columns[column]}
        for row, unit in enumerate(sorted(columns[column], key=lambda unit: -wanted[unit])):
            places[unit] = (float(COLUMN * column), pitch * ((len(wanted) - 1) / 2 - row))
    return places


def _height(unit: Unit, edges: list[Edge], places: Mapping[Unit, Place]) -> float:
    """The mean height of what a unit is tied to, weighted; in the middle where none of it lies yet."""
    others = [(edge.target if edge.source == unit else edge.source, abs(edge.weight)) for edge in edges]
    on = [(places[other][1], weight) for other, weight in others if other in places]
    return sum(y * w for y, w in on) / sum(w for _, w in on) if on else 0.0


def _bowed(line: Path, pitch: float) -> Path:
    """A line that passes columns on the side where it runs, above or below what stands in their middle."""
    passed = abs(line[1, 0] - line[0, 0]) / COLUMN - 1
    if passed < 0.5:
        return line
    bow = 2 * pitch * np.sqrt(passed) * (1 if line[:, 1].sum() >= 0 else -1)
    t = np.linspace(0, 1, 33)[:, None]
    middle = line.mean(axis=0) + np.array([0.0, bow])
    curve: Path = (1 - t) ** 2 * line[0] + 2 * t * (1 - t) * middle + t**2 * line[1]
    return curve


def _bundled(drawn: Drawing, straight: list[Path]) -> list[Path]:
    """Lines that run together where they run alike, positive and negative weights apart, by datashader.

    Straight where dask or scikit-image, which that needs, are not installed (extra `[bundles]`).
    """
    if not (find_spec("dask") and find_spec("skimage")):
        return straight
    found = list(straight)
    for sign in (1, -1):
        own = [i for i, edge in enumerate(drawn.edges) if edge.weight * sign > 0]
        for i, path in zip(own, _together([straight[i] for i in own]), strict=True):
            found[i] = path
    return found


def _together(straight: list[Path]) -> list[Path]:
    from datashader.bundling import hammer_bundle
    from pandas import DataFrame

    if len(straight) < 2:
        return straight
    ends = np.concatenate(straight)
    nodes = DataFrame(ends, columns=["x", "y"])
    at = np.arange(len(straight))
    edges = DataFrame({"edge_id": at, "source": 2 * at, "target": 2 * at + 1})
    rows = hammer_bundle(nodes, edges, use_dask=False, include_edge_id=True, iterations=4, accuracy=250)
    lines = {int(i): own[["x", "y"]].to_numpy() for i, own in rows.dropna().groupby("edge_id")}
    return [_from_end_to_end(lines.get(i), line) for i, line in enumerate(straight)]


def _from_end_to_end(bundled: Path | None, straight: Path) -> Path:
    """A bundled line with the ends of its straight one, which resampling leaves a little off."""
    if bundled is None or not len(bundled):
        return straight
    forward = abs(bundled[0] - straight[0]).sum() <= abs(bundled[-1] - straight[0]).sum()
    return np.concatenate([straight[:1], bundled if forward else bundled[::-1], straight[1:]])
