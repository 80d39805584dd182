"""Which channels of the digits network each class needs: scores, leave-one-out, and ablation beside chance.

    python examples/digits_criticality.py pictures/

It needs no file but `pip install 'weighbridge[models]' safetensors scikit-learn`, and takes half a minute. The report
lies in the folder `report` beside the pictures, which are pages that a browser opens.
"""

from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any

import holoviews as hv
import numpy as np
import train_digits
import typer

import weighbridge
from weighbridge.models.criticality_result import Criticality
from weighbridge.views import criticality, criticality_curves, criticality_layers, criticality_selectivity

BATCH = 97
SHARE = 0.05


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """The test images with their labels."""
    _, _, images, labels = train_digits.split()
    return [(images[at : at + BATCH], labels[at : at + BATCH]) for at in range(0, len(images), BATCH)]


def told(found: Criticality) -> Iterator[str]:
    """What a person wants to know first."""
    for curve in found.curves:
        if curve.score != "random":
            loss = np.interp(SHARE, curve.shares, curve.loss)
            yield f"without the top {SHARE:.0%} by {curve.score}: loss {loss:.2f}, area {curve.loss_area:.2f}"
    random = [np.interp(SHARE, curve.shares, curve.loss) for curve in found.curves if curve.score == "random"]
    yield f"without as many at random: loss {min(random):.2f} to {max(random):.2f}"
    for layer, units in found.units.items():
        needed = (units.leave_one_out[0] > 2 * units.leave_one_out_error[0]).sum()
        alone = (units.selectivity() > 0.9).sum()
        idle = (units.leave_one_out == 0).all(axis=0).sum()
        yield f"{layer}: {len(units.magnitude)} channels, {needed} needed, {alone} by one class, {idle} idle"


def main(folder: Annotated[Path, typer.Argument(help="Where the pictures and the report go.")]) -> None:
    """Measure the network's criticality on the test images by class, and draw it."""
    folder.mkdir(parents=True, exist_ok=True)
    with as_file(files("weighbridge") / "data" / "digits_cnn.safetensors") as path:
        model = train_digits.load(path)
    found = weighbridge.criticality(model, batches(), tasks="labels", report=folder / "report", name="digits")
    for line in told(found):
        typer.echo(line)
    report = weighbridge.Report.open(folder / "report")
    pictures: dict[str, Any] = {
        "layers": criticality_layers(report),
        "curves": criticality_curves(report),
        "accuracy": criticality_curves(report, "accuracy"),
        "selectivity": criticality_selectivity(report),
        **{layer: criticality(report, layer) for layer in ("conv1", "conv2", "dense")},
    }
    for name, picture in pictures.items():
        hv.save(picture, folder / f"{name}.html", backend="bokeh", resources="inline")


if __name__ == "__main__":
    typer.run(main)
