"""SqueezeNet v1.1, trained on ImageNet: what its filters are, what they are made of, and what its units look for.

    python examples/squeezenet.py squeezenet_v1.1_imagenet_notop.h5 pictures/

The weights are those of the Keras port by R. Coutinho De Paula (MIT): the release files of
https://github.com/rcmalli/keras-squeezenet hold them under the same name without `_imagenet`. They want h5py
(`pip install h5py`).

Source: Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", arXiv 1602.07360.
"""

from collections.abc import Iterator
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

MEAN = (103.939, 116.779, 123.68)
"""ImageNet's blue, green and red, of 255."""
SIDES = {2: 16, 3: 16, 4: 32, 5: 32, 6: 48, 7: 48, 8: 64, 9: 64}
"""Units that each fire module squeezes to; it expands to four times as many by 1 x 1, and as many by 3 x 3."""
POOLED = ("conv1", "fire3", "fire5")
"""What a maximum over 3 x 3 with stride 2 follows."""


class Fire(nnx.Module):
    """A 1 x 1 convolution to a few channels, then a 1 x 1 and a 3 x 3 one side by side."""

    def __init__(self, inputs: int, squeezed: int, rngs: nnx.Rngs) -> None:
        self.squeeze1x1 = nnx.Conv(inputs, squeezed, (1, 1), rngs=rngs)
        self.expand1x1 = nnx.Conv(squeezed, 4 * squeezed, (1, 1), rngs=rngs)
        self.expand3x3 = nnx.Conv(squeezed, 4 * squeezed, (3, 3), rngs=rngs)


class SqueezeNet(nnx.Module):
    """SqueezeNet v1.1 without its classifier, 722,000 weights."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(3, 64, (3, 3), strides=2, padding="VALID", rngs=rngs)
        inputs = 64
        for module, squeezed in SIDES.items():
            setattr(self, f"fire{module}", Fire(inputs, squeezed, rngs))
            inputs = 8 * squeezed

    def __call__(self, images: jax.Array) -> dict[str, jax.Array]:
        """What every layer gives before its ReLU, for RGB images [n, h, w, 3] in [0, 1].

        Layers are `conv1`, then `fire2/squeeze` and `fire2` to `fire9`, where a module's units are those expanded by
        1 x 1 and then those by 3 x 3.
        """
        found = {"conv1": self.conv1(preprocessed(images))}
        x = pooled("conv1", nnx.relu(found["conv1"]))
        for name in (f"fire{module}" for module in SIDES):
            fire = getattr(self, name)
            found[f"{name}/squeeze"] = fire.squeeze1x1(x)
            squeezed = nnx.relu(found[f"{name}/squeeze"])
            found[name] = jnp.concatenate([fire.expand1x1(squeezed), fire.expand3x3(squeezed)], axis=-1)
            x = pooled(name, nnx.relu(found[name]))
        return found


def preprocessed(images: jax.Array) -> jax.Array:
    """Images as Caffe had them: blue, green, red, of 255, ImageNet's mean taken away."""
    return 255 * images[..., ::-1] - jnp.array(MEAN, images.dtype)


def pooled(layer: str, x: jax.Array) -> jax.Array:
    return nnx.max_pool(x, (3, 3), strides=(2, 2)) if layer in POOLED else x


def stored(path: Path) -> dict[str, np.ndarray]:
    """The weights of a Keras file by layer and kind: `fire2/squeeze1x1.kernel`, `conv1.bias`."""
    found: dict[str, np.ndarray] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            layer = name.rsplit("/", 1)[0] if item.ndim == 4 else name.removesuffix("_b")
            layer = "/".join(dict.fromkeys(layer.split("/")))  # Keras repeats the layer's name
            found[f"{layer}.{'kernel' if item.ndim == 4 else 'bias'}"] = item[()]

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def places(model: SqueezeNet) -> Iterator[tuple[str, nnx.Param]]:
    """Every parameter of the network under the name that `stored` gives it."""
    for path, parameter in nnx.state(model, nnx.Param).flat_state():
        *layer, kind = map(str, path)
        yield f"{'/'.join(layer)}.{kind}", parameter


def load(path: Path) -> SqueezeNet:
    """The network with the weights of a file.

    Raises:
        ValueError: a weight is left over, missing or of another shape.
    """
    model = SqueezeNet(nnx.Rngs(0))
    weights, state = stored(path), nnx.state(model, nnx.Param)
    expected = {name: parameter.shape for name, parameter in places(model)}
    got = {name: weight.shape for name, weight in weights.items()}
    if got != expected:
        odd = sorted({name for name, _ in got.items() ^ expected.items()})
        raise ValueError(f"{path}: weights {odd} do not fit SqueezeNet v1.1; expected the Keras file without the top")
    for name, parameter in places(model):
        parameter[...] = jnp.asarray(weights[name])
    nnx.update(model, state)
    return model
