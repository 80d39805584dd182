"""`circuits`: what a unit is built from, by the strongest weights from layer to layer, from a checkpoint alone.

Without a run of the network a path of weights says what could matter, not what does: activations, biases and the scales
of norms are left out, except where a transformer's norms are folded in (`weighbridge.analyses.virtual_weights`).
"""

import re
from collections.abc import Sequence
from typing import Any, get_args

from weighbridge import checkpoints
from weighbridge.analyses.chain import Chain
from weighbridge.analyses.residual_stream import ResidualStream, mlp
from weighbridge.analyses.transformer import transformer
from weighbridge.analyses.wiring import Direction, Wiring, opened
from weighbridge.checkpoints.protocol import Checkpoint
from weighbridge.circuit import Circuit, Edge, Unit
from weighbridge.errors import BadArgument

TOP, DEPTH = 6, 2
_STREAM_UNIT = re.compile(r"(?:mlp\.(\d+)|(tokens|logits))\.(\d+)")
_TENSOR_UNIT = re.compile(r"(.+):(\d+)")


def circuits(
    source: Any,
    unit: str,
    *,
    chain: Sequence[str] | None = None,
    top: int = TOP,
    depth: int = DEPTH,
    direction: Direction = "upstream",
) -> Circuit:
    """The circuit of a unit: its `top` strongest inputs, theirs, and so on for `depth` steps; or downstream, readers.

    `unit` is `tensor:index` for an output of a matrix or a convolution, whose inputs are the outputs of the tensor
    before it in `chain` (names in the order of the network; by default the tensors of the checkpoint that fit one
    another, in its order). A convolution's weights between two channels are summed up by their norm; a matrix that
    follows a flattened map has that many weights a channel. `mlp.layer.neuron` is a neuron of a pre-norm transformer
    (GPT-2, Llama): its inputs are the neurons of all earlier layers through the residual stream, and the tokens; it is
    read by those of later ones and by the logits. So are `tokens.number` and `logits.number`. Neurons bear the token
    that they read most of.

    Raises `TensorNotFound`, `BadArgument` for a unit that is not there or a chain that does not fit.
    """
    for name, value in (("top", top), ("depth", depth)):
        if value < 1:
            raise BadArgument(f"{name} is {value}; expected 1 or more")
    if direction not in get_args(Direction):
        raise BadArgument(f"direction {direction!r}; expected {' or '.join(get_args(Direction))}")
    wiring, found = find(checkpoints.open(source), unit, chain)
    return named(wiring, Circuit(found, wiring.layers, _followed(wiring, found, top, depth, direction), {}))


def find(checkpoint: Checkpoint, unit: str, chain: Sequence[str] | None = None) -> tuple[Wiring, Unit]:
    """A unit by what it is called, and the wiring that it is part of; see `circuits`."""
    wiring: Wiring
    if (stream := _STREAM_UNIT.fullmatch(unit)) and unit not in checkpoint:
        wiring = ResidualStream(transformer(checkpoint))
        found = Unit(mlp(int(stream[1])) if stream[1] else stream[2], int(stream[3]))
    elif tensor := _TENSOR_UNIT.fullmatch(unit):
        found = Unit(checkpoint[tensor[1]].name, int(tensor[2]))
        wiring = Chain(checkpoint, found.layer, chain)
    else:
        raise BadArgument(f"unit {unit!r}; expected tensor:index, or mlp.layer.neuron of a transformer")
    wiring.check(found)
    return wiring, found


def named(wiring: Wiring, found: Circuit) -> Circuit:
    """The circuit with what its units are called."""
    return Circuit(found.unit, found.layers, found.edges, dict(wiring.names(found.units)))


def _followed(wiring: Wiring, unit: Unit, top: int, depth: int, direction: Direction) -> tuple[Edge, ...]:
    """The strongest edges of a unit, of the units these lead to, and so on; each unit opened once."""
    found: list[Edge] = []
    known, front = {unit}, [unit]
    for _ in range(depth):
        edges = opened(wiring, front, direction, top)
        found += edges
        ends = [edge.source if direction == "upstream" else edge.target for edge in edges]
        front = [end for end in dict.fromkeys(ends) if end not in known]
        known.update(front)
    return tuple(found)
