"""Principal components of rows, whatever computes the products: the streamed state, three routes, the result.

`pca` and `pca_host` bring the products as a `Form`. NumPy alone.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from weighbridge_kernels.leading_spectrum import leading_spectrum
from weighbridge_kernels.spectral_metrics import gram_floor

FloatArray = npt.NDArray[np.float64]
Route = Literal["scatter", "rows", "lanczos"]
Strips = Callable[[], Iterable[Any]]
"""Gives a matrix from its start in strips of its long side: whole rows where it is tall, whole columns where wide."""

EXACT_UP_TO = 8192
"""Short side beyond which the leading components alone are sought: all would take minutes and half a gigabyte."""
PASSES = 12
"""Times that a matrix with a short side beyond `EXACT_UP_TO` is multiplied. With `OVERSAMPLING`, subspaces come within
1e-6 where the next singular value is 0.7 of the last kept and the others lie closely below it."""
OVERSAMPLING = 4
"""Vectors sought beyond those asked for, without which a single one now and then starts out of luck."""


@dataclass(frozen=True, slots=True)
class Scatter:
    """Of `count` rows: the mean [d] and the sum over them of (x - mean)(x - mean)^T [d, d], in float64."""

    count: int
    mean: Any
    scatter: Any


@dataclass(frozen=True, slots=True)
class Spread:
    """Of `count` rows: the mean [d] and the sum of all squared deviations from it, in float64."""

    count: int
    mean: FloatArray
    squares: float


@dataclass(frozen=True, slots=True)
class PCA:
    """Principal components of `count` rows of d entries about their mean, greatest variance first.

    `components` [c, d] are orthonormal rows, each with its entry of greatest magnitude positive (the first of equals).
    `singular_values` [c] are those of the centred rows, in their units; a true one lies within `bounds[i]` of
    `singular_values[i]`. `explained_variance` is their square over count - 1 (over 1 for a single row), and
    `total_variance` the sum over all components, found or not; `explained_variance_ratio` is NaN where that is 0.
    """

    mean: FloatArray
    components: FloatArray
    explained_variance: FloatArray
    explained_variance_ratio: FloatArray
    total_variance: float
    singular_values: FloatArray
    bounds: FloatArray
    count: int
    route: Route

    @property
    def loadings(self) -> FloatArray:
        """`components` [c, d] times the standard deviation along each: covariances with the standardised scores."""
        return self.components * np.sqrt(self.explained_variance)[:, None]


class Form(Protocol):
    """The products of one form of the kernels; see `weighbridge_kernels.pca` for each."""

    def summarize(self, chunk: Any) -> Scatter: ...
    def merge(self, a: Scatter, b: Scatter) -> Scatter: ...
    def spread(self, chunk: Any) -> Spread: ...
    def add_row_gram(self, total: Any, strip: Any, mean: Any) -> Any: ...
    def project(self, x: Any, mean: Any, vectors: Any) -> FloatArray: ...
    def back_project(self, x: Any, mean: Any, vectors: Any) -> FloatArray: ...
    def eigenpairs(self, matrix: Any) -> tuple[FloatArray, FloatArray]: ...


def merged(a: Scatter, b: Scatter) -> Scatter:
    """The state of both sets of rows together, exact up to rounding in float64.

    Source: Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance"; Pébay 2008, SAND2008-6212.
    """
    if a.count == 0 or b.count == 0:
        return b if a.count == 0 else a
    n, step = a.count + b.count, b.mean - a.mean
    between = (step * (a.count / n * b.count))[:, None] * step[None, :]
    return Scatter(n, a.mean + step * (b.count / n), a.scatter + b.scatter + between)


def spread_of_both(a: Spread, b: Spread) -> Spread:
    """`merged` for the trace of the scatter alone."""
    n, step = a.count + b.count, b.mean - a.mean
    share = b.count / max(n, 1)
    return Spread(n, a.mean + step * share, a.squares + b.squares + float(step @ step) * a.count * share)


def leading(
    apply_gram: Callable[[FloatArray], FloatArray], side: int, *, count: int, key: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Singular values, bounds and vectors, one a column, by `PASSES` of `leading_spectrum` with `OVERSAMPLING`."""
    found = leading_spectrum(apply_gram, side, count=min(count + OVERSAMPLING, side), passes=PASSES, key=key)
    return found.values[:count], found.bounds[:count], found.vectors[:, :count]


def of_scatter(form: Form, state: Scatter, *, count: int) -> PCA:
    """The `count` leading components of all rows that a state has seen, by the eigenvectors of their scatter."""
    mean = np.asarray(state.mean, np.float64)
    check(state.count, mean.size, count)
    total = _finite_total(float(np.trace(np.asarray(state.scatter))))
    values, bounds, vectors = _exact(form, state.scatter, count)
    return _result(mean, vectors, values, bounds, total, state.count, "scatter")


