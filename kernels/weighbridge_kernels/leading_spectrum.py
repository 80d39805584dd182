"""The greatest singular values of a matrix too large to decompose whole, each with a bound on its error.

Block Lanczos on the Gram matrix of the short side, with full orthogonalisation: Golub and Underwood 1977, "The block
Lanczos method for computing eigenvalues", doi:10.1016/B978-0-12-587260-7.50018-2; why few passes suffice: Musco and
Musco 2015, arXiv 1504.05477. NumPy alone; the matrix is only ever applied, one pass over it a step.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class LeadingSpectrum:
    """Singular values, greatest first, in units of the weights; a true one lies within `bounds[i]` of `values[i]`.

    `vectors` are the singular vectors of the short side, one a column.
    """

    values: FloatArray
    bounds: FloatArray
    vectors: FloatArray


def leading_spectrum(
    apply_gram: Callable[[FloatArray], FloatArray], side: int, *, count: int, passes: int, key: int
) -> LeadingSpectrum:
    """The `count` greatest singular values of a matrix X with a short `side`.

    `apply_gram(block)` is X.T @ (X @ block) for a block of columns, called `passes` times. `key` seeds the first block:
    the same key gives the same numbers. The bound follows from the residual r = ‖G v - λ v‖ of an eigenvalue λ of the
    Gram matrix G, with side · eps of the greatest for rounding: r / sqrt(λ), or sqrt(r) where that is smaller; it holds
    for some singular value. No more values come back than the space spanned has, and at most `side`.
    """
    width = min(2 * count, side)
    basis = [np.linalg.qr(np.random.default_rng(key).standard_normal((side, width)))[0]]
    images = [apply_gram(basis[0])]
    for _ in range(passes - 1):
        fresh = _orthogonal(images[-1], np.hstack(basis))
        if fresh.shape[1] == 0:
            break
        basis.append(fresh)
        images.append(apply_gram(fresh))
    q, z = np.hstack(basis), np.hstack(images)
    eigenvalues, turned = np.linalg.eigh((q.T @ z + z.T @ q) / 2)
    eigenvalues, turned = np.maximum(eigenvalues[::-1][:count], 0), turned[:, ::-1][:, :count]
    vectors = q @ turned
    residuals = np.linalg.norm(z @ turned - vectors * eigenvalues, axis=0) + side * _EPS * eigenvalues.max(initial=0)
    values = np.sqrt(eigenvalues)
    bounds = np.minimum(np.sqrt(residuals), residuals / np.maximum(values, 1e-300))
    return LeadingSpectrum(values, bounds, vectors)


def _orthogonal(block: FloatArray, basis: FloatArray) -> FloatArray:
    """An orthonormal basis of what a block adds to one, twice projected; directions within rounding add nothing."""
    size = float(np.linalg.norm(block))
    for _ in range(2):
        block = block - basis @ (basis.T @ block)
    left, singular, _ = np.linalg.svd(block, full_matrices=False)
    room = basis.shape[0] - basis.shape[1]
    kept = left[:, singular > 1e-12 * max(size, 1e-300)][:, :room]
    orthogonal: FloatArray = kept - basis @ (basis.T @ kept)
    return orthogonal
