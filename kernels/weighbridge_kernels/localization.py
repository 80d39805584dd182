"""Which entries carry a vector: how many, and the greatest of them. NumPy alone."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Localization:
    """Of some vectors, a row each.

    `participation` is sum(v²)² / sum(v⁴): 1 where one entry carries all, n where n carry alike, a third of the length
    for independent Gaussian entries. `carriers` are the entries of greatest magnitude, that first, `loadings` their
    values.
    """

    participation: FloatArray
    carriers: npt.NDArray[np.int64]
    loadings: FloatArray


def localization(vectors: FloatArray, count: int) -> Localization:
    """Of the columns of `vectors`, with up to `count` carriers each; a zero vector participates with 0."""
    squares = np.square(vectors)
    energy = squares.sum(axis=0)
    fourth = np.square(squares).sum(axis=0)
    carriers = np.argsort(-squares, axis=0, kind="stable")[:count].T
    loadings = np.take_along_axis(vectors.T, carriers, axis=1)
    return Localization(energy**2 / np.where(fourth > 0, fourth, 1), carriers, loadings)
