"""What spans merge into: moments, channel sums and block errors obey the laws of a state."""

import math
from collections.abc import Callable
from functools import reduce

import numpy as np
import pytest

from weighbridge_kernels.states import NVFP4_EXPONENTS, AxisSums, BlockErrors, Moments

PARTS = {
    "one": (7,),
    "halves": (50, 50),
    "uneven": (1, 98, 1),
    "with empty ones": (0, 3, 0, 0, 97, 0),
    "single entries": (1,) * 20,
    "growing": (1, 2, 4, 8, 16, 32, 64),
}


def one_pass(x: np.ndarray) -> Moments:
    return Moments.of_counts(x, np.ones(x.size, np.int64)) if x.size else Moments.empty()


def samples(name: str, size: int) -> np.ndarray:
    rng = np.random.default_rng(size)
    return {
        "normal": rng.normal(size=size),
        "mean ≫ std": rng.normal(100, 0.01, size),
        "two far apart": np.where(np.arange(size) % 2, 1e6, -1e6) + rng.normal(size=size),
        "integers": rng.integers(-9, 10, size).astype(np.float64),
        "constant": np.full(size, 0.1),
    }[name]


CONTENTS = ("normal", "mean ≫ std", "two far apart", "integers", "constant")


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("sizes", PARTS.values(), ids=list(PARTS))
class TestMergingMoments:
    def test_any_partition_equals_one_shot(
        self, sizes: tuple[int, ...], content: str, assert_moments: Callable
    ) -> None:
        x = samples(content, sum(sizes))
        parts = [one_pass(part) for part in np.split(x, np.cumsum(sizes)[:-1])]
        assert_moments(reduce(Moments.merge, parts), x)

    def test_right_to_left_is_left_to_right(
        self, sizes: tuple[int, ...], content: str, assert_moments: Callable
    ) -> None:
        x = samples(content, sum(sizes))
        parts = [one_pass(part) for part in np.split(x, np.cumsum(sizes)[:-1])]
        assert_moments(reduce(lambda late, early: early.merge(late), reversed(parts)), x)


@pytest.mark.parametrize("content", CONTENTS)
def test_empty_is_the_identity_of_moments(content: str) -> None:
    moments = one_pass(samples(content, 9))
    assert moments.merge(Moments.empty()) == moments
    assert Moments.empty().merge(moments) == moments


def test_empty_merges_with_itself() -> None:
    assert Moments.empty().merge(Moments.empty()) == Moments.empty()
    assert (Moments.empty().min, Moments.empty().max) == (math.inf, -math.inf)


@pytest.mark.parametrize("content", CONTENTS)
def test_a_multiset_is_the_array_it_stands_for(content: str, assert_moments: Callable) -> None:
    values = samples(content, 40)
    counts = np.random.default_rng(1).integers(0, 2000, 40)
    counts[:3] = 0
    expanded = np.repeat(values, counts)
    got = Moments.of_counts(values, counts)
    assert_moments(got, expanded)
    assert got.l1 == pytest.approx(math.fsum(np.abs(expanded)), rel=1e-12, abs=0)
    assert got.l2 == pytest.approx(math.sqrt(math.fsum(expanded**2)), rel=1e-12, abs=0)
    if content == "constant":
        assert got.std <= 1e-16
        return
    d = expanded - math.fsum(expanded) / expanded.size
    variance, third, fourth = (math.fsum(d**k) / d.size for k in (2, 3, 4))
    skewness, kurtosis = third / variance**1.5, fourth / variance**2 - 3
    assert got.std == pytest.approx(math.sqrt(variance), rel=1e-12, abs=0)
    assert got.skewness == pytest.approx(skewness, abs=1e-9 * max(1, abs(skewness)))
    assert got.kurtosis == pytest.approx(kurtosis, abs=1e-9 * max(1, abs(kurtosis)))


def test_a_value_that_does_not_occur_is_no_extreme() -> None:
    got = Moments.of_counts(np.array([-5.0, 1.0, 2.0, 9.0]), np.array([0, 3, 1, 0]))
    assert (got.count, got.min, got.max, got.l1, got.mean) == (4, 1.0, 2.0, 5.0, 1.25)


@pytest.mark.parametrize(
    ("entries", "std", "skewness", "kurtosis"),
    [
        ((-1, 1), 1, 0, -2),
        ((0, 0, 0, 4), math.sqrt(3), 2 / math.sqrt(3), 7 / 3 - 3),
        ((1, 2, 3, 4, 5), math.sqrt(2), 0, 1.7 - 3),
        ((-4, 0, 0, 0), math.sqrt(3), -2 / math.sqrt(3), 7 / 3 - 3),
    ],
    ids=str,
)
def test_shapes_known_by_hand(entries: tuple[int, ...], std: float, skewness: float, kurtosis: float) -> None:
    got = one_pass(np.array(entries, np.float64))
    assert (got.std, got.skewness, got.kurtosis) == pytest.approx((std, skewness, kurtosis), rel=1e-15, abs=1e-15)
    assert got.l2 == pytest.approx(math.sqrt(sum(x * x for x in entries)), rel=1e-15)


