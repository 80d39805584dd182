"""What watching a training costs, and what more steps of integrated gradients take in memory.

    python -m weighbridge_benchmarks.context --json results.json

The recorder: a jitted step of the shape of the digits network (two convolutions, two dense layers, 53,000 weights, a
batch of 64) with Adam, plain and recorded every 50 steps and every step. Rounds of each take turns in one run, so that
what else the machine does falls on all alike; a ratio is the median of the rounds' own. Saliency: the peak memory of a
process of its own with 512 steps over that with 8.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from weighbridge_benchmarks.suite import machine, tell

_SIDES = {"conv1": (3, 3, 1, 32), "conv2": (3, 3, 32, 64), "dense": (256, 128), "head": (128, 10)}
_BATCH = 64
_PEAK = """
    import resource, sys
    import jax, numpy as np
    import weighbridge

    kernels = [np.random.default_rng(0).normal(size=(3, 3, c, 32)).astype("f4") / 17 for c in (3, 32, 32, 32)]

    def network(x):
        for kernel in kernels:
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = jax.nn.relu(x)
        return x.mean((1, 2))

    steps, side = int(sys.argv[1]), int(sys.argv[2])
    images = np.random.default_rng(1).normal(size=(1, side, side, 3)).astype("f4")
    weighbridge.saliency(network, images, 3, steps=(steps, steps))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def recorder(rounds: int, steps: int) -> dict[str, Any]:
    """Milliseconds of a step, plain and recorded, and the ratios of recorded to plain."""
    import optax

    import weighbridge

    with tempfile.TemporaryDirectory() as folder:
        every = {
            f"every {n}": weighbridge.recorder.record(optax.adam(1e-3), every=n, report=f"{folder}/{n}")
            for n in (50, 1)
        }
        runs = {name: _training(of) for name, of in {"plain": optax.adam(1e-3), **every}.items()}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for at in range(rounds):
            for name in (*runs,) if at % 2 else (*reversed(runs),):
                times[name].append(runs[name](steps))
        for of in every.values():
            of.close()
    ratios = {name: [t / plain for t, plain in zip(times[name], times["plain"], strict=True)] for name in every}
    return {
        "milliseconds": {name: 1e3 * statistics.median(of) for name, of in times.items()},
        "ratio": {name: statistics.median(of) for name, of in ratios.items()},
        "rounds": rounds,
        "steps": steps,
    }


def _training(optimizer: Any) -> Callable[[int], float]:
    """A function that takes steps and gives the seconds of one; the network is compiled and goes on between calls."""
    import jax
    import jax.numpy as jnp
    import optax

    rng = np.random.default_rng(0)
    params = {name: jnp.asarray(rng.normal(size=of) / 8, jnp.float32) for name, of in _SIDES.items()}
    images = jnp.asarray(rng.uniform(size=(_BATCH, 8, 8, 1)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 10, _BATCH))

    def layer(x: Any, kernel: Any) -> Any:
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jax.lax.reduce_window(jax.nn.relu(x), -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    def loss(params: Any) -> Any:
        x = layer(layer(images, params["conv1"]), params["conv2"]).reshape(_BATCH, -1)
        logits = jax.nn.relu(x @ params["dense"]) @ params["head"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    wait: Any = jax.block_until_ready
    held = wait(step(params, optimizer.init(params)))

    def take(steps: int) -> float:
        nonlocal held
        began = time.perf_counter()
        for _ in range(steps):
            held = step(*held)
        wait(held)
        return (time.perf_counter() - began) / steps

    return take


def saliency_memory(side: int) -> dict[str, float]:
    """Peak memory in bytes with 8 and with 512 steps of integrated gradients, and their ratio."""
    unit = 1 if sys.platform == "darwin" else 1024
    peaks = [unit * _peak(steps, side) for steps in (8, 512)]
    return {"8": peaks[0], "512": peaks[1], "ratio": peaks[1] / peaks[0]}


def _peak(steps: int, side: int) -> int:
    command = [sys.executable, "-c", textwrap.dedent(_PEAK), str(steps), str(side)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=200, help="of a round")
    parser.add_argument("--side", type=int, default=224, help="of the image that is explained")
    parser.add_argument("--json", type=Path, help="where the figures go")
    given = parser.parse_args()
    figures: dict[str, Any] = {"machine": machine(), "cores": os.cpu_count()}
    figures["recorder"] = recorder(given.rounds, given.steps)
    figures["saliency_memory"] = saliency_memory(given.side)
    tell(figures, given.json)


if __name__ == "__main__":
    main()
