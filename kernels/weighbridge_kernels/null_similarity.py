"""What similarities of rows come to by chance: the cosine of two independent random directions.

Of two vectors in R^d whose entries are independent Gaussians of one variance, whatever their norms, (1 + s) / 2 follows
Beta((d - 1) / 2, (d - 1) / 2); for Pearson correlations, whose rows have lost their mean, that of d - 1 (Muirhead 1982,
"Aspects of multivariate statistical theory", theorem 1.5.7). NumPy, and SciPy within functions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge_kernels.similar_pairs import EDGES, Kind

FloatArray = npt.NDArray[np.float64]

_NODES = 64


@dataclass(frozen=True, slots=True)
class NullSimilarity:
    """The law of similarities of rows of `cols` independent entries. Raises ValueError where it has no density.

    That is for fewer than 2 columns (3 for `pearson`): there every similarity is -1 or 1.
    """

    cols: int
    kind: Kind = "cosine"

    def __post_init__(self) -> None:
        if self._dimensions < 2:
            raise ValueError(
                f"null similarity ({self.kind}): got {self.cols} columns; expected at least {_least(self.kind)}"
            )

    @property
    def _dimensions(self) -> int:
        return self.cols - (self.kind == "pearson")

    @property
    def std(self) -> float:
        """Standard deviation: 1 / sqrt(dimensions); the mean is 0."""
        return float(self._dimensions**-0.5)

    def density(self, s: npt.ArrayLike) -> FloatArray:
        """The density at similarities; 0 outside of [-1, 1]."""
        return _array(self._law().pdf((1 + np.asarray(s, np.float64)) / 2) / 2)

    def cdf(self, s: npt.ArrayLike) -> FloatArray:
        """The share of similarities up to s; small ones keep their digits, and 1 - cdf(s) is better had as cdf(-s)."""
        return _array(self._law().cdf((1 + np.asarray(s, np.float64)) / 2))

    def quantile(self, q: npt.ArrayLike) -> FloatArray:
        """The similarity below which a share q lies."""
        return _array(2 * self._law().ppf(np.asarray(q, np.float64)) - 1)

    def expected_counts(self, pairs: int) -> FloatArray:
        """How many of some pairs are expected in each of the bins between `EDGES`.

        `SimilarityCounts` of these groups them as it does counts. Bins above 0 mirror those below, which keeps digits.
        """
        below = self.cdf(EDGES[EDGES <= 0])
        half = pairs * np.diff(below)
        return np.concatenate([half, half[::-1]])

    def expected_greatest(self, pairs: int) -> float:
        """The expected greatest |s| among some pairs.

        As if pairs were independent: those of n rows are so two by two, and for n of some tens on what is left changes
        the greatest by less than its spread. s² follows Beta(1/2, (d - 1) / 2), and the mean of its greatest is taken
        over that one's quantiles. NaN without a pair.
        """
        from scipy.stats import beta

        if pairs < 1:
            return np.nan
        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        beyond = -np.expm1(np.log((1 + nodes) / 2) / pairs)
        greatest = np.sqrt(beta.isf(beyond, 0.5, (self._dimensions - 1) / 2))
        return float(weights @ greatest / 2)

    def _law(self) -> Any:
        from scipy.stats import beta

        return beta((self._dimensions - 1) / 2, (self._dimensions - 1) / 2)


def _least(kind: Kind) -> int:
    return 3 if kind == "pearson" else 2


def _array(x: Any) -> FloatArray:
    return np.asarray(x, np.float64)
