"""Indices of shards that lie, and shards that lie elsewhere: no file outside the checkpoint is read, no tensor lost."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import weighbridge
from weighbridge import CorruptCheckpoint, WeighbridgeError
from weighbridge.checkpoints.protocol import Checkpoint

INDEX = "model.safetensors.index.json"
NO_MAP = "no weight_map of tensor names to files; expected an index as Hugging Face writes it"


def tensors(*names: str) -> dict[str, Any]:
    """A header of one byte a name."""
    return {name: {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i, name in enumerate(names)}


@pytest.fixture
def shard(write: Callable[..., Path], pack: Any) -> Callable[..., Path]:
    """Writes a shard of one byte a name."""
    return lambda path, *names: write(path, pack(tensors(*names), bytes(range(len(names)))))


@pytest.fixture
def sharded(tmp_path: Path, write: Callable[..., Path], shard: Callable[..., Path]) -> Callable[..., Checkpoint]:
    """Opens an index of tensors `x` and `y` in a sound shard, and of whatever else is given."""

    def opened(**weight_map: str) -> Checkpoint:
        shard("net/sound.safetensors", "x", "y")
        placed = {"x": "sound.safetensors", "y": "sound.safetensors"} | weight_map
        return weighbridge.open(write(f"net/{INDEX}", json.dumps({"weight_map": placed}).encode()))

    return opened


BROKEN = {
    "empty": (b"", "is not valid JSON"),
    "not JSON": (b"{weight_map}", "is not valid JSON: Expecting property name enclosed in double quotes"),
    "not UTF-8": (b'{"weight_map":{"\xff":"a"}}', "is not valid JSON"),
    "a list": (b"[]", NO_MAP),
    "a number": (b"1", NO_MAP),
    "an empty object": (b"{}", NO_MAP),
    "without a map": (b'{"metadata":{"total_size":4}}', NO_MAP),
    "an empty map": (b'{"weight_map":{}}', NO_MAP),
    "a map that is a list": (b'{"weight_map":["a.safetensors"]}', NO_MAP),
    "a map that is null": (b'{"weight_map":null}', NO_MAP),
    "a shard that is a number": (b'{"weight_map":{"x":3}}', NO_MAP),
    "a shard that is null": (b'{"weight_map":{"x":"a.safetensors","y":null}}', NO_MAP),
    "a shard that is a list": (b'{"weight_map":{"x":["a.safetensors"]}}', NO_MAP),
    "a tensor twice": (b'{"weight_map":{"x":"a.safetensors","x":"b.safetensors"}}', "the name 'x' occurs twice"),
    "two maps": (b'{"weight_map":{},"weight_map":{}}', "the name 'weight_map' occurs twice"),
    "a lone surrogate": (b'{"weight_map":{"\\ud800":"a.safetensors"}}', "is not valid JSON"),
    "a surrogate in a shard": (b'{"weight_map":{"x":"\\ud800.safetensors"}}', "is not valid JSON"),
    "100,000 lists": (b"[" * 100_000, "nests too deep; this is no index of shards"),
    "no shard at all": (b'{"weight_map":{"x":"a.safetensors"}}', "none of its 1 shards can be read; first: a.safetens"),
    "no shard inside": (b'{"weight_map":{"x":"../a.safetensors"}}', "none of its 1 shards can be read; first: ../a.sa"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_index(case: str, write: Callable[..., Path], refuses: Callable[..., None]) -> None:
    content, expected = BROKEN[case]
    refuses(write(f"net/{INDEX}", content), expected)


def test_a_huge_index_is_not_read(write: Callable[..., Path], refuses: Callable[..., None]) -> None:
    path = write(INDEX, b"{")
    os.truncate(path, 100_000_001)
    refuses(path, "100,000,001 bytes, expected an index of at most 100,000,000")


ELSEWHERE = {
    "the folder above": "../outside.safetensors",
    "out and in again": "../net/sound.safetensors",
    "out by a detour": "deeper/../../outside.safetensors",
    "inside by a detour": "deeper/../sound.safetensors",
    "a link out": "link.safetensors",
    "a link by a link": "link_to_link.safetensors",
    "a folder linked out": "linked_folder/outside.safetensors",
}


class TestShardsElsewhere:
    @pytest.fixture(autouse=True)
    def _outside(self, tmp_path: Path, shard: Callable[..., Path]) -> None:
        shard("outside.safetensors", "z")
        shard("elsewhere/outside.safetensors", "z")
        (tmp_path / "net").mkdir()
        (tmp_path / "net/link.safetensors").symlink_to(tmp_path / "outside.safetensors")
        (tmp_path / "net/link_to_link.safetensors").symlink_to("link.safetensors")
        (tmp_path / "net/linked_folder").symlink_to(tmp_path / "elsewhere")

    def refused(self, checkpoint: Checkpoint, name: str, judge: Callable[..., None]) -> None:
        assert set(checkpoint) == {"x", "y"}
        (fault,) = checkpoint.faults
        assert (fault.name, fault.file) == ("z", name)
        judge(fault.reason, name, "lies outside the checkpoint's folder; only files inside it are read")

    @pytest.mark.parametrize("case", ELSEWHERE)
    def test_by_name_or_by_link(self, case: str, sharded: Callable[..., Checkpoint], judge: Any) -> None:
        self.refused(sharded(z=ELSEWHERE[case]), ELSEWHERE[case], judge)

    def test_by_an_absolute_path(self, tmp_path: Path, sharded: Callable[..., Checkpoint], judge: Any) -> None:
        for path in (tmp_path / "outside.safetensors", tmp_path / "net/sound.safetensors"):
            self.refused(sharded(z=str(path)), str(path), judge)

    def test_a_link_out_of_a_folder_without_index(self, tmp_path: Path, shard: Callable[..., Path]) -> None:
        shard("net/sound.safetensors", "x")
        (tmp_path / "net/link_to_link.safetensors").unlink()
        checkpoint = weighbridge.open(tmp_path / "net")
        assert set(checkpoint) == {"x"}
        assert [fault.name for fault in checkpoint.faults] == ["link.safetensors"]

    def test_a_link_inside_is_followed(self, tmp_path: Path, sharded: Callable[..., Checkpoint], shard: Any) -> None:
        shard("net/deeper/real.safetensors", "z")
        (tmp_path / "net/alias.safetensors").symlink_to("deeper/real.safetensors")
        assert set(sharded(z="alias.safetensors")) == {"x", "y", "z"}


UNREACHABLE = {
    "missing": "lost.safetensors",
    "a folder": "deeper",
    "the folder itself": ".",
    "no name": "",
    "a NUL byte": "a\0b.safetensors",
    "a name too long": "a" * 300,
    "a link to itself": "loop.safetensors",
    "a link to nothing": "dangling.safetensors",
    "many lines": "a\n\x1b[2Jb.safetensors",
}


@pytest.mark.parametrize("case", UNREACHABLE)
def test_a_shard_out_of_reach(
    case: str, tmp_path: Path, sharded: Callable[..., Checkpoint], judge: Callable[..., None]
) -> None:
    (tmp_path / "net/deeper").mkdir(parents=True)
    (tmp_path / "net/loop.safetensors").symlink_to("loop.safetensors")
    (tmp_path / "net/dangling.safetensors").symlink_to("lost.safetensors")
    checkpoint = sharded(z=UNREACHABLE[case])
    assert {name: tensor.read().tolist() for name, tensor in checkpoint.items()} == {"x": [0], "y": [1]}
    (fault,) = checkpoint.faults
    assert (fault.name, fault.file) == ("z", UNREACHABLE[case])
    judge(fault.reason, UNREACHABLE[case] if UNREACHABLE[case].isprintable() else repr(UNREACHABLE[case]))


class TestTheHubsCache:
    """`snapshots/<revision>/file -> ../../blobs/<hash>` leads out of the folder and is meant to."""

    REVISION = "0123456789abcdef0123456789abcdef01234567"

    @pytest.fixture
    def snapshot(self, tmp_path: Path, shard: Callable[..., Path], write: Callable[..., Path]) -> Path:
        root = tmp_path / "models--maker--net"
        shard("models--maker--net/blobs/ab12", "x")
        shard("models--maker--net/blobs/cd34", "y")
        write(
            "models--maker--net/blobs/ef56",
            json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}).encode(),
        )
        snapshot = root / "snapshots" / self.REVISION
        snapshot.mkdir(parents=True)
        for name, blob in (("a.safetensors", "ab12"), ("b.safetensors", "cd34"), (INDEX, "ef56")):
            (snapshot / name).symlink_to(f"../../blobs/{blob}")
        return snapshot

    @pytest.mark.parametrize("inner", ["", INDEX], ids=["folder", "index"])
    def test_it_is_read(self, snapshot: Path, inner: str) -> None:
        checkpoint = weighbridge.open(snapshot / inner)
        assert set(checkpoint) == {"x", "y"}
        assert checkpoint.faults == ()
        assert checkpoint.name == "maker_net"
        assert {file.name for file in checkpoint.files} == {"a.safetensors", "b.safetensors"}

    def test_it_is_read_without_an_index(self, snapshot: Path) -> None:
        (snapshot / INDEX).unlink()
        assert set(weighbridge.open(snapshot)) == {"x", "y"}
        assert set(weighbridge.open(snapshot / "b.safetensors")) == {"y"}

    @pytest.mark.parametrize(
        "target", ["../../../secret", "../../refs/secret", "../../blobs/deeper/secret", "../secret"]
    )
    def test_other_links_are_refused(self, snapshot: Path, target: str, shard: Any, tmp_path: Path) -> None:
        secret = (snapshot / target).resolve()
        shard(secret.relative_to(tmp_path).as_posix(), "y")
        (snapshot / "b.safetensors").unlink()
        (snapshot / "b.safetensors").symlink_to(target)
        checkpoint = weighbridge.open(snapshot)
        assert set(checkpoint) == {"x"}
        assert [fault.name for fault in checkpoint.faults] == ["y"]
        assert "lies outside the checkpoint's folder" in checkpoint.faults[0].reason

    def test_blobs_beside_another_folder_are_outside(self, tmp_path: Path, shard: Any) -> None:
        """The same link from a folder that is no snapshot."""
        shard("blobs/secret", "y")
        shard("mine/net/a.safetensors", "x")
        (tmp_path / "mine/net/b.safetensors").symlink_to("../../blobs/secret")
        checkpoint = weighbridge.open(tmp_path / "mine/net")
        assert set(checkpoint) == {"x"}
        assert [fault.name for fault in checkpoint.faults] == ["b.safetensors"]


class TestIndexAndShardDisagree:
    def test_a_shard_lacks_a_tensor(self, sharded: Callable[..., Checkpoint], judge: Callable[..., None]) -> None:
        checkpoint = sharded(z="sound.safetensors")
        assert set(checkpoint) == {"x", "y"}
        (fault,) = checkpoint.faults
        assert (fault.name, fault.file) == ("z", "sound.safetensors")
        judge(fault.reason, f"sound.safetensors: lacks tensor 'z', which {INDEX} places there; download both again")

    def test_a_shard_has_one_more(self, sharded: Any, shard: Any, judge: Callable[..., None]) -> None:
        shard("net/more.safetensors", "z", "extra")
        checkpoint = sharded(z="more.safetensors")
        assert set(checkpoint) == {"x", "y", "z"}
        (fault,) = checkpoint.faults
        assert (fault.name, fault.file, fault.shape, fault.dtype) == ("extra", "more.safetensors", (1,), "U8")
        judge(fault.reason, f"more.safetensors: holds tensor 'extra', which {INDEX} does not place there")

    def test_the_index_says_which_of_two_counts(self, sharded: Any, write: Callable[..., Path], pack: Any) -> None:
        write("net/more.safetensors", pack(tensors("x", "z"), b"\x07\x08"))
        checkpoint = sharded(z="more.safetensors")
        assert {name: tensor.read().item() for name, tensor in checkpoint.items()} == {"x": 0, "y": 1, "z": 8}
        assert checkpoint["x"].file == "sound.safetensors"

    def test_a_broken_shard_leaves_the_others(self, sharded: Any, write: Any, judge: Callable[..., None]) -> None:
        write("net/broken.safetensors", b"\xff" * 20)
        checkpoint = sharded(z="broken.safetensors", w="broken.safetensors")
        assert set(checkpoint) == {"x", "y"}
        assert {(fault.name, fault.file) for fault in checkpoint.faults} == {
            ("z", "broken.safetensors"),
            ("w", "broken.safetensors"),
        }
        for fault in checkpoint.faults:
            judge(fault.reason, "broken.safetensors", "this is no safetensors file")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.dictionaries(st.text(max_size=5), st.text(max_size=8) | st.sampled_from(["sound.safetensors", "/", ".."])),
)
def test_any_map_opens_or_is_refused(names: dict[str, str], sharded: Callable[..., Checkpoint]) -> None:
    checkpoint = sharded(**names)
    lost = {fault.name for fault in checkpoint.faults}
    assert set(names) <= set(checkpoint) | lost
    assert set(checkpoint).isdisjoint(lost)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_any_index_is_refused(content: bytes, write: Callable[..., Path]) -> None:
    with pytest.raises(CorruptCheckpoint) as caught:
        weighbridge.open(write(INDEX, content))
    assert isinstance(caught.value, WeighbridgeError)
    assert len(str(caught.value).splitlines()) == 1
