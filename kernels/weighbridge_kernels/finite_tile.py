"""Values as the position-bound kernels want them: float32, finite, of magnitude below 2, padded with zeros.

A tile is the stored matrix times 2^-exponent, so that neither squares nor block scales leave float32's range whatever
the unit of the weights; scaling by a power of two changes no digit. NaN and ±Inf become 0 and are counted elsewhere.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Float32, UInt


@partial(jax.jit, static_argnames="padded")
def decoded_tile(
    codes: UInt[Array, "rows cols"], table: Float32[Array, " patterns"], *, padded: int
) -> Float32[Array, "rows padded"]:
    """`table[codes]`, each row continued with zeros to `padded` columns.

    `table` is the format's table of values times 2^-exponent with 0 for NaN and ±Inf.
    """
    return _pad(table[codes.astype(jnp.int32)], padded)


@partial(jax.jit, static_argnames="padded")
def scaled_tile(
    x: Float[Array, "rows cols"], scale: float | Float[Array, ""], *, padded: int
) -> Float32[Array, "rows padded"]:
    """`where(isfinite(x), x, 0) * scale` in float32, each row continued with zeros to `padded` columns.

    A subnormal float32 may be flushed to zero on devices that do so.
    """
    return _pad((jnp.where(jnp.isfinite(x), x, 0) * scale).astype(jnp.float32), padded)


def _pad(x: Float32[Array, "rows cols"], padded: int) -> Float32[Array, "rows padded"]:
    return jnp.pad(x, ((0, 0), (0, padded - x.shape[1])))
