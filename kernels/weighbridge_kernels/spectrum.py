"""All singular values of a matrix: through the Gram matrix of its short side in float64, or directly.

The Gram matrix adds up over strips of the long side, so the matrix need not fit; its eigenvalues are off by a few eps
of the greatest, so singular values below about sqrt(eps) of the greatest are noise (`gram_floor`), for which no matrix
of 16 or 32 bits has reason to be asked. Where small ones matter, `singular_values_direct`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Float64


@jax.jit
def gram(strip: Float[Array, "long short"]) -> Float64[Array, "short short"]:
    """`x.T @ x` of a strip in float64, at the highest precision; called under `enable_x64`. Strips' Grams add."""
    x = strip.astype(jnp.float64)
    return jnp.matmul(x.T, x, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float64)


@jax.jit
def singular_values_of_gram(total: Float64[Array, "*batch n n"]) -> Float64[Array, "*batch n"]:
    """Singular values of the matrices whose Gram matrices these are, greatest first; negative eigenvalues are 0.

    Equivalent to `sqrt(maximum(eigvalsh(g), 0))[..., ::-1]`; called under `enable_x64`. Units of the weights.
    """
    return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(total), 0))[..., ::-1]


@jax.jit
def singular_values_direct(x: Float[Array, "*batch m n"]) -> Float64[Array, "*batch k"]:
    """Singular values in float64 without the Gram matrix, greatest first; called under `enable_x64`.

    Small ones are right to a few eps of the greatest, at some four times the work.
    """
    return jnp.linalg.svd(x.astype(jnp.float64), compute_uv=False)
