"""What follows from counts, against NumPy on the stored values cast up to float64."""

from collections.abc import Callable
from statistics import NormalDist

import ml_dtypes
import numpy as np
import pytest

from weighbridge_kernels import quantizers
from weighbridge_kernels.distribution import HIGH_HALF, Distribution, entropy, exponent_entropy, finite_table
from weighbridge_kernels.states import Moments

QUANTILES = np.array([0.0001, 0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 0.9999])
SIZES = (1, 2, 3, 7, 1000, 100_000)
STORED = {
    "BF16": ml_dtypes.bfloat16,
    "F16": np.float16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F4": ml_dtypes.float4_e2m1fn,
    "I8": np.int8,
    "U16": np.uint16,
}


def stored(name: str, size: int) -> np.ndarray:
    """A tensor of `size` weights; integers spread wider than floats."""
    rng = np.random.default_rng(size)
    if name in ("I8", "U16"):
        return rng.integers(0, 256, size).astype(np.uint8).astype(STORED[name])
    return rng.normal(0.05, 0.5, size).astype(np.float32).astype(STORED[name])


def codes(x: np.ndarray) -> np.ndarray:
    return x.view(f"u{x.dtype.itemsize}")


def of(x: np.ndarray, name: str) -> Distribution:
    bins, counts = np.unique(codes(x), return_counts=True)
    return Distribution.of_codes(bins, counts, name)


def of_float32(x: np.ndarray, *, exact: bool = False) -> Distribution:
    """As a scan counts it: finite non-zero words by their upper halves."""
    kept = x[np.isfinite(x) & (x != 0)]
    finite = x[np.isfinite(x)].astype(np.float64)
    bins, counts = np.unique(codes(kept) >> 16, return_counts=True)
    extremes = float(finite.min(initial=np.inf)), float(finite.max(initial=-np.inf))
    return Distribution.of_high_halves(bins, counts, int((x == 0).sum()), extremes, exact=exact)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", STORED)
class TestOfCodes:
    def test_quantiles_equal_numpys(self, name: str, size: int) -> None:
        x = stored(name, size)
        expected = np.quantile(x.astype(np.float64), QUANTILES, method="inverted_cdf")
        np.testing.assert_array_equal(of(x, name).quantile(QUANTILES), expected)

    def test_moments(self, name: str, size: int, assert_moments: Callable) -> None:
        x = stored(name, size)
        assert_moments(of(x, name).moments(), x.astype(np.float64))

    def test_sparsity_is_exact(self, name: str, size: int) -> None:
        x = stored(name, size)
        magnitude = np.abs(x.astype(np.float64))
        for threshold in (0, magnitude.min(), magnitude.max() / 100, 0.5, np.nextafter(0.5, 0), magnitude.max()):
            share = (magnitude <= threshold).mean()
            assert of(x, name).sparsity_bounds(threshold) == (share, share)
            assert of(x, name).sparsity(threshold) == share

    def test_values_ascend_and_are_all_there(self, name: str, size: int) -> None:
        x = stored(name, size)
        values, counts = np.unique(x.astype(np.float64) + 0.0, return_counts=True)
        got = of(x, name)
        np.testing.assert_array_equal(got.values, values)
        np.testing.assert_array_equal(got.counts, counts)
        assert got.exact
        assert got.count == size


@pytest.mark.parametrize("zeros", [(0.0, -0.0, -0.0), (-0.0,)], ids=["both", "negative"])
def test_zeros_of_either_sign_are_one_value(zeros: tuple[float, ...]) -> None:
    got = of(np.array([*zeros, 1], np.float16), "F16")
    assert got.values.tolist() == [0, 1]
    assert got.counts.tolist() == [len(zeros), 1]
    assert not np.signbit(got.values).any()


@pytest.mark.parametrize("name", ["BF16", "F16", "F8_E5M2", "F8_E4M3"])
def test_what_is_not_finite_is_left_out(name: str) -> None:
    with np.errstate(invalid="ignore"):
        x = np.array([1, np.nan, -2, np.inf, -np.inf, 0.5], np.float32).astype(STORED[name])
    finite = np.sort(x[np.isfinite(x)].astype(np.float64))
    assert of(x, name).values.tolist() == finite.tolist() == [-2, 0.5, 1]


