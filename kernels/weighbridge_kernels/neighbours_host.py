"""Host form of `neighbours`: keys are cast and scaled a block at a time."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge_kernels.similar_pairs import (
    NO_ROW,
    Float32Array,
    FloatArray,
    IndexArray,
    Lists,
    Metric,
    Neighbours,
    checked,
)
from weighbridge_kernels.similar_tiles_host import BLOCK, Passes, Rows, live_blocks
from weighbridge_kernels.unit_rows_host import unit_rows

_QUERIES = 64
"""Queries whose differences from all their neighbours are held in float64 at once."""


def neighbours(
    queries: npt.NDArray[Any],
    keys: npt.NDArray[Any],
    *,
    count: int,
    metric: Metric = "cosine",
    first: int | None = None,
    block: int = BLOCK,
) -> Neighbours:
    """See `weighbridge_kernels.neighbours.neighbours`."""
    checked(queries, count)
    checked(keys, count)
    lists = Lists.empty(queries.shape[0], count)
    if metric == "euclidean":
        centre = _mean_row(keys, block)
        ones = _centred_blocks(queries, centre, np.ones_like, first, block)
        halves = _centred_blocks(keys, centre, lambda squares: -squares / 2, None, block)
        _queries_by_keys(ones, halves, lists, np.inf, block)
        return _by_distance(queries, keys, lists.indices)
    if queries is keys and first == 0:
        _each_pair_once(keys, lists, block)
    else:
        _queries_by_keys(_unit_blocks(queries, first, block), _unit_blocks(keys, None, block), lists, 1.0, block)
    return Neighbours.of(lists)


def _each_pair_once(x: npt.NDArray[Any], lists: Lists, block: int) -> None:
    units, norms = unit_rows(x)
    blocks = live_blocks(units, norms > 0, block)
    with Passes(block) as passes:
        for i, queries in enumerate(blocks):
            for keys in blocks[i:]:
                passes.keep_both(passes.product(queries.rows, keys.rows), 1, queries, keys, lists)


def _queries_by_keys(queries: Iterator[Rows], keys: Iterator[Rows], lists: Lists, limit: float, block: int) -> None:
    held = list(queries)
    with Passes(block) as passes:
        for some_keys in keys:
            for some in held:
                passes.keep(passes.product(some.rows, some_keys.rows), 1, some, some_keys, lists, limit)


def _unit_blocks(x: npt.NDArray[Any], first: int | None, block: int) -> Iterator[Rows]:
    for start in range(0, x.shape[0], block):
        units, norms = unit_rows(x[start : start + block])
        yield _kept(units, norms > 0, start, first)


def _kept(rows: Float32Array, live: npt.NDArray[np.bool_], start: int, first: int | None) -> Rows:
    at = (start + np.flatnonzero(live)).astype(np.int32)
    own = np.full_like(at, NO_ROW) if first is None else at + np.int32(first)
    return Rows(rows if live.all() else rows[live], at, own)


def _mean_row(x: npt.NDArray[Any], block: int) -> FloatArray:
    """The mean of the rows that are finite, about which distances lose fewer digits."""
    total, n = np.zeros(x.shape[1]), 0
    for start in range(0, x.shape[0], block):
        y = x[start : start + block].astype(np.float64)
        finite = np.isfinite(y).all(axis=1)
        total += y[finite].sum(axis=0)
        n += int(finite.sum())
    return total / max(n, 1)


def _centred_blocks(
    x: npt.NDArray[Any],
    centre: FloatArray,
    last: Callable[[FloatArray], FloatArray],
    first: int | None,
    block: int,
) -> Iterator[Rows]:
    """Rows less the centre, and one more column: what `last` makes of their squared norms."""
    for start in range(0, x.shape[0], block):
        y = x[start : start + block].astype(np.float64) - centre
        squares = np.square(y).sum(axis=1)
        yield _kept(np.column_stack([y, last(squares)]).astype(np.float32), np.isfinite(squares), start, first)


def _by_distance(queries: npt.NDArray[Any], keys: npt.NDArray[Any], indices: IndexArray) -> Neighbours:
    """The distances of the pairs found, in float64 from the differences, and the lists in their order."""
    scores = np.full(indices.shape, -np.inf, np.float32)
    for start in range(0, indices.shape[0] if keys.shape[0] else 0, _QUERIES):
        some = indices[start : start + _QUERIES]
        apart = keys[some].astype(np.float64) - queries[start : start + _QUERIES, None].astype(np.float64)
        scores[start : start + _QUERIES] = np.where(some == NO_ROW, -np.inf, -np.linalg.norm(apart, axis=2))
    return Neighbours.of(Lists.empty(*indices.shape).merge(Lists(scores, indices)), -1)
