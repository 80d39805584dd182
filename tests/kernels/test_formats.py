"""Every format's table against ml_dtypes and NumPy, pattern by pattern."""

import ml_dtypes
import numpy as np
import pytest

from weighbridge_kernels import formats

# The peer's dtype, then bits of sign, exponent and mantissa.
FLOATS = {
    "BF16": (ml_dtypes.bfloat16, (1, 8, 7)),
    "F16": (np.float16, (1, 5, 10)),
    "F8_E5M2": (ml_dtypes.float8_e5m2, (1, 5, 2)),
    "F8_E4M3": (ml_dtypes.float8_e4m3fn, (1, 4, 3)),
    "F8_E5M2FNUZ": (ml_dtypes.float8_e5m2fnuz, (1, 5, 2)),
    "F8_E4M3FNUZ": (ml_dtypes.float8_e4m3fnuz, (1, 4, 3)),
    "F8_E8M0": (ml_dtypes.float8_e8m0fnu, (0, 8, 0)),
    "F6_E2M3": (ml_dtypes.float6_e2m3fn, (1, 2, 3)),
    "F6_E3M2": (ml_dtypes.float6_e3m2fn, (1, 3, 2)),
    "F4": (ml_dtypes.float4_e2m1fn, (1, 2, 1)),
}
INTEGERS = {"U8": np.uint8, "I8": np.int8, "U16": np.uint16, "I16": np.int16}


def patterns(name: str) -> np.ndarray:
    dtype, widths = FLOATS[name]
    return np.arange(1 << sum(widths), dtype=f"u{np.dtype(dtype).itemsize}")


@pytest.mark.parametrize("name", FLOATS)
def test_every_pattern_has_the_peers_value(name: str) -> None:
    with np.errstate(invalid="ignore"):  # signalling NaN
        expected = patterns(name).view(FLOATS[name][0]).astype(np.float64)
    table = formats.values(name)
    assert table.dtype == np.float64
    np.testing.assert_array_equal(table, expected)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(table[number]), np.signbit(expected[number]))


@pytest.mark.parametrize(
    ("name", "nan", "infinite", "zeros", "largest"),
    [
        ("BF16", 2 * 127, 2, 2, 255 * 2.0**120),
        ("F16", 2 * 1023, 2, 2, 65504),
        ("F8_E5M2", 2 * 3, 2, 2, 57344),
        ("F8_E4M3", 2, 0, 2, 448),
        ("F8_E5M2FNUZ", 1, 0, 1, 57344),
        ("F8_E4M3FNUZ", 1, 0, 1, 240),
        ("F8_E8M0", 1, 0, 0, 2.0**127),
        ("F6_E2M3", 0, 0, 2, 7.5),
        ("F6_E3M2", 0, 0, 2, 28),
        ("F4", 0, 0, 2, 6),
    ],
)
def test_special_patterns_are_as_many_as_the_standard_says(
    name: str, nan: int, infinite: int, zeros: int, largest: float
) -> None:
    table = formats.values(name)
    assert np.isnan(table).sum() == nan
    assert np.isinf(table).sum() == infinite
    assert (table == 0).sum() == zeros
    assert table[np.isfinite(table)].max() == largest


@pytest.mark.parametrize("name", FLOATS)
def test_exponents_are_the_field_between_sign_and_mantissa(name: str) -> None:
    sign, exponent, mantissa = FLOATS[name][1]
    written = [f"{pattern:0{sign + exponent + mantissa}b}" for pattern in patterns(name)]
    np.testing.assert_array_equal(formats.exponents(name), [int(bits[sign : sign + exponent], 2) for bits in written])


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_are_twos_complement(name: str) -> None:
    information = np.iinfo(INTEGERS[name])
    stored = np.arange(information.min, information.max + 1).astype(INTEGERS[name])
    np.testing.assert_array_equal(formats.values(name)[stored.view(f"u{stored.itemsize}")], stored)


def test_a_boolean_is_its_byte() -> None:
    np.testing.assert_array_equal(formats.values("BOOL"), np.arange(256))


def test_no_format_is_left_untested() -> None:
    assert set(formats.NAMES) == {*FLOATS, *INTEGERS, "BOOL"}


@pytest.mark.parametrize("name", formats.NAMES)
def test_a_shared_table_cannot_be_written_to(name: str) -> None:
    with pytest.raises(ValueError, match="read-only"):
        formats.values(name)[0] = 1


@pytest.mark.parametrize("name", ["F32", "F64", "I32", "", "bfloat16"])
def test_wider_and_unknown_formats_have_no_table(name: str) -> None:
    with pytest.raises(KeyError):
        formats.values(name)


@pytest.mark.parametrize("name", [*INTEGERS, "BOOL", "F32"])
def test_integers_and_unknown_formats_have_no_exponent(name: str) -> None:
    with pytest.raises(KeyError):
        formats.exponents(name)
