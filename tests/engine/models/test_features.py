"""What a unit looks for: planted patterns are found, units of a real network are excited more than by its own data."""

import sys
from importlib.resources import as_file, files

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("optax")

import jax.numpy as jnp  # noqa: E402
from jax.tree_util import Partial  # noqa: E402

from weighbridge.errors import BadArgument  # noqa: E402
from weighbridge.models.features import visualize_feature  # noqa: E402
from weighbridge.models.objectives import direction, unit, weights_at  # noqa: E402
from weighbridge.models.transforms import Movements  # noqa: E402

STILL = Movements(0, 0, 0)
KEY = jax.random.key(3)
RNG = np.random.default_rng(5)
KERNEL = RNG.standard_normal((3, 5, 3, 7)).astype(np.float32)


def convolved(x):
    """A network of one convolution: two layers by name."""
    dimensions = jax.lax.conv_dimension_numbers(x.shape, KERNEL.shape, ("NHWC", "HWIO", "NHWC"))
    y = jax.lax.conv_general_dilated(x - 0.5, KERNEL, (1, 1), "SAME", dimension_numbers=dimensions)
    return {"conv": y, "relu": jax.nn.relu(y)}


def made(objective, function=convolved, shape=(11, 13, 3), key=KEY, steps=40, **options):
    return visualize_feature(function, objective, shape=shape, key=key, steps=steps, **options)


def test_an_image_for_each_unit_with_what_it_excites():
    found = made(unit([0, 6], layer="conv"))
    assert found.images.shape == (2, 11, 13, 3)
    assert (found.images >= 0).all()
    assert (found.images <= 1).all()
    assert found.history.shape == (2, 40)
    expected = [convolved(image[None])["conv"][0, 5, 6, u] for u, image in zip((0, 6), found.images, strict=True)]
    np.testing.assert_allclose(found.activations, expected, rtol=1e-4)
    assert (found.history[:, -10:].mean(axis=1) > found.history[:, :3].mean(axis=1) + 1).all()


def test_the_same_key_gives_the_same_image_and_another_another():
    first, again = made(unit([1, 2], layer="conv")), made(unit([1, 2], layer="conv"))
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.history, again.history)
    assert np.abs(first.images - made(unit([1, 2], layer="conv"), key=jax.random.key(4)).images).max() > 0.01


def test_a_unit_is_the_direction_of_its_channel():
    np.testing.assert_array_equal(
        made(unit([1, 4], layer="conv"), movements=STILL).images,
        made(direction(np.eye(7)[[1, 4]], layer="conv"), movements=STILL).images,
    )


def test_what_a_direction_excites_is_the_product():
    vectors = RNG.standard_normal((2, 7))
    found = made(direction(vectors, layer="conv", place=(2, 3)))
    expected = [convolved(image[None])["conv"][0, 2, 3] @ v for v, image in zip(vectors, found.images, strict=True)]
    np.testing.assert_allclose(found.activations, expected, rtol=1e-4)


def test_with_a_cosine_the_direction_itself_counts():
    def rivals(x):
        """Of a grey v: 3 v and 2 - 2 v, whose sum is greatest where one of them is 0."""
        return jnp.concatenate([3 * x, 2 - 2 * x], axis=-1)

    greys = []
    for power in (0, 4):
        found = made(direction([1, 1], cosine=power), rivals, (4, 4, 1), steps=80, movements=STILL)
        greys.append(found.images[0, 2, 2, 0])
    assert greys[0] > 0.95
    assert 0.3 < greys[1] < 0.6


def test_weights_at_a_position_are_a_direction():
    found = weights_at(KERNEL, 4, (2, 3), layer="input")
    np.testing.assert_array_equal(found.vectors, KERNEL[None, 2, 3, :, 4])
    assert found.layer == "input"
    for unit_, position in ((7, (0, 0)), (0, (3, 0)), (0, (0, -1))):
        with pytest.raises(BadArgument, match="expected one in"):
            weights_at(KERNEL, unit_, position)


@pytest.mark.parametrize(("place", "at"), [("centre", (4, 3)), ((1, 5), (1, 5))])
def test_only_the_place_is_excited(place, at):
    found = made(unit(0, place=place), lambda x: x, (8, 6, 1), steps=60, movements=STILL)
    assert found.images[0][at] > 0.95
    assert found.activations[0] == found.images[0][(*at, 0)]
    assert np.abs(found.images[0] - 0.5).mean() < 0.25


