"""Reductions of the blocks that a matrix is cut into, and how four blocks become one. NumPy alone.

Level 0 of a pyramid has blocks of 8 × 8 entries; the blocks of every further level are twice as wide and high. Blocks
at the right and lower edge may be cut short.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

BASE = 8
"""Side of a block of level 0, in entries."""
SMALL, LARGE, SHIFT = 2.0**-450, 2.0**450, 2.0**600
"""A float64 block whose greatest magnitude is out of these bounds is scaled by `SHIFT` so that its squares exist."""

Grid = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Blocks:
    """One level: for each block the extremes, mean and root mean square of its finite entries, and counts.

    `least` and `greatest` are values of the matrix, as they are; `mean` and `rms` in its units, float32 (float64 of a
    float64 matrix). Where a block has no finite entry these four are 0. `zeros` (±0), `nan` and `inf` count entries.
    """

    least: Grid
    greatest: Grid
    mean: Grid
    rms: Grid
    zeros: Grid
    nan: Grid
    inf: Grid

    @property
    def shape(self) -> tuple[int, int]:
        """Blocks down and across."""
        rows, cols = self.least.shape
        return rows, cols

    def __getitem__(self, at: tuple[slice, slice]) -> "Blocks":
        return Blocks(*(grid[at] for grid in self))

    def __iter__(self) -> Iterator[Grid]:
        return (getattr(self, field.name) for field in fields(self))


def entries(shape: tuple[int, int], side: int) -> npt.NDArray[np.int64]:
    """How many entries each block of `side` × `side` has in a matrix of that shape."""
    rows, cols = (np.minimum(side, extent - np.arange(0, extent, side)) for extent in shape)
    return np.multiply.outer(rows, cols)


def coarsened(blocks: Blocks, counts: npt.NDArray[np.int64]) -> Blocks:
    """The next level: every two by two blocks as one. `counts` are the entries of the blocks (`entries`).

    Extremes and counts are exact; means and squares are weighted by the finite entries and added in float64.
    """
    n = counts - blocks.nan - blocks.inf
    weight = n / max(4 * int(n.max(initial=0)), 1)  # sums of four stay in range
    total = _paired(np.add, weight)
    share = np.where(total, total, 1)
    least, greatest = _limits(blocks.least.dtype)
    return Blocks(
        np.where(total, _paired(np.minimum, np.where(n, blocks.least, greatest)), blocks.least.dtype.type(0)),
        np.where(total, _paired(np.maximum, np.where(n, blocks.greatest, least)), blocks.greatest.dtype.type(0)),
        (_paired(np.add, weight * blocks.mean) / share).astype(blocks.mean.dtype),
        (_root_of_squares(blocks.rms, weight) / np.sqrt(share)).astype(blocks.rms.dtype),
        _paired(np.add, blocks.zeros),
        _paired(np.add, blocks.nan),
        _paired(np.add, blocks.inf),
    )


def _root_of_squares(rms: Grid, weight: Grid) -> Grid:
    """Of each four by their weights; float64's squares may not exist."""
    if rms.dtype == np.float64:
        return _paired(np.hypot, np.sqrt(weight) * rms)
    return np.sqrt(_paired(np.add, weight * np.square(rms, dtype=np.float64)))


def _paired(combine: np.ufunc, grid: Grid) -> Grid:
    for axis in (0, 1):
        across = grid.swapaxes(0, axis)
        pairs = combine(across[0:-1:2], across[1::2])
        last = across[-1:] if len(across) % 2 else across[:0]
        grid = np.concatenate([pairs, last]).swapaxes(0, axis)
    return grid


def _limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Values that no entry is below and above."""
    if dtype.kind == "f":
        return dtype.type(-np.inf), dtype.type(np.inf)
    information = np.iinfo(dtype)
    return dtype.type(information.min), dtype.type(information.max)
