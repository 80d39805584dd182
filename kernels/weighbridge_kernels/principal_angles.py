"""Angles between the column spaces of matrices: how much of what one head or expert reads or writes another does.

Björck and Golub 1973, "Numerical methods for computing angles between linear subspaces", doi:10.2307/2005662: cosines
are the singular values of Q1'Q2; those of angles below 45° say little, so these come from sines. NumPy alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SubspaceOverlaps:
    """Between the column spaces of all pairs of matrices; angles in radians, NaN where one is of rank 0.

    `mean_squared_cosine[i, j]` is ‖Qi'Qj‖² over the lesser rank: 1 where one space lies in the other, and on average
    max(rank i, rank j) / d for spaces in random position in R^d (`expected`).
    """

    mean_squared_cosine: FloatArray
    least_angle: FloatArray
    greatest_angle: FloatArray
    ranks: npt.NDArray[np.int64]
    expected: FloatArray


def orthonormal_basis(x: npt.NDArray[Any]) -> FloatArray:
    """An orthonormal basis of the column space of x [d, k], in float64.

    Directions with singular values up to max(d, k) · eps of the greatest are none: eps is that of float32, or of
    float64 for matrices of that. Raises numpy.linalg.LinAlgError for NaN or Inf.
    """
    if x.size == 0:
        return np.empty((x.shape[0], 0))
    eps = np.finfo(np.float64 if x.dtype == np.float64 else np.float32).eps
    left, values, _ = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    return left[:, values > max(x.shape) * float(eps) * values[0]]


def principal_angles(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> FloatArray:
    """Angles between the column spaces of a [d, k] and b [d, l], least first, in radians: as many as the lesser rank.

    Right to some eps of float64 for small angles too. See `orthonormal_basis` for ranks and NaN.
    """
    return _angles(orthonormal_basis(a), orthonormal_basis(b))


def _angles(p: FloatArray, q: FloatArray) -> FloatArray:
    if p.shape[1] < q.shape[1]:
        p, q = q, p
    products = p.T @ q
    cosines = np.clip(np.linalg.svd(products, compute_uv=False), 0, 1)
    sines = np.clip(np.linalg.svd(q - p @ products, compute_uv=False)[::-1][: cosines.size], 0, 1)
    angles: FloatArray = np.where(cosines**2 >= 0.5, np.arcsin(sines), np.arccos(cosines))
    return angles


def subspace_overlaps(matrices: npt.NDArray[Any]) -> SubspaceOverlaps:
    """Principal angles of all pairs of a stack [h, d, k] summed up; two small singular value problems a pair."""
    bases = [orthonormal_basis(x) for x in matrices]
    h, d = matrices.shape[:2]
    ranks = np.array([basis.shape[1] for basis in bases], np.int64)
    squared, least, greatest = (np.full((h, h), np.nan) for _ in range(3))
    for i in range(h):
        for j in range(i, h):
            angles = _angles(bases[i], bases[j])
            if angles.size:
                squared[i, j] = squared[j, i] = np.square(np.cos(angles)).mean()
                least[i, j] = least[j, i] = angles[0]
                greatest[i, j] = greatest[j, i] = angles[-1]
    expected = np.where(np.isnan(squared), np.nan, np.maximum.outer(ranks, ranks) / max(d, 1))
    return SubspaceOverlaps(squared, least, greatest, ranks, expected)
