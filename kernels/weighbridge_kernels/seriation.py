"""An order of rows in which similar ones are neighbours, for pictures of similarity matrices.

Hierarchical where the matrix of all pairs fits: average linkage on 1 - s, and for fewer rows the leaf order of
Bar-Joseph et al. 2001, doi:10.1093/bioinformatics/17.suppl_1.S22. More rows are parted by spectral bisection first: in
the order of the Fiedler vector (Atkins et al. 1998, "A spectral algorithm for seriation and the consecutive ones
problem", doi:10.1137/S0097539795285771), at the least normalised cut (Shi and Malik 2000, doi:10.1109/34.868688), from
which rows then change to the side whose mean is nearer. NumPy, and SciPy within functions.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Order = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

HIERARCHICAL_ROWS = 4096
OPTIMAL_ROWS = 1024
"""Rows up to which leaves are ordered optimally: 1.5 s here, 22 s for twice as many."""
_FEW = 8
_OFF_ENDS = 10
"""A side has at least a tenth of the rows, so that bisections are few."""
_CHANGES = 8
_BLOCK = 4096
_TOLERANCE = 1e-6


def seriation(
    units: npt.NDArray[Any], *, key: int = 0, hierarchical_rows: int = HIERARCHICAL_ROWS
) -> npt.NDArray[np.int32]:
    """A permutation of the rows: `units[order]` has similar rows next to each other.

    Units are rows of norm 1 or 0; those of zeros, which have no direction, come last, in their order. Up to
    `hierarchical_rows` rows hierarchical, beyond by bisection until parts are that small; parts keep the order of the
    bisection, and each runs in its direction. `key` seeds its eigenvectors: the same key, the same order; a mirrored
    order is as good. All in float64. A bisection parts one of some dozen groups now and then, if it lies between both
    sides.
    """
    live = units.any(axis=1)
    (rows,), (dead,) = np.nonzero(live), np.nonzero(~live)
    order = _ordered(units[rows], max(hierarchical_rows, _FEW), key)
    return np.concatenate([rows[order], dead]).astype(np.int32)


def _ordered(units: npt.NDArray[Any], most: int, key: int) -> Order:
    if units.shape[0] <= most:
        return _hierarchical(units)
    order = _fiedler_order(units, key)
    first = _nearer(units[order], np.arange(order.size) < _least_cut(units[order]))
    parts = order[first], order[~first]
    return np.concatenate([part[_along(_ordered(units[part], most, key))] for part in parts])


def _along(order: Order) -> Order:
    """The order or its mirror image, whichever rather runs up."""
    places = np.arange(order.size) - (order.size - 1) / 2
    return order if places @ order >= 0 else order[::-1]


def _hierarchical(units: npt.NDArray[Any]) -> Order:
    from scipy.cluster.hierarchy import leaves_list, linkage

    n = units.shape[0]
    if n < 2:
        return np.arange(n)
    y = units.astype(np.float64)
    distances = np.maximum(1 - (y @ y.T)[np.triu_indices(n, 1)], 0)
    tree = linkage(distances, method="average", optimal_ordering=n <= OPTIMAL_ROWS)
    return np.asarray(leaves_list(tree), np.int64)


def _fiedler_order(units: npt.NDArray[Any], key: int) -> Order:
    """By the second eigenvector of D^-1/2 W D^-1/2 with weights W = (1 + s) / 2, D their sums, over sqrt(D).

    W v = (1 (1'v) + U (U'v)) / 2: rows are only applied, never all pairs of them.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    n = units.shape[0]

    def weights(v: FloatArray) -> FloatArray:
        applied: FloatArray = (v.sum() + _applied(units, v)) / 2
        return applied

    root = np.sqrt(weights(np.ones(n)))
    operator = LinearOperator((n, n), matvec=lambda v: weights(v.ravel() / root) / root, dtype=np.float64)
    start = np.random.default_rng(key).standard_normal(n)
    values, vectors = eigsh(operator, k=2, which="LA", v0=start, tol=_TOLERANCE)
    return np.argsort(vectors[:, np.argmin(values)] / root, kind="stable")


def _applied(units: npt.NDArray[Any], v: FloatArray) -> FloatArray:
    """U (U'v), a block of rows in float64 at a time."""
    blocks = [slice(start, start + _BLOCK) for start in range(0, units.shape[0], _BLOCK)]
    total = sum(v[block] @ units[block].astype(np.float64) for block in blocks)
    return np.concatenate([units[block].astype(np.float64) @ total for block in blocks])


def _least_cut(units: npt.NDArray[Any]) -> int:
    """How many of the first rows to part from the others, by the least weight across over that within each side.

    Weights across two sets add up to (|A| |B| + sum A · sum B) / 2, so that running sums give them all.
    """
    n = units.shape[0]
    total = units.sum(axis=0, dtype=np.float64)
    running = np.zeros(units.shape[1])
    with_all, within = np.empty(n), np.empty(n)
    for start in range(0, n, _BLOCK):
        sums = running + np.cumsum(units[start : start + _BLOCK], axis=0, dtype=np.float64)
        running = sums[-1]
        with_all[start : start + _BLOCK], within[start : start + _BLOCK] = sums @ total, np.square(sums).sum(axis=1)
    size = np.arange(1, n + 1)
    across, volume = size * (n - size) + with_all - within, size * n + with_all
    candidates = slice(max(n // _OFF_ENDS, 1) - 1, n - max(n // _OFF_ENDS, 1))
    cuts = (across / volume)[candidates] + across[candidates] / (volume[-1] - volume[candidates])
    return int(np.argmin(cuts)) + int(candidates.start) + 1


def _nearer(units: npt.NDArray[Any], first: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Two sides after some steps of 2-means: groups at one place of the vector, which were parted, join again."""
    for _ in range(_CHANGES):
        a, b = (units[side].mean(axis=0, dtype=np.float64) for side in (first, ~first))
        nearer = units @ (a - b) > (a @ a - b @ b) / 2
        least = min(nearer.sum(), (~nearer).sum())
        if least < max(units.shape[0] // _OFF_ENDS, 1) or (nearer == first).all():
            break
        first = nearer
    return first
