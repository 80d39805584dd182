"""How long a person waits for pictures of a large matrix: its pyramid, the first picture, pans and zooms.

    python -m weighbridge_benchmarks.heatmap --side 32768 --json results.json

The same windows beside it by datashader's `Canvas.raster` over the matrix as float32 in memory, which reads all of a
window each time. Times are those of the server: what a browser does comes on top.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

import weighbridge
from weighbridge.pyramid import PyramidCache, WeightMatrix, matrix_of
from weighbridge.views.window import Range, picture, window
from weighbridge_benchmarks.ceilings import host_read
from weighbridge_benchmarks.suite import machine, tell
from weighbridge_benchmarks.weights import real_weights

HEIGHT, WIDTH = 800, 1000
_SMALLEST = 50
"""Rows of the smallest window."""

Windows = list[tuple[Range, Range]]


def windows(side: int, count: int) -> Windows:
    """Windows anywhere, of all sizes alike on a logarithmic scale, in about the plot's proportion."""
    rng = np.random.default_rng(7)
    found = []
    for _ in range(count):
        height = float(np.exp(rng.uniform(np.log(_SMALLEST), np.log(side))))
        width = min(height * WIDTH / HEIGHT, side)
        top, left = rng.uniform(0, side - height), rng.uniform(0, side - width)
        found.append(((top, top + height), (left, left + width)))
    return found


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Median, 0.95 quantile and greatest of some times."""
    return {"median": float(np.median(seconds)), "p95": float(np.quantile(seconds, 0.95)), "max": max(seconds)}


def pictures(file: Path, cache: Path, wanted: Windows) -> dict[str, Any]:
    """Building the pyramid of a file's one tensor, then the whole and every window."""
    checkpoint = weighbridge.open(file)
    (tensor,) = checkpoint.values()
    _warm()
    idle = _anonymous()
    matrix = matrix_of(tensor)
    assert isinstance(matrix, WeightMatrix)
    began = time.perf_counter()
    matrix.pyramid = PyramidCache(cache).request(tensor, matrix.view).result()
    built = time.perf_counter() - began
    whole = _seconds(matrix, None, None)
    times = [_seconds(matrix, rows, cols) for rows, cols in wanted]
    return {
        "entries": tensor.count,
        "pyramid": {"seconds": built, "entries_per_second": tensor.count / built},
        "first_picture": whole,
        "windows": quantiles(times),
        "anonymous_bytes_above_idle": _anonymous() - idle,
    }


def datashader_times(weights: np.ndarray, wanted: Windows) -> dict[str, float]:
    """Signed absmax of the same windows by datashader alone, from float32 in memory."""
    import datashader
    import xarray

    rows, cols = weights.shape
    axes = {"y": np.arange(rows) + 0.5, "x": np.arange(cols) + 0.5}
    source = xarray.DataArray(weights, axes, ("y", "x"))

    def raster(y: Range, x: Range) -> float:
        began = time.perf_counter()
        canvas = datashader.Canvas(WIDTH, HEIGHT, x, y)
        least, greatest = (canvas.raster(source, agg=how).values for how in ("min", "max"))
        np.where(greatest >= -least, greatest, least)
        return time.perf_counter() - began

    raster(*wanted[0])
    return quantiles([raster(*at) for at in wanted])


def _seconds(matrix: WeightMatrix, rows: Range | None, cols: Range | None) -> float:
    began = time.perf_counter()
    _ = picture(matrix, window(matrix, rows, cols, HEIGHT, WIDTH)).limit
    return time.perf_counter() - began


def _warm() -> None:
    """What a page's server compiles before anyone asks."""
    from weighbridge.app.server import warm

    warm()


def _anonymous() -> int:
    """Bytes of memory of this process that no file backs; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon")), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=32768, help="rows and columns of the bfloat16 matrix")
    parser.add_argument("--windows", type=int, default=40, help="pans and zooms")
    parser.add_argument("--json", type=Path, help="where the figures go")
    given = parser.parse_args()
    wanted = windows(given.side, given.windows)
    figures: dict[str, Any] = {"machine": machine(), "host_read": host_read(2), "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "matrix.safetensors"
        save_file({"matrix": real_weights((given.side, given.side), ml_dtypes.bfloat16)}, file)
        figures |= pictures(file, Path(folder) / "cache", wanted)
    figures["datashader"] = datashader_times(real_weights((given.side, given.side), np.float32), wanted)
    tell(figures, given.json)


if __name__ == "__main__":
    main()
