"""Influence is the weight of paths through a unit, summed by hand on small networks; planted units rank first."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import weighbridge
from weighbridge.errors import BadArgument
from weighbridge.models import tap

WIDTHS = (5, 11, 13, 7, 3)


def weights(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=pair) for pair in pairwise(WIDTHS)]


def model_of(matrices):
    def model(x):
        for i, w in enumerate(matrices):
            x = tap(f"layer{i}", x @ jnp.asarray(w, x.dtype) - 0.5)
            x = jax.nn.relu(x) if i < len(matrices) - 1 else x
        return x

    return model


def of(rows, layer):
    return np.array([row.share for row in sorted(rows, key=lambda row: row.unit) if row.layer == layer])


def test_shares_are_products_of_absolute_matrices():
    matrices = weights()
    rows = weighbridge.influence(model_of(matrices), shape=(1, 5))
    absolute = [np.abs(w) for w in matrices]
    reaching = np.ones(5)
    for i, w in enumerate(absolute):
        reaching = reaching @ w
        leaving = np.linalg.multi_dot([*absolute[i + 1 :], np.ones((3, 1))])[:, 0] if i < 3 else np.ones(3)
        shares = reaching * leaving
        np.testing.assert_allclose(of(rows, f"layer{i}"), shares / shares.sum(), rtol=1e-5)
    assert [row.share for row in rows] == sorted((row.share for row in rows), reverse=True)


def test_what_lies_on_the_way_to_one_unit():
    matrices = weights()
    rows = weighbridge.influence(model_of(matrices), shape=(1, 5), target=("layer2", 4))
    into = np.abs(matrices[2])[:, 4]
    shares = np.ones(5) @ np.abs(matrices[0]) @ np.abs(matrices[1]) * into
    np.testing.assert_allclose(of(rows, "layer1"), shares / shares.sum(), rtol=1e-5)
    assert {row.layer for row in rows} == {"layer0", "layer1"}


@pytest.mark.parametrize("seed", range(3))
def test_planted_strong_units_rank_first(seed):
    matrices = [0.1 * w for w in weights(seed)]
    planted = [("layer0", 3), ("layer1", 8), ("layer2", 5)]
    for i, (_, unit) in enumerate(planted):
        matrices[i][:, unit] *= 10
        matrices[i + 1][unit] *= 10
    rows = [
        row
        for row in weighbridge.influence(model_of(matrices), shape=(1, 5))
        if row.layer in ("layer0", "layer1", "layer2")
    ]
    assert {(row.layer, row.unit) for row in rows[:3]} == set(planted)


def test_a_planted_channel_of_a_residual_convolution_ranks_first():
    rng = np.random.default_rng(0)
    first, second = 0.1 * rng.normal(size=(3, 3, 2, 8)), 0.1 * rng.normal(size=(3, 3, 8, 2))
    first[..., 6] *= 10
    second[:, :, 6] *= -10

    def conv(x, w):
        return lax.conv_general_dilated(
            x, jnp.asarray(w, x.dtype), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def model(x):
        return x + conv(jax.nn.relu(tap("hidden", conv(x, first))), second)

    rows = [row for row in weighbridge.influence(model, shape=(1, 6, 6, 2)) if row.layer == "hidden"]
    assert rows[0].unit == 6
    assert rows[0].share > 0.5
    assert sum(row.share for row in rows) < 1  # the residual stream carries the rest


def test_opposite_weights_do_not_cancel():
    def model(x):
        hidden = tap("hidden", x @ jnp.array([[1.0, 1.0]]))
        return hidden @ jnp.array([[1.0], [-3.0]])

    rows = weighbridge.influence(model, shape=(1, 1))
    np.testing.assert_allclose(of(rows, "hidden"), [0.25, 0.75])


def test_a_target_that_is_not_there():
    for target in ("nowhere", ("output", 3)):
        with pytest.raises(BadArgument, match="no target"):
            weighbridge.influence(model_of(weights()), shape=(1, 5), target=target)


def test_path_weights_that_overflow():
    with pytest.raises(BadArgument, match="more than float32 can hold"):
        weighbridge.influence(model_of([1e10 * w for w in weights()]), shape=(1, 5))
