"""Weights at examples, their factors, the best case: what the mean case hides, rebuilt with planted weights."""

from functools import partial
from itertools import pairwise, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weighbridge
from weighbridge.errors import BadArgument
from weighbridge.models import best_case, example_weights, factors, tap

STRIPED, DOTTED = 0, 1
SIDE = np.array([1.0, 0.0, -1.0])


def boundary_detector(x):
    """A unit for the boundary of two textures, whichever of them lies left (Voss et al. 2021).

    Two hidden units know one case each, with weights that are each other's negative; the target adds them.
    """
    kernel = np.zeros((1, 3, 2, 2), np.float32)
    kernel[0, :, STRIPED, 0] = kernel[0, :, DOTTED, 1] = SIDE
    kernel[0, :, DOTTED, 0] = kernel[0, :, STRIPED, 1] = -SIDE
    dimensions = ("NHWC", "HWIO", "NHWC")
    hidden = jax.lax.conv_general_dilated(x, jnp.asarray(kernel), (1, 1), "SAME", dimension_numbers=dimensions)
    hidden = jax.nn.relu(tap("cases", hidden) - 0.5)
    return hidden.sum(axis=-1, keepdims=True)


def images(count, seed=0):
    """Maps [count, 5, 7, 2] of two textures that meet in the middle; striped is left in the first half of them."""
    rng = np.random.default_rng(seed)
    left = (np.arange(7) < 3.5)[None, None, :] == (np.arange(count) < count // 2)[:, None, None]
    maps = np.stack([left, ~left], axis=-1) * rng.uniform(0.8, 1.2, size=(count, 5, 7, 2))
    return jnp.asarray(maps, jnp.float32)


PLANTED = np.stack([SIDE, -SIDE], axis=-1)[None]


def test_of_the_boundary_detector_the_expanded_weights_cancel():
    found = weighbridge.expanded_weights(boundary_detector, target=("output", 0), shape=(1, 5, 7, 2))
    assert found.values.shape == (1, 3, 2)
    np.testing.assert_array_equal(found.values, 0)


@pytest.fixture(scope="module")
def cases():
    return example_weights(boundary_detector, images(20), target=("output", 0))


def test_examples_do_not_cancel(cases):
    np.testing.assert_allclose(cases.values[:10], np.broadcast_to(PLANTED, (10, 1, 3, 2)), atol=1e-6)
    np.testing.assert_allclose(cases.values[10:], np.broadcast_to(-PLANTED, (10, 1, 3, 2)), atol=1e-6)
    assert (cases.activations > 0.5).all()
    np.testing.assert_allclose(cases.mean, 0, atol=1e-6)


def test_non_negative_factors_are_the_two_cases(cases):
    found = factors(cases, 2)
    first, second = found.loadings[:10], found.loadings[10:]
    mine = int(first[0].argmax())
    np.testing.assert_allclose(first[:, 1 - mine], 0, atol=1e-4)
    np.testing.assert_allclose(second[:, mine], 0, atol=1e-4)
    np.testing.assert_allclose(found.kernels[mine] * first[0, mine], PLANTED, atol=1e-4)
    np.testing.assert_allclose(found.kernels[1 - mine] * second[0, 1 - mine], -PLANTED, atol=1e-4)
    assert found.explained_share > 1 - 1e-6


def test_principal_components_hold_both_cases_in_one(cases):
    found = factors(cases, 1, method="pca")
    assert (np.sign(found.loadings[:10]) == -np.sign(found.loadings[10:])).all()
    back = found.mean + np.einsum("nr,r...->n...", found.loadings, found.kernels)
    np.testing.assert_allclose(back, cases.values, atol=1e-6)
    assert found.explained_share == pytest.approx(1)


def test_the_best_case_of_the_boundary_detector_is_one_of_its_two():
    found = best_case(boundary_detector, images(8), source=("input", (2, 2, STRIPED)), target=("output", 0))
    assert found.mean == 0
    assert (found.bound, found.over_gates, found.reached) == (1, 1, 1)
    assert found.gates == 2
    assert found.exhaustive
    at = example_weights(boundary_detector, found.example[None], target=("output", 0))
    assert at.values[0, 0, 0, STRIPED] == 1


def test_weights_at_examples_are_gradients_of_the_model_itself():
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(5, 6)), jnp.float32)

    def model(x):
        hidden = tap("hidden", jnp.tanh(x @ weight))
        return jax.nn.softmax(hidden * hidden)

    at = jnp.asarray(np.random.default_rng(1).normal(size=(4, 5)), jnp.float32)
    hidden = jnp.tanh(at @ weight)
    expected = jax.vmap(jax.grad(lambda h: jax.nn.softmax(h * h)[2]))(hidden)
    found = example_weights(model, at, source="hidden", target=("output", 2))
    np.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.activations, model(at)[:, 2], rtol=1e-6)


