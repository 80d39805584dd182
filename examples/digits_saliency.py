"""Where the digits network that comes with the package looks: six methods side by side, and whether they say something.

    python examples/digits_saliency.py pictures/

It needs no file but `pip install 'weighbridge[models]' safetensors scikit-learn`, and takes a minute. The maps are in
the report beside the pictures too: `weighbridge view pictures/report`.
"""

from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import train_digits
import typer

import weighbridge
from weighbridge.models.saliency import METHODS
from weighbridge.views import save_saliency_sheet

COUNT = 8
OPTIONS: dict[str, dict[str, Any]] = {
    "smoothgrad": {"key": jax.random.key(0)},
    "grad_cam": {"layer": "conv2"},
    "occlusion": {"window": 2, "stride": 1},
}


def examples(count: int) -> tuple[np.ndarray, np.ndarray]:
    """One test image of each of the first classes, and its label."""
    _, _, images, labels = train_digits.split()
    at = [int(np.flatnonzero(labels == digit)[0]) for digit in range(count)]
    return images[at], labels[at]


def main(folder: Annotated[Path, typer.Argument(help="Where the pictures go.")]) -> None:
    """Draw the maps of one image of each digit by every method, and print how well each map holds."""
    folder.mkdir(parents=True, exist_ok=True)
    with as_file(files("weighbridge") / "data" / "digits_cnn.safetensors") as path:
        model = train_digits.load(path)
    images, labels = examples(COUNT)
    found = [weighbridge.saliency(model, images, labels, method=way, **OPTIONS.get(way, {})) for way in METHODS]
    captions = [f"a {label}" for label in labels]
    save_saliency_sheet(found, images, folder / "digits_saliency.png", captions=captions)
    for maps in found:
        maps.save(folder / "report", images, captions=captions, name="digits network")
        curves = weighbridge.deletion_insertion(model, images, labels, maps=maps)
        gone, come = curves.deletion_area.mean(), curves.insertion_area.mean()
        typer.echo(f"{maps.method:22} area of deletion {gone:.2f}, of insertion {come:.2f}")


if __name__ == "__main__":
    typer.run(main)
