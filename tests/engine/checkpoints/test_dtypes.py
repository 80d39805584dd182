"""Every dtype of the format, byte by byte."""

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weighbridge
from weighbridge import Tensor
from weighbridge.checkpoints.dtypes import SAFETENSORS, of_array

INF, NAN = float("inf"), float("nan")
DOUBLE = struct.pack("<4d", -0.0, 0.1, -1e300, NAN)

EXACT: dict[str, tuple[int, str, list[Any]]] = {
    "BOOL": (8, "00 01 01", [False, True, True]),
    "U8": (8, "00 01 ff", [0, 1, 255]),
    "I8": (8, "00 7f 80 ff", [0, 127, -128, -1]),
    "U16": (16, "01 02 ff ff", [0x0201, 65535]),
    "I16": (16, "01 02 00 80", [0x0201, -32768]),
    "U32": (32, "01 02 03 04 ff ff ff ff", [0x04030201, 2**32 - 1]),
    "I32": (32, "01 02 03 04 00 00 00 80", [0x04030201, -(2**31)]),
    "U64": (64, "01 00 00 00 00 00 00 80", [2**63 + 1]),
    "I64": (64, "ff ff ff ff ff ff ff ff 00 00 00 00 00 00 00 80", [-1, -(2**63)]),
    "F16": (16, "00 3c 00 80 01 00 ff 7b 00 fc 00 7e", [1.0, -0.0, 2.0**-24, 65504.0, -INF, NAN]),
    "BF16": (16, "80 3f 00 80 01 00 7f 7f 80 ff c0 7f", [1.0, -0.0, 2.0**-133, 255 * 2.0**120, -INF, NAN]),
    "F32": (32, "00 00 80 3f 00 00 00 80 01 00 00 00 00 00 80 ff", [1.0, -0.0, 2.0**-149, -INF]),
    "F64": (64, DOUBLE.hex(), [-0.0, 0.1, -1e300, NAN]),
    "C64": (64, "00 00 80 3f 00 00 00 c0", [1 - 2j]),
    "F8_E5M2": (8, "3c bc 01 80 7b 7c fc 7f", [1.0, -1.0, 2.0**-16, -0.0, 57344.0, INF, -INF, NAN]),
    "F8_E4M3": (8, "38 b8 01 80 7e 7f", [1.0, -1.0, 2.0**-9, -0.0, 448.0, NAN]),
    "F8_E5M2FNUZ": (8, "40 c0 01 00 7f 80", [1.0, -1.0, 2.0**-17, 0.0, 57344.0, NAN]),
    "F8_E4M3FNUZ": (8, "40 c0 01 00 7f 80", [1.0, -1.0, 2.0**-10, 0.0, 240.0, NAN]),
    "F8_E8M0": (8, "7f 80 00 fe ff", [1.0, 2.0, 2.0**-127, 2.0**127, NAN]),
    # The codes 1, 2, 3, 63 are 000001, 000010, 000011, 111111: first the lowest bits of the first byte.
    "F6_E2M3": (6, "81 30 fc", [0.125, 0.25, 0.375, -7.5]),
    "F6_E3M2": (6, "81 30 fc", [0.0625, 0.125, 0.1875, -28.0]),
    "F4": (4, "10 32 54 76 98 fe", [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -4, -6]),
}


