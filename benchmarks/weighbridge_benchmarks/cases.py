"""The table of what is measured: a kernel, its input, its plain definition in NumPy and other peers on the same array.

Adding a kernel to the suite is one `Case` in `CASES`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from weighbridge_kernels import formats
from weighbridge_kernels.blocks import BASE
from weighbridge_kernels.distribution import Distribution
from weighbridge_kernels.variants import Variant

QUANTILES = (0.0001, 0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 0.9999)

Work = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One kernel on one dtype.

    `prepare(weights, variant)` gives the call to be timed, its input in place; `bytes_per_weight` is what the kernel
    must read, `flops_per_weight` what it computes. `peers(weights)` gives other libraries' calls for the same result;
    one whose library is missing raises ImportError when it is prepared.
    """

    kernel: str
    dtype: str
    prepare: Callable[[np.ndarray, Variant], Work]
    bytes_per_weight: float
    flops_per_weight: float = 0.0
    peers: Mapping[str, Callable[[np.ndarray], Work]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.kernel}[{self.dtype}]"


def array_dtype(name: str) -> np.dtype[Any]:
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16 if name == "BF16" else np.float32)


def _matrix(weights: np.ndarray) -> np.ndarray:
    """Rows padded with zeros to whole blocks of 64, as the tiles of a scan are."""
    rows = weights.reshape(-1, weights.shape[-1])
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % 64)))


def _ready(result: Any) -> Any:
    """The result, waited for where it is computed on a device."""
    return result.block_until_ready() if hasattr(result, "block_until_ready") else result


def _bit_histogram(weights: np.ndarray, variant: Variant) -> Work:
    codes = variant.put(weights.reshape(-1).view(np.uint16))
    return lambda: variant.bit_histogram(codes, 1 << 16)


def _high_half_histogram(weights: np.ndarray, variant: Variant) -> Work:
    words = variant.put(weights.reshape(-1).view(np.uint32))
    return lambda: variant.high_half_histogram(words)


def _central_moments(weights: np.ndarray, variant: Variant) -> Work:
    x = variant.put(weights.reshape(-1))
    return lambda: variant.central_moments(x)


def _code_tile(weights: np.ndarray, variant: Variant) -> Work:
    codes = variant.put(weights.reshape(-1, weights.shape[-1]).view(np.uint16))
    return lambda: _ready(variant.code_tile(codes, "BF16", 0, -(-codes.shape[1] // 64) * 64))


def _channel_sums(weights: np.ndarray, variant: Variant) -> Work:
    tile = variant.put(_matrix(weights))
    return lambda: variant.channel_sums(tile)


def _block_errors(weights: np.ndarray, variant: Variant) -> Work:
    tile = variant.put(_matrix(weights))
    return lambda: variant.block_errors(tile)


def _groups_with_two_zeros(weights: np.ndarray, variant: Variant) -> Work:
    zero = variant.put(np.abs(weights.reshape(-1, weights.shape[-1])) < np.median(np.abs(weights)))
    return lambda: variant.groups_with_two_zeros(zero)


def _block_reductions(weights: np.ndarray, variant: Variant) -> Work:
    codes = variant.put(weights.reshape(-1, weights.shape[-1]).view(np.uint16))
    table = formats.values("BF16").astype(np.float32)
    return lambda: variant.block_reductions(codes, table)


def _decoding(weights: np.ndarray, variant: Variant) -> Work:
    counts = np.bincount(weights.reshape(-1).view(np.uint16), minlength=1 << 16)

    def decode() -> None:
        (bins,) = np.nonzero(counts)
        distribution = Distribution.of_codes(bins, counts[bins], "BF16")
        distribution.quantile(np.array(QUANTILES))
        distribution.moments()

    return decode


def _numpy_bincount(weights: np.ndarray) -> Work:
    codes = weights.reshape(-1).view(np.uint16)
    return lambda: np.bincount(codes, minlength=1 << 16)


def _torch_bincount(weights: np.ndarray) -> Work:
    import torch

    codes = torch.from_numpy(weights.reshape(-1).view(np.uint16).astype(np.int32))
    return lambda: torch.bincount(codes, minlength=1 << 16)


def _numpy_moments(weights: np.ndarray) -> Work:
    x = weights.reshape(-1)

    def moments() -> None:
        y = x.astype(np.float64)
        d = y - y.mean()
        d2 = d * d
        y.min(), y.max(), np.abs(y).sum(), d2.sum(), (d2 * d).sum(), (d2 * d2).sum()

    return moments


def _scipy_moments(weights: np.ndarray) -> Work:
    from scipy import stats

    x = weights.reshape(-1).astype(np.float64)
    return lambda: stats.describe(x)


def _numpy_channel_sums(weights: np.ndarray) -> Work:
    x = weights.reshape(-1, weights.shape[-1])

    def sums() -> None:
        for axis in (1, 0):
            x.sum(axis), (x * x).sum(axis), np.abs(x).max(axis)

    return sums


def _torch_channel_sums(weights: np.ndarray) -> Work:
    import torch

    x = torch.from_numpy(weights.reshape(-1, weights.shape[-1]))

    def sums() -> None:
        for axis in (1, 0):
            x.sum(axis), (x * x).sum(axis), x.abs().amax(axis)

    return sums


def _numpy_int4(weights: np.ndarray) -> Work:
    """One of the four quantisers alone."""
    blocks = _matrix(weights).reshape(-1, 32)

    def error() -> None:
        scale = np.maximum(np.abs(blocks).max(1, keepdims=True), 1e-30) / 7
        difference = blocks - np.rint(blocks / scale) * scale
        np.vdot(difference, difference)

    return error


def _numpy_blocks(weights: np.ndarray) -> Work:
    """Whole blocks alone, and none that is not finite."""
    x = weights.reshape(-1, weights.shape[-1])
    rows, cols = (extent // BASE * BASE for extent in x.shape)
    cut = x[:rows, :cols].reshape(rows // BASE, BASE, cols // BASE, BASE)

    def reductions() -> None:
        y = cut.astype(np.float32)
        y.min((1, 3)), y.max((1, 3)), y.mean((1, 3)), np.sqrt((y * y).mean((1, 3))), (y == 0).sum((1, 3))

    return reductions


def _numpy_statistics(weights: np.ndarray) -> Work:
    x = weights.reshape(-1).astype(np.float32)

    def statistics() -> None:
        x.mean(), x.std(), x.min(), x.max(), np.quantile(x, QUANTILES, method="inverted_cdf")

    return statistics


CASES = (
    Case("bit_histogram", "BF16", _bit_histogram, 2, peers={"numpy": _numpy_bincount, "torch": _torch_bincount}),
    Case("high_half_histogram", "F32", _high_half_histogram, 4),
    Case("central_moments", "F32", _central_moments, 4, 12, {"numpy": _numpy_moments, "scipy": _scipy_moments}),
    Case("code_tile", "BF16", _code_tile, 2),
    Case("channel_sums", "F32", _channel_sums, 4, 6, {"numpy": _numpy_channel_sums, "torch": _torch_channel_sums}),
    Case("block_errors", "F32", _block_errors, 4, 70, {"numpy (int4 alone)": _numpy_int4}),
    Case("groups_with_two_zeros", "F32", _groups_with_two_zeros, 1),
    Case("block_reductions", "BF16", _block_reductions, 2, 6, {"numpy": _numpy_blocks}),
    Case("decoding", "BF16", _decoding, 0, peers={"numpy (from weights)": _numpy_statistics}),
)
"""Every kernel of scans and pyramids. Operations a weight are the plain form's; `decoding` works on counts alone."""
