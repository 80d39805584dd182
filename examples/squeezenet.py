"""SqueezeNet v1.1, trained on ImageNet: what its filters are, what they are made of, and what its units look for.

    python examples/squeezenet.py squeezenet_v1.1_imagenet_notop.h5 pictures/

It takes about two minutes on two cores and needs `pip install 'weighbridge[models]' h5py`.

The weights are those of Jesper Wohlert's port to Keras (MIT): the file without the top among the releases of
https://github.com/wohlert/keras-squeezenet.

Source: Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", arXiv 1602.07360.
"""

import re
from pathlib import Path
from typing import Annotated

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import typer
from flax import nnx, traverse_util

from weighbridge import expanded_weights
from weighbridge.analyses.weight_factors import weight_factors
from weighbridge.circuit import Circuit, Edge, Unit
from weighbridge.models.features import visualize_feature
from weighbridge.models.objectives import Objective, direction, unit, weights_at
from weighbridge.views import expanded_inputs, factors, factors_rgb, filters, images, spatial_weights, strongest_inputs
from weighbridge.views.circuit_file import circuit_file
from weighbridge_kernels.weight_banding import weight_banding

MEAN = (103.939, 116.779, 123.68)
"""ImageNet's blue, green and red, of 255."""
SIDES = {2: 16, 3: 16, 4: 32, 5: 32, 6: 48, 7: 48, 8: 64, 9: 64}
"""Units that each fire module squeezes to; it expands to four times as many by 1 x 1, and as many by 3 x 3."""
POOLED = ("conv1", "fire3", "fire5")
"""What a maximum over 3 x 3 with stride 2 follows."""
STEPS = 128
ICONS = {3: 48, 5: 80, 7: 128, 9: 128}
"""Sides of the icons by module: about what a unit sees."""


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


def load(path: Path) -> SqueezeNet:
    """The network with the weights of a file.

    Raises:
        ValueError: a weight is left over, missing or of another shape.
    """
    model = SqueezeNet(nnx.Rngs(0))
    weights = stored(path)
    places = {named(parts): parameter for parts, parameter in nnx.to_flat_state(nnx.state(model))}
    expected = {name: parameter.shape for name, parameter in places.items()}
    got = {name: weight.shape for name, weight in weights.items()}
    if got != expected:
        odd = sorted({name for name, _ in got.items() ^ expected.items()})
        raise ValueError(f"{path}: weights {odd} do not fit SqueezeNet v1.1; expected the Keras file without the top")
    nnx.update(model, traverse_util.unflatten_dict({tuple(re.split("[/.]", name)): weights[name] for name in weights}))
    return model


def named(parts: tuple[str, ...]) -> str:
    """A parameter's path in the network as `stored` names it."""
    return f"{'/'.join(parts[:-1])}.{parts[-1]}"


def kernel(model: SqueezeNet, module: int) -> np.ndarray:
    """The 3 x 3 kernel [h, w, in, out] of a fire module: from its squeezed units to the second half of its units."""
    return np.asarray(getattr(model, f"fire{module}").expand3x3.kernel[...])


