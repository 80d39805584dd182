"""Laws of any weights: partition, merging, padding, agreement of the forms. Each has fixed cases in another file."""

from collections.abc import Callable
from functools import reduce

import numpy as np
import pytest

from weighbridge_kernels import formats, variants
from weighbridge_kernels.blocks import BASE, coarsened, entries
from weighbridge_kernels.distribution import Distribution
from weighbridge_kernels.states import BlockErrors, Moments
from weighbridge_kernels.variants import Variant

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

# Shapes are few because JAX compiles for each; what is in them is drawn.
law = hypothesis.settings(deadline=None, max_examples=40)
few = hypothesis.settings(deadline=None, max_examples=15)
sizes = st.sampled_from([1, 2, 67, 512])
finite = st.floats(-(2.0**60), 2.0**60, allow_subnormal=False)


@pytest.fixture(scope="module")
def host() -> Variant:
    pytest.importorskip("numba")
    return variants.host()


@st.composite
def words(draw: Callable, size: int | None = None) -> np.ndarray:
    """Words of any bits, some of them replaced by zeros and by the words next to infinity."""
    n = draw(sizes) if size is None else size
    drawn = np.frombuffer(draw(st.binary(min_size=4 * n, max_size=4 * n)), np.uint32).copy()
    special = draw(st.sampled_from([0x0, 0x80000000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0xFF800000, 0x1, 0x007FFFFF]))
    drawn[draw(st.integers(0, n - 1)) :: draw(st.integers(1, n))] = special
    return drawn


@st.composite
def cuts(draw: Callable, n: int) -> list[int]:
    return sorted(draw(st.lists(st.integers(0, n), max_size=6)))


@st.composite
def weights(draw: Callable) -> np.ndarray:
    """Entries of one magnitude or of many, constant or not, around any centre."""
    x = np.array(draw(st.lists(finite, min_size=1, max_size=60)))
    return x * draw(st.sampled_from([1e-9, 1, 1e9])) + draw(st.sampled_from([0.0, 1.0, -1e6]))


def one_shot(x: np.ndarray) -> Moments:
    return Moments.of_counts(x, np.ones(x.size, np.int64)) if x.size else Moments.empty()


@law
@hypothesis.given(x=words())
def test_high_halves_agree_bit_for_bit(host: Variant, x: np.ndarray) -> None:
    definition = variants.on_jax("cpu")
    ours, theirs = host.high_half_histogram(x), definition.high_half_histogram(definition.put(x))
    np.testing.assert_array_equal(ours[0], theirs[0])
    assert ours[1] == theirs[1]
    np.testing.assert_array_equal(ours[2], theirs[2])


@law
@hypothesis.given(data=st.data())
def test_histograms_add_over_any_cut(host: Variant, data: st.DataObject) -> None:
    x = data.draw(words())
    at = data.draw(cuts(x.size))
    whole = host.high_half_histogram(x)
    parts = [host.high_half_histogram(part) for part in np.split(x, at)]
    np.testing.assert_array_equal(sum(part[0] for part in parts), whole[0])
    assert reduce(int.__or__, (part[1] for part in parts)) == whole[1]
    np.testing.assert_array_equal(sum(part[2] for part in parts), whole[2])
    codes = x.view(np.uint16)
    added = sum(host.bit_histogram(part, 65536) for part in np.split(codes, at))
    np.testing.assert_array_equal(added, np.bincount(codes, minlength=65536))


@law
@hypothesis.given(data=st.data())
def test_moments_merge_over_any_cut(assert_moments: Callable, data: st.DataObject) -> None:
    x = data.draw(weights())
    parts = [one_shot(part) for part in np.split(x, data.draw(cuts(x.size)))]
    assert_moments(reduce(Moments.merge, parts), x)
    assert_moments(reduce(Moments.merge, parts, Moments.empty()), x)
    assert_moments(reduce(lambda late, early: early.merge(late), reversed(parts)), x)


@law
@hypothesis.given(x=words())
def test_moments_of_any_float32(host: Variant, assert_moments: Callable, x: np.ndarray) -> None:
    """NaN of any payload, infinities and subnormals among them."""
    definition = variants.on_jax("cpu")
    y = x.view(np.float32)
    assert_moments(host.central_moments(y), y)
    assert_moments(definition.central_moments(definition.put(y)), y)


