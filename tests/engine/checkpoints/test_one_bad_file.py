"""One bad tensor or shard does not stop the others; a bad file alone is a bad call."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import weighbridge
from weighbridge.cli import app

GOOD = {"layer.0.weight": np.arange(35, dtype=np.float32).reshape(5, 7), "layer.0.bias": np.ones(7, np.float32)}
LOST = {"layer.1.weight": np.ones((5, 7), np.float32), "layer.1.bias": np.zeros(0, np.float32)}

BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda sound: sound[:-1],
    "trailing bytes": lambda sound: sound + b"\0",
    "empty": lambda sound: b"",
    "not a header": lambda sound: b"\xff" * len(sound),
}


@pytest.fixture(params=BROKEN)
def broken(request: pytest.FixtureRequest, pack_arrays: Callable[..., bytes]) -> bytes:
    return BROKEN[request.param](pack_arrays(LOST))


@pytest.fixture
def index(write: Callable[..., Path], pack_arrays: Callable[..., bytes], broken: bytes) -> Path:
    write("net/a.safetensors", broken)
    write("net/b.safetensors", pack_arrays(GOOD))
    weight_map = dict.fromkeys(LOST, "a.safetensors") | dict.fromkeys(GOOD, "b.safetensors")
    return write("net/model.safetensors.index.json", json.dumps({"weight_map": weight_map}).encode())


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    """Its header is sound; of `bad` the data are damaged, `worse` is no array of numbers."""
    noise = np.random.default_rng(0).standard_normal((1000, 700))
    path = tmp_path / "net.npz"
    np.savez_compressed(path, bad=noise, good=noise, worse=np.array([{}]))
    content = bytearray(path.read_bytes())
    middle = len(content) // 4
    content[middle : middle + 999] = bytes(999)
    path.write_bytes(content)
    return path


def rows(report: weighbridge.Report) -> Mapping[str, Any]:
    return report.table("scan").set_index("name")


def command(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


class TestScan:
    def test_an_index_with_a_broken_shard(self, index: Path, tmp_path: Path) -> None:
        table = rows(weighbridge.scan(index, report=tmp_path / "report"))
        assert dict(table["status"]) == dict.fromkeys(GOOD, "done") | dict.fromkeys(LOST, "failed")
        for name in LOST:
            assert table.loc[name, "reason"].startswith("a.safetensors: ")
            assert len(table.loc[name, "reason"].splitlines()) == 1
            assert table.loc[name, "file"] == "a.safetensors"
        assert table.loc["layer.0.weight", "mean"] == 17
        assert table.loc["layer.0.bias", "absmax"] == 1

    def test_what_is_excluded_fails_nothing(self, index: Path, tmp_path: Path) -> None:
        assert command("scan", index, "--report", tmp_path / "report", "--exclude", "layer.1.*").exit_code == 0

    def test_a_missing_shard(self, index: Path, tmp_path: Path) -> None:
        (index.parent / "a.safetensors").unlink()
        table = rows(weighbridge.scan(index.parent, report=tmp_path / "report"))
        assert dict(table["status"]) == dict.fromkeys(GOOD, "done") | dict.fromkeys(LOST, "failed")
        assert set(table.loc[list(LOST), "reason"]) == {"a.safetensors: is missing from net; download it"}

    def test_damaged_data(self, npz: Path, tmp_path: Path) -> None:
        table = rows(weighbridge.scan(npz, report=tmp_path / "report"))
        assert dict(table["status"]) == {"bad": "failed", "good": "done", "worse": "failed"}
        assert "member 'bad.npy' is damaged" in table.loc["bad", "reason"]
        assert "holds Python objects" in table.loc["worse", "reason"]
        assert len(table.loc["bad", "reason"].splitlines()) == 1

    def test_a_file_that_shrinks_meanwhile(
        self, tmp_path: Path, write: Callable[..., Path], pack_arrays: Callable[..., bytes]
    ) -> None:
        path = write("net.safetensors", pack_arrays(GOOD | {"last": np.ones(100, np.float32)}))
        checkpoint = weighbridge.open(path)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 1)
        table = rows(weighbridge.scan(checkpoint, report=tmp_path / "report"))
        assert dict(table["status"]) == dict.fromkeys(GOOD, "done") | {"last": "failed"}
        assert "net.safetensors: ends at byte" in table.loc["last", "reason"]

    def test_a_repaired_shard_is_resumed(
        self, index: Path, tmp_path: Path, write: Callable[..., Path], pack_arrays: Callable[..., bytes]
    ) -> None:
        """Its header is another, so the report is of another source: it is not taken for the old one's."""
        weighbridge.scan(index, report=tmp_path / "report")
        write("net/a.safetensors", pack_arrays(LOST))
        table = rows(weighbridge.scan(index, report=tmp_path / "again"))
        assert set(table["status"]) == {"done"}
        with pytest.raises(weighbridge.ReportError, match="holds a report of other files or options"):
            weighbridge.scan(index, report=tmp_path / "report")


class TestCommandLine:
    def test_some_failed(self, index: Path, tmp_path: Path) -> None:
        result = command("scan", index, "--report", tmp_path / "report", "--json")
        assert result.exit_code == 3
        status = {row["name"]: row["status"] for row in map(json.loads, result.stdout.splitlines())}
        assert status == dict.fromkeys(GOOD, "done") | dict.fromkeys(LOST, "failed")

    def test_some_failed_is_shown(self, index: Path, tmp_path: Path) -> None:
        result = command("scan", index, "--report", tmp_path / "report")
        assert result.exit_code == 3
        assert "a.safetensors" in result.stdout + result.stderr

    def test_damaged_data(self, npz: Path, tmp_path: Path) -> None:
        assert command("scan", npz, "--report", tmp_path / "report").exit_code == 3

    def test_a_broken_file_alone(self, broken: bytes, write: Callable[..., Path], tmp_path: Path) -> None:
        path = write("net.safetensors", broken)
        result = command("scan", path, "--report", tmp_path / "report")
        self.one_line(result, "weighbridge: net.safetensors: ")
        assert not (tmp_path / "report").exists()

    def test_no_shard_at_all(self, index: Path) -> None:
        (index.parent / "b.safetensors").unlink()
        self.one_line(command("scan", index), "weighbridge: model.safetensors.index.json: none of its 2 shards")

    @pytest.mark.parametrize("name", ["nowhere.safetensors", "net.bin", "x" * 300, "~nobody_of_this_name/net.npz"])
    def test_no_source(self, name: str, write: Callable[..., Path], monkeypatch: Any, tmp_path: Path) -> None:
        write("net.bin", b"")
        monkeypatch.chdir(tmp_path)
        self.one_line(command("scan", name), f"weighbridge: {name}: ")

    def one_line(self, result: Result, begin: str) -> None:
        assert result.exit_code == 2
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith(begin)


def test_names_that_are_no_unicode(tmp_path: Path, pack_arrays: Callable[..., bytes]) -> None:
    """A key of a dict may hold half a surrogate pair, a file's name any bytes."""
    report = weighbridge.scan({"a\udcff": np.ones(3)}, report=tmp_path / "tree")
    assert report.names == ["a\\udcff"]
    path = tmp_path / "m\udcff.safetensors"
    path.write_bytes(pack_arrays(GOOD))
    report = weighbridge.scan(path, report=tmp_path / "file")
    assert set(report.table("scan")["file"]) == {"m\\udcff.safetensors"}
