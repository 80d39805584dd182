"""A pyramid on disk: a zarr group with one array for each level and quantity, uncompressed, each chunk with its CRC."""

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge.checkpoints.dtypes import SAFETENSORS, DType
from weighbridge.errors import WeighbridgeError
from weighbridge_kernels.blocks import BASE, Blocks

VERSION = 1
FILE = "pyramid.json"
QUANTITIES = tuple(field.name for field in fields(Blocks))
_CHUNK = 512
_CHUNK_BLOCKS = 1 << 21
"""Blocks of a strip of chunks across the whole level, which a writer holds in memory."""
_CRC_BYTES = 4

Shape = tuple[int, int]


class CorruptPyramid(WeighbridgeError, ValueError):
    """A cached pyramid is not what it should be; it is made anew."""


@dataclass(frozen=True)
class Layout:
    """Shape and dtype of the matrix, from which every array of the pyramid follows."""

    shape: Shape
    dtype: str
    version: int = VERSION

    @property
    def levels(self) -> int:
        """Enough for the coarsest to be a single block."""
        return max(-(-max(self.shape) // BASE) - 1, 0).bit_length() + 1

    def side(self, level: int) -> int:
        """Side of a level's blocks in entries."""
        return BASE << level

    def blocks(self, level: int) -> Shape:
        """Blocks down and across at a level."""
        rows, cols = (-(-extent // self.side(level)) for extent in self.shape)
        return rows, cols

    def entries(self, level: int, at: tuple[slice, slice]) -> npt.NDArray[np.int64]:
        """How many entries each of some blocks of a level has; those at the edges are cut short."""
        side = self.side(level)
        starts = (np.arange(count)[part] * side for count, part in zip(self.blocks(level), at, strict=True))
        rows, cols = (np.minimum(side, extent - start) for extent, start in zip(self.shape, starts, strict=True))
        return np.multiply.outer(rows, cols)

    def chunks(self, level: int) -> Shape:
        """The shape of a level's chunks: about square, lower where a level is very wide, long in a single row."""
        rows, cols = self.blocks(level)
        if rows == 1:
            return 1, min(cols, _CHUNK * _CHUNK)
        return min(rows, max(1, min(_CHUNK, _CHUNK_BLOCKS // cols))), min(cols, _CHUNK)

    def stored(self, level: int, quantity: str) -> np.dtype[Any]:
        """Extremes in the matrix's own type (narrow ones as their bits), counts in the smallest that holds them."""
        if quantity in ("least", "greatest"):
            array = self.entry_dtype.array
            return np.dtype(f"u{array.itemsize}") if array.itemsize <= 2 else array
        if quantity in ("mean", "rms"):
            return np.dtype(np.float64 if self.dtype == "F64" else np.float32)
        return np.min_scalar_type(self.side(level) ** 2)

    @property
    def entry_dtype(self) -> DType:
        return SAFETENSORS[self.dtype]

    def nbytes(self) -> int:
        """Bytes of all chunks."""
        return sum(count * size for count, size in self._chunk_files())

    def _chunk_files(self) -> Iterator[tuple[int, int]]:
        """For every array the number of its chunks and the bytes of each."""
        for level in range(self.levels):
            down, across = zip(self.blocks(level), self.chunks(level), strict=True)
            count = -(-down[0] // down[1]) * -(-across[0] // across[1])
            for quantity in QUANTITIES:
                yield count, down[1] * across[1] * self.stored(level, quantity).itemsize + _CRC_BYTES


class Pyramid:
    """A finished pyramid, opened for reading. `holder` is what keeps its folder, where that is a temporary one."""

    def __init__(self, folder: Path, layout: Layout, holder: object = None) -> None:
        self.folder = folder
        self.layout = layout
        self._holder = holder

    @classmethod
    def open(cls, folder: Path, layout: Layout, holder: object = None) -> "Pyramid":
        """Opens what lies in a folder and marks it as used. Raises `CorruptPyramid` unless it is whole and of `layout`.

        Every chunk must be there in its full size; a chunk's CRC is checked when it is read.
        """
        try:
            found = json.loads((folder / FILE).read_text(encoding="utf-8"))
            expected = asdict(layout) | {"shape": list(layout.shape)}
            sizes = sorted(path.stat().st_size for path in folder.glob("*/*/c/*/*"))
        except (OSError, ValueError, RecursionError) as error:
            raise CorruptPyramid(f"{folder}: no pyramid can be read here: {error}") from error
        if found != expected or sizes != sorted(size for count, size in layout._chunk_files() for _ in range(count)):
            raise CorruptPyramid(f"{folder}: is not the pyramid of a {layout.dtype} matrix of {layout.shape}")
        pyramid = cls(folder, layout, holder)
        pyramid.touch()
        return pyramid

    def touch(self) -> bool:
        """Marks it as used; False where it is no longer there."""
        try:
            os.utime(self.folder / FILE)
        except PermissionError:  # others' cache, only to be read
            pass
        except OSError:
            return False
        return True

    @cached_property
    def _group(self) -> Any:
        import zarr

        return zarr.open_group(self.folder, mode="r", zarr_format=3)

    def read(self, level: int, rows: slice, cols: slice, quantities: tuple[str, ...] = QUANTITIES) -> dict[str, Any]:
        """The quantities asked for over blocks of a level, as NumPy arrays; extremes as float32 or wider numbers.

        Raises `CorruptPyramid` where a chunk is damaged.
        """
        try:
            return {name: self._read(level, name, rows, cols) for name in quantities}
        except Exception as error:  # whatever a codec raises
            raise CorruptPyramid(f"{self.folder}: level {level} cannot be read: {error}") from error

    def _read(self, level: int, quantity: str, rows: slice, cols: slice) -> npt.NDArray[Any]:
        stored: npt.NDArray[Any] = self._group[f"{level}/{quantity}"][rows, cols]
        self._check_chunks(level, quantity, (rows, cols))
        array = self.layout.entry_dtype.array
        if quantity not in ("least", "greatest") or stored.dtype == array:
            return stored
        return stored.view(array).astype(np.float32)

    def _check_chunks(self, level: int, quantity: str, window: tuple[slice, slice]) -> None:
        """For zarr gives zeros in place of chunks that another process has removed."""
        of_chunks = []
        for part, extent, side in zip(window, self.layout.blocks(level), self.layout.chunks(level), strict=True):
            start, stop, _ = part.indices(extent)
            of_chunks.append(range(start // side, -(-stop // side)))
        for i, j in itertools.product(*of_chunks):
            os.stat(self.folder / str(level) / quantity / "c" / str(i) / str(j))

    def blocks(self, level: int, rows: slice, cols: slice) -> Blocks:
        """All quantities over blocks of a level."""
        return Blocks(**self.read(level, rows, cols))


class PyramidWriter:
    """Takes the levels of one strip after the other and writes whole chunks.

    Strips follow one another along the rows, of a matrix of a single row along its columns.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        import zarr

        self._layout = layout
        self._axis = 1 if layout.shape[0] == 1 else 0
        self._folder = folder
        self._waiting: dict[int, list[Blocks]] = {}
        self._written = [0] * layout.levels
        group = zarr.open_group(folder, mode="w", zarr_format=3)
        levels = range(layout.levels)
        self._arrays = [{name: self._create(group, level, name) for name in QUANTITIES} for level in levels]

    def _create(self, group: Any, level: int, quantity: str) -> Any:
        from zarr.codecs import Crc32cCodec

        return group.create_array(
            f"{level}/{quantity}",
            shape=self._layout.blocks(level),
            chunks=self._layout.chunks(level),
            dtype=self._layout.stored(level, quantity),
            compressors=[Crc32cCodec()],
            config={"write_empty_chunks": True},
        )

    def append(self, level: int, blocks: Blocks) -> None:
        """The next blocks of a level; written when chunks are full or the level is."""
        waiting = self._waiting.setdefault(level, [])
        waiting.append(blocks)
        size = sum(part.shape[self._axis] for part in waiting)
        chunk, extent = self._layout.chunks(level)[self._axis], self._layout.blocks(level)[self._axis]
        at = self._written[level]
        whole = size if at + size == extent else size // chunk * chunk
        if whole:
            joined = Blocks(*(np.concatenate(grids, self._axis) for grids in zip(*waiting, strict=True)))
            self._write(level, joined, at, whole)
            self._waiting[level] = [_part(joined, self._axis, whole, size)] if whole < size else []
            self._written[level] = at + whole

    def _write(self, level: int, blocks: Blocks, at: int, count: int) -> None:
        where = (slice(None),) * self._axis + (slice(at, at + count),)
        for name, grid in zip(QUANTITIES, _part(blocks, self._axis, 0, count), strict=True):
            self._arrays[level][name][where] = self._encoded(level, name, grid)

    def _encoded(self, level: int, quantity: str, grid: npt.NDArray[Any]) -> npt.NDArray[Any]:
        stored = self._layout.stored(level, quantity)
        if quantity in ("least", "greatest"):
            return np.ascontiguousarray(grid.astype(self._layout.entry_dtype.array)).view(stored)
        return grid.astype(stored)

    def complete(self) -> None:
        """Says that the pyramid is whole; before that nothing opens it."""
        (self._folder / FILE).write_text(json.dumps(asdict(self._layout)), encoding="utf-8")


def _part(blocks: Blocks, axis: int, start: int, stop: int) -> Blocks:
    kept = slice(start, stop)
    return blocks[(kept, slice(None)) if axis == 0 else (slice(None), kept)]
