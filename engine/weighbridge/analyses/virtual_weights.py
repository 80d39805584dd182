"""Virtual weights of a transformer: what one part does to another through the residual stream, from a checkpoint alone.

Each is a product of two thin matrices, left [rows, rank] and right [cols, rank], which is never multiplied out: row i
and column j meet in `left[i] @ right[j]`. Scales of norms, and for layer norm its centring, are folded in; what a norm
divides by depends on the input and is left out, and so are biases and positions. Source: Elhage et al. 2021, "A
Mathematical Framework for Transformer Circuits", transformer-circuits.pub/2021/framework.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weighbridge import checkpoints
from weighbridge.analyses.transformer import Transformer, transformer
from weighbridge.checkpoints.protocol import Tensor
from weighbridge.errors import BadArgument
from weighbridge.pyramid.product import ProductMatrix, Rows, product

Kind = Literal["ov", "qk", "direct", "mlp"]
Space = Literal["residual", "tokens"]
Array = npt.NDArray[np.float32]
_ROWS = 4096


@dataclass(frozen=True)
class ArrayFactor:
    """Rows that are held."""

    array: Array

    @property
    def count(self) -> int:
        return int(self.array.shape[0])

    @property
    def rank(self) -> int:
        return int(self.array.shape[1])

    def rows(self, at: slice) -> Array:
        return self.array[at]


@dataclass(frozen=True)
class TokenFactor:
    """Rows of a stored table of tokens, each turned by a matrix [width, rank] when it is read."""

    tokens: Tensor
    turned: Array

    @property
    def count(self) -> int:
        return self.tokens.shape[0]

    @property
    def rank(self) -> int:
        return int(self.turned.shape[1])

    def rows(self, at: slice) -> Array:
        stored: Array = self.tokens.read(at).astype(np.float32)
        return stored @ self.turned


@dataclass(frozen=True)
class VirtualWeights:
    """The matrix `left @ right.T`; `sides` are what its rows and columns are, `note` what one must know of it."""

    name: str
    sides: tuple[str, str]
    left: Rows
    right: Rows
    note: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        return self.left.count, self.right.count

    @property
    def rank(self) -> int:
        """At most this."""
        return self.left.rank

    def entries(self, rows: slice, cols: slice) -> Array:
        """A window of it, float32."""
        return self.left.rows(rows) @ self.right.rows(cols).T

    def matrix(self) -> ProductMatrix:
        """As what a heatmap looks at; reads both sides once."""
        return product(self.name, self.left, self.right, sides=self.sides, entry="virtual weight")

    def singular_values(self) -> npt.NDArray[np.float64]:
        """All that are not zero by its rank, greatest first, through the Gram matrices of both sides in float64.

        Those of `left @ right.T` are the roots of the eigenvalues of `L R`, L and R the Gram matrices.
        """
        left, right = (_gram(factor) for factor in (self.left, self.right))
        values, vectors = np.linalg.eigh(left)
        root = vectors * np.sqrt(np.maximum(values, 0))
        return np.sqrt(np.maximum(np.linalg.eigvalsh(root.T @ right @ root), 0))[::-1]

    def __repr__(self) -> str:
        return f"VirtualWeights({self.name!r}, {list(self.shape)}, rank {self.rank})"


def virtual_weights(
    source: Any,
    kind: Kind,
    *,
    layer: int = 0,
    head: int = 0,
    to: int | None = None,
    space: Space = "residual",
    offset: int = 0,
    part: Literal["up", "gate"] = "up",
) -> VirtualWeights:
    """What a part of a transformer does to another, of a checkpoint of the GPT-2, Llama or BERT family.

    `ov`: what `head` of `layer` writes for what it reads, residual by residual coordinate, or token by token's logit
    with `space="tokens"`. `qk`: how much a query (row) attends to a key (column), over sqrt(head size), with rotary
    embeddings for a key that lies `offset` positions before. `direct`: from embedding to unembedding. `mlp`: from the
    neurons of `layer` to those of layer `to`, a later one, by its `part`. What has no meaning in a network that
    normalises after adding (BERT) is refused with the reason; so is an unknown layer or head: `BadArgument`.
    """
    network = transformer(checkpoints.open(source))
    makers: dict[str, Callable[[], VirtualWeights]] = {
        "ov": lambda: _ov(network, layer, head, space),
        "qk": lambda: _qk(network, layer, head, space, offset),
        "direct": lambda: _direct(network),
        "mlp": lambda: _mlp(network, layer, layer + 1 if to is None else to, part),
    }
    if kind not in makers:
        raise BadArgument(f"kind {kind!r}; expected one of {', '.join(makers)}")
    return makers[kind]()


def _ov(network: Transformer, layer: int, head: int, space: Space) -> VirtualWeights:
    matrices = network.head(layer, head)
    read = _read(network, matrices.value, network.names.attention_norm, layer)
    name, note = f"OV of head {layer}.{head}", _shared("value", matrices.shared)
    written = np.ascontiguousarray(matrices.output.T)
    if space == "residual":
        return VirtualWeights(name, ("residual", "residual"), ArrayFactor(read), ArrayFactor(written), note)
    network.check_pre_norm("what a head writes is normalised together with the stream")
    to_logits = before_logits(network, written)
    left, right = TokenFactor(network.embedding(), read), TokenFactor(network.unembedding(), to_logits)
    return VirtualWeights(f"{name}, token to logit", ("token", "logit"), left, right, note)


def _qk(network: Transformer, layer: int, head: int, space: Space, offset: int) -> VirtualWeights:
    matrices = network.head(layer, head)
    query, key = (_read(network, w, network.names.attention_norm, layer) for w in (matrices.query, matrices.key))
    if network.normalises_queries:
        raise BadArgument(f"{network.checkpoint.name}: its queries and keys have norms of their own; QK is no matrix")
    if offset and not network.plain_rope:
        raise BadArgument(f"{network.checkpoint.name}: its rotary embeddings are scaled or partial; expected offset 0")
    if network.rope_base is not None:
        query = rotated(query, offset, network.rope_base)
    elif offset:
        raise BadArgument(f"offset {offset}: a {network.family} network has no rotary embeddings; expected 0")
    query = query / np.float32(np.sqrt(network.head_size))
    name, note = f"QK of head {layer}.{head}", _shared("key", matrices.shared)
    if space == "residual":
        return VirtualWeights(name, ("query", "key"), ArrayFactor(query), ArrayFactor(key), note)
    if not network.pre_norm:
        if layer:
            network.check_pre_norm("beyond the first layer the stream is no sum that holds the embedding")
        query, key = (_read(network, w, network.names.final_norm, after=True) for w in (query, key))
    left, right = (TokenFactor(network.embedding(), w) for w in (query, key))
    return VirtualWeights(f"{name}, token to token", ("query token", "key token"), left, right, note)


def _direct(network: Transformer) -> VirtualWeights:
    network.check_pre_norm("the embedding does not reach the end as it is")
    folded = _read(network, np.eye(network.width, dtype=np.float32), network.names.final_norm)
    left, right = TokenFactor(network.embedding(), folded), network.unembedding()
    whole = TokenFactor(right, np.eye(network.width, dtype=np.float32))
    return VirtualWeights("direct path", ("token", "logit"), left, whole)


def _mlp(network: Transformer, layer: int, to: int, part: Literal["up", "gate"]) -> VirtualWeights:
    if to <= layer:
        raise BadArgument(f"to {to}; expected a layer after {layer}")
    read = read_by_mlp(network, to, part)
    left, right = ArrayFactor(network.outward(layer)), ArrayFactor(np.ascontiguousarray(read.T))
    name = f"MLP {layer} to MLP {to}" + (" by its gate" if part == "gate" else "")
    return VirtualWeights(name, (f"neuron of {layer}", f"neuron of {to}"), left, right)


def read_by_mlp(network: Transformer, layer: int, part: Literal["up", "gate"] = "up") -> Array:
    """What the neurons of a layer read from the residual stream, [width, neurons], their norm folded in.

    Raises `BadArgument` for a post-norm network.
    """
    network.check_pre_norm("what an MLP writes is normalised before another reads it")
    return _read(network, network.inward(layer, part), network.names.mlp_norm, layer)


def read_by_logit(network: Transformer, token: int) -> Array:
    """What the logit of a token reads from the residual stream, [width], the last norm folded in."""
    row = network.unembedding().read(token).astype(np.float32)
    return _read(network, row[:, None], network.names.final_norm)[:, 0]


def before_logits(network: Transformer, written: Array) -> Array:
    """What is written to the residual stream, [width, k], as the rows of the unembedding read it."""
    return _written(network, written, network.names.final_norm)


def _read(network: Transformer, w: Array, norm: str, layer: int = 0, *, after: bool = False) -> Array:
    """A matrix [width, k] behind a norm: x C diag(gain) w for x, with C the centring of layer norm.

    A post-norm network's blocks read what is normalised already; `after` its one norm that acts on the embedding.
    """
    if not (network.pre_norm or after):
        return w
    scaled = network.gain(norm, layer)[:, None] * w
    return scaled - scaled.mean(axis=0, dtype=np.float64).astype(np.float32) if network.centred else scaled


def _written(network: Transformer, w: Array, norm: str) -> Array:
    """A matrix [width, k], of what is written, before a norm: u diag(gain) C w for what reads by u behind the norm."""
    centred = w - w.mean(axis=0, dtype=np.float64).astype(np.float32) if network.centred else w
    return network.gain(norm)[:, None] * centred


def rotated(x: Array, offset: int, base: float) -> Array:
    """Rows of queries [n, size] as rotary embeddings turn them for a key that lies `offset` positions before.

    Su et al. 2021, arXiv 2104.09864, with coordinate i paired with i + size / 2, as Llama's checkpoints are stored.
    """
    half = x.shape[1] // 2
    angles = offset * base ** (-np.arange(half) / half)
    cos, sin = (f(angles).astype(np.float32) for f in (np.cos, np.sin))
    first, second = x[:, :half], x[:, half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=1)


def _shared(what: str, heads: tuple[int, ...]) -> str:
    return f"its {what} is shared by heads {heads[0]} to {heads[-1]}" if heads else ""


def _gram(factor: Rows) -> npt.NDArray[np.float64]:
    total = np.zeros((factor.rank, factor.rank))
    for start in range(0, factor.count, _ROWS):
        rows = factor.rows(slice(start, min(start + _ROWS, factor.count))).astype(np.float64)
        total += rows.T @ rows
    return total
