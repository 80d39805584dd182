"""Principal component analysis of the rows of a matrix of any size, in float64.

A state streams over rows (`empty`, `summarize`, `merge`, `finalize`, `scores`); `pca` reads a matrix strip by strip, as
often as its shape asks for.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

from weighbridge_kernels import principal_components
from weighbridge_kernels.principal_components import PCA, Scatter, Spread, Strips, merged, not_finite, of_scatter
from weighbridge_kernels.spectrum import gram

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Float64

FloatArray = npt.NDArray[np.float64]


def empty(cols: int) -> Scatter:
    """The state of no rows of `cols` entries: the identity of `merge`."""
    with jax.enable_x64(True):
        return Scatter(0, jnp.zeros(cols, jnp.float64), jnp.zeros((cols, cols), jnp.float64))


def summarize(chunk: Float[Array, "rows cols"]) -> Scatter:
    """Number, mean and scatter about it of some rows, on the device.

    Equivalent to `y = x.astype(f64); d = y - y.mean(0); (len(y), y.mean(0), d.T @ d)`; accumulates in float64 (in a
    local `enable_x64`), each part about its own mean, so that a mean far above the spread costs no digits. No rows give
    `empty`. Raises `ValueError` for a NaN or an infinity.
    """
    with jax.enable_x64(True):
        mean, scatter = mean_and_scatter(jnp.asarray(chunk))
    _check_finite(mean, chunk)
    return Scatter(len(chunk), mean, scatter)


def merge(a: Scatter, b: Scatter) -> Scatter:
    """The state of both sets of rows together, on the device; associative up to rounding. See `merged`."""
    with jax.enable_x64(True):
        return merged(a, b)


def finalize(state: Scatter, *, count: int) -> PCA:
    """The `count` leading components of all rows that a state has seen, by the eigenvectors of their scatter.

    Raises `ValueError` for no rows or columns, and for a `count` not in 1..min(rows, cols).
    """
    return of_scatter(sys.modules[__name__], state, count=count)


def scores(chunk: Float[Array, "rows cols"], found: PCA) -> FloatArray:
    """Coordinates [rows, c] of rows along the components, in the rows' units: `(x - mean) @ components.T` in float64.

    A row with a NaN or an infinity gives such scores.
    """
    return project(chunk, found.mean, found.components.T)


def pca(strips: Strips, shape: tuple[int, int], *, count: int, key: int = 0) -> PCA:
    """The `count` leading components of the rows of a matrix, by whichever route its shape [n, d] takes.

    `strips()` gives the matrix from its start in strips of its long side, the same ones each time: whole rows where d
    <= n, whole columns where n < d. Route `scatter`, where d <= n: through the d x d scatter, in one pass. `rows`,
    where n < d: through the n x n Gram matrix of the centred rows, in three. `lanczos`, where the short side exceeds
    `EXACT_UP_TO`: `leading_spectrum` of either, which multiplies the matrix `PASSES` times, its first block seeded by
    `key`. Memory: some strips, and 3 times the square of the short side, or 4 · (`count` + 4) · `PASSES` vectors along
    it. float64 throughout.

    Raises `ValueError` for a NaN or an infinity, for no rows or columns, and for a `count` not in 1..min(shape).

    Source: Jolliffe and Cadima 2016, doi:10.1098/rsta.2015.0202; randomised: Halko, Martinsson and Tropp 2011,
    doi:10.1137/090771806, and `leading_spectrum`.
    """
    return principal_components.pca(sys.modules[__name__], strips, shape, count=count, key=key)


def spread(chunk: Float[Array, "rows cols"]) -> Spread:
    """Number, mean and sum of squared deviations of some rows, fetched; raises `ValueError` as `summarize` does."""
    with jax.enable_x64(True):
        mean, squares = jax.device_get(mean_and_squares(jnp.asarray(chunk)))
    _check_finite(mean, chunk)
    return Spread(len(chunk), mean, float(squares))


def add_row_gram(total: Any, strip: Float[Array, "rows cols"], mean: FloatArray) -> Float64[Array, "rows rows"]:
    """`total + d @ d.T` of `d = x - mean` in float64, on the device."""
    with jax.enable_x64(True):
        both: Array = gram_of_centred_rows(jnp.asarray(strip), jnp.asarray(mean)) + total
    return both


def project(x: Any, mean: Any, vectors: Any) -> FloatArray:
    """`(x - mean) @ vectors` in float64, fetched."""
    with jax.enable_x64(True):
        return np.asarray(centred_times(*map(jnp.asarray, (x, mean, vectors))))


def back_project(x: Any, mean: Any, vectors: Any) -> FloatArray:
    """`(x - mean).T @ vectors` in float64, fetched."""
    with jax.enable_x64(True):
        return np.asarray(transposed_centred_times(*map(jnp.asarray, (x, mean, vectors))))


def eigenpairs(matrix: Any) -> tuple[FloatArray, FloatArray]:
    """Eigenvalues of a symmetric matrix, greatest first, and its eigenvectors, one a column, fetched."""
    with jax.enable_x64(True):
        values, vectors = jax.device_get(eigh(jnp.asarray(matrix)))
    return values[::-1], vectors[:, ::-1]


@jax.jit
def mean_and_scatter(x: Float[Array, "rows cols"]) -> tuple[Float64[Array, " cols"], Float64[Array, "cols cols"]]:
    """The arithmetic of `summarize`, called under `enable_x64`."""
    y = x.astype(jnp.float64)
    mean = y.sum(axis=0) / max(len(y), 1)
    return mean, gram(y - mean[None, :])


@jax.jit
def mean_and_squares(x: Float[Array, "rows cols"]) -> tuple[Float64[Array, " cols"], Float64[Array, ""]]:
    """The mean and the trace of the scatter, called under `enable_x64`."""
    y = x.astype(jnp.float64)
    mean = y.sum(axis=0) / max(len(y), 1)
    return mean, jnp.square(y - mean[None, :]).sum()


@jax.jit
def gram_of_centred_rows(x: Float[Array, "rows cols"], mean: Float64[Array, " cols"]) -> Float64[Array, "rows rows"]:
    """The arithmetic of `row_gram`, called under `enable_x64`."""
    product: Array = gram((x.astype(jnp.float64) - mean[None, :]).T)
    return product


@jax.jit
def centred_times(
    x: Float[Array, "rows cols"], mean: Float64[Array, " cols"], vectors: Float64[Array, "cols c"]
) -> Float64[Array, "rows c"]:
    """The arithmetic of `project`, called under `enable_x64`."""
    return _times(x.astype(jnp.float64) - mean[None, :], vectors)


@jax.jit
def transposed_centred_times(
    x: Float[Array, "rows cols"], mean: Float64[Array, " cols"], vectors: Float64[Array, "rows c"]
) -> Float64[Array, "cols c"]:
    """The arithmetic of `back_project`, called under `enable_x64`."""
    return _times((x.astype(jnp.float64) - mean[None, :]).T, vectors)


@jax.jit
def eigh(matrix: Float64[Array, "n n"]) -> tuple[Float64[Array, " n"], Float64[Array, "n n"]]:
    """Eigenvalues, least first, and eigenvectors in columns, called under `enable_x64`."""
    values, vectors = jnp.linalg.eigh(matrix)
    return values, vectors


def _times(a: Float64[Array, "m k"], b: Float64[Array, "k n"]) -> Float64[Array, "m n"]:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float64)


def _check_finite(mean: Any, chunk: Any) -> None:
    if not np.isfinite(np.asarray(mean)).all():
        raise not_finite(chunk)
