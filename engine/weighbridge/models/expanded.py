"""Expanded weights: the linear map from one layer to a unit of another, whatever layers lie between.

They are the gradient through the linearised network, so nobody needs to know how weights are stored: bottlenecks,
residual streams and separable convolutions are jumped over, and from a convolution comes its full spatial kernel.

Source: Voss et al. 2021, "Visualizing Weights", Distill, doi:10.23915/distill.00024.007, "Expanded Weights".
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.models.algebras import Weighed
from weighbridge.models.layers import INPUT
from weighbridge.models.rules import RULES, Keep, Rules
from weighbridge.models.section import Section, Shape, feed

FloatArray = npt.NDArray[np.floating[Any]]
Unit = int | tuple[int, ...] | None
"""A channel, in the middle of the map; a place and channel, an index into the layer without its batch; all channels."""

DOUBLINGS = 4
"""How often the input is doubled in size to take a kernel that a border cuts."""


@dataclass(frozen=True)
class Kernel:
    """Where a kernel lies: its corner in the source's map, and how far it moves as the target moves by one.

    `position` is the target's place, `offset` [axes] the first source place the kernel covers and `shape` its extent,
    `stride` in source places for each target place. `cut` says that the kernel reaches the map's border, where some of
    it may be missing.
    """

    position: Shape
    offset: Shape
    shape: Shape
    stride: Shape
    cut: bool


@dataclass(frozen=True)
class ExpandedWeights:
    """`values` [*kernel, source channels], with all units asked for [target channels, *kernel, source channels]."""

    values: FloatArray
    source: str
    target: str
    unit: Unit
    kernel: Kernel


def expanded_weights(
    model: Callable[..., Any],
    *,
    target: str | tuple[str, Unit],
    source: str = INPUT,
    shape: Shape | None = None,
    at: Any = None,
    rules: Rules = RULES,
    keep: Keep = 1.0,
    batched: bool = True,
) -> ExpandedWeights:
    """The weights from a layer to a unit of a later one through all paths between, the network made linear.

    Equivalent to `d target[unit] / d source` of `linearize(model, rules=rules, keep=keep, at=at).affine`; what bypasses
    the source does not count. `model` and the names of its layers are as in `models.layers`; "input" and "output" are
    layers too. Layers are channels-last, [batch, *map, channels], without the batch where `batched` is false. The unit
    of a map is taken in its middle and the kernel cropped to where paths lead, zero weights included; where a border
    could cut it, the input is doubled in size up to `DOUBLINGS` times. Give `shape`, an input's, or where something
    must be frozen at a reference the input `at` itself, which keeps its size. In the dtype of the network.

    Raises `BadArgument` for a layer or unit that is not there, and where no path leads from the one to the other;
    `NotLinear` as `linearize` does.
    """
    name, unit = target if isinstance(target, tuple) else (target, None)
    section = Section(model, rules, keep, feed(shape, at), source, name)
    section, kernel = _uncut(section, unit, batched)
    rows = Rows(section, kernel.position, batched)
    values = rows.of(unit)[(slice(None), *within(kernel))]
    return ExpandedWeights(np.asarray(values if unit is None else values[0]), source, name, unit, kernel)


class Rows:
    """Rows of the linear map between two layers, for units at one place of the target."""

    def __init__(self, section: Section, position: Shape, batched: bool, *, structure: bool = False) -> None:
        self.source, self.target = section.shapes()
        self.position, self.batched = position, batched
        algebra = Weighed(jnp.ones_like) if structure else None
        start = jnp.zeros(self.source, section.fed.dtype)
        target, self.pull = jax.vjp(lambda e: section.linear(e, algebra=algebra), start)
        self.dtype = target.dtype

    def of(self, unit: Unit) -> jax.Array:
        """Gradients [units, *map, source channels] of one channel, or of all."""
        every = jnp.eye(self.target[-1], dtype=self.dtype)
        rows: jax.Array = jax.vmap(self.weighted)(every if unit is None else every[_channel(unit)][None])
        return rows

    def weighted(self, weights: jax.Array) -> jax.Array:
        """The gradient [*map, source channels] of a weighted sum of the channels."""
        first = (0,) if self.batched else ()
        (found,) = self.pull(jnp.zeros(self.target, self.dtype).at[(*first, *self.position)].set(weights))
        gradient: jax.Array = found[0] if self.batched else found
        return gradient


def place(section: Section, unit: Unit, batched: bool) -> Kernel:
    """Where the kernel of a unit lies. Raises `BadArgument` where no path leads to it."""
    source, target = section.shapes()
    places, maps = source[batched:-1], target[batched:-1]
    position = index_of(section.target, maps, target[-1], unit)
    reached = _reached(section, position, unit, batched)
    if not reached.any():
        raise BadArgument(f"no path leads from '{section.source}' to '{section.target}'")
    if not places or len(places) != len(maps):
        return whole(section, unit, batched)
    low, high = _box(reached)
    step = tuple(1 if at + 1 < n else -1 for at, n in zip(position, maps, strict=True))
    moved = tuple(at + by if n > 1 else at for at, by, n in zip(position, step, maps, strict=True))
    stride = _moved((low, high), _box(_reached(section, moved, unit, batched)))
    cut = bool((low == 0).any() or (high == places).any())
    return Kernel(position, _ints(low), _ints(high - low), stride, cut)


def whole(section: Section, unit: Unit, batched: bool) -> Kernel:
    """The source's whole map, as the kernel of a unit."""
    source, target = section.shapes()
    places, nowhere = source[batched:-1], (0,) * len(source[batched:-1])
    return Kernel(index_of(section.target, target[batched:-1], target[-1], unit), nowhere, places, nowhere, False)


