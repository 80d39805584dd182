"""What summaries of spans merge into, on the host and in float64: central moments, channel sums, quantisation errors.

Every state has an identity (`empty()`), an associative `merge`, and what it says in the end. NumPy alone.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_SMALLEST_WITH_DIGITS = float(np.finfo(np.float64).tiny) * 2.0**53


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, extremes, sum of magnitudes and central moments of the finite entries.

    `m2`, `m3`, `m4` are sums over the entries of (x - mean)^k. Merging follows Pébay 2008, "Formulas for robust,
    one-pass parallel computation of covariances and arbitrary-order statistical moments", SAND2008-6212: each part is
    centred on its own mean, so a mean far larger than the spread costs no digits.
    """

    count: int
    min: float
    max: float
    l1: float
    mean: float
    m2: float
    m3: float
    m4: float

    @classmethod
    def empty(cls) -> Self:
        """The identity of `merge`: no entry, extremes of ±inf."""
        return cls(0, np.inf, -np.inf, 0.0, 0.0, 0.0, 0.0, 0.0)

    @classmethod
    def of_counts(cls, values: FloatArray, counts: IntArray) -> Self:
        """Moments of a multiset: `values[i]`, finite, occurs `counts[i]` times; at least one count is positive."""
        n = int(counts.sum())
        weights = counts.astype(np.float64)
        mean = float(weights @ values) / n
        d = values - mean
        mean += float(weights @ d) / n  # the first mean's own rounding error, which m2 of a near-constant tensor shows
        d = values - mean
        d2 = d * d
        present = values[counts > 0]
        return cls(
            n,
            float(present.min()),
            float(present.max()),
            float(weights @ np.abs(values)),
            mean,
            float(weights @ d2),
            float(weights @ (d2 * d)),
            float(weights @ (d2 * d2)),
        )

    def merge(self, other: Self) -> Self:
        """The moments of both parts together; associative up to rounding in float64."""
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        na, nb = float(self.count), float(other.count)
        n = na + nb
        d = other.mean - self.mean
        dn = d / n
        m2 = self.m2 + other.m2 + d * dn * na * nb
        m3 = self.m3 + other.m3 + d * dn * dn * na * nb * (na - nb) + 3 * dn * (na * other.m2 - nb * self.m2)
        m4 = (
            self.m4
            + other.m4
            + d * dn * dn * dn * na * nb * (na * na - na * nb + nb * nb)
            + 6 * dn * dn * (na * na * other.m2 + nb * nb * self.m2)
            + 4 * dn * (na * other.m3 - nb * self.m3)
        )
        return type(self)(
            self.count + other.count,
            min(self.min, other.min),
            max(self.max, other.max),
            self.l1 + other.l1,
            self.mean + dn * nb,
            m2,
            m3,
            m4,
        )

    @property
    def std(self) -> float:
        """Root of the mean squared deviation (divided by n, not n - 1)."""
        return _root(self.m2 / self.count)

    @property
    def l2(self) -> float:
        """Root of the sum of squares."""
        return _root(self.m2 + self.count * self.mean * self.mean)

    @property
    def skewness(self) -> float:
        """m3 / n over std^3; NaN where all entries are equal, or where a power leaves float64's range."""
        return _over_power(self.m3 / self.count, self.std, 3)

    @property
    def kurtosis(self) -> float:
        """Excess kurtosis, m4 / n over std^4 less 3; NaN where all entries are equal, or a power leaves that range."""
        return _over_power(self.m4 / self.count, self.std, 4) - 3.0


def _root(squares: float) -> float:
    """The root of a sum of squares; NaN where it is so small that float64 has lost digits of it."""
    return float(np.sqrt(squares)) if squares == 0 or squares > _SMALLEST_WITH_DIGITS else np.nan


def _over_power(moment: float, std: float, power: int) -> float:
    """moment / std^power; NaN for a std of 0, and where either is too small or too large for float64's digits."""
    with np.errstate(over="ignore", under="ignore"):
        scale = float(np.float64(std) ** power)
    return moment / scale if _SMALLEST_WITH_DIGITS < scale < np.inf and np.isfinite(moment) else np.nan


@dataclass(frozen=True, slots=True)
class AxisSums:
    """Per channel: sum, sum of squares, greatest magnitude and number of the finite entries (float64)."""

    sum: FloatArray
    squares: FloatArray
    absmax: FloatArray
    count: FloatArray

    @classmethod
    def zeros(cls, channels: int) -> Self:
        """Sums over nothing: the identity of `add`."""
        return cls(*(np.zeros(channels) for _ in range(4)))

    def add(self, other: "AxisSums", at: slice) -> None:
        """Adds in place the sums of the channels `at`."""
        self.sum[at] += other.sum
        self.squares[at] += other.squares
        np.maximum(self.absmax[at], other.absmax, out=self.absmax[at])
        self.count[at] += other.count

    def folded(self, shape: tuple[int, ...], axis: int) -> "AxisSums":
        """The channels laid out as `shape` and joined along every axis but `axis`."""
        others = tuple(i for i in range(len(shape)) if i != axis)
        return AxisSums(
            self.sum.reshape(shape).sum(others),
            self.squares.reshape(shape).sum(others),
            self.absmax.reshape(shape).max(others, initial=0.0),
            self.count.reshape(shape).sum(others),
        )

    @property
    def l2(self) -> FloatArray:
        """Euclidean norm of each channel; 0 for a channel without a finite entry."""
        return np.sqrt(self.squares)

    @property
    def mean(self) -> FloatArray:
        """NaN for a channel without a finite entry."""
        with np.errstate(invalid="ignore"):
            return self.sum / self.count


MAX_TILE_EXPONENT = 120
"""Tiles are scaled by at most 2^±120, which float32 still holds."""
NVFP4_EXPONENTS = 512
"""Bins of `BlockErrors.scale_exponents`: bin i counts blocks of greatest magnitude 2^(i - 256) to 2^(i - 255)."""
E4M3_NORMAL_BINADES = 15
"""Binades between the largest normal E4M3 scale (2^8) and the smallest (2^-6), both counted."""


@dataclass
class BlockErrors:
    """Squared error of each block quantiser, summed over blocks; see `block_quantization` for their rules."""

    squares: FloatArray = field(default_factory=lambda: np.zeros(4))
    scale_exponents: IntArray = field(default_factory=lambda: np.zeros(NVFP4_EXPONENTS, np.int64))

    def merge(self, other: "BlockErrors") -> "BlockErrors":
        """The errors of both sets of blocks together."""
        return BlockErrors(self.squares + other.squares, self.scale_exponents + other.scale_exponents)

    def scaled(self, exponent: int) -> "BlockErrors":
        """The errors of the same blocks times 2^exponent (at most 2^±150)."""
        return BlockErrors(self.squares * 4.0**exponent, np.roll(self.scale_exponents, exponent))

    def nvfp4_underflow(self) -> float:
        """An upper bound on the squared norm of the blocks whose scale falls below E4M3's normal range.

        A 16-entry block whose greatest magnitude has exponent e holds at most 16 · 4^(e + 1). Mantissas can put its
        scale 15 binades below the largest where its exponent is but 14 below.
        """
        (occupied,) = np.nonzero(self.scale_exponents)
        if occupied.size == 0:
            return 0.0
        low = occupied[occupied <= occupied[-1] - (E4M3_NORMAL_BINADES - 1)]
        return float(np.sum(self.scale_exponents[low] * 16.0 * np.exp2(2.0 * (low - NVFP4_EXPONENTS // 2 + 1))))
