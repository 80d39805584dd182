"""How long the pictures of circuits take: a sheet of 256 units on three factors, an expanded kernel, 64 feature icons.

    python -m weighbridge_benchmarks.circuits --json results.json

The kernels have the shape of SqueezeNet's fire9 (3 × 3, 64 to 256) and the network that of its first modules, both with
real weights, tiled; the expanded kernel is a unit's of the last of three fire modules of those shapes, from what the
first reads. The first call, which compiles, is apart. Beside the factors scikit-learn's NMF of the same matrix
from the same start, where it is installed; icons need optax.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from weighbridge.analyses.weight_factors import weight_factors
from weighbridge.views import factors_rgb
from weighbridge_benchmarks.suite import machine, tell
from weighbridge_benchmarks.timing import Timing, measure
from weighbridge_benchmarks.weights import SHAPES, real_weights
from weighbridge_kernels.variants import DEVICES, Device

Work = Callable[[], Any]

_FACTORS = 3
_WIDTHS = (32, 64, 64)
"""Channels of the network's convolutions."""


def sheet(folder: Path, device: Device, seconds: float) -> dict[str, Any]:
    """Factors of 256 units by us and by scikit-learn, and the picture of them."""
    kernel = real_weights(SHAPES["squeezenet.fire9"], np.float32)
    found = weight_factors(kernel, _FACTORS, device=device)
    works: dict[str, Work] = {
        "factors": lambda: weight_factors(kernel, _FACTORS, device=device),
        "picture": lambda: factors_rgb(found.spatial).save(folder / "sheet.png"),
    }
    if find_spec("sklearn"):
        works["scikit-learn"] = _sklearn(kernel)
    figures = {name: _figures(measure(work, seconds=seconds)) for name, work in works.items()}
    return {"units": kernel.shape[3], "explained_share": found.explained_share, "seconds": figures}


def icons(units: int, side: int, steps: int, seconds: float) -> dict[str, Any]:
    """Feature icons of as many units in one loop; `steps_per_second` counts an image's step of ascent."""
    import jax

    from weighbridge.models.features import visualize_feature
    from weighbridge.models.objectives import unit

    network, objective = _network(), unit(range(units))
    options: dict[str, Any] = {"shape": (side, side, 3), "key": jax.random.key(0), "steps": steps}
    timing = measure(lambda: visualize_feature(network, objective, **options), seconds=seconds, least=1)
    speed = units * steps / timing.median
    return {"units": units, "side": side, "steps": steps, "seconds": _figures(timing), "steps_per_second": speed}


def expanded(squeezed: int, side: int, seconds: float) -> dict[str, Any]:
    """A unit's kernel across three fire modules, each squeezing to so many channels, of a map of so many pixels."""
    from weighbridge.models.expanded import expanded_weights

    model, inputs = _fire_modules(squeezed, 3)
    call = partial(expanded_weights, model, target=("output", 5 * squeezed), shape=(1, side, side, inputs))
    figures = _figures(measure(call, seconds=seconds, least=1))
    return {"squeezed": squeezed, "kernel": list(call().values.shape), "seconds": figures}


def _fire_modules(squeezed: int, count: int) -> tuple[Callable[[Any], Any], int]:
    """Fire modules one after another, and how many channels they read and give."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    wide, layout = 8 * squeezed, ("NHWC", "HWIO", "NHWC")
    sides = ((1, 1, wide, squeezed), (1, 1, squeezed, wide // 2), (3, 3, squeezed, wide // 2))
    squeeze, pointwise, spatial = (jnp.asarray(real_weights(shape, np.float32)) for shape in sides)

    def conv(x: Any, kernel: Any) -> Any:
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)

    def modules(x: Any) -> Any:
        for _ in range(count):
            x = jax.nn.relu(conv(x, squeeze))
            x = jax.nn.relu(jnp.concatenate([conv(x, pointwise), conv(x, spatial)], axis=-1))
        return x

    return modules, wide


def _network() -> Callable[[Any], Any]:
    """Three 3 × 3 convolutions with ReLU, a maximum over 3 × 3 with stride 2 after the first; weights as data."""
    import jax
    from jax import lax

    sides = [(3, 3, a, b) for a, b in zip((3, *_WIDTHS), _WIDTHS, strict=False)]
    kernels = [real_weights(shape, np.float32) for shape in sides]

    def activations(kernels: list[Any], x: Any) -> Any:
        x = x - 0.5
        for i, kernel in enumerate(kernels):
            layout = ("NHWC", "HWIO", "NHWC")
            x = lax.conv_general_dilated(jax.nn.relu(x) if i else x, kernel, (1, 1), "SAME", dimension_numbers=layout)
            x = lax.reduce_window(x, -np.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID") if i == 0 else x
        return x

    network: Callable[[Any], Any] = jax.tree_util.Partial(activations, kernels)  # type: ignore[no-untyped-call]
    return network


def _sklearn(kernel: np.ndarray) -> Work:
    """The same matrix, both signs joined along the rows, from the same kind of start, to the same tolerance."""
    from sklearn.decomposition import NMF

    rows = np.moveaxis(kernel, 3, 0).reshape(-1, kernel.shape[2])
    joined = np.concatenate([np.maximum(rows, 0), np.maximum(-rows, 0)])
    return lambda: NMF(_FACTORS, init="nndsvd", solver="cd", tol=1e-4, max_iter=200).fit(joined)


def _figures(timing: Timing) -> dict[str, float]:
    """Seconds of a run, and of the compilation that the first has more."""
    return {"run": timing.median, "compile": max(timing.first - timing.median, 0.0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=64, help="icons")
    parser.add_argument("--side", type=int, default=96, help="of an icon")
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--seconds", type=float, default=1.0, help="to repeat each measurement for")
    parser.add_argument("--json", type=Path, help="where the figures go")
    given = parser.parse_args()
    figures: dict[str, Any] = {"machine": machine(), "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        figures["sheet"] = sheet(Path(folder), given.device, given.seconds)
    figures["expanded"] = expanded(64, 13, given.seconds)
    if find_spec("optax"):
        figures["icons"] = icons(given.units, given.side, given.steps, given.seconds)
    tell(figures, given.json)


if __name__ == "__main__":
    main()
