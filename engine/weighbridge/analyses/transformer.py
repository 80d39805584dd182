"""The matrices of a transformer by what they do, for checkpoints named as GPT-2, Llama or BERT are.

Every matrix comes as [in, out] in float32, whatever way it is stored, so that a residual x (a row) becomes x @ w.
Pre-norm families (GPT-2, Llama) normalise what a block reads; BERT normalises what it has written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from weighbridge.checkpoints.config import config, head_count, head_size, shared_head_count, width
from weighbridge.checkpoints.protocol import Checkpoint, Tensor
from weighbridge.errors import BadArgument

Family = Literal["gpt2", "llama", "bert"]
Array = npt.NDArray[np.float32]
_ROPE_BASE = 10_000.0


class Names(NamedTuple):
    """What the tensors of a family are called below a prefix; `{}` is the number of the layer."""

    prefixes: tuple[str, ...]
    embedding: str
    unembedding: str
    query: str
    key: str
    value: str
    output: str
    inward: str
    gate: str
    outward: str
    attention_norm: str
    mlp_norm: str
    final_norm: str


_FUSED = "h.{}.attn.c_attn.weight"
_FAMILIES: dict[Family, Names] = {
    "gpt2": Names(
        ("", "transformer."),
        "wte.weight",
        "lm_head.weight",
        _FUSED,
        _FUSED,
        _FUSED,
        "h.{}.attn.c_proj.weight",
        "h.{}.mlp.c_fc.weight",
        "",
        "h.{}.mlp.c_proj.weight",
        "h.{}.ln_1.weight",
        "h.{}.ln_2.weight",
        "ln_f.weight",
    ),
    "llama": Names(
        ("model.", "", "language_model.model."),
        "embed_tokens.weight",
        "lm_head.weight",
        "layers.{}.self_attn.q_proj.weight",
        "layers.{}.self_attn.k_proj.weight",
        "layers.{}.self_attn.v_proj.weight",
        "layers.{}.self_attn.o_proj.weight",
        "layers.{}.mlp.up_proj.weight",
        "layers.{}.mlp.gate_proj.weight",
        "layers.{}.mlp.down_proj.weight",
        "layers.{}.input_layernorm.weight",
        "layers.{}.post_attention_layernorm.weight",
        "norm.weight",
    ),
    "bert": Names(
        ("", "bert."),
        "embeddings.word_embeddings.weight",
        "",
        "encoder.layer.{}.attention.self.query.weight",
        "encoder.layer.{}.attention.self.key.weight",
        "encoder.layer.{}.attention.self.value.weight",
        "encoder.layer.{}.attention.output.dense.weight",
        "encoder.layer.{}.intermediate.dense.weight",
        "",
        "encoder.layer.{}.output.dense.weight",
        "",
        "",
        "embeddings.LayerNorm.weight",
    ),
}


@dataclass(frozen=True)
class Head:
    """One head: query, key and value [width, size], output [size, width]; `shared` are the heads that share its key."""

    query: Array
    key: Array
    value: Array
    output: Array
    shared: tuple[int, ...]


@dataclass(frozen=True)
class Transformer:
    """A checkpoint of a known family; made by `transformer`."""

    checkpoint: Checkpoint
    family: Family
    prefix: str
    settings: Mapping[str, Any]
    width: int
    heads: int
    shared_heads: int
    head_size: int
    layers: int

    @property
    def pre_norm(self) -> bool:
        """Whether blocks normalise what they read, so that the residual stream itself is a sum."""
        return self.family != "bert"

    @property
    def centred(self) -> bool:
        """Whether its norms take the mean away (layer norm), as RMS norm does not."""
        return self.family != "llama"

    @property
    def plain_rope(self) -> bool:
        """Whether its rotary embeddings turn all of a head by powers of one base, and nothing else happens to it."""
        partial_ = self.settings.get("partial_rotary_factor") or 1
        return not self.settings.get("rope_scaling") and partial_ == 1

    @property
    def normalises_queries(self) -> bool:
        """Whether queries and keys have norms of their own, so that their product is no matrix."""
        return f"{self.prefix}layers.0.self_attn.q_norm.weight" in self.checkpoint

    @property
    def rope_base(self) -> float | None:
        """The base of its rotary embeddings; None without."""
        if self.family != "llama":
            return None
        given = self.settings.get("rope_theta")
        parameters = self.settings.get("rope_parameters")
        if given is None and isinstance(parameters, dict):
            given = parameters.get("rope_theta")
        return float(given) if isinstance(given, int | float) and given > 0 else _ROPE_BASE

    def embedding(self) -> Tensor:
        """[tokens, width], as stored."""
        return self.tensor(self.names.embedding)

    def unembedding(self) -> Tensor:
        """[tokens, width], as stored; the embedding where both are one. Raises `BadArgument` where there is none."""
        if self.names.unembedding in self.checkpoint:
            return self.checkpoint[self.names.unembedding]
        if not self.names.unembedding:
            raise BadArgument(f"{self.checkpoint.name}: a {self.family} network has no unembedding of its own")
        return self.embedding()

    def head(self, layer: int, head: int) -> Head:
        """The four matrices of a head. Raises `BadArgument` for one that is not there."""
        self._check("head", head, self.heads)
        group = self.heads // self.shared_heads
        own, shared = self._span(head), self._span(head // group)
        query, key, value = self._attention(layer)
        mates = range(head // group * group, head // group * group + group)
        output = self.matrix(self.names.output, layer)[own]
        return Head(query[:, own], key[:, shared], value[:, shared], output, tuple(mates) if group > 1 else ())

    def inward(self, layer: int, part: Literal["up", "gate"] = "up") -> Array:
        """What the MLP of a layer reads by: [width, neurons]."""
        name = self.names.gate if part == "gate" else self.names.inward
        if not name:
            raise BadArgument(f"{self.checkpoint.name}: the MLP of a {self.family} network has no gate")
        return self.matrix(name, layer)

    def outward(self, layer: int) -> Array:
        """What the MLP of a layer writes by: [neurons, width]."""
        return self.matrix(self.names.outward, layer)

    def gain(self, name: str, layer: int = 0) -> Array:
        """The scale of a norm; a norm's tensor that is not there scales by 1."""
        full = self.prefix + name.format(layer)
        if not name or full not in self.checkpoint:
            return np.ones(self.width, np.float32)
        gain = self.checkpoint[full].read().astype(np.float32)
        return gain + 1 if self.settings.get("model_type") in ("gemma", "gemma2", "gemma3_text") else gain

    def neurons(self, layer: int) -> int:
        """How many the MLP of a layer has. Raises `BadArgument` for a layer that is not there."""
        self._check("layer", layer, self.layers)
        shape = self.tensor(self.names.outward.format(layer)).shape
        return shape[0] if self.family == "gpt2" else shape[1]

    def check_pre_norm(self, why: str) -> None:
        """Raises `BadArgument`, with the reason, for a network whose residual stream is no sum."""
        if not self.pre_norm:
            raise BadArgument(f"{self.checkpoint.name}: a {self.family} network normalises after adding: {why}")

    def matrix(self, name: str, layer: int) -> Array:
        """A matrix of a layer as [in, out]. Raises `BadArgument` for a layer that is not there."""
        self._check("layer", layer, self.layers)
        stored = self.tensor(name.format(layer)).read().astype(np.float32)
        return stored if self.family == "gpt2" else np.ascontiguousarray(stored.T)

    def tensor(self, name: str) -> Tensor:
        """A tensor by its name below the prefix."""
        return self.checkpoint[self.prefix + name]

    @property
    def names(self) -> Names:
        return _FAMILIES[self.family]

    def _attention(self, layer: int) -> tuple[Array, Array, Array]:
        if self.family == "gpt2":
            query, key, value = np.split(self.matrix(_FUSED, layer), 3, axis=1)
            return query, key, value
        query, key, value = (self.matrix(name, layer) for name in (self.names.query, self.names.key, self.names.value))
        return query, key, value

    def _span(self, head: int) -> slice:
        return slice(head * self.head_size, (head + 1) * self.head_size)

    def _check(self, what: str, number: int, count: int) -> None:
        if not 0 <= number < count:
            raise BadArgument(f"{self.checkpoint.name}: no {what} {number}; expected 0 to {count - 1}")


