"""The one table of dtypes: how many bits an entry has, what it means, and what array it is read into.

Names are those of the safetensors format; NumPy's complex128 and the narrow types of ml_dtypes follow its habit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt

Kind = Literal["float", "int", "uint", "bool", "complex"]
MAX_RANK = 64


@dataclass(frozen=True)
class DType:
    """One entry's type: `bits` as stored, `array` the NumPy dtype that `Tensor.read` gives."""

    name: str
    bits: int
    kind: Kind
    array: np.dtype[Any]

    def nbytes(self, count: int) -> int:
        """Bytes of `count` entries packed without gaps, the last one completed."""
        return (count * self.bits + 7) // 8

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether an array of this type can have the shape: NumPy bounds the axes and, zeros aside, their product."""
        return len(shape) <= MAX_RANK and math.prod(side or 1 for side in shape) * self.array.itemsize < 1 << 63

    def unpack(self, packed: npt.NDArray[np.uint8], count: int) -> npt.NDArray[Any]:
        """The `count` entries held in `packed`, as an array of dtype `array` (a view where entries are whole bytes)."""
        if self.bits >= 8:
            return packed.view(self.array)[:count]
        return _codes(packed, self.bits)[:count].view(self.array)

    def __str__(self) -> str:
        return self.name


def _codes(packed: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Codes of 4 or 6 bits, one a byte. The first entry is in the lowest bits.

    That is how PyTorch's float4_e2m1fn_x2, which safetensors writes as F4, packs a pair; no writer of the six-bit types
    is known, and they are read alike: four codes in three bytes, little end first.
    """
    if bits == 4:
        return np.stack([packed & 0xF, packed >> 4], axis=-1).reshape(-1)
    groups = np.zeros((-(-packed.size // 3), 4), np.uint8)
    groups.reshape(-1)[: packed.size] = packed
    a, b, c = groups.reshape(-1)[: groups.shape[0] * 3].reshape(-1, 3).T.astype(np.uint32)
    word = a | b << 8 | c << 16
    return np.stack([(word >> shift) & 0x3F for shift in (0, 6, 12, 18)], axis=-1).reshape(-1).astype(np.uint8)


def _entry(name: str, bits: int, kind: Kind, array: Any) -> DType:
    return DType(name, bits, kind, np.dtype(array))


SAFETENSORS = {
    dtype.name: dtype
    for dtype in (
        _entry("BOOL", 8, "bool", np.bool_),
        _entry("U8", 8, "uint", np.uint8),
        _entry("I8", 8, "int", np.int8),
        _entry("U16", 16, "uint", np.uint16),
        _entry("I16", 16, "int", np.int16),
        _entry("U32", 32, "uint", np.uint32),
        _entry("I32", 32, "int", np.int32),
        _entry("U64", 64, "uint", np.uint64),
        _entry("I64", 64, "int", np.int64),
        _entry("F16", 16, "float", np.float16),
        _entry("BF16", 16, "float", ml_dtypes.bfloat16),
        _entry("F32", 32, "float", np.float32),
        _entry("F64", 64, "float", np.float64),
        _entry("C64", 64, "complex", np.complex64),
        _entry("F8_E5M2", 8, "float", ml_dtypes.float8_e5m2),
        _entry("F8_E4M3", 8, "float", ml_dtypes.float8_e4m3fn),
        _entry("F8_E5M2FNUZ", 8, "float", ml_dtypes.float8_e5m2fnuz),
        _entry("F8_E4M3FNUZ", 8, "float", ml_dtypes.float8_e4m3fnuz),
        _entry("F8_E8M0", 8, "float", ml_dtypes.float8_e8m0fnu),
        _entry("F6_E2M3", 6, "float", ml_dtypes.float6_e2m3fn),
        _entry("F6_E3M2", 6, "float", ml_dtypes.float6_e3m2fn),
        _entry("F4", 4, "float", ml_dtypes.float4_e2m1fn),
    )
}
"""Every dtype a safetensors header may name (format as of safetensors 0.8)."""

_C128 = _entry("C128", 128, "complex", np.complex128)


@cache
def of_array(dtype: np.dtype[Any]) -> DType | None:
    """The table's entry for an array in memory, whose sub-byte types take a byte an entry; None where there is none."""
    native = dtype.newbyteorder("=")
    for known in (*SAFETENSORS.values(), _C128):
        if known.array == native:
            return known if known.bits >= 8 else DType(known.name, 8, known.kind, known.array)
    return None
