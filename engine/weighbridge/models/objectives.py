"""What an input is to excite: a unit, or a direction among units; at one place of the map, or all over it.

An objective is a pytree that is called with a network's activations for one image and gives a scalar. Its arrays have
a leading axis: one objective of many units makes as many images. A caller's own class serves as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

    Activations = Float[Array, "1 ..."] | Mapping[str, Float[Array, "1 ..."]]

Place = Literal["centre", "mean"] | tuple[int, int]
_LEAST_COSINE = 0.1
"""So that a direction that is far off still pulls, as in Lucid."""


class Objective(Protocol):
    """A scalar of the activations for one image; `check` raises `BadArgument` for a network it does not fit."""

    def __call__(self, activations: Any) -> Float[Array, ""]: ...

    def check(self, activations: Any) -> None: ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Units:
    """The activations of units, by their channels; `unit` makes it."""

    channels: Int[Array, " units"]
    layer: str | None = field(metadata={"static": True})
    place: Place = field(metadata={"static": True})

    def __call__(self, activations: Activations) -> Float[Array, ""]:
        return placed(activations, self.layer, self.place)[self.channels]

    def check(self, activations: Activations) -> None:
        count = placed_channels(activations, self.layer, self.place)
        wrong = [int(channel) for channel in np.asarray(self.channels) if not 0 <= channel < count]
        if wrong:
            raise BadArgument(f"unit {wrong[0]} of {_named(self.layer)}; it has {count}, give 0 to {count - 1}")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Directions:
    """The product of activations a and a vector v, times `max(0.1, cos(a, v)) ** cosine`; `direction` makes it."""

    vectors: Float[Array, "units channels"]
    layer: str | None = field(metadata={"static": True})
    place: Place = field(metadata={"static": True})
    cosine: int = field(metadata={"static": True})

    def __call__(self, activations: Activations) -> Float[Array, ""]:
        found = placed(activations, self.layer, self.place)
        product = jnp.vdot(found, self.vectors, precision=jax.lax.Precision.HIGHEST)
        if not self.cosine:
            return product
        norms = jnp.linalg.norm(found) * jnp.linalg.norm(self.vectors)
        return product * jnp.maximum(product / jnp.maximum(norms, 1e-12), _LEAST_COSINE) ** self.cosine

    def check(self, activations: Activations) -> None:
        count = placed_channels(activations, self.layer, self.place)
        if self.vectors.shape[-1] != count:
            raise BadArgument(
                f"directions of {self.vectors.shape[-1]} entries in {_named(self.layer)}; expected its {count} channels"
            )


def unit(channels: int | Sequence[int], *, layer: str | None = None, place: Place = "centre") -> Units:
    """To excite each of some units of a layer, in the middle of its map, at a (row, column), or in the mean over it."""
    return Units(jnp.atleast_1d(jnp.asarray(channels, jnp.int32)), layer, place)


def direction(
    vectors: npt.ArrayLike, *, layer: str | None = None, place: Place = "centre", cosine: int = 0
) -> Directions:
    """To excite each of some directions [units, channels] among a layer's units: say the `channels` of a weight factor.

    With `cosine` above 0 the direction itself counts, not only what is along it: without, the strongest of its units
    may stand for all. The power 4 is Activation Atlas's (Carter et al. 2019, doi:10.23915/distill.00015). Raises
    `BadArgument` for what is no vector or list of vectors, and for entries that are not finite.
    """
    found = np.atleast_2d(np.asarray(vectors, np.float32))
    if found.ndim != 2 or not np.isfinite(found).all() or cosine < 0:
        raise BadArgument(
            f"directions of shape {found.shape}, cosine {cosine}; expected finite ones [units, channels], 0 or more"
        )
    return Directions(jnp.asarray(found), layer, place, cosine)


def weights_at(
    kernel: npt.ArrayLike,
    unit: int,
    position: tuple[int, int],
    *,
    layer: str | None = None,
    place: Place = "centre",
    cosine: int = 0,
) -> Directions:
    """To excite what a unit looks for at a position (y, x) of its kernel [h, w, in, out]: `kernel[y, x, :, unit]`.

    `layer` is the one that the kernel reads. Raises `BadArgument` for a position or a unit that the kernel lacks.
    """
    whole = np.asarray(kernel)
    inside = whole.ndim == 4 and all(0 <= i < side for i, side in zip(position, whole.shape, strict=False))
    if not (inside and 0 <= unit < whole.shape[3]):
        raise BadArgument(f"unit {unit} at {position} of a kernel {whole.shape}; expected one in [h, w, in, out]")
    return direction(whole[*position, :, unit], layer=layer, place=place, cosine=cosine)


def placed(activations: Activations, layer: str | None, place: Place) -> Float[Array, " channels"]:
    """The activations of a layer's units at a place; of a layer without a map, the activations themselves."""
    found = _of_layer(activations, layer)[0]
    if place == "mean":
        return found.reshape(-1, found.shape[-1]).mean(axis=0)
    if place == "centre":
        return found[tuple(side // 2 for side in found.shape[:-1])]
    return found[place]


def placed_channels(activations: Activations, layer: str | None, place: Place) -> int:
    """How many units there are at a place. Raises `BadArgument` where there is no such layer or place."""
    sides: tuple[int, ...] = _of_layer(activations, layer).shape[1:-1]
    if not isinstance(place, str):
        fits = len(place) == len(sides) and all(0 <= i < side for i, side in zip(place, sides, strict=True))
        if not fits:
            raise BadArgument(f"place {place} of {_named(layer)}; expected centre, mean or one in its map of {sides}")
    return int(_of_layer(activations, layer).shape[-1])


def _of_layer(activations: Activations, layer: str | None) -> Float[Array, "1 ..."]:
    if not isinstance(activations, Mapping):
        if layer is not None:
            raise BadArgument(f"layer {layer!r}, but the network gives one array; leave the layer out")
        return activations
    if layer is None or layer not in activations:
        raise BadArgument(f"layer {layer!r}; expected one of {', '.join(activations)}")
    return activations[layer]


def _named(layer: str | None) -> str:
    return "the output" if layer is None else layer
