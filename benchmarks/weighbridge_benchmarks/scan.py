"""How fast a scan is against the machine's own read bandwidth and against NumPy, on real weights tiled.

    python -m weighbridge_benchmarks.scan --gib 4 --json results.json

Every figure stands beside the ceiling of the same run: two threads reading memory. Each is the best of several tries.
"""

import argparse
import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

import weighbridge
from weighbridge import demo, stream
from weighbridge.analyses.scan_state import TensorState, summarize
from weighbridge.matrix import matrix_view
from weighbridge.report.schema import QUANTILES
from weighbridge_kernels import variants

COLS = 4096
TRIES = 5


def real_weights(count: int, dtype: Any) -> np.ndarray:
    """`count` weights of the sentence encoder MiniLM, or of the digits network where that is missing, tiled."""
    try:
        path = demo.locate("minilm")
    except weighbridge.SourceNotFound:
        path = demo.locate("digits")
    tensors = [
        t.read().reshape(-1) for t in weighbridge.open(path).values() if t.dtype.kind == "float" and t.count > 1000
    ]
    pool = np.concatenate(tensors).astype(dtype)
    return np.resize(pool, count)


def best(work: Callable[[], Any], tries: int = TRIES) -> float:
    """Least wall time of several tries, in seconds."""
    times = []
    for _ in range(tries):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def read_bandwidth(nbytes: int = 1 << 30) -> float:
    """Bytes a second that two threads read from memory: each takes the maximum of half an array."""
    words = np.ones(nbytes // 8, np.uint64)
    halves = np.array_split(words, 2)

    def read() -> None:
        threads = [threading.Thread(target=half.max) for half in halves]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return nbytes / best(read)


def numpy_statistics(x: np.ndarray) -> None:
    """What the comparison asks of NumPy: mean, std, min, max, eleven quantiles, a 2,048-bin histogram of float32."""
    x.mean(), x.std(), x.min(), x.max()
    np.quantile(x, list(QUANTILES.values()))
    np.histogram(x, bins=2048)


class _Columns(stream.Fold[Any]):
    """Everything a scan computes of one tensor but the report."""

    def __init__(self, tensor: Any) -> None:
        self.view = matrix_view(tensor.name, tensor.shape, "mlp_up")
        self.state = TensorState(tensor, self.view)
        self.hasher = __import__("blake3").blake3()
        self.variant = variants.host()

    def summarize(self, piece: stream.Piece, packed: np.ndarray) -> Any:
        return summarize(piece, packed, self.view, self.variant)

    def absorb(self, piece: stream.Piece, packed: np.ndarray, state: Any) -> None:
        self.hasher.update(packed)
        self.state.merge(state)


def columns_rate(weights: np.ndarray, workers: int) -> float:
    """Bytes a second of all columns of one tensor in memory, the copy into the stream's buffers included."""
    tensor = weighbridge.open({"weight": weights.reshape(-1, COLS)})["weight"]

    def once() -> None:
        plan = list(stream.spans([stream.pieces(tensor, COLS)]))
        stream.run(plan, _Columns(tensor), memory=1 << 30, workers=workers)

    once()
    return weights.nbytes / best(once)


def checkpoint_rate(folder: Path, gib: float) -> dict[str, float]:
    """Bytes a second of `scan` over a sharded bfloat16 checkpoint in the page cache, start-up aside."""
    shards = 4
    rows = int(gib * 2**30 / 2 / shards / 8 / COLS)
    weight_map = {}
    for shard in range(shards):
        block = real_weights(rows * COLS, ml_dtypes.bfloat16).reshape(rows, COLS)
        names = [f"model.layers.{shard * 8 + i}.mlp.up_proj.weight" for i in range(8)]
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        save_file({name: np.roll(block, i, axis=0) for i, name in enumerate(names)}, folder / file)
        weight_map |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    nbytes = weighbridge.open(folder).nbytes

    def once() -> None:
        weighbridge.scan(folder, report=folder / "report", if_exists="overwrite", device="cpu")

    once()
    return {"bytes": nbytes, "rate": nbytes / best(once, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=4.0, help="size of the sharded checkpoint; 0 leaves it out")
    parser.add_argument("--entries", type=int, default=1 << 28, help="entries of the tensor in memory")
    parser.add_argument("--json", type=Path, help="where the figures go")
    given = parser.parse_args()
    workers = os.cpu_count() or 1
    ceiling = read_bandwidth()
    sample = real_weights(1 << 24, np.float32)
    baseline = best(lambda: numpy_statistics(sample), 2) / sample.size
    figures: dict[str, Any] = {
        "machine": {"processor": _processor(), "cores": workers, "python": platform.python_version()},
        "versions": {name: version(name) for name in ("weighbridge", "numpy", "numba", "blake3")},
        "read_bandwidth": ceiling,
        "numpy_seconds_per_entry": baseline,
    }
    for name, dtype in (("bfloat16", ml_dtypes.bfloat16), ("float32", np.float32)):
        weights = real_weights(given.entries, dtype)
        rate = columns_rate(weights, workers)
        figures[name] = {
            "rate": rate,
            "share_of_bandwidth": rate / ceiling,
            "times_numpy": baseline * rate / weights.itemsize,
        }
        del weights
    if given.gib:
        with tempfile.TemporaryDirectory() as folder:
            found = checkpoint_rate(Path(folder), given.gib)
            figures["checkpoint"] = found | {"share_of_bandwidth": found["rate"] / ceiling}
    text = json.dumps(figures, indent=1)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")


def _processor() -> str:
    """The processor's name as Linux tells it, or what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
