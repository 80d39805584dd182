"""Passes over a tile of products of rows: nearest lists, counts of similarities, links between groups.

Tiles have one padded shape; `at` and `own` name the rows of the matrix, -1 those that are padding or have no direction.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from weighbridge_kernels.similar_pairs import EDGES, NO_ROW

if TYPE_CHECKING:
    from jaxtyping import Array, Float32, Int32

    DeviceLists = tuple[Float32[Array, "queries count"], Int32[Array, "queries count"]]


@jax.jit
def product(
    queries: Float32[Array, "queries cols"], keys: Float32[Array, "keys cols"]
) -> Float32[Array, "queries keys"]:
    """`queries @ keys.T` in float32 at the highest precision."""
    return jnp.matmul(queries, keys.T, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32)


@partial(jax.jit, donate_argnums=(0,))
def keep(
    lists: DeviceLists,
    tile: Float32[Array, "queries keys"],
    sign: Float32[Array, ""],
    limit: Float32[Array, ""],
    own: Int32[Array, " queries"],
    at: Int32[Array, " keys"],
) -> DeviceLists:
    """The greatest `minimum(sign * tile, limit)` and their keys, merged into lists of such.

    Of equal scores the lower index stays if keys come in ascending order. A query's own row is never in its list.
    """
    scores = jnp.minimum(sign * tile, limit)
    other = (at >= 0)[None, :] & (at[None, :] != own[:, None])
    top, place = lax.top_k(jnp.where(other, scores, -jnp.inf), min(lists[0].shape[1], tile.shape[1]))
    scores = jnp.concatenate([lists[0], top], axis=1)
    indices = jnp.concatenate([lists[1], jnp.where(top > -jnp.inf, at[place], NO_ROW)], axis=1)
    kept, place = lax.top_k(scores, lists[0].shape[1])
    return kept, jnp.take_along_axis(indices, place, axis=1)


@partial(jax.jit, donate_argnums=(0,))
def count(
    counts: Int32[Array, " bins"],
    tile: Float32[Array, "queries keys"],
    own: Int32[Array, " queries"],
    at: Int32[Array, " keys"],
) -> Int32[Array, " bins"]:
    """Adds how many similarities of pairs (query before key) lie in each of the bins between `EDGES`, by sorting."""
    pairs = (own >= 0)[:, None] & (at[None, :] > own[:, None])
    beyond = 2.0
    ordered = jnp.sort(jnp.where(pairs, jnp.clip(tile, -1, 1), beyond), axis=None)
    below = jnp.searchsorted(ordered, jnp.asarray(EDGES[1:-1].astype(np.float32))).astype(jnp.int32)
    all_ = pairs.sum(dtype=jnp.int32)
    return counts + jnp.diff(below, prepend=jnp.zeros(1, jnp.int32), append=all_[None])


@partial(jax.jit, donate_argnums=(0,))
def link(
    found: Int32[Array, " queries"],
    tile: Float32[Array, "queries keys"],
    sign: Float32[Array, ""],
    threshold: Float32[Array, ""],
    own: Int32[Array, " queries"],
    labels: Int32[Array, " keys"],
    at: Int32[Array, " keys"],
) -> Int32[Array, " queries"]:
    """For every query still without one, a key of another label whose score reaches the threshold.

    `own` are the labels of the queries.
    """
    scores = jnp.minimum(sign * tile, 1)
    foreign = (scores >= threshold) & (labels[None, :] != own[:, None]) & (at >= 0)[None, :]
    place = jnp.argmax(foreign, axis=1)
    return jnp.where((found == NO_ROW) & foreign.any(axis=1), at[place], found)
