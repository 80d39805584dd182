"""A circuit: a unit of a network with what it is built from, as analyses find it and views draw it."""

from dataclasses import dataclass
from typing import NamedTuple


class Unit(NamedTuple):
    """A unit of a layer: a neuron, a channel, a token."""

    layer: str
    number: int


class Edge(NamedTuple):
    """The weights from one unit to another: their L2 norm, with the sign of their sum."""

    source: Unit
    target: Unit
    weight: float


@dataclass(frozen=True)
class Circuit:
    """A unit and what it is built from, its strongest inputs, theirs and so on.

    `layers` are in the order of the network; `labels` name units, those that have a name.
    """

    unit: Unit
    layers: tuple[str, ...]
    edges: tuple[Edge, ...]
    labels: dict[Unit, str]

    @property
    def units(self) -> tuple[Unit, ...]:
        """All units, each once, in the order of the layers and by index."""
        known = {self.unit, *(unit for edge in self.edges for unit in (edge.source, edge.target))}
        return tuple(sorted(known, key=lambda unit: (self.layers.index(unit.layer), unit.number)))

    def openers(self) -> dict[Edge, tuple[Unit, Unit]]:
        """Of each edge the end by which it came to the circuit, nearer to the circuit's unit, and the other."""
        far, front, step = {self.unit: 0}, {self.unit}, 0
        while front:
            step += 1
            reached = {end for edge in self.edges if {edge.source, edge.target} & front for end in edge[:2]}
            front = reached - far.keys()
            far |= dict.fromkeys(front, step)
        return {
            edge: (edge.target, edge.source)
            if far.get(edge.target, step) <= far.get(edge.source, step)
            else (edge.source, edge.target)
            for edge in self.edges
        }

    def inputs(self, unit: Unit) -> list[Edge]:
        """What a unit is built from, the strongest first."""
        return sorted((edge for edge in self.edges if edge.target == unit), key=lambda edge: -abs(edge.weight))

    def label(self, unit: Unit) -> str:
        """What a unit is called."""
        return self.labels.get(unit, str(unit.number))
