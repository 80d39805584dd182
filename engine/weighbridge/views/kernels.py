"""What the pictures of kernels share: a shape to hold to, and norms to go by."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument

FloatArray = npt.NDArray[np.float64]
Icons = Mapping[int, npt.NDArray[Any]]
"""Pictures [h, w, 3] in [0, 1] of units, by their channels."""


def checked(kernel: npt.ArrayLike, axes: str = "[h, w, in, out]") -> FloatArray:
    """The kernel in float64. Raises `BadArgument` for another number of axes and a side of 0."""
    weights = np.asarray(kernel, np.float64)
    if weights.ndim != axes.count(",") + 1 or 0 in weights.shape:
        raise BadArgument(f"weights of shape {weights.shape}; expected {axes}, none of them 0")
    return weights


def check_channels(channels: Iterable[int], count: int, what: str) -> None:
    """Raises `BadArgument` for a channel that is not there."""
    wrong = [channel for channel in channels if not 0 <= channel < count]
    if wrong:
        raise BadArgument(f"{what} {wrong[0]}; expected 0 to {count - 1}")


def norms(kernel: FloatArray) -> FloatArray:
    """L2 norms over space, [in, out]."""
    sizes: FloatArray = np.sqrt(np.square(kernel).sum(axis=(0, 1)))
    return sizes


def strongest(values: FloatArray, count: int) -> list[int]:
    """Where the greatest magnitudes are, greatest first."""
    return [int(i) for i in np.argsort(-np.abs(values), kind="stable")[:count]]


def squared(vector: FloatArray) -> FloatArray:
    """A vector as a picture: row by row in about a square, NaN behind its end."""
    side = int(np.ceil(np.sqrt(len(vector))))
    rows = -(-len(vector) // side)
    return np.concatenate([vector, np.full(rows * side - len(vector), np.nan)]).reshape(rows, side)
