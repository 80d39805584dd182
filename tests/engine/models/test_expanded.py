"""Expanded weights are the explicit composition of the layers between, and the mean over random gates."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax

import weighbridge
from weighbridge.errors import BadArgument
from weighbridge.models import layers, tap

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


class Conv:
    """One convolution, as JAX does it and as sums over a kernel in float64."""

    def __init__(self, rng, inputs, outputs, size=3, stride=1, padding=0, dilation=1, groups=1):
        self.weight = rng.normal(size=(size, size, inputs // groups, outputs)) / size
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def jax(self, x):
        weight, pad = jnp.asarray(self.weight, x.dtype), (self.padding, self.padding)
        return lax.conv_general_dilated(
            x, weight, (self.stride,) * 2, (pad, pad), None, (self.dilation,) * 2, DIMENSIONS, self.groups
        )

    def numpy(self, x):
        x = np.pad(x, ((0, 0), (self.padding,) * 2, (self.padding,) * 2, (0, 0)))
        size, reach = len(self.weight), self.dilation * (len(self.weight) - 1)
        rows, cols = ((n - reach - 1) // self.stride + 1 for n in x.shape[1:3])
        parts = zip(np.split(x, self.groups, axis=-1), np.split(self.weight, self.groups, axis=-1), strict=True)
        return np.concatenate([self._one(*part, size, rows, cols) for part in parts], axis=-1)

    def _one(self, x, weight, size, rows, cols):
        total, s, d = 0, self.stride, self.dilation
        for i in range(size):
            for j in range(size):
                window = x[:, i * d : i * d + s * (rows - 1) + 1 : s, j * d : j * d + s * (cols - 1) + 1 : s]
                total = total + window @ weight[i, j]
        return total


class Relu:
    def jax(self, x):
        return jax.nn.relu(x)

    def numpy(self, x):
        return x


class Bias:
    def jax(self, x):
        return x + jnp.arange(x.shape[-1], dtype=x.dtype)

    def numpy(self, x):
        return x


class Chain:
    def __init__(self, *parts):
        self.parts = parts

    def jax(self, x):
        for part in self.parts:
            x = part.jax(x)
        return x

    def numpy(self, x):
        for part in self.parts:
            x = part.numpy(x)
        return x


class Residual(Chain):
    def jax(self, x):
        return x + super().jax(x)

    def numpy(self, x):
        return x + super().numpy(x)


class Concatenation(Chain):
    def jax(self, x):
        return jnp.concatenate([part.jax(x) for part in self.parts], axis=-1)

    def numpy(self, x):
        return np.concatenate([part.numpy(x) for part in self.parts], axis=-1)


OPTIONS = {
    "plain": {},
    "strided": {"stride": 2, "padding": 1},
    "dilated": {"dilation": 2},
    "grouped": {"groups": 2, "padding": 1},
}


def block(rng, kind, c):
    """A block from c channels to 2c or c, all layers gated and with biases."""
    conv = partial(Conv, rng)
    if kind == "separable":
        return Chain(conv(c, c, 3, padding=1, groups=c), Bias(), Relu(), conv(c, 2 * c, 1))
    if kind == "bottleneck":
        return Residual(conv(c, 2, 1), Relu(), conv(2, 2, 3, padding=1), Bias(), Relu(), conv(2, c, 1))
    if kind == "fire":
        return Chain(conv(c, 2, 1), Relu(), Concatenation(conv(2, c, 1), conv(2, c, 3, padding=1)), Relu())
    options = {
        "strided": {"stride": 2, "padding": 1},
        "dilated": {"dilation": 2},
        "grouped": {"groups": 2, "padding": 1},
    }
    return Chain(conv(c, 2 * c, 3, **options.get(kind, {})), Bias(), Relu())


KINDS = (*OPTIONS, "separable", "bottleneck", "fire")


def channels_after(kind, c):
    return c if kind == "bottleneck" else 2 * c


def network(kinds, seed):
    rng, parts, c = np.random.default_rng(seed), [], 2
    for kind in kinds:
        parts.append(block(rng, kind, c))
        c = channels_after(kind, c)
    return Chain(*parts)


def column(chain, size, index):
    """The target entry `index`, for every impulse of an input [*size, 2], in float64."""
    impulses = np.eye(int(np.prod(size)) * 2).reshape(-1, *size, 2)
    return chain.numpy(impulses)[(slice(None), *index)].reshape(*size, 2)


def spread(found, size):
    """A kernel put back where it came from in the whole map."""
    whole = np.zeros((*size, found.values.shape[-1]))
    at = tuple(slice(o, o + n) for o, n in zip(found.kernel.offset, found.kernel.shape, strict=True))
    whole[at] = found.values
    return whole


def check(kinds, seed, size=(13, 17)):
    chain = network(kinds, seed)
    at = jnp.asarray(np.random.default_rng(seed + 1).normal(size=(1, *size, 2)), jnp.float32)
    found = weighbridge.expanded_weights(chain.jax, target=("output", 1), at=at)
    expected = column(chain, size, (*found.kernel.position, 1))
    np.testing.assert_allclose(spread(found, size), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_one_block_is_its_composition(kind):
    check([kind], 0)


@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(KINDS), min_size=2, max_size=3), st.integers(0, 100))
def test_any_chain_is_its_composition(kinds, seed):
    check(kinds, seed)


def test_a_kernel_that_a_border_cuts_is_taken_from_a_larger_map():
    chain = network(["plain", "strided"], 3)
    found = weighbridge.expanded_weights(chain.jax, target=("output", 2), shape=(1, 6, 6, 2))
    size = (20, 20)
    whole = weighbridge.expanded_weights(chain.jax, target=("output", 2), shape=(1, *size, 2))
    assert not found.kernel.cut
    assert found.kernel.stride == (2, 2)
    assert found.kernel.shape == (5, 5)
    np.testing.assert_array_equal(found.values, whole.values)
    np.testing.assert_allclose(spread(whole, size), column(chain, size, (*whole.kernel.position, 2)), atol=1e-5)


def test_weights_that_are_zero_belong_to_the_kernel():
    conv = Conv(np.random.default_rng(0), 2, 3, 5)
    conv.weight[[0, -1]] = 0
    found = weighbridge.expanded_weights(conv.jax, target=("output", 0), shape=(1, 16, 16, 2))
    assert found.kernel.shape == (5, 5)
    np.testing.assert_allclose(found.values, conv.weight[..., 0], rtol=1e-6)


def test_all_units_at_once_are_each_of_them():
    chain = network(["fire", "strided"], 4)
    whole = weighbridge.expanded_weights(chain.jax, target="output", shape=(1, 16, 16, 2))
    for unit in (0, 5):
        one = weighbridge.expanded_weights(chain.jax, target=("output", unit), shape=(1, 16, 16, 2))
        np.testing.assert_allclose(whole.values[unit], one.values, atol=1e-6)
    assert whole.values.shape == (8, 5, 5, 2)


def residual_network(x, masks, weights):
    """A residual ReLU network whose gates are given."""
    first, up, down, last = weights
    hidden = masks[0] * (x @ first)
    hidden = hidden + (masks[1] * (hidden @ up)) @ down
    return (masks[2] * hidden) @ last


def relu_network(x, weights):
    first, up, down, last = weights
    hidden = jax.nn.relu(x @ first + 1)
    hidden = hidden + jax.nn.relu(hidden @ up - 1) @ down
    return jax.nn.relu(hidden) @ last


def conv_network(x, masks, weights):
    first, second, third = weights
    hidden = masks[0] * first.jax(x)
    hidden = hidden + masks[1] * second.jax(hidden)
    return third.jax(masks[2] * hidden)


def assert_is_expectation(expected, draws):
    mean, deviation = draws.mean(axis=0), draws.std(axis=0, ddof=1)
    error = deviation / np.sqrt(len(draws))
    sure = error < 1e-9
    np.testing.assert_allclose(expected[sure], mean[sure], atol=1e-6)
    off = np.abs(expected - mean)[~sure] / error[~sure]
    assert (off > 4).mean() <= 1e-3
    assert off.max() <= 6


@pytest.mark.parametrize("p", [0.3, 0.7])
def test_with_keep_p_it_is_the_mean_over_random_gates(p):
    rng = np.random.default_rng(0)
    weights = [jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((31, 19), (19, 23), (23, 19), (19, 37))]

    def gradient(key):
        keys = jax.random.split(key, 3)
        masks = [jax.random.bernoulli(k, p, (n,)).astype(jnp.float32) for k, n in zip(keys, (19, 23, 19), strict=True)]
        return jax.jacobian(residual_network)(jnp.zeros(31), masks, weights)

    draws = np.asarray(jax.jit(jax.vmap(gradient))(jax.random.split(jax.random.key(1), 4_000)), np.float64)
    found = weighbridge.expanded_weights(partial(relu_network, weights=weights), target="output", shape=(1, 31), keep=p)
    assert_is_expectation(found.values, draws)


def test_with_keep_p_a_residual_convolution_is_the_mean_over_random_gates():
    rng, p, size = np.random.default_rng(2), 0.6, (7, 7)
    weights = [Conv(rng, 2, 4, padding=1), Conv(rng, 4, 4, padding=1), Conv(rng, 4, 3, padding=1)]

    def gated(x):
        hidden = jax.nn.relu(weights[0].jax(x))
        hidden = hidden + jax.nn.relu(weights[1].jax(hidden))
        return weights[2].jax(jax.nn.relu(hidden))

    def gradient(key):
        masks = jax.random.bernoulli(key, p, (3, 1, *size, 4)).astype(jnp.float32)
        return jax.grad(lambda x: conv_network(x, masks, weights)[0, 3, 3, 1])(jnp.zeros((1, *size, 2)))[0]

    draws = np.asarray(jax.jit(jax.vmap(gradient))(jax.random.split(jax.random.key(3), 8_000)), np.float64)
    found = weighbridge.expanded_weights(gated, target=("output", 1), at=jnp.zeros((1, *size, 2)), keep=p)
    assert_is_expectation(spread(found, size), draws)


def test_only_what_the_source_carries_counts():
    def function(x):
        a = tap("a", 2 * x)
        return tap("b", 3 * a + 100 * x)

    found = weighbridge.expanded_weights(function, source="a", target="b", shape=(1, 2))
    np.testing.assert_array_equal(found.values, 3 * np.eye(2))


def test_what_lies_before_the_source_or_after_the_target_needs_no_rule():
    def function(x):
        a = tap("a", jnp.sin(x))
        return jnp.sin(tap("b", jax.nn.relu(a) + jnp.exp(x)))

    assert weighbridge.expanded_weights(function, source="a", target="b", shape=(1, 2)).values.tolist() == [
        [1, 0],
        [0, 1],
    ]


def test_a_factor_from_before_the_source_needs_a_reference():
    def function(x):
        return tap("b", tap("a", x + 1) * jnp.exp(x))

    with pytest.raises(weighbridge.NotLinear, match=r"'mul' is not linear .* at="):
        weighbridge.expanded_weights(function, source="a", target="b", shape=(1, 2))
    found = weighbridge.expanded_weights(function, source="a", target="b", at=jnp.zeros((1, 2)))
    np.testing.assert_array_equal(found.values, np.eye(2))


def test_layers_of_calls_within_calls():
    inner = jax.jit(lambda x: tap("inner", 2 * x) + 1)
    found = weighbridge.expanded_weights(jax.jit(lambda x: 3 * inner(x)), source="inner", target="output", shape=(1, 2))
    np.testing.assert_array_equal(found.values, 3 * np.eye(2))


def looped(x):
    return lax.scan(lambda c, _: (tap("turn", 2 * c), None), x, None, length=3)[0]


def twice(x):
    return tap("same", tap("same", x))


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (jnp.negative, {"target": "nowhere", "shape": (1, 2)}, r"no layer 'nowhere' .* 'input', 'output'"),
        (jnp.negative, {"target": ("output", 2), "shape": (1, 2)}, r"'output' has no unit 2; .* \[2\]"),
        (jnp.negative, {"target": ("output", (1, 0)), "shape": (1, 2)}, r"no unit \(1, 0\)"),
        (jnp.negative, {"target": "output"}, r"either at=.* or shape="),
        (looped, {"target": "turn", "shape": (1, 2)}, "'turn' stands inside of a scan"),
        (twice, {"target": "same", "shape": (1, 2)}, "2 layers are called 'same'"),
        (lambda x: 0 * x.at[:].set(1), {"target": "output", "shape": (1, 2)}, "no path leads from 'input' to 'output'"),
    ],
    ids=["layer", "unit", "index", "input", "loop", "names", "path"],
)
def test_what_cannot_be_asked_for(function, arguments, message):
    with pytest.raises(BadArgument, match=message):
        weighbridge.expanded_weights(function, **arguments)


def test_layers_are_listed_with_shapes():
    inputs = jax.ShapeDtypeStruct((1, 3), jnp.float32)
    assert layers(lambda x: tap("pair", (x, x[:, :2]))[0], inputs) == {
        "input": (1, 3),
        "pair.0": (1, 3),
        "pair.1": (1, 2),
        "output": (1, 3),
    }


def test_without_a_batch():
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)), jnp.float32)
    found = weighbridge.expanded_weights(lambda x: x @ weight, target=("output", 4), shape=(3,), batched=False)
    np.testing.assert_array_equal(found.values, weight[:, 4])
