"""An order of rows in which similar ones are neighbours, for pictures of similarity matrices.

Hierarchical where the matrix of all pairs fits: average linkage on 1 - s, and for fewer rows the leaf order of
Bar-Joseph et al. 2001, doi:10.1093/bioinformatics/17.suppl_1.S22. More rows are first gathered about a thousand centres
(spherical k-means, Dhillon and Modha 2001, doi:10.1023/A:1007612920971), which are ordered so, and within each its own
rows. NumPy, and SciPy within functions.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Order = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]

HIERARCHICAL_ROWS = 4096
OPTIMAL_ROWS = 1024
"""Rows up to which leaves are ordered optimally: 1.5 s here, 22 s for twice as many."""
_ROWS_A_CENTRE = 4
_STEPS = 6
_BLOCK = 4096


def seriation(
    units: npt.NDArray[Any], *, key: int = 0, hierarchical_rows: int = HIERARCHICAL_ROWS
) -> npt.NDArray[np.int32]:
    """A permutation of the rows: `units[order]` has similar rows next to each other.

    Units are rows of norm 1 or 0; those of zeros, which have no direction, come last, in their order. Up to
    `hierarchical_rows` rows hierarchical, beyond by up to 1,024 centres: groups that are larger than the rows of a
    centre (n / 1,024, at least 4) stay whole. `key` seeds the centres: the same key, the same order; a mirrored order
    is as good. Linkage in float64, assignment to centres in float32.
    """
    live = units.any(axis=1)
    (rows,), (dead,) = np.nonzero(live), np.nonzero(~live)
    hierarchical = rows.size <= hierarchical_rows
    order = _hierarchical(units[rows]) if hierarchical else _by_centres(units[rows], key, hierarchical_rows)
    return np.concatenate([rows[order], dead]).astype(np.int32)


def _hierarchical(units: npt.NDArray[Any]) -> Order:
    from scipy.cluster.hierarchy import leaves_list, linkage

    n = units.shape[0]
    if n < 2:
        return np.arange(n)
    y = units.astype(np.float64)
    distances = np.maximum(1 - (y @ y.T)[np.triu_indices(n, 1)], 0)
    tree = linkage(distances, method="average", optimal_ordering=n <= OPTIMAL_ROWS)
    return np.asarray(leaves_list(tree), np.int64)


def _by_centres(units: npt.NDArray[Any], key: int, most: int) -> Order:
    """The rows of one centre after those of another, each run in the direction from the last centre to the next."""
    centres, labels = _centres(units, key)
    path = _hierarchical(centres)
    found = []
    for place, centre in enumerate(path):
        (rows,) = np.nonzero(labels == centre)
        run = rows[_hierarchical(units[rows])] if rows.size <= most else rows
        along = centres[path[min(place + 1, path.size - 1)]] - centres[path[max(place - 1, 0)]]
        found.append(run if units[run[-1]] @ along >= units[run[0]] @ along else run[::-1])
    return np.concatenate(found)


def _centres(units: npt.NDArray[Any], key: int) -> tuple[Float32Array, Order]:
    """Directions about which the rows gather, none without rows, and the one that each row is nearest to."""
    n = units.shape[0]
    count = min(OPTIMAL_ROWS, max(n // _ROWS_A_CENTRE, 1))
    drawn = np.random.default_rng(key).choice(n, count, replace=False)
    centres = units[np.sort(drawn)].astype(np.float32)
    for _ in range(_STEPS):
        labels = _nearest(units, centres)
        by_label = np.argsort(labels, kind="stable")
        starts = np.flatnonzero(np.diff(labels[by_label], prepend=-1))
        sums = np.add.reduceat(units[by_label], starts, axis=0, dtype=np.float64)
        lengths = np.linalg.norm(sums, axis=1)
        centres = (sums[lengths > 0] / lengths[lengths > 0, None]).astype(np.float32)
    labels = _nearest(units, centres)
    held, labels = np.unique(labels, return_inverse=True)
    return centres[held], labels


def _nearest(units: npt.NDArray[Any], centres: Float32Array) -> Order:
    """The centre of greatest cosine for each row, a block of rows at a time."""
    blocks = [units[start : start + _BLOCK].astype(np.float32) for start in range(0, units.shape[0], _BLOCK)]
    return np.concatenate([(block @ centres.T).argmax(axis=1) for block in blocks])
