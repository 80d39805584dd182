"""Products of thin matrices looked at without being multiplied out, against the dense product in float64."""

import holoviews as hv
import numpy as np
import pytest

from weighbridge.analyses.virtual_weights import ArrayFactor
from weighbridge.pyramid import product as module
from weighbridge.pyramid.product import product
from weighbridge.views import heatmap
from weighbridge.views.window import picture, window


def made(rows, cols, rank, seed=0):
    rng = np.random.default_rng(seed)
    left, right = (rng.standard_normal((n, rank)).astype(np.float32) for n in (rows, cols))
    matrix = product("p", ArrayFactor(left), ArrayFactor(right), sides=("token", "logit"), entry="virtual weight")
    return matrix, left.astype(float) @ right.astype(float).T


@pytest.mark.parametrize("shape", [(211, 67), (67, 211), (5, 300), (1, 1), (129, 8)], ids=str)
def test_every_level_is_the_mean_of_its_blocks(shape):
    matrix, dense = made(*shape, 7)
    assert matrix.shape == shape
    np.testing.assert_allclose(matrix.entries(slice(0, shape[0]), slice(0, shape[1])), dense, atol=1e-5)
    np.testing.assert_allclose(matrix.read((slice(None, None, 2), 0)), dense[::2, 0], atol=1e-5)
    for level in range(matrix.levels):
        side = 8 << level
        down, across = (-(-extent // side) for extent in shape)
        found = matrix.level(level, slice(0, down), slice(0, across))
        blocks = np.split(dense, range(side, shape[0], side))
        expected = [[part.mean() for part in np.split(block, range(side, shape[1], side), axis=1)] for block in blocks]
        np.testing.assert_allclose(found.mean, expected, atol=1e-5)
        assert found.mean.shape == (down, across)


def test_large_windows_have_means_and_small_ones_everything(monkeypatch):
    matrix, dense = made(96, 80, 5)
    small = matrix.reduced(slice(0, 96), slice(0, 80), (6, 5))
    np.testing.assert_allclose(small.greatest, dense.reshape(16, 6, 16, 5).max(axis=(1, 3)), atol=1e-5)
    monkeypatch.setattr(module, "FULL_ENTRIES", 10)
    large = matrix.reduced(slice(0, 96), slice(0, 80), (6, 5))
    np.testing.assert_allclose(large.mean, dense.reshape(16, 6, 16, 5).mean(axis=(1, 3)), atol=1e-5)
    assert np.isnan(large.greatest).all()


def test_a_row_that_is_not_finite_is_left_out_of_means():
    rng = np.random.default_rng(1)
    left, right = rng.standard_normal((20, 3)).astype(np.float32), rng.standard_normal((30, 3)).astype(np.float32)
    left[4, 1] = np.nan
    matrix = product("p", ArrayFactor(left), ArrayFactor(right), sides=("a", "b"), entry="e")
    assert np.isnan(matrix.entries(slice(4, 5), slice(0, 30))).all()
    block = matrix.level(0, slice(0, 1), slice(0, 1))
    kept = np.delete(left[:8], 4, axis=0) @ right[:8].T
    assert block.mean[0, 0] == pytest.approx(kept.mean(), rel=1e-5)
    assert block.nan[0, 0] == 8


def test_a_product_of_a_vocabulary_opens_as_a_heatmap():
    """12,007 × 12,007 entries, of which the picture takes means alone."""
    matrix, _ = made(12_007, 12_007, 16)
    shown = picture(matrix, window(matrix, None, None, 800, 1000), "mean")
    assert np.isfinite(shown.values).all()
    near = picture(matrix, window(matrix, (100, 160), (200, 280), 800, 1000), "absmax")
    assert near.window.cell == (1, 1)
    hv.renderer("bokeh").get_plot(heatmap(matrix, reduction="mean"))
