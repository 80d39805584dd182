"""What a checkpoint's own `config.json` says of its network; untrusted, and nothing where there is none."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from weighbridge.checkpoints.protocol import Checkpoint
from weighbridge.errors import CorruptCheckpoint, SourceNotFound
from weighbridge.roles import Role

FILE = "config.json"
_MAX_BYTES = 16 << 20
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_SHARED_HEADS = ("num_key_value_heads", "num_kv_heads", "multi_query_group_num")
_WIDTH = ("hidden_size", "n_embd", "d_model", "dim")


@dataclass(frozen=True)
class Heads:
    """How an attention matrix is cut: `count` slabs of `size` rows or columns."""

    count: int
    size: int
    axis: Literal["rows", "cols"]


def config(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The object in the checkpoint's `config.json`, with what is under `text_config` on top; empty without one.

    Raises `CorruptCheckpoint` where the file is no JSON object of a sensible size.
    """
    if checkpoint.folder is None:
        return {}
    try:
        source = checkpoint.folder.open(FILE)
    except SourceNotFound:
        return {}
    if source.size > _MAX_BYTES:
        raise CorruptCheckpoint(f"{FILE}: has {source.size:,} bytes; expected at most {_MAX_BYTES:,}")
    try:
        found = json.loads(source.read(0, source.size))
    except (ValueError, RecursionError) as error:
        raise CorruptCheckpoint(f"{FILE}: is no JSON: {error}; download it again") from error
    if not isinstance(found, dict):
        raise CorruptCheckpoint(f"{FILE}: is a {type(found).__name__}; expected an object")
    text = found.get("text_config")
    return found | text if isinstance(text, dict) else found


def width(settings: Mapping[str, Any]) -> int | None:
    """The length of the residual axis, where it is told."""
    return _natural(settings, _WIDTH)


def head_count(settings: Mapping[str, Any]) -> int | None:
    """How many heads a layer of attention has, where it is told."""
    return _natural(settings, _HEADS)


def shared_head_count(settings: Mapping[str, Any]) -> int | None:
    """How many heads keys and values have, where these are shared and it is told."""
    return _natural(settings, _SHARED_HEADS)


def head_size(settings: Mapping[str, Any]) -> int | None:
    """The length of a head, where it is told."""
    return _natural(settings, ("head_dim",))


def heads(settings: Mapping[str, Any], role: Role, shape: tuple[int, ...]) -> Heads | None:
    """How a query, key, value or output matrix of a `shape` falls into heads; None where that is not told.

    A side must be a whole number of heads: of all of them for queries and outputs, of the shared ones for keys and
    values. A checkpoint that stores [in, out] has its heads along the other axis, which the sides tell unless equal;
    then [out, in] is taken, as PyTorch stores them.
    """
    count = head_count(settings)
    if role not in ("attention_q", "attention_k", "attention_v", "attention_o") or count is None or len(shape) != 2:
        return None
    size = head_size(settings) or ((width(settings) or 0) // count)
    if role in ("attention_k", "attention_v"):
        count = shared_head_count(settings) or count
    axes: tuple[Literal["rows", "cols"], ...] = ("cols", "rows") if role == "attention_o" else ("rows", "cols")
    for axis in axes:
        if size and shape[0 if axis == "rows" else 1] == count * size:
            return Heads(count, size, axis)
    return None


def _natural(settings: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """The first of the names that holds a positive number."""
    for name in names:
        value = settings.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 24:
            return value
    return None
