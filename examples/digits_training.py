"""The digits network trained with the recorder on: what each tensor's gradients do, and which digits pull apart.

    python examples/digits_training.py run pictures/

While it trains, `weighbridge view run` in another terminal follows it. It takes a minute on two cores and needs
`pip install 'weighbridge[models]' safetensors scikit-learn`.
"""

from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import train_digits
import typer
from flax import nnx
from matplotlib.figure import Figure

import weighbridge

EPOCHS = 12
MEASURED = 3
"""Epochs between measurements of the groups."""
PER_DIGIT = 64


def by_digit(images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """A batch of each digit, by its name."""
    return {
        str(digit): (images[labels == digit][:PER_DIGIT], labels[labels == digit][:PER_DIGIT]) for digit in range(10)
    }


def train(folder: Path, epochs: int) -> None:
    """Trains the network as `train_digits` does and writes what happens into a report."""
    images, labels, _, _ = train_digits.split()
    model = train_digits.DigitsCNN(nnx.Rngs(0))
    steps = epochs * (len(images) // train_digits.BATCH)
    rate = optax.cosine_decay_schedule(train_digits.LEARNING_RATE, steps)
    recorder = weighbridge.recorder.record(
        optax.adamw(rate, weight_decay=train_digits.WEIGHT_DECAY),
        every=5,
        report=folder,
        if_exists="overwrite",
        name="digits in training",
    )
    opt = nnx.Optimizer(model, recorder, wrt=nnx.Param)
    graph, _, rest = nnx.split(model, nnx.Param, ...)

    def merged(params: nnx.State) -> train_digits.DigitsCNN:
        """The network as it trains; a copy of the running statistics, which it then updates, is of no further use."""
        return nnx.merge(graph, params, jax.tree.map(jnp.array, rest))

    def loss(params: nnx.State, batch: tuple[Any, Any]) -> Any:
        return train_digits.loss(merged(params), *batch)

    def activations(params: nnx.State, batch: tuple[Any, Any]) -> dict[str, Any]:
        now = merged(params)
        x = nnx.max_pool(nnx.relu(now.norm1(now.conv1(jnp.asarray(batch[0])))), (2, 2), strides=(2, 2))
        return {"conv1": x, "conv2": nnx.relu(now.norm2(now.conv2(x)))}

    measure = weighbridge.recorder.record_groups(
        loss, by_digit(images, labels), report=folder, activations=activations, if_exists="overwrite"
    )
    per_epoch = len(images) // train_digits.BATCH
    for i, batch in enumerate(train_digits.batches(len(images), epochs, 0)):
        if i % (MEASURED * per_epoch) == 0:
            measure(nnx.state(model, nnx.Param), i)
        train_digits.step(model, opt, images[batch], labels[batch], train_digits.GROUP_LASSO * rate(i))
    measure(nnx.state(model, nnx.Param), steps)
    recorder.close(opt.opt_state)


def draw(report: weighbridge.Report, file: Path) -> None:
    """Update ratios, exponents of a gradient, conflicts between digits, noise scale: from the report's tables."""
    rows, groups = (report.table(name, lists=True) for name in ("training", "training_groups"))
    figure = Figure((11, 7.5), layout="constrained")
    (ratios, exponents), (conflicts, noise) = figure.subplots(2, 2)
    kernels = rows[rows["name"].str.endswith("kernel")]
    for name, of in kernels.groupby("name", sort=False):
        ratios.semilogy(of["step"], of["update_ratio"], label=name)
    ratios.set(title="update norm over weight norm", xlabel="step")
    ratios.legend(fontsize=8)
    dense = rows[rows["name"] == "dense.kernel"]
    counts = np.stack(dense["gradient_histogram"].to_list()).reshape(-1, 2, 256).sum(axis=1)
    used = counts[:, 1:].any(axis=0).nonzero()[0] + 1
    low, high, last = int(used[0]), int(used[-1]) + 1, int(dense["step"].max())
    shares = counts[:, low:high].T / counts.sum(axis=1)
    shown = exponents.imshow(shares, aspect="auto", origin="lower", extent=(0, last, low - 127.5, high - 127.5))
    exponents.set(title="dense.kernel: binary exponents of its gradient", xlabel="step", ylabel="exponent")
    figure.colorbar(shown, ax=exponents, label="share of entries")
    whole = groups[groups["name"] == "all tensors"]
    cosines = np.stack(whole[whole["step"] == whole["step"].max()]["cosine"].to_list())
    shown = conflicts.imshow(cosines, cmap="RdBu_r", vmin=-1, vmax=1)
    conflicts.set(title="cosines of the digits' gradients, at the end", xticks=range(10), yticks=range(10))
    figure.colorbar(shown, ax=conflicts)
    once = groups[(groups["part"] == "0") & groups["noise_scale"].notna()]
    for name, of in once.groupby("name", sort=False):
        if name.endswith(("kernel", "tensors")):
            noise.semilogy(of["step"], of["noise_scale"], marker="o", label=name)
    noise.set(title="gradient noise scale", xlabel="step", ylabel="examples")
    noise.legend(fontsize=8)
    figure.savefig(file, dpi=120)


def main(
    report: Annotated[Path, typer.Argument(help="The report's folder.")],
    folder: Annotated[Path, typer.Argument(help="Where the pictures go.")],
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = EPOCHS,
) -> None:
    """Train, record, draw."""
    folder.mkdir(parents=True, exist_ok=True)
    typer.echo(f"to follow: weighbridge view {report}")
    train(report, epochs)
    draw(weighbridge.Report.open(report), folder / "digits_training.png")


if __name__ == "__main__":
    typer.run(main)