@law
@hypothesis.given(data=st.data())
def test_quantiles_are_numpys(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["F8_E4M3", "F8_E5M2", "I8", "F4", "F6_E3M2"]))
    patterns = formats.values(name).size
    codes = np.array(data.draw(st.lists(st.integers(0, patterns - 1), min_size=1, max_size=300)))
    values = formats.values(name)[codes]
    hypothesis.assume(np.isfinite(values).any())
    q = np.array(data.draw(st.lists(st.floats(0, 1), min_size=1, max_size=5)))
    distribution = Distribution.of_codes(*np.unique(codes, return_counts=True), name)
    expected = np.quantile(values[np.isfinite(values)], q, method="inverted_cdf")
    np.testing.assert_array_equal(distribution.quantile(q), expected)


@law
@hypothesis.given(data=st.data())
def test_bounds_on_sparsity_hold(data: st.DataObject) -> None:
    x = data.draw(words()).view(np.float32)
    x = x[np.isfinite(x)]
    hypothesis.assume(x.size)
    bins, counts = np.unique(x[x != 0].view(np.uint32) >> 16, return_counts=True)
    extremes = float(x.min()), float(x.max())
    distribution = Distribution.of_high_halves(bins, counts, int((x == 0).sum()), extremes, exact=False)
    threshold = abs(float(data.draw(st.sampled_from(list(x))))) * data.draw(st.sampled_from([0.5, 0.999, 1, 1.001]))
    least, greatest = distribution.sparsity_bounds(threshold)
    assert least <= (np.abs(x.astype(np.float64)) <= threshold).mean() <= greatest


def tile_of(seed: int, rows: int, cols: int, tail: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_t(tail, (rows, cols)) * np.exp2(rng.integers(-20, 1, (rows, 1)))
    return np.ldexp(x, 1 - int(np.frexp(np.abs(x).max())[1])).astype(np.float32)


def near(got: BlockErrors, expected: BlockErrors, entries: int) -> None:
    np.testing.assert_allclose(got.squares, expected.squares, rtol=1.2e-7 * 4 * entries**0.5, atol=1e-12)
    np.testing.assert_array_equal(got.scale_exponents, expected.scale_exponents)


@few
@hypothesis.given(
    seed=st.integers(0, 1 << 32), shape=st.sampled_from([(1, 64), (5, 192), (41, 128)]), tail=st.floats(1.5, 30)
)
def test_block_errors_agree(host: Variant, seed: int, shape: tuple[int, int], tail: float) -> None:
    tile, definition = tile_of(seed, *shape, tail), variants.on_jax("cpu")
    near(host.block_errors(tile), definition.block_errors(definition.put(tile)), tile.size)


@law
@hypothesis.given(seed=st.integers(0, 1 << 32), rows=st.integers(1, 70), cols=st.integers(1, 200), data=st.data())
def test_block_errors_add_over_rows_and_ignore_padding(
    host: Variant, seed: int, rows: int, cols: int, data: st.DataObject
) -> None:
    padded = -(-cols // 64) * 64
    x = tile_of(seed, rows, cols, 3)
    tile, wider = (host.float_tile(x, 0, width) for width in (padded, padded + 64))
    whole = host.block_errors(tile)
    near(host.block_errors(wider), whole, x.size)
    parts = [host.block_errors(part) for part in np.split(tile, data.draw(cuts(rows)))]
    near(reduce(BlockErrors.merge, parts, BlockErrors()), whole, x.size)


@law
@hypothesis.given(
    seed=st.integers(0, 1 << 32),
    rows=st.integers(1, 90),
    cols=st.integers(1, 200),
    times=st.integers(1, 5),
    dtype=st.sampled_from([np.float32, np.float64, np.int32]),
)
def test_coarsening_blocks_is_reducing_wider_ones(
    host: Variant, seed: int, rows: int, cols: int, times: int, dtype: type
) -> None:
    """Exactly for extremes and counts; means and squares within 1e-6."""
    rng = np.random.default_rng(seed)
    x = rng.standard_t(1.5, (rows, cols)).clip(-1e9, 1e9)
    if dtype != np.int32:
        x[rng.random((rows, cols)) < rng.random()] = rng.choice([0.0, np.nan, np.inf])
    x = x.astype(dtype)
    level, side = host.block_reductions(x), BASE
    for _ in range(times):
        level, side = coarsened(level, entries(x.shape, side)), 2 * side
    direct = host.block_reductions(x, block=(side, side))
    for quantity in ("least", "greatest", "zeros", "nan", "inf"):
        np.testing.assert_array_equal(getattr(level, quantity), getattr(direct, quantity))
    magnitude = host.block_reductions(np.abs(x), block=(side, side)).mean
    assert (np.abs(level.mean - direct.mean) <= 1e-6 * magnitude).all()
    np.testing.assert_allclose(level.rms, direct.rms, rtol=1e-6, atol=0)