def _uncut(section: Section, unit: Unit, batched: bool) -> tuple[Section, Kernel]:
    """The network on an input so large that no border cuts the kernel, where it takes one, and that kernel."""
    kernel = first = place(section, unit, batched)
    larger = section
    for _ in range(DOUBLINGS if isinstance(unit, int | None) and not section.has_reference else 0):
        if not kernel.cut:
            return larger, kernel
        larger = replace(larger, fed=_doubled(larger.fed, batched))
        try:
            kernel = place(larger, unit, batched)
        except Exception:  # a model may refuse another size with any error, and then has but one
            break
    return (section, first) if kernel.cut else (larger, kernel)


def _doubled(fed: Any, batched: bool) -> Any:
    batch, places, channels = fed.shape[:batched], fed.shape[batched:-1], fed.shape[-1:]
    return feed((*batch, *(2 * n for n in places), *channels), None)


def index_of(name: str, maps: Shape, channels: int, unit: Unit) -> Shape:
    """The place of a unit in a layer's map. Raises `BadArgument` for one that is not there."""
    index = unit if isinstance(unit, tuple) else (*(n // 2 for n in maps), unit or 0)
    sizes = (*maps, channels)
    if len(index) != len(sizes) or any(not 0 <= i < n for i, n in zip(index, sizes, strict=True)):
        raise BadArgument(f"layer '{name}' has no unit {unit}; its shape without the batch is {list(sizes)}")
    return index[:-1]


def _channel(unit: Unit) -> int:
    return unit[-1] if isinstance(unit, tuple) else int(unit or 0)


def _reached(section: Section, position: Shape, unit: Unit, batched: bool) -> npt.NDArray[np.bool_]:
    """Which places of the source a unit of the target, or any at that place, depends on, were no weight zero."""
    rows = Rows(section, position, batched, structure=True)
    channels = jnp.arange(rows.target[-1])
    counts = rows.weighted(jnp.ones_like(channels) if unit is None else channels == _channel(unit))
    return np.asarray((counts != 0).any(axis=-1))


def _box(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]:
    where = np.argwhere(mask)
    return where.min(axis=0), where.max(axis=0) + 1


def _moved(box: Any, other: Any) -> Shape:
    """How far one box lies from another, read off whichever of their sides no border holds back."""
    sides = np.abs(np.asarray(other) - np.asarray(box))
    return _ints(sides.max(axis=0))


def within(kernel: Kernel) -> tuple[slice, ...]:
    """The part of a map that a kernel covers."""
    return tuple(slice(o, o + n) for o, n in zip(kernel.offset, kernel.shape, strict=True))


def _ints(array: npt.NDArray[np.int_]) -> Shape:
    return tuple(int(n) for n in array)
