"""Where weights come from: one format a file, one Protocol, one dtype table."""

import os
import re
from pathlib import Path
from typing import Any

from weighbridge.checkpoints import numpy_files, pytree, safetensors
from weighbridge.checkpoints.protocol import Checkpoint, Fault, SourceFile, Tensor
from weighbridge.errors import BadArgument, SourceNotFound

_GENERIC = {"model", "checkpoint", "weights", "pytorch_model", "diffusion_pytorch_model", "snapshots", "blobs"}
_REVISION = re.compile("[0-9a-f]{40}")

__all__ = ["Checkpoint", "Fault", "SourceFile", "Tensor", "open"]


def open(source: Any) -> Checkpoint:
    """Opens a checkpoint by its headers alone.

    `source` is a path (a `.safetensors`, `.npy` or `.npz` file, an `*.index.json`, or a folder of them), a
    `Checkpoint`, or weights in memory: an array, a flax module or state, any tree of arrays. Raises `SourceNotFound`,
    `CorruptCheckpoint` or `BadArgument`.
    """
    if isinstance(source, Checkpoint):
        return source
    if isinstance(source, str | os.PathLike):
        return _open_path(Path(os.path.expanduser(source)))
    if pytree.is_tree(source):
        return pytree.open_tree(source)
    raise BadArgument(
        f"source is a {type(source).__name__}; expected a path, an array, a flax module or a tree of arrays"
    )


def _open_path(path: Path) -> Checkpoint:
    if os.path.isdir(path):  # pathlib's own raises for a name too long
        return _open_folder(path)
    if not os.path.exists(path):
        raise SourceNotFound(f"{path}: there is no such file or folder; check the path")
    if path.name.endswith(".index.json"):
        return safetensors.open_index(path, _name(path.parent))
    if path.suffix == ".npy":
        return numpy_files.open_npy(path)
    if path.suffix == ".npz":
        return numpy_files.open_npz(path)
    if path.suffix == ".safetensors":
        shard = safetensors.open_file(path)
        return Checkpoint(_name(path), [shard.file], shard.tensors)
    raise BadArgument(
        f"{path.name}: unknown format; expected .safetensors, .index.json, .npz, .npy or a folder of them"
    )


def _open_folder(folder: Path) -> Checkpoint:
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if len(indices) > 1:
        names = ", ".join(path.name for path in indices)
        raise BadArgument(f"{folder}: holds {len(indices)} indices ({names}); name the one to open")
    if indices:
        return safetensors.open_index(indices[0], _name(folder))
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return safetensors.open_folder(folder, files, _name(folder))
    arrays = sorted([*folder.glob("*.npz"), *folder.glob("*.npy")])
    if len(arrays) == 1:
        return _open_path(arrays[0])
    what = f"holds {len(arrays)} NumPy files; name one" if arrays else "holds no .safetensors, .npz or .npy file"
    raise SourceNotFound(f"{folder}: {what}")


def _name(path: Path) -> str:
    """The file's or folder's own name, or that of the folder around it where it says nothing, as `model` does."""
    resolved = path if path.is_file() else path.resolve()
    for candidate in (resolved.stem if path.is_file() else resolved.name, *(p.name for p in path.resolve().parents)):
        if candidate and candidate not in _GENERIC and not _REVISION.fullmatch(candidate):
            return candidate.removeprefix("models--").replace("--", "_")
    return "checkpoint"
