"""Passes over products of rows on the host: BLAS in float32, then Numba over what seldom finds work.

Keys come to every list in ascending order, so that of equal scores the lower index is already there and stays.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from weighbridge_kernels.similar_pairs import (
    BINS,
    FINE,
    LINEAR_BINS,
    LOG_BINS,
    NO_ROW,
    CountArray,
    Float32Array,
    IndexArray,
    Lists,
)

BLOCK = 2048
"""Rows a block: a tile of 16 MiB, for which the product runs at the machine's rate."""
_CHUNK = 64
"""Entries looked at together: one comparison in the usual case, in which none of them enters a list."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows ready for products, which rows of their matrix they are, and which of the keys: -1 for none."""

    rows: Float32Array
    at: IndexArray
    own: IndexArray


def live_blocks(units: Float32Array, live: npt.NDArray[np.bool_], block: int) -> list[Rows]:
    """The rows that have a direction, `block` at a time; copied only where others lie between."""
    at = np.flatnonzero(live).astype(np.int32)
    parts = [at[start : start + block] for start in range(0, at.size, block)]
    return [
        Rows(units[part[0] : part[-1] + 1] if part[-1] - part[0] + 1 == part.size else units[part], part, part)
        for part in parts
    ]


class Passes:
    """Products of blocks in memory that is used again, and passes over them by threads."""

    def __init__(self, block: int) -> None:
        self._memory = np.empty(block * block, np.float32)
        self._workers = os.cpu_count() or 1

    def __enter__(self) -> "Passes":
        self._pool = ThreadPoolExecutor(self._workers)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def product(self, queries: Float32Array, keys: Float32Array) -> Float32Array:
        """`queries @ keys.T`, there until the next one."""
        shape = queries.shape[0], keys.shape[0]
        tile = self._memory[: shape[0] * shape[1]].reshape(shape)
        return np.matmul(queries, keys.T, out=tile)

    def keep_both(self, tile: Float32Array, sign: int, queries: Rows, keys: Rows, lists: Lists) -> None:
        """Cosines of two blocks of one matrix, into the lists of both."""
        self.keep(tile, sign, queries, keys, lists, 1.0)
        if keys is not queries:
            self._over(
                tile.shape[1],
                lambda part: _keep_columns(tile[:, part], sign, queries.at, keys.at[part], lists.scores, lists.indices),
            )

    def keep(self, tile: Float32Array, sign: int, queries: Rows, keys: Rows, lists: Lists, limit: float) -> None:
        """`minimum(sign * tile, limit)` and its keys, into the lists of the queries."""
        at, own = queries.at, queries.own
        self._over(
            tile.shape[0],
            lambda part: _keep_rows(tile[part], sign, limit, at[part], own[part], keys.at, lists.scores, lists.indices),
        )

    def count(self, tile: Float32Array, diagonal: bool, counts: CountArray) -> None:
        """Adds the similarities by bin; of a block with itself, those right of the diagonal."""
        for table in self._over(tile.shape[0], lambda part: _count(tile[part], part.start if diagonal else -1)):
            counts += table

    def link(
        self, tile: Float32Array, bound: tuple[int, float], own: IndexArray, labels: IndexArray, keys: IndexArray
    ) -> IndexArray:
        """For each row of the tile a key of another label with sign * s >= threshold, or -1; `bound` are those two."""
        found = self._over(tile.shape[0], lambda part: _link(tile[part], *bound, own[part], labels, keys))
        return np.concatenate(found)

    def _over(self, size: int, act: Callable[[slice], Any]) -> list[Any]:
        step = max(-(-size // self._workers), 1)
        return list(self._pool.map(act, [slice(start, min(start + step, size)) for start in range(0, size, step)]))


@njit(nogil=True, cache=True, error_model="numpy")
def _insert(score, index, scores, indices):  # type: ignore[no-untyped-def]
    """Into a list in order, after those of equal score; the last one falls out."""
    place = scores.size - 1
    while place > 0 and scores[place - 1] < score:
        scores[place], indices[place] = scores[place - 1], indices[place - 1]
        place -= 1
    scores[place], indices[place] = score, index


@njit(nogil=True, cache=True, error_model="numpy")
def _keep_rows(tile, sign, limit, at, own, keys, scores, indices):  # type: ignore[no-untyped-def]
    sign, limit = np.float32(sign), np.float32(limit)
    for r in range(tile.shape[0]):
        best, who = scores[at[r]], indices[at[r]]
        for start in range(0, tile.shape[1], _CHUNK):
            chunk = tile[r, start : start + _CHUNK]
            least = best[-1]
            hits = 0
            for c in range(chunk.size):
                hits += sign * chunk[c] > least
            if hits == 0:
                continue
            for c in range(chunk.size):
                score = min(sign * chunk[c], limit)
                if score > best[-1] and keys[start + c] != own[r]:
                    _insert(score, keys[start + c], best, who)


@njit(nogil=True, cache=True, error_model="numpy")
def _keep_columns(tile, sign, at, keys, scores, indices):  # type: ignore[no-untyped-def]
    """The rows of the tile as what may enter the lists of the keys."""
    sign, limit = np.float32(sign), np.float32(1)
    least = np.empty(tile.shape[1], np.float32)
    for c in range(keys.size):
        least[c] = scores[keys[c], -1]
    for r in range(tile.shape[0]):
        for start in range(0, tile.shape[1], _CHUNK):
            chunk, floor = tile[r, start : start + _CHUNK], least[start : start + _CHUNK]
            hits = 0
            for c in range(chunk.size):
                hits += sign * chunk[c] > floor[c]
            if hits == 0:
                continue
            for c in range(chunk.size):
                score = min(sign * chunk[c], limit)
                if score > floor[c]:
                    key = keys[start + c]
                    _insert(score, at[r], scores[key], indices[key])
                    floor[c] = scores[key, -1]


@njit(nogil=True, cache=True, error_model="numpy")
def _count(tile, diagonal):  # type: ignore[no-untyped-def]
    """Counts by bin; with `diagonal` >= 0, of what is right of the diagonal that begins at that column.

    Four tables by turns: an increment need not wait for the one before it in the same bin.
    """
    tables = np.zeros((4, BINS), np.int32)
    bins = np.empty(_CHUNK, np.int32)
    scale = np.float32(LINEAR_BINS // 2)
    for r in range(tile.shape[0]):
        row = tile[r, diagonal + r + 1 :] if diagonal >= 0 else tile[r]
        for start in range(0, row.size, _CHUNK):
            chunk = row[start : start + _CHUNK]
            for c in range(chunk.size):
                bins[c] = np.int32((chunk[c] + np.float32(1)) * scale)
            for c in range(chunk.size):
                if 0 < bins[c] < LINEAR_BINS - 1:
                    tables[c & 3, bins[c] + FINE] += 1
                else:
                    tables[c & 3, _end_bin(chunk[c])] += 1
    return tables.sum(axis=0)


@njit(nogil=True, cache=True, error_model="numpy")
def _end_bin(s):  # type: ignore[no-untyped-def]
    """The bin of a similarity within the first or last linear bin, by the binade of what it lacks to ±1."""
    lacks = np.float32(1) - abs(s)
    beyond = 0
    edge = np.float32(0.5 ** (LOG_BINS - FINE))
    while beyond < FINE and (lacks <= edge if s > 0 else lacks < edge):
        beyond += 1
        edge /= np.float32(2)
    return BINS - 1 - FINE + beyond if s > 0 else FINE - beyond


@njit(nogil=True, cache=True, error_model="numpy")
def _link(tile, sign, threshold, own, labels, keys):  # type: ignore[no-untyped-def]
    sign, threshold = np.float32(sign), np.float32(threshold)
    found = np.full(tile.shape[0], NO_ROW, np.int32)
    for r in range(tile.shape[0]):
        for c in range(tile.shape[1]):
            if labels[c] != own[r] and min(sign * tile[r, c], np.float32(1)) >= threshold:
                found[r] = keys[c]
                break
    return found
