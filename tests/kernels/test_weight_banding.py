"""Stripes that are planted are measured, whatever their sign and scale; noise has none."""

import numpy as np
import pytest

from weighbridge_kernels.weight_banding import weight_banding

RNG = np.random.default_rng(0)


def test_bands_have_an_index_of_one_and_their_transpose_of_minus_one():
    bands = np.broadcast_to(RNG.standard_normal((5, 1, 3, 7)), (5, 4, 3, 7))
    assert weight_banding(bands).whole == pytest.approx(1)
    np.testing.assert_allclose(weight_banding(bands.swapaxes(0, 1)).index, -1)


def test_noise_has_none():
    noise = RNG.standard_normal((3, 3, 64, 101))
    assert abs(weight_banding(noise).whole) < 0.02
    assert np.abs(weight_banding(noise).index).max() < 0.3


def test_the_variances_are_those_within_rows_and_columns():
    kernel = RNG.standard_normal((3, 5, 2, 11)).astype(np.float32)
    found = weight_banding(kernel)
    for unit in (0, 10):
        own = kernel[..., unit].astype(np.float64)
        rows = [own[y, :, i].var() for y in range(3) for i in range(2)]
        cols = [own[:, x, i].var() for x in range(5) for i in range(2)]
        assert found.along_x[unit] == pytest.approx(np.mean(rows))
        assert found.along_y[unit] == pytest.approx(np.mean(cols))
        assert found.index[unit] == pytest.approx((np.mean(cols) - np.mean(rows)) / (np.mean(cols) + np.mean(rows)))
    assert found.whole == pytest.approx(
        (found.along_y.sum() - found.along_x.sum()) / (found.along_y.sum() + found.along_x.sum())
    )
    np.testing.assert_allclose(weight_banding(-3 * kernel).index, found.index)


def test_what_does_not_vary_has_no_index():
    kernel = np.ones((3, 3, 2, 4))
    kernel[..., 1] = RNG.standard_normal((3, 3, 2))
    kernel[0, 0, 0, 2] = np.nan
    found = weight_banding(kernel)
    np.testing.assert_array_equal(np.isnan(found.index), [True, False, True, True])
    assert np.isnan(weight_banding(np.ones((1, 1, 4, 5))).whole)


@pytest.mark.parametrize("shape", [(3, 3, 2), (3, 0, 2, 4)])
def test_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="expected"):
        weight_banding(np.zeros(shape))
