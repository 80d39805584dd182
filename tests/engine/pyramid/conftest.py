"""What the tests of pyramids share: tensors of every type with their values, tensors that are watched, an oracle."""

import json
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import weighbridge
from weighbridge import Tensor
from weighbridge.checkpoints.dtypes import SAFETENSORS, DType
from weighbridge.pyramid import Pyramid
from weighbridge_kernels import formats


@dataclass
class Place:
    """Where a tensor would lie, were it in a file."""

    path: str = "there"
    size: int = 1
    modified_ns: int | None = 1
    name: str = "there"


@dataclass(eq=False, repr=False)
class Watched(Tensor):
    """An array that counts what is read of it; `reading` is called before each read and may wait or raise."""

    array: np.ndarray
    name: str = "w"
    place: Place | None = field(default_factory=Place)
    reading: Callable[[], None] = lambda: None
    file: str = ""
    bytes_read: int = 0
    lock: Any = field(default_factory=threading.Lock)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> DType:
        return SAFETENSORS["F32"]

    @property
    def extent(self) -> Any:
        return self.place and (self.place, 0)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        self.reading()
        with self.lock:
            self.bytes_read += len(buffer)
        buffer[:] = self.array.reshape(-1).view(np.uint8)[offset : offset + len(buffer)].data


@pytest.fixture(scope="session")
def place() -> type[Place]:
    return Place


@pytest.fixture(scope="session")
def watched() -> type[Watched]:
    return Watched


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., tuple[Tensor, np.ndarray]]:
    """A tensor in a safetensors file, of any type that the format has, with its values: float64, or wide integers."""

    def stored(name: str, shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, np.ndarray]:
        rng, dtype, count = np.random.default_rng(seed), SAFETENSORS[name], int(np.prod(shape))
        if dtype.bits <= 16:
            table = formats.values(name)
            codes = rng.integers(0, 2 if name == "BOOL" else table.size, count)
            codes[rng.random(count) < 0.1] = 0
            data, values = _packed(codes, dtype.bits), table[codes]
        elif dtype.kind == "float":
            values = rng.standard_t(2, count).astype(dtype.array)
            values *= dtype.array.type(1e200 if name == "F64" else 1e30)
            places = rng.random(count) < 0.05
            values[places] = rng.choice([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-42], places.sum())
            data, values = values.tobytes(), values.astype(np.float64)
        else:
            limits = np.iinfo(dtype.array)
            values = rng.integers(limits.min, limits.max, count, dtype.array, endpoint=True)
            values[rng.random(count) < 0.1] = 0
            data = values.tobytes()
        header = json.dumps({"w": {"dtype": name, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
        path = tmp_path / f"{name}-{'x'.join(map(str, shape))}-{seed}.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header + data)
        return weighbridge.open(path)["w"], values.reshape(shape)

    return stored


def _packed(codes: np.ndarray, bits: int) -> bytes:
    if bits >= 8:
        return codes.astype(f"<u{bits // 8}").tobytes()
    bits_of_codes = (codes[:, None] >> np.arange(bits)) & 1
    return np.packbits(bits_of_codes.astype(np.uint8).reshape(-1), bitorder="little").tobytes()


@pytest.fixture(scope="session")
def assert_levels() -> Callable[[Pyramid, np.ndarray], None]:
    return _assert_levels


def _assert_levels(pyramid: Pyramid, x: np.ndarray) -> None:
    """Every level against a direct reduction of the entries.

    Extremes and counts exactly, the mean within 1e-6 of the mean magnitude, the root mean square within 1e-6.
    """
    assert pyramid.layout.shape == x.shape
    assert pyramid.layout.blocks(pyramid.layout.levels - 1) == (1, 1)
    finite, wide = np.isfinite(x), x.astype(np.float64)
    top = float(np.abs(wide[finite]).max(initial=0)) or 1.0
    scaled = np.where(finite, wide, 0) / top
    low, high = (-np.inf, np.inf) if x.dtype.kind == "f" else (np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)
    for level in range(pyramid.layout.levels):
        side = 8 << level
        got = pyramid.blocks(level, slice(None), slice(None))

        def reduced(by: np.ufunc, grid: np.ndarray, side: int = side) -> np.ndarray:
            for axis in (0, 1):
                grid = by.reduceat(grid, np.arange(0, x.shape[axis], side), axis)
            return grid

        n = reduced(np.add, finite.astype(np.int64))
        some, share = n > 0, np.maximum(n, 1)
        for ours, theirs in (
            (got.zeros, reduced(np.add, (x == 0).astype(np.int64))),
            (got.nan, reduced(np.add, np.isnan(x).astype(np.int64))),
            (got.inf, reduced(np.add, np.isinf(x).astype(np.int64))),
            (got.least[some], reduced(np.minimum, np.where(finite, x, high))[some]),
            (got.greatest[some], reduced(np.maximum, np.where(finite, x, low))[some]),
        ):
            np.testing.assert_array_equal(ours, theirs, f"level {level}")
        magnitude = reduced(np.add, np.abs(scaled)) / share
        rms = np.sqrt(reduced(np.add, np.square(scaled)) / share)
        tiny = 2.0**-148 / top  # where float32 has few digits left
        assert (np.abs(got.mean / top - reduced(np.add, scaled) / share) <= 1e-6 * magnitude + tiny).all(), level
        assert (np.abs(got.rms / top - rms) <= 1e-6 * rms + tiny).all(), level