def test_no_examples():
    none = example_weights(boundary_detector, images(2), target=("output", 0))
    empty = type(none)(none.values[:0], none.activations[:0], "input", "output", 0, none.kernel)
    with pytest.raises(BadArgument, match="no examples"):
        factors(empty, 1)
    with pytest.raises(BadArgument, match="no examples"):
        best_case(boundary_detector, images(0), target=("output", 0))


def perceptron(x, weights, gates=None):
    """ReLU layers with skips where they fit; the gates given, or those of the input."""
    for i, w in enumerate(weights[:-1]):
        y = x @ w
        y = jax.nn.relu(y + 0.1) if gates is None else gates[i] * y
        x = x + y if y.shape == x.shape else y
    return x @ weights[-1]


def random_weights(widths, seed):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=pair), jnp.float32) for pair in pairwise(widths)]


def brute_force(weights, source, target):
    """The greatest weight over all states of all gates, one at a time."""
    widths = [w.shape[1] for w in weights[:-1]]
    seed = np.zeros(len(weights[0]), np.float32)
    seed[source] = 1
    plain = [np.asarray(w) for w in weights]
    best = -np.inf
    for state in product((0.0, 1.0), repeat=sum(widths)):
        gates = np.split(np.asarray(state, np.float32), np.cumsum(widths)[:-1])
        best = max(best, float(perceptron(seed, plain, gates)[target]))
    return best


NETWORKS = {
    "one layer": (3, 7, 2),
    "two layers": (4, 5, 3, 2),
    "with a skip": (3, 4, 4, 2),
    "three layers": (3, 3, 4, 3, 2),
}


@pytest.mark.parametrize(
    ("seed", "widths"),
    [
        pytest.param(seed, widths, id=name, marks=[pytest.mark.slow] * (name in ("one layer", "with a skip")))
        for seed, (name, widths) in enumerate(NETWORKS.items())
    ],
)
def test_bound_is_above_all_gates_and_those_above_what_inputs_reach(widths, seed):
    weights = random_weights(widths, seed)
    at = jax.random.normal(jax.random.key(seed), (32, widths[0]))
    found = best_case(partial(perceptron, weights=weights), at, source=("input", 1), target=("output", 0), steps=16)
    expected = brute_force(weights, 1, 0)
    slack = 1e-5 * abs(expected)
    assert found.exhaustive
    assert found.gates == sum(widths[1:-1])
    assert found.over_gates == pytest.approx(expected, rel=1e-5)
    assert found.bound >= expected - slack
    assert found.reached <= expected + slack
    if len(widths) == 3:
        assert found.bound == pytest.approx(expected, rel=1e-5)
    at_best = jax.jacobian(lambda x: perceptron(x, weights)[0])(jnp.asarray(found.example))[1]
    assert found.reached == pytest.approx(float(at_best), rel=1e-5)


def test_where_gates_are_too_many_a_search_finds_what_they_give():
    weights = random_weights((3, 8, 2), 5)
    at = jax.random.normal(jax.random.key(0), (8, 3))
    found = best_case(partial(perceptron, weights=weights), at, source=("input", 0), target=("output", 1), patterns=16)
    assert not found.exhaustive
    assert found.over_gates == pytest.approx(brute_force(weights, 0, 1), rel=1e-5)


def pooled(x):
    return jax.lax.reduce_window(jax.nn.relu(x), -jnp.inf, jax.lax.max, (1, 2), (1, 2), "VALID")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (pooled, "reduce_window_max.*: max pooling chooses"),
        (jax.nn.gelu, "a gate other than ReLU's"),
        (jnp.tanh, "'tanh' is not linear"),
        (lambda x: jax.lax.scan(lambda c, _: (jax.nn.relu(c), None), x, None, length=2)[0], "gate within a loop"),
    ],
    ids=["pooling", "gelu", "tanh", "loop"],
)
def test_the_best_case_is_of_relu_networks(model, message):
    with pytest.raises(weighbridge.NotLinear, match=message):
        best_case(model, jnp.ones((2, 4)), target=("output", 0))
