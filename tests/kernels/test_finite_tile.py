"""Stored values as finite float32 tiles, against the format's table scaled in float64."""

import numpy as np
import pytest

from weighbridge_kernels import formats
from weighbridge_kernels.distribution import finite_table
from weighbridge_kernels.variants import Variant

FLOATS = (*formats.FLOAT_FORMATS, "F8_E8M0")
SUBNORMAL = 2.0**-126


def assert_same_bits(got: np.ndarray, expected: np.ndarray) -> None:
    """Equal with the signs of zeros."""
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(expected))


def assert_tile(got: np.ndarray, expected: np.ndarray, padded: int) -> None:
    """`expected` and zeros beside it."""
    got = np.asarray(got)
    assert got.dtype == np.float32
    assert got.shape == (expected.shape[0], padded)
    inside, outside = np.split(got, [expected.shape[1]], axis=1)
    np.testing.assert_array_equal(inside, expected)
    assert_same_bits(outside, np.zeros_like(outside))


def decoded(codes: np.ndarray, name: str, exponent: int) -> np.ndarray:
    values = formats.values(name)[codes]
    with np.errstate(over="ignore"):
        return (np.where(np.isfinite(values), values, 0) * 2.0**-exponent).astype(np.float32)


def every_code(name: str, cols: int) -> np.ndarray:
    """All patterns of a format, in rows of `cols`, the last row filled up with the first patterns."""
    patterns = formats.values(name).size
    return np.resize(np.arange(patterns), (-(-patterns // cols), cols)).astype("u1" if patterns <= 256 else "u2")


@pytest.mark.parametrize("padded", [64, 128], ids=["whole rows", "padded rows"])
@pytest.mark.parametrize("name", [*FLOATS, "I8", "U8", "I16"])
def test_every_code_of_every_format(variant: Variant, name: str, padded: int) -> None:
    codes = every_code(name, 64)
    exponent = 120 if name in ("BF16", "F8_E8M0") else 3
    got = variant.code_tile(variant.put(codes), name, exponent, padded)
    assert_tile(got, decoded(codes, name, exponent), padded)


@pytest.mark.parametrize("cols", [1, 63, 64, 65, 100])
def test_rows_are_padded_with_zeros(variant: Variant, cols: int) -> None:
    codes = np.random.default_rng(cols).integers(0, 1 << 16, (5, cols), dtype=np.uint16)
    padded = -(-cols // 64) * 64
    got = variant.code_tile(variant.put(codes), "F16", 0, padded)
    assert_tile(got, decoded(codes, "F16", 0), padded)


@pytest.mark.parametrize("exponent", [-120, -119, -7, 0, 1, 60, 119, 120])
def test_arithmetic_on_bfloat16_equals_its_table(exponent: int) -> None:
    host = pytest.importorskip("weighbridge_kernels.finite_tile_host", exc_type=ImportError)
    codes = every_code("BF16", 256)
    if exponent < 0:  # as a scan does: scaled so that nothing leaves float32's range
        codes[np.abs(formats.values("BF16")[codes]) * 2.0**-exponent >= 2] = 0
    by_table = host.decoded_tile(codes, finite_table("BF16", exponent), padded=320)
    assert_same_bits(host.bfloat16_tile(codes, 2.0**-exponent, padded=320), by_table)


def test_a_view_with_gaps_is_read_as_it_stands(variant: Variant) -> None:
    """A tile of some columns of a matrix."""
    x = np.random.default_rng(0).normal(size=(6, 300)).astype(np.float32)
    codes = np.random.default_rng(1).integers(0, 256, (6, 300), dtype=np.uint8)
    at = (slice(1, 4), slice(128, 256))
    assert_tile(variant.float_tile(variant.put(x)[at], 0, 128), x[at], 128)
    assert_tile(variant.code_tile(variant.put(codes)[at], "F8_E5M2", 0, 128), decoded(codes[at], "F8_E5M2", 0), 128)


@pytest.mark.parametrize("cols", [1, 63, 64, 65])
@pytest.mark.parametrize("exponent", [-120, -1, 0, 1, 5, 120])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
def test_floats_are_scaled_without_rounding(variant: Variant, dtype: type, exponent: int, cols: int) -> None:
    rng = np.random.default_rng(cols)
    x = (rng.choice([-1, 1], (7, cols)) * rng.uniform(0.5, 2, (7, cols))).astype(np.float32).astype(dtype)
    x = np.ldexp(x, exponent)
    padded = -(-cols // 64) * 64
    assert_tile(variant.float_tile(variant.put(x), exponent, padded), np.ldexp(x, -exponent).astype(np.float32), padded)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
def test_what_is_not_finite_becomes_zero(variant: Variant, dtype: type) -> None:
    x = np.array([[1, np.nan, 2, -np.inf], [np.inf, -3, -np.nan, 0]], dtype)
    expected = np.array([[1, 0, 2, 0], [0, -3, 0, 0]], np.float32)
    assert_tile(variant.float_tile(variant.put(x), 0, 4), expected, 4)
    assert_tile(variant.float_tile(variant.put(x), 1, 64), expected / 2, 64)


def test_a_float64_beyond_float32_is_scaled_before_it_is_rounded(variant: Variant) -> None:
    x = np.array([[2.0**150, -(2.0**149), 3.0]])
    assert_tile(variant.float_tile(variant.put(x), 120, 64), np.array([[2.0**30, -(2.0**29), 3 * 2.0**-120]]), 64)


def test_subnormals_are_kept_or_flushed_to_zero(variant: Variant) -> None:
    x = np.array([[1e-45, -3e-42, 1.1e-38, -0.0, 1.2e-38]], np.float32)
    got = np.asarray(variant.float_tile(variant.put(x), -100, 64))[0]
    kept = np.ldexp(x[0], 100)
    if variant.name == "host":
        np.testing.assert_array_equal(got[:5], kept)
    assert ((got[:5] == kept) | ((np.abs(x[0]) < SUBNORMAL) & (got[:5] == 0))).all()
    assert got[4] == kept[4]
