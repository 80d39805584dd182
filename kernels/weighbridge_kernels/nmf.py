"""Non-negative matrix factorisation by coordinate descent, and of a signed matrix one of whose axes is reduced.

Source: Cichocki and Phan 2009, "Fast local algorithms for large scale nonnegative matrix and tensor factorizations",
doi:10.1587/transfun.E92.A.708; the start: Boutsidis and Gallopoulos 2008 (`nonnegative_factors.nndsvd`).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

from weighbridge_kernels import nonnegative_factors
from weighbridge_kernels.nonnegative_factors import NMF, Factor, OneSidedNMF
from weighbridge_kernels.pca import back_project, eigenpairs, project
from weighbridge_kernels.spectrum import gram

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Float64, Int32

    Sweeps = tuple[Array, Array, Array, Array, Array]

__all__ = ["back_project", "eigenpairs", "nmf", "one_sided_nmf", "project"]

FloatArray = npt.NDArray[np.float64]


def nmf(x: Float[Array, "m n"], count: int, *, iterations: int = 200, tolerance: float = 1e-4, key: int = 0) -> NMF:
    """Non-negative factors of a non-negative matrix that nearly minimise the Frobenius norm of what they leave.

    A local minimum of `norm(x - w @ h)` with w [m, count], h [count, n] >= 0, from the same start always; `key` counts
    only where the short side exceeds `EXACT_UP_TO`. Sweeps end after `iterations`, or once the sum of the magnitudes of
    the projected gradient is at most `tolerance` of that of the first, as in scikit-learn's `NMF(solver="cd",
    init="nndsvd")`. In float64 where x is, else in float32; the start, and the error, in float64. A zero matrix has
    zero factors, one of lower rank than `count` some that are zero.

    Raises `ValueError` for a negative entry, a NaN or an infinity, and for a `count` not in 1..min(m, n).
    """
    return nonnegative_factors.nmf(sys.modules[__name__], x, count, iterations=iterations, tolerance=tolerance, key=key)


def one_sided_nmf(
    x: Float[Array, "rows cols"],
    count: int,
    *,
    axis: int = 1,
    iterations: int = 200,
    tolerance: float = 1e-4,
    key: int = 0,
) -> OneSidedNMF:
    """Factors of a signed matrix, non-negative along `axis`, the channels, and signed along the other.

    `nmf` of the positive and the negative parts, joined along the other axis: `[max(x, 0); max(-x, 0)] ~ [p; n] @ h`,
    of which `h` are the `channels` and `p - n` is `spatial`; so both signs share the channels. Precision as of `nmf`.

    Raises `ValueError` for a NaN or an infinity, and for a `count` not in 1..min(2 · others, channels).

    Source: Voss et al. 2021, "Visualizing Weights", Distill, doi:10.23915/distill.00024.007.
    """
    return nonnegative_factors.one_sided_nmf(
        sys.modules[__name__], x, count, axis=axis, iterations=iterations, tolerance=tolerance, key=key
    )


def put(x: Any) -> Array:
    """On the device, in float64 where it is, else in float32."""
    with jax.enable_x64(True):
        return jnp.asarray(x).astype(jnp.float64 if x.dtype == np.float64 else jnp.float32)


def extremes(x: Float[Array, "m n"]) -> tuple[float, float]:
    """The least and the greatest entry; NaN if one is."""
    with jax.enable_x64(True):
        return float(x.min()), float(x.max())


def signed_parts(x: Float[Array, "m n"]) -> Float[Array, "2*m n"]:
    """The positive part over the negative one, both as magnitudes."""
    with jax.enable_x64(True):
        return jnp.concatenate([jnp.maximum(x, 0), jnp.maximum(-x, 0)])


def gram_of(x: Float[Array, "m n"]) -> Float64[Array, "n n"]:
    """`x.T @ x` in float64."""
    with jax.enable_x64(True):
        product: Array = gram(x)
    return product


def descend(
    x: Float[Array, "m n"], w: FloatArray, h: FloatArray, iterations: int, tolerance: float
) -> tuple[Factor, Factor, int]:
    """The factors [m, r], [r, n] after the sweeps from a start, and how many those were, fetched."""
    with jax.enable_x64(True):
        start = jnp.asarray(w.T, x.dtype), jnp.asarray(h, x.dtype)
        a, b, swept = jax.device_get(swept_from(x, *start, jnp.int32(iterations), jnp.float64(tolerance)))
    return np.ascontiguousarray(a.T), b, int(swept)


def squared_norms(x: Float[Array, "m n"], w: Factor, h: Factor) -> tuple[float, float]:
    """Of `x - w @ h` and of x the sum of squares, in float64."""
    with jax.enable_x64(True):
        left, whole = jax.device_get(squares_left(x, jnp.asarray(w), jnp.asarray(h)))
    return float(left), float(whole)


@jax.jit
def swept_from(
    x: Float[Array, "m n"],
    a: Float[Array, "r m"],
    b: Float[Array, "r n"],
    iterations: Int32[Array, ""],
    tolerance: Float64[Array, ""],
) -> tuple[Float[Array, "r m"], Float[Array, "r n"], Int32[Array, ""]]:
    """Sweeps of x ~ a.T @ b until the end that `nmf` states, called under `enable_x64`."""

    def goes_on(state: Sweeps) -> Array:
        *_, swept, violation, first = state
        return (swept < iterations) & ((swept == 0) | (violation > tolerance * first))

    def sweep(state: Sweeps) -> Sweeps:
        a, b, swept, _, first = state
        a, violation_a = _improved(a, _dot(b, b.T), _dot(b, x.T))
        b, violation_b = _improved(b, _dot(a, a.T), _dot(a, x))
        violation = violation_a + violation_b
        return a, b, swept + 1, violation, jnp.where(swept == 0, violation, first)

    none = jnp.zeros((), jnp.float64)
    a, b, swept, *_ = lax.while_loop(goes_on, sweep, (a, b, jnp.zeros((), jnp.int32), none, none))
    return a, b, swept


def _improved(a: Float[Array, "r m"], gram_of_other: Array, product: Array) -> tuple[Array, Float64[Array, ""]]:
    """Each factor in turn at its best beside the others, and by how much all could be improved before."""

    def factor(t: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        a, violation = state
        slope = _dot(gram_of_other[t][None, :], a)[0] - product[t]
        curvature = gram_of_other[t, t]
        projected = jnp.where(a[t] == 0, jnp.minimum(slope, 0), slope)
        step = slope / jnp.where(curvature > 0, curvature, 1)
        better = jnp.where(curvature > 0, jnp.maximum(a[t] - step, 0), a[t])
        return a.at[t].set(better), violation + jnp.abs(projected).astype(jnp.float64).sum()

    improved, violation = lax.fori_loop(0, a.shape[0], factor, (a, jnp.zeros((), jnp.float64)))
    return improved, violation


@jax.jit
def squares_left(
    x: Float[Array, "m n"], w: Float[Array, "m r"], h: Float[Array, "r n"]
) -> tuple[Float64[Array, ""], Float64[Array, ""]]:
    """The arithmetic of `squared_norms`, called under `enable_x64`."""
    y = x.astype(jnp.float64)
    left = y - _dot(w.astype(jnp.float64), h.astype(jnp.float64))
    return jnp.square(left).sum(), jnp.square(y).sum()


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST, preferred_element_type=a.dtype)
