"""NumPy files that lie: nothing in them is run, nothing they claim is allocated, no member decides on another."""

import io
import pickle
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import weighbridge
from weighbridge import ReadFailed, WeighbridgeError
from weighbridge.checkpoints.protocol import Checkpoint

SOUND = np.arange(12, dtype=np.float32).reshape(3, 4)


def npy(header: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """A file of that header, word by word."""
    encoded = header.encode("latin1")
    length = struct.pack("<H" if version == (1, 0) else "<I", len(encoded))
    return b"\x93NUMPY" + bytes(version) + length + encoded + data


def header(shape: str = "(1,)", descr: str = "'<f8'", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}"


def saved(array: np.ndarray) -> bytes:
    held = io.BytesIO()
    np.save(held, array, allow_pickle=True)
    return held.getvalue()


class Trap:
    """Creates a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


EIGHT = b"12345678"
UNREADABLE = "no readable array header"

ARRAYS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", UNREADABLE),
    "magic alone": (b"\x93NUMPY", UNREADABLE),
    "another magic": (b"\x94NUMPY\x01\x00" + bytes(20), UNREADABLE),
    "no header": (b"\x93NUMPY\x01\x00", UNREADABLE),
    "header beyond the file": (b"\x93NUMPY\x01\x00\xff\xff{}", UNREADABLE),
    "header of 4 GB": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}", UNREADABLE),
    "header too large": (npy(header() + " " * 10_001, EIGHT), UNREADABLE),
    "version 0.0": (npy(header(), EIGHT, (0, 0)), "version (0, 0), expected 1.0, 2.0 or 3.0"),
    "version 4.0": (npy(header(), EIGHT, (4, 0)), "version (4, 0), expected 1.0, 2.0 or 3.0"),
    "version 1.1": (npy(header(), EIGHT, (1, 1)), "version (1, 1), expected 1.0, 2.0 or 3.0"),
    "not a dictionary": (npy("[1, 2]"), UNREADABLE),
    "not Python": (npy("{'descr': ("), UNREADABLE),
    "not closed": (npy("(" * 9000), UNREADABLE),
    "deeply nested": (npy("[" * 4000 + "]" * 4000), UNREADABLE),
    "many signs": (npy("-" * 9000 + "1"), UNREADABLE),
    "NUL bytes": (npy("\0" * 50), UNREADABLE),
    "many lines": (npy("{'descr':\n\n'<f8'\r\x1b[2J"), UNREADABLE),
    "missing key": (npy("{'descr': '<f8', 'shape': (1,)}", EIGHT), UNREADABLE),
    "extra key": (npy(header()[:-1] + ", 'run': 1}", EIGHT), UNREADABLE),
    "keys of any kind": (npy("{1: 2, 'descr': 3, (): 4}", EIGHT), UNREADABLE),
    "descr empty": (npy(header(descr="()"), EIGHT), UNREADABLE),
    "descr nested": (npy(header(descr="(('<f8',),)"), EIGHT), UNREADABLE),
    "descr a number": (npy(header(descr="8"), EIGHT), UNREADABLE),
    "descr unknown": (npy(header(descr="'<q9'"), EIGHT), UNREADABLE),
    "order a number": (npy(header(order="2"), EIGHT), UNREADABLE),
    "shape a list": (npy(header("[1]"), EIGHT), UNREADABLE),
    "shape fractional": (npy(header("(1.0,)"), EIGHT), UNREADABLE),
    "shape of many lines": (npy(header("'1\\n\\x1b[2J'"), EIGHT), UNREADABLE),
    "shape negative": (npy(header("(-1,)"), EIGHT), "shape (-1,), expected up to 64 integers from 0 on"),
    "shape twice negative": (npy(header("(-1, -1)"), EIGHT), "expected up to 64 integers from 0 on"),
    "shape boolean": (npy(header("(True,)"), EIGHT), "shape (True,), expected up to 64 integers from 0 on"),
    "rank 65": (npy(header(repr((1,) * 65)), EIGHT), "expected up to 64 integers from 0 on"),
    "rank 3,000": (npy(header("(" + "1," * 3000 + ")"), EIGHT), "expected up to 64 integers from 0 on"),
    "shape of 2^63": (npy(header(f"({2**63},)"), EIGHT), "expected up to 64 integers from 0 on"),
    "shape of 2^62 and zero": (npy(header(f"(0, {2**62})")), "expected up to 64 integers from 0 on"),
    "shape of 4,000 digits": (npy(header(f"({10**4000}, {10**4000})"), EIGHT), "expected up to 64 integers from 0 on"),
    "shape of 9,000 digits": (npy(header(f"(1{'0' * 9000},)"), EIGHT), UNREADABLE),
    "too few bytes": (npy(header("(2,)"), EIGHT), "shape [2] of F64 needs 16 bytes, the file holds 8"),
    "too many bytes": (npy(header("(1,)"), EIGHT * 2), "shape [1] of F64 needs 8 bytes, the file holds 16"),
    "a petabyte": (npy(header(f"({2**47},)"), EIGHT), "needs 1,125,899,906,842,624 bytes, the file holds 8"),
    "objects": (saved(np.array([{}, None])), "holds Python objects, which would have to be unpickled"),
    "objects in fields": (npy(header(descr="[('a', '|O')]"), EIGHT), "holds Python objects"),
    "fields": (saved(np.zeros(3, "i4,f4")), "holds no weights; expected numbers"),
    "fields of many lines": (npy(header(descr="[('a\\n\\x1b[2Jb', '<f8')]"), EIGHT), "expected numbers"),
    "many fields": (npy(header(descr=repr([(f"f{i}", "<f8") for i in range(400)])), EIGHT), "expected numbers"),
    "blocks": (npy(header(descr="('<f4', (2,))"), EIGHT), "holds no weights; expected numbers"),
    "text": (saved(np.array(["a", "b"])), "dtype <U1 holds no weights; expected numbers"),
    "bytes": (saved(np.array([b"a", b"b"])), "dtype |S1 holds no weights; expected numbers"),
    "dates": (saved(np.zeros(3, "M8[s]")), "holds no weights; expected numbers"),
    "void": (saved(np.zeros(3, "V2")), "dtype |V2 holds no weights; expected numbers"),
    "long double": (saved(np.zeros(3, np.longdouble)), "holds no weights; expected numbers"),
    "a pickle": (pickle.dumps({"a": 1}), UNREADABLE),
}  # fmt: skip


@pytest.mark.parametrize("case", ARRAYS)
def test_a_broken_array(case: str, write: Callable[..., Path], refuses: Callable[..., None]) -> None:
    content, expected = ARRAYS[case]
    refuses(write("net.npy", content), expected)


@pytest.mark.parametrize("case", ARRAYS)
def test_a_broken_member_leaves_the_others(case: str, write: Callable[..., Path], judge: Callable[..., None]) -> None:
    content, expected = ARRAYS[case]
    checkpoint = weighbridge.open(write("net.npz", archive({"bad.npy": content, "sound.npy": saved(SOUND)})))
    the_sound_one_is_left(checkpoint, judge, expected.replace("the file", "the member"))


def test_code_in_a_header_is_not_run(tmp_path: Path, write: Callable[..., Path], refuses: Callable[..., None]) -> None:
    ran = tmp_path / "ran"
    for code in (f"open({str(ran)!r}, 'w')", f"__import__('os').mkdir({str(ran)!r})", "().__class__.__base__"):
        refuses(write("net.npy", npy(header(descr=code), EIGHT)), UNREADABLE)
        refuses(write("net.npy", npy(code, EIGHT)), UNREADABLE)
    assert not ran.exists()


def test_a_header_of_python_2(write: Callable[..., Path]) -> None:
    path = write("net.npy", npy(header("(2L, 1L)"), EIGHT * 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert weighbridge.open(path)["net"].read().tobytes() == EIGHT * 2


def test_fortran_order_beyond_the_bound(write: Callable[..., Path], judge: Callable[..., None]) -> None:
    """Such an array would have to be held whole to give one row; it says so and holds nothing."""
    path = write("net.npy", npy(header(f"({2**26}, 2)", "'<f4'", "True")))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + 2**29)
    tensor = weighbridge.open(path)["net"]
    tracemalloc.start()
    with pytest.raises(ReadFailed) as caught:
        tensor.read(0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    judge(
        str(caught.value),
        "net.npy",
        "'net' is in Fortran order and has 536,870,912 bytes, expected at most 268,435,456",
    )


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return held.getvalue()


DEFLATED = zipfile.ZIP_DEFLATED
FIELDS = {"flags": (8, "<H"), "method": (10, "<H"), "crc": (16, "<I"), "compressed": (20, "<I"), "size": (24, "<I")}
FIELDS |= {"offset": (42, "<I")}


def claims(content: bytes, name: str, **fields: int) -> bytes:
    """The archive with fields of a member overwritten in its directory."""
    changed = bytearray(content)
    at = -1
    while True:
        at = changed.index(b"PK\x01\x02", at + 1)
        if changed[at + 46 : at + 46 + len(name)] == name.encode():
            break
    for field, value in fields.items():
        place, form = FIELDS[field]
        struct.pack_into(form, changed, at + place, value)
    return bytes(changed)


def directory(content: bytes) -> dict[str, zipfile.ZipInfo]:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return {member.filename: member for member in file.infolist()}


def the_sound_one_is_left(checkpoint: Checkpoint, judge: Callable[..., None], *parts: str) -> None:
    assert list(checkpoint) == ["sound"]
    np.testing.assert_array_equal(checkpoint["sound"].read(), SOUND)
    (fault,) = checkpoint.faults
    assert (fault.name, fault.file) == ("bad", "net.npz")
    judge(fault.reason, "net.npz", "'bad'" if "'bad.npy'" not in fault.reason else "'bad.npy'", *parts)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A path that unpickling an object would bring into being, as is shown first."""
    pickle.loads(pickle.dumps(Trap(tmp_path / "shown")))
    assert (tmp_path / "shown").exists()
    return tmp_path / "sprung"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_a_pickle_is_never_run(save: Any, trap: Path, tmp_path: Path, judge: Callable[..., None]) -> None:
    save(tmp_path / "net.npz", bad=np.array([Trap(trap)], dtype=object), sound=SOUND)
    with np.load(tmp_path / "net.npz", allow_pickle=False) as peer, pytest.raises(ValueError, match="allow_pickle"):
        peer["bad"]
    checkpoint = weighbridge.open(tmp_path / "net.npz")
    the_sound_one_is_left(checkpoint, judge, "holds Python objects, which would have to be unpickled; expected numbers")
    assert not trap.exists()


def test_a_pickle_for_an_array(
    trap: Path, write: Callable[..., Path], refuses: Callable[..., None], judge: Any
) -> None:
    bomb = pickle.dumps(Trap(trap))
    refuses(write("net.npy", bomb), UNREADABLE)
    the_sound_one_is_left(
        weighbridge.open(write("net.npz", archive({"bad.npy": bomb, "sound.npy": saved(SOUND)}))), judge, UNREADABLE
    )
    refuses(write("net.npz", bomb), "is no sound zip archive")
    assert not trap.exists()


MEMBERS = {"a.npy": saved(np.zeros((200, 300), np.float32)), "b.npy": saved(SOUND), "c.npy": saved(SOUND + 1)}
STORED, COMPRESSED = archive(MEMBERS), archive(MEMBERS, DEFLATED)
OVERLAP = "overlaps the one before; this is no archive that NumPy wrote"

ARCHIVES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is no sound zip archive"),
    "no archive": (b"\x93NUMPY" * 100, "is no sound zip archive"),
    "cut in half": (STORED[: len(STORED) // 2], "is no sound zip archive"),
    "cut at the end": (STORED[:-1], "is no sound zip archive"),
    "cut at the start": (STORED[100_000:], OVERLAP),
    "two members at one place": (claims(STORED, "b.npy", offset=0), OVERLAP),
    "a member inside another": (claims(STORED, "b.npy", offset=1000), OVERLAP),
    "compressed members at one place": (claims(COMPRESSED, "c.npy", offset=0), OVERLAP),
    "beyond the file": (claims(STORED, "c.npy", compressed=2**31), "the file is truncated"),
    "elsewhere": (claims(STORED, "c.npy", offset=2**31), "the file is truncated"),
    "more than deflate can hold": (claims(COMPRESSED, "a.npy", size=2**31 - 1), "more than deflate can hold"),
}  # fmt: skip


@pytest.mark.parametrize("case", ARCHIVES)
def test_a_broken_archive(case: str, write: Callable[..., Path], refuses: Callable[..., None]) -> None:
    content, expected = ARCHIVES[case]
    refuses(write("net.npz", content), expected)


def test_two_members_of_one_name(write: Callable[..., Path], refuses: Callable[..., None]) -> None:
    content = archive({"a.npy": saved(SOUND), "b.npy": saved(SOUND)}).replace(b"b.npy", b"a.npy")
    refuses(write("net.npz", content), "two members have the same name")


def test_zeros_are_inflated_as_far_as_they_are_read(tmp_path: Path) -> None:
    """64 MiB in 64 KiB is within what deflate can do, and takes no more memory than what is asked for."""
    np.savez_compressed(tmp_path / "net.npz", zeros=np.zeros((1 << 20, 64), np.uint8))
    assert (tmp_path / "net.npz").stat().st_size < 1 << 17
    tracemalloc.start()
    tensor = weighbridge.open(tmp_path / "net.npz")["zeros"]
    assert not tensor.read(slice(5, 8)).any()
    assert not tensor.read(-1).any()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


class TestOneBadMember:
    """Members `bad` and `sound`: what is wrong with one is its own."""

    @pytest.fixture(params=[zipfile.ZIP_STORED, DEFLATED], ids=["stored", "compressed"])
    def content(self, request: pytest.FixtureRequest) -> bytes:
        long = np.random.default_rng(0).standard_normal((300, 700), np.float32)
        return archive({"bad.npy": saved(long), "sound.npy": saved(SOUND)}, request.param)

    def test_encrypted(self, content: bytes, write: Callable[..., Path], judge: Callable[..., None]) -> None:
        path = write("net.npz", claims(content, "bad.npy", flags=1))
        the_sound_one_is_left(weighbridge.open(path), judge, "encrypted")

    def test_an_unknown_compression(self, content: bytes, write: Callable[..., Path], judge: Any) -> None:
        path = write("net.npz", claims(content, "bad.npy", method=97))
        the_sound_one_is_left(weighbridge.open(path), judge, "compression")

    def test_no_member_where_it_should_be(self, content: bytes, write: Callable[..., Path], judge: Any) -> None:
        path = write("net.npz", b"XX" + content[2:])
        the_sound_one_is_left(weighbridge.open(path), judge, "magic number")

    def test_another_name_where_it_should_be(self, content: bytes, write: Callable[..., Path], judge: Any) -> None:
        path = write("net.npz", content.replace(b"bad.npy", b"b\n\x1b.npy", 1))
        the_sound_one_is_left(weighbridge.open(path), judge)

    @pytest.mark.parametrize(("size", "expected"), [(100, "Bad CRC-32"), (2000, "claims 2,000 bytes, stored in 176")])
    def test_a_stored_size_not_its_own(self, size: int, expected: str, write: Callable[..., Path], judge: Any) -> None:
        content = archive({"bad.npy": saved(SOUND), "sound.npy": saved(SOUND)})
        path = write("net.npz", claims(content, "bad.npy", size=size))
        the_sound_one_is_left(weighbridge.open(path), judge, expected)

    def test_no_array(self, write: Callable[..., Path]) -> None:
        path = write("net.npz", archive({"read.me": b"text", "sound.npy": saved(SOUND), "deeper/": b""}))
        checkpoint = weighbridge.open(path)
        assert list(checkpoint) == ["sound"]
        assert [(f.name, f.reason) for f in checkpoint.faults] == [
            ("read.me", "net.npz: array 'read.me': is no .npy member; only arrays are read")
        ]


class TestDamagedData:
    """The header is sound, so the tensor is listed; reading it says what is wrong and leaves the others be."""

    LONG = np.random.default_rng(0).standard_normal((1000, 700)).astype(np.float32)

    @pytest.fixture
    def fails(self, write: Callable[..., Path], judge: Callable[..., None]) -> Callable[..., None]:
        def failing(content: bytes, *parts: str) -> None:
            checkpoint = weighbridge.open(write("net.npz", content))
            assert list(checkpoint) == ["bad", "sound"]
            for _ in range(2):
                with pytest.raises(ReadFailed) as caught:
                    checkpoint["bad"].read()
                judge(str(caught.value), "net.npz", "'bad.npy'", *parts)
                np.testing.assert_array_equal(checkpoint["sound"].read(), SOUND)
            np.testing.assert_array_equal(checkpoint["bad"].read(slice(0, 3)), self.LONG[:3])

        return failing

    def test_bytes_flipped(self, fails: Callable[..., None]) -> None:
        content = bytearray(archive({"bad.npy": saved(self.LONG), "sound.npy": saved(SOUND)}, DEFLATED))
        middle = directory(bytes(content))["bad.npy"].compress_size // 2
        content[middle : middle + 1000] = bytes(1000)
        fails(bytes(content), "is damaged")

    def test_a_wrong_checksum(self, fails: Callable[..., None]) -> None:
        content = archive({"bad.npy": saved(self.LONG), "sound.npy": saved(SOUND)}, DEFLATED)
        fails(claims(content, "bad.npy", crc=1), "is damaged", "CRC")

    def test_less_than_it_claims(self, fails: Callable[..., None]) -> None:
        whole = saved(self.LONG)
        content = archive({"bad.npy": whole[:-4000], "sound.npy": saved(SOUND)}, DEFLATED)
        fails(claims(content, "bad.npy", size=len(whole)))

    def test_more_than_it_claims(self, fails: Callable[..., None]) -> None:
        whole = saved(self.LONG)
        content = archive({"bad.npy": whole + bytes(4000), "sound.npy": saved(SOUND)}, DEFLATED)
        fails(claims(content, "bad.npy", size=len(whole)), "is damaged", "CRC")

    def test_a_compressed_size_too_small(self, fails: Callable[..., None]) -> None:
        content = archive({"bad.npy": saved(self.LONG), "sound.npy": saved(SOUND)}, DEFLATED)
        fails(claims(content, "bad.npy", compressed=directory(content)["bad.npy"].compress_size // 2))

    def test_the_archive_is_gone(self, write: Callable[..., Path], judge: Callable[..., None]) -> None:
        path = write("net.npz", archive({"bad.npy": saved(self.LONG)}, DEFLATED))
        tensor = weighbridge.open(path)["bad"]
        path.unlink()
        with pytest.raises(ReadFailed) as caught:
            tensor.read()
        judge(str(caught.value), "net.npz", "'bad.npy'")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_other_compressions(method: int, write: Callable[..., Path], judge: Callable[..., None]) -> None:
    content = archive({"bad.npy": saved(TestDamagedData.LONG), "sound.npy": saved(SOUND)}, method)
    np.testing.assert_array_equal(weighbridge.open(write("net.npz", content))["bad"].read(), TestDamagedData.LONG)
    damaged = bytearray(content)
    middle = directory(content)["bad.npy"].compress_size // 2
    damaged[middle : middle + 1000] = bytes(1000)
    checkpoint = weighbridge.open(write("net.npz", bytes(damaged)))
    with pytest.raises(ReadFailed) as caught:
        checkpoint["bad"].read()
    judge(str(caught.value), "net.npz", "'bad.npy' is damaged")
    np.testing.assert_array_equal(checkpoint["sound"].read(), SOUND)


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/../../x", "C:\\x", "deep/er/x", "..", "~/x"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, DEFLATED], ids=["stored", "compressed"])
def test_a_members_name_is_only_a_name(name: str, method: int, tmp_path: Path) -> None:
    inner = tmp_path / "one" / "two" / "three"
    inner.mkdir(parents=True)
    (inner / "net.npz").write_bytes(archive({f"{name}.npy": saved(SOUND)}, method))
    before = sorted(tmp_path.rglob("*"))
    checkpoint = weighbridge.open(inner / "net.npz")
    assert list(checkpoint) == [name]
    assert checkpoint[name].file == "net.npz"
    np.testing.assert_array_equal(checkpoint[name].read(), SOUND)
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_but_nan_reads(tmp_path: Path) -> None:
    np.savez(tmp_path / "net.npz", a=np.full((3, 2), np.nan), b=np.full(5, np.nan, np.float16))
    checkpoint = weighbridge.open(tmp_path / "net.npz")
    assert all(np.isnan(tensor.read()).all() for tensor in checkpoint.values())


@st.composite
def mutated(draw: st.DrawFn, blob: bytes) -> bytes:
    content = bytearray(blob)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        content[at : at + draw(st.integers(0, 2))] = draw(
            st.binary(max_size=2) | st.sampled_from([b"\xff" * 4, b"(", b"L"])
        )
    return bytes(content[: draw(st.sampled_from([None] * 9 + [draw(st.integers(0, len(content)))]))])


def opens_or_is_refused(path: Path, content: bytes) -> None:
    """And whatever opens reads, or fails to read, within its own bounds."""
    path.write_bytes(content)
    try:
        checkpoint = weighbridge.open(path)
    except WeighbridgeError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
        return
    assert all(len(fault.reason.splitlines()) == 1 for fault in checkpoint.faults)
    for tensor in checkpoint.values():
        assert tensor.nbytes <= len(content) * 1100
        try:
            assert tensor.read().shape == tensor.shape
        except ReadFailed:
            continue


FUZZ = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
ARCHIVE = {"a.npy": saved(SOUND[:, :1]), "b.npy": saved(np.asfortranarray(SOUND[:2].astype(">i2")))}


@pytest.mark.filterwarnings("ignore")
class TestAnyMutation:
    @FUZZ
    @given(content=mutated(saved(SOUND)))
    def test_of_an_array(self, content: bytes, tmp_path: Path) -> None:
        opens_or_is_refused(tmp_path / "net.npy", content)

    @FUZZ
    @given(text=mutated(header("(3, 4)", "'<f4'").encode()))
    @example(text=header("(3, 4)", "'<f4'", "True").encode())
    def test_of_a_header(self, text: bytes, tmp_path: Path) -> None:
        opens_or_is_refused(tmp_path / "net.npy", npy(text.decode("latin1"), SOUND.tobytes()))

    @FUZZ
    @given(content=mutated(archive(ARCHIVE)) | mutated(archive(ARCHIVE, DEFLATED)))
    def test_of_an_archive(self, content: bytes, tmp_path: Path) -> None:
        opens_or_is_refused(tmp_path / "net.npz", content)

    @FUZZ
    @given(data=st.data(), method=st.sampled_from([zipfile.ZIP_STORED, DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
    def test_of_a_directory(self, data: st.DataObject, method: int, tmp_path: Path) -> None:
        content = archive(ARCHIVE, method)
        values = st.integers(0, 300) | st.integers(0, 2**16 - 1)
        fields = data.draw(st.dictionaries(st.sampled_from(list(FIELDS)), values, min_size=1))
        opens_or_is_refused(tmp_path / "net.npz", claims(content, "b.npy", **fields))
