"""Non-negative factors of a matrix, whatever computes the products: checks, the start, the results. NumPy alone.

`nmf` and `nmf_host` bring the products as a `Form`.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from weighbridge_kernels.principal_components import EXACT_UP_TO, leading
from weighbridge_kernels.spectral_metrics import gram_floor

FloatArray = npt.NDArray[np.float64]
Factor = npt.NDArray[np.floating[Any]]

_NEGLIGIBLE = 1e-6
"""Entries of a start below this share of the greatest are zero, as in scikit-learn but for the scale."""


@dataclass(frozen=True, slots=True)
class NMF:
    """x [m, n] ~ `w` [m, r] @ `h` [r, n], both non-negative, after `iterations` sweeps.

    `error` is the Frobenius norm of what is left, in units of x; `explained_share` is 1 - error² / norm(x)², NaN where
    x is zero.
    """

    w: Factor
    h: Factor
    error: float
    explained_share: float
    iterations: int


@dataclass(frozen=True, slots=True)
class OneSidedNMF:
    """A signed matrix [others, channels] ~ `spatial` [others, r], signed, @ `channels` [r, channels], non-negative.

    `error` and `explained_share` as of `NMF`, for the signed matrix. With `axis=0` it is the transpose of what
    was given.
    """

    spatial: Factor
    channels: Factor
    error: float
    explained_share: float
    iterations: int


class Form(Protocol):
    """The products of one form of the kernels; see `weighbridge_kernels.nmf` for each."""

    def put(self, x: Any) -> Any: ...
    def extremes(self, x: Any) -> tuple[float, float]: ...
    def gram_of(self, x: Any) -> Any: ...
    def eigenpairs(self, matrix: Any) -> tuple[FloatArray, FloatArray]: ...
    def project(self, x: Any, mean: Any, vectors: Any) -> FloatArray: ...
    def back_project(self, x: Any, mean: Any, vectors: Any) -> FloatArray: ...
    def descend(
        self, x: Any, w: FloatArray, h: FloatArray, iterations: int, tolerance: float
    ) -> tuple[Factor, Factor, int]: ...
    def squared_norms(self, x: Any, w: Factor, h: Factor) -> tuple[float, float]: ...
    def signed_parts(self, x: Any) -> Any: ...


def nmf(form: Form, x: Any, count: int, *, iterations: int, tolerance: float, key: int) -> NMF:
    """See `weighbridge_kernels.nmf.nmf`."""
    check_count(x.shape, count)
    x = form.put(x)
    least, greatest = form.extremes(x)
    check_finite(x, least, greatest)
    check_sign(x, least)
    start = nndsvd(*leading_triplets(form, x, count, key))
    w, h, swept = form.descend(x, *start, iterations, tolerance)
    return NMF(w, h, *error_and_share(*form.squared_norms(x, w, h)), swept)


def one_sided_nmf(
    form: Form, x: Any, count: int, *, axis: int, iterations: int, tolerance: float, key: int
) -> OneSidedNMF:
    """See `weighbridge_kernels.nmf.one_sided_nmf`."""
    check_count((2 * x.shape[1 - axis], x.shape[axis]), count)
    signed = form.put(x).T if axis == 0 else form.put(x)
    check_finite(signed, *form.extremes(signed))
    others = len(signed)
    found = nmf(form, form.signed_parts(signed), count, iterations=iterations, tolerance=tolerance, key=key)
    spatial = found.w[:others] - found.w[others:]
    left = form.squared_norms(signed, spatial, found.h)
    return OneSidedNMF(spatial, found.h, *error_and_share(*left), found.iterations)


def check_count(shape: tuple[int, ...], count: int) -> None:
    """Raises `ValueError` unless a matrix of that shape has a start with `count` factors."""
    if not 1 <= count <= min(shape):
        of = " × ".join(map(str, shape))
        raise ValueError(f"nmf: {count} factors of a matrix of {of}; expected 1 to {min(shape)}: ask for as many")


def check_finite(x: Any, least: float, greatest: float) -> None:
    """Raises `ValueError` unless the extremes of a matrix are finite."""
    if not np.isfinite([least, greatest]).all():
        at, entry, others = _first(x, ~np.isfinite(np.asarray(x)))
        raise ValueError(
            f"nmf: entry {at} is {entry}, and {others} others are NaN or Inf; expected finite entries: replace them"
        )


def check_sign(x: Any, least: float) -> None:
    """Raises `ValueError` if the least entry of a matrix is negative."""
    if least < 0:
        at, entry, others = _first(x, np.asarray(x) < 0)
        raise ValueError(
            f"nmf: entry {at} is {entry}, and {others} others are negative; expected 0 and more: use one_sided_nmf"
        )


def _first(x: Any, wrong: npt.NDArray[np.bool_]) -> tuple[tuple[int, ...], float, int]:
    """Where a wrong entry first is, the entry, and how many others there are."""
    at = tuple(map(int, np.unravel_index(wrong.argmax(), wrong.shape)))
    return at, float(np.asarray(x)[at]), int(wrong.sum()) - 1


def leading_triplets(form: Form, x: Any, count: int, key: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """U [m, count], s [count], V [n, count] of x = U diag(s) V^T; zeros where s is rounding.

    Through the Gram matrix of the short side, or, beyond `EXACT_UP_TO`, `leading` with `key`.
    """
    tall = x.T if x.shape[0] < x.shape[1] else x
    side = tall.shape[1]
    nothing = np.zeros(side)
    if side > EXACT_UP_TO:

        def apply_gram(block: FloatArray) -> FloatArray:
            return form.back_project(tall, nothing, form.project(tall, nothing, block))

        s, _, short = leading(apply_gram, side, count=count, key=key)
    else:
        eigenvalues, vectors = form.eigenpairs(form.gram_of(tall))
        s, short = np.sqrt(np.maximum(eigenvalues[:count], 0)), vectors[:, :count]
    known = s > gram_floor(float(s[0]), side)
    long = form.project(tall, nothing, short) * np.where(known, 1 / np.where(known, s, 1), 0)
    s = np.where(known, s, 0)
    return (short, s, long) if tall is not x else (long, s, short)


def nndsvd(u: FloatArray, s: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray]:
    """W [m, r] and H [r, n] to start from: of each singular pair the half, positive or negative, with the more energy.

    Equivalent to scikit-learn's `init="nndsvd"` but for entries set to 0, here those below 1e-6 of the greatest, so
    that a start scales with its matrix. Source: Boutsidis and Gallopoulos 2008, doi:10.1016/j.patcog.2007.09.010.
    """
    halves = [(np.maximum(sign * u, 0), np.maximum(sign * v, 0)) for sign in (1, -1)]
    energies = [np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0) for a, b in halves]
    positive = energies[0] > energies[1]
    a, b = (np.where(positive, p, n) for p, n in zip(*halves, strict=True))
    a[:, 0], b[:, 0] = np.abs(u[:, 0]), np.abs(v[:, 0])  # of one sign, but for rounding
    scale = np.sqrt(s * np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0))
    return _start(a, scale), _start(b, scale).T


def _start(half: FloatArray, scale: FloatArray) -> FloatArray:
    norms = np.linalg.norm(half, axis=0)
    factor = half * (scale / np.where(norms > 0, norms, 1))
    return np.where(factor < _NEGLIGIBLE * factor.max(), 0, factor)


def error_and_share(left: float, whole: float) -> tuple[float, float]:
    """Root of the squares left, and 1 less their share of the whole; NaN for a whole of 0."""
    return float(np.sqrt(left)), 1 - left / whole if whole > 0 else np.nan