def test_the_mean_is_excited_all_over():
    found = made(unit(1, place="mean"), lambda x: x, (8, 6, 4), steps=60, rate=0.5)
    assert found.images[0, ..., 1].mean() > 0.95
    assert np.abs(found.images[0, ..., [0, 2, 3]] - 0.5).mean() < 0.05  # as it began


def test_a_planted_pattern_is_found():
    pattern = RNG.standard_normal((16, 12, 1)).astype(np.float32)

    def matched(x):
        return (x * pattern).sum(axis=(1, 2))

    (image,) = made(unit(0), matched, (16, 12, 1), steps=100, movements=STILL).images
    assert np.corrcoef(image.ravel(), pattern.ravel())[0, 1] > 0.8


def test_other_units_and_weights_do_not_compile_again():
    traced = []

    def weighted(weights, x):
        traced.append(x.shape)
        return x * weights

    counts = []
    for scale, units, key in ((1.0, [0, 1], 0), (2.0, [2, 1], 1)):
        weights = Partial(weighted, jnp.full(3, scale))
        found = made(unit(units), weights, (4, 4, 3), key=jax.random.key(key), steps=5, movements=STILL)
        np.testing.assert_allclose(found.activations, scale * found.images[[0, 1], 2, 2, units], rtol=1e-6)
        counts.append(len(traced))
    assert counts[1] == counts[0] + 1  # to see what the network gives


def test_strict_promotion_is_kept():
    with jax.numpy_dtype_promotion("strict"):
        made(unit(0, layer="conv"), shape=(7, 9, 3), steps=2)


@pytest.mark.parametrize(
    ("objective", "match"),
    [
        (unit(0, layer="pool"), "layer 'pool'; expected one of conv, relu"),
        (unit(0), "layer None; expected one of conv, relu"),
        (unit([3, 7], layer="conv"), "unit 7 of conv; it has 7, give 0 to 6"),
        (unit(-1, layer="conv"), "unit -1"),
        (unit(0, layer="conv", place=(11, 0)), "expected centre, mean or one in its map"),
        (direction(np.ones(6), layer="conv"), "directions of 6 entries in conv; expected its 7"),
    ],
)
def test_an_objective_that_does_not_fit_is_refused(objective, match):
    with pytest.raises(BadArgument, match=match):
        made(objective)


def test_bad_calls_are_refused():
    with pytest.raises(BadArgument, match="expected height, width and channels"):
        made(unit(0), lambda x: x, (5,))
    with pytest.raises(BadArgument, match="expected one or more"):
        made(unit(0, layer="conv"), steps=0)
    with pytest.raises(BadArgument, match="leave the layer out"):
        made(unit(0, layer="conv"), lambda x: x)
    with pytest.raises(BadArgument, match="expected finite ones"):
        direction([np.nan, 1])
    with pytest.raises(BadArgument, match="expected a jitter"):
        Movements(jitter=2)


def test_without_optax_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'weighbridge\[models\]'"):
        made(unit(0, layer="conv"))


@pytest.fixture(scope="module")
def circuits(script):
    for distribution in ("flax", "safetensors", "sklearn"):
        pytest.importorskip(distribution)
    return script("digits_circuits")


def test_units_of_the_digits_are_excited_more_than_by_any_digit(circuits):
    with as_file(files("weighbridge") / "data" / "digits_cnn.safetensors") as path:
        network = circuits.network(path)
    images = circuits.train_digits.split()[0]
    layers = network(images)
    for layer, place in (("conv2", (2, 2)), ("head", "centre")):
        values = np.asarray(layers[layer])
        values = values[:, 2, 2] if layer == "conv2" else values
        alive = np.flatnonzero(values.std(axis=0) > 1e-3)
        units = np.random.default_rng(0).choice(alive, 10, replace=False)
        found = made(unit(units.tolist(), layer=layer, place=place), network, (8, 8, 1), steps=128)
        assert (found.activations > values.max(axis=0)[units]).sum() >= 8, layer


@pytest.mark.slow
def test_the_digits_are_drawn(circuits, tmp_path, monkeypatch):
    monkeypatch.setattr(circuits, "STEPS", 2)
    circuits.main(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {
        "conv1.png",
        "conv2_factors.png",
        "head_icons.png",
        "circuit.html",
    }
