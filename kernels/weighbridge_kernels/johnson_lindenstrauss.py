"""How far a random projection may be off: the lemma of Johnson and Lindenstrauss, and the law of its entries.

Source: Dasgupta and Gupta 2003, "An elementary proof of a theorem of Johnson and Lindenstrauss",
doi:10.1002/rsa.10073; sparse entries: Achlioptas 2003, "Database-friendly random projections",
doi:10.1016/S0022-0000(03)00025-4. NumPy alone.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np

Law = Literal["gaussian", "sparse"]
"""Entries of variance 1 / dimensions: normal; or 0 in two of three, else of one magnitude and either sign."""

LINES = 4096
"""Lines of a projection matrix [d, k] that are drawn together, from the key and their place."""


def blocks(cols: int) -> Iterator[tuple[int, slice]]:
    """The number and the extent of each group of lines."""
    return ((number, slice(start, min(start + LINES, cols))) for number, start in enumerate(range(0, cols, LINES)))


def distortion(rows: int, dimensions: int) -> float:
    """The least e at which some projection keeps all squared distances of `rows` points within 1 - e and 1 + e.

    The root of e² / 2 - e³ / 3 = 4 log(rows) / dimensions, by bisection; one random projection in `rows`, at least,
    does so. 0 for fewer than two rows; infinite where no e below 1 will do.
    """
    if rows < 2:
        return 0.0
    wanted = 4 * np.log(rows) / dimensions
    if wanted >= _strength(1.0):
        return np.inf
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _strength(middle) < wanted else (low, middle)
    return high


def dimensions_for(rows: int, distortion: float) -> int:
    """The fewest dimensions whose `distortion` for so many rows is at most that given, in (0, 1)."""
    if not 0 < distortion < 1:
        raise ValueError(f"random_projection: a distortion of {distortion}; expected one between 0 and 1, as 0.1")
    return max(int(np.ceil(4 * np.log(max(rows, 1)) / _strength(distortion))), 1)


def check(dimensions: int, law: str) -> None:
    """Raises `ValueError` for fewer than one dimension and for a law that is not known."""
    if dimensions < 1:
        raise ValueError(f"random_projection: {dimensions} dimensions; expected at least 1")
    if law not in ("gaussian", "sparse"):
        raise ValueError(f"random_projection: a law of {law!r}; expected 'gaussian' or 'sparse'")


def _strength(e: float) -> float:
    return e * e / 2 - e**3 / 3
