"""Influence: which units of a whole network the paths from its input to its output go through.

A path's weight is the product of the magnitudes of the linearised weights along it. One forward pass of magnitudes
gives every unit the weight of the paths that reach it, one backward pass that of the paths from it to the target.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from weighbridge.errors import BadArgument
from weighbridge.models.algebras import Weighed
from weighbridge.models.layers import INPUT, OUTPUT, find, layers, traced
from weighbridge.models.operands import Dependent, Operand
from weighbridge.models.rules import RULES, Keep, Rules, Site
from weighbridge.models.section import Shape, feed
from weighbridge.models.walk import Walk


class Influence(NamedTuple):
    """A unit's `share` of the weight of all paths, and the weight of the paths from it `to_target`.

    `layer` and `unit` name a channel; of a map the places are summed.
    """

    layer: str
    unit: int
    share: float
    to_target: float


def influence(
    model: Callable[..., Any],
    *,
    target: str | tuple[str, int] = OUTPUT,
    shape: Shape | None = None,
    at: Any = None,
    rules: Rules = RULES,
    keep: Keep = 1.0,
) -> list[Influence]:
    """Every unit before the target by its share of the weight of all paths from the input, greatest first.

    With W the matrices of a plain network of layers 1..L, unit u of layer l has the share
    `(|W_l|...|W_1| 1)_u · (1 |W_L|...|W_l+1|)_u / (1 |W_L|...|W_1| 1)`, so that the shares of a layer which all paths
    cross sum to 1; those of a branch beside a residual stream to less. Gates, pooling, norms and what must be frozen
    are as in `linearize`; a norm's centring adds the path through the mean. `target` is a layer, or a layer and a
    channel; names, `shape` and `at` as in `expanded_weights`. Layers are channels-last; those in loops are left out.
    Ties keep the order of the network. NaN where no path leads to the target.

    Raises `BadArgument` for a target that is not there, or so far that the sum over paths overflows; `NotLinear` as
    `linearize` does.
    """
    name, unit = target if isinstance(target, tuple) else (target, None)
    paths = _Paths(
        model, Walk(rules, keep, Weighed(jnp.abs), has_reference=at is not None), feed(shape, at), name, unit
    )
    rows = [row for layer in paths.names for row in paths.units(layer)]
    return sorted(rows, key=lambda row: -row.share)


@dataclass(frozen=True)
class _Total:
    """What a walk with a change at every layer gives: the target's sum, and each layer's values."""

    model: Callable[..., Any]
    walk: Walk
    fed: Any
    target: str
    unit: int | None

    def __call__(self, x: jax.Array, changes: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        seen: dict[str, jax.Array] = {}

        def hook(name: str, operand: Operand, site: Site) -> Operand:
            if name not in changes or not isinstance(operand, Dependent):
                return operand
            seen[name] = operand.value + changes[name]
            return Dependent(seen[name], operand.reference)

        walk = Walk(self.walk.rules, self.walk.keep, self.walk.algebra, hook, self.walk.has_reference)
        reference = None if isinstance(self.fed, jax.ShapeDtypeStruct) else self.fed
        walk.run(traced(self.model, self.fed, until=self.target), [Dependent(x, reference)])
        end = seen[self.target]
        return (end if self.unit is None else end[..., self.unit]).sum(), seen


class _Paths:
    """Weights of the paths to and from every unit."""

    def __init__(self, model: Callable[..., Any], walk: Walk, fed: Any, target: str, unit: int | None) -> None:
        shapes = _until(layers(model, fed, until=target), target)
        find(model, fed, *shapes, until=target)
        if target not in shapes or (unit is not None and not 0 <= unit < shapes[target][-1]):
            raise BadArgument(f"no target '{target}', unit {unit}; there are {', '.join(shapes)}")
        total = _Total(model, walk, fed, target, unit)
        zeros = {name: jnp.zeros(shape, fed.dtype) for name, shape in shapes.items() if name != INPUT}
        origin = jnp.zeros(fed.shape, fed.dtype)

        def from_ones(changes: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
            moved: tuple[jax.Array, dict[str, jax.Array]]
            _, moved = jax.jvp(total, (origin, zeros), (jnp.ones_like(origin), changes))
            return moved

        (self.whole, self.reaching), pull = jax.vjp(from_ones, zeros)
        if jnp.isinf(self.whole):
            raise BadArgument(
                f"influence: the paths to '{target}' weigh more than {fed.dtype} can hold; ask for a nearer target"
            )
        nothing = jax.tree.map(jnp.zeros_like, self.reaching)
        (self.leaving,) = pull((jnp.ones_like(self.whole), nothing))
        self.names = [name for name in self.reaching if name != target]

    def units(self, layer: str) -> list[Influence]:
        """The units of one layer."""
        reaching, leaving = self.reaching[layer], self.leaving[layer]
        axes = tuple(range(reaching.ndim - 1))
        with np.errstate(invalid="ignore"):
            shares = np.asarray((reaching * leaving).sum(axis=axes)) / np.asarray(self.whole)
        return [
            Influence(layer, unit, float(share), float(weight))
            for unit, (share, weight) in enumerate(zip(shares, np.asarray(leaving.sum(axis=axes)), strict=True))
        ]


def _until(shapes: dict[str, Shape], target: str) -> dict[str, Shape]:
    """The layers up to a target, where it is there."""
    names = [*shapes]
    return {name: shapes[name] for name in names[: names.index(target) + 1]} if target in shapes else shapes