def neurons_of(checkpoint: Checkpoint, name: str) -> int | None:
    """The layer whose MLP a tensor reads for, of a pre-norm transformer; None for any other tensor."""
    try:
        network = transformer(checkpoint)
    except BadArgument:
        return None
    if network.pre_norm:
        for layer in range(network.layers):
            if name in (network.prefix + part.format(layer) for part in (network.names.inward, network.names.gate)):
                return layer
    return None


def transformer(checkpoint: Checkpoint) -> Transformer:
    """The transformer that a checkpoint holds, by the names of its tensors and its `config.json`.

    Raises `BadArgument` where it is of none of the families, or nothing tells how many heads there are.
    """
    for family, names in _FAMILIES.items():
        for prefix in names.prefixes:
            if prefix + names.embedding in checkpoint and prefix + names.outward.format(0) in checkpoint:
                return _made(checkpoint, family, prefix)
    raise BadArgument(f"{checkpoint.name}: is named as none of {', '.join(_FAMILIES)}; its circuits are not known")


def _made(checkpoint: Checkpoint, family: Family, prefix: str) -> Transformer:
    settings = config(checkpoint)
    names = _FAMILIES[family]
    extent = checkpoint[prefix + names.embedding].shape[1]
    heads = head_count(settings)
    if heads is None:
        raise BadArgument(f"{checkpoint.name}: no config.json beside it tells how many heads there are; put it there")
    if (width(settings) or extent) != extent:
        raise BadArgument(
            f"{checkpoint.name}: config.json says width {width(settings)}, the embedding has {extent} columns"
        )
    layers = 0
    while prefix + names.outward.format(layers) in checkpoint:
        layers += 1
    shared = shared_head_count(settings) or heads
    size = head_size(settings) or extent // heads
    _check_norms(checkpoint, family, prefix)
    found = Transformer(checkpoint, family, prefix, settings, extent, heads, shared, size, layers)
    _check_shapes(found)
    return found


def _check_norms(checkpoint: Checkpoint, family: Family, prefix: str) -> None:
    """Raises `BadArgument` for norms that the names of the family have in other places."""
    if family == "llama" and f"{prefix}layers.0.post_feedforward_layernorm.weight" in checkpoint:
        raise BadArgument(f"{checkpoint.name}: its blocks normalise what they write too; their circuits are not known")


def _check_shapes(found: Transformer) -> None:
    """Raises `BadArgument` where the heads of config.json do not fit the matrices."""
    shape = found.tensor(found.names.output.format(0)).shape
    inner = shape[0] if found.family == "gpt2" else shape[1]
    if found.heads * found.head_size != inner or found.heads % found.shared_heads:
        raise BadArgument(
            f"{found.checkpoint.name}: config.json says {found.heads} heads of {found.head_size}, {found.shared_heads} "
            f"shared; the output matrix has {inner} inputs"
        )
