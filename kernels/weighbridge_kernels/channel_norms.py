"""Sums along rows and columns, from which follow the norm, the greatest magnitude and the mean of every channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, Float32

    Sums = tuple[Float32[Array, " channels"], Float32[Array, " channels"], Float32[Array, " channels"]]


@jax.jit
def channel_sums(tile: Float32[Array, "rows cols"]) -> tuple[Sums, Sums]:
    """Sum, sum of squares and greatest magnitude of each row, then of each column.

    Equivalent to `(x.sum(1), (x * x).sum(1), abs(x).max(1))` and the same along axis 0. Takes a finite tile
    (`finite_tile`) and gives its units; accumulates in float32. Padding with zeros changes nothing; an empty axis
    gives 0.
    """
    squares, magnitudes = tile * tile, jnp.abs(tile)
    rows, cols = ((tile.sum(axis), squares.sum(axis), magnitudes.max(axis, initial=0.0)) for axis in (1, 0))
    return rows, cols
