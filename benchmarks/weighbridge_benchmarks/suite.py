"""Runs the table of cases over the named shapes and says what it found, beside what the machine can do."""

import fnmatch
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from weighbridge_benchmarks.cases import CASES, Case, array_dtype
from weighbridge_benchmarks.ceilings import all_ceilings
from weighbridge_benchmarks.timing import measure
from weighbridge_benchmarks.weights import QUICK, SHAPES, real_weights
from weighbridge_kernels import variants
from weighbridge_kernels.variants import Variant

Result = dict[str, Any]

_PACKAGES = ("weighbridge", "jax", "jaxlib", "numpy", "numba", "scipy", "torch")


def run(
    *,
    shapes: Iterable[str] = QUICK,
    kernels: str = "*",
    device: variants.Device = "auto",
    peers: bool = True,
    seconds: float = 0.5,
    told: Callable[[str], None] = lambda line: None,
) -> Result:
    """Every case whose kernel matches, on every shape, in the variants that the device has; one JSON-ready result."""
    chosen = [case for case in CASES if fnmatch.fnmatchcase(case.kernel, kernels)]
    ceilings = all_ceilings()
    rows = []
    for shape in shapes:
        for dtype in dict.fromkeys(case.dtype for case in chosen):
            weights = real_weights(SHAPES[shape], array_dtype(dtype))
            for case in (case for case in chosen if case.dtype == dtype):
                told(f"{case.name} on {shape}")
                rows += _case_rows(case, shape, weights, device, peers, seconds, ceilings)
    return {"machine": machine(), "ceilings": ceilings, "rows": rows, "date": time.strftime("%Y-%m-%d")}


def available(device: variants.Device) -> list[Variant]:
    """The variants to measure: on the CPU the host forms and the JAX forms, elsewhere the JAX forms."""
    chosen = variants.select(device)
    return [chosen, variants.on_jax("cpu")] if chosen.name == "host" else [chosen]


def _case_rows(
    case: Case,
    shape: str,
    weights: np.ndarray,
    device: variants.Device,
    peers: bool,
    seconds: float,
    ceilings: dict[str, float],
) -> list[Result]:
    found = [_row(case, shape, weights, v.name, case.prepare(weights, v), seconds, ceilings) for v in available(device)]
    for name, prepare in case.peers.items() if peers else ():
        try:
            work = prepare(weights)
        except ImportError:
            continue
        found.append(_row(case, shape, weights, name, work, seconds, ceilings))
    return found


def _row(
    case: Case,
    shape: str,
    weights: np.ndarray,
    by: str,
    work: Callable[[], Any],
    seconds: float,
    ceilings: dict[str, float],
) -> Result:
    timing = measure(work, seconds=seconds)
    nbytes, flops = case.bytes_per_weight * weights.size, case.flops_per_weight * weights.size
    on_device = by.startswith("jax:") and by != "jax:cpu"
    bandwidth = ceilings["device_copy"] / 2 if on_device else ceilings["host_read"]
    return {
        "case": case.name,
        "shape": shape,
        "by": by,
        "weights": weights.size,
        **asdict(timing),
        "compile": max(timing.first - timing.median, 0.0),
        "bytes_per_second": nbytes / timing.median if nbytes else None,
        "flops_per_second": flops / timing.median if flops else None,
        "share_of_read": nbytes / timing.median / bandwidth if nbytes else None,
    }


def compare(old: Result, new: Result, factor: float = 3.0) -> list[tuple[str, float]]:
    """Cases whose median changed beyond noise, `factor` spreads of both runs and 10 %, with the ratio new / old."""
    before = {(row["case"], row["shape"], row["by"]): row for row in old["rows"]}
    changed = []
    for row in new["rows"]:
        key = row["case"], row["shape"], row["by"]
        if key not in before:
            continue
        ratio = row["median"] / before[key]["median"]
        if abs(math.log(ratio)) > max(factor * (row["spread"] + before[key]["spread"]), math.log(1.1)):
            changed.append((" ".join(key), ratio))
    return sorted(changed, key=lambda change: -abs(math.log(change[1])))


def machine() -> dict[str, Any]:
    """Processor, device and versions of the run."""
    found: dict[str, Any] = {"processor": processor(), "cores": os.cpu_count(), "python": platform.python_version()}
    found["versions"] = {name: v for name in _PACKAGES if (v := _version(name))}
    found["commit"] = _commit()
    try:
        import jax

        found["device"] = str(jax.devices()[0].device_kind)
    except ImportError:
        found["device"] = None
    return found


def processor() -> str:
    """The processor's name as Linux tells it, or what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the sources that run, where they are a checkout."""
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def dumps(result: Result) -> str:
    return json.dumps(result, indent=1) + "\n"


def tell(figures: Mapping[str, Any], path: Path | None) -> None:
    """Prints the figures of a benchmark of its own as JSON, and writes them where a path is given."""
    text = json.dumps(figures, indent=1)
    print(text)
    if path:
        path.write_text(text + "\n", encoding="utf-8")


def load(path: Path) -> Result:
    result: Result = json.loads(path.read_text(encoding="utf-8"))
    return result
