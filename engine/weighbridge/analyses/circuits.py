"""`circuits`: what a unit is built from, by the strongest weights from layer to layer, from a checkpoint alone.

Without a run of the network a path of weights says what could matter, not what does: activations, biases and the scales
of norms are left out, except where a transformer's norms are folded in (`weighbridge.analyses.virtual_weights`).
"""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge import checkpoints
from weighbridge.analyses.matrix_rows import without_matrix
from weighbridge.analyses.transformer import Transformer, transformer
from weighbridge.analyses.virtual_weights import read_by_mlp
from weighbridge.checkpoints.protocol import Checkpoint, Tensor
from weighbridge.checkpoints.tokens import tokens
from weighbridge.circuit import Circuit, Edge, Unit
from weighbridge.errors import BadArgument
from weighbridge.matrix import matrix_view
from weighbridge.roles import assign

TOP, DEPTH = 6, 2
_INPUT, _TOKENS = "input", "tokens"
_MLP_UNIT = re.compile(r"mlp\.(\d+)\.(\d+)")
_TENSOR_UNIT = re.compile(r"(.+):(\d+)")

FloatArray = npt.NDArray[np.float64]


Inputs = Callable[[Unit], list[Edge]]
"""All edges into a unit."""


def circuits(
    source: Any, unit: str, *, chain: Sequence[str] | None = None, top: int = TOP, depth: int = DEPTH
) -> Circuit:
    """The circuit of a unit: its `top` strongest inputs, theirs, and so on for `depth` steps.

    `unit` is `tensor:index` for an output of a matrix or a convolution, whose inputs are the outputs of the tensor
    before it in `chain` (names in the order of the network; by default the tensors of the checkpoint that fit one
    another, in its order). A convolution's weights between two channels are summed up by their norm; a matrix that
    follows a flattened map has that many weights a channel. `mlp.layer.neuron` is a neuron of a pre-norm transformer
    (GPT-2, Llama): its inputs are the neurons of all earlier layers through the residual stream, and the tokens.

    Raises `TensorNotFound`, `BadArgument` for a unit that is not there or a chain that does not fit.
    """
    for name, value in (("top", top), ("depth", depth)):
        if value < 1:
            raise BadArgument(f"{name} is {value}; expected 1 or more")
    checkpoint = checkpoints.open(source)
    if (found := _MLP_UNIT.fullmatch(unit)) and unit not in checkpoint:
        return _of_neuron(checkpoint, int(found[1]), int(found[2]), top, depth)
    if not (named := _TENSOR_UNIT.fullmatch(unit)):
        raise BadArgument(f"unit {unit!r}; expected tensor:index, or mlp.layer.neuron of a transformer")
    return _of_output(checkpoint, named[1], int(named[2]), chain, top, depth)


def _of_output(
    checkpoint: Checkpoint, name: str, index: int, chain: Sequence[str] | None, top: int, depth: int
) -> Circuit:
    links = _links(checkpoint, name, chain)
    outputs = {link.tensor.name: link for link in links}
    before = {link.tensor.name: earlier for earlier, link in itertools.pairwise(links)}
    if index >= outputs[name].outputs:
        raise BadArgument(f"{name}: no unit {index}; expected 0 to {outputs[name].outputs - 1}")

    def inputs(unit: Unit) -> list[Edge]:
        link = outputs.get(unit.layer)
        if link is None:
            return []
        earlier = before.get(unit.layer)
        layer = earlier.tensor.name if earlier is not None else _INPUT
        weights = link.weights(unit.number, earlier.outputs if earlier is not None else link.inputs)
        return [Edge(Unit(layer, i), unit, float(w)) for i, w in enumerate(weights)]

    edges = _strongest(Unit(name, index), inputs, top, depth)
    return Circuit(Unit(name, index), (_INPUT, *(link.tensor.name for link in links)), edges, {})


@dataclass(frozen=True)
class Link:
    """A tensor as weights from input units to output units."""

    tensor: Tensor
    array: FloatArray

    @property
    def outputs(self) -> int:
        return int(self.array.shape[0])

    @property
    def inputs(self) -> int:
        return int(self.array.shape[1])

    def weights(self, output: int, units: int) -> FloatArray:
        """Signed norms of the weights from each of `units` before: of places of a kernel, or of a flattened map.

        A flattened map has its channels last where inputs come first in what is stored (flax), else first (PyTorch).
        """
        flat = self.array[output]
        if units != self.inputs:
            places = self.inputs // units
            last = _inputs_first(self.tensor)
            flat = flat.reshape(places, units, -1).swapaxes(0, 1) if last else flat.reshape(units, places, -1)
        flat = flat.reshape(units, -1)
        signed: FloatArray = np.where(flat.sum(axis=1) < 0, -1.0, 1.0) * np.linalg.norm(flat, axis=1)
        return signed


