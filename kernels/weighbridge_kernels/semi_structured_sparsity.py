"""How much of a matrix has the 2-of-4 pattern that sparse tensor cores use (Mishra et al. 2021, arXiv 2104.08378)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Int32


@jax.jit
def groups_with_two_zeros(zero: Bool[Array, "rows cols"]) -> Int32[Array, ""]:
    """Number of groups of four along the rows in which two entries or more are zero.

    Equivalent to `(zero.reshape(rows, cols // 4, 4).sum(2) >= 2).sum()`. Entries beyond the last whole group of a row
    belong to none; a row shorter than four has none. Counts in int32.
    """
    rows, cols = zero.shape
    groups = zero[:, : cols // 4 * 4].reshape(rows, cols // 4, 4)
    return jnp.sum(groups.sum(axis=2, dtype=jnp.int32) >= 2, dtype=jnp.int32)
