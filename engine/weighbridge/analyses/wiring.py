"""What is wired to what in a network: for any unit, the weights of all that it reads and of all that reads it."""

from collections.abc import Iterable, Mapping
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from weighbridge.circuit import Edge, Unit

Direction = Literal["upstream", "downstream"]
FloatArray = npt.NDArray[np.floating]
Weights = dict[str, FloatArray]
"""By layer one signed weight for each of its units."""


class Wiring(Protocol):
    """A network's layers, in order, and the weights between their units."""

    layers: tuple[str, ...]

    def check(self, unit: Unit) -> None:
        """Raises `BadArgument` for a unit that is not there."""
        ...

    def weights(self, units: list[Unit], direction: Direction) -> list[Weights]:
        """For each unit the weights to it, upstream, or from it, downstream."""
        ...

    def names(self, units: Iterable[Unit]) -> Mapping[Unit, str]:
        """What units are called, those that have a name."""
        ...


def opened(wiring: Wiring, units: list[Unit], direction: Direction, top: int) -> tuple[Edge, ...]:
    """The `top` strongest edges of each unit on one side, the strongest first; weights of zero are none."""
    found: list[Edge] = []
    for unit, weights in zip(units, wiring.weights(units, direction), strict=True):
        for other, weight in _strongest(weights, top):
            ends = (other, unit) if direction == "upstream" else (unit, other)
            found.append(Edge(*ends, weight))
    return tuple(found)


def _strongest(weights: Weights, top: int) -> list[tuple[Unit, float]]:
    """The units of the greatest magnitudes over all layers; of equal ones the first."""
    kept: list[tuple[Unit, float]] = []
    for layer, values in weights.items():
        sizes = np.abs(values)
        if top < len(sizes):
            least = np.partition(sizes, -top)[-top]
            sure, ties = np.flatnonzero(sizes > least), np.flatnonzero(sizes == least)
            chosen = np.concatenate([sure, ties[: top - len(sure)]])
        else:
            chosen = np.arange(len(sizes))
        kept += [(Unit(layer, int(i)), float(values[i])) for i in np.sort(chosen) if values[i]]
    return sorted(kept, key=lambda pair: -abs(pair[1]))[:top]
