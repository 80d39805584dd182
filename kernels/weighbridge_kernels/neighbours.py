"""The nearest rows of one matrix to those of another, or to its own, in tiles that stay on the device."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from weighbridge_kernels.similar_pairs import NO_ROW, IndexArray, Lists, Metric, Neighbours, checked
from weighbridge_kernels.similar_tiles import keep, product
from weighbridge_kernels.unit_rows import unit_rows

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Float32, Float64, Int32

    from weighbridge_kernels.similar_tiles import DeviceLists

BLOCK = 2048
"""Rows a block: the tile of products is 16 MiB."""
_QUERIES = 64
"""Queries whose differences from all their neighbours are held at once."""


def neighbours(
    queries: Float[Array, "queries cols"],
    keys: Float[Array, "keys cols"],
    *,
    count: int,
    metric: Metric = "cosine",
    first: int | None = None,
    block: int = BLOCK,
) -> Neighbours:
    """For each query the `count` keys of greatest cosine, or of least Euclidean distance; ties by lower index.

    Equivalent to `s = q @ k.T; argsort(-s, stable=True)[:, :count]` of unit rows, without the matrix of all pairs.
    Query i is row `first + i` of the keys and not its own neighbour; with None no query is a key. Products in float32:
    cosines within 4e-6, clamped to ±1, and neighbours that differ by less may change places. Distances, in units of the
    weights, are chosen by float32 products about the mean key, within 4e-6 of the greatest squared one, and given, and
    ordered, by float64 differences; their squares must exist in float32. A row with NaN or Inf has no neighbours and is
    none; nor is, by cosine, a row of zeros. Raises ValueError for what is no matrix, or a count below 1.
    """
    checked(queries, count)
    checked(keys, count)
    with jax.enable_x64(True):
        queries, keys = jnp.asarray(queries), jnp.asarray(keys)
        if metric == "cosine":
            held = list(_unit_blocks(queries, block))
            lists = _lists(held, _unit_blocks(keys, block), count, first, 1.0)
            return Neighbours.of(joined(lists, [at for _, at in held], queries.shape[0], count))
        centre = _mean_row(keys)
        held = list(_centred_blocks(queries, centre, "ones", block))
        lists = _lists(held, _centred_blocks(keys, centre, "halves", block), count, first, np.inf)
        return _by_distance(queries, keys, joined(lists, [at for _, at in held], queries.shape[0], count).indices)


Block = tuple[Any, np.ndarray]
"""Rows on the device, padded, and their indices on the host: -1 for padding and rows that take no part."""


def blocks_of(x: Array, block: int) -> Iterator[tuple[Array, np.ndarray]]:
    """Consecutive rows, the last ones padded with zeros, and their indices, -1 for padding."""
    for start in range(0, x.shape[0], block):
        part = x[start : start + block]
        at = np.full(block, NO_ROW, np.int32)
        at[: part.shape[0]] = np.arange(start, start + part.shape[0])
        yield jnp.pad(part, [(0, block - part.shape[0]), (0, 0)]), at


def _unit_blocks(x: Array, block: int) -> Iterator[Block]:
    for part, at in blocks_of(x, block):
        units, norms = unit_rows(part)
        yield units, np.where(np.asarray(norms) > 0, at, np.int32(NO_ROW))


def _centred_blocks(x: Array, centre: Array, last: Literal["ones", "halves"], block: int) -> Iterator[Block]:
    for part, at in blocks_of(x, block):
        rows, finite = centred(part, centre, last=last)
        yield rows, np.where(np.asarray(finite), at, np.int32(NO_ROW))


def _lists(
    queries: list[Block], keys: Iterator[Block], count: int, first: int | None, limit: float
) -> list[DeviceLists]:
    lists = [empty_lists(at.size, count) for _, at in queries]
    for some_keys, at in keys:
        for i, (rows, own) in enumerate(queries):
            self_ = np.full_like(own, NO_ROW) if first is None else own + np.int32(first)
            lists[i] = keep(lists[i], product(rows, some_keys), np.float32(1), np.float32(limit), self_, at)
    return lists


def empty_lists(rows: int, count: int) -> DeviceLists:
    """Lists on the device that name no row."""
    return jnp.full((rows, count), -jnp.inf, jnp.float32), jnp.full((rows, count), NO_ROW, jnp.int32)


def joined(lists: list[DeviceLists], at: list[np.ndarray], rows: int, count: int) -> Lists:
    """Lists of blocks of `rows` queries as one on the host, without padding, empty for those that take no part."""
    if not lists:
        return Lists.empty(rows, count)
    live = np.concatenate(at)[:rows, None] != NO_ROW
    scores, indices = (
        np.concatenate([np.asarray(part) for part in parts])[:rows] for parts in zip(*lists, strict=True)
    )
    return Lists(np.where(live, scores, np.float32(-np.inf)), np.where(live, indices, np.int32(NO_ROW)))


@jax.jit
def _mean_row(x: Float[Array, "rows cols"]) -> Float64[Array, " cols"]:
    """The mean of the rows that are finite, about which distances lose fewer digits."""
    finite = jnp.isfinite(x).all(axis=1)
    total = jnp.where(finite[:, None], x, 0).sum(axis=0, dtype=jnp.float64)
    return total / jnp.maximum(finite.sum(), 1).astype(jnp.float64)


@partial(jax.jit, static_argnames=("last",))
def centred(
    x: Float[Array, "rows cols"], centre: Float64[Array, " cols"], *, last: Literal["ones", "halves"]
) -> tuple[Float32[Array, "rows cols+1"], Array]:
    """(q, 1) or (k, -|k|² / 2) of rows less a centre, zeros where a row is not finite, and which are.

    |q - k|² = |q|² - 2 (q, 1) · (k, -|k|² / 2): the greatest product is the least distance.
    """
    y = x.astype(jnp.float64) - centre[None, :]
    finite = jnp.isfinite(y).all(axis=1)
    y = jnp.where(finite[:, None], y, 0)
    column = -(y * y).sum(axis=1) / 2 if last == "halves" else jnp.ones(x.shape[0], jnp.float64)
    return jnp.concatenate([y, column[:, None]], axis=1).astype(jnp.float32), finite


@jax.jit
def distances(
    queries: Float[Array, "queries cols"], keys: Float[Array, "keys cols"], indices: Int32[Array, "queries count"]
) -> Float64[Array, "queries count"]:
    """Euclidean distance of each query to the keys that its indices name, from the differences in float64."""
    apart = keys[indices].astype(jnp.float64) - queries[:, None].astype(jnp.float64)
    return jnp.sqrt((apart * apart).sum(axis=2))


def _by_distance(queries: Array, keys: Array, indices: IndexArray) -> Neighbours:
    scores = np.full(indices.shape, -np.inf, np.float32)
    for part, at in blocks_of(queries, _QUERIES) if keys.shape[0] else ():
        inside = at[at != NO_ROW]
        some = np.zeros((at.size, indices.shape[1]), np.int32)
        some[: inside.size] = indices[inside]
        found = np.asarray(distances(part, keys, some))[: inside.size]
        scores[inside] = np.where(indices[inside] == NO_ROW, -np.inf, -found)
    return Neighbours.of(Lists.empty(*indices.shape).merge(Lists(scores, indices)), -1)