def spread(count: int, total: int) -> list[int]:
    """So many units, evenly over all."""
    return [i * total // count for i in range(count)]


def icons(model: SqueezeNet, objective: Objective, side: int, seed: int = 0) -> np.ndarray:
    """What the units or directions of an objective look for: RGB images [n, side, side, 3]."""
    shape = (side, side, 3)
    return visualize_feature(model, objective, shape=shape, key=jax.random.key(seed), steps=STEPS).images


def draw_filters(model: SqueezeNet, folder: Path) -> None:
    """The filters that read the image, blue, green, red turned round to red, green, blue."""
    kernel = np.asarray(model.conv1.kernel[...])[:, :, ::-1]
    filters(kernel, title="SqueezeNet v1.1, conv1: 64 filters").save(folder / "conv1.png")


def draw_factors(model: SqueezeNet, folder: Path) -> None:
    """Of every fire module its 3 x 3 kernels as colours, the most banded first, and all modules' banding."""
    kernels = {f"fire{module}": kernel(model, module) for module in SIDES}
    for name, weights in kernels.items():
        found, bands = weight_factors(weights), weight_banding(weights)
        order = np.argsort(-bands.index)
        title = (
            f"{name}: 3 × 3 kernels on three factors, {found.explained_share:.0%} explained; banding {bands.whole:.2f}"
        )
        sheet = factors_rgb(found.spatial[order], units=[int(unit) for unit in order], title=title)
        sheet.save(folder / f"{name}_factors.png")
        typer.echo(f"{name}: weight banding {bands.whole:+.3f}")


def draw_icons(model: SqueezeNet, folder: Path) -> None:
    """What eight units of some modules look for."""
    for module, side in ICONS.items():
        units = spread(8, 8 * SIDES[module])
        made = icons(model, unit(units, layer=f"fire{module}"), side)
        images(made, captions=[f"fire{module}:{i}" for i in units], cols=4).save(folder / f"fire{module}_icons.png")


def draw_one_unit(model: SqueezeNet, folder: Path, module: int = 4, channel: int = 70, side: int = 80) -> None:
    """What one unit of a module is made of: its strongest inputs, its factors, and what it looks for where."""
    weights, layer = kernel(model, module), f"fire{module}/squeeze"
    title = f"fire{module}, 3 × 3 unit {channel}"
    inputs = icons(model, unit(range(SIDES[module]), layer=layer), side)
    known = dict(enumerate(inputs))
    own = {channel: icons(model, unit([4 * SIDES[module] + channel], layer=f"fire{module}"), side)[0]}
    drawn = strongest_inputs(weights, [channel], input_icons=known, unit_icons=own, title=f"{title}: strongest inputs")
    drawn.save(folder / "unit_inputs.png")
    found = weight_factors(weights, 3, units=[channel])
    positions = [weights_at(weights, channel, at).vectors[0] for at in np.ndindex(3, 3)]
    both = direction([*found.channels, *positions], layer=layer)
    made = icons(model, both, side)
    factors(
        found.spatial[0], found.channels, icons=known, factor_icons=dict(enumerate(made[:3])), title=f"{title}: factors"
    ).save(folder / "unit_factors.png")
    placed = made[3:].reshape(3, 3, side, side, 3)
    spatial_weights(weights, channel, images=placed, title=f"{title}: what it reads where").save(
        folder / "unit_positions.png"
    )


def expanded(model: SqueezeNet, module: int, channel: int) -> np.ndarray:
    """Weights [h, w, in] from the 3 x 3 units of the module before to one of a module, over its squeezed units."""
    source, target = f"fire{module - 1}.expand3x3", (f"fire{module}.expand3x3", channel)
    return np.asarray(expanded_weights(model, source=source, target=target, shape=(1, 96, 96, 3)).values)


def draw_expanded(model: SqueezeNet, folder: Path, module: int = 4, channel: int = 70, side: int = 80) -> None:
    """A unit's weights over the bottleneck before it, and the circuit of two such steps with its units' icons."""
    weights = expanded(model, module, channel)
    title = f"fire{module}, 3 × 3 unit {channel}: expanded weights from fire{module - 1}"
    expanded_inputs(weights, title=title).save(folder / "unit_expanded.png")
    target = Unit(f"fire{module}, 3 × 3", channel)
    edges = _edges(weights, target, module)
    for edge in list(edges):
        edges += _edges(expanded(model, module - 1, edge.source.number), edge.source, module - 1)
    layers = tuple(f"fire{name}, 3 × 3" for name in (module - 2, module - 1, module))
    found = Circuit(target, layers, tuple(edges), {})
    drawn: dict[Unit, np.ndarray] = {}
    for name, layer in zip((module - 2, module - 1, module), layers, strict=True):
        own = [node for node in found.units if node.layer == layer]
        made = icons(model, unit([4 * SIDES[name] + node.number for node in own], layer=f"fire{name}"), side)
        drawn |= dict(zip(own, made, strict=True))
    circuit_file(found, folder / "unit_circuit.png", icons=drawn)


def _edges(weights: np.ndarray, target: Unit, module: int, count: int = 4) -> list[Edge]:
    """The strongest inputs of a unit by the norm of their expanded weights, signed by their sum."""
    norms = np.linalg.norm(weights.reshape(-1, weights.shape[-1]), axis=0)
    signs = np.sign(weights.sum(axis=(0, 1)))
    source = f"fire{module - 1}, 3 × 3"
    return [Edge(Unit(source, int(i)), target, float(signs[i] * norms[i])) for i in np.argsort(-norms)[:count]]


def main(
    weights: Annotated[Path, typer.Argument(help="The Keras file without the top.")],
    folder: Annotated[Path, typer.Argument(help="Where the pictures go.")],
) -> None:
    """Draw the network's filters, factors, icons and a circuit."""
    folder.mkdir(parents=True, exist_ok=True)
    model = load(weights)
    for draw in (draw_filters, draw_factors, draw_icons, draw_one_unit, draw_expanded):
        draw(model, folder)


if __name__ == "__main__":
    typer.run(main)