def pca(form: Form, strips: Strips, shape: tuple[int, int], *, count: int, key: int = 0) -> PCA:
    """See `weighbridge_kernels.pca.pca`."""
    check(*shape, count)
    if shape[0] < shape[1]:
        return _of_wide(form, strips, shape, count, key)
    if shape[1] > EXACT_UP_TO:
        return _of_tall_by_lanczos(form, strips, shape[1], count, key)
    chunks = iter(strips())
    state = form.summarize(next(chunks))
    for chunk in chunks:
        state = form.merge(state, form.summarize(chunk))
    return of_scatter(form, state, count=count)


def check(rows: int, cols: int, count: int) -> None:
    """Raises `ValueError` unless rows of that shape have `count` components."""
    if min(rows, cols) < 1:
        raise ValueError(f"pca: a matrix of {rows} × {cols}; expected at least one row and one column")
    if not 1 <= count <= min(rows, cols):
        raise ValueError(
            f"pca: {count} components of a matrix of {rows} × {cols}; expected 1 to {min(rows, cols)}: ask for as many"
        )


def not_finite(chunk: Any) -> ValueError:
    """What to raise for a chunk whose sums are not finite."""
    x = np.asarray(chunk)
    (bad,) = np.nonzero(~np.isfinite(x).all(axis=1))
    if bad.size == 0:
        return _overflow()
    return ValueError(
        f"pca: row {bad[0]} of a chunk of {len(x)} holds NaN or Inf, as do {bad.size - 1} others; expected finite "
        "entries: leave these rows out or replace their entries"
    )


def _overflow() -> ValueError:
    return ValueError("pca: squares of entries exceed float64's range; expected finite sums: scale the matrix down")


def _finite_total(total: float) -> float:
    if not np.isfinite(total):
        raise _overflow()
    return total


def _of_tall_by_lanczos(form: Form, strips: Strips, cols: int, count: int, key: int) -> PCA:
    state = Spread(0, np.zeros(cols), 0.0)
    for chunk in strips():
        state = spread_of_both(state, form.spread(chunk))
    total = _finite_total(state.squares)

    def apply_scatter(block: FloatArray) -> FloatArray:
        image = np.zeros_like(block)
        for chunk in strips():
            image += form.back_project(chunk, state.mean, form.project(chunk, state.mean, block))
        return image

    values, bounds, vectors = leading(apply_scatter, cols, count=count, key=key)
    return _result(state.mean, vectors, values, bounds, total, state.count, "lanczos")


def _of_wide(form: Form, strips: Strips, shape: tuple[int, int], count: int, key: int) -> PCA:
    """Centred rows are U S V^T, so that S² and U are the eigenpairs of their n x n Gram matrix, and V S = X^T U."""
    rows = shape[0]
    spreads = [form.spread(strip) for strip in strips()]
    means = [state.mean for state in spreads]
    total = _finite_total(sum(state.squares for state in spreads))

    def apply_gram(block: FloatArray) -> FloatArray:
        image = np.zeros_like(block)
        for strip, mean in zip(strips(), means, strict=True):
            image += form.project(strip, mean, form.back_project(strip, mean, block))
        return image

    route: Route = "lanczos" if rows > EXACT_UP_TO else "rows"
    if route == "lanczos":
        values, bounds, left = leading(apply_gram, rows, count=count, key=key)
    else:
        gram: Any = np.zeros((rows, rows))
        for strip, mean in zip(strips(), means, strict=True):
            gram = form.add_row_gram(gram, strip, mean)
        values, bounds, left = _exact(form, gram, count)
    images = [form.back_project(strip, mean, left) for strip, mean in zip(strips(), means, strict=True)]
    vectors = np.linalg.qr(np.concatenate(images))[0]  # which completes the basis where a singular value is 0
    return _result(np.concatenate(means), vectors, values, bounds, total, rows, route)


def _exact(form: Form, gram: Any, count: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Singular values, bounds on their errors and vectors, one a column, of a matrix with that Gram matrix."""
    eigenvalues, vectors = form.eigenpairs(gram)
    values = np.sqrt(np.maximum(eigenvalues[:count], 0))
    noise = gram_floor(float(values[0]), len(eigenvalues))
    bounds = np.minimum(noise, noise**2 / np.maximum(values, 1e-300))
    return values, bounds, vectors[:, :count]


def _result(
    mean: FloatArray,
    vectors: FloatArray,
    values: FloatArray,
    bounds: FloatArray,
    total: float,
    count: int,
    route: Route,
) -> PCA:
    freedom = max(count - 1, 1)
    variance = values**2 / freedom
    share = values**2 / total if total > 0 else np.full(len(values), np.nan)
    return PCA(mean, with_fixed_signs(vectors.T), variance, share, total / freedom, values, bounds, count, route)


def with_fixed_signs(components: FloatArray) -> FloatArray:
    """Rows times 1 or -1, so that the entry of greatest magnitude of each, the first of equals, is positive."""
    at = np.abs(components).argmax(axis=1)
    greatest = np.take_along_axis(components, at[:, None], axis=1)
    return np.ascontiguousarray(components * np.where(greatest < 0, -1.0, 1.0))
