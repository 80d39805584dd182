"""Matrices and convolutions one after another, as a checkpoint stores them: each reads what the one before gives."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from weighbridge.analyses.matrix_rows import without_matrix
from weighbridge.analyses.wiring import Direction, FloatArray, Weights
from weighbridge.checkpoints.protocol import Checkpoint, Tensor
from weighbridge.circuit import Unit
from weighbridge.errors import BadArgument
from weighbridge.matrix import Layout, matrix_view
from weighbridge.roles import Assignment, assign

INPUT = "input"
_BLOCK = (
    *("attention_q", "attention_k", "attention_v", "attention_o", "attention_qkv"),
    *("mlp_up", "mlp_gate", "mlp_down"),
)
"""Roles of matrices between which a transformer's residual stream lies."""
_GPT2 = re.compile(r"(.*\.)(?:attn|mlp)\.c_(?:attn|fc|proj)\.weight")
_SHORTCUT = re.compile(r"downsample|shortcut|skip")


@dataclass(frozen=True)
class Link:
    """A tensor as weights from input units to output units; a group of a convolution reads `inputs` of them."""

    tensor: Tensor
    layout: Layout
    inputs_first: bool

    @property
    def outputs(self) -> int:
        return self.tensor.shape[-1 if self.inputs_first else 0]

    @property
    def inputs(self) -> int:
        return self.tensor.shape[-2 if self.inputs_first else 1]

    @property
    def is_convolution(self) -> bool:
        return self.layout in ("out_in_space", "space_in_out")

    def groups(self, units: int) -> int | None:
        """How many groups it has that read so many units before it; None where it does not fit them."""
        whole, groups = units % self.inputs == 0, units // self.inputs
        return groups if self.is_convolution and whole and self.outputs % groups == 0 else None

    def follows(self, other: "Link", *, grouped: bool = True) -> bool:
        """Whether it can read what another gives: as many units, whole groups of them, or a flattened map of them."""
        if self.is_convolution:
            groups = self.groups(other.outputs)
            return groups == 1 or (groups is not None and (grouped or self.inputs == 1))
        return self.inputs % other.outputs == 0 and (other.is_convolution or self.inputs == other.outputs)

    def reads(self, output: int, units: int) -> FloatArray:
        """Weights into an output from each of `units` before it: signed norms over places, zero in other groups."""
        own = self._read(output, axis=-1 if self.inputs_first else 0)
        own = np.moveaxis(own.reshape(-1, self.inputs), 0, 1) if self.inputs_first else own.reshape(self.inputs, -1)
        if self.inputs == units:
            return signed_norms(own)
        if self.is_convolution:
            weights, group = np.zeros(units), output // (self.outputs // (units // self.inputs))
            weights[group * self.inputs : (group + 1) * self.inputs] = signed_norms(own)
            return weights
        return signed_norms(self._by_unit(own[:, 0], units))

    def is_read(self, unit: int, units: int) -> FloatArray:
        """Weights from one of `units` before it to each of its outputs."""
        if self.is_convolution:
            return self._convolved(unit, units)
        axis = 0 if self.inputs_first else 1
        if self.inputs == units:
            return signed_norms(self._read(unit, axis=axis)[:, None])
        places = self._by_unit(np.arange(self.inputs), units)[unit].astype(int)
        return signed_norms(np.stack([self._read(int(i), axis=axis) for i in places], axis=1))

    def _convolved(self, unit: int, units: int) -> FloatArray:
        own = self._read(unit % self.inputs, axis=-2 if self.inputs_first else 1)
        own = own.reshape(-1, self.outputs).T if self.inputs_first else own.reshape(self.outputs, -1)
        weights = signed_norms(own)
        each, group = self.outputs // (units // self.inputs), unit // self.inputs
        weights[: group * each] = weights[(group + 1) * each :] = 0
        return weights

    def _by_unit(self, flat: Any, units: int) -> Any:
        """Entries of a flattened map [units, places].

        It has its channels last where inputs come first in what is stored (flax), else first (PyTorch).
        """
        return flat.reshape(-1, units).T if self.inputs_first else flat.reshape(units, -1)

    def _read(self, index: int, *, axis: int) -> FloatArray:
        at: list[slice | int] = [slice(None)] * len(self.tensor.shape)
        at[axis] = index
        return self.tensor.read(tuple(at)).astype(np.float64)


def signed_norms(weights: FloatArray) -> FloatArray:
    """L2 norms of rows with the signs of their sums."""
    norms: FloatArray = np.where(weights.sum(axis=1) < 0, -1.0, 1.0) * np.linalg.norm(weights, axis=1)
    return norms