def _inputs_first(tensor: Tensor) -> bool:
    return tensor.name.endswith("kernel")


def _links(checkpoint: Checkpoint, name: str, chain: Sequence[str] | None) -> list[Link]:
    """The tensors up to one, each fitting the one before it."""
    if chain is not None:
        if name not in chain:
            raise BadArgument(f"{name}: is not in the chain {', '.join(chain)}")
        names = list(chain)[: list(chain).index(name) + 1]
    else:
        names = list(checkpoint)[: list(checkpoint).index(checkpoint[name].name) + 1]
    links: list[Link] = []
    for other in reversed(names):
        link = _link(checkpoint, checkpoint[other], required=chain is not None or other == name)
        if link is None:
            continue
        if not links or links[-1].inputs % link.outputs == 0:
            links.append(link)
        elif chain is not None:
            raise BadArgument(
                f"{links[-1].tensor.name}: its {links[-1].inputs} inputs are no multiple of the {link.outputs} outputs "
                f"of {other}; expected a chain in the order of the network"
            )
    return links[::-1]


def _link(checkpoint: Checkpoint, tensor: Tensor, *, required: bool) -> Link | None:
    role = assign(tensor.name, tensor.shape, tensor.dtype.name, checkpoint.keys()).role
    reason = without_matrix(tensor, role) or ("is an embedding" if role == "embedding" else "")
    if reason:
        if required:
            raise BadArgument(f"{tensor.name}: {reason}; expected a matrix or a convolution")
        return None
    view = matrix_view(tensor.name, tensor.shape, role)
    x = tensor.read().astype(np.float64)
    if view.layout == "out_in_space":
        return Link(tensor, x.reshape(*x.shape[:2], -1))
    if view.layout == "space_in_out":
        return Link(tensor, np.moveaxis(x.reshape(-1, *x.shape[-2:]), (0, 1, 2), (2, 1, 0)))
    if x.ndim != 2:
        return None
    return Link(tensor, (x.T if _inputs_first(tensor) else x)[:, :, None])


def _of_neuron(checkpoint: Checkpoint, layer: int, neuron: int, top: int, depth: int) -> Circuit:
    """A neuron of a transformer, what writes to it, and what writes to that."""
    network = transformer(checkpoint)
    first = Unit(_mlp(layer), neuron)
    count = read_by_mlp(network, layer).shape[1]
    if neuron >= count:
        raise BadArgument(f"MLP {layer}: no neuron {neuron}; expected 0 to {count - 1}")
    edges = _strongest(first, lambda unit: _writers(network, unit), top, depth)
    texts = tokens(checkpoint)
    sources = {edge.source for edge in edges if edge.source.layer == _TOKENS and edge.source.number in texts}
    labels = {unit: texts[unit.number] for unit in sources}
    return Circuit(first, (_TOKENS, *(_mlp(i) for i in range(layer + 1))), edges, labels)


def _mlp(layer: int) -> str:
    return f"mlp {layer}"


def _writers(network: Transformer, unit: Unit) -> list[Edge]:
    """Virtual weights to a neuron from every neuron of an earlier layer and every token."""
    if unit.layer == _TOKENS:
        return []
    layer = int(unit.layer.removeprefix("mlp "))
    read = read_by_mlp(network, layer)[:, unit.number]
    edges = [
        Edge(Unit(_mlp(earlier), i), unit, float(w))
        for earlier in range(layer)
        for i, w in enumerate(network.outward(earlier) @ read)
    ]
    written = network.embedding().read().astype(np.float32) @ read
    return edges + [Edge(Unit(_TOKENS, i), unit, float(w)) for i, w in enumerate(written)]


def _strongest(unit: Unit, inputs: Inputs, top: int, depth: int) -> tuple[Edge, ...]:
    """The `top` strongest edges into a unit, into the units these come from, and so on; each unit opened once."""
    found: list[Edge] = []
    opened: set[Unit] = set()
    front = [unit]
    for _ in range(depth):
        reached: list[Unit] = []
        for target in dict.fromkeys(front):
            if target in opened:
                continue
            opened.add(target)
            kept = sorted(inputs(target), key=lambda edge: -abs(edge.weight))[:top]
            kept = [edge for edge in kept if edge.weight]
            found += kept
            reached += [edge.source for edge in kept]
        front = reached
    return tuple(found)
