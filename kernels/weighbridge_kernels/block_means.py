"""A similarity matrix seen from afar: its means over blocks, without the matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Float64


def pooled_similarity(units: Float[Array, "rows cols"], *, block_rows: int) -> Float64[np.ndarray, "blocks blocks"]:
    """Mean of `units @ units.T` over each pair of blocks of `block_rows` consecutive rows; the last may have fewer.

    The mean product of two blocks is the product of their mean rows, so it costs one pass over the rows. Similarities
    without dimension; sums and products in float64. Rows of zeros count, as similarity 0, and the diagonal blocks hold
    every row's 1 with itself; no row gives no block. Raises ValueError for `block_rows` below 1.
    """
    if block_rows < 1:
        raise ValueError(f"pooled_similarity: got block_rows={block_rows}; expected at least 1")
    rows = units.shape[0]
    sizes = np.minimum(block_rows, rows - np.arange(0, rows, block_rows)).astype(np.float64)
    with jax.enable_x64(True):
        padded = jnp.pad(jnp.asarray(units), [(0, -rows % block_rows), (0, 0)])
        return np.asarray(pooled(padded.reshape(sizes.size, block_rows, -1) if rows else padded[:, None], sizes))


@jax.jit
def pooled(
    blocks: Float[Array, "blocks rows cols"], sizes: Float64[Array, " blocks"]
) -> Float64[Array, "blocks blocks"]:
    """Products of the mean rows of blocks, of which the first `sizes` rows are not padding; under `enable_x64`."""
    means = blocks.sum(axis=1, dtype=jnp.float64) / sizes[:, None]
    return jnp.matmul(means, means.T, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float64)
