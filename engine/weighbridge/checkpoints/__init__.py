"""Where weights come from: one format a file, one Protocol, one dtype table."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weighbridge.checkpoints import numpy_files, pytree, safetensors
from weighbridge.checkpoints.local_file import LocalFile, LocalFolder
from weighbridge.checkpoints.protocol import Checkpoint, Fault, SourceFile, Tensor
from weighbridge.checkpoints.sources import Folder
from weighbridge.errors import BadArgument, SourceNotFound

_GENERIC = {"model", "checkpoint", "weights", "pytorch_model", "diffusion_pytorch_model", "snapshots", "blobs"}
_INDEX = ".index.json"
_SHARDED = ".safetensors.index.json"
_REVISION = re.compile("[0-9a-f]{40}")

__all__ = ["Checkpoint", "Fault", "SourceFile", "Tensor", "open"]


def open(source: Any) -> Checkpoint:
    """Opens a checkpoint by its headers alone.

    `source` is a path (a `.safetensors`, `.npy` or `.npz` file, an `*.index.json`, or a folder of them), the address
    of such a safetensors checkpoint (`http://`, `hf://`, `s3://`, whatever fsspec knows), a `Checkpoint`, or weights
    in memory: an array, a flax module or state, any tree of arrays. Raises `SourceNotFound`, `CorruptCheckpoint` or
    `BadArgument`.
    """
    if isinstance(source, Checkpoint):
        return source
    if isinstance(source, str) and "://" in source:
        return _open_address(source)
    if isinstance(source, str | os.PathLike):
        return _open_path(Path(os.path.expanduser(source)))
    if pytree.is_tree(source):
        return pytree.open_tree(source)
    raise BadArgument(
        f"source is a {type(source).__name__}; expected a path, an address, an array, a flax module or a tree of arrays"
    )


def _open_path(path: Path) -> Checkpoint:
    if os.path.isdir(path):  # pathlib's own raises for a name too long
        return _open_folder(path)
    if not os.path.exists(path):
        raise SourceNotFound(f"{path}: there is no such file or folder; check the path")
    if path.suffix == ".npy":
        return numpy_files.open_npy(path)
    if path.suffix == ".npz":
        return numpy_files.open_npz(path)
    if path.name.endswith(_INDEX):
        folder = LocalFolder(path.parent)
        return _in(folder, safetensors.open_index(folder, path.name, _name(path.resolve().parent)))
    if path.suffix == ".safetensors":
        shard = safetensors.open_file(LocalFile(path, path.name))
        checkpoint = Checkpoint(_name(path, path.resolve().parent), [shard.file], shard.tensors)
        return _in(LocalFolder(path.parent), checkpoint)
    raise BadArgument(
        f"{path.name}: unknown format; expected .safetensors, .index.json, .npz, .npy or a folder of them"
    )


def _open_folder(path: Path) -> Checkpoint:
    folder = LocalFolder(path)
    names = folder.names()
    arrays = [name for name in names if name.endswith((".npz", ".npy"))]
    if not any(name.endswith((_SHARDED, ".safetensors")) for name in names):
        if len(arrays) == 1:
            return _open_path(path / arrays[0])
        what = f"holds {len(arrays)} NumPy files; name one" if arrays else "holds no .safetensors, .npz or .npy file"
        raise SourceNotFound(f"{path}: {what}")
    return _open_safetensors(folder, names, str(path), _name(path.resolve()))


def _open_safetensors(folder: Folder, names: list[str], where: str, name: str) -> Checkpoint:
    """A folder's index where it has one, else all its safetensors files."""
    indices = [name for name in names if name.endswith(_SHARDED)]
    if len(indices) > 1:
        raise BadArgument(f"{where}: holds {len(indices)} indices ({', '.join(indices)}); name the one to open")
    if indices:
        return _in(folder, safetensors.open_index(folder, indices[0], name))
    files = [name for name in names if name.endswith(".safetensors")]
    if not files:
        raise SourceNotFound(f"{where}: holds no .safetensors file")
    return _in(folder, safetensors.open_folder(folder, files, name))


def _in(folder: Folder, checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint that knows the folder it lies in."""
    checkpoint.folder = folder
    return checkpoint


def _open_address(address: str) -> Checkpoint:
    """A safetensors file, an index or a folder far away; nothing but headers is fetched."""
    from weighbridge.checkpoints.remote_file import CONCURRENCY, RemoteFile, RemoteFolder, filesystem_of

    filesystem, path = filesystem_of(address)
    above, _, last = path.rstrip("/").rpartition("/")
    if last.endswith(_INDEX):
        folder = RemoteFolder(filesystem, above)
        checkpoint = _in(folder, safetensors.open_index(folder, last, _name(Path(above))))
    elif last.endswith(".safetensors"):
        shard = safetensors.open_file(RemoteFile(filesystem, path, last))
        checkpoint = Checkpoint(_name(Path(last), Path(above)), [shard.file], shard.tensors)
        checkpoint.folder = RemoteFolder(filesystem, above)
    else:
        folder = RemoteFolder(filesystem, path)
        checkpoint = _open_safetensors(folder, folder.names(), address, _name(Path(path)))
    checkpoint.readers = CONCURRENCY
    return checkpoint


def _name(*paths: Path) -> str:
    """The first name on the way up that says something, as `model` and a revision's hash do not."""
    for candidate in (
        *(path.stem if path.suffix == ".safetensors" else path.name for path in paths),
        *_above(paths[-1]),
    ):
        if candidate and candidate not in _GENERIC and not _REVISION.fullmatch(candidate):
            return candidate.removeprefix("models--").replace("--", "_")
    return "checkpoint"


def _above(path: Path) -> Iterator[str]:
    return (parent.name for parent in path.parents)