@pytest.mark.parametrize("entries", [(2,), (2, 2, 2), (0, 0)], ids=str)
def test_equal_entries_have_no_shape(entries: tuple[int, ...]) -> None:
    got = one_pass(np.array(entries, np.float64))
    assert got.std == 0
    assert math.isnan(got.skewness)
    assert math.isnan(got.kurtosis)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-5, 123.456])
def test_a_constant_has_no_spread_however_often_it_occurs(value: float) -> None:
    """The sum of n times 0.1, over n, is not always 0.1; the difference would pass for a standard deviation."""
    for n in (*range(1, 50), 100_003):
        got = Moments.of_counts(np.array([value]), np.array([n]))
        assert (got.mean, got.m2) == (value, 0)
        assert got.merge(got).m2 == 0


def axis_sums(rng: np.random.Generator, channels: int) -> AxisSums:
    """Small integers in float64, which add without rounding."""
    return AxisSums(*(rng.integers(0, 9, channels).astype(np.float64) for _ in range(4)))


def assert_axis_sums(got: AxisSums, expected: AxisSums) -> None:
    for name in ("sum", "squares", "absmax", "count"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name), err_msg=name)


def test_channels_add_where_they_belong() -> None:
    total, part = AxisSums.zeros(7), axis_sums(np.random.default_rng(0), 3)
    total.add(part, slice(2, 5))
    total.add(part, slice(4, 7))
    for name in ("sum", "squares", "count"):
        x, y, z = getattr(part, name)
        assert getattr(total, name).tolist() == [0, 0, x, y, z + x, y, z]
    a, b, c = part.absmax
    assert total.absmax.tolist() == [0, 0, a, b, max(c, a), b, c]


def test_folding_joins_all_other_axes() -> None:
    """The channels of a convolution: 3 outputs of 5 inputs of a 2 × 7 kernel, by input."""
    x = np.random.default_rng(0).integers(-9, 10, (3, 5, 2, 7)).astype(np.float64)
    columns = x.reshape(3, 70)
    by_column = AxisSums(columns.sum(0), (columns**2).sum(0), np.abs(columns).max(0), np.full(70, 3.0))
    others = (0, 2, 3)
    by_input = AxisSums(x.sum(others), (x**2).sum(others), np.abs(x).max(others), np.full(5, 42.0))
    assert_axis_sums(by_column.folded((5, 14), 0), by_input)
    assert_axis_sums(by_column.folded((5, 2, 7), 0), by_input)


def test_norm_and_mean_of_channels() -> None:
    sums = AxisSums(np.array([6.0, 0.0]), np.array([25.0, 0.0]), np.array([4.0, 0.0]), np.array([3.0, 0.0]))
    assert sums.l2.tolist() == [5, 0]
    np.testing.assert_array_equal(sums.mean, [2, np.nan])


def block_errors(seed: int) -> BlockErrors:
    rng = np.random.default_rng(seed)
    return BlockErrors(rng.integers(0, 99, 4).astype(np.float64), rng.integers(0, 9, NVFP4_EXPONENTS))


def assert_block_errors(got: BlockErrors, expected: BlockErrors) -> None:
    np.testing.assert_array_equal(got.squares, expected.squares)
    np.testing.assert_array_equal(got.scale_exponents, expected.scale_exponents)


def test_block_errors_form_a_monoid() -> None:
    a, b, c = (block_errors(seed) for seed in range(3))
    assert_block_errors(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert_block_errors(a.merge(BlockErrors()), a)
    assert_block_errors(BlockErrors().merge(a), a)


@pytest.mark.parametrize("exponent", [-150, -7, 0, 1, 120, 150])
def test_scaling_block_errors(exponent: int) -> None:
    """Within ±100 of the middle, where a tile's blocks are, nothing wraps around."""
    middle = NVFP4_EXPONENTS // 2
    errors = BlockErrors(np.array([1.0, 2.0, 3.0, 0.0]))
    errors.scale_exponents[[middle - 100, middle - 3, middle]] = 5, 6, 7
    got = errors.scaled(exponent)
    assert got.squares.tolist() == [4.0**exponent, 2 * 4.0**exponent, 3 * 4.0**exponent, 0]
    (occupied,) = np.nonzero(got.scale_exponents)
    assert occupied.tolist() == [middle - 100 + exponent, middle - 3 + exponent, middle + exponent]
    assert got.scale_exponents[occupied].tolist() == [5, 6, 7]


def test_scaling_distributes_over_merging() -> None:
    a, b = block_errors(0), block_errors(1)
    assert_block_errors(a.merge(b).scaled(-3), a.scaled(-3).merge(b.scaled(-3)))


def test_blocks_within_the_range_of_e4m3_do_not_underflow() -> None:
    errors = BlockErrors()
    assert errors.nvfp4_underflow() == 0
    errors.scale_exponents[[200, 213]] = 4
    assert errors.nvfp4_underflow() == 0
