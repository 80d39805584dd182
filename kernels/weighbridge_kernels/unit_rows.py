"""Rows of unit norm, whose products are cosines or, of centred rows, Pearson correlations."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Float32, Float64

    from weighbridge_kernels.similar_pairs import Kind


@partial(jax.jit, static_argnames=("kind",))
def unit_rows(
    x: Float[Array, "rows cols"], *, kind: Kind = "cosine"
) -> tuple[Float32[Array, "rows cols"], Float64[Array, " rows"]]:
    """Each row over its Euclidean norm, and the norms; `pearson` takes each row's mean away first.

    Equivalent to `y = x.astype(f64); n = linalg.norm(y, axis=1); y / n[:, None], n`; units without dimension, norms in
    units of the weights; called under `enable_x64`. Accumulates in float64 over the greatest magnitude of the row, so
    that no square over- or underflows. A row of norm 0 (for `pearson`, a constant one) is dead: zeros and norm 0. A row
    with NaN or Inf is zeros and norm NaN. So `norms > 0` are the rows that have a direction. Devices that flush
    subnormals find rows of nothing else dead.
    """
    y = x.astype(jnp.float64)
    finite = jnp.isfinite(y).all(axis=1, keepdims=True)
    y = jnp.where(finite, y, 0)
    top = jnp.abs(y).max(axis=1, keepdims=True, initial=0)
    y = y / jnp.where(top > 0, top, 1)
    if kind == "pearson":
        varied = (y != y[:, :1]).any(
            axis=1, keepdims=True
        )  # compilers may round 1 / n, and so the mean of equal entries
        y = jnp.where(varied, y - y.sum(axis=1, keepdims=True) / max(x.shape[1], 1), 0)
    norms = jnp.sqrt((y * y).sum(axis=1, keepdims=True))
    units = (y / jnp.where(norms > 0, norms, 1)).astype(jnp.float32)
    return units, jnp.where(finite, norms * top, jnp.nan)[:, 0]
