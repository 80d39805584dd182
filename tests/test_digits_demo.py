"""The shipped demo network is the one that `examples/train_digits.py` describes, and that script still trains."""

import json
from importlib.resources import as_file, files
from types import ModuleType

import numpy as np
import pytest

for distribution in ("flax", "optax", "safetensors", "sklearn"):
    pytest.importorskip(distribution)

SHIPPED = files("weighbridge") / "data" / "digits_cnn.safetensors"


@pytest.fixture(scope="module")
def digits(script) -> ModuleType:
    return script("train_digits")


@pytest.fixture(scope="module")
def shipped(digits):
    with as_file(SHIPPED) as path:
        return digits.load(path)


def parts(blob: bytes) -> tuple[dict[str, str], dict, bytes]:
    """Metadata, tensor entries and data of a safetensors file."""
    end = 8 + int.from_bytes(blob[:8], "little")
    entries = json.loads(blob[8:end])
    return entries.pop("__metadata__"), entries, blob[end:]


def test_accuracy_is_the_stated_one(digits, shipped):
    stated, _, _ = parts(SHIPPED.read_bytes())
    _, _, images, labels = digits.split()
    measured = digits.accuracy(shipped, images, labels)
    assert stated["test_images"] == str(len(images))
    # Another CPU's rounding may tip one image; the stated figure is itself rounded to four digits.
    assert abs(measured - float(stated["test_accuracy"])) <= 1 / len(images) + 5e-5
    assert measured >= 0.98


def test_file_is_small():
    assert len(SHIPPED.read_bytes()) < 300_000


def test_hidden_units_are_dead_or_alive(digits, shipped):
    norms = np.linalg.norm(digits.weights(shipped)["dense.kernel"], axis=0)
    assert 0 < np.count_nonzero(norms == 0) < len(norms)
    assert norms[norms > 0].min() > 1e-6


def test_save_writes_what_load_read(digits, shipped, tmp_path):
    path = tmp_path / "again.safetensors"
    digits.save(shipped, path)
    metadata, *tensors = parts(path.read_bytes())
    stated, *expected = parts(SHIPPED.read_bytes())
    assert tensors == expected
    assert metadata.keys() == stated.keys()


def test_load_refuses_another_network(digits, shipped, tmp_path):
    from safetensors.numpy import save_file

    tensors = digits.weights(shipped)
    del tensors["head.bias"]
    save_file(tensors, tmp_path / "short.safetensors")
    with pytest.raises(ValueError, match=r"head\.bias"):
        digits.load(tmp_path / "short.safetensors")


def test_split_is_stratified(digits):
    train_images, train_labels, test_images, test_labels = digits.split()
    assert train_images.shape == (1437, 8, 8, 1)
    assert test_images.shape == (360, 8, 8, 1)
    shares = [np.bincount(labels) / len(labels) for labels in (train_labels, test_labels)]
    np.testing.assert_allclose(*shares, atol=1 / len(test_labels))


def test_shrink_lowers_norms_to_exactly_zero(digits):
    kernel = np.array([[3.0, 0.3, 0.0], [4.0, 0.4, 0.0]], np.float32)
    np.testing.assert_allclose(digits.shrink(kernel, 1.0), [[2.4, 0, 0], [3.2, 0, 0]], rtol=1e-6)


def test_a_step_lowers_the_loss(digits):
    images, labels, _, _ = digits.split()
    model = digits.DigitsCNN(digits.nnx.Rngs(0))
    opt = digits.optimizer(model, digits.optax.constant_schedule(digits.LEARNING_RATE))
    # optax's bias correction raises a float to an integer power, which strict promotion refuses.
    with digits.jax.numpy_dtype_promotion("standard"):
        first = digits.step(model, opt, images[:64], labels[:64], 0.0)
    assert digits.loss(model, images[:64], labels[:64]) < first
