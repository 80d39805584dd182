"""What SqueezeNet v1.1 looks at in photographs: saliency maps of the unit that tells each photograph from the others.

    python examples/squeezenet_saliency.py squeezenet_v1.1_imagenet_notop.h5 pictures/

It takes about two minutes on two cores and needs `pip install 'weighbridge[models]' h5py scikit-image`. The weights
are those of `squeezenet.py`, the photographs come with scikit-image. The network has no classifier, so that what is
explained is the mean activation of a unit of its last module, fire9.
"""

from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import squeezenet
import typer
from flax import nnx
from skimage import data, transform

import weighbridge
from weighbridge.models.saliency_calls import network
from weighbridge.report.saliency import Method
from weighbridge.views import save_saliency_curves, save_saliency_sheet

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
SIDE = 192
GREY = tuple(value / 255 for value in squeezenet.MEAN[::-1])
"""What the network was trained to read as zero: the baseline of what is integrated, covered or deleted."""
OPTIONS: dict[Method, dict[str, object]] = {
    "input_x_gradient": {},
    "integrated_gradients": {"baseline": GREY},
    "smoothgrad": {"key": jax.random.key(0), "samples": 12},
    "grad_cam": {"layer": "squeezenet.fire9.squeeze1x1"},
    "occlusion": {"window": 32, "stride": 16, "baseline": GREY},
}


def photographs(side: int = SIDE) -> np.ndarray:
    """The middle squares of the photographs: RGB images [n, side, side, 3] in [0, 1]."""
    return np.stack([_square(getattr(data, name)(), side) for name in PHOTOGRAPHS]).astype(np.float32)


def _square(photograph: np.ndarray, side: int) -> np.ndarray:
    short = min(photograph.shape[:2])
    top, left = ((extent - short) // 2 for extent in photograph.shape[:2])
    return transform.resize(photograph[top : top + short, left : left + short], (side, side), anti_aliasing=True)


class Units(nnx.Module):
    """The mean activation over space of each unit of fire9, for RGB images in [0, 1]: [n, 512]."""

    def __init__(self, squeezenet: squeezenet.SqueezeNet) -> None:
        self.squeezenet = squeezenet

    def __call__(self, images: jax.Array) -> jax.Array:
        return nnx.relu(self.squeezenet(images)["fire9"]).mean(axis=(1, 2))


def distinctive(model: Units, images: np.ndarray) -> np.ndarray:
    """For each image the unit that it excites most beyond any other image."""
    found = np.asarray(model(images))
    others = np.stack([np.delete(found, i, axis=0).max(axis=0) for i in range(len(found))])
    return (found - others).argmax(axis=1)


def main(
    weights: Annotated[Path, typer.Argument(help="The Keras file without the top.")],
    folder: Annotated[Path, typer.Argument(help="Where the pictures and the report go.")],
) -> None:
    """Draw the photographs' saliency by every method, its check, and write both into a report."""
    folder.mkdir(parents=True, exist_ok=True)
    model = Units(squeezenet.load(weights))
    net, images = network(model), photographs()
    targets = distinctive(model, images)
    results = [
        weighbridge.saliency(net, images, targets, method=method, **options) for method, options in OPTIONS.items()
    ]
    captions = [f"{name}, unit {unit}" for name, unit in zip(PHOTOGRAPHS, targets, strict=True)]
    save_saliency_sheet(results, images, folder / "saliency.png", captions=captions)
    curves = [
        weighbridge.deletion_insertion(net, images, targets, maps=found, baseline=GREY, steps=12, score="output")
        for found in results
    ]
    save_saliency_curves(curves, [], folder / "checks.png")
    report = weighbridge.save_saliency(
        folder / "report", images, results, labels=captions, checks=curves, name="photographs", if_exists="overwrite"
    )
    columns = ["output", "completeness_gap", "converged", "steps"]
    rows = report.table("saliency").set_index("name")
    typer.echo(rows.loc[rows["part"] == "integrated_gradients", columns].to_string())


if __name__ == "__main__":
    typer.run(main)
