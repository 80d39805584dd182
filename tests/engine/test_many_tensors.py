"""Very many small tensors: no compilation, no file and no second for each. The source tiles real weights in memory."""

import io
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import weighbridge
from weighbridge import demo, terminal
from weighbridge.checkpoints.dtypes import SAFETENSORS
from weighbridge.checkpoints.protocol import Checkpoint, SourceFile, Tensor
from weighbridge_kernels import variants

SIDE = 512
EXPERTS = 256


class Made(Tensor):
    """A 512 × 512 bfloat16 expert's matrix, cut from a pool of real weights at a place of its own."""

    def __init__(self, number: int, pool: np.ndarray) -> None:
        layer, expert = divmod(number, EXPERTS)
        self.name = f"model.layers.{layer}.mlp.experts.{expert}.up_proj.weight"
        self.shape = (SIDE, SIDE)
        self.dtype = SAFETENSORS["BF16"]
        self.file = "made"
        self._bytes = pool[number * 7919 % (pool.size - SIDE * SIDE) :].view(np.uint8)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        buffer[:] = self._bytes[offset : offset + len(buffer)].data


def made(count: int) -> Checkpoint:
    weights = [t.read().reshape(-1) for t in weighbridge.open(demo.locate("digits")).values() if t.count > 1000]
    pool = np.resize(np.concatenate(weights).astype(ml_dtypes.bfloat16), 3 * SIDE * SIDE)
    return Checkpoint("made", [SourceFile("made", count, 0, "0")], [Made(number, pool) for number in range(count)])


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("count", [600, pytest.param(46_000, marks=pytest.mark.slow)])
def test_rows_files_and_bytes(count: int, tmp_path: Path) -> None:
    report = weighbridge.scan(made(count), report=tmp_path / "report", device="cpu")
    assert len(report) == count
    assert set(report.table("scan")["status"]) == {"done"}
    assert len(list((tmp_path / "report" / "tables" / "scan").iterdir())) <= count // 256 + 8
    assert bytes_of(tmp_path / "report") <= count * (16_000 + 8 * 2 * SIDE)
    began = time.monotonic()
    terminal.print_report(terminal.PlainConsole(file=io.StringIO(), width=200), report)
    weighbridge.findings(report)
    assert time.monotonic() - began < 10


def test_no_compilation_for_each_on_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    from weighbridge import devices

    compiled: list[str] = []

    def listen(event: str, _: float, **__: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    monkeypatch.setattr(devices, "select", lambda device: variants.on_jax("cpu"))
    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        weighbridge.scan(made(40), report=tmp_path / "report")
    finally:
        jax.monitoring.clear_event_listeners()
    assert 0 < len(compiled) <= 20


def test_no_compilation_for_each_on_the_host(tmp_path: Path) -> None:
    from numba.core import event

    weighbridge.scan(made(2), report=tmp_path / "first", device="cpu")
    with event.install_recorder("numba:compile") as recorder:
        weighbridge.scan(made(40), report=tmp_path / "report", device="cpu")
    assert not recorder.buffer


def test_many_kinds_share_spans(tmp_path: Path) -> None:
    """Small tensors of odd sizes and all widths lie together in one buffer, each aligned."""
    rng = np.random.default_rng(0)
    kinds = [np.uint8, ml_dtypes.bfloat16, np.float32, np.float64, np.int16, ml_dtypes.float8_e4m3fn, np.complex64]
    tree = {f"w{i:03d}": rng.standard_normal(int(rng.integers(0, 50))).astype(kinds[i % 7]) for i in range(300)}
    report = weighbridge.scan(tree, report=tmp_path / "report", device="cpu")
    for name, array in tree.items():
        zeros = int((array == 0).sum())
        assert (report[name]["status"], report[name]["zeros"]) == ("done", zeros), name
