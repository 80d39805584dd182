"""Where units of SqueezeNet's last layer look in scikit-image's photographs: six methods side by side.

    python examples/squeezenet_saliency.py squeezenet_v1.1_imagenet_notop.h5 pictures/

It takes about two minutes on two cores and needs `pip install 'weighbridge[models]' h5py scikit-image`. The file has no
classifier, so each photograph's output is the channel of fire9, averaged over space, that stands out most against the
other photographs. The maps are in a report too: `weighbridge view pictures/report`. See `squeezenet.py` for where the
weights are from.
"""

from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import squeezenet
import typer
from flax import nnx
from skimage import data, transform

import weighbridge
from weighbridge.models.saliency import METHODS
from weighbridge.views import save_saliency_sheet

SIDE = 128
PHOTOGRAPHS = ("astronaut", "cat", "coffee", "rocket")
LAYER = "fire9"
OPTIONS: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": (64, 128)},
    "smoothgrad": {"key": jax.random.key(0), "samples": 16},
    "occlusion": {"window": 32, "stride": 16},
}


def photographs() -> np.ndarray:
    """The middle squares of the photographs, [n, side, side, 3] in [0, 1]."""
    found = []
    for name in PHOTOGRAPHS:
        image = getattr(data, name)()
        side = min(image.shape[:2])
        top, left = ((extent - side) // 2 for extent in image.shape[:2])
        found.append(transform.resize(image[top : top + side, left : left + side], (SIDE, SIDE)))
    return np.stack(found).astype(np.float32)


def main(
    weights: Annotated[Path, typer.Argument(help="The Keras file without the top.")],
    folder: Annotated[Path, typer.Argument(help="Where the pictures go.")],
) -> None:
    """Draw the maps of every photograph by every method."""
    folder.mkdir(parents=True, exist_ok=True)
    model, images = squeezenet.load(weights), photographs()
    network = (lambda x: nnx.relu(model(x)[LAYER]), lambda activation: activation.mean(axis=(1, 2)))
    outputs = np.asarray(network[1](network[0](images)))
    targets = ((outputs - outputs.mean(axis=0)) / (outputs.std(axis=0) + outputs.std())).argmax(axis=1)
    found = [weighbridge.saliency(network, images, targets, method=way, **OPTIONS.get(way, {})) for way in METHODS]
    captions = [f"{name}: {target}" for name, target in zip(PHOTOGRAPHS, targets, strict=True)]
    save_saliency_sheet(found, images, folder / "squeezenet_saliency.png", captions=captions)
    for maps in found:
        maps.save(folder / "report", images, captions=captions, name="SqueezeNet")


if __name__ == "__main__":
    typer.run(main)
