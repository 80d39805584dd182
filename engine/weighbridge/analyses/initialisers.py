"""Whether a tensor still looks as an initialiser draws it: its first four moments, within sampling noise."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_SIGMAS = 4.0
"""How many standard errors a moment may lie off."""
_ROUNDED = 1.005
"""How far storing in 16 bits may move the greatest magnitude and the standard deviation, as a factor, and then some."""
_FEWEST = 4096
"""Entries below which chance alone finds a match."""


class _Law(NamedTuple):
    """A distribution scaled to a standard deviation of 1: its excess kurtosis and its greatest magnitude."""

    name: str
    kurtosis: float
    bound: float


_LAWS = (
    _Law("flat to", -1.2, math.sqrt(3)),
    _Law("normal cut at", -0.6344632828703505, 2 / 0.8796256610342398),
    _Law("normal", 0.0, math.inf),
)


def initialiser(row: Mapping[str, Any]) -> str | None:
    """What drew the tensor of a row of `scan`, or None where it does not look drawn.

    Norms and biases are as initialised where every entry is 0 or every entry is 1. A matrix is where mean, standard
    deviation, skewness and kurtosis are those of a usual initialiser (normal(0.02); Glorot and Bengio 2010; He et al.
    2015; LeCun et al. 1998; PyTorch's default) within 4 standard errors, for its fan in or out on either side.
    """
    if row["role"] in ("norm", "bias"):
        same = row["count"] > 1 and row["min"] is not None and row["min"] == row["max"]
        return f"every entry is {row['min']:g}" if same and row["min"] in (0, 1) else None
    if len(row["shape"]) < 2 or row["count"] < _FEWEST or not row["std"] or row["kurtosis"] is None:
        return None
    error = _SIGMAS / math.sqrt(row["count"])
    if abs(row["mean"]) > error * row["std"] or abs(row["skewness"]) > error * math.sqrt(6):
        return None
    for law in _LAWS:
        if abs(row["kurtosis"] - law.kurtosis) > error * math.sqrt(24):
            continue
        for width, name in _widths(row["shape"]):
            slack = error * math.sqrt((law.kurtosis + 2) / 4) + 2e-4  # of a standard deviation's own estimate
            if abs(row["std"] / width - 1) < slack and row["absmax"] <= width * law.bound * _ROUNDED:
                at = f" ±{row['absmax']:.3g}" if law.bound < math.inf else ""
                return f"{law.name}{at} with std {row['std']:.4g}, as {name} draws it"
    return None


def _widths(shape: Sequence[int]) -> Iterator[tuple[float, str]]:
    """Standard deviations of the usual initialisers, for either end of a matrix and either layout of a kernel."""
    yield 0.02, "normal(0.02)"
    for fan_in, fan_out in _fans(shape):
        yield math.sqrt(2 / (fan_in + fan_out)), "Xavier"
        for fan in {fan_in, fan_out}:
            yield math.sqrt(1 / fan), "LeCun"
            yield math.sqrt(2 / fan), "He"
            yield math.sqrt(1 / (3 * fan)), "PyTorch's default"


def _fans(shape: Sequence[int]) -> set[tuple[int, int]]:
    space_last, space_first = math.prod(shape[2:]), math.prod(shape[:-2])
    return {
        (shape[1] * space_last, shape[0] * space_last),
        (shape[-2] * space_first, shape[-1] * space_first),
    }
