"""Which weights make a channel or a head, so that these can be summed over and removed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.roles import assign, layer_of

Kind = Literal["channel", "head"]
_HEADED = ("attention_q", "attention_k", "attention_v", "attention_o")
IntArray = npt.NDArray[np.int32]


class Member(NamedTuple):
    """A tensor whose entries along an axis belong to units: `units[i]` is the unit of index i."""

    tensor: int
    axis: int
    units: IntArray


@dataclass(frozen=True, eq=False)
class Family:
    """The units of one layer, numbered from `first` on over all families of a network."""

    name: str
    kind: Kind
    first: int
    count: int
    members: tuple[Member, ...]

    @property
    def slice(self) -> slice:
        return slice(self.first, self.first + self.count)


@dataclass(frozen=True, eq=False)
class Parts:
    """What sums are taken of: tensors, layers (by the numbers of their tensors) and units, and units to remove."""

    tensors: int
    layers: dict[str, list[int]]
    families: tuple[Family, ...]
    removed: tuple[int, ...]

    @property
    def units(self) -> int:
        return self.families[-1].slice.stop if self.families else 0

    @property
    def sums(self) -> int:
        """How many sums there are; those of units come last."""
        return self.tensors + len(self.layers) + self.units

    def sum(self, values: Sequence[Any]) -> Any:
        """The sums of tensors' entries by tensor, layer and unit, one after another."""
        tensors = jnp.stack([value.sum() for value in values])
        layers = jnp.stack([tensors[jnp.asarray(held)].sum() for held in self.layers.values()])
        return jnp.concatenate([tensors, layers, unit_sums(self.families, values)])


def parts_of(
    names: Sequence[str],
    shapes: Sequence[tuple[int, ...]],
    *,
    layers: Mapping[str, Sequence[str]],
    heads: Mapping[str, int],
    channel_axis: int,
    leave_one_out: Sequence[str] | None,
) -> Parts:
    """The parts of a network; `leave_one_out` are the layers whose units are removed, None for all.

    Raises `BadArgument` for layers, tensors and heads that are not there.
    """
    found = families(names, shapes, layers=layers, heads=heads, channel_axis=channel_axis)
    by_name = {family.name: family for family in found}
    for layer in leave_one_out or ():
        if layer not in by_name:
            raise BadArgument(f"leave_one_out: no layer {layer!r} in the network; there is: {', '.join(by_name)}")
    chosen = found if leave_one_out is None else [by_name[layer] for layer in dict.fromkeys(leave_one_out)]
    units = [unit for family in chosen for unit in range(family.slice.start, family.slice.stop)]
    return Parts(len(names), layer_tensors(names, layers), tuple(found), tuple(units))


def families(
    names: Sequence[str],
    shapes: Sequence[tuple[int, ...]],
    *,
    layers: Mapping[str, Sequence[str]],
    heads: Mapping[str, int],
    channel_axis: int,
) -> list[Family]:
    """The layers' channels and the attention blocks' heads, in the order of the tensors.

    Tensors of a layer whose extent along the channels' axis is that of its largest tensor share its channels: kernel
    and bias. Raises `BadArgument` for layers and heads that are not there.
    """
    grouped = layer_tensors(names, layers)
    blocks = _blocks(names, shapes)
    for name in heads:
        if name not in blocks:
            known = ", ".join(blocks) or "none"
            raise BadArgument(f"heads: no attention {name!r} in the network; there is: {known}")
    found: list[Family] = []
    headed: set[int] = set()
    for name, roles in blocks.items():
        made = _heads(name, roles, names, shapes, heads.get(name), channel_axis, _next(found))
        if made is not None:
            found.append(made)
            headed |= {member.tensor for member in made.members}
    for layer, held in grouped.items():
        own = [i for i in held if i not in headed]
        if own:
            found.append(_channels(layer, own, shapes, channel_axis, _next(found)))
    return found