def opened(pack: Callable[..., bytes], folder: Path, dtype: str, shape: list[int], data: bytes) -> Tensor:
    path = folder / "net.safetensors"
    path.write_bytes(pack({"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}, data))
    return weighbridge.open(path)["x"]


def identical(got: np.ndarray, values: Any) -> None:
    """The same values, with the signs of zeros."""
    expected = np.array(values, got.dtype if got.dtype.kind in "bui" else np.complex128)
    wide = got.astype(expected.dtype)
    np.testing.assert_array_equal(wide, expected)
    if got.dtype.kind not in "buic":
        signs = [np.signbit(side.real[~np.isnan(side)]) for side in (wide, expected)]
        np.testing.assert_array_equal(*signs)


def test_the_table_is_the_formats() -> None:
    assert set(EXACT) == set(SAFETENSORS)


def test_the_table_has_each_array_once() -> None:
    assert len({dtype.array for dtype in SAFETENSORS.values()}) == len(SAFETENSORS)


@pytest.mark.parametrize("name", EXACT)
def test_values_of_exact_bytes(name: str, pack: Callable[..., bytes], tmp_path: Path) -> None:
    bits, data, values = EXACT[name]
    tensor = opened(pack, tmp_path, name, [len(values)], bytes.fromhex(data))
    assert (tensor.dtype.name, str(tensor.dtype), tensor.dtype.bits) == (name, name, bits)
    assert tensor.nbytes == len(bytes.fromhex(data))
    assert tensor.read().dtype == tensor.dtype.array
    identical(tensor.read(), values)
    identical(tensor.read(slice(1, None)), values[1:])
    identical(tensor.read(slice(None, None, -1)), values[::-1])


@pytest.mark.parametrize("name", EXACT)
def test_a_scalar_and_nothing(name: str, pack: Callable[..., bytes], tmp_path: Path) -> None:
    bits, data, values = EXACT[name]
    assert opened(pack, tmp_path, name, [3, 0], b"").read().dtype == SAFETENSORS[name].array
    if bits >= 8:
        identical(opened(pack, tmp_path, name, [], bytes.fromhex(data)[: bits // 8]).read(), values[0])


@pytest.mark.parametrize("name", [name for name, (bits, *_) in EXACT.items() if bits >= 8])
def test_an_array_in_memory_has_the_same_dtype(name: str) -> None:
    known = SAFETENSORS[name]
    assert of_array(known.array) == known
    assert of_array(known.array.newbyteorder(">")) == known


@pytest.mark.parametrize("name", [name for name, (bits, *_) in EXACT.items() if bits < 8])
def test_sub_byte_types_take_a_byte_in_memory(name: str) -> None:
    values = EXACT[name][2]
    array = np.array(values, SAFETENSORS[name].array)
    tensor = weighbridge.open({"x": array})["x"]
    assert (tensor.dtype.name, tensor.dtype.bits, tensor.nbytes) == (name, 8, len(values))
    identical(tensor.read(), values)


@pytest.mark.parametrize(
    "dtype", ["U5", "S5", "V3", "O", "M8[s]", "m8[ms]", np.longdouble, [("w", "<f4")], ml_dtypes.int4], ids=str
)
def test_types_without_weights_have_no_entry(dtype: Any) -> None:
    assert of_array(np.dtype(dtype)) is None


def packed_bits(codes: list[int], bits: int) -> bytes:
    """Codes as one long binary number, the first in its lowest bits."""
    number = sum(code << (i * bits) for i, code in enumerate(codes))
    return number.to_bytes((len(codes) * bits + 7) // 8, "little")


@pytest.mark.parametrize(("name", "bits"), [("F4", 4), ("F6_E2M3", 6), ("F6_E3M2", 6)])
@pytest.mark.parametrize("shape", [(4,), (8, 3), (4, 5, 7), (12, 1), (4, 0), (1, 28), (104,)], ids=str)
def test_packed_rows_of_any_length(
    name: str, bits: int, shape: tuple[int, ...], pack: Callable[..., bytes], tmp_path: Path
) -> None:
    codes = np.random.default_rng(0).integers(0, 1 << bits, shape, np.uint8)
    tensor = opened(pack, tmp_path, name, list(shape), packed_bits(codes.reshape(-1).tolist(), bits))
    np.testing.assert_array_equal(tensor.read().view(np.uint8), codes)
    for row in range(-shape[0], shape[0]):
        np.testing.assert_array_equal(tensor.read((row,)).view(np.uint8), codes[row])
        np.testing.assert_array_equal(tensor.read(slice(row, None)).view(np.uint8), codes[row:])
        np.testing.assert_array_equal(tensor.read(slice(row, None, -3)).view(np.uint8), codes[row::-3])
        np.testing.assert_array_equal(tensor.read(slice(1, row)).view(np.uint8), codes[1:row])


@given(codes=st.lists(st.integers(0, 63), max_size=40), name=st.sampled_from(["F4", "F6_E2M3", "F6_E3M2"]))
def test_unpacking_undoes_packing(codes: list[int], name: str) -> None:
    dtype = SAFETENSORS[name]
    codes = [code % (1 << dtype.bits) for code in codes]
    packed = np.frombuffer(packed_bits(codes, dtype.bits), np.uint8)
    assert packed.size == dtype.nbytes(len(codes))
    assert dtype.unpack(packed, len(codes)).view(np.uint8).tolist() == codes


def test_nothing_but_nan_reads(pack: Callable[..., bytes], tmp_path: Path) -> None:
    for name in ("F16", "BF16", "F32", "F64", "C64", "F8_E5M2", "F8_E4M3", "F8_E8M0"):
        assert np.isnan(opened(pack, tmp_path, name, [8], b"\xff" * SAFETENSORS[name].bits).read()).all()


class TestFilesOfTheLibrary:
    """Files that the safetensors package writes."""

    @pytest.mark.parametrize("dtype", list("?BbHhIiQqefdF"), ids=lambda code: np.dtype(code).name)
    def test_arrays_of_numpy(self, dtype: str, tmp_path: Path) -> None:
        library = pytest.importorskip("safetensors.numpy")
        rng = np.random.default_rng(0)
        arrays = {
            "matrix": (rng.standard_normal((19, 23)) * 100).astype(dtype),
            "scalar": np.array(3, dtype),
            "empty": np.zeros((3, 0, 2), dtype),
            "a longer name with ünïcode": (rng.standard_normal(31) * 100).astype(dtype),
        }
        library.save_file(arrays, tmp_path / "net.safetensors", {"format": "np"})
        checkpoint = weighbridge.open(tmp_path / "net.safetensors")
        assert set(checkpoint) == set(arrays)
        for name, array in arrays.items():
            assert checkpoint[name].read().dtype == array.dtype
            np.testing.assert_array_equal(checkpoint[name].read(), array)

    @pytest.mark.parametrize("name", EXACT)
    def test_bytes_of_every_dtype(self, name: str, pack: Callable[..., bytes]) -> None:
        """The library takes the file for what we take it for."""
        library = pytest.importorskip("safetensors")
        _, data, values = EXACT[name]
        entry = {"dtype": name, "shape": [len(values)], "data_offsets": [0, len(bytes.fromhex(data))]}
        ((tensor, held),) = library.deserialize(pack({"x": entry}, bytes.fromhex(data)))
        assert (tensor, held["dtype"], held["shape"]) == ("x", name, [len(values)])
        assert bytes(held["data"]) == bytes.fromhex(data)

    @pytest.mark.parametrize(
        ("array", "name"),
        [
            (ml_dtypes.bfloat16, "BF16"),
            (ml_dtypes.float8_e4m3fn, "F8_E4M3"),
            (ml_dtypes.float8_e5m2, "F8_E5M2"),
        ],
    )
    def test_narrow_floats(self, array: Any, name: str, tmp_path: Path) -> None:
        library = pytest.importorskip("safetensors.numpy")
        original = np.linspace(-3, 3, 31).astype(array)
        library.save_file({"x": original}, tmp_path / "net.safetensors")
        tensor = weighbridge.open(tmp_path / "net.safetensors")["x"]
        assert tensor.dtype.name == name
        assert tensor.read().tobytes() == original.tobytes()


def test_messages_list_every_dtype(refuses: Callable[..., None], write: Callable[..., Path], pack: Any) -> None:
    path = write("net.safetensors", pack({"x": {"dtype": "F31", "shape": [1], "data_offsets": [0, 1]}}, b"x"))
    refuses(path, "unknown dtype 'F31', expected one of", *SAFETENSORS)


def test_reprs_name_the_stored_type(pack: Callable[..., bytes], tmp_path: Path) -> None:
    tensor = opened(pack, tmp_path, "F4", [4, 3], bytes(6))
    assert re.fullmatch(r"Tensor\('x', \[4, 3\], F4, 6 bytes\)", repr(tensor))