class Chain:
    """The wiring of tensors in the order of the network, about one of them.

    Without names given: those of the checkpoint, in its order, that fit one another, before `about` and after it; the
    shortcuts of residual blocks, which lie beside the way, are left out. Of a transformer's block an MLP's two matrices
    follow one another, and a value the output; all others have the residual stream between them. Raises `BadArgument`
    for a tensor without weights between units and for names that do not fit.
    """

    def __init__(self, checkpoint: Checkpoint, about: str, names: Sequence[str] | None = None) -> None:
        if names is not None:
            if about not in names:
                raise BadArgument(f"{about}: is not in the chain {', '.join(names)}")
            links = [_link(checkpoint, checkpoint[name]) for name in names]
            for before, link in pairwise(links):
                if not link.follows(before):
                    raise BadArgument(
                        f"{link.tensor.name}: its {link.inputs} inputs are no multiple of the {before.outputs} outputs "
                        f"of {before.tensor.name}; expected a chain in the order of the network"
                    )
        else:
            links = _fitting(checkpoint, about)
        self._links = links
        self.layers = (INPUT, *(link.tensor.name for link in links))
        sides = [link.outputs for link in links]
        self._sizes = dict(zip(self.layers, (links[0].inputs, *sides), strict=True))

    def check(self, unit: Unit) -> None:
        size = self._sizes.get(unit.layer, 0)
        if not 0 <= unit.number < size:
            raise BadArgument(f"{unit.layer}: no unit {unit.number}; expected 0 to {size - 1}")

    def weights(self, units: list[Unit], direction: Direction) -> list[Weights]:
        of = self._into if direction == "upstream" else self._out_of
        return [of(unit) for unit in units]

    def names(self, units: Iterable[Unit]) -> Mapping[Unit, str]:
        return {}

    def filter(self, unit: Unit) -> FloatArray | None:
        """The kernel [h, w, inputs] of a unit that reads an image of one channel or three."""
        first = self._links[0]
        if unit.layer != self.layers[1] or first.inputs not in (1, 3) or len(first.tensor.shape) != 4:
            return None
        if first.layout == "out_in_space":
            return np.moveaxis(first.tensor.read(unit.number).astype(np.float64), 0, 2)
        return first.tensor.read((slice(None), slice(None), slice(None), unit.number)).astype(np.float64)

    def _into(self, unit: Unit) -> Weights:
        at = self.layers.index(unit.layer)
        if at == 0:
            return {}
        before = self.layers[at - 1]
        return {before: self._links[at - 1].reads(unit.number, self._sizes[before])}

    def _out_of(self, unit: Unit) -> Weights:
        at = self.layers.index(unit.layer)
        if at == len(self._links):
            return {}
        return {self.layers[at + 1]: self._links[at].is_read(unit.number, self._sizes[unit.layer])}


def _fitting(checkpoint: Checkpoint, about: str) -> list[Link]:
    own = _link(checkpoint, checkpoint[about])
    pair = _pair(checkpoint, about)
    if pair is not None:
        links = [_link(checkpoint, checkpoint[name]) for name in pair]
        return links if len(links) == 1 or links[1].follows(links[0]) else [own]
    names = _in_order(checkpoint)
    at, links = names.index(own.tensor.name), [own]
    for link in _candidates(checkpoint, reversed(names[:at])):
        if links[0].follows(link, grouped=False):
            links.insert(0, link)
    for link in _candidates(checkpoint, names[at + 1 :]):
        if link.follows(links[-1], grouped=False):
            links.append(link)
    return links


def _pair(checkpoint: Checkpoint, about: str) -> list[str] | None:
    """A transformer's matrix with the one that it reads or that reads it; all others have the residual stream between.

    None for a tensor that is no part of a transformer's block.
    """
    found = _assigned(checkpoint, about)
    if found.role not in _BLOCK:
        return None
    for pair in (("mlp_up", "mlp_down"), ("attention_v", "attention_o")):
        if found.role in pair:
            roles = {_assigned(checkpoint, name): name for name in checkpoint}
            names = [roles[other] for role in pair if (other := Assignment(role, found.layer)) in roles]
            if about in names:
                return names
    return [about]


def _in_order(checkpoint: Checkpoint) -> list[str]:
    """Names as they are stored; where that is the alphabet's order, as safetensors has it, numbers count."""
    names = list(checkpoint)
    return sorted(names, key=_natural) if names == sorted(names) else names


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _assigned(checkpoint: Checkpoint, name: str) -> Assignment:
    return assign(name, checkpoint[name].shape, checkpoint[name].dtype.name, checkpoint.keys())


def _candidates(checkpoint: Checkpoint, names: Iterable[str]) -> Iterable[Link]:
    for name in names:
        if _assigned(checkpoint, name).role in (*_BLOCK, "embedding", "router") or _SHORTCUT.search(name):
            continue
        try:
            yield _link(checkpoint, checkpoint[name])
        except BadArgument:
            continue


def _link(checkpoint: Checkpoint, tensor: Tensor) -> Link:
    role = _assigned(checkpoint, tensor.name).role
    view = matrix_view(tensor.name, tensor.shape, role)
    reason = without_matrix(tensor, role) or ("is an embedding" if role == "embedding" else "")
    if not reason and view.layout == "matrix" and len(tensor.shape) != 2:
        reason = f"has {len(tensor.shape)} axes and is no convolution"
    if reason or not math.prod(tensor.shape):
        raise BadArgument(f"{tensor.name}: {reason}; expected a matrix or a convolution")
    return Link(tensor, view.layout, _inputs_first(checkpoint, tensor.name, view.layout))


def _inputs_first(checkpoint: Checkpoint, name: str, layout: Layout) -> bool:
    """Whether what is stored is [..., in, out]: flax's kernels, and GPT-2's matrices, which its MLPs tell."""
    if layout != "matrix":
        return layout == "space_in_out"
    if (found := _GPT2.fullmatch(name)) and (widens := f"{found[1]}mlp.c_fc.weight") in checkpoint:
        inputs, outputs = checkpoint[widens].shape
        return inputs < outputs
    return name.endswith("kernel")
