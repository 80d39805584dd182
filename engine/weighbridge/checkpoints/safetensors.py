"""Safetensors: one file, a folder of them, or the shards that an index names. The header is untrusted input.

Format: https://huggingface.co/docs/safetensors, as of 0.8. A file is 8 bytes of header length, a JSON header, and the
tensors' bytes without gap or overlap.
"""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from blake3 import blake3

from weighbridge.checkpoints.dtypes import MAX_RANK, SAFETENSORS, DType
from weighbridge.checkpoints.local_file import LocalFile
from weighbridge.checkpoints.protocol import Checkpoint, Fault, SourceFile, Tensor
from weighbridge.errors import CorruptCheckpoint, SourceNotFound, WeighbridgeError

MAX_HEADER = 100_000_000
"""Bytes; the format's own bound."""
_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, eq=False, repr=False)
class SafetensorsTensor(Tensor):
    name: str
    shape: tuple[int, ...]
    dtype: DType
    file: str
    source: LocalFile
    start: int

    def read_into(self, buffer: memoryview, offset: int) -> None:
        self.source.read_into(buffer, self.start + offset)


class Shard(NamedTuple):
    """A file whose header has been read and found sound."""

    file: SourceFile
    tensors: list[Tensor]


def open_file(path: Path, name: str | None = None) -> Shard:
    """Reads the header of one file. Raises `CorruptCheckpoint`; the tensors come in the order of their offsets."""
    source = LocalFile(path, name or path.name)
    header = _header_bytes(source)
    entries = _parse(header, source.name)
    data_start = 8 + len(header)
    tensors = list(_tensors(entries, source, data_start))
    return Shard(SourceFile(source.name, source.size, source.modified_ns, blake3(header).hexdigest()), tensors)


def open_index(path: Path, name: str) -> Checkpoint:
    """The checkpoint that an index (`*.index.json`) names, its tensors in the order of the shards.

    A shard that is missing or unsound becomes faults of the tensors that the index places there.
    """
    weight_map = _weight_map(path)
    by_shard: dict[str, list[str]] = {}
    for tensor, shard in weight_map.items():
        by_shard.setdefault(shard, []).append(tensor)
    files, tensors, faults = [], [], []
    for shard in sorted(by_shard):
        wanted = by_shard[shard]
        try:
            file, found = open_file(inside(path.parent, shard), shard)
        except WeighbridgeError as error:
            faults += [Fault(tensor, shard, str(error)) for tensor in wanted]
            continue
        files.append(file)
        names = {tensor.name for tensor in found}
        tensors += [tensor for tensor in found if weight_map.get(tensor.name) == shard]
        faults += [
            Fault(
                tensor.name,
                shard,
                f"{shard}: holds tensor {tensor.name!r}, which {path.name} does not place there",
                tensor.shape,
                tensor.dtype.name,
            )
            for tensor in found
            if weight_map.get(tensor.name) != shard and tensor.name not in weight_map
        ]
        faults += [
            Fault(
                tensor, shard, f"{shard}: lacks tensor {tensor!r}, which {path.name} places there; download both again"
            )
            for tensor in wanted
            if tensor not in names
        ]
    if not files:
        raise CorruptCheckpoint(
            f"{path.name}: none of its {len(by_shard)} shards can be read; first: {faults[0].reason}"
        )
    return Checkpoint(name, files, tensors, faults)


def open_folder(folder: Path, paths: list[Path], name: str) -> Checkpoint:
    """All safetensors files of a folder as one checkpoint; a name that two files hold keeps its first tensor."""
    files, tensors, faults = [], [], []
    first_in: dict[str, str] = {}
    for path in paths:
        try:
            shard = open_file(inside(folder, path.name), path.name)
        except WeighbridgeError as error:
            if len(paths) == 1:
                raise
            faults.append(Fault(path.name, path.name, str(error)))
            continue
        files.append(shard.file)
        for tensor in shard.tensors:
            if tensor.name in first_in:
                reason = (
                    f"{path.name}: tensor {tensor.name!r} is in {first_in[tensor.name]} too; scan the files one by one"
                )
                faults.append(Fault(f"{path.name}:{tensor.name}", path.name, reason, tensor.shape, tensor.dtype.name))
            else:
                first_in[tensor.name] = path.name
                tensors.append(tensor)
    if not files:
        raise CorruptCheckpoint(f"{folder.name}: none of its {len(paths)} files can be read; first: {faults[0].reason}")
    return Checkpoint(name, files, tensors, faults)


def inside(folder: Path, name: str) -> Path:
    """The file `name` of `folder`, refused where it lies elsewhere.

    Links out are refused but for the hub cache's own: `models--x/snapshots/<revision>/file -> models--x/blobs/<hash>`.
    """
    if not name or not name.isprintable():
        raise CorruptCheckpoint(f"{_short(name)}: is no name of a file; expected printable text")
    root = folder.resolve()
    try:
        target = (root / name).resolve()
        found = target.is_file()
    except (OSError, RuntimeError):  # a name too long, a loop of links
        target, found = root, False
    if (
        Path(name).is_absolute()
        or ".." in Path(name).parts
        or not (target.is_relative_to(root) or _hub_blob(root, target))
    ):
        raise CorruptCheckpoint(f"{name}: lies outside the checkpoint's folder; only files inside it are read")
    if not found:
        raise SourceNotFound(f"{name}: is missing from {root.name}; download it")
    return target


def _hub_blob(root: Path, target: Path) -> bool:
    return root.parent.name == "snapshots" and target.parent == root.parent.parent / "blobs"


