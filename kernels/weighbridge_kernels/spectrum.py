"""All singular values of a matrix: through the Gram matrix of its short side in float64, or directly.

The Gram matrix adds up over strips of the long side, so the matrix need not fit; its eigenvalues are off by a few eps
of the greatest, so singular values below about sqrt(eps) of the greatest are noise (`gram_floor`), for which no matrix
of 16 or 32 bits has reason to be asked. Where small ones matter, `singular_values_direct`. Every kernel takes a stack
of matrices of one shape as well, is called under `enable_x64`, and multiplies in float64 at the highest precision.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Float64


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float64)


@jax.jit
def gram(strip: Float[Array, "*batch long short"]) -> Float64[Array, "*batch short short"]:
    """`x.T @ x` of a strip. Strips' Grams add, and rows of zeros add nothing."""
    x = strip.astype(jnp.float64)
    return _product(x.mT, x)


@partial(jax.jit, donate_argnums=0)
def add_gram(
    total: Float64[Array, "*batch short short"], strip: Float[Array, "*batch long short"]
) -> Float64[Array, "*batch short short"]:
    """`total + gram(strip)`, in the memory of `total`."""
    x = strip.astype(jnp.float64)
    return total + _product(x.mT, x)


@partial(jax.jit, donate_argnums=0)
def add_gram_product(
    total: Float64[Array, "short k"], strip: Float[Array, "long short"], block: Float64[Array, "short k"]
) -> Float64[Array, "short k"]:
    """`total + x.T @ (x @ block)`, in the memory of `total`: the Gram matrix applied without being formed."""
    x = strip.astype(jnp.float64)
    return total + _product(x.mT, _product(x, block))


@jax.jit
def singular_values_of_gram(total: Float64[Array, "*batch n n"]) -> Float64[Array, "*batch n"]:
    """Singular values of the matrices whose Gram matrices these are, greatest first; negative eigenvalues are 0.

    Equivalent to `sqrt(maximum(eigvalsh(g), 0))[..., ::-1]`. Units of the weights. NaN where an entry is not finite.
    """
    finite = jnp.isfinite(total).all((-2, -1), keepdims=True)
    values = jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(jnp.where(finite, total, 0)), 0))
    return jnp.where(finite[..., 0], values, jnp.nan)[..., ::-1]


@jax.jit
def singular_values_direct(x: Float[Array, "*batch m n"]) -> Float64[Array, "*batch k"]:
    """Singular values in float64 without the Gram matrix, greatest first.

    Small ones are right to a few eps of the greatest, at some four times the work. NaN where an entry is not finite.
    """
    finite = jnp.isfinite(x).all((-2, -1), keepdims=True)
    values = jnp.linalg.svd(jnp.where(finite, x, 0).astype(jnp.float64), compute_uv=False)
    return jnp.where(finite[..., 0], values, jnp.nan)
