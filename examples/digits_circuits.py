"""The digits network that comes with the package: its filters, what they are made of, what its units look for.

    python examples/digits_circuits.py pictures/

It needs no file but `pip install 'weighbridge[models]' safetensors scikit-learn`, and takes half a minute.
"""

from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import train_digits
import typer
from flax import nnx
from jax.tree_util import Partial

from weighbridge.analyses.weight_factors import weight_factors
from weighbridge.models.features import visualize_feature
from weighbridge.models.objectives import Place, unit
from weighbridge.views import factors_rgb, filters, images, strongest_inputs

STEPS = 128
SHAPE = (8, 8, 1)


def layers(model: train_digits.DigitsCNN, x: jax.Array) -> dict[str, jax.Array]:
    """What every layer gives before its ReLU, for images [n, 8, 8, 1] in [0, 1]."""
    found = {"conv1": model.norm1(model.conv1(x))}
    x = nnx.max_pool(nnx.relu(found["conv1"]), (2, 2), strides=(2, 2))
    found["conv2"] = model.norm2(model.conv2(x))
    x = nnx.max_pool(nnx.relu(found["conv2"]), (2, 2), strides=(2, 2))
    found["dense"] = model.dense(x.reshape(x.shape[0], -1))
    found["head"] = model.head(nnx.relu(found["dense"]))
    return found


def network(path: Path) -> Partial:
    """Images to layers, with the weights of a file."""
    return Partial(layers, train_digits.load(path))


def icons(function: Partial, layer: str, units: list[int], place: Place = "centre") -> np.ndarray:
    """What units look for: images [n, 8, 8, 1]."""
    objective = unit(units, layer=layer, place=place)
    return visualize_feature(function, objective, shape=SHAPE, key=jax.random.key(0), steps=STEPS).images


def main(folder: Annotated[Path, typer.Argument(help="Where the pictures go.")]) -> None:
    """Draw the network's filters, factors and icons."""
    folder.mkdir(parents=True, exist_ok=True)
    with as_file(files("weighbridge") / "data" / "digits_cnn.safetensors") as path:
        function = network(path)
        model = train_digits.load(path)
    first, second = (np.asarray(conv.kernel[...]) for conv in (model.conv1, model.conv2))
    filters(first, title="conv1: 32 filters").save(folder / "conv1.png")
    found = weight_factors(second)
    title = f"conv2: 64 kernels on three factors, {found.explained_share:.0%} explained"
    factors_rgb(found.spatial, title=title).save(folder / "conv2_factors.png")
    own = dict(enumerate(np.repeat(icons(function, "conv2", list(range(4)), (2, 2)), 3, axis=3)))
    strongest_inputs(second, range(4), unit_icons=own, title="conv2: strongest inputs").save(
        folder / "conv2_inputs.png"
    )
    alive = np.flatnonzero(np.linalg.norm(np.asarray(model.dense.kernel[...]), axis=0))[:16].tolist()
    for layer, units in (("dense", alive), ("head", list(range(10)))):
        captions = [f"{layer}:{i}" for i in units]
        made = icons(function, layer, units)
        images(made, captions=captions, title=f"{layer}: what units look for").save(folder / f"{layer}_icons.png")


if __name__ == "__main__":
    typer.run(main)
