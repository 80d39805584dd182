"""The density of the singular values of a matrix too large to decompose, by stochastic Lanczos quadrature.

Source: Ubaru, Chen and Saad 2017, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature",
doi:10.1137/16M1104974. NumPy and SciPy. matfree has a traced form, which holds the matrix whole, and gives NaN where
a Krylov space is exhausted (a zero matrix, the identity, a low rank). Here the matrix is read strip by strip, all
probes share each pass over it, and an exhausted one goes on with zeros, which carry no weight.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_EXHAUSTED = 1e-10
"""Of the greatest step so far: what is left of a direction below this is rounding."""


@dataclass(frozen=True, slots=True)
class LanczosQuadrature:
    """For each probe, a row, the `nodes` (singular values) and `weights` (summing to 1) of its quadrature."""

    nodes: FloatArray
    weights: FloatArray


@dataclass(frozen=True, slots=True)
class SpectralDensity:
    """The smoothed `density` of the singular values `at` points, and its standard `error` over the probes."""

    at: FloatArray
    density: FloatArray
    error: FloatArray


def lanczos_quadrature(
    apply_gram: Callable[[FloatArray], FloatArray], side: int, *, probes: int, steps: int, key: int
) -> LanczosQuadrature:
    """Quadratures of the spectrum of a matrix X with a short `side`, from random signs that `key` seeds.

    `apply_gram(block)` is X.T @ (X @ block), called at most `steps` times on a block of `probes` columns. Lanczos with
    full orthogonalisation, in float64; `steps` nodes a probe, fewer where the side is shorter.
    """
    from scipy.linalg import eigh_tridiagonal

    steps = min(steps, side)
    signs = np.random.default_rng(key).integers(0, 2, (side, probes)) * 2.0 - 1
    basis = np.zeros((steps, side, probes))
    basis[0] = signs / np.sqrt(side)
    diagonal, beside = np.zeros((probes, steps)), np.zeros((probes, steps - 1))
    greatest = np.zeros(probes)
    for j in range(steps):
        image = apply_gram(basis[j])
        diagonal[:, j] = (basis[j] * image).sum(axis=0)
        rest = _orthogonal(image, basis[: j + 1])
        length = np.linalg.norm(rest, axis=0)
        greatest = np.maximum(greatest, np.linalg.norm(image, axis=0))
        live = length > _EXHAUSTED * greatest
        if j + 1 == steps or not live.any():
            break
        basis[j + 1] = np.where(live, rest / np.where(live, length, 1), 0)
        beside[:, j] = np.where(live, length, 0)
    found = [eigh_tridiagonal(*of_probe, lapack_driver="stev") for of_probe in zip(diagonal, beside, strict=True)]
    nodes = np.sqrt(np.maximum([eigenvalues for eigenvalues, _ in found], 0))
    return LanczosQuadrature(nodes, np.square([vectors[0] for _, vectors in found]))


def _orthogonal(block: FloatArray, basis: FloatArray) -> FloatArray:
    """What each probe's column adds to its own basis, twice projected."""
    for _ in range(2):
        block = block - np.einsum("jnp,jp->np", basis, np.einsum("jnp,np->jp", basis, block))
    return block


def smoothed_density(quadrature: LanczosQuadrature, at: FloatArray, width: float) -> SpectralDensity:
    """The density smoothed by a Gaussian of a standard deviation `width`: mean over the probes and its standard error.

    An estimate of `exp(-((at[:, None] - s) / width) ** 2 / 2).mean(axis=1) / (width * sqrt(2 pi))` over all singular
    values s. The error is that of chance alone; the quadrature's own vanishes as steps grow.
    """
    bumps = gaussian((at[:, None, None] - quadrature.nodes) / width) / width
    each = (bumps * quadrature.weights).sum(axis=2)
    return SpectralDensity(at, each.mean(axis=1), each.std(axis=1, ddof=1) / np.sqrt(each.shape[1]))


def gaussian(x: FloatArray) -> FloatArray:
    """The density of the standard normal law."""
    bell: FloatArray = np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    return bell
