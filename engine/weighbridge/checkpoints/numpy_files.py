"""NumPy's `.npy` and `.npz`, read by range where they are stored plain, never unpickled."""

import io
import lzma
import math
import struct
import threading
import tokenize
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from blake3 import blake3

from weighbridge.checkpoints import dtypes
from weighbridge.checkpoints.dtypes import DType
from weighbridge.checkpoints.local_file import LocalFile
from weighbridge.checkpoints.protocol import Checkpoint, Fault, SourceFile, Tensor
from weighbridge.errors import CorruptCheckpoint, ReadFailed, WeighbridgeError

_MAX_ARRAY_HEADER = 10_000
"""Bytes; NumPy's own bound for headers it did not write."""
_HEADER_PARSERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,  # differs in the names of fields alone, which no weights have
}
_UNREADABLE = (
    ValueError,
    SyntaxError,
    TypeError,
    LookupError,
    MemoryError,
    RecursionError,
    tokenize.TokenError,
)
"""What NumPy's parser raises for headers that are none."""
_DAMAGED = (
    OSError,
    RuntimeError,  # an encrypted member, an unknown compression
    ValueError,
    LookupError,
    EOFError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""What zipfile raises for archives that are damaged, or made to be."""
_MAX_MEMBERS = 1_000_000
_MAX_DEFLATE_RATIO = 1032
"""Deflate cannot expand further; a member that claims more lies about its size."""
_MAX_TRANSPOSED = 1 << 28
"""Bytes of an array in Fortran order that may be held at once to hand out its rows."""


@dataclass(frozen=True)
class _ArrayHeader:
    shape: tuple[int, ...]
    dtype: DType
    stored: np.dtype[Any]
    fortran: bool
    length: int


@dataclass(frozen=True, eq=False, repr=False)
class NumpyTensor(Tensor):
    """An array of a file; `reader` gives ranges of the bytes behind its header."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    file: str
    header: _ArrayHeader
    reader: "_Range | _Inflated"
    _transposed: list[np.ndarray] = field(default_factory=list)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        if self.header.fortran and len(self.shape) > 1:
            buffer[:] = self._in_c_order()[offset : offset + len(buffer)].data
            return
        if self.header.stored.isnative:
            self.reader.read_into(buffer, offset)
            return
        item = self.header.stored.itemsize
        first, last = offset // item * item, -(-(offset + len(buffer)) // item) * item
        whole = bytearray(last - first)
        self.reader.read_into(memoryview(whole), first)
        native = np.frombuffer(whole, self.header.stored).astype(self.dtype.array).view(np.uint8)
        buffer[:] = native[offset - first :][: len(buffer)].data

    def _in_c_order(self) -> np.ndarray:
        """All bytes of a Fortran-ordered array, turned to row-major order and kept."""
        if not self._transposed:
            if self.nbytes > _MAX_TRANSPOSED:
                raise ReadFailed(
                    f"{self.file}: array {self.name!r} is in Fortran order and has {self.nbytes:,} bytes, "
                    f"expected at most {_MAX_TRANSPOSED:,}; save it again with np.ascontiguousarray"
                )
            packed = bytearray(self.nbytes)
            self.reader.read_into(memoryview(packed), 0)
            native = np.frombuffer(packed, self.header.stored).reshape(self.shape[::-1]).T.astype(self.dtype.array)
            self._transposed.append(np.ascontiguousarray(native).reshape(-1).view(np.uint8))
        return self._transposed[0]


@dataclass(frozen=True)
class _Range:
    """Bytes of a file from `start` on."""

    source: LocalFile
    start: int

    def read_into(self, buffer: memoryview, offset: int) -> None:
        self.source.read_into(buffer, self.start + offset)


class _Inflated:
    """A compressed member, inflated forwards as it is read; a step back starts it again."""

    def __init__(self, path: Path, file: str, member: zipfile.ZipInfo, skip: int) -> None:
        self._path, self._file, self._member, self._skip = path, file, member, skip
        self._lock = threading.Lock()
        self._stream: IO[bytes] | None = None
        self._at = 0

    def read_into(self, buffer: memoryview, offset: int) -> None:
        with self._lock:
            try:
                self._seek(offset)
                assert self._stream is not None
                got = self._stream.readinto(buffer)  # type: ignore[attr-defined]
            except _DAMAGED as error:
                self._close()
                raise ReadFailed(
                    f"{self._file}: member {self._member.filename!r} is damaged: {_reason(error)}"
                ) from error
            self._at += got
            if got != len(buffer):
                raise ReadFailed(f"{self._file}: member {self._member.filename!r} ends early; the file is truncated")

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    __del__ = _close

    def _seek(self, offset: int) -> None:
        if self._stream is None or offset < self._at:
            self._close()
            with zipfile.ZipFile(self._path) as archive:  # its file stays open until the member is closed
                self._stream = io.BufferedReader(archive.open(self._member), 1 << 20)  # type: ignore[type-var]
            self._stream.read(self._skip)
            self._at = 0
        while self._at < offset:
            self._at += len(self._stream.read(min(1 << 20, offset - self._at))) or offset


def open_npy(path: Path) -> Checkpoint:
    """One array, named after its file."""
    source = LocalFile(path, path.name)
    head = source.read(0, min(source.size, _MAX_ARRAY_HEADER + 12))
    header = _array_header(head, path.name)
    if header.length + _stored_bytes(header) != source.size:
        raise CorruptCheckpoint(
            f"{path.name}: shape {list(header.shape)} of {header.dtype} needs {_stored_bytes(header):,} bytes, "
            f"the file holds {source.size - header.length:,}; it is damaged"
        )
    file = SourceFile(path.name, source.size, source.modified_ns, blake3(head[: header.length]).hexdigest())
    tensor = NumpyTensor(path.stem, header.shape, header.dtype, path.name, header, _Range(source, header.length))
    return Checkpoint(path.stem, [file], [tensor])


def open_npz(path: Path) -> Checkpoint:
    """The arrays of an archive in their order; one that cannot be read without executing it is a fault."""
    source = LocalFile(path, path.name)
    try:
        with zipfile.ZipFile(path) as archive:
            members = _checked_members(archive, source)
            directory = repr([(m.filename, m.file_size, m.compress_size, m.CRC, m.header_offset) for m in members])
            tensors, faults = _members(archive, members, source)
    except WeighbridgeError:
        raise
    except _DAMAGED as error:
        raise CorruptCheckpoint(f"{path.name}: is no sound zip archive: {_reason(error)}; save it again") from error
    file = SourceFile(path.name, source.size, source.modified_ns, blake3(directory.encode()).hexdigest())
    return Checkpoint(path.stem, [file], tensors, faults)


def _checked_members(archive: zipfile.ZipFile, source: LocalFile) -> list[zipfile.ZipInfo]:
    """The members, whose claims must fit in the file: none outside it, none overlapping, none beyond deflate."""
    members = [member for member in archive.infolist() if not member.filename.endswith("/")]
    if len(members) > _MAX_MEMBERS:
        raise CorruptCheckpoint(f"{source.name}: {len(members):,} members, expected at most {_MAX_MEMBERS:,}")
    end = 0
    for member in sorted(members, key=lambda m: m.header_offset):
        where = f"{source.name}: member {member.filename!r}"
        if member.header_offset < end:
            raise CorruptCheckpoint(f"{where} overlaps the one before; this is no archive that NumPy wrote")
        end = member.header_offset + member.compress_size
        if end > source.size:
            raise CorruptCheckpoint(f"{where} ends at byte {end:,} of {source.size:,}; the file is truncated")
        if member.file_size > _MAX_DEFLATE_RATIO * (member.compress_size + 64):
            raise CorruptCheckpoint(
                f"{where} claims {member.file_size:,} bytes from {member.compress_size:,}, more than deflate can hold"
            )
    if len({member.filename for member in members}) < len(members):
        raise CorruptCheckpoint(f"{source.name}: two members have the same name; save it again")
    return members


def _members(
    archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], source: LocalFile
) -> tuple[list[Tensor], list[Fault]]:
    tensors: list[Tensor] = []
    faults: list[Fault] = []
    for member in members:
        name = member.filename.removesuffix(".npy")
        try:
            tensors.append(_member(archive, member, name, source))
        except WeighbridgeError as error:
            faults.append(Fault(name, source.name, str(error)))
        except _DAMAGED as error:
            reason = f"{source.name}: member {member.filename!r} cannot be read: {_reason(error)}"
            faults.append(Fault(name, source.name, reason))
    return tensors, faults


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, source: LocalFile) -> Tensor:
    where = f"{source.name}: array {name!r}"
    if not member.filename.endswith(".npy"):
        raise CorruptCheckpoint(f"{where}: is no .npy member; only arrays are read")
    with archive.open(member) as stream:
        head = stream.read(min(_MAX_ARRAY_HEADER + 12, member.file_size))
    if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
        raise CorruptCheckpoint(
            f"{where}: claims {member.file_size:,} bytes, stored in {member.compress_size:,}; it is damaged"
        )
    header = _array_header(head, where)
    if header.length + _stored_bytes(header) != member.file_size:
        raise CorruptCheckpoint(
            f"{where}: shape {list(header.shape)} of {header.dtype} needs {_stored_bytes(header):,} bytes, "
            f"the member holds {member.file_size - header.length:,}; it is damaged"
        )
    reader: _Range | _Inflated
    if member.compress_type == zipfile.ZIP_STORED:
        reader = _Range(source, _data_offset(source, member) + header.length)
    else:
        reader = _Inflated(source.path, source.name, member, header.length)
    return NumpyTensor(name, header.shape, header.dtype, source.name, header, reader)


