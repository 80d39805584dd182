"""Number formats of 16 bits or fewer, as tables of the value of every bit pattern.

Sources: IEEE 754-2019 (float16); OCP 8-bit Floating Point Specification 1.0 (E4M3, E5M2); OCP Microscaling Formats 1.0
(E8M0, E2M1, E2M3, E3M2); Noune et al. 2022, arXiv 2206.02915 (the FNUZ forms: one NaN where -0 would be, no infinity).
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

Specials = Literal["ieee", "fn", "fnuz", "none"]


@dataclass(frozen=True)
class FloatFormat:
    """A sign bit, `exponent` bits and `mantissa` bits.

    `specials` tells which patterns are no finite numbers: `ieee` has an exponent for infinities and NaN, `fn` only the
    pattern of all ones as NaN, `fnuz` only the pattern of -0 as NaN, `none` has finite numbers alone.
    """

    exponent: int
    mantissa: int
    bias: int
    specials: Specials

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.mantissa


FLOAT_FORMATS = {
    "BF16": FloatFormat(8, 7, 127, "ieee"),
    "F16": FloatFormat(5, 10, 15, "ieee"),
    "F8_E5M2": FloatFormat(5, 2, 15, "ieee"),
    "F8_E4M3": FloatFormat(4, 3, 7, "fn"),
    "F8_E5M2FNUZ": FloatFormat(5, 2, 16, "fnuz"),
    "F8_E4M3FNUZ": FloatFormat(4, 3, 8, "fnuz"),
    "F6_E2M3": FloatFormat(2, 3, 1, "none"),
    "F6_E3M2": FloatFormat(3, 2, 3, "none"),
    "F4": FloatFormat(2, 1, 1, "none"),
}
_E8M0_BIAS, _E8M0_NAN = 127, 0xFF
_INTEGERS = {"U8": np.uint8, "I8": np.int8, "BOOL": np.uint8, "U16": np.uint16, "I16": np.int16}

NAMES = (*FLOAT_FORMATS, "F8_E8M0", *_INTEGERS)


@cache
def values(name: str) -> np.ndarray:
    """The value of every bit pattern of a format, float64 and read-only: `values("F4")[0b1010] == -1.0`.

    Entry i is what the pattern i stands for, ±inf and NaN included; -0.0 keeps its sign. Integers of 8 and 16 bits are
    read as two's complement. Raises KeyError for a format of more than 16 bits or an unknown one.
    """
    if name in FLOAT_FORMATS:
        table = _float_values(FLOAT_FORMATS[name])
    elif name == "F8_E8M0":
        table = np.exp2(np.arange(256, dtype=np.float64) - _E8M0_BIAS)
        table[_E8M0_NAN] = np.nan
    else:
        integer = np.dtype(_INTEGERS[name])
        unsigned = np.arange(1 << (8 * integer.itemsize), dtype=f"u{integer.itemsize}")
        table = unsigned.view(integer).astype(np.float64)
    table.flags.writeable = False
    return table


@cache
def exponents(name: str) -> np.ndarray:
    """The exponent field of every bit pattern of a floating format (integer formats have none: KeyError)."""
    if name == "F8_E8M0":
        return np.arange(256)
    form = FLOAT_FORMATS[name]
    return (np.arange(1 << form.bits) >> form.mantissa) & ((1 << form.exponent) - 1)


def _float_values(form: FloatFormat) -> np.ndarray:
    pattern = np.arange(1 << form.bits)
    sign = np.where(pattern >> (form.bits - 1), -1.0, 1.0)
    exponent = (pattern >> form.mantissa) & ((1 << form.exponent) - 1)
    fraction = (pattern & ((1 << form.mantissa) - 1)) / (1 << form.mantissa)
    normal = exponent > 0
    table = sign * (fraction + normal) * np.exp2(np.where(normal, exponent, 1) - float(form.bias))
    magnitude_ones = (1 << (form.bits - 1)) - 1
    if form.specials == "ieee":
        top = exponent == (1 << form.exponent) - 1
        table[top] = np.where(fraction[top] == 0, sign[top] * np.inf, np.nan)
    elif form.specials == "fn":
        table[(pattern & magnitude_ones) == magnitude_ones] = np.nan
    elif form.specials == "fnuz":
        table[1 << (form.bits - 1)] = np.nan
    return table
