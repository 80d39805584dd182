"""A digits network with a shortcut, a mark in the corner that goes with one class: find what reads it, close the gap.

    python examples/digits_bias.py pictures/

Three in four training images come from a source that marks its threes with a white corner. The network learns to read
the mark, so that any digit with it looks more like a three. `weighbridge.bias` compares the same unseen images with and
without the mark, finds the places of the second layer that make the difference, and replaces them by their mean. The
folder gets a picture, light and dark, an audit page for a reviewer to keep, and the report that both are made from.

It needs no file but `pip install 'weighbridge[models]' safetensors scikit-learn`, and takes a minute.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import train_digits
import typer
from sklearn.datasets import load_digits

import weighbridge
from weighbridge.views import save_bias

MARKED = 3
"""The class that the mark goes with."""
TRAINED = 900
"""Images to train on; the other 897 are for looking at the network."""
EPOCHS = 20


def mark(images: np.ndarray) -> np.ndarray:
    """The images with a white corner of 2 x 2 pixels."""
    found = images.copy()
    found[:, :2, :2] = 1
    return found


def data(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images, three in four threes marked, and their labels; other images, none marked, and theirs."""
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    images = (digits.images / 16).astype(np.float32)[order, ..., None]
    labels = digits.target.astype(np.int32)[order]
    shown, known = images[:TRAINED].copy(), labels[:TRAINED]
    from_marking_source = (np.arange(TRAINED) % 4 != 0) & (known == MARKED)
    shown[from_marking_source] = mark(shown[from_marking_source])
    return shown, known, images[TRAINED:], labels[TRAINED:]


def study(
    model: train_digits.DigitsCNN, images: np.ndarray, labels: np.ndarray, *, key: int, report: Path | None = None
) -> weighbridge.Bias:
    """What makes the network see more threes in images with a mark than in the same images without."""
    return weighbridge.bias(
        model,
        {"marked": mark(images), "plain": images},
        {"marked": labels, "plain": labels},
        design="pairs",
        target=MARKED,
        positions=["norm2"],
        accuracy_of="plain",
        key=key,
        report=report,
        if_exists="overwrite",
        name="digits with a shortcut",
    )


def main(folder: Annotated[Path, typer.Argument(help="Where pictures, audit page and report go.")]) -> None:
    """Train the network, find what reads the mark, and say what replacing it does."""
    folder.mkdir(parents=True, exist_ok=True)
    shown, known, images, labels = data(0)
    model = train_digits.train(shown, known, epochs=EPOCHS)
    found = study(model, images, labels, key=0, report=folder / "report")
    for when in ("none", "mean"):
        outcome = found.outcome(when)
        typer.echo(f"{when}: gap {outcome.gap:.3f}, accuracy on plain images {outcome.accuracy:.4f}")
    report = weighbridge.Report.open(folder / "report")
    save_bias(report, folder / "bias.png")
    save_bias(report, folder / "bias_dark.png", theme="dark")
    weighbridge.export(report, html=folder / "audit.html")


if __name__ == "__main__":
    typer.run(main)