def _data_offset(source: LocalFile, member: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes begin: behind its local header, whose fields have lengths of their own."""
    name_length, extra_length = struct.unpack("<26x2H", source.read(member.header_offset, 30))
    return int(member.header_offset + 30 + name_length + extra_length)


def _array_header(head: bytes, where: str) -> _ArrayHeader:
    """NumPy's own parser, which evaluates literals alone, bounded in size."""
    stream = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADER_PARSERS:
            raise ValueError(f"version {version}, expected 1.0, 2.0 or 3.0")
        shape, fortran, stored = _HEADER_PARSERS[version](stream, max_header_size=_MAX_ARRAY_HEADER)
    except _UNREADABLE as error:
        raise CorruptCheckpoint(f"{where}: no readable array header: {_reason(error)}") from error
    if stored.hasobject:
        raise CorruptCheckpoint(f"{where}: holds Python objects, which would have to be unpickled; expected numbers")
    dtype = dtypes.of_array(stored)
    if dtype is None:
        raise CorruptCheckpoint(f"{where}: dtype {str(stored)[:80]} holds no weights; expected numbers")
    if any(type(side) is not int or side < 0 for side in shape) or not dtype.fits(shape):
        expected = f"up to {dtypes.MAX_RANK} integers from 0 on, within 2^63 bytes"
        raise CorruptCheckpoint(f"{where}: shape {repr(shape)[:80]}, expected {expected}")
    return _ArrayHeader(tuple(shape), dtype, stored, fortran, stream.tell())


def _reason(error: BaseException) -> str:
    """The first line of what another library says, cut short; the error's name where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _stored_bytes(header: _ArrayHeader) -> int:
    return math.prod(header.shape) * header.stored.itemsize
