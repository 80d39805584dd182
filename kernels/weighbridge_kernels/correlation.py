"""Similarities of all pairs among the rows of a matrix, in tiles that stay on the device, never the matrix of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from weighbridge_kernels import similar_tiles
from weighbridge_kernels.neighbours import BLOCK, blocks_of, empty_lists, joined
from weighbridge_kernels.similar_pairs import (
    BINS,
    NO_ROW,
    Correlations,
    IndexArray,
    Kind,
    PairState,
    Unseen,
    checked,
    finalize,
)
from weighbridge_kernels.unit_rows import unit_rows

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Float32

_ONE = np.float32(1)


def correlations(
    x: Float[Array, "rows cols"],
    *,
    kind: Kind = "cosine",
    count: int = 15,
    threshold: float = 0.99,
    block: int = BLOCK,
) -> Correlations:
    """Cosines, or Pearson correlations, of all pairs of rows: nearest and most opposed lists, distribution, groups.

    Equivalent to `s = u @ u.T` of `unit_rows(x)`, its rows sorted, the histogram of its upper triangle, the connected
    components of `s >= threshold` and of `s <= -threshold`. Similarities without dimension, from float32 products:
    within 4e-6, clamped to ±1; counts exact but for pairs that near an edge. Rows without direction (see `unit_rows`)
    are in no pair. Raises ValueError for what is no matrix, a count below 1, a threshold outside of (0, 1].
    """
    checked(x, count, threshold)
    with jax.enable_x64(True):
        units, norms = unit_rows(jnp.asarray(x), kind=kind)
    norms = np.asarray(norms)
    state = summarize(units, norms > 0, count=count, block=block)
    return finalize(state, norms, threshold=threshold, unseen=lambda sign: _unseen(units, sign, block))


def summarize(
    units: Float32[Array, "rows cols"],
    live: Bool[np.ndarray, " rows"],
    *,
    count: int,
    block: int = BLOCK,
    part: slice = slice(None),
) -> PairState:
    """The state of the pairs of live rows that `part` of the blocks of rows is to work on.

    States of parts that together are all blocks, each in one, `merge` to that of all pairs. A part's lists may lack
    what another's hold, and any two forms may cut the pairs in their own way.
    """
    live = np.append(live, False)  # what the index of padding names
    blocks = [(rows, np.where(live[at], at, np.int32(NO_ROW))) for rows, at in blocks_of(units, block)]
    lists = {sign: [empty_lists(block, count) for _ in blocks] for sign in (1, -1)}
    counts = np.zeros(BINS, np.int64)
    for i in range(len(blocks))[part]:
        rows, own = blocks[i]
        of_block = jnp.zeros(BINS, jnp.int32)
        for j, (keys, at) in enumerate(blocks):
            tile = similar_tiles.product(rows, keys)
            for sign in (1, -1):
                lists[sign][i] = similar_tiles.keep(lists[sign][i], tile, np.float32(sign), _ONE, own, at)
            if j >= i:
                of_block = similar_tiles.count(of_block, tile, own, at)
        counts += np.asarray(of_block)
    similar, opposed = (joined(lists[sign], [at for _, at in blocks], units.shape[0], count) for sign in (1, -1))
    return PairState(similar, opposed, counts)


def _unseen(units: Float32[Array, "rows cols"], sign: int, block: int) -> Unseen:
    def unseen(rows: IndexArray, labels: IndexArray, threshold: float) -> IndexArray:
        found = [jnp.full(block, NO_ROW, jnp.int32) for _ in range(0, rows.size, block)]
        own, at = (_padded(indices, block) for indices in (labels, rows))
        bound = np.float32(sign), np.float32(threshold)
        for q in range(len(found)):
            queries = units[at[q]]
            for k in range(len(found)):
                tile = similar_tiles.product(queries, units[at[k]])
                found[q] = similar_tiles.link(found[q], tile, *bound, own[q], own[k], at[k])
        return np.concatenate([np.asarray(part) for part in found])[: rows.size]

    return unseen


def _padded(indices: IndexArray, block: int) -> np.ndarray:
    """Blocks of indices, the last one padded with -1."""
    rows = -(-indices.size // block)
    return np.pad(indices, (0, rows * block - indices.size), constant_values=NO_ROW).reshape(rows, block)
