"""Safetensors: one file, a folder of them, or the shards that an index names. The header is untrusted input.

Format: https://huggingface.co/docs/safetensors, as of 0.8. A file is 8 bytes of header length, a JSON header, and the
tensors' bytes without gap or overlap.
"""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from blake3 import blake3

from weighbridge.checkpoints.dtypes import MAX_RANK, SAFETENSORS, DType
from weighbridge.checkpoints.protocol import Checkpoint, Fault, SourceFile, Tensor
from weighbridge.checkpoints.sources import Folder, Source
from weighbridge.errors import CorruptCheckpoint, WeighbridgeError

MAX_HEADER = 100_000_000
"""Bytes; the format's own bound."""
_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, eq=False, repr=False)
class SafetensorsTensor(Tensor):
    name: str
    shape: tuple[int, ...]
    dtype: DType
    file: str
    source: Source
    start: int

    @property
    def extent(self) -> tuple[Source, int]:
        return self.source, self.start

    def read_into(self, buffer: memoryview, offset: int) -> None:
        self.source.read_into(buffer, self.start + offset)


class Shard(NamedTuple):
    """A file whose header has been read and found sound."""

    file: SourceFile
    tensors: list[Tensor]


def open_file(source: Source) -> Shard:
    """Reads the header of one file. Raises `CorruptCheckpoint`; the tensors come in the order of their offsets."""
    header = _header_bytes(source)
    entries = _parse(header, source.name)
    tensors = list(_tensors(entries, source, 8 + len(header)))
    return Shard(SourceFile(source.name, source.size, source.modified_ns, blake3(header).hexdigest()), tensors)


def open_index(folder: Folder, index: str, name: str) -> Checkpoint:
    """The checkpoint that an index (`*.index.json`) of a folder names, its tensors in the order of the shards.

    A shard that is missing or unsound becomes faults of the tensors that the index places there.
    """
    weight_map = _weight_map(folder.open(index))
    by_shard: dict[str, list[str]] = {}
    for tensor, shard in weight_map.items():
        by_shard.setdefault(shard, []).append(tensor)
    files: list[SourceFile] = []
    tensors: list[Tensor] = []
    faults: list[Fault] = []
    for shard in sorted(by_shard):
        try:
            file, found = open_file(folder.open(shard))
        except WeighbridgeError as error:
            faults += [Fault(tensor, shard, str(error)) for tensor in by_shard[shard]]
            continue
        files.append(file)
        tensors += [tensor for tensor in found if weight_map.get(tensor.name) == shard]
        faults += _disagreements(index, shard, found, by_shard[shard], weight_map)
    if not files:
        raise CorruptCheckpoint(f"{index}: none of its {len(by_shard)} shards can be read; first: {faults[0].reason}")
    return Checkpoint(name, files, tensors, faults)


def _disagreements(
    index: str, shard: str, found: list[Tensor], wanted: list[str], weight_map: dict[str, str]
) -> Iterator[Fault]:
    """Tensors that a shard holds and the index does not know, and those that the index places there in vain."""
    for tensor in found:
        if tensor.name not in weight_map:
            reason = f"{shard}: holds tensor {tensor.name!r}, which {index} does not place there"
            yield Fault(tensor.name, shard, reason, tensor.shape, tensor.dtype.name)
    held = {tensor.name for tensor in found}
    for name in (name for name in wanted if name not in held):
        yield Fault(name, shard, f"{shard}: lacks tensor {name!r}, which {index} places there; download both again")


def open_folder(folder: Folder, names: list[str], name: str) -> Checkpoint:
    """Some files of a folder as one checkpoint; a tensor's name that two files hold keeps its first tensor."""
    files: list[SourceFile] = []
    tensors: list[Tensor] = []
    faults: list[Fault] = []
    first_in: dict[str, str] = {}
    for file_name in names:
        try:
            file, found = open_file(folder.open(file_name))
        except WeighbridgeError as error:
            if len(names) == 1:
                raise
            faults.append(Fault(file_name, file_name, str(error)))
            continue
        files.append(file)
        for tensor in found:
            first = first_in.setdefault(tensor.name, file_name)
            if first == file_name:
                tensors.append(tensor)
            else:
                reason = f"{file_name}: tensor {tensor.name!r} is in {first} too; scan the files one by one"
                twin = f"{file_name}:{tensor.name}"
                faults.append(Fault(twin, file_name, reason, tensor.shape, tensor.dtype.name))
    if not files:
        raise CorruptCheckpoint(f"{name}: none of its {len(names)} files can be read; first: {faults[0].reason}")
    return Checkpoint(name, files, tensors, faults)


def _header_bytes(source: Source) -> bytes:
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


def _tensors(entries: dict[str, Any], source: Source, data_start: int) -> Iterator[Tensor]:
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


def _weight_map(source: Source) -> dict[str, str]:
    if source.size > MAX_HEADER:
        raise CorruptCheckpoint(f"{source.name}: {source.size:,} bytes, expected an index of at most {MAX_HEADER:,}")
    parsed = _parse_index(source.read(0, source.size), source.name)
    weight_map = parsed.get("weight_map") if isinstance(parsed, dict) else None
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(shard, str) for shard in weight_map.values())
    ):
        raise CorruptCheckpoint(
            f"{source.name}: no weight_map of tensor names to files; expected an index as Hugging Face writes it"
        )
    return weight_map


def _parse_index(text: bytes, file: str) -> Any:
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_unique_keys)
    except RecursionError:
        raise CorruptCheckpoint(f"{file}: nests too deep; this is no index of shards") from None
    except ValueError as error:
        raise CorruptCheckpoint(f"{file}: is not valid JSON: {_short(str(error))}; download it again") from error
