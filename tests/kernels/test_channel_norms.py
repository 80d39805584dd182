"""Sums along rows and columns, against NumPy in float64."""

import numpy as np
import pytest

from weighbridge_kernels.variants import Variant

# The host form works in strips of 1,024 columns, 256 rows and 4 rows; JAX in none.
SHAPES = ((1, 1), (1, 7), (7, 1), (3, 1021), (257, 5), (255, 64), (4, 1024), (256, 1025), (259, 1031), (1027, 3))
EPS = float(np.finfo(np.float32).eps)


def tile(shape: tuple[int, int]) -> np.ndarray:
    """Heavy-tailed, of magnitude below 2, with a mean: entries that cancel and entries that do not."""
    rng = np.random.default_rng(shape)
    x = rng.standard_t(3, shape) + 0.5
    return (x / np.abs(x).max() * 1.99).astype(np.float32)


def assert_sums(got: np.ndarray, x: np.ndarray, axis: int) -> None:
    """Within eps · sqrt(n) of the sum of magnitudes, n the entries of a channel; the greatest magnitude is exact."""
    x = x.astype(np.float64)
    magnitude = np.abs(x)
    tolerance = EPS * np.sqrt(x.shape[axis])
    total, squares, absmax = got
    assert (np.abs(total - x.sum(axis)) <= tolerance * magnitude.sum(axis)).all()
    assert (np.abs(squares - (x * x).sum(axis)) <= tolerance * (x * x).sum(axis)).all()
    np.testing.assert_array_equal(absmax, magnitude.max(axis, initial=0))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_numpy(variant: Variant, shape: tuple[int, int]) -> None:
    x = tile(shape)
    rows, cols = variant.channel_sums(variant.put(x))
    assert rows.dtype == cols.dtype == np.float64
    assert (rows.shape, cols.shape) == ((3, shape[0]), (3, shape[1]))
    assert_sums(rows, x, 1)
    assert_sums(cols, x, 0)


@pytest.mark.parametrize("shape", [(0, 64), (5, 0), (0, 0)], ids=str)
def test_an_empty_axis_gives_zeros(variant: Variant, shape: tuple[int, int]) -> None:
    rows, cols = variant.channel_sums(variant.put(np.zeros(shape, np.float32)))
    np.testing.assert_array_equal(rows, np.zeros((3, shape[0])))
    np.testing.assert_array_equal(cols, np.zeros((3, shape[1])))


def test_small_integers_are_exact(variant: Variant) -> None:
    x = np.random.default_rng(0).integers(-9, 10, (259, 1031)).astype(np.float32)
    for got, axis in zip(variant.channel_sums(variant.put(x)), (1, 0), strict=True):
        np.testing.assert_array_equal(got, [x.sum(axis), (x * x).sum(axis), np.abs(x).max(axis)])


@pytest.mark.parametrize("at", [(0, 0), (255, 1023), (256, 1024), (258, 1030)], ids=str)
@pytest.mark.parametrize("value", [1.5, -1.5])
def test_one_entry_shows_in_its_row_and_column_alone(variant: Variant, at: tuple[int, int], value: float) -> None:
    x = np.zeros((259, 1031), np.float32)
    x[at] = value
    for got, channel in zip(variant.channel_sums(variant.put(x)), at, strict=True):
        assert got[:, channel].tolist() == [value, 2.25, 1.5]
        assert not np.delete(got, channel, axis=1).any()


def test_padding_changes_nothing(variant: Variant) -> None:
    x = tile((37, 101))
    rows, cols = variant.channel_sums(variant.put(np.pad(x, ((0, 0), (0, 27)))))
    assert_sums(rows, x, 1)
    assert_sums(cols[:, :101], x, 0)
    np.testing.assert_array_equal(cols[:, 101:], 0)
