"""Train the demo network: a small convolutional network on scikit-learn's digits.

    python examples/train_digits.py -o digits_cnn.safetensors

The committed `engine/weighbridge/data/digits_cnn.safetensors` is what this script writes. The network is trained with
weight decay and a group lasso on its hidden layer, so hidden units that the task does not need reach a norm of zero.

Data: `sklearn.datasets.load_digits`, 1,797 images of 8 x 8 pixels, from the UCI repository "Optical Recognition of
Handwritten Digits" (Alpaydin and Kaynak 1998, doi:10.24432/C50P49).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer
from flax import nnx, traverse_util
from safetensors.numpy import load_file
from safetensors.numpy import save as save_bytes
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

BATCH = 64
EPOCHS = 60
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.1
GROUP_LASSO = 0.64
"""What each step takes off the norm of a hidden unit's incoming weights, in units of the learning rate."""


class DigitsCNN(nnx.Module):
    """Two convolutions, a hidden layer, ten classes; 53,000 weights.

    At evaluation batch norm is affine, so the network is piecewise linear in its pixels. The convolutions have no
    bias, because batch norm would subtract it.
    """

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(1, 32, (3, 3), use_bias=False, rngs=rngs)
        self.norm1 = nnx.BatchNorm(32, momentum=0.9, rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, (3, 3), use_bias=False, rngs=rngs)
        self.norm2 = nnx.BatchNorm(64, momentum=0.9, rngs=rngs)
        self.dense = nnx.Linear(2 * 2 * 64, 128, rngs=rngs)
        self.head = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits, shape (batch, 10), of images, shape (batch, 8, 8, 1), in [0, 1]."""
        x = nnx.relu(self.norm1(self.conv1(images)))
        x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        x = nnx.relu(self.norm2(self.conv2(x)))
        x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        x = nnx.relu(self.dense(x.reshape(x.shape[0], -1)))
        return self.head(x)


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images, training labels, test images, test labels: one fixed stratified split, a fifth for the test.

    Images are float32 in [0, 1] of shape (n, 8, 8, 1), labels int32.
    """
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[..., None]
    labels = digits.target.astype(np.int32)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=0.2, random_state=0, stratify=labels
    )
    return train_images, train_labels, test_images, test_labels


def loss(model: DigitsCNN, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()


def shrink(kernel: jax.Array, threshold: jax.Array | float) -> jax.Array:
    """Proximal step of the group lasso: lower each output channel's norm by `threshold`, to exactly zero if it is less.

    Source: Yuan and Lin 2006, doi:10.1111/j.1467-9868.2005.00532.x.
    """
    norms = jnp.sqrt((kernel**2).sum(axis=tuple(range(kernel.ndim - 1)), keepdims=True))
    return kernel * jnp.maximum(0, 1 - threshold / jnp.maximum(norms, 1e-12))


def optimizer(model: DigitsCNN, rate: optax.Schedule) -> nnx.Optimizer:
    """AdamW; kernels decay, biases and norms do not."""
    tx = optax.adamw(rate, weight_decay=WEIGHT_DECAY, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params))
    return nnx.Optimizer(model, tx, wrt=nnx.Param)


@nnx.jit
def step(
    model: DigitsCNN, opt: nnx.Optimizer, images: jax.Array, labels: jax.Array, threshold: jax.Array | float
) -> jax.Array:
    """Update the model on one batch, then shrink its hidden layer by `threshold`; the loss before the update."""
    value, gradients = nnx.value_and_grad(loss)(model, images, labels)
    opt.update(model, gradients)
    model.dense.kernel[...] = shrink(model.dense.kernel[...], threshold)
    return value


def batches(count: int, epochs: int, seed: int) -> Iterator[np.ndarray]:
    """Indices of each batch, shuffled anew every epoch; the odd rest of an epoch is dropped."""
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(count)
        yield from order[: count - count % BATCH].reshape(-1, BATCH)


def train(images: np.ndarray, labels: np.ndarray, *, epochs: int = EPOCHS, seed: int = 0) -> DigitsCNN:
    """A trained network, in evaluation mode.

    The same seed gives the same weights on one machine; another number of cores sums in another order.
    """
    rate = optax.cosine_decay_schedule(LEARNING_RATE, epochs * (len(images) // BATCH))
    model = DigitsCNN(nnx.Rngs(seed))
    opt = optimizer(model, rate)
    for i, batch in enumerate(batches(len(images), epochs, seed)):
        step(model, opt, images[batch], labels[batch], GROUP_LASSO * rate(i))
    model.eval()
    return model


def accuracy(model: DigitsCNN, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of the images whose largest logit is at the label."""
    return float((np.asarray(model(images)).argmax(axis=1) == labels).mean())


def weights(model: DigitsCNN) -> dict[str, np.ndarray]:
    """Parameters and running statistics by dotted name, in flax's layout: `conv1.kernel` is height, width, in, out."""
    state = nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    return {name: np.asarray(value) for name, value in traverse_util.flatten_dict(state, sep=".").items()}


def ordered(blob: bytes) -> bytes:
    """The same safetensors file with its header's keys sorted, so that equal networks are equal files.

    The library writes the metadata in the order of a hash map, which differs from process to process.
    """
    end = 8 + int.from_bytes(blob[:8], "little")
    header = json.dumps(json.loads(blob[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + blob[end:]


def save(model: DigitsCNN, path: Path) -> None:
    """Write the weights as safetensors; the metadata say what they are and how well they do on the test images."""
    _, _, images, labels = split()
    metadata = {
        "format": "flax-nnx",
        "description": "DigitsCNN: a small convolutional network that reads handwritten digits, 8 x 8 pixels",
        "data": "scikit-learn's load_digits (UCI, Optical Recognition of Handwritten Digits, public)",
        "layout": "convolution kernels HWIO, dense kernels in x out",
        "test_accuracy": f"{accuracy(model, images, labels):.4f}",
        "test_images": str(len(images)),
        "source": "examples/train_digits.py",
    }
    path.write_bytes(ordered(save_bytes(weights(model), metadata)))


def load(path: Path) -> DigitsCNN:
    """The network that `save` wrote, in evaluation mode.

    Raises:
        ValueError: a tensor is missing, unknown or of another shape.
    """
    model = DigitsCNN(nnx.Rngs(0))
    stored = load_file(path)
    got, expected = ({name: array.shape for name, array in tree.items()} for tree in (stored, weights(model)))
    if got != expected:
        odd = sorted(name for name, _ in got.items() ^ expected.items())
        raise ValueError(f"{path}: tensors {odd} do not fit DigitsCNN; write the file anew with this script")
    nnx.update(model, traverse_util.unflatten_dict(stored, sep="."))
    model.eval()
    return model


def main(output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the safetensors file.")]) -> None:
    """Train the network, write its weights and print the accuracy on the test images."""
    train_images, train_labels, test_images, test_labels = split()
    model = train(train_images, train_labels)
    save(model, output)
    typer.echo(f"test accuracy {accuracy(model, test_images, test_labels):.4f}")


if __name__ == "__main__":
    typer.run(main)
