"""Weights' parts in an output sum to it where they must; randomised parameters and deletion tell good maps from bad."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import spearmanr

import weighbridge
from weighbridge.errors import BadArgument
from weighbridge.models.saliency_checks import per_place

RNG = np.random.default_rng(11)
SIZES = (7, 13, 11, 5)
PARAMS = {
    f"layer{i}": {"kernel": RNG.normal(size=(a, b)).astype(np.float32) / np.sqrt(a)}
    for i, (a, b) in enumerate(pairwise(SIZES))
}
BIASED = {name: {**layer, "bias": np.full(layer["kernel"].shape[1], 0.1, np.float32)} for name, layer in PARAMS.items()}
ROWS = RNG.normal(size=(3, 7)).astype(np.float32)
TARGETS = np.array([1, 4, 0])


def perceptron(params, x):
    for i in range(3):
        layer = params[f"layer{i}"]
        x = jnp.matmul(x, layer["kernel"], precision="highest") + layer.get("bias", 0)
        x = jax.nn.relu(x) if i < 2 else x
    return x


# The way back to weights.


def test_each_layer_of_a_network_without_biases_sums_to_the_output():
    found = weighbridge.attribution_to_weights(perceptron, PARAMS, ROWS, TARGETS)
    output = np.asarray(perceptron(PARAMS, ROWS))[np.arange(3), TARGETS]
    np.testing.assert_allclose(found.output, output, rtol=1e-5, atol=1e-6)
    assert list(found.layers) == ["layer0", "layer1", "layer2"]
    for name, values in found.layers.items():
        np.testing.assert_allclose(values, output, rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(found.shares()[name] * found.output, values, rtol=1e-6)


def test_biases_have_a_part_of_their_own():
    """Of the last layer, weights and bias together are the output; of the others, what later biases do not add."""
    found = weighbridge.attribution_to_weights(perceptron, BIASED, ROWS, TARGETS)
    np.testing.assert_allclose(found.layers["layer2"], found.output, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.tensors["layer2.bias"], 0.1, rtol=1e-5)
    flow = found.output - found.tensors["layer2.bias"] - found.tensors["layer1.bias"]
    np.testing.assert_allclose(found.tensors["layer1.kernel"], flow, rtol=1e-4, atol=1e-6)


def test_each_weight_is_weight_times_gradient():
    found = weighbridge.attribution_to_weights(perceptron, BIASED, ROWS, TARGETS)

    def score(params, i):
        return perceptron(params, ROWS[i : i + 1])[0, TARGETS[i]]

    gradients = [jax.grad(score)(BIASED, i) for i in range(3)]
    for name, values in found.weights.items():
        layer, tensor = name.split(".")
        parts = np.array([g[layer][tensor] * BIASED[layer][tensor] for g in gradients])
        np.testing.assert_allclose(values, parts.mean(axis=0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.channels[name], parts.reshape(3, -1, parts.shape[-1]).sum(axis=1), atol=1e-5)


def test_channels_are_those_of_the_layout():
    weight = RNG.normal(size=(5, 7)).astype(np.float32)
    found = weighbridge.attribution_to_weights(lambda p, x: x @ p["w"].T, {"w": weight}, ROWS, 2, channel_axis=0)
    assert found.channels["w"].shape == (3, 5)
    assert found.layers.keys() == {"w"}
    np.testing.assert_allclose(found.channels["w"][:, 2], found.output, rtol=1e-4, atol=1e-6)
    assert not found.channels["w"][:, [0, 1, 3, 4]].any()


def test_flax_modules_bring_their_weights():
    nnx = pytest.importorskip("flax.nnx")
    module = nnx.Sequential(
        nnx.Linear(7, 13, use_bias=False, rngs=nnx.Rngs(0)),
        nnx.relu,
        nnx.Linear(13, 5, use_bias=False, rngs=nnx.Rngs(1)),
    )
    found = weighbridge.attribution_to_weights(module, None, ROWS, TARGETS)
    assert list(found.weights) == ["layers.0.kernel", "layers.2.kernel"]
    for values in found.layers.values():
        np.testing.assert_allclose(values, found.output, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("of", ["layers", "tensors", "channels"])
def test_shares_are_parts_of_the_output(of):
    found = weighbridge.attribution_to_weights(perceptron, BIASED, ROWS, TARGETS)
    shares, parts = found.shares(of), getattr(found, of)
    assert list(shares) == list(parts)
    for name, values in parts.items():
        expected = [part / output for part, output in zip(values, found.output, strict=True)]
        np.testing.assert_allclose(shares[name], expected, rtol=1e-6)


def test_shares_of_something_else_are_refused():
    found = weighbridge.attribution_to_weights(perceptron, PARAMS, ROWS, TARGETS)
    with pytest.raises(BadArgument, match="of is 'weights'; expected one of layers, tensors, channels"):
        found.shares("weights")


def test_two_leaves_of_one_name_are_refused():
    params = {"a": {"b": np.ones((7, 5), np.float32)}, "a.b": np.ones(5, np.float32)}
    with pytest.raises(BadArgument, match=r"2 leaves are called 'a\.b'; rename all but one"):
        weighbridge.attribution_to_weights(lambda p, x: x @ p["a"]["b"] + p["a.b"], params, ROWS, 0)


def test_no_parameters_and_no_inputs():
    with pytest.raises(BadArgument, match="the network has no floating-point parameters; give params"):
        weighbridge.attribution_to_weights(lambda x: x, None, ROWS, 0)
    found = weighbridge.attribution_to_weights(perceptron, PARAMS, ROWS[:0], 0)
    assert found.output.shape == found.layers["layer0"].shape == (0,)
    assert found.channels["layer0.kernel"].shape == (0, 13)
    other = weighbridge.attribution_to_weights(perceptron, PARAMS, ROWS[:0], 0, channel_axis=0)
    assert other.channels["layer0.kernel"].shape == (0, 7)


def test_nan_in_an_input_is_in_its_own_sums():
    rows = ROWS.copy()
    rows[1, 0] = np.nan
    found = weighbridge.attribution_to_weights(perceptron, PARAMS, rows, TARGETS)
    assert np.isnan(found.output).tolist() == [False, True, False]
    assert np.isnan(found.layers["layer1"]).tolist() == [False, True, False]
    assert np.isnan(found.weights["layer1.kernel"]).all()


# Randomised parameters.


def test_randomisation_cascades_from_the_output():
    found = weighbridge.parameter_randomisation(
        perceptron, ROWS, TARGETS, params=BIASED, key=jax.random.key(0), method="gradient"
    )
    assert found.layers == ("layer2", "layer1", "layer0")
    np.testing.assert_allclose(found.correlation[0], 1)
    assert found.correlation.shape == found.absolute.shape == (4, 3)
    assert found.correlation[-1].max() < 1


def test_correlation_is_spearmans():
    options = {"params": PARAMS, "method": "gradient"}
    found = weighbridge.parameter_randomisation(
        perceptron, ROWS, 1, key=jax.random.key(2), layers=["layer0"], **options
    )
    changed = {**PARAMS, "layer0": {"kernel": drawn(PARAMS["layer0"]["kernel"], jax.random.key(2))}}
    before = weighbridge.saliency(perceptron, ROWS, 1, **options).values
    after = weighbridge.saliency(perceptron, ROWS, 1, params=changed, method="gradient").values
    expected = [spearmanr(a, b).statistic for a, b in zip(before, after, strict=True)]
    np.testing.assert_allclose(found.correlation[1], expected, atol=1e-12)
    assert found.layers == ("layer0",)


def drawn(kernel, key):
    noise = jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, 0), 0), kernel.shape)
    return kernel.mean() + kernel.std() * noise


def test_a_map_that_ignores_the_network_keeps_its_ranks():
    """What an edge detector would do: the output is the input's sum whatever the weights, so the map cannot change."""
    found = weighbridge.parameter_randomisation(
        lambda p, x: x.sum(axis=1) + 0 * p["w"].sum(),
        ROWS,
        params={"w": ROWS},
        key=jax.random.key(0),
        method="input_x_gradient",
    )
    np.testing.assert_allclose(found.correlation, 1)


