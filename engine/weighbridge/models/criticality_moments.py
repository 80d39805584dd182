"""Mean and spread of arrays over examples: states that merge in float64, so that any cut gives the same."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """Of `count` examples the mean, and the sum of squared deviations from it; both float64, of one shape."""

    count: int
    mean: FloatArray
    squares: FloatArray

    @property
    def error(self) -> FloatArray:
        """Standard error of the mean, sqrt(squares / (n (n - 1))); NaN for fewer than two examples."""
        if self.count < 2:
            return np.full_like(self.mean, np.nan)
        return np.asarray(np.sqrt(self.squares / (self.count * (self.count - 1))))

    @property
    def value(self) -> FloatArray:
        """The mean; NaN without examples."""
        return self.mean if self.count else np.full_like(self.mean, np.nan)


def empty(shape: tuple[int, ...]) -> Moments:
    """The state of no example."""
    return Moments(0, np.zeros(shape), np.zeros(shape))


def summarize(values: npt.NDArray[np.floating]) -> Moments:
    """The state of some examples, which lie along the first axis."""
    if not len(values):
        return empty(values.shape[1:])
    wide = values.astype(np.float64)
    mean = wide.mean(axis=0)
    return Moments(len(wide), mean, ((wide - mean) ** 2).sum(axis=0))


def merge(a: Moments, b: Moments) -> Moments:
    """The state of the examples of both.

    Source: Pébay 2008, Sandia report SAND2008-6212, equations 1.3 and 1.4.
    """
    if not a.count or not b.count:
        return a if a.count else b
    count = a.count + b.count
    away = b.mean - a.mean
    mean = a.mean + away * (b.count / count)
    return Moments(count, mean, a.squares + b.squares + away**2 * (a.count * b.count / count))
