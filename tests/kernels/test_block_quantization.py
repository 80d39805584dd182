"""Errors of the block quantisers, against the rules carried out block by block in NumPy."""

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from weighbridge_kernels.quantizers import BLOCK_QUANTIZERS, NF4_LEVELS, SMALLEST_BLOCK
from weighbridge_kernels.states import NVFP4_EXPONENTS, BlockErrors
from weighbridge_kernels.variants import Variant

NAMES = tuple(BLOCK_QUANTIZERS)
EPS = float(np.finfo(np.float32).eps)
E2M1 = np.unique(np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float64))
LEVELS = {"int4_32": np.arange(-7, 8), "nf4_64": np.array(NF4_LEVELS), "mxfp4_32": E2M1, "nvfp4_16": E2M1}


def scale_of(name: str, m: np.float32) -> float:
    """The scale of a block of greatest magnitude m."""
    if name == "int4_32":
        return float(m / np.float32(7))
    if name == "nf4_64":
        return float(m)
    fraction, exponent = np.frexp(m if name == "mxfp4_32" else m / np.float32(6))
    if name == "mxfp4_32":
        return 2.0 ** (int(exponent) - 1 - 2)
    return float(ml_dtypes.float8_e4m3fn(2 * fraction)) * 2.0 ** (int(exponent) - 1)


