"""Random projections of rows to few dimensions, which nearly keep all distances (see `johnson_lindenstrauss`)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

from weighbridge_kernels.johnson_lindenstrauss import Law, blocks, check

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Float32, Int32, Key


def random_projection(
    x: Float[Array, "rows cols"], dimensions: int, *, key: int, law: Law = "gaussian"
) -> Float32[Array, "rows dimensions"]:
    """Rows times a random matrix [cols, dimensions] of variance 1 / dimensions, in their units.

    Equivalent to `x.astype(f32) @ concatenate([lines(key, b) for b in blocks(cols)])`. The matrix hangs on `key`, `law`
    and the shape alone, so rows may come in any chunks; 4,096 lines of it are held at a time. The host form draws other
    numbers by the same law. Accumulates in float32 at the highest precision. A NaN or an infinity stays in its row; no
    columns give 0.

    Raises `ValueError` for no dimensions and for a law not known.
    """
    check(dimensions, law)
    total = jnp.zeros((len(x), dimensions), jnp.float32)
    for number, extent in blocks(x.shape[1]):
        total = plus_block(total, jnp.asarray(x[:, extent]), jax.random.key(key), jnp.int32(number), law=law)
    return total


@partial(jax.jit, static_argnames="law")
def plus_block(
    total: Float32[Array, "rows k"],
    x: Float[Array, "rows lines"],
    key: Key[Array, ""],
    number: Int32[Array, ""],
    *,
    law: Law,
) -> Float32[Array, "rows k"]:
    """`total + x @ lines` for the lines of one number, drawn from the key."""
    drawn = lines(jax.random.fold_in(key, number), x.shape[1], total.shape[1], law=law)
    return total + jnp.matmul(
        x.astype(jnp.float32), drawn, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32
    )


def lines(key: Key[Array, ""], count: int, dimensions: int, *, law: Law) -> Float32[Array, "count dimensions"]:
    """Lines of a projection matrix: independent, of mean 0 and variance 1 / dimensions."""
    shape = count, dimensions
    if law == "gaussian":
        return jax.random.normal(key, shape, jnp.float32) / jnp.sqrt(jnp.float32(dimensions))
    die = jax.random.randint(key, shape, 0, 6, jnp.int32)
    signs = (die == 0).astype(jnp.float32) - (die == 1).astype(jnp.float32)
    return signs * jnp.sqrt(jnp.float32(3 / dimensions))
