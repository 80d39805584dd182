"""A linearised function is the function written again with linear operations in place of the others."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import weighbridge
from weighbridge.errors import BadArgument
from weighbridge.models import RULES, frozen, gate, tangent

X = jnp.array([1.0, -2.0, 3.0])


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def by_hand_gelu(x):
    return 0.5 * x * (1 + jnp.tanh(0.8 * (x + 0.04 * x**3)))


GATES = {
    "relu": jax.nn.relu,
    "maximum": lambda x: jnp.maximum(x, 0),
    "where": lambda x: jnp.where(x > 0, x, 0),
    "relu6": jax.nn.relu6,
    "clip": lambda x: jnp.clip(x, 0, 6),
    "gelu": jax.nn.gelu,
    "gelu of erf": partial(jax.nn.gelu, approximate=False),
    "gelu by hand": by_hand_gelu,
    "silu": jax.nn.silu,
    "silu by hand": lambda x: x * jax.nn.sigmoid(x),
    "quick gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "silu by division": lambda x: x / (1 + jnp.exp(-x)),
    "hard silu": jax.nn.hard_silu,
    "softplus": jax.nn.softplus,
    "mish": jax.nn.mish,
    "elu": jax.nn.elu,
    "jitted": jax.jit(jax.nn.gelu),
}


@pytest.mark.parametrize("function", GATES.values(), ids=GATES)
def test_a_gate_keeps_its_share(function):
    found = weighbridge.linearize(function, keep=0.5)
    np.testing.assert_array_equal(found.linear(X), X / 2)
    np.testing.assert_array_equal(weighbridge.linearize(function)(X), X)


@pytest.mark.parametrize(
    "function", [jax.nn.leaky_relu, lambda x: jnp.where(x > 0, x, 0.01 * x)], ids=["leaky_relu", "by hand"]
)
def test_a_leaky_gate_lets_some_through_where_it_is_shut(function):
    np.testing.assert_allclose(
        weighbridge.linearize(function, keep=0.25).linear(X), (0.25 + 0.75 * 0.01) * X, rtol=1e-5
    )


@pytest.mark.parametrize("function", [lambda x: x * x, jnp.abs, jnp.tanh, jnp.sin, lambda x: jnp.maximum(x, 1)])
def test_what_is_no_gate_is_not_taken_for_one(function):
    with pytest.raises(weighbridge.NotLinear, match="give a reference"):
        weighbridge.linearize(function)(X)


def test_a_gate_may_keep_different_shares_of_units_and_of_sites():
    keep = jnp.array([0.0, 0.5, 1.0])
    np.testing.assert_array_equal(weighbridge.linearize(jax.nn.relu, keep=keep).linear(X), keep * X)

    def by_site(site):
        return 0.5 if site.name == "relu" else 0.25

    found = weighbridge.linearize(lambda x: jax.nn.silu(jax.nn.relu(x)), keep=by_site)
    np.testing.assert_array_equal(found.linear(X), X / 8)


def test_affine_has_the_biases_and_linear_has_not():
    weight, bias = normal(3, 5), normal(5)

    def function(x):
        return jax.nn.relu(x @ weight + bias) - bias

    found = weighbridge.linearize(function, keep=0.5)
    np.testing.assert_allclose(found(X), 0.5 * (X @ weight + bias) - bias, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.linear(X), 0.5 * X @ weight, rtol=1e-5, atol=1e-6)


def test_max_pooling_becomes_the_mean_of_what_lies_in_the_window():
    def pool(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (3,), (2,), [(1, 1)])

    x = jnp.array([2.0, 4.0, 9.0, 1.0, 5.0])
    np.testing.assert_allclose(weighbridge.linearize(pool)(x), [3, 14 / 3, 3], rtol=1e-6)
    np.testing.assert_allclose(weighbridge.linearize(jnp.max)(x), 4.2, rtol=1e-6)


def test_trees_in_and_out_and_arguments_that_are_held():
    def function(x, scale):
        return {"sum": scale * (x["a"] + jax.nn.relu(x["b"])), "fixed": scale**2}

    found = weighbridge.linearize(function, keep=0.5)({"a": X, "b": X}, 3.0)
    np.testing.assert_array_equal(found["sum"], 4.5 * X)
    assert found["fixed"] == 9


def test_a_norm_keeps_its_centring_and_has_its_scale_frozen():
    def norm(x):
        centred = x - x.mean()
        return centred / jnp.sqrt((centred**2).mean() + 1e-6)

    at = normal(7)
    found = weighbridge.linearize(norm, at=at)
    np.testing.assert_allclose(found(at), norm(at), rtol=1e-6)
    x = normal(7, seed=1)
    np.testing.assert_allclose(found.linear(x), (x - x.mean()) / at.std(), rtol=1e-4, atol=1e-5)


def attention(x, weights):
    """Scores frozen or not: values [positions, features] mixed by patterns."""
    q, k, v = (x @ w for w in weights)
    return jax.nn.softmax(q @ k.T / 2) @ v


def test_attention_is_linear_with_its_pattern_frozen():
    weights, at, x = [normal(4, 4, seed=i) for i in range(3)], normal(5, 4, seed=7), normal(5, 4, seed=8)
    pattern = jax.nn.softmax((at @ weights[0]) @ (at @ weights[1]).T / 2)
    _, expected = jax.jvp(lambda x: pattern @ (x @ weights[2]), (at,), (x,))
    found = weighbridge.linearize(partial(attention, weights=weights), at=at)
    np.testing.assert_allclose(found.linear(x), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found(at), attention(at, weights), rtol=1e-5, atol=1e-6)


def test_a_block_of_a_transformer_agrees_with_itself_at_the_reference():
    weights, up, down = [normal(4, 4, seed=i) for i in range(3)], normal(4, 6, seed=4), normal(6, 4, seed=5)

    def norm(x):
        return x * lax.rsqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)

    def block(x):
        x = x + attention(norm(x), weights)
        return x + (jax.nn.silu(norm(x) @ up) * (norm(x) @ up)) @ down

    at = normal(5, 4, seed=9)
    found = weighbridge.linearize(block, at=at)
    np.testing.assert_allclose(found(at), block(at), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.linear(2 * at), 2 * found.linear(at), rtol=1e-4, atol=1e-5)


def test_of_a_product_the_gated_factor_is_frozen():
    at = jnp.array([1.0, 2.0, -1.0])
    for function in (lambda x: jax.nn.silu(x) * (2 * x), lambda x: (2 * x) * jax.nn.silu(x)):
        np.testing.assert_allclose(
            weighbridge.linearize(lambda x, f=function: f(x + 0), at=at).linear(X), 2 * jax.nn.silu(at) * X, rtol=1e-6
        )


@jax.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (doubled(x), None), lambda _, g: (2 * g,))


def nest(x, weights, act):
    """A scan over conditionals over rematerialised, jitted and custom calls."""

    @jax.jit
    def layer(c, w):
        return act(doubled(c @ w) + 1)

    def turn(c, w):
        c = lax.cond(w[0, 0] > 0, jax.checkpoint(layer), lambda c, w: -c @ w, c, w)
        return c, c.sum()

    return lax.scan(turn, x, weights, reverse=True)


@pytest.mark.parametrize("jit", [False, True], ids=["plain", "jit"])
def test_calls_loops_and_conditionals_are_walked_through(jit):
    weights = normal(5, 3, 3)
    assert 0 < (weights[:, 0, 0] > 0).sum() < 5
    found = weighbridge.linearize(lambda x: nest(x, weights, jax.nn.relu), keep=0.5)
    expected = nest(X, weights, lambda y: 0.5 * y)
    for a, b in zip((jax.jit(found) if jit else found)(X), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_carry_that_comes_to_depend_on_the_input():
    def function(x):
        def turn(carry, _):
            last, total, count = carry
            return (x, total + jax.nn.relu(last), count + 1), total

        return lax.scan(turn, (jnp.zeros(3), jnp.zeros(3), 0), None, length=3)

    (last, total, count), totals = weighbridge.linearize(function, keep=0.5)(X)
    np.testing.assert_array_equal(last, X)
    np.testing.assert_array_equal(total, X)
    np.testing.assert_array_equal(totals, jnp.stack([0 * X, 0 * X, X / 2]))
    assert count == 3


def test_a_scan_freezes_each_turn_at_its_own_reference():
    def function(x):
        return lax.scan(lambda c, _: (c * jnp.exp(-c), None), x, None, length=4)[0]

    at = jnp.array([0.3, 0.7, 1.1])
    found = weighbridge.linearize(function, at=at)
    np.testing.assert_allclose(found(at), function(at), rtol=1e-5)
    np.testing.assert_allclose(found.linear(X), function(at) / at * X, rtol=1e-5)


def test_a_choice_that_depends_on_the_input_is_the_reference_s():
    def function(x):
        return lax.cond(x.sum() > 0, lambda x: 2 * x, lambda x: -x, x)

    np.testing.assert_array_equal(weighbridge.linearize(function, at=X)(-X), -2 * X)
    with pytest.raises(weighbridge.NotLinear, match="'gt' is not linear"):
        weighbridge.linearize(function)(X)


def test_it_can_be_transformed():
    weight = normal(3, 3)
    found = weighbridge.linearize(lambda x: jax.nn.gelu(x @ weight), keep=0.5)
    batch = normal(4, 3, seed=1)
    np.testing.assert_allclose(jax.vmap(found.linear)(batch), 0.5 * batch @ weight, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jacobian(found)(X), 0.5 * weight.T, rtol=1e-6)
    (back,) = jax.linear_transpose(found.linear, X)(X)
    np.testing.assert_allclose(back, 0.5 * weight @ X, rtol=1e-5)


def test_users_extend_the_table():
    @jax.jit
    def my_gate(x):
        return x * jnp.cos(x)

    rules = RULES.extended(calls={"my_gate": gate(on=3.0)}, primitives={"sin": tangent, "tanh": frozen})
    np.testing.assert_array_equal(weighbridge.linearize(my_gate, rules=rules, keep=0.5).linear(X), 1.5 * X)
    np.testing.assert_allclose(weighbridge.linearize(jnp.sin, rules=rules, at=X).linear(X), jnp.cos(X) * X, rtol=1e-6)
    np.testing.assert_array_equal(weighbridge.linearize(jnp.tanh, rules=rules, at=X).linear(X), 0 * X)
    assert "sin" not in RULES.primitives


def test_constants_are_folded_as_they_are():
    def function(x):
        scale = jnp.exp(jnp.tanh(jnp.arange(3.0)))
        return x * scale / scale.sum()

    np.testing.assert_allclose(weighbridge.linearize(function).linear(X), function(X), rtol=1e-6)


def unruled(x):
    return lax.scan(lambda c, _: (jax.jit(jnp.arctan)(c), None), x, None, length=2)[0]


def turned(x):
    return lax.while_loop(lambda c: c.sum() > 0, lambda c: c - 1, x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (unruled, r"test_linearize\.py:\d+:\d+ \(.*\): scan\[\d\]/jit\(arctan\)\[0\]/atan\[0\]: 'atan' .*primitives="),
        (turned, r"test_linearize\.py:\d+:\d+ \(turned\): while\[0\]: 'while' runs a number of turns .* use a scan"),
        (lambda x: jax.nn.softmax(x), r"'stop_gradient' is not linear"),
        (lambda x: jnp.fft.fft(x).real, r"'fft' is linear but has no rule yet; give one"),
        (lambda x: x @ x, r"dot_general\[0\]: 'dot_general' is not linear in what depends on the input"),
    ],
    ids=["scan", "while", "softmax", "fft", "product"],
)
def test_what_cannot_be_made_linear_is_said_in_one_line(function, message):
    with pytest.raises(weighbridge.NotLinear, match=message) as caught:
        weighbridge.linearize(function)(X)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, NotImplementedError)


def test_a_function_that_bears_a_gate_s_name_and_is_none():
    @jax.jit
    def relu(x):
        return jax.nn.relu(x[:2])

    with pytest.raises(weighbridge.NotLinear, match=r"'relu' is a gate's name, but sends \(3,\) to \(2,\)"):
        weighbridge.linearize(relu)(X)


def test_a_share_that_does_not_fit_the_gate():
    with pytest.raises(BadArgument, match=r"relu\[0\]: keep has shape \(2,\), the gate \(3,\)"):
        weighbridge.linearize(jax.nn.relu, keep=jnp.ones(2))(X)


def test_a_loop_with_a_fixed_number_of_turns():
    found = weighbridge.linearize(lambda x: lax.fori_loop(0, 3, lambda _, c: 2 * jax.nn.relu(c), x), keep=0.25)
    np.testing.assert_array_equal(found.linear(X), X / 8)


def test_inputs_and_references_of_the_wrong_kind():
    with pytest.raises(BadArgument, match="integers"):
        weighbridge.linearize(jnp.negative)(jnp.arange(3))
    with pytest.raises(BadArgument, match=re.escape("float32[2], the input float32[3]")):
        weighbridge.linearize(jnp.negative, at=jnp.ones(2))(X)