def nearest(t: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return levels[np.abs(t[:, None] - levels).argmin(axis=1)]


def blocks_of(tile: np.ndarray, size: int) -> list[np.ndarray]:
    return [row[start : start + size] for row in tile for start in range(0, row.size, size)]


def expected_error(tile: np.ndarray, name: str) -> float:
    squares = 0.0
    for block in blocks_of(tile, BLOCK_QUANTIZERS[name]):
        m, x = np.abs(block).max(initial=0), block.astype(np.float64)
        if m < SMALLEST_BLOCK:
            squares += float(x @ x)
            continue
        scale = scale_of(name, m)
        error = x - scale * nearest(x / scale, LEVELS[name])
        squares += float(error @ error)
    return squares


def padded(x: np.ndarray) -> np.ndarray:
    return np.pad(x.astype(np.float32), ((0, 0), (0, -x.shape[1] % 64)))


def below_two(x: np.ndarray) -> np.ndarray:
    """Scaled by a power of two, as a scan does."""
    return np.ldexp(x, 1 - int(np.frexp(np.abs(x).max())[1]))


def gaussian(shape: tuple[int, int]) -> np.ndarray:
    return below_two(np.random.default_rng(shape).normal(size=shape))


def heavy_tailed(shape: tuple[int, int]) -> np.ndarray:
    return below_two(np.random.default_rng(shape).standard_t(3, shape))


def sparse(shape: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(shape)
    return below_two(rng.normal(size=shape) * (rng.random(shape) < 0.03))


def of_many_scales(shape: tuple[int, int]) -> np.ndarray:
    """Rows from magnitude 1 down to 2^-40."""
    return below_two(gaussian(shape) * np.exp2(np.linspace(0, -40, shape[0]))[:, None])


def coarse(shape: tuple[int, int]) -> np.ndarray:
    """Few distinct values, so that ties and levels are met exactly."""
    return np.random.default_rng(shape).integers(-12, 13, shape) / 8


def errors(variant: Variant, tile: np.ndarray) -> BlockErrors:
    return variant.block_errors(variant.put(tile))


def tolerance(expected: float, tile: np.ndarray) -> float:
    """eps · sqrt(n) of the sum, and what rounding every entry's error at the size of the entry does to it."""
    norm = float(np.linalg.norm(tile.astype(np.float64)))
    return EPS * np.sqrt(tile.size) * expected + EPS * norm * np.sqrt(expected) + (EPS * norm) ** 2


def assert_errors(got: BlockErrors, tile: np.ndarray) -> None:
    for name, squares in zip(NAMES, got.squares, strict=True):
        expected = expected_error(tile, name)
        assert squares >= 0, name
        assert abs(squares - expected) <= tolerance(expected, tile), name


def only(name: str, got: BlockErrors) -> float:
    return float(got.squares[NAMES.index(name)])


@pytest.mark.parametrize("content", [gaussian, heavy_tailed, sparse, of_many_scales, coarse], ids=lambda f: f.__name__)
@pytest.mark.parametrize("shape", [(1, 64), (3, 192), (41, 64), (5, 4160)], ids=str)
def test_equals_the_rules_block_by_block(variant: Variant, shape: tuple[int, int], content: Callable) -> None:
    tile = content(shape).astype(np.float32)
    assert_errors(errors(variant, tile), tile)


# Of each quantiser a scale that it gives a block whose greatest entry lies on its outermost level.
ON_THE_GRID = {"int4_32": 0.25, "nf4_64": 1.5, "mxfp4_32": 0.25, "nvfp4_16": 0.28125}


@pytest.mark.parametrize("name", NAMES)
def test_weights_on_the_grid_lose_nothing(variant: Variant, name: str) -> None:
    """Each block holds the outermost level, and so has the scale that made it. NF4's levels times 1.5 are rounded."""
    levels, size = LEVELS[name], BLOCK_QUANTIZERS[name]
    blocks = np.random.default_rng(0).choice(levels, (41 * 64 // size, size))
    blocks[:, 3] = levels[-1]
    tile = (blocks * ON_THE_GRID[name]).astype(np.float32).reshape(41, 64)
    norm = np.linalg.norm(tile.astype(np.float64))
    assert 0 <= only(name, errors(variant, tile)) <= (EPS * norm) ** 2


@pytest.mark.parametrize("name", ["int4_32", "nf4_64"])
def test_weights_on_a_grid_of_any_scale_lose_only_their_own_rounding(variant: Variant, name: str) -> None:
    """What a checkpoint dequantised to float32 looks like. A squared error below 0 would have no root."""
    size = BLOCK_QUANTIZERS[name]
    rng = np.random.default_rng(1)
    blocks = rng.choice(LEVELS[name], (41 * 64 // size, size))
    blocks[:, 5] = LEVELS[name][-1]
    scales = rng.uniform(0.01, 1.9, (len(blocks), 1)) / LEVELS[name][-1]
    tile = (blocks * scales).astype(np.float32).reshape(41, 64)
    norm = np.linalg.norm(tile.astype(np.float64))
    assert 0 <= only(name, errors(variant, tile)) <= (EPS * norm) ** 2


@pytest.mark.parametrize(
    ("name", "entries", "squares"),
    [
        ("int4_32", (1.75, 0.0625), 0.0625**2),  # scale 1/4: a quarter of a step
        ("int4_32", (-1.75, 0.125, -0.375, 0.5), 2 * 0.125**2),  # ties
        ("int4_32", (1.75, -1.75, 1.625), 0.125**2),
        ("nf4_64", (1, 0.5), (0.5 - 0.44070982933044434) ** 2),
        ("nf4_64", (-0.75, 0.75, -0.375), (0.75 * 0.5250730514526367 - 0.375) ** 2),
        ("mxfp4_32", (1.5, 1.25), 0.25**2),  # scale 1/4: 5 lies between 4 and 6
        ("mxfp4_32", (1.975,), 0.475**2),  # 7.9 saturates at 6
        ("mxfp4_32", (-1.975, 1.75, 1.5), 0.475**2 + 0.25**2),
        ("mxfp4_32", (1, 0.0625), 0.0625**2),  # scale 1/4: a quarter is nearest to 0, or as near to 1/2
        ("nvfp4_16", (1.5, 0.25, 1), 0),  # 1/4 has four bits
        ("nvfp4_16", (1,), 0.03125**2),  # 1/6 becomes 11/64
        ("nvfp4_16", (1.625,), 0.0625**2),  # 0.27083 becomes 0.28125: 5.78 goes to 6
        # 0.1328125 is halfway from 0.125 to 0.140625 and goes to the even one, of which 0.5 is a multiple.
        ("nvfp4_16", (0.796875, 0.5), 0.046875**2),
        # 0.1484375 likewise goes up to 0.15625, of which 0.625 is a multiple.
        ("nvfp4_16", (0.890625, 0.625), 0.046875**2),
    ],
    ids=str,
)
def test_blocks_worked_out_by_hand(variant: Variant, name: str, entries: tuple[float, ...], squares: float) -> None:
    tile = np.zeros((1, 64), np.float32)
    tile[0, : len(entries)] = entries
    assert abs(only(name, errors(variant, tile)) - squares) <= tolerance(squares, tile)


@pytest.mark.parametrize("shape", [(0, 64), (5, 0), (1, 64), (41, 64)], ids=str)
def test_zeros_lose_nothing(variant: Variant, shape: tuple[int, int]) -> None:
    got = errors(variant, np.zeros(shape, np.float32))
    assert got.squares.tolist() == [0, 0, 0, 0]
    assert got.scale_exponents.sum() == 0


@pytest.mark.parametrize("value", [1.0, -1.0, 1.3, -1.9999])
def test_a_row_of_one_entry_is_a_block_of_one(variant: Variant, value: float) -> None:
    tile = padded(np.array([[value]]))
    assert_errors(errors(variant, tile), np.array([[value]], np.float32))


@pytest.mark.parametrize("cols", [1, 15, 17, 63, 65, 127])
def test_a_rows_last_block_may_be_shorter(variant: Variant, cols: int) -> None:
    """Blocks never reach into the next row, and padding is none of their entries."""
    x = gaussian((9, cols)).astype(np.float32)
    assert_errors(errors(variant, padded(x)), x)


@pytest.mark.parametrize("exponent", [-60, -99, -100, -101, -126, -149])
def test_a_faint_row_below_others(variant: Variant, exponent: int) -> None:
    """Its error is nothing beside the others'; it is no NaN, and below 2^-100 it has no exponent."""
    tile = np.zeros((3, 192), np.float32)
    tile[0] = gaussian((1, 192))
    alone = errors(variant, tile)
    tile[2] = 1.5 * 2.0**exponent if exponent > -149 else 2.0**-149
    got = errors(variant, tile)
    np.testing.assert_allclose(got.squares, alone.squares, rtol=1e-6, atol=0)
    added = got.scale_exponents - alone.scale_exponents
    assert added.sum() == (12 if exponent >= -100 else 0)
    assert added[NVFP4_EXPONENTS // 2 + exponent] == added.sum()


@pytest.mark.parametrize("content", [gaussian, sparse, of_many_scales], ids=lambda f: f.__name__)
def test_exponents_are_those_of_blocks_of_16(variant: Variant, content: Callable) -> None:
    tile = content((41, 64)).astype(np.float32)
    m = np.abs(tile.reshape(-1, 16)).max(axis=1)
    exponents = np.frexp(m[m > 0])[1] - 1 + NVFP4_EXPONENTS // 2
    expected = np.bincount(exponents, minlength=NVFP4_EXPONENTS)
    np.testing.assert_array_equal(errors(variant, tile).scale_exponents, expected)


@pytest.mark.parametrize("cut", [0, 1, 20, 41])
def test_rows_add_up(variant: Variant, cut: int) -> None:
    tile = heavy_tailed((41, 64)).astype(np.float32)
    whole, above, below = (errors(variant, part) for part in (tile, tile[:cut], tile[cut:]))
    merged = above.merge(below)
    np.testing.assert_allclose(merged.squares, whole.squares, rtol=EPS * np.sqrt(tile.size), atol=0)
    np.testing.assert_array_equal(merged.scale_exponents, whole.scale_exponents)


@pytest.mark.parametrize("exponent", [-24, -1, 0])
def test_scaling_the_weights_scales_the_errors(variant: Variant, exponent: int) -> None:
    tile = gaussian((41, 64)).astype(np.float32)
    scaled = errors(variant, tile).scaled(exponent)
    of_scaled = errors(variant, np.ldexp(tile, exponent))
    np.testing.assert_allclose(of_scaled.squares, scaled.squares, rtol=1e-6, atol=0)
    np.testing.assert_array_equal(of_scaled.scale_exponents, scaled.scale_exponents)


def nvfp4_recipe(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared error of every block as NVFP4 is made, and whether its scale is below E4M3's normal range.

    The tensor's scale is amax / (6 · 448) in float32, a block's E4M3 of amax_b / 6 in its units, saturating.
    Source: NVIDIA 2025, "Pretraining Large Language Models with NVFP4", arXiv 2509.25149, appendix B.
    """
    blocks = x.astype(np.float64).reshape(-1, 16)
    tensor_scale = np.abs(x).max() / np.float32(6 * 448)
    wanted = np.abs(blocks).max(axis=1) / 6 / float(tensor_scale)
    scale = np.minimum(wanted, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float64) * float(tensor_scale)
    t = blocks / np.where(scale > 0, scale, 1)[:, None]
    error = blocks - nearest(t.reshape(-1), E2M1).reshape(t.shape) * scale[:, None]
    return (error * error).sum(axis=1), wanted < 2.0**-6


@pytest.mark.parametrize(
    ("degrees", "difference"),
    [(np.inf, 0.005), (5, 0.005), (3, 0.03), (2, 0.1)],
    ids=["gaussian", "t5", "t3", "t2"],
)
def test_a_power_of_two_for_the_tensors_scale_changes_little(
    variant: Variant, degrees: float, difference: float
) -> None:
    """Of the root error of 256 × 1,024 weights: 0.1, 0.2, 1.1 and 5.5 % at most among the first eight seeds.

    It grows with the tails, for the recipe represents amax itself exactly.
    """
    for seed in range(4):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(256, 1024)) if np.isinf(degrees) else rng.standard_t(degrees, (256, 1024))
        tile = below_two(x).astype(np.float32)
        squares, underflows = nvfp4_recipe(tile)
        assert not underflows.any()
        assert only("nvfp4_16", errors(variant, tile)) ** 0.5 == pytest.approx(squares.sum() ** 0.5, rel=difference)


@pytest.mark.parametrize("greatest", [1, 1.2, 1.34, 1.4, 1.45, 1.5, 1.75, 1.999])
def test_the_bound_on_underflow_holds(greatest: float) -> None:
    """For every block of one magnitude, which fills the bound best, from 2^-9 to 2^-20 beside the greatest."""
    faint = 2.0 ** np.linspace(-9, -20, 385)
    _, underflows = nvfp4_recipe(np.repeat(np.array([greatest, *faint]), 16))
    assert underflows.any()
    for m in faint[underflows[1:]]:
        errors = BlockErrors()
        errors.scale_exponents[np.frexp([greatest, m])[1] - 1 + NVFP4_EXPONENTS // 2] = 1
        assert errors.nvfp4_underflow() >= 16 * m * m
