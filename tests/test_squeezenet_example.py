"""`examples/squeezenet.py` loads the real network whole, and its units are excited more than by any photograph."""

import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

for distribution in ("flax", "optax", "h5py", "skimage"):
    pytest.importorskip(distribution)

import h5py  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from skimage import data, transform  # noqa: E402

from weighbridge.models.features import visualize_feature  # noqa: E402
from weighbridge.models.objectives import unit  # noqa: E402

WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "squeezenet_v1.1_imagenet_notop.h5"
COLOURED = ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field", "immunohistochemistry", "retina")
GREY = ("camera", "coins", "moon", "clock", "brick", "grass", "gravel", "page", "text")
SIDES = {"conv1": 16, "fire2": 32, "fire3": 48, "fire4": 64, "fire5": 80}
"""Of images about as large as what a unit sees; 128 for later modules."""

pytestmark = pytest.mark.skipif(not WEIGHTS.exists(), reason="no folder shared/data with real networks")


@pytest.fixture(scope="module")
def squeezenet(script) -> ModuleType:
    return script("squeezenet")


@pytest.fixture(scope="module")
def network(squeezenet):
    return squeezenet.load(WEIGHTS)


@pytest.fixture(scope="module")
def photographs() -> dict[str, np.ndarray]:
    found = {name: getattr(data, name)() / np.float32(255) for name in COLOURED + GREY}
    return {name: np.repeat(x[..., None], 3, axis=2) if x.ndim == 2 else x for name, x in found.items()}


def test_every_weight_has_its_place(squeezenet, network):
    stored = squeezenet.stored(WEIGHTS)
    assert len(stored) == 2 * (1 + 3 * 8)
    assert sum(weight.size for weight in stored.values()) == 722_496
    placed = {squeezenet.named(parts): p for parts, p in squeezenet.nnx.to_flat_state(squeezenet.nnx.state(network))}
    assert placed.keys() == stored.keys()
    for name, weight in stored.items():
        np.testing.assert_array_equal(placed[name][...], weight)


@pytest.mark.parametrize("fault", ["missing", "left over", "shape"])
def test_another_file_is_refused(squeezenet, tmp_path, fault):
    path = shutil.copyfile(WEIGHTS, tmp_path / "other.h5")
    with h5py.File(path, "r+") as file:
        kernel = file["fire4/squeeze1x1/uniform8"][()]
        if fault != "left over":
            del file["fire4/squeeze1x1/uniform8"]
        if fault == "shape":
            file["fire4/squeeze1x1/uniform8"] = kernel[..., :-1]
        if fault == "left over":
            file["fire10/squeeze1x1/uniform26"] = kernel
    with pytest.raises(ValueError, match=r"fire10/squeeze1x1\.kernel" if fault == "left over" else r"fire4/squeeze1x1"):
        squeezenet.load(path)


def test_layers_are_as_the_network_is_described(squeezenet, network):
    layers = jax.eval_shape(network, jnp.zeros((1, 224, 224, 3)))
    shapes = {name: layer.shape[1:] for name, layer in layers.items()}
    assert shapes["conv1"] == (111, 111, 64)
    assert [shapes[f"fire{i}"] for i in (2, 4, 6, 9)] == [(55, 55, 128), (27, 27, 256), (13, 13, 384), (13, 13, 512)]
    assert shapes["fire9/squeeze"] == (13, 13, 64)


def test_the_stated_preprocessing_tells_photographs_apart_best(squeezenet, network, photographs, monkeypatch):
    """What different photographs have in common at the end: least as the network was trained, more in other channels
    or about another mean, nearly everything when scaled."""
    shown = np.stack([transform.resize(photographs[name], (112, 112), anti_aliasing=True) for name in COLOURED])
    shown = shown.astype(np.float32)
    mean = jnp.array(squeezenet.MEAN)
    others = {
        "rgb": lambda x: 255 * x - mean[::-1],
        "no mean": lambda x: 255 * x[..., ::-1],
        "scaled": lambda x: 2 * x - 1,
    }

    def common() -> float:
        units = np.maximum(network(shown)["fire9"], 0).mean(axis=(1, 2))
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        return (units @ units.T)[np.triu_indices(len(units), 1)].mean()

    stated, found = common(), {}
    for name, preprocessed in others.items():
        monkeypatch.setattr(squeezenet, "preprocessed", preprocessed)
        found[name] = common()
    assert stated < min(found.values())
    assert found["scaled"] > 0.9 > 2 * stated


@pytest.mark.slow
def test_units_are_excited_more_than_by_any_photograph(network, photographs):
    """Ten units drawn over all layers: what is made for a unit excites it in its middle more than any place of any
    photograph, in full size, does."""
    most: dict[str, np.ndarray] = {}
    for photograph in photographs.values():
        for name, layer in network(jnp.asarray(photograph[None])).items():
            if "/" not in name:
                most[name] = np.maximum(most.get(name, -np.inf), np.asarray(layer).max(axis=(0, 1, 2)))
    every = [(name, channel) for name, units in most.items() for channel in range(units.size)]
    drawn = [every[i] for i in np.random.default_rng(0).choice(len(every), 10, replace=False)]
    beaten = 0
    for name in most:
        units = [channel for layer, channel in drawn if layer == name]
        if units:
            side = SIDES.get(name, 128)
            shape, key = (side, side, 3), jax.random.key(0)
            found = visualize_feature(network, unit(units, layer=name), shape=shape, key=key, steps=96)
            beaten += int((found.activations > most[name][units]).sum())
    assert beaten >= 8


@pytest.mark.slow
def test_the_pictures_are_drawn(squeezenet, tmp_path, monkeypatch):
    monkeypatch.setattr(squeezenet, "STEPS", 2)
    monkeypatch.setattr(squeezenet, "ICONS", {3: 32})
    squeezenet.main(WEIGHTS, tmp_path / "pictures")
    written = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert written >= {"conv1.png", "fire9_factors.png", "fire3_icons.png", "unit_inputs.png", "unit_positions.png"}
