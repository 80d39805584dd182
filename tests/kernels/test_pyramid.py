"""Reductions of blocks against NumPy in float64, block by block, and the levels that follow from them."""

from collections.abc import Iterator

import numpy as np
import pytest

from weighbridge_kernels import formats
from weighbridge_kernels.blocks import BASE, Blocks, coarsened, entries
from weighbridge_kernels.variants import Variant

SHAPES = ((1, 1), (7, 9), (8, 8), (19, 23), (64, 130), (257, 66))
CUTS = (*((shape, (8, 8)) for shape in SHAPES), *(((19, 23), side) for side in ((3, 5), (1, 1), (1, 7), (30, 2))))
CODES = ("BF16", "F16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "BOOL", "F4")
NUMBERS = (np.float32, np.float64, np.int32, np.int64, np.uint32, np.uint64)


def blocks_of(x: np.ndarray, block: tuple[int, int]) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    height, width = block
    for i in range(-(-x.shape[0] // height)):
        for j in range(-(-x.shape[1] // width)):
            yield (i, j), x[i * height : (i + 1) * height, j * width : (j + 1) * width]


def assert_blocks(got: Blocks, x: np.ndarray, block: tuple[int, int]) -> None:
    """Extremes and counts exactly, the mean within 1e-6 of the mean magnitude, the root mean square within 1e-6."""
    expected = list(blocks_of(x, block))
    assert got.shape == tuple(np.array(expected[-1][0]) + 1)
    for at, part in expected:
        kept = part[np.isfinite(part)]
        counts = got.zeros[at], got.nan[at], got.inf[at]
        assert counts == ((part == 0).sum(), np.isnan(part).sum(), np.isinf(part).sum()), at
        if kept.size == 0:
            assert (got.least[at], got.greatest[at], got.mean[at], got.rms[at]) == (0, 0, 0, 0)
            continue
        assert (got.least[at], got.greatest[at]) == (kept.min(), kept.max()), at
        top = float(np.abs(kept.astype(np.float64)).max()) or 1.0
        scaled = np.ldexp(kept.astype(np.float64), -np.frexp(top)[1])  # whose squares exist
        mean, size, rms = (np.ldexp(float(v), -np.frexp(top)[1]) for v in (got.mean[at], 1.0, got.rms[at]))
        tiny = 1e-45 * size if got.rms.dtype == np.float32 else 0.0  # where float32 has few digits left
        assert abs(mean - scaled.mean()) <= 1e-6 * np.abs(scaled).mean() + tiny, at
        assert abs(rms - np.sqrt(np.square(scaled).mean())) <= 1e-6 * np.sqrt(np.square(scaled).mean()) + tiny, at


def numbers(shape: tuple[int, int], dtype: type) -> np.ndarray:
    """Heavy-tailed with zeros of both signs, NaN, infinities, one block of NaN alone; integers up to their limits."""
    rng = np.random.default_rng(shape)
    if np.dtype(dtype).kind != "f":
        limits = np.iinfo(dtype)
        small = rng.integers(0 if limits.min == 0 else -3, 4, shape).astype(dtype)
        any_ = rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
        return np.where(rng.random(shape) < 0.5, small, np.where(rng.random(shape) < 0.1, limits.max, any_))
    x = rng.standard_t(2, shape).astype(dtype)
    special = rng.choice([0.0, -0.0, np.nan, np.inf, -np.inf], shape)
    x = np.where(rng.random(shape) < 0.08, special, x).astype(dtype)
    if min(shape) > BASE:
        x[BASE : 2 * BASE, BASE : 2 * BASE] = np.nan
    return x


@pytest.mark.parametrize(("shape", "block"), CUTS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_floats(variant: Variant, dtype: type, shape: tuple[int, int], block: tuple[int, int]) -> None:
    x = numbers(shape, dtype)
    got = variant.block_reductions(variant.put(x), block=block)
    assert_blocks(got, x, block)
    assert {grid.dtype for grid in got} == {np.dtype(dtype), np.dtype(np.int32)}


@pytest.mark.parametrize("dtype", NUMBERS, ids=lambda dtype: dtype.__name__)
def test_numbers_as_they_are(variant: Variant, dtype: type) -> None:
    """Extremes keep the matrix's own type: 64-bit integers lose nothing."""
    x = numbers((19, 23), dtype)
    got = variant.block_reductions(variant.put(x))
    assert_blocks(got, x, (BASE, BASE))
    assert got.least.dtype == got.greatest.dtype == dtype


@pytest.mark.parametrize("shape", [(1, 1), (19, 23), (64, 130)], ids=str)
@pytest.mark.parametrize("name", CODES)
def test_codes_with_their_table(variant: Variant, name: str, shape: tuple[int, int]) -> None:
    table = formats.values(name).astype(np.float32)
    codes = np.random.default_rng(shape).integers(0, min(table.size, 2 if name == "BOOL" else table.size), shape)
    codes = codes.astype(np.uint16 if table.size > 256 else np.uint8)
    assert_blocks(variant.block_reductions(variant.put(codes), table), table[codes], (BASE, BASE))


def test_every_bfloat16(variant: Variant) -> None:
    """Each pattern in a block of its own: subnormals, infinities and NaN of every payload among them."""
    codes, table = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256), formats.values("BF16").astype(np.float32)
    got = variant.block_reductions(variant.put(codes), table, block=(1, 1))
    finite = np.where(np.isfinite(table), table, 0).reshape(256, 256)
    for grid in (got.least, got.greatest, got.mean):
        np.testing.assert_array_equal(grid, finite)
    np.testing.assert_array_equal(got.rms, np.abs(finite))
    np.testing.assert_array_equal(got.nan, np.isnan(table).reshape(256, 256))
    np.testing.assert_array_equal(got.inf, np.isinf(table).reshape(256, 256))
    np.testing.assert_array_equal(got.zeros, (table == 0).reshape(256, 256))


def test_float32_subnormals_are_not_flushed(variant: Variant) -> None:
    x = (np.arange(1, 24 * 16 + 1, dtype=np.uint32) * 21_001).view(np.float32).reshape(24, 16)
    x[::2] *= -1
    assert np.abs(x).max() < np.finfo(np.float32).tiny
    assert_blocks(variant.block_reductions(variant.put(x)), x, (BASE, BASE))


@pytest.mark.parametrize("magnitude", [1e30, 1e-30, 1e-38])
def test_squares_beyond_float32(variant: Variant, magnitude: float) -> None:
    x = (np.random.default_rng(0).standard_normal((19, 23)) * magnitude).astype(np.float32)
    assert_blocks(variant.block_reductions(variant.put(x)), x, (BASE, BASE))


@pytest.mark.parametrize("magnitude", [1e307, 1e200, 1e-200, 1e-290])
def test_squares_beyond_float64(variant: Variant, magnitude: float) -> None:
    x = numbers((64, 130), np.float64) / 100 * magnitude
    x[:BASE, :BASE] /= magnitude
    assert_blocks(variant.block_reductions(variant.put(x)), x, (BASE, BASE))


def test_a_constant_has_no_other_mean(variant: Variant) -> None:
    x = np.full((19, 23), 0.1, np.float32)
    got = variant.block_reductions(variant.put(x))
    for grid in (got.least, got.greatest, got.mean, got.rms):
        np.testing.assert_array_equal(grid, np.float32(0.1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint64], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("shape", [(7, 9), (19, 23), (257, 66), (1, 1003), (1003, 1)], ids=str)
def test_coarser_levels_are_reductions_of_wider_blocks(variant: Variant, shape: tuple[int, int], dtype: type) -> None:
    x = numbers(shape, dtype)
    level, side = variant.block_reductions(variant.put(x)), BASE
    while max(level.shape) > 1:
        level, side = coarsened(level, entries(shape, side)), 2 * side
        assert_blocks(level, x, (side, side))
        assert level.least.dtype == dtype


@pytest.mark.parametrize("magnitude", [1e307, 1e-290])
def test_coarser_levels_beyond_the_squares_of_float64(variant: Variant, magnitude: float) -> None:
    x = numbers((64, 130), np.float64) / 100 * magnitude
    level, side = variant.block_reductions(variant.put(x)), BASE
    while max(level.shape) > 1:
        level, side = coarsened(level, entries(x.shape, side)), 2 * side
        assert_blocks(level, x, (side, side))


@pytest.mark.parametrize("shape", [(1, 1), (19, 23), (64, 130)], ids=str)
@pytest.mark.parametrize("side", [1, 8, 100])
def test_entries(shape: tuple[int, int], side: int) -> None:
    x = np.zeros(shape)
    expected = {at: part.size for at, part in blocks_of(x, (side, side))}
    assert dict(np.ndenumerate(entries(shape, side))) == expected
