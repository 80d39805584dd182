"""A circuit: a unit of a network with what it is built from, as analyses find it and views draw it."""

from dataclasses import dataclass
from typing import NamedTuple


class Unit(NamedTuple):
    """A unit of a layer: a neuron, a channel, a token."""

    layer: str
    number: int


@dataclass(frozen=True)
class Edge:
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

    def inputs(self, unit: Unit) -> list[Edge]:
        """What a unit is built from, the strongest first."""
        return sorted((edge for edge in self.edges if edge.target == unit), key=lambda edge: -abs(edge.weight))

    def label(self, unit: Unit) -> str:
        """What a unit is called."""
        return self.labels.get(unit, str(unit.number))
