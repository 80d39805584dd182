"""flax nnx and linen modules and plain functions of the same weights agree, layer by layer."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weighbridge
from weighbridge.demo import locate
from weighbridge.models import layers, tap

nnx = pytest.importorskip("flax.nnx")
linen = pytest.importorskip("flax.linen")


class Block(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.LayerNorm(4, rngs=rngs)

    def __call__(self, x):
        return jax.nn.gelu(self.norm(self.conv(x)))


class Net(nnx.Module):
    def __init__(self, rngs):
        self.block = Block(rngs)
        self.shared = nnx.Linear(4, 4, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        x = self.block(x)
        x = x + nnx.relu(self.shared(nnx.relu(self.shared(x))))
        return self.head(x)


class LinenBlock(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.gelu(linen.LayerNorm(name="norm")(linen.Conv(4, (3, 3), name="conv")(x)))


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = LinenBlock(name="block")(x)
        shared = linen.Dense(4, name="shared")
        x = x + linen.relu(shared(linen.relu(shared(x))))
        return linen.Dense(2, name="head")(x)


@pytest.fixture(scope="module")
def model():
    return Net(nnx.Rngs(0))


def parameters(model):
    state = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return {"params": jax.tree.map(jnp.asarray, state)}


def plain(x, variables):
    """The same network without flax."""
    p = variables["params"]
    block, shared, head = p["block"], p["shared"], p["head"]
    dimensions = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, block["conv"]["kernel"], (1, 1), "SAME", dimension_numbers=dimensions)
    x = tap("block.conv", x + block["conv"]["bias"])
    x = jax.nn.standardize(x, epsilon=1e-6) * block["norm"]["scale"] + block["norm"]["bias"]
    x = tap("block", jax.nn.gelu(x))
    y = tap("shared", x @ shared["kernel"] + shared["bias"])
    y = tap("shared:1", jax.nn.relu(y) @ shared["kernel"] + shared["bias"])
    return tap("head", (x + jax.nn.relu(y)) @ head["kernel"] + head["bias"])


@pytest.fixture(scope="module")
def forms(model):
    variables = parameters(model)
    return [model, partial(LinenNet().apply, variables), partial(plain, variables=variables)]


AT = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 7, 3)), jnp.float32)
NAMES = ["block.conv", "block.norm", "block", "shared", "shared:1", "head"]


def test_layers_have_the_same_names(forms):
    of_nnx, of_linen, of_plain = (layers(form, AT) for form in forms)
    assert list(of_nnx) == ["input", *NAMES, "output"]
    assert of_linen == of_nnx
    assert set(of_nnx) - set(of_plain) == {"block.norm"}


@pytest.mark.parametrize(
    ("source", "target"), [("input", "output"), ("input", "block.conv"), ("block.conv", "shared:1"), ("block", "head")]
)
def test_expanded_weights_agree(forms, source, target):
    first, *others = (
        weighbridge.expanded_weights(form, source=source, target=(target, 1), at=AT, keep=0.5) for form in forms
    )
    for other in others:
        np.testing.assert_allclose(other.values, first.values, rtol=1e-4, atol=1e-5)
        assert other.kernel == first.kernel


def test_linearisations_and_influence_agree(forms):
    first, *others = (weighbridge.linearize(form, at=AT).linear(AT) for form in forms)
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-4, atol=1e-5)
    ranked, of_linen = (weighbridge.influence(form, at=AT) for form in forms[:2])
    assert [row[:2] for row in ranked] == [row[:2] for row in of_linen]


def test_attention_is_the_derivative_with_its_patterns_frozen():
    at, x = (jnp.asarray(np.random.default_rng(i).normal(size=(2, 5, 8)), jnp.float32) for i in (1, 2))
    patterns = []

    def recorded(query, key, value, **_):
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
        patterns.append(jax.nn.softmax(scores))
        return jnp.einsum("bhqk,bkhd->bqhd", patterns[-1], value)

    def held(query, key, value, **_):
        return jnp.einsum("bhqk,bkhd->bqhd", patterns[0], value)

    forms = [
        nnx.MultiHeadAttention(2, 8, decode=False, rngs=nnx.Rngs(0), **({"attention_fn": form} if form else {}))
        for form in (None, recorded, held)
    ]
    np.testing.assert_allclose(forms[0](at), forms[1](at), rtol=1e-4, atol=1e-5)
    _, expected = jax.jvp(forms[2], (at,), (x,))
    found = weighbridge.linearize(forms[0], at=at)
    np.testing.assert_allclose(found.linear(x), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found(at), forms[0](at), rtol=1e-4, atol=1e-5)


def test_the_model_is_left_as_it_was(model):
    before = [type(module) for _, module in nnx.iter_modules(model)]
    weighbridge.expanded_weights(model, target=("block.conv", 0), shape=(1, 5, 5, 3))
    assert [type(module) for _, module in nnx.iter_modules(model)] == before


def test_first_layer_of_the_digits_network_is_its_kernel(digits, script):
    from safetensors.numpy import load_file

    network, tensors = digits_network(script), load_file(digits)
    found = weighbridge.expanded_weights(network, target="conv1", shape=(1, 8, 8, 1))
    np.testing.assert_allclose(found.values, np.moveaxis(tensors["conv1.kernel"], -1, 0), rtol=1e-6)


def test_a_dense_layer_after_the_target_does_not_hold_the_map_small(script):
    network = digits_network(script)
    found = weighbridge.expanded_weights(network, source="conv1", target=("conv2", 3), shape=(1, 8, 8, 1))
    assert not found.kernel.cut
    assert found.kernel.stride == (2, 2)
    assert found.values.shape == (6, 6, 32)


def digits_network(script):
    for distribution in ("optax", "safetensors", "sklearn"):
        pytest.importorskip(distribution)
    return script("train_digits").load(locate("digits"))
