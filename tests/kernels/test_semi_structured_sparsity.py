"""Groups of four with two zeros or more, against a reshape in NumPy."""

import numpy as np
import pytest

from weighbridge_kernels.variants import Variant


def expected(zero: np.ndarray) -> int:
    rows, cols = zero.shape
    return int((zero[:, : cols // 4 * 4].reshape(rows, cols // 4, 4).sum(2) >= 2).sum())


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 1])
@pytest.mark.parametrize(
    "shape",
    [(0, 8), (3, 0), (5, 1), (5, 3), (1, 4), (2, 5), (19, 23), (7, 64), (3, 1027), (257, 4), (64, 66)],
    ids=str,
)
def test_equals_reshaped_sums(variant: Variant, shape: tuple[int, int], share: float) -> None:
    zero = np.random.default_rng(shape).random(shape) < share
    assert variant.groups_with_two_zeros(variant.put(zero)) == expected(zero)


def test_every_pattern_of_four_flags(variant: Variant) -> None:
    """Of the 16 patterns, one has no zero and four have one."""
    zero = (np.arange(16)[:, None] >> np.arange(4)) & 1 == 1
    assert variant.groups_with_two_zeros(variant.put(zero)) == 11
    for flags in zero:
        assert variant.groups_with_two_zeros(variant.put(flags[None])) == (flags.sum() >= 2)


def test_what_a_row_has_beyond_its_groups_is_in_none(variant: Variant) -> None:
    zero = np.zeros((3, 7), np.bool_)
    zero[:, 4:] = True
    assert variant.groups_with_two_zeros(variant.put(zero)) == 0
    zero[1, 2:4] = True
    assert variant.groups_with_two_zeros(variant.put(zero)) == 1


def test_a_matrix_pruned_two_of_four_counts_whole(variant: Variant) -> None:
    x = np.random.default_rng(0).normal(size=(32, 25, 4))
    smallest = np.argsort(np.abs(x), axis=2)[:, :, :2]
    np.put_along_axis(x, smallest, 0, axis=2)
    assert variant.groups_with_two_zeros(variant.put(x.reshape(32, 100) == 0)) == 32 * 25
