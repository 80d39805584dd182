"""Trees of arrays in memory: containers of NumPy and JAX arrays, flax modules and parameters, optax states."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from blake3 import blake3

from weighbridge.checkpoints import dtypes
from weighbridge.checkpoints.dtypes import DType
from weighbridge.checkpoints.protocol import Checkpoint, Fault, SourceFile, Tensor
from weighbridge.errors import CorruptCheckpoint, ReadFailed

FILE = "<memory>"


@dataclass(frozen=True, eq=False, repr=False)
class ArrayTensor(Tensor):
    """An array in memory. A JAX array comes to the host, whole, when it is first read."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    file: str
    array: Any

    def read_into(self, buffer: memoryview, offset: int) -> None:
        host = self._on_host()
        item = host.dtype.itemsize
        first, last = offset // item, -(-(offset + len(buffer)) // item)
        part = host.reshape(-1)[first:last] if host.flags.c_contiguous else host.flat[first:last]
        packed = part.astype(self.dtype.array, copy=False).view(np.uint8)
        buffer[:] = packed[offset - first * item :][: len(buffer)].data

    def _on_host(self) -> np.ndarray:
        try:
            host = np.asarray(self.array)
        except (RuntimeError, TypeError, ValueError) as error:  # deleted, donated, or on another host
            reason = str(error).partition("\n")[0]
            raise ReadFailed(f"{self.file}: array {self.name!r} cannot be read: {reason}") from error
        if host.dtype.hasobject:
            raise ReadFailed(f"{self.file}: array {self.name!r} has a shape but no values; expected an array")
        return host


def open_tree(tree: Any, name: str = "pytree") -> Checkpoint:
    """Every array leaf under its path, joined with dots. A leaf that is no array of numbers becomes a fault.

    Raises `CorruptCheckpoint` where two leaves have the same path.
    """
    tensors: list[Tensor] = []
    faults: list[Fault] = []
    for path, leaf in _leaves(tree):
        path = path.encode("utf-8", "backslashreplace").decode() or "array"  # a key may be no Unicode
        if leaf is None:
            continue
        array = leaf if hasattr(leaf, "dtype") and hasattr(leaf, "shape") else np.asarray(leaf)
        try:
            dtype = dtypes.of_array(np.dtype(array.dtype))
        except TypeError:  # JAX's own dtypes, of random keys
            dtype = None
        if dtype is None:
            faults.append(Fault(path, FILE, f"{path}: dtype {array.dtype} holds no weights", tuple(array.shape)))
        else:
            tensors.append(ArrayTensor(path, tuple(int(side) for side in array.shape), dtype, FILE, array))
    names = [tensor.name for tensor in tensors]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise CorruptCheckpoint(f"{name}: two leaves are called {twice!r}; rename one")
    header = repr([(tensor.name, tensor.shape, tensor.dtype.name) for tensor in tensors])
    file = SourceFile(FILE, sum(t.nbytes for t in tensors), None, blake3(header.encode()).hexdigest())
    return Checkpoint(name, [file], tensors, faults)


def is_tree(source: Any) -> bool:
    """Whether the source is an array, or a container that can hold some."""
    return isinstance(source, Mapping | list | tuple) or hasattr(source, "__array__") or _is_registered(source)


def _is_registered(source: Any) -> bool:
    """A container only JAX knows, such as a flax module or a train state; without JAX loaded there can be none."""
    if "jax" not in sys.modules:
        return False
    import jax

    return (source is not None and not jax.tree_util.all_leaves([source])) or _is_nnx(source)


def _is_nnx(source: Any) -> bool:
    return "flax.nnx" in sys.modules and isinstance(source, sys.modules["flax.nnx"].Module)


def _leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """Leaves with their paths: by JAX where it is loaded, for it knows all containers, else by a plain walk."""
    if _is_nnx(tree):
        tree = sys.modules["flax.nnx"].state(tree)
    if "flax.nnx" in sys.modules and isinstance(tree, sys.modules["flax.nnx"].State):
        tree = sys.modules["flax.nnx"].to_pure_dict(tree)
    if "jax" not in sys.modules:
        yield from _walk(tree, ())
        return
    import jax

    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield ".".join(_key(entry) for entry in path), leaf


def _key(entry: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def _walk(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key in sorted(tree, key=str):
            yield from _walk(tree[key], (*path, str(key)))
    elif isinstance(tree, list | tuple):
        names = getattr(tree, "_fields", range(len(tree)))
        for key, child in zip(names, tree, strict=True):
            yield from _walk(child, (*path, str(key)))
    else:
        yield ".".join(path), tree
