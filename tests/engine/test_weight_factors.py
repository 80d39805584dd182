"""Kernels made of a few groups of inputs come apart into them."""

import numpy as np
import pytest

from weighbridge.analyses.weight_factors import weight_factors
from weighbridge.errors import BadArgument

RNG = np.random.default_rng(1)


def planted(units=17, inputs=13):
    """Three disjoint groups of inputs, read with either sign; spatial weights of falling energy."""
    channels = np.zeros((3, inputs))
    for i in range(3):
        channels[i, i * 4 : i * 4 + 4] = RNG.random(4) + 0.5
    spatial = RNG.standard_normal((units, 3, 5, 3)) * [3, 2, 1]
    return np.einsum("uyxr,ri->yxiu", spatial, channels), spatial, channels


def test_planted_groups_are_found_in_the_order_of_their_energy():
    kernel, spatial, channels = planted()
    found = weight_factors(kernel)
    norms = np.linalg.norm(channels, axis=1)
    np.testing.assert_allclose(found.channels, channels / norms[:, None], atol=2e-3)
    np.testing.assert_allclose(found.spatial, spatial * norms, atol=0.05)
    assert found.explained_share > 0.9999


def test_a_unit_has_factors_of_its_own():
    kernel, *_ = planted()
    found = weight_factors(kernel, 2, units=[4])
    alone = weight_factors(kernel[..., 4:5], 2)
    assert found.spatial.shape == (1, 3, 5, 2)
    np.testing.assert_array_equal(found.channels, alone.channels)


def test_a_kernel_of_zeros_has_factors_of_zeros():
    found = weight_factors(np.zeros((3, 3, 5, 7), np.float32))
    assert not found.spatial.any()
    assert not found.channels.any()
    assert np.isnan(found.explained_share)


@pytest.mark.parametrize(
    ("kernel", "options", "match"),
    [
        (np.ones((3, 3, 4)), {}, "expected"),
        (np.ones((3, 3, 4, 5)), {"units": [5]}, "expected some of 0 to 4"),
        (np.ones((3, 3, 4, 5)), {"units": []}, "expected some of 0 to 4"),
        (np.ones((3, 3, 4, 5)), {"count": 5}, "expected 1 to 4"),
        (np.full((3, 3, 4, 5), np.nan), {}, "expected finite entries"),
    ],
)
def test_bad_calls_are_refused(kernel, options, match):
    with pytest.raises(BadArgument, match=match):
        weight_factors(kernel, **options)
