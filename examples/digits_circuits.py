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

from weighbridge import circuits, expanded_weights
from weighbridge.analyses.weight_factors import weight_factors
from weighbridge.circuit import Unit
from weighbridge.models.features import visualize_feature
from weighbridge.models.objectives import Place, unit
from weighbridge.views import circuit_file, expanded_inputs, factors_rgb, filters, images, strongest_inputs

STEPS = 128
SHAPE = (8, 8, 1)
PLACES: dict[str, Place] = {"conv2": (2, 2), "dense": "centre", "head": "centre"}
"""Where units of a layer are excited."""


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


def draw_layers(model: train_digits.DigitsCNN, folder: Path) -> None:
    """The filters, and the kernels of the second layer on three factors."""
    filters(np.asarray(model.conv1.kernel[...]), title="conv1: 32 filters").save(folder / "conv1.png")
    found = weight_factors(np.asarray(model.conv2.kernel[...]))
    title = f"conv2: 64 kernels on three factors, {found.explained_share:.0%} explained"
    factors_rgb(found.spatial, title=title).save(folder / "conv2_factors.png")


def draw_circuit(path: Path, model: train_digits.DigitsCNN, function: Partial, folder: Path, digit: int = 3) -> None:
    """What a digit is built from, with the icons of its units, and two of these units by themselves."""
    found = circuits(path, f"head.kernel:{digit}", top=4, depth=3)
    drawn: dict[Unit, np.ndarray] = {}
    for layer, place in PLACES.items():
        own = [node for node in found.units if node.layer == f"{layer}.kernel"]
        drawn |= dict(zip(own, icons(function, layer, [node.number for node in own], place), strict=True))
    kernel = np.asarray(model.conv1.kernel[...])
    shown = [node for node in found.units if node.layer == "conv1.kernel"]
    drawn |= {node: 0.5 + kernel[..., node.number] / (2 * np.abs(kernel).max()) for node in shown}
    drawn = {node: np.broadcast_to(icon, (*icon.shape[:2], 3)) for node, icon in drawn.items()}
    for kind in ("png", "svg", "html"):
        circuit_file(found, folder / f"circuit.{kind}", icons=drawn, most=30)
    of_conv2 = {node.number: icon for node, icon in drawn.items() if node.layer == "conv2.kernel"}
    units = list(of_conv2)[:4]
    strongest_inputs(
        np.asarray(model.conv2.kernel[...]), units, unit_icons=of_conv2, title="conv2: strongest inputs"
    ).save(folder / "conv2_inputs.png")
    whole = expanded_weights(model, target=("conv2", units[0]), shape=(1, *SHAPE)).values
    title = f"conv2:{units[0]}: expanded weights from the image"
    expanded_inputs(whole, title=title).save(folder / "conv2_expanded.png")


def main(folder: Annotated[Path, typer.Argument(help="Where the pictures go.")]) -> None:
    """Draw the network's filters, factors, icons and a circuit."""
    folder.mkdir(parents=True, exist_ok=True)
    with as_file(files("weighbridge") / "data" / "digits_cnn.safetensors") as path:
        function, model = network(path), train_digits.load(path)
        draw_layers(model, folder)
        draw_circuit(path, model, function, folder)
    made = icons(function, "head", list(range(10)))
    images(made, captions=[f"head:{i}" for i in range(10)], title="head: what units look for").save(
        folder / "head_icons.png"
    )


if __name__ == "__main__":
    typer.run(main)