def layer_tensors(names: Sequence[str], layers: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """The tensors of each layer: as `layers` says, the others by their names. Raises `BadArgument`."""
    told: dict[str, str] = {}
    for layer, tensors in layers.items():
        for tensor in tensors:
            if tensor not in names:
                raise BadArgument(f"layers: no tensor {tensor!r} for {layer!r}; there is: {', '.join(names)}")
            told[tensor] = layer
    found: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        found.setdefault(told.get(name, layer_of(name)), []).append(i)
    return found


def _next(found: list[Family]) -> int:
    return found[-1].slice.stop if found else 0


def _channels(layer: str, held: list[int], shapes: Sequence[tuple[int, ...]], axis: int, first: int) -> Family:
    largest = max(held, key=lambda i: (len(shapes[i]), -i))
    extent = _extent(shapes[largest], axis)
    members = tuple(
        Member(i, _axis(shapes[i], axis), np.arange(first, first + extent, dtype=np.int32))
        for i in held
        if _extent(shapes[i], axis) == extent
    )
    return Family(layer, "channel", first, extent, members)


def _axis(shape: tuple[int, ...], axis: int) -> int:
    """The channels' axis of a tensor; that of a vector is its only one."""
    return axis % len(shape) if -len(shape) <= axis < len(shape) else 0


def _extent(shape: tuple[int, ...], axis: int) -> int:
    return shape[_axis(shape, axis)] if shape else 1


def _blocks(names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> dict[str, dict[str, str]]:
    """By the name of each attention: the layers of its query, key, value and output, with their roles."""
    found: dict[str, dict[str, str]] = {}
    for name, shape in zip(names, shapes, strict=True):
        role, _ = assign(name, shape, "F32", names)
        if role in _HEADED and len(shape) > 1:
            layer = layer_of(name)
            found.setdefault(layer.rpartition(".")[0] or layer, {})[layer] = role
    return found


def _heads(
    block: str,
    roles: dict[str, str],
    names: Sequence[str],
    shapes: Sequence[tuple[int, ...]],
    count: int | None,
    channel_axis: int,
    first: int,
) -> Family | None:
    """The heads of an attention: flax's tensors have an axis of them, of others `count` says how many there are.

    Keys and values of fewer heads than the queries are shared by several (grouped queries), and belong to none.
    """
    found = []
    for i, name in enumerate(names):
        role = roles.get(layer_of(name))
        place = None if role is None else _head_axis(role, shapes[i], bias=_is_bias(name), channel_axis=channel_axis)
        if place is not None:
            found.append(_Headed(i, place[0], place[1], shapes[i][place[0]], role in ("attention_k", "attention_v")))
    extents = {of.own: of.extent for of in found if not of.keys}
    found = [of for of in found if not of.keys or of.extent == extents.get(of.own, of.extent)]
    count = count if count is not None else next((of.extent for of in found if of.own), None)
    if not found or count is None:
        return None
    for i, axis, own, extent, _ in found:
        if (own and extent != count) or count < 1 or extent % count:
            raise BadArgument(
                f"heads: {block!r} cannot have {count} heads; {names[i]!r} has {extent} along axis {axis}"
            )
    members = (
        Member(i, axis, np.repeat(np.arange(first, first + count, dtype=np.int32), extent // count))
        for i, axis, _, extent, _ in found
    )
    return Family(block, "head", first, count, tuple(members))


class _Headed(NamedTuple):
    """A tensor with heads along an axis, which may be theirs alone; `keys` says that it holds keys or values."""

    tensor: int
    axis: int
    own: bool
    extent: int
    keys: bool


def _is_bias(name: str) -> bool:
    return name.rpartition(".")[2] == "bias"


def _head_axis(role: str, shape: tuple[int, ...], *, bias: bool, channel_axis: int) -> tuple[int, bool] | None:
    """The axis along which a tensor's heads lie, and whether it is theirs alone; the output's bias has none."""
    if role == "attention_o" and bias:
        return None
    if bias:
        return 0, len(shape) == 2
    if len(shape) == 3:
        return (0 if role == "attention_o" else 1), True
    if len(shape) != 2:
        return None
    return (1 - channel_axis % 2 if role == "attention_o" else channel_axis % 2), False


def unit_sums(families_: Sequence[Family], values: Sequence[Any]) -> Any:
    """Sums of tensors' entries by unit: (units,), float; of a unit whose tensors are not there 0."""
    parts = []
    for family in families_:
        total = jnp.zeros(family.count, values[0].dtype)
        for tensor, axis, units in family.members:
            along = values[tensor].sum(axis=tuple(i for i in range(values[tensor].ndim) if i != axis))
            total = total + jax.ops.segment_sum(jnp.atleast_1d(along), units - family.first, family.count)
        parts.append(total)
    return jnp.concatenate(parts) if parts else jnp.zeros(0)


def removed(families_: Sequence[Family], weights: Sequence[Any], unit: Any) -> list[Any]:
    """The weights with those of a unit set to zero; unit -1 is none."""
    found = list(weights)
    for family in families_:
        for tensor, axis, units in family.members:
            spread = [-1 if i == axis else 1 for i in range(found[tensor].ndim)]
            keep = jnp.asarray(units != unit).reshape(spread) if spread else jnp.asarray(units != unit)[0]
            found[tensor] = jnp.where(keep, found[tensor], jnp.zeros((), found[tensor].dtype))
    return found
