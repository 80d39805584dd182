"""What the tests of readers share: files built byte by byte, reads that are counted, refusals that are judged."""

import io
import json
import os
import struct
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import weighbridge
from weighbridge import CorruptCheckpoint, WeighbridgeError

NAMES = {
    np.dtype(dtype): name
    for dtype, name in {
        np.bool_: "BOOL",
        np.uint8: "U8",
        np.int8: "I8",
        np.int16: "I16",
        np.int64: "I64",
        np.float16: "F16",
        ml_dtypes.bfloat16: "BF16",
        np.float32: "F32",
        np.float64: "F64",
        np.complex64: "C64",
        ml_dtypes.float8_e4m3fn: "F8_E4M3",
    }.items()
}
LONGEST_MESSAGE = 600
MOST_MEMORY = 16 << 20


@pytest.fixture(scope="session")
def pack() -> Callable[..., bytes]:
    """A safetensors file of a header (its bytes, its text or the object) and data."""

    def packed(header: bytes | str | Any, data: bytes = b"") -> bytes:
        text = header if isinstance(header, str | bytes) else json.dumps(header)
        encoded = text.encode() if isinstance(text, str) else text
        return struct.pack("<Q", len(encoded)) + encoded + data

    return packed


@pytest.fixture(scope="session")
def pack_arrays(pack: Callable[..., bytes]) -> Callable[[Mapping[str, np.ndarray]], bytes]:
    """A safetensors file of arrays, in their order."""

    def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
        header, data = {}, b""
        for name, array in arrays.items():
            begin, data = len(data), data + array.tobytes()
            header[name] = {
                "dtype": NAMES[array.dtype],
                "shape": list(array.shape),
                "data_offsets": [begin, len(data)],
            }
        return pack(header, data)

    return packed


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Writes a file of the test's own folder and gives its path."""

    def written(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return written


@pytest.fixture(scope="session")
def judge() -> Callable[..., None]:
    """Asserts that a message is one short line, names the file and says each of the parts."""

    def judged(message: str, file: str, *parts: str) -> None:
        assert len(message.splitlines()) == 1, message
        assert message.isprintable(), message
        assert len(message) < LONGEST_MESSAGE
        assert file in message
        for part in parts:
            assert part in message

    return judged


@pytest.fixture(scope="session")
def refuses(judge: Callable[..., None]) -> Callable[..., None]:
    """Asserts that opening a source fails as expected, with a good message, and takes little memory."""

    def refused(source: Path, *parts: str, error: type[WeighbridgeError] = CorruptCheckpoint) -> None:
        tracemalloc.start()
        try:
            with pytest.raises(error) as caught:
                weighbridge.open(source)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert type(caught.value) is error
        assert peak < MOST_MEMORY
        judge(str(caught.value), source.name, *parts)

    return refused


@pytest.fixture
def read_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all reads of files from now on, by position or as a stream."""
    sizes: list[int] = []
    preadv, opened = os.preadv, io.open

    def counted(*args: Any) -> int:
        sizes.append(preadv(*args))
        return sizes[-1]

    class CountedFile(io.FileIO):
        def readinto(self, buffer: Any) -> int | None:
            got = super().readinto(buffer)
            sizes.append(got or 0)
            return got

    monkeypatch.setattr(os, "preadv", counted)

    def opened_counted(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        return io.BufferedReader(CountedFile(path)) if mode == "rb" else opened(path, mode, *args, **kwargs)

    monkeypatch.setattr(io, "open", opened_counted)
    return sizes