@pytest.mark.parametrize("content", ["nothing", "NaN alone"])
def test_no_finite_entry(content: str) -> None:
    got = of(np.full(0 if content == "nothing" else 3, np.nan, np.float16), "F16")
    assert got.count == 0
    assert np.isnan(got.quantile(QUANTILES)).all()
    assert np.isnan(got.sparsity(1.0))
    assert got.moments() == Moments.empty()
    assert (got.int8_error(), got.e4m3_error()) == (0, 0)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 100, 9999, 10_000, 10_001])
def test_a_quantile_is_the_order_statistic(n: int) -> None:
    """Also where q · n is a whole number: then it is that entry, not the next."""
    distribution = Distribution.of_codes(np.arange(n), np.ones(n, np.int64), "U16")
    expected = np.quantile(np.arange(n, dtype=np.float64), QUANTILES, method="inverted_cdf")
    np.testing.assert_array_equal(distribution.quantile(QUANTILES), expected)
    assert distribution.quantile(0.0) == 0
    assert distribution.quantile(1.0) == n - 1
    assert distribution.quantile(0.5) == (n + 1) // 2 - 1


def normal(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.normal(size=size)


def heavy_tailed(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.standard_t(2, size) * 1e-3


def mean_far_from_zero(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.normal(100, 0.01, size)


def half_zeros(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.where(rng.random(size) < 0.5, 0, rng.normal(size=size))


def negative(rng: np.random.Generator, size: int) -> np.ndarray:
    return -rng.exponential(3, size)


CONTENTS = (normal, heavy_tailed, mean_far_from_zero, half_zeros, negative)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("content", CONTENTS, ids=lambda f: f.__name__)
class TestOfHighHalves:
    def test_quantiles_are_within_half_a_bin(self, content: Callable, size: int) -> None:
        x = content(np.random.default_rng(size), size).astype(np.float32)
        got = of_float32(x).quantile(QUANTILES)
        expected = np.quantile(x.astype(np.float64), QUANTILES, method="inverted_cdf")
        assert (np.abs(got - expected) <= 2.0**-8 * np.abs(expected)).all()
        assert x.min() <= got.min()
        assert got.max() <= x.max()

    def test_bounds_hold_the_share_below_a_threshold(self, content: Callable, size: int) -> None:
        x = content(np.random.default_rng(size), size).astype(np.float32)
        magnitude = np.abs(x.astype(np.float64))
        distribution = of_float32(x)
        for threshold in (0, magnitude.max() / 1e6, magnitude.max() / 100, np.median(magnitude), magnitude.max()):
            least, greatest = distribution.sparsity_bounds(threshold)
            assert least <= (magnitude <= threshold).mean() <= greatest
            assert distribution.sparsity(threshold) == (least + greatest) / 2
            one_bin = np.unique(codes(x) >> 16, return_counts=True)[1].max()
            assert greatest - least <= 2 * one_bin / size  # of either sign

    def test_bfloat16_in_disguise_is_exact(self, content: Callable, size: int) -> None:
        x = content(np.random.default_rng(size), size).astype(ml_dtypes.bfloat16)
        got, expected = of_float32(x.astype(np.float32), exact=True), of(x, "BF16")
        assert got.exact
        for field in ("values", "counts", "low", "high"):
            np.testing.assert_array_equal(getattr(got, field), getattr(expected, field), err_msg=field)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("content", "difference"),
    [(normal, 0.01), (half_zeros, 0.01), (negative, 0.01), (heavy_tailed, 0.05)],
    ids=lambda p: getattr(p, "__name__", ""),
)
def test_quantisers_take_a_bins_members_as_spread_over_it(content: Callable, difference: float, seed: int) -> None:
    """Where a few weights make up the error (t with 2 degrees of freedom) it depends on where in their bins they lie.

    So it does, by a third, where all weights lie in one step of the quantiser (100 ± 0.01).
    """
    x = content(np.random.default_rng(seed), 100_000).astype(np.float32)
    assert of_float32(x).int8_error() == pytest.approx(direct_error(x, 127, rounded_to_int8), rel=0.01)
    assert of_float32(x).e4m3_error() == pytest.approx(direct_error(x, 448, rounded_to_e4m3), rel=difference)


def test_a_full_bin_counts_as_evenly_spread() -> None:
    """Every float32 of one bin, which reaches over 0.8 steps of int8, in the eight points taken of it.

    The greatest, alone in its bin, is exact.
    """
    x = np.append(np.arange(0x3F800000, 0x3F810000, dtype=np.uint32).view(np.float32), np.float32(163 / 128))
    assert of_float32(x).int8_error() == pytest.approx(direct_error(x, 127, rounded_to_int8), rel=0.015)


def test_a_constant_is_exact_whatever_its_bits() -> None:
    """The bin is clamped to the extremes from both sides."""
    got = of_float32(np.full(10, -0.1, np.float32))
    assert got.exact
    assert got.values.tolist() == [float(np.float32(-0.1))]
    assert got.quantile(0.5) == np.float32(-0.1)


def test_zeros_are_counted_apart_from_their_bin() -> None:
    """The bin of +0 also holds subnormals, whose magnitude is not 0."""
    x = np.array([0, -0.0, 1e-45, -1e-45, 5e-41, 0], np.float32)
    got = of_float32(x)
    assert got.count == 6
    assert got.counts[got.values == 0].sum() == 3
    assert got.sparsity_bounds(0.0)[0] == 0.5


def rounded_to_int8(t: np.ndarray) -> np.ndarray:
    return np.clip(np.round(t), -127, 127)


def rounded_to_e4m3(t: np.ndarray) -> np.ndarray:
    return np.clip(t, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float64)


def direct_error(x: np.ndarray, largest: float, rounded: Callable) -> float:
    y = x.astype(np.float64)
    scale = np.abs(y).max() / largest
    error = y - rounded(y / scale) * scale
    return float(error @ error)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["BF16", "F16", "F8_E5M2"])
def test_quantisers_of_stored_codes_are_exact(name: str, size: int) -> None:
    x = stored(name, size)
    assert of(x, name).int8_error() == pytest.approx(direct_error(x, 127, rounded_to_int8), rel=1e-9, abs=1e-28)
    assert of(x, name).e4m3_error() == pytest.approx(direct_error(x, 448, rounded_to_e4m3), rel=1e-9, abs=1e-28)


def test_integers_are_their_own_int8() -> None:
    x = np.arange(-127, 128).astype(np.int8)
    assert of(x, "I8").int8_error() == 0


def test_zeros_lose_nothing() -> None:
    got = of(np.zeros(5, np.float16), "F16")
    assert (got.int8_error(), got.e4m3_error()) == (0, 0)


@pytest.mark.parametrize(
    ("counts", "bits"),
    [((), 0), ((0, 0), 0), ((5,), 0), ((1, 1), 1), ((3, 3, 0, 3, 3), 2), ((1,) * 65536, 16), ((1, 1, 2), 1.5)],
    ids=["none", "zeros", "one", "coin", "four", "all of 16 bits", "skewed"],
)
def test_entropy(counts: tuple[int, ...], bits: float) -> None:
    got = entropy(np.array(counts, np.int64))
    assert got == pytest.approx(bits, abs=1e-12)
    assert not np.signbit(got)


@pytest.mark.parametrize(
    ("name", "stored_codes", "bits"),
    [
        ("BF16", (0x3F80, 0x3FFF, 0xBF80, 0x3F81), 0),  # all from 1 to 2 in magnitude
        ("BF16", (0x3F80, 0x4000, 0x4080, 0x4100), 2),  # 1, 2, 4, 8
        (HIGH_HALF, (0x3F80, 0x4000, 0x4080, 0x4100), 2),
        ("F16", (0x3C00, 0x4000), 1),
        ("F8_E8M0", (1, 2, 3, 4), 2),
        ("F4", (0, 1, 2, 3, 4, 5, 6, 7), 2),
    ],
    ids=str,
)
def test_exponent_entropy(name: str, stored_codes: tuple[int, ...], bits: float) -> None:
    bins = np.array(stored_codes)
    assert exponent_entropy(bins, np.full(bins.size, 3), name) == pytest.approx(bits, abs=1e-12)


def test_counts_weigh_the_exponents() -> None:
    assert exponent_entropy(np.array([0x3C00, 0x4000, 0x4400]), np.array([2, 1, 1]), "F16") == 1.5


@pytest.mark.parametrize("name", ["I8", "U16", "BOOL"])
def test_integers_have_no_exponent_entropy(name: str) -> None:
    assert np.isnan(exponent_entropy(np.array([1]), np.array([1]), name))


@pytest.mark.parametrize("exponent", [-120, -4, 0, 120])
@pytest.mark.parametrize("name", ["BF16", "F16", "F8_E4M3", "F8_E8M0"])
def test_a_table_of_finite_values_needs_no_care(name: str, exponent: int) -> None:
    """Codes that no tile of that exponent holds may leave float32's range, without a warning; NaN and ±Inf are 0."""
    table = finite_table(name, exponent)
    assert table.dtype == np.float32
    assert not np.isnan(table).any()


@pytest.mark.parametrize("scale", [1e-3, 1e-2, 1, 100, 448])
def test_e4m3_rounds_as_its_peer(scale: float) -> None:
    t = np.random.default_rng(0).uniform(-scale, scale, 20_000)
    np.testing.assert_array_equal(quantizers.e4m3(t), rounded_to_e4m3(t))


def test_e4m3_at_every_tie_and_beside_it() -> None:
    """Between all neighbours of the format, subnormals included, each tie goes to the even one."""
    grid = np.arange(0, 127, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64)
    ties = (grid[1:] + grid[:-1]) / 2
    even = grid[np.arange(126) + np.arange(126) % 2]
    np.testing.assert_array_equal(quantizers.e4m3(ties), even)
    np.testing.assert_array_equal(quantizers.e4m3(-ties), -even)
    np.testing.assert_array_equal(quantizers.e4m3(np.nextafter(ties, 0)), grid[:-1])
    np.testing.assert_array_equal(quantizers.e4m3(np.nextafter(ties, 500)), grid[1:])
    np.testing.assert_array_equal(quantizers.e4m3(grid), grid)


def test_grids_saturate() -> None:
    far = np.array([-1e9, -449, 449, 500, 1e9])
    assert quantizers.e4m3(far).tolist() == [-448, -448, 448, 448, 448]
    assert quantizers.int8(far).tolist() == [-127, -127, 127, 127, 127]


def test_int8_ties_go_to_even() -> None:
    assert quantizers.int8(np.array([0.5, 1.5, 2.5, -0.5, -1.5, 126.5])).tolist() == [0, 2, 2, 0, -2, 126]


def test_the_levels_of_e2m1_are_its_peers() -> None:
    levels = np.unique(np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float64))
    assert tuple(levels) == quantizers.E2M1_LEVELS


def test_the_levels_of_nf4_are_quantiles_of_the_normal_distribution() -> None:
    """Evenly spaced in probability on either side of 0, eight below and nine from it on, over the outermost."""
    outermost = 1 - (1 / 32 + 1 / 30) / 2
    quantile = np.vectorize(NormalDist().inv_cdf)
    negative, positive = (quantile(np.linspace(outermost, 0.5, n)) / quantile(outermost) for n in (8, 9))
    np.testing.assert_allclose(quantizers.NF4_LEVELS, [*-negative, *positive[-2::-1]], rtol=0, atol=1e-6)


def test_blocks_divide_the_padding() -> None:
    assert all(quantizers.BLOCK_MULTIPLE % size == 0 for size in quantizers.BLOCK_QUANTIZERS.values())