def _header_bytes(source: LocalFile) -> bytes:
    if source.size < 8:
        raise CorruptCheckpoint(
            f"{source.name}: {source.size} bytes, expected 8 or more; the file is empty or truncated"
        )
    (length,) = struct.unpack("<Q", source.read(0, 8))
    if length > MAX_HEADER:
        raise CorruptCheckpoint(
            f"{source.name}: header length {length:,} exceeds {MAX_HEADER:,} bytes; this is no safetensors file"
        )
    if 8 + length > source.size:
        raise CorruptCheckpoint(
            f"{source.name}: header length {length:,} exceeds the file's {source.size:,} bytes; "
            "the file is truncated, download it again"
        )
    return source.read(8, length)


def _parse(header: bytes, file: str) -> dict[str, Any]:
    """The header's tensors, with its JSON sound and its names unique."""
    try:
        parsed = json.loads(header.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise CorruptCheckpoint(f"{file}: header is not UTF-8 at byte {error.start}; the file is damaged") from error
    except RecursionError:
        raise CorruptCheckpoint(
            f"{file}: header nests too deep, expected two levels; this is no safetensors file"
        ) from None
    except ValueError as error:
        raise CorruptCheckpoint(
            f"{file}: header is not valid JSON: {_short(str(error))}; the file is damaged"
        ) from error
    if not isinstance(parsed, dict):
        raise CorruptCheckpoint(f"{file}: header is {_short(parsed)}, expected an object of tensors")
    metadata = parsed.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CorruptCheckpoint(f"{file}: __metadata__ is {_short(metadata)}, expected an object of strings")
    return parsed


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {_short(twice)} occurs twice")
    for text in (*keys, *keys.values()):
        if isinstance(text, str):
            text.encode()  # raises for lone surrogates, which JSON can escape and no report can hold
    return keys


def _no_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _tensors(entries: dict[str, Any], source: LocalFile, data_start: int) -> Iterator[Tensor]:
    """Tensors by offset, each checked alone and against its neighbours: the data has no gap, no overlap, no rest."""
    data_size = source.size - data_start
    checked = [(*_checked(name, entry, data_size, source.name), name) for name, entry in entries.items()]
    end = 0
    for begin, stop, dtype, shape, name in sorted(checked, key=lambda entry: (entry[0], entry[1])):
        if begin != end:
            fault = "overlap the tensor before" if begin < end else "leave a hole after byte " + f"{end:,}"
            raise CorruptCheckpoint(
                f"{source.name}: tensor {_short(name)}: offsets [{begin}, {stop}) {fault}; "
                "the file is damaged, download it again"
            )
        end = stop
        yield SafetensorsTensor(name, shape, dtype, source.name, source, data_start + begin)
    if end != data_size:
        raise CorruptCheckpoint(
            f"{source.name}: tensors end at byte {end:,} of {data_size:,} data bytes; "
            "the file is damaged, download it again"
        )


def _checked(name: str, entry: Any, data_size: int, file: str) -> tuple[int, int, DType, tuple[int, ...]]:
    """One header entry as (begin, end, dtype, shape), every number checked before anything is allocated."""

    def corrupt(what: str) -> CorruptCheckpoint:
        return CorruptCheckpoint(f"{file}: tensor {_short(name)}: {what}")

    if not isinstance(entry, dict) or set(entry) != _ENTRY_KEYS:
        raise corrupt(f"entry is {_short(entry)}, expected dtype, shape and data_offsets")
    dtype = SAFETENSORS.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise corrupt(f"unknown dtype {_short(entry['dtype'])}, expected one of {', '.join(SAFETENSORS)}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _natural(shape) or not dtype.fits(shape):
        raise corrupt(f"shape {_short(shape)}, expected up to {MAX_RANK} integers from 0 on, within 2^63 bytes")
    if not _natural(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise corrupt(f"offsets {_short(offsets)}, expected [begin, end] with 0 <= begin <= end")
    begin, end = offsets
    if end > data_size:
        raise corrupt(
            f"offsets [{_short(begin)}, {_short(end)}) exceed the {data_size:,} data bytes; "
            "the file is truncated, download it again"
        )
    count = math.prod(shape)
    if count * dtype.bits % 8:
        raise corrupt(
            f"{count:,} entries of {dtype} do not fill whole bytes; "
            f"expected a multiple of {8 // math.gcd(8, dtype.bits)}"
        )
    if dtype.nbytes(count) != end - begin:
        raise corrupt(
            f"shape {_short(shape)} of {dtype} needs {dtype.nbytes(count):,} bytes, offsets hold {end - begin:,}"
        )
    return begin, end, dtype, tuple(shape)


def _natural(numbers: Any) -> bool:
    """A list of integers from 0 on; booleans and fractions are none."""
    return isinstance(numbers, list) and all(type(number) is int and number >= 0 for number in numbers)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) and " " in value and value.isprintable() else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _weight_map(path: Path) -> dict[str, str]:
    source = LocalFile(path, path.name)
    if source.size > MAX_HEADER:
        raise CorruptCheckpoint(f"{path.name}: {source.size:,} bytes, expected an index of at most {MAX_HEADER:,}")
    parsed = _parse_index(source.read(0, source.size), path.name)
    weight_map = parsed.get("weight_map") if isinstance(parsed, dict) else None
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(shard, str) for shard in weight_map.values())
    ):
        raise CorruptCheckpoint(
            f"{path.name}: no weight_map of tensor names to files; expected an index as Hugging Face writes it"
        )
    return weight_map


def _parse_index(text: bytes, file: str) -> Any:
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_unique_keys)
    except RecursionError:
        raise CorruptCheckpoint(f"{file}: nests too deep; this is no index of shards") from None
    except ValueError as error:
        raise CorruptCheckpoint(f"{file}: is not valid JSON: {_short(str(error))}; download it again") from error
