"""What the digits network that comes with the package looks at: saliency maps, and whether they say anything.

    python examples/digits_saliency.py pictures/

It needs no file but `pip install 'weighbridge[models]' safetensors scikit-learn`, and takes half a minute. The report
in `pictures/report` holds the maps, the digits, the checks, and what each weight gave: `weighbridge view
pictures/report` shows them.
"""

from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import train_digits
import typer

import weighbridge
from weighbridge.models.saliency_calls import Network, network
from weighbridge.report.saliency import Curves, Method, Randomisation, Saliency
from weighbridge.views import save_saliency_curves, save_saliency_sheet

OPTIONS: dict[Method, dict[str, object]] = {
    "gradient": {},
    "input_x_gradient": {},
    "integrated_gradients": {},
    "smoothgrad": {"key": jax.random.key(0)},
    "grad_cam": {"layer": "conv2"},
    "occlusion": {"window": 2, "stride": 1},
}
CHECKED: tuple[Method, ...] = ("gradient", "integrated_gradients", "occlusion")


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The first test image of each digit from 0 to 7, as many as a sheet has rows, and what they are."""
    _, _, images, labels = train_digits.split()
    shown = np.arange(8)
    return images[[int(np.flatnonzero(labels == digit)[0]) for digit in shown]], shown


def explained(net: Network, images: np.ndarray, labels: np.ndarray) -> list[Saliency]:
    """What each method finds of the logit of each image's own digit."""
    return [weighbridge.saliency(net, images, labels, method=method, **options) for method, options in OPTIONS.items()]


def checked(
    net: Network, images: np.ndarray, labels: np.ndarray, results: list[Saliency]
) -> tuple[list[Curves], list[Randomisation]]:
    """Deletion and insertion of every method, and what random parameters do to the maps of three."""
    curves = [weighbridge.deletion_insertion(net, images, labels, maps=found) for found in results]
    key = jax.random.key(1)
    randomised = [
        weighbridge.parameter_randomisation(net, images, labels, key=key, method=method, **OPTIONS[method])
        for method in CHECKED
    ]
    return curves, randomised


def main(folder: Annotated[Path, typer.Argument(help="Where the pictures and the report go.")]) -> None:
    """Draw the digits' saliency by every method and the methods' checks, and write them into a report."""
    folder.mkdir(parents=True, exist_ok=True)
    with as_file(files("weighbridge") / "data" / "digits_cnn.safetensors") as path:
        net = network(train_digits.load(path))
    images, labels = digits()
    results = explained(net, images, labels)
    captions = [f"digit {digit}" for digit in labels]
    save_saliency_sheet(results, images, folder / "saliency.png", captions=captions)
    curves, randomised = checked(net, images, labels, results)
    save_saliency_curves(curves, randomised, folder / "checks.png")
    checks = [*curves, *randomised]
    report = weighbridge.save_saliency(
        folder / "report",
        images,
        results,
        labels=captions,
        checks=checks,
        weights=weighbridge.attribution_to_weights(net, None, images, labels),
        name="digits",
        if_exists="overwrite",
    )
    areas = report.table("saliency_checks").groupby("part")[["deletion_area", "insertion_area"]].mean()
    typer.echo(areas.sort_values("deletion_area").to_string(float_format="{:.3f}".format))


if __name__ == "__main__":
    typer.run(main)
