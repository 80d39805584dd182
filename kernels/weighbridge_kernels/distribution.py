"""From counts to statistics: everything about a tensor that does not depend on position, in float64 on the host."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from weighbridge_kernels import formats, quantizers
from weighbridge_kernels.states import Moments

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

HIGH_HALF = "F32"
"""The name under which counts by the upper 16 bits of float32 are decoded; their bins are bfloat16's."""

_SUBSAMPLES = 8
"""Points a bin of float32 is spread over, evenly, before it is quantised."""


@dataclass(frozen=True)
class Distribution:
    """The finite values of a tensor in ascending order, each with how often it occurs.

    Where `exact`, `values` are the stored values (±0 is one). Otherwise an entry stands for a bin that reaches from
    `low` to `high` in magnitude and `values` holds its middle, within 2^-8 of every member for normal numbers.
    """

    values: FloatArray
    counts: IntArray
    low: FloatArray
    high: FloatArray

    @classmethod
    def of_codes(cls, bins: IntArray, counts: IntArray, format_name: str) -> "Distribution":
        """From the counts of bit patterns `bins` of a format of 16 bits or fewer; NaN and ±Inf are left out."""
        values = formats.values(format_name)[bins]
        finite = np.isfinite(values)
        return cls._sorted(values[finite] + 0.0, counts[finite])  # + 0.0: -0 becomes 0

    @classmethod
    def of_high_halves(
        cls, bins: IntArray, counts: IntArray, zeros: int, extremes: tuple[float, float], *, exact: bool
    ) -> "Distribution":
        """From the counts of the upper 16 bits of finite non-zero float32 words, with zeros counted apart.

        `exact` says that all lower halves are zero; otherwise a bin's middle is clamped to `extremes` (least,
        greatest).
        """
        words = bins.astype(np.uint32) << 16
        low = words.view(np.float32).astype(np.float64)
        if exact:
            values, high = low, low
        else:
            high = (words | 0xFFFF).view(np.float32).astype(np.float64)
            values = (words | 0x8000).view(np.float32).astype(np.float64)
            values, low, high = (np.clip(side, *extremes) for side in (values, low, high))
        if zeros:
            values, low, high = (np.append(side, 0.0) for side in (values, low, high))
            counts = np.append(counts, zeros)
        order = np.argsort(values, kind="stable")
        magnitudes = np.abs(low[order]), np.abs(high[order])
        return cls(values[order], counts[order], *magnitudes)

    @classmethod
    def _sorted(cls, values: FloatArray, counts: IntArray) -> "Distribution":
        distinct, group = np.unique(values, return_inverse=True)
        totals = np.bincount(group, weights=counts, minlength=distinct.size).astype(np.int64)
        return cls(distinct, totals, np.abs(distinct), np.abs(distinct))

    @property
    def count(self) -> int:
        """How many finite entries there are."""
        return int(self.counts.sum())

    @property
    def exact(self) -> bool:
        """Whether every bin is one value."""
        return bool(np.array_equal(self.low, self.high))

    def quantile(self, q: float | FloatArray) -> FloatArray:
        """The smallest value at or below which at least a share q of the finite entries lies.

        NumPy's `inverted_cdf`: order statistic number max(ceil(q · n), 1). NaN where there is no finite entry.
        """
        q = np.asarray(q, np.float64)
        if self.values.size == 0:
            return np.full(q.shape, np.nan)
        cumulative = np.cumsum(self.counts)
        rank = np.maximum(np.ceil(q * cumulative[-1] - 1), 0)
        return np.asarray(self.values[np.searchsorted(cumulative, rank, side="right")])

    def sparsity_bounds(self, threshold: float) -> tuple[float, float]:
        """Least and greatest possible share of finite entries with |w| <= threshold; equal where bins are exact."""
        n = self.count
        if n == 0:
            return np.nan, np.nan
        within, reached = self.high <= threshold, self.low <= threshold
        return float(self.counts[within].sum() / n), float(self.counts[reached].sum() / n)

    def sparsity(self, threshold: float) -> float:
        """Share of finite entries with |w| <= threshold; the middle of `sparsity_bounds`."""
        least, greatest = self.sparsity_bounds(threshold)
        return (least + greatest) / 2

    def moments(self) -> Moments:
        """Moments of the values; those of the stored weights where `exact`."""
        return Moments.of_counts(self.values, self.counts) if self.values.size else Moments.empty()

    def int8_error(self) -> float:
        """‖w - Q(w)‖² under symmetric int8: one scale max|w| / 127, integers -127 ... 127, ties to even."""
        return quantizers.tensor_error(*self._spread(), quantizers.int8, 127)

    def e4m3_error(self) -> float:
        """‖w - Q(w)‖² under FP8 E4M3: one scale max|w| / 448, ties to even."""
        return quantizers.tensor_error(*self._spread(), quantizers.e4m3, 448)

    def _spread(self) -> tuple[FloatArray, FloatArray]:
        """Values and weights for the quantisers, the members of an inexact bin taken as evenly spread over it."""
        if self.exact:
            return self.values, self.counts.astype(np.float64)
        at = (np.arange(_SUBSAMPLES) + 0.5) / _SUBSAMPLES
        magnitude = self.low[:, None] + (self.high - self.low)[:, None] * at
        values = np.copysign(magnitude, self.values[:, None]).reshape(-1)
        return values, np.repeat(self.counts / _SUBSAMPLES, _SUBSAMPLES)


def entropy(counts: IntArray) -> float:
    """Shannon entropy of counts in bits; 0 for none."""
    occupied = counts[counts > 0]
    if occupied.size == 0:
        return 0.0
    p = occupied / occupied.sum()
    return float(-(p @ np.log2(p))) + 0.0


def exponent_entropy(bins: IntArray, counts: IntArray, format_name: str) -> float:
    """Shannon entropy in bits of the exponent field over the patterns counted; NaN for a format without one."""
    try:
        fields = formats.exponents("BF16" if format_name == HIGH_HALF else format_name)
    except KeyError:
        return np.nan
    return entropy(np.bincount(fields[bins], weights=counts).astype(np.int64))


@lru_cache(maxsize=64)
def finite_table(format_name: str, exponent: int) -> npt.NDArray[np.float32]:
    """The format's values times 2^-exponent in float32, NaN and ±Inf as 0: the table of `finite_tile.decoded_tile`.

    Patterns that so leave float32's range, which no tile of that exponent holds, become ±inf.
    """
    values = formats.values(format_name)
    table = np.where(np.isfinite(values), values, 0.0) * 2.0**-exponent
    with np.errstate(over="ignore"):
        return table.astype(np.float32)
