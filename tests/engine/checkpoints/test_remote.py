"""Checkpoints far away: an HTTP server on localhost that serves ranges, with and without faults of its own making."""

import http.server
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

import weighbridge
from weighbridge.checkpoints import remote_file

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

VOLATILE = ["file", "order"]


class _Handler(http.server.BaseHTTPRequestHandler):
    """Serves files of a folder; `faults` is the share of requests that err, stall or stop short."""

    protocol_version = "HTTP/1.1"
    folder: ClassVar[Path]
    faults: ClassVar[float] = 0.0
    ranges: ClassVar[bool] = True
    stall: ClassVar[float] = 3.0
    sent: ClassVar[int] = 0
    requests: ClassVar[int] = 0
    chance: ClassVar[random.Random]
    lock: ClassVar[threading.Lock] = threading.Lock()

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        cls = type(self)
        path = cls.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        start, end, status = 0, len(content), 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked and cls.ranges:
            start, end, status = int(asked[1]), min(int(asked[2]) + 1, len(content)), 206
        with cls.lock:
            cls.requests += 1
            fault = cls.chance.choice(("error", "stall", "short")) if cls.chance.random() < cls.faults else None
        if fault == "error":
            self.send_error(503)
            return
        self.send_response(status)
        if cls.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", '"1"')
        self.end_headers()
        if body:
            self._send(content[start:end], fault)

    def _send(self, part: bytes, fault: str | None) -> None:
        cls = type(self)
        cut = len(part) // 10 if fault else len(part)
        try:
            for at in range(0, cut, 1 << 16):
                with cls.lock:
                    cls.sent += min(1 << 16, cut - at)
                self.wfile.write(part[at : min(at + (1 << 16), cut)])
            if fault == "stall":
                time.sleep(cls.stall)
        except (BrokenPipeError, ConnectionResetError):
            pass
        if fault:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


Serve = Callable[..., tuple[str, type[_Handler]]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a server over the folder `served`; gives its address and its handler, which counts what it sent."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(**settings: Any) -> tuple[str, type[_Handler]]:
        chance = random.Random(7)
        handler = type("Handler", (_Handler,), {"folder": tmp_path / "served", "chance": chance, **settings})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", handler

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Two shards and their index: some large tensors, many small ones."""
    folder = tmp_path / "served"
    folder.mkdir()
    rng = np.random.default_rng(0)
    large = {f"model.layers.{i}.mlp.up_proj.weight": rng.standard_normal((900, 4000), np.float32) for i in range(4)}
    small = {f"model.layers.{i}.norm.weight": rng.standard_normal(300).astype(np.float16) for i in range(40)}
    save_file(large, folder / "model-00001.safetensors")
    save_file(small, folder / "model-00002.safetensors")
    weight_map = dict.fromkeys(large, "model-00001.safetensors") | dict.fromkeys(small, "model-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def table(report: weighbridge.Report) -> pd.DataFrame:
    return report.table("scan", lists=True)


def test_a_remote_scan_equals_the_local_one(serve: Serve, checkpoint: Path, tmp_path: Path) -> None:
    address, handler = serve()
    local = weighbridge.scan(checkpoint, report=tmp_path / "local", device="cpu")
    remote = weighbridge.scan(f"{address}/model.safetensors.index.json", report=tmp_path / "remote", device="cpu")
    pd.testing.assert_frame_equal(table(remote), table(local))
    nbytes = weighbridge.open(checkpoint).nbytes
    assert nbytes > 50e6
    assert handler.sent <= 1.05 * nbytes


def test_small_neighbours_share_a_request(serve: Serve, checkpoint: Path, tmp_path: Path) -> None:
    address, handler = serve()
    weighbridge.scan(f"{address}/model-00002.safetensors", report=tmp_path / "report", device="cpu")
    assert handler.requests <= 6


def test_faults_change_nothing(serve: Serve, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_file, "STALL", 1.0)
    monkeypatch.setattr(remote_file, "BACKOFF", 0.02)
    address, handler = serve(faults=0.05)
    local = weighbridge.scan(checkpoint, report=tmp_path / "local", device="cpu")
    for attempt in range(5):
        address, handler = serve(faults=0.05, chance=random.Random(attempt))
        url = f"{address}/model.safetensors.index.json"
        remote = weighbridge.scan(url, report=tmp_path / f"remote{attempt}", device="cpu")
        pd.testing.assert_frame_equal(table(remote), table(local))
        assert handler.sent <= 1.25 * weighbridge.open(checkpoint).nbytes


def test_a_server_that_always_fails(
    serve: Serve, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_file, "BACKOFF", 0.001)
    address, _ = serve(faults=1.0, stall=0.01)
    with pytest.raises(weighbridge.ReadFailed, match=r"6 attempts failed, .*try again later"):
        weighbridge.open(f"{address}/model-00001.safetensors")


def test_a_server_without_ranges(serve: Serve, checkpoint: Path) -> None:
    address, handler = serve(ranges=False)
    with pytest.raises(weighbridge.BadArgument, match="does not serve ranges") as raised:
        weighbridge.open(f"{address}/model-00001.safetensors").popitem()
    assert "\n" not in str(raised.value)
    assert handler.sent < 5e6


def test_one_tensor_costs_its_own_bytes(serve: Serve, checkpoint: Path) -> None:
    address, handler = serve()
    opened = weighbridge.open(f"{address}/model-00001.safetensors")
    header = handler.sent
    rows = opened["model.layers.2.mlp.up_proj.weight"].read(slice(10, 20))
    assert handler.sent - header == rows.nbytes
    np.testing.assert_array_equal(rows, weighbridge.open(checkpoint)["model.layers.2.mlp.up_proj.weight"].read()[10:20])


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("{}/absent.safetensors", weighbridge.SourceNotFound),
        ("http://127.0.0.1:9/x.safetensors", weighbridge.ReadFailed),
        ("nonsense://x/y.safetensors", weighbridge.BadArgument),
        ("memory://nothing/here.safetensors", weighbridge.SourceNotFound),
    ],
)
def test_bad_addresses_are_one_line(
    serve: Serve, checkpoint: Path, address: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_file, "BACKOFF", 0.001)
    with pytest.raises(error) as raised:
        weighbridge.open(address.format(serve()[0]))
    assert "\n" not in str(raised.value)


def test_other_filesystems(checkpoint: Path, tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe({f"/bucket/model/{path.name}": path.read_bytes() for path in checkpoint.iterdir()})
    local = weighbridge.scan(checkpoint, report=tmp_path / "local", device="cpu")
    far = weighbridge.scan("memory://bucket/model", report=tmp_path / "far", device="cpu")
    pd.testing.assert_frame_equal(table(far), table(local))
    assert weighbridge.open("memory://bucket/model").name == "bucket"


@pytest.mark.parametrize("shard", ["../x", "/x.safetensors", "a/../../x", "http://other/x.safetensors", "a?b"])
def test_an_index_leads_nowhere_else(shard: str) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/hostile/model.safetensors.index.json", json.dumps({"weight_map": {"a": shard}}).encode())
    with pytest.raises(weighbridge.CorruptCheckpoint, match="outside the checkpoint's folder"):
        weighbridge.open("memory://hostile")
