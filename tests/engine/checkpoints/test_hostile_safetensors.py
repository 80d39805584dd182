"""Safetensors headers that lie. Each is refused in a line that names the file and says what is wrong with it."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import weighbridge
from weighbridge import CorruptCheckpoint, SourceNotFound, WeighbridgeError

MAX_INT64 = 2**63 - 1


def entry(dtype: Any = "U8", shape: Any = (4,), data_offsets: Any = (0, 4), **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": data_offsets} | more


def text(shape: str = "[4]", offsets: str = "[0,4]", dtype: str = '"U8"') -> str:
    """A header as text, for numbers that JSON writers refuse."""
    return f'{{"x":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}'


FILES = {
    "empty": (b"", "0 bytes, expected 8 or more"),
    "seven bytes": (b"\x02" + bytes(6), "7 bytes, expected 8 or more"),
    "no header": (bytes(8), "header is not valid JSON"),
    "header of no bytes before data": (bytes(8) + b"1234", "header is not valid JSON"),
    "header beyond the file": (struct.pack("<Q", 3) + b"{}", "header length 3 exceeds the file's 10 bytes"),
    "header just below the bound": (struct.pack("<Q", 100_000_000) + b"{}", "100,000,000 exceeds the file's 10 bytes"),
    "header above the bound": (struct.pack("<Q", 100_000_001) + b"{}", "100,000,001 exceeds 100,000,000 bytes"),
    "header of 2^63": (struct.pack("<Q", 1 << 63) + b"{}", "exceeds 100,000,000 bytes; this is no safetensors file"),
    "header of 2^64 - 1": (b"\xff" * 8 + b"{}", "exceeds 100,000,000 bytes"),
    "a pickle": (b"\x80\x02ctorch\nload\n" * 9, "this is no safetensors file"),
}

SHAPE = "expected up to 64 integers from 0 on"
OFFSETS = "expected [begin, end] with 0 <= begin <= end"
ENTRY = "expected dtype, shape and data_offsets"
JSON = "header is not valid JSON"

HEADERS: dict[str, tuple[Any, bytes, str]] = {
    "offset negative": ({"x": entry(data_offsets=[-4, 0])}, b"1234", OFFSETS),
    "offsets reversed": ({"x": entry(data_offsets=[4, 0])}, b"1234", OFFSETS),
    "one offset": ({"x": entry(data_offsets=[4])}, b"1234", OFFSETS),
    "three offsets": ({"x": entry(data_offsets=[0, 2, 4])}, b"1234", OFFSETS),
    "no offsets": ({"x": entry(data_offsets=None)}, b"1234", OFFSETS),
    "offsets an object": ({"x": entry(data_offsets={"begin": 0, "end": 4})}, b"1234", OFFSETS),
    "offsets floats": ({"x": entry(data_offsets=[0.0, 4.0])}, b"1234", OFFSETS),
    "offsets booleans": ({"x": entry("U8", [1], [False, True])}, b"1", OFFSETS),
    "offsets strings": ({"x": entry(data_offsets=["0", "4"])}, b"1234", OFFSETS),
    "offset out of range": ({"x": entry(data_offsets=[0, 5], shape=[5])}, b"1234", "[0, 5) exceed the 4 data bytes"),
    "offset of 2^64": ({"x": entry(data_offsets=[0, 2**64])}, b"1234", "exceed the 4 data bytes"),
    "offset of 4,000 digits": (text(offsets=f"[0,1{'0' * 4000}]"), b"1234", "exceed the 4 data bytes"),
    "offset of 10,000 digits": (text(offsets=f"[0,1{'0' * 10000}]"), b"1234", JSON),
    "offset infinite": (text(offsets="[0,1e999]"), b"1234", OFFSETS),
    "data truncated": ({"x": entry("F32", [3], [0, 12])}, b"12345678", "the file is truncated, download it again"),
    "data missing": ({"x": entry()}, b"", "exceed the 0 data bytes"),
    "overlap": ({"x": entry(), "y": entry(data_offsets=[2, 6])}, b"123456", "'y': offsets [2, 6) overlap the tensor"),
    "same bytes twice": ({"x": entry(), "y": entry()}, b"1234", "'y': offsets [0, 4) overlap the tensor before"),
    "one inside another": (
        {"x": entry(), "y": entry("U8", [2], [1, 3])},
        b"1234",
        "'y': offsets [1, 3) overlap the tensor before",
    ),
    "hole at the start": ({"x": entry(data_offsets=[2, 6])}, b"123456", "offsets [2, 6) leave a hole after byte 0"),
    "hole in the middle": (
        {"x": entry(), "y": entry(data_offsets=[5, 9])},
        b"123456789",
        "'y': offsets [5, 9) leave a hole after byte 4",
    ),
    "hole at the end": ({"x": entry()}, b"12345", "tensors end at byte 4 of 5 data bytes"),
    "nothing but a hole": ({}, b"12345", "tensors end at byte 0 of 5 data bytes"),
    "empty tensor past the end": ({"x": entry("U8", [0], [9, 9])}, b"1234", "exceed the 4 data bytes"),
    "bytes too few": ({"x": entry("F32")}, b"1234", "shape [4] of F32 needs 16 bytes, offsets hold 4"),
    "bytes too many": ({"x": entry(shape=[2])}, b"1234", "shape [2] of U8 needs 2 bytes, offsets hold 4"),
    "bytes of no entry": ({"x": entry(shape=[4, 0])}, b"1234", "shape [4, 0] of U8 needs 0 bytes, offsets hold 4"),
    "bytes of a scalar": ({"x": entry(shape=[])}, b"1234", "shape [] of U8 needs 1 bytes, offsets hold 4"),
    "bytes wrap around": ({"x": entry("F32", [2**62 + 1, 1])}, b"1234", SHAPE),
    "shape negative": ({"x": entry(shape=[-4])}, b"1234", SHAPE),
    "shape twice negative": ({"x": entry(shape=[-2, -2])}, b"1234", SHAPE),
    "shape fractional": ({"x": entry(shape=[4.5])}, b"1234", SHAPE),
    "shape a whole float": ({"x": entry(shape=[4.0])}, b"1234", SHAPE),
    "shape boolean": ({"x": entry(shape=[True], data_offsets=[0, 1])}, b"1", SHAPE),
    "shape strings": ({"x": entry(shape=["4"])}, b"1234", SHAPE),
    "shape nested": ({"x": entry(shape=[[4]])}, b"1234", SHAPE),
    "shape a number": ({"x": entry(shape=4)}, b"1234", SHAPE),
    "shape null": ({"x": entry(shape=None)}, b"1234", SHAPE),
    "shape of 2^63": ({"x": entry(shape=[2**63])}, b"1234", SHAPE),
    "shape of 2^63 and zero": ({"x": entry(shape=[2**63, 0], data_offsets=[0, 0])}, b"", SHAPE),
    "shape beyond 2^63 and zero": ({"x": entry("F32", [2**31, 2**31, 0], [0, 0])}, b"", SHAPE),
    "shape of 2^32 twice": ({"x": entry(shape=[2**32, 2**32])}, b"1234", SHAPE),
    "shape of 401 digits": ({"x": entry(shape=[10**400])}, b"1234", SHAPE),
    "shape of 4,000 digits": (text(shape=f"[1{'0' * 4000},1{'0' * 4000}]"), b"1234", SHAPE),
    "odd shape of 4,000 digits": (text(f"[1{'0' * 3999}1,1{'0' * 3999}1]", dtype='"F4"'), b"1234", SHAPE),
    "shape of 10,000 digits": (text(shape=f"[1{'0' * 10000}]"), b"1234", JSON),
    "rank 65": ({"x": entry(shape=[1] * 65, data_offsets=[0, 1])}, b"1", SHAPE),
    "rank 1,000": ({"x": entry(shape=[2] * 1000)}, b"1234", SHAPE),
    "rank 100,000": ({"x": entry(shape=[2] * 100_000)}, b"1234", SHAPE),
    "dtype unknown": ({"x": entry("F31")}, b"1234", "unknown dtype 'F31', expected one of BOOL, U8"),
    "dtype in lower case": ({"x": entry("u8")}, b"1234", "unknown dtype 'u8', expected one of"),
    "dtype not ours": ({"x": entry("C128", [1], [0, 16])}, bytes(16), "unknown dtype 'C128', expected one of"),
    "dtype of many lines": ({"x": entry("U8 \n\x1b[2J")}, b"1234", "unknown dtype 'U8 \\n\\x1b[2J', expected one of"),
    "dtype very long": ({"x": entry("U8" * 100_000)}, b"1234", "expected one of"),
    "dtype a number": ({"x": entry(8)}, b"1234", "unknown dtype 8, expected one of"),
    "dtype null": ({"x": entry(None)}, b"1234", "unknown dtype None, expected one of"),
    "dtype a list": ({"x": entry(["U8"])}, b"1234", "unknown dtype ['U8'], expected one of"),
    "F4 of odd count": ({"x": entry("F4", [3], [0, 2])}, b"12", "3 entries of F4 do not fill whole bytes"),
    "F6 of odd count": ({"x": entry("F6_E2M3", [2], [0, 2])}, b"12", "whole bytes; expected a multiple of 4"),
    "F4 scalar": ({"x": entry("F4", [], [0, 1])}, b"1", "1 entries of F4 do not fill whole bytes"),
    "name twice": ('{"x":1,"x":1}', b"", "header is not valid JSON: the name 'x' occurs twice"),
    "key twice": (
        '{"x":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
        b"1234",
        "header is not valid JSON: the name 'dtype' occurs twice",
    ),
    "metadata twice": ('{"__metadata__":{},"__metadata__":{}}', b"", "the name '__metadata__' occurs twice"),
    "metadata's key twice": ('{"__metadata__":{"a":"1","a":"2"}}', b"", "the name 'a' occurs twice"),
    "not UTF-8": (b'{"\xff\xfe":1}', b"", "header is not UTF-8 at byte 2"),
    "half a character": (b'{"\xc3":1}', b"", "header is not UTF-8 at byte 2"),
    "UTF-16": ('{"x":1}'.encode("utf-16"), b"", "header is not UTF-8 at byte 0"),
    "byte order mark": (b"\xef\xbb\xbf{}", b"", JSON),
    "lone surrogate": ('{"\\ud800":' + json.dumps(entry()) + "}", b"1234", JSON),
    "surrogate in a value": ('{"__metadata__":{"a":"\\udfff"}}', b"", JSON),
    "surrogate in metadata": ('{"__metadata__":{"a\\udfff":"b"}}', b"", JSON),
    "not JSON": ("{x:1}", b"", JSON),
    "JSON cut short": ('{"x":{"dtype":"U8","sh', b"", JSON),
    "JSON and more": ("{}{}", b"", JSON),
    "trailing comma": ("{},", b"", JSON),
    "control character": ('{"a\x01":1}', b"", JSON),
    "NaN": (text(shape="[NaN]"), b"1234", "header is not valid JSON: NaN is no JSON number"),
    "Infinity": (text(offsets="[0,Infinity]"), b"1234", "Infinity is no JSON number"),
    "-Infinity": (text(offsets="[-Infinity,4]"), b"1234", "-Infinity is no JSON number"),
    "100,000 lists": ("[" * 100_000, b"", "header nests too deep, expected two levels"),
    "100,000 objects": ('{"x":' * 100_000, b"", "header nests too deep, expected two levels"),
    "1,000,000 lists closed": ('{"x":' + "[" * 10**6 + "]" * 10**6 + "}", b"", "header nests too deep"),
    "header a list": ([entry()], b"1234", "expected an object of tensors"),
    "header a string": ('"x"', b"", "header is 'x', expected an object of tensors"),
    "header a number": ("1", b"", "header is 1, expected an object of tensors"),
    "header null": ("null", b"", "header is None, expected an object of tensors"),
    "header spaces": ("   ", b"", JSON),
    "header NULs": (bytes(8), b"", JSON),
    "metadata a list": ({"__metadata__": []}, b"", "__metadata__ is [], expected an object of strings"),
    "metadata null": ({"__metadata__": None}, b"", "__metadata__ is None, expected an object of strings"),
    "metadata of numbers": ({"__metadata__": {"step": 3}}, b"", "expected an object of strings"),
    "metadata of objects": ({"__metadata__": {"a": {"b": "c"}}}, b"", "expected an object of strings"),
    "entry without dtype": ({"x": {"shape": [4], "data_offsets": [0, 4]}}, b"1234", ENTRY),
    "entry without shape": ({"x": {"dtype": "U8", "data_offsets": [0, 4]}}, b"1234", ENTRY),
    "entry without offsets": ({"x": {"dtype": "U8", "shape": [4]}}, b"1234", ENTRY),
    "entry with more": ({"x": entry(stride=[1])}, b"1234", ENTRY),
    "entry empty": ({"x": {}}, b"", ENTRY),
    "entry a list": ({"x": ["U8", [4], [0, 4]]}, b"1234", ENTRY),
    "entry a string": ({"x": "U8 \n of \r four"}, b"1234", ENTRY),
    "entry null": ({"x": None}, b"1234", ENTRY),
    "name of many lines": ({"a \n\r\x1b[31m\u2028 b": entry(shape=[5])}, b"1234", "\\n\\r\\x1b[31m\\u2028 b"),
    "name very long": ({"a" * 100_000: entry(shape=[5])}, b"1234", "needs 5 bytes"),
    "name empty": ({"": entry(shape=[5])}, b"1234", "tensor '': shape [5] of U8 needs 5 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_broken_file(case: str, write: Callable[..., Path], refuses: Callable[..., None]) -> None:
    content, expected = FILES[case]
    refuses(write("net.safetensors", content), expected)


@pytest.mark.parametrize("case", HEADERS)
def test_a_lying_header(case: str, write: Callable[..., Path], pack: Any, refuses: Callable[..., None]) -> None:
    header, data, expected = HEADERS[case]
    refuses(write("net.safetensors", pack(header, data)), expected)


@pytest.mark.parametrize("case", ["offsets reversed", "dtype unknown", "100,000 lists", "not UTF-8"])
def test_a_file_alone_in_its_folder(
    case: str, write: Callable[..., Path], pack: Any, judge: Callable[..., None]
) -> None:
    header, data, expected = HEADERS[case]
    path = write("net.safetensors", pack(header, data))
    with pytest.raises(CorruptCheckpoint) as caught:
        weighbridge.open(path.parent)
    judge(str(caught.value), "net.safetensors", expected)


def test_a_folder_of_broken_files(tmp_path: Path, write: Callable[..., Path], judge: Callable[..., None]) -> None:
    write("a.safetensors", b""), write("b.safetensors", b"")
    with pytest.raises(CorruptCheckpoint) as caught:
        weighbridge.open(tmp_path)
    judge(str(caught.value), tmp_path.name, "none of its 2 files can be read; first: a.safetensors: 0 bytes")


def test_an_empty_folder_by_the_name_of_a_file(tmp_path: Path, refuses: Callable[..., None]) -> None:
    (tmp_path / "net.safetensors").mkdir()
    refuses(tmp_path / "net.safetensors", "holds no .safetensors", error=SourceNotFound)


def test_a_duplicate_tensor_of_two_files(tmp_path: Path, write: Callable[..., Path], pack: Any) -> None:
    write("a.safetensors", pack({"x": entry()}, b"1234"))
    write("b.safetensors", pack({"x": entry(), "y": entry(data_offsets=[4, 8])}, b"abcdefgh"))
    checkpoint = weighbridge.open(tmp_path)
    assert {name: tensor.read().tobytes() for name, tensor in checkpoint.items()} == {"x": b"1234", "y": b"efgh"}
    (fault,) = checkpoint.faults
    assert (fault.name, fault.file, fault.shape, fault.dtype) == ("b.safetensors:x", "b.safetensors", (4,), "U8")
    assert fault.reason == "b.safetensors: tensor 'x' is in a.safetensors too; scan the files one by one"


SOUND = {
    "no tensors": ({}, b""),
    "metadata alone": ({"__metadata__": {"a": "b"}}, b""),
    "spaces behind": ('{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}   ', b"1234"),
    "names of any text": ({"a \n b": entry(), "ünï/../☃": entry(data_offsets=[4, 8])}, b"12345678"),
    "a surrogate pair": ('{"\\ud83d\\ude00":' + json.dumps(entry()) + "}", b"1234"),
    "empty tensors share a place": (
        {"a": entry("U8", [0], [4, 4]), "b": entry(), "c": entry("F4", [3, 0], [4, 4]), "d": entry("U8", [0], [0, 0])},
        b"1234",
    ),
    "not in the order of offsets": ({"b": entry(data_offsets=[4, 8]), "a": entry()}, b"12345678"),
    "rank 64": ({"x": entry(shape=[1] * 63 + [4])}, b"1234"),
    "a long empty axis": ({"x": entry("F32", [2**61 - 1, 0], [0, 0])}, b""),
}


@pytest.mark.parametrize("case", SOUND)
def test_strange_but_sound(case: str, write: Callable[..., Path], pack: Any) -> None:
    header, data = SOUND[case]
    checkpoint = weighbridge.open(write("net.safetensors", pack(header, data)))
    assert b"".join(tensor.read().tobytes() for tensor in checkpoint.values()) == data


def test_it_is_what_the_library_takes(pack: Any) -> None:
    library = pytest.importorskip("safetensors")
    for header, data in SOUND.values():
        library.deserialize(pack(header, data))


VALID = {
    "__metadata__": {"format": "np"},
    "a": entry("F4", [3, 2], [0, 3]),
    "b": entry("BF16", [2], [3, 7]),
    "": entry("F32", [], [7, 11]),
    "e": entry("U8", [0, 3], [11, 11]),
}
KEYS = ["dtype", "shape", "data_offsets"]
DATA = bytes(range(11))
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-2, 12) | st.floats() | st.text() | st.sampled_from(
        ["F4", "U8", "F32", "BOOL", 2**63, 2**64, MAX_INT64]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
TOKENS = [b" ", b"x", b"0", b"3", b"-", b".0", b"9" * 20, b"]", b'"', b"{", b",", b""]
NUMBERS = st.lists(st.integers(-1, 13) | st.sampled_from([2**31, 2**32, 2**62, 2**63, 2**64]), max_size=4)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F4", "F6_E2M3", "U8", "BF16", "F32", "C64", "F31"]) | JSON_VALUES,
        "shape": NUMBERS | JSON_VALUES,
        "data_offsets": st.tuples(st.integers(-1, 12), st.integers(-1, 12)).map(sorted) | NUMBERS | JSON_VALUES,
    }
)


@st.composite
def mutated(draw: st.DrawFn, blob: bytes) -> bytes:
    """A file with a few bytes overwritten, inserted or cut out, and now and then its end lost."""
    content = bytearray(blob)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        replaced = draw(st.integers(0, 1))
        content[at : at + replaced] = draw(st.sampled_from(TOKENS) | st.binary(max_size=2))
    return bytes(content[: draw(st.sampled_from([None] * 9 + [draw(st.integers(0, len(content)))]))])


def judged_by_the_library(content: bytes) -> dict[str, tuple[list[int], str, bytes]] | None:
    library = pytest.importorskip("safetensors")
    try:
        held = library.deserialize(content)
    except library.SafetensorError:
        return None
    return {name: (tensor["shape"], tensor["dtype"], bytes(tensor["data"])) for name, tensor in held}


def judged_by_us(path: Path) -> dict[str, tuple[list[int], str, bytes]] | None:
    """What is read of a file, and read whole; None where it is refused. Any other exception is a defect."""
    try:
        checkpoint = weighbridge.open(path)
        for tensor in checkpoint.values():
            assert tensor.read().shape == tensor.shape
        held = {
            name: (list(tensor.shape), tensor.dtype.name, bytearray(tensor.nbytes))
            for name, tensor in checkpoint.items()
        }
        for name, (_, _, buffer) in held.items():
            checkpoint[name].read_into(memoryview(buffer), 0)
    except WeighbridgeError:
        return None
    return {name: (shape, dtype, bytes(buffer)) for name, (shape, dtype, buffer) in held.items()}


def agree(content: bytes, path: Path) -> None:
    """What both take, both take for the same; what we alone take fills the file without gap or overlap."""
    path.write_bytes(content)
    ours, theirs = judged_by_us(path), judged_by_the_library(content)
    if ours is not None and theirs is not None:
        assert ours == theirs
    if ours is not None:
        header = int.from_bytes(content[:8], "little")
        assert sum(len(data) for _, _, data in ours.values()) == len(content) - 8 - header


FUZZ = settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])


class TestAnyMutation:
    @FUZZ
    @given(data=st.data())
    def test_of_bytes(self, data: st.DataObject, tmp_path: Path, pack: Any) -> None:
        agree(data.draw(mutated(pack(VALID, DATA))), tmp_path / "net.safetensors")

    @FUZZ
    @given(header=mutated(json.dumps(VALID).encode()), data=st.sampled_from([DATA, b"", DATA + b"x"]))
    @example(header=b'{"x":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}', data=b"")
    def test_of_the_header(self, header: bytes, data: bytes, tmp_path: Path, pack: Any) -> None:
        agree(pack(header, data), tmp_path / "net.safetensors")

    @FUZZ
    @given(
        name=st.sampled_from(list(VALID)) | st.text(), part=ENTRIES | JSON_VALUES, keys=st.sets(st.sampled_from(KEYS))
    )
    def test_of_values(self, name: str, part: Any, keys: set[str], tmp_path: Path, pack: Any) -> None:
        old = VALID.get(name)
        if isinstance(part, dict) and isinstance(old, dict):
            part = old | {key: value for key, value in part.items() if key in keys}
        agree(pack(VALID | {name: part}, DATA), tmp_path / "net.safetensors")

    @FUZZ
    @given(shape=st.lists(st.integers(0, 4), max_size=4), dtype=st.sampled_from(["F4", "F6_E3M2", "U8", "F16"]))
    def test_any_shape_that_the_library_takes(self, shape: list[int], dtype: str, tmp_path: Path, pack: Any) -> None:
        """Here acceptance is the same both ways."""
        bits = {"F4": 4, "F6_E3M2": 6, "U8": 8, "F16": 16}[dtype]
        count = 1
        for side in shape:
            count *= side
        data = bytes(i % 251 for i in range(count * bits // 8))
        path = tmp_path / "net.safetensors"
        path.write_bytes(pack({"x": entry(dtype, shape, [0, len(data)])}, data))
        assert judged_by_us(path) == judged_by_the_library(path.read_bytes())
