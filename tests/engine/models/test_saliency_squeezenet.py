"""Integrated gradients of a trained image network: complete, and no larger in memory for more steps."""

import json
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

WEIGHTS = Path(__file__).resolve().parents[4] / "shared" / "data" / "squeezenet_v1.1_imagenet_notop.h5"

SCRIPT = """
    import json, sys
    import h5py, jax, jax.numpy as jnp, numpy as np
    from skimage import data, transform
    import weighbridge

    weights = {}

    def keep(name, stored):
        if isinstance(stored, h5py.Dataset):
            layer = "/".join(name.split("/")[: 1 if name.startswith("conv1") else 2])
            weights.setdefault(layer, {})["kernel" if stored.ndim == 4 else "bias"] = np.array(stored)

    with h5py.File(sys.argv[1]) as file:
        file.visititems(keep)

    def conv(params, x, stride=1, padding="SAME"):
        layout = ("NHWC", "HWIO", "NHWC")
        found = jax.lax.conv_general_dilated(x, params["kernel"], [stride] * 2, padding, dimension_numbers=layout)
        return jax.nn.relu(found + params["bias"])

    def pool(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")

    def squeezenet(params, x):
        x = pool(conv(params["conv1"], x, 2, "VALID"))
        for i in range(2, 10):
            narrow = conv(params[f"fire{i}/squeeze1x1"], x)
            wide = [conv(params[f"fire{i}/expand{side}"], narrow) for side in ("1x1", "3x3")]
            x = jnp.concatenate(wide, axis=-1)
            x = pool(x) if i in (3, 5) else x
        return x.mean(axis=(1, 2))

    image = transform.resize(data.astronaut(), (224, 224))[..., ::-1] * 255 - np.array([103.939, 116.779, 123.68])
    steps = int(sys.argv[2])
    found = weighbridge.saliency(squeezenet, image[None].astype("f4"), 7, params=weights, steps=(steps, steps))
    status = open("/proc/self/status").read().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(json.dumps([peak, bool(found.converged[0])]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not WEIGHTS.exists(), reason="no folder shared/data with SqueezeNet beside the repository")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of memory")
@pytest.mark.skipif(not (find_spec("h5py") and find_spec("skimage")), reason="reads HDF5 and a photograph")
def test_512_steps_take_the_memory_of_8():
    def run(steps):
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(WEIGHTS), str(steps)]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    (few, _), (many, complete) = run(8), run(512)
    assert many <= 1.3 * few, (few, many)
    assert complete