def test_an_unknown_layer_is_refused():
    with pytest.raises(BadArgument, match="layer 'head' is not in the network; its layers are layer0, layer1, layer2"):
        weighbridge.parameter_randomisation(perceptron, ROWS, 1, params=PARAMS, key=jax.random.key(0), layers=["head"])
    with pytest.raises(BadArgument, match="no parameters to randomise"):
        weighbridge.parameter_randomisation(lambda x: x, ROWS, 1, key=jax.random.key(0))


def test_a_bad_call_of_randomisation_gives_one_line():
    options = {"params": PARAMS, "key": jax.random.key(0)}
    with pytest.raises(BadArgument, match=r"function fails on inputs of shape \(3, 6\)"):
        weighbridge.parameter_randomisation(perceptron, ROWS[:, :6], 1, **options)
    with pytest.raises(BadArgument, match="inputs cannot be an array"):
        weighbridge.parameter_randomisation(perceptron, [[1.0], [2.0, 3.0]], 1, **options)
    with pytest.raises(BadArgument, match=r"key is 0; expected a key of jax\.random"):
        weighbridge.parameter_randomisation(perceptron, ROWS, 1, params=PARAMS, key=0)


# Deletion and insertion.


def test_curves_of_a_linear_model():
    """Entries of 8, 4, 2 and 1 go one by one: what is left of their sum, and what has come of it."""
    x = np.array([[2.0, 8.0, 1.0, 4.0]], np.float32)
    found = weighbridge.deletion_insertion(lambda x: x.sum(axis=1), x, maps=x, steps=4, score="output")
    np.testing.assert_allclose(found.fraction, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(found.deletion, [[15, 7, 3, 1, 0]])
    np.testing.assert_allclose(found.insertion, [[0, 8, 12, 14, 15]])
    np.testing.assert_allclose(found.deletion_area, [(15 / 2 + 7 + 3 + 1) / 4])
    np.testing.assert_allclose(found.insertion_area, [(8 + 12 + 14 + 15 / 2) / 4])
    worst = weighbridge.deletion_insertion(lambda x: x.sum(axis=1), x, maps=-x, steps=4, score="output")
    assert worst.deletion_area > found.deletion_area
    assert worst.insertion_area < found.insertion_area


def test_pixels_go_with_all_their_channels():
    x = RNG.uniform(0.5, 1, size=(2, 3, 4, 2)).astype(np.float32)
    found = weighbridge.deletion_insertion(lambda x: x.sum(axis=(1, 2, 3)), x, maps=x, steps=12, score="output")
    pixels = -np.sort(-x.sum(axis=3).reshape(2, -1), axis=1)
    expected = pixels.sum(axis=1, keepdims=True) - np.concatenate([np.zeros((2, 1)), np.cumsum(pixels, axis=1)], axis=1)
    np.testing.assert_allclose(found.deletion, expected, rtol=1e-4, atol=1e-5)


def test_probabilities_are_softmax_or_sigmoid():
    maps = weighbridge.saliency(perceptron, ROWS, TARGETS, params=PARAMS)
    found = weighbridge.deletion_insertion(perceptron, ROWS, TARGETS, params=PARAMS, maps=maps, steps=7)
    expected = np.asarray(jax.nn.softmax(perceptron(PARAMS, ROWS)))[np.arange(3), TARGETS]
    np.testing.assert_allclose(found.deletion[:, 0], expected, rtol=1e-4)
    np.testing.assert_allclose(found.insertion[:, -1], expected, rtol=1e-4)
    assert found.method == "integrated_gradients"
    single = weighbridge.deletion_insertion(lambda x: x.sum(axis=1), ROWS, maps=ROWS, steps=3)
    np.testing.assert_allclose(single.deletion[:, -1], 0.5)


def test_the_probability_of_one_class_is_a_sigmoid():
    expected = 1 / (1 + np.exp(-ROWS.astype(np.float64).sum(axis=1)))
    found = weighbridge.deletion_insertion(lambda x: x.sum(axis=1, keepdims=True), ROWS, 0, maps=ROWS, steps=3)
    np.testing.assert_allclose(found.deletion[:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(found.deletion[:, -1], 0.5)


def test_the_probability_is_among_the_classes_of_one_place():
    def by_place(x):
        return jnp.stack([x, 2 * x, -x], axis=-1)

    found = weighbridge.deletion_insertion(by_place, ROWS, np.array([4, 1]), maps=ROWS, steps=3)
    expected = np.asarray(jax.nn.softmax(by_place(ROWS), axis=-1))[:, 4, 1]
    np.testing.assert_allclose(found.deletion[:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(found.deletion[:, -1], 1 / 3, rtol=1e-6)


def test_a_coarse_map_is_spread_by_its_nearest_entries():
    coarse = np.arange(4.0).reshape(1, 2, 2)
    spread = per_place(coarse, (1, 4, 6, 3), -1)
    assert spread[0].tolist() == [[0, 0, 0, 1, 1, 1]] * 2 + [[2, 2, 2, 3, 3, 3]] * 2
    with pytest.raises(
        BadArgument, match=r"maps have shape \(1, 2, 2\); expected \(2, 4, 6, 3\), or \(2, axes of space\)"
    ):
        per_place(coarse, (2, 4, 6, 3), -1)


def test_curves_of_nothing():
    found = weighbridge.deletion_insertion(lambda x: x.sum(axis=1), ROWS[:0], maps=ROWS[:0], steps=3)
    assert found.deletion.shape == (0, 4)
    assert found.deletion_area.shape == (0,)
    for steps in (0, 2.5):
        with pytest.raises(BadArgument, match=f"steps is {steps}, score 'probability'; expected an int from 1"):
            weighbridge.deletion_insertion(lambda x: x.sum(axis=1), ROWS, maps=ROWS, steps=steps)
