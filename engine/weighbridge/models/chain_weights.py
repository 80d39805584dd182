"""Expanded weights from a checkpoint alone: through a chain of its tensors that the caller names."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from weighbridge import checkpoints
from weighbridge.checkpoints.protocol import Checkpoint, Tensor
from weighbridge.errors import BadArgument
from weighbridge.matrix import matrix_view
from weighbridge.models.expanded import ExpandedWeights, expanded_weights
from weighbridge.models.layers import OUTPUT
from weighbridge.roles import assign

Padding = int | str
_PADDINGS = ("same", "valid")


def chain_weights(
    source: Any,
    chain: Sequence[str],
    unit: int | None = None,
    *,
    strides: int | Sequence[int] = 1,
    paddings: Padding | Sequence[Padding] = "same",
    keep: float = 1.0,
) -> ExpandedWeights:
    """The weights from the inputs of a chain's first tensor to a unit of its last, all between them made linear.

    `chain` names convolutions, or matrices, of a checkpoint in the order of the network, each of which reads what the
    one before gives; where that gives several times a kernel's inputs, the convolution is grouped. A checkpoint says
    nothing of `strides` and `paddings` (pixels, "same" or "valid"): one for all, or one a tensor. Between tensors a
    gate lets the share `keep` through. Biases, norms and pooling are none of the chain's. `values` [*kernel, inputs],
    with `unit` None [outputs, *kernel, inputs], float32: see `expanded_weights`.

    Raises `TensorNotFound`, `BadArgument` for tensors that do not follow one another, and for a unit that is not there.
    """
    checkpoint = checkpoints.open(source)
    stages = _stages(checkpoint, list(chain), strides, paddings)
    first, last = chain[0], chain[-1]
    if unit is not None and not 0 <= unit < stages[-1].kernel.shape[-1]:
        raise BadArgument(f"{last}: no unit {unit}; expected 0 to {stages[-1].kernel.shape[-1] - 1}")
    shape = (1, *_sides(stages), _inputs(stages))
    found = expanded_weights(partial(_carried_out, stages), target=(OUTPUT, unit), shape=shape, keep=keep)
    return replace(found, source=f"inputs of {first}", target=last)


class _Stage(NamedTuple):
    """A kernel [*space, in, out], how far it moves, and what is added about its map."""

    name: str
    kernel: jax.Array
    stride: int
    padding: Padding

    @property
    def axes(self) -> int:
        return self.kernel.ndim - 2


def _stages(
    checkpoint: Checkpoint, chain: list[str], strides: int | Sequence[int], paddings: Padding | Sequence[Padding]
) -> list[_Stage]:
    if not chain:
        raise BadArgument("the chain is empty; expected names of tensors")
    kernels = [_kernel(checkpoint, checkpoint[name]) for name in chain]
    moves, added = _each("strides", strides, len(chain)), _each("paddings", paddings, len(chain))
    for stride, padding in zip(moves, added, strict=True):
        if not isinstance(stride, int) or stride < 1:
            raise BadArgument(f"stride {stride!r}; expected 1 or more")
        if padding not in _PADDINGS and not (isinstance(padding, int) and padding >= 0):
            raise BadArgument(f"padding {padding!r}; expected a number of pixels, same or valid")
    stages = [_Stage(*stage) for stage in zip(chain, map(jnp.asarray, kernels), moves, added, strict=True)]
    for before, stage in pairwise(stages):
        given, (reads, outputs) = before.kernel.shape[-1], stage.kernel.shape[-2:]
        groups = given // reads
        if before.axes != stage.axes or given % reads or outputs % groups or (groups > 1 and not stage.axes):
            raise BadArgument(
                f"{stage.name}: reads {reads} units of a map of {stage.axes} axes, {before.name} gives {given} of "
                f"{before.axes}; expected a chain in the order of the network"
            )
    return stages


def _each(what: str, given: Any, count: int) -> list[Any]:
    """One for each tensor."""
    found = [given] * count if isinstance(given, int | str) else list(given)
    if len(found) != count:
        raise BadArgument(f"{len(found)} {what} for a chain of {count} tensors; expected one, or one for each")
    return found


def _kernel(checkpoint: Checkpoint, tensor: Tensor) -> np.ndarray:
    """A tensor as [*space, in, out]."""
    view = matrix_view(tensor.name, tensor.shape, assign(tensor.name, tensor.shape, tensor.dtype.name, checkpoint).role)
    if tensor.dtype.kind != "float" or not (view.layout.endswith(("in_space", "in_out")) or len(tensor.shape) == 2):
        raise BadArgument(f"{tensor.name}: is no matrix or convolution; expected a chain of these")
    stored = tensor.read().astype(np.float32)
    if view.layout == "matrix":
        return stored if tensor.name.endswith("kernel") else stored.T
    places = view.places(stored)
    return np.swapaxes(places, -2, -1) if view.layout == "out_in_space" else places


def _inputs(stages: list[_Stage]) -> int:
    return int(stages[0].kernel.shape[-2])


def _sides(stages: list[_Stage]) -> tuple[int, ...]:
    """An input three times as wide as what a unit sees, so that no border cuts it."""
    sides = []
    for axis in range(stages[0].axes):
        reach, step = 1, 1
        for stage in stages:
            reach += (stage.kernel.shape[axis] - 1) * step
            step *= stage.stride
        sides.append(3 * reach + step)
    return tuple(sides)


def _carried_out(stages: list[_Stage], x: jax.Array) -> jax.Array:
    for i, stage in enumerate(stages):
        x = _applied(stage, jax.nn.relu(x) if i else x)
    return x


def _applied(stage: _Stage, x: jax.Array) -> jax.Array:
    if not stage.axes:
        return x @ stage.kernel
    axes = "DHW"[-stage.axes :]
    padding = stage.padding.upper() if isinstance(stage.padding, str) else [(stage.padding,) * 2] * stage.axes
    return lax.conv_general_dilated(
        x,
        stage.kernel,
        (stage.stride,) * stage.axes,
        padding,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        feature_group_count=x.shape[-1] // stage.kernel.shape[-2],
    )
