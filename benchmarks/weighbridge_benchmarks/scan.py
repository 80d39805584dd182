"""How fast a whole scan is against the machine's own read bandwidth and against NumPy, on real weights tiled.

    python -m weighbridge_benchmarks.scan --gib 4 --json results.json

Every figure stands beside the ceiling of the same run: two threads reading memory. Each is the best of several tries.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from blake3 import blake3
from safetensors.numpy import save_file

import weighbridge
from weighbridge import stream
from weighbridge.analyses.scan_state import SpanSummary, TensorState
from weighbridge.analyses.scan_summary import summarize
from weighbridge.checkpoints.protocol import Tensor
from weighbridge.errors import WeighbridgeError
from weighbridge.matrix import matrix_view
from weighbridge_benchmarks.cases import QUANTILES
from weighbridge_benchmarks.ceilings import best, host_read
from weighbridge_benchmarks.suite import machine, tell
from weighbridge_benchmarks.weights import real_weights
from weighbridge_kernels import variants

COLS = 4096


def numpy_statistics(x: np.ndarray) -> None:
    """What the comparison asks of NumPy: mean, std, min, max, eleven quantiles, a 2,048-bin histogram of float32."""
    x.mean(), x.std(), x.min(), x.max()
    np.quantile(x, QUANTILES)
    np.histogram(x, bins=2048)


class _Columns(stream.Fold[SpanSummary]):
    """Everything a scan computes of one tensor but the report."""

    def __init__(self, tensor: Tensor) -> None:
        self._view = matrix_view(tensor.name, tensor.shape, "mlp_up")
        self._state = TensorState(tensor, self._view)
        self._hasher = blake3()
        self._variant = variants.select("cpu")

    def summarize(self, piece: stream.Piece, packed: stream.Bytes) -> SpanSummary:
        return summarize(piece, packed, self._view, self._variant)

    def absorb(self, piece: stream.Piece, packed: stream.Bytes, state: SpanSummary) -> None:
        self._hasher.update(packed.data)
        self._state.merge(state)

    def fail(self, tensor: Tensor, error: WeighbridgeError) -> None:
        raise error


def columns_rate(weights: np.ndarray, workers: int) -> float:
    """Bytes a second of all columns of one tensor in memory, the copy into the stream's buffers included."""
    tensor = weighbridge.open({"weight": weights})["weight"]

    def once() -> None:
        plan = list(stream.spans([stream.pieces(tensor, COLS)]))
        stream.run(plan, _Columns(tensor), memory=1 << 30, workers=workers)

    once()
    return weights.nbytes / best(once)


def checkpoint_rate(folder: Path, gib: float) -> dict[str, float]:
    """Bytes a second of `scan` over a sharded bfloat16 checkpoint in the page cache, start-up aside."""
    shards, tensors = 4, 8
    rows = int(gib * 2**30 / 2 / shards / tensors / COLS)
    block = real_weights((rows, COLS), ml_dtypes.bfloat16)
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        names = [f"model.layers.{shard * tensors + i}.mlp.up_proj.weight" for i in range(tensors)]
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
    ceiling = host_read(2)
    sample = real_weights((1 << 24,), np.float32)
    baseline = best(lambda: numpy_statistics(sample), 2) / sample.size
    figures: dict[str, Any] = {
        "machine": machine(),
        "host_read": ceiling,
        "numpy_seconds_per_entry": baseline,
    }
    for name, dtype in (("bfloat16", ml_dtypes.bfloat16), ("float32", np.float32)):
        weights = real_weights((given.entries // COLS, COLS), dtype)
        rate = columns_rate(weights, workers)
        times_numpy = baseline * rate / weights.itemsize
        figures[name] = {"rate": rate, "share_of_read": rate / ceiling, "times_numpy": times_numpy}
        del weights
    if given.gib:
        with tempfile.TemporaryDirectory() as folder:
            found = checkpoint_rate(Path(folder), given.gib)
            figures["checkpoint"] = found | {"share_of_read": found["rate"] / ceiling}
    tell(figures, given.json)


if __name__ == "__main__":
    main()
