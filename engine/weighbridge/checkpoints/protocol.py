"""What every format offers: a checkpoint of named tensors, of which nothing but headers has been read."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from weighbridge.checkpoints.dtypes import DType
from weighbridge.checkpoints.sources import Folder, Source
from weighbridge.errors import TensorNotFound

Slices = slice | int | tuple[slice | int, ...]


@runtime_checkable
class Tensor(Protocol):
    """A tensor that stays where it is until bytes of it are read.

    A format implements `read_into`; everything else follows. `file` is the name of the file the tensor lives in,
    relative to the checkpoint. Entries are in row-major order, little end first, sub-byte entries packed from the
    lowest bits.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType
    file: str

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fills `buffer` with the tensor's bytes from byte `offset` on. May be called from any thread.

        Raises `ReadFailed` where the bytes are not to be had, `CorruptCheckpoint` where they contradict the header.
        """
        ...

    @property
    def extent(self) -> tuple[Source, int] | None:
        """The file and the byte in it where the tensor begins, if its bytes lie in one as they are."""
        return None

    @property
    def count(self) -> int:
        """Number of entries; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes as stored."""
        return self.dtype.nbytes(self.count)

    def read(self, slices: Slices = ()) -> npt.NDArray[Any]:
        """The entries in `slices` (integers and slices, as NumPy takes them; all by default) as a NumPy array.

        Only the rows of the first axis that are asked for are read. bfloat16 and narrower floats come as ml_dtypes'.
        """
        index = slices if isinstance(slices, tuple) else (slices,)
        if not self.shape:
            return self.entries(0, 1).reshape(())[(*index, ...)]
        first = index[0] if index else slice(None)
        every = range(self.shape[0])
        rows = every[first] if isinstance(first, slice) else range(every[first], every[first] + 1)
        low, high = (min(rows[0], rows[-1]), max(rows[0], rows[-1]) + 1) if rows else (0, 0)
        row = math.prod(self.shape[1:])
        block = self.entries(low * row, (high - low) * row).reshape(high - low, *self.shape[1:])
        keep = slice(None, None, rows.step) if isinstance(first, slice) else 0
        return block[(keep, *index[1:], ...)]

    def entries(self, start: int, count: int) -> npt.NDArray[Any]:
        """Entries [start, start + count) of the flat tensor; sub-byte ones from the byte boundary before."""
        aligned = start // 8 * 8 if self.dtype.bits < 8 else start
        begin = aligned * self.dtype.bits // 8
        packed = np.empty(self.dtype.nbytes(start - aligned + count), np.uint8)
        if packed.size:
            self.read_into(packed.data, begin)
        return self.dtype.unpack(packed, start - aligned + count)[start - aligned :]

    def __repr__(self) -> str:
        return f"Tensor({self.name!r}, {list(self.shape)}, {self.dtype}, {self.nbytes:,} bytes)"


@dataclass(frozen=True)
class SourceFile:
    """What identifies a file of a checkpoint: `header` is the BLAKE3 of its header, in hexadecimal."""

    name: str
    size: int
    modified_ns: int | None
    header: str


@dataclass(frozen=True)
class Fault:
    """A tensor that is named but cannot be had, with the reason."""

    name: str
    file: str
    reason: str
    shape: tuple[int, ...] = ()
    dtype: str = ""


class Checkpoint(Mapping[str, Tensor]):
    """Named tensors in checkpoint order, the files they live in, and what of it is out of reach.

    `checkpoint[name]` is a `Tensor`; nothing but headers has been read. `readers` is how many reads at a time suit
    where it lies; `folder` holds what is kept beside the weights, None in memory.
    """

    readers = 1
    folder: Folder | None = None

    def __init__(
        self, name: str, files: Sequence[SourceFile], tensors: Sequence[Tensor], faults: Sequence[Fault] = ()
    ) -> None:
        self.name = name
        self.files = tuple(files)
        self.faults = tuple(faults)
        self._tensors = {tensor.name: tensor for tensor in tensors}

    def __getitem__(self, name: str) -> Tensor:
        try:
            return self._tensors[name]
        except KeyError:
            raise TensorNotFound(
                f"{self.name}: no tensor {name!r} among its {len(self):,}{_like(name, self)}"
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors as stored."""
        return sum(tensor.nbytes for tensor in self.values())

    @property
    def header_hash(self) -> str:
        """BLAKE3 over the names and header hashes of the files, in hexadecimal."""
        return blake3("".join(f"{file.name}\0{file.header}\0" for file in self.files).encode()).hexdigest()

    def __repr__(self) -> str:
        return f"Checkpoint({self.name!r}, {len(self):,} tensors, {self.nbytes:,} bytes, {len(self.files)} files)"


def _like(name: str, names: Mapping[str, Tensor]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, list(names)[:5000], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
