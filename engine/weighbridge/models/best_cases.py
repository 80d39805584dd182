"""The best case between two units of a ReLU network: how strong a weight the gates between them can make.

Three figures enclose it. An interval bound lies above what any state of the gates gives; some states no input brings
about, so what inputs reach lies below that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

from weighbridge.errors import BadArgument, NotLinear
from weighbridge.models.algebras import Factor, Intervals, Weighed
from weighbridge.models.expanded import index_of, place
from weighbridge.models.layers import INPUT
from weighbridge.models.rules import RULES, Rules, Site
from weighbridge.models.section import Section, Shape, feed

Masks = dict[tuple[str, ...], jax.Array]
Bits = npt.NDArray[np.bool_]

_AT_ONCE = 256
_PACE = 0.1
"""Step of the search over inputs, in standard deviations of the examples."""


@dataclass(frozen=True)
class BestCase:
    """The greatest weight from one unit to another, `bound` >= `over_gates` >= `reached` up to rounding.

    `over_gates` is the greatest over states of the `gates` that lie on a path, all of them where `exhaustive`, else the
    best that a search met, which then may be below `reached`. `reached` is the weight at `example`, an input. `mean`
    is the expanded weight, with all gates open.
    """

    bound: float
    over_gates: float
    reached: float
    mean: float
    gates: int
    exhaustive: bool
    example: npt.NDArray[Any]


def best_case(
    model: Callable[..., Any],
    examples: Any,
    *,
    target: tuple[str, int | tuple[int, ...]],
    source: tuple[str, int | tuple[int, ...]] = (INPUT, 0),
    rules: Rules = RULES,
    patterns: int = 2**16,
    steps: int = 64,
    key: int = 0,
) -> BestCase:
    """The greatest weight from a source unit to a target unit over the states of the gates between them.

    For networks of linear layers and ReLUs (or leaky ones). `bound`: intervals of the derivative, carried forward;
    exact where a single layer of gates lies between. `over_gates`: all states where there are at most `patterns`, else
    ascent by single gates from several starts. `reached`: by a search that begins at the `examples` [examples, ...],
    moves `steps` times towards the best state of the gates, with some noise, and keeps the best weight it meets.
    A unit is a channel, in the middle of its map (the source's in the middle of the kernel), or a full index.

    Raises `NotLinear` for what is neither linear nor a ReLU, max pooling included, and for gates in loops;
    `BadArgument` for units that are not there.
    """
    at = jnp.asarray(examples)
    if not at.size:
        raise BadArgument("best_case: there are no examples to search from")
    pair = _pair(model, at, source, target, rules)
    bits, over_gates = _best_bits(pair, patterns, key)
    reached, example = _search(pair, at, bits, steps, key)
    return BestCase(
        bound=pair.bound(),
        over_gates=over_gates,
        reached=reached,
        mean=float(pair.weight(jnp.ones(pair.count))),
        gates=pair.count,
        exhaustive=2**pair.count <= patterns,
        example=example,
    )


class _Pair:
    """Two units and the gates on the paths between them."""

    def __init__(self, section: Section, source: Shape, target: Shape) -> None:
        self.section, self.source, self.target = section, source, target
        shape, _ = section.shapes()
        self.zero = jnp.zeros(shape, section.fed.dtype)
        self.seed = self.zero.at[(0, *source)].set(1)
        self.gates = self._gates()
        self.count = sum(len(places) for places in self.gates.values())

    def bound(self) -> float:
        """Upper end of the interval of the weight."""
        centre, radius = self.section.linear((self.seed, self.zero), algebra=Intervals())
        return float((centre + radius)[(0, *self.target)])

    def weight(self, bits: jax.Array) -> jax.Array:
        """The weight with the gates on paths as `bits` [gates] says, linear in each of them."""
        keep = self._keep(bits)
        _, moved = jax.jvp(lambda e: self.section.linear(e, keep=keep), (self.zero,), (self.seed,))
        found: jax.Array = moved[(0, *self.target)]
        return found

    def inputs_of_gates(self, x: jax.Array) -> jax.Array:
        """What the gates on paths see [examples, gates] when the model is fed x."""
        seen: dict[tuple[str, ...], jax.Array] = {}

        def keep(site: Site) -> float:
            seen[site.path] = site.references()[0]
            return 1.0

        section = replace(self.section, fed=x)
        section.linear(jnp.zeros((len(x), *self.zero.shape[1:]), x.dtype), keep=keep)
        parts = [seen[path].reshape(len(x), -1)[:, places] for path, places in self.gates.items()]
        return jnp.concatenate(parts, axis=1) if parts else jnp.zeros((len(x), 0))

    def weights_at(self, x: jax.Array) -> jax.Array:
        """The weight [examples] at inputs, from the model itself."""
        section = replace(self.section, fed=x)
        zero = jnp.zeros((len(x), *self.zero.shape[1:]), x.dtype)
        seeds = zero.at[(slice(None), *self.source)].set(1)
        _, moved = jax.jvp(section.exact, (zero,), (seeds,))
        found: jax.Array = moved[(slice(None), *self.target)]
        return found

    def _keep(self, bits: jax.Array) -> Callable[[Site], Factor]:
        starts = np.cumsum([0, *(len(places) for places in self.gates.values())])
        begin = dict(zip(self.gates, starts, strict=False))

        def keep(site: Site) -> Factor:
            if site.path not in self.gates:
                return 1.0
            places = self.gates[site.path]
            own = bits[begin[site.path] : begin[site.path] + len(places)]
            return jnp.ones(int(np.prod(site.shape))).at[places].set(own).reshape(site.shape)

        return keep

    def _gates(self) -> dict[tuple[str, ...], npt.NDArray[np.int_]]:
        """For each layer of gates the places, in its flat input, that lie on a path: its weight feels them."""
        masks: Masks = {}

        def keep(site: Site) -> Factor:
            if any(name.startswith(("scan[", "cond[")) for name in site.path):
                raise NotLinear(f"{site.where}: a gate within a loop has many states; unroll the loop")
            masks[site.path] = jnp.ones(site.shape)
            return 1.0

        def paths(masks: Masks) -> jax.Array:
            end = self.section.linear(self.seed, algebra=Weighed(jnp.abs), keep=lambda site: masks[site.path])
            found: jax.Array = end[(0, *self.target)]
            return found

        self.section.linear(self.seed, algebra=Weighed(jnp.abs), keep=keep)
        felt = jax.grad(paths)(masks)
        found = {path: np.flatnonzero(np.asarray(slope)) for path, slope in felt.items()}
        return {path: places for path, places in found.items() if len(places)}


def _pair(model: Callable[..., Any], at: jax.Array, source: Any, target: Any, rules: Rules) -> _Pair:
    (source_name, source_unit), (target_name, unit) = source, target
    section = Section(model, rules, 1.0, feed((1, *at.shape[1:]), None), source_name, target_name)
    kernel = place(section, unit, True)
    shape, _ = section.shapes()
    if isinstance(source_unit, int):
        centre = (o + n // 2 for o, n in zip(kernel.offset, kernel.shape, strict=True))
        source_unit = (*centre, source_unit)
    index_of(source_name, shape[1:-1], shape[-1], source_unit)
    return _Pair(section, source_unit, (*kernel.position, unit[-1] if isinstance(unit, tuple) else unit))


def _best_bits(pair: _Pair, patterns: int, key: int) -> tuple[Bits, float]:
    """The best state of the gates, of all or of those met in a search, and its weight."""
    if 2**pair.count <= patterns:
        states = (np.arange(2**pair.count)[:, None] >> np.arange(pair.count)) & 1
        weights = jax.jit(lambda s: lax.map(pair.weight, s, batch_size=_AT_ONCE))(jnp.asarray(states, jnp.float32))
        best = int(jnp.argmax(weights))
        return states[best].astype(bool), float(weights[best])
    rng = np.random.default_rng(key)
    starts = [np.ones(pair.count, bool), *(rng.random((8, pair.count)) < 0.5)]
    found = [_climbed(jax.jit(jax.value_and_grad(pair.weight)), start) for start in starts]
    return max(found, key=lambda pair: pair[1])


def _climbed(weight_and_slope: Callable[[jax.Array], tuple[jax.Array, jax.Array]], bits: Bits) -> tuple[Bits, float]:
    """Turns one gate at a time, the one that gains most, until none gains."""
    best, bits = -np.inf, bits.copy()
    while True:
        weight, slope = (np.asarray(a) for a in weight_and_slope(jnp.asarray(bits, jnp.float32)))
        if weight <= best:
            return bits, best
        best = float(weight)
        gain = np.where(bits, -slope, slope)
        turned = int(gain.argmax())
        if gain[turned] <= 0:
            return bits, best
        bits[turned] ^= True


def _search(pair: _Pair, at: jax.Array, bits: Bits, steps: int, key: int) -> tuple[float, npt.NDArray[Any]]:
    """The best weight met on the way from the examples towards a state of the gates, and the input it is met at."""
    signs, pace = jnp.where(jnp.asarray(bits), 1.0, -1.0), _PACE * jnp.maximum(at.std(), 1e-3)

    def wrong(x: jax.Array) -> jax.Array:
        return jnp.maximum(0, pace - pair.inputs_of_gates(x) * signs).sum()

    @jax.jit
    def step(x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        slope = jax.grad(wrong)(x)
        norms = jnp.sqrt((slope**2).mean(axis=tuple(range(1, x.ndim)), keepdims=True))
        noise = jax.random.normal(key, x.shape, x.dtype)
        moved = x - pace * slope / jnp.where(norms > 0, norms, 1) + pace * noise / 4
        return moved, pair.weights_at(moved)

    found = [_greatest(pair.weights_at(at), at)]
    for one in jax.random.split(jax.random.key(key), steps):
        at, weights = step(at, one)
        found.append(_greatest(weights, at))
    return max(found, key=lambda pair: pair[0])


def _greatest(weights: jax.Array, at: Sequence[Any] | jax.Array) -> tuple[float, npt.NDArray[Any]]:
    best = int(jnp.argmax(weights))
    return float(weights[best]), np.asarray(at[best])
