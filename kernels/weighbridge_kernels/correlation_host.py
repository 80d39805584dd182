"""Host form of `correlation`: a product of two blocks serves the rows of both."""

from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge_kernels.similar_pairs import (
    NO_ROW,
    Correlations,
    Float32Array,
    IndexArray,
    Kind,
    PairState,
    Unseen,
    checked,
    finalize,
)
from weighbridge_kernels.similar_tiles_host import BLOCK, Passes, live_blocks
from weighbridge_kernels.unit_rows_host import unit_rows


def correlations(
    x: npt.NDArray[Any], *, kind: Kind = "cosine", count: int = 15, threshold: float = 0.99, block: int = BLOCK
) -> Correlations:
    """See `weighbridge_kernels.correlation.correlations`."""
    checked(x, count, threshold)
    units, norms = unit_rows(x, kind=kind)
    state = summarize(units, norms > 0, count=count, block=block)
    return finalize(state, norms, threshold=threshold, unseen=lambda sign: _unseen(units, sign, block))


def summarize(
    units: Float32Array,
    live: npt.NDArray[np.bool_],
    *,
    count: int,
    block: int = BLOCK,
    part: slice = slice(None),
) -> PairState:
    """See `weighbridge_kernels.correlation.summarize`."""
    state = PairState.empty(units.shape[0], count)
    blocks = live_blocks(units, live, block)
    with Passes(block) as passes:
        for i in range(len(blocks))[part]:
            for keys in blocks[i:]:
                tile = passes.product(blocks[i].rows, keys.rows)
                passes.keep_both(tile, 1, blocks[i], keys, state.similar)
                passes.keep_both(tile, -1, blocks[i], keys, state.opposed)
                passes.count(tile, keys is blocks[i], state.counts)
    return state


def _unseen(units: Float32Array, sign: int, block: int) -> Unseen:
    def unseen(rows: IndexArray, labels: IndexArray, threshold: float) -> IndexArray:
        found = np.full(rows.size, NO_ROW, np.int32)
        parts = [slice(start, start + block) for start in range(0, rows.size, block)]
        with Passes(block) as passes:
            for q in parts:
                for k in parts:
                    tile = passes.product(units[rows[q]], units[rows[k]])
                    linked = passes.link(tile, (sign, threshold), labels[q], labels[k], rows[k])
                    found[q] = np.where(found[q] == NO_ROW, linked, found[q])
        return found

    return unseen
