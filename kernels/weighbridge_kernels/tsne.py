"""t-SNE on any device: the definition, which `tsne_host` follows on CPUs.

Attraction runs over the edges of the graph, repulsion over all pairs in blocks or by interpolation on a grid
(`interpolation_grid`). Nothing is scattered: rows of edges are summed by segments, charges are spread and forces
gathered by products of dense stencils, at the highest precision. One compilation serves all chunks of iterations on
grids of one size, of which there are five. The FFT shares the loop's jit: on the CPU with jax 0.10.2 it measured as
fast there as in a jit of its own, unlike what jax issue 39081 saw.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from weighbridge_kernels import descent
from weighbridge_kernels.interpolation_grid import STENCIL, fitted, kernels, weights
from weighbridge_kernels.segments import segment_tables

if TYPE_CHECKING:
    from jaxtyping import Array, Float32, Int32

    from weighbridge_kernels.affinities import Graph
    from weighbridge_kernels.descent import Embedding, Progress, Repulsion, Stage

    Pair = tuple[Array, Array]

SIDES = (128, 256, 512, 1024, 2048)
"""Of the grids, few so that compilations are few."""
_ROOM = 1.5
"""How much longer than the span a grid holds at full fineness: what an embedding grows in a chunk."""
_CELLS = 1 << 22
"""Pairs, or points times nodes, that are looked at together."""
_product = partial(jnp.matmul, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32)


class Edges(NamedTuple):
    """A graph's edges in segments of one width: the point whose segment it is, the points at the other ends, P."""

    owners: Int32[Array, " segments"]
    others: Int32[Array, "segments width"]
    p: Float32[Array, "segments width"]
    tables: tuple[Int32[Array, "_ width"], ...]


class State(NamedTuple):
    """Coordinates, their last moves and gains."""

    y: Float32[Array, "2 n"]
    moves: Float32[Array, "2 n"]
    gains: Float32[Array, "2 n"]


class Rates(NamedTuple):
    exaggeration: Float32[Array, ""]
    learning_rate: Float32[Array, ""]
    momentum: Float32[Array, ""]


def tsne(
    graph: Graph,
    start: np.ndarray,
    *,
    iterations: tuple[int, int] = (250, 500),
    exaggeration: float = 12.0,
    momentum: tuple[float, float] = (0.5, 0.8),
    repulsion: Repulsion = "auto",
    progress: Progress | None = None,
) -> Embedding:
    """An embedding in two dimensions whose neighbourhoods are the graph's: a local minimum of KL(P || Q) from `start`.

    `descent` states gradient, gains and moves, which are openTSNE's, but for the momentum of the first phase (0.8
    there); 250 iterations with P exaggerated twelvefold, then 500. `start` is [n, 2], small, such as `scaled_start`.
    Repulsion is over all pairs for up to 4,000 points, where that is as fast, else by interpolation; that has a
    relative error of a few percent where forces nearly cancel and well below one elsewhere, and memory bounded however
    far points spread. `progress(done, total)` is called every 50 iterations; what it raises ends the work.

    Coordinates, forces and moves in float32, the divergence's sum in float64 on the host. One input gives the same bits
    on one device. Fewer than two points lie at 0. Points that start equal and have equal neighbours stay equal.

    Raises `ValueError` for a start of another shape or not finite.
    Source: van der Maaten and Hinton 2008, JMLR 9, 2579-2605; Linderman et al. 2019, doi:10.1038/s41592-018-0308-4.
    """
    schedule = descent.Schedule(iterations, exaggeration, momentum)
    route = descent.route_of(repulsion, graph.n)
    y = jnp.asarray(descent.coordinates(graph, start))
    if graph.n < 2:
        return descent.unmoved(graph, route, schedule)
    edges = _edges(graph)

    def advance(state: State, stage: Stage) -> State:
        rates = Rates(*map(jnp.float32, (stage.exaggeration, stage.learning_rate, stage.momentum)))
        after: State = advanced(state, edges, rates, np.int32(stage.steps), nodes=_nodes(route, state.y))
        return after

    state = descent.descend(advance, State(y, jnp.zeros_like(y), jnp.ones_like(y)), schedule, graph.n, progress)
    _, z = repelled(state.y, nodes=_nodes(route, state.y))
    return descent.answer(graph, np.asarray(state.y), float(z), route, schedule)


def _nodes(route: str, y: Array) -> int:
    """On a side of the grid, 0 for no grid."""
    return 0 if route == "exact" else fitted(_ROOM * float(_span(y)), SIDES).nodes


def _span(y: Array) -> Array:
    return (y.max(axis=1) - y.min(axis=1)).max()


def _edges(graph: Graph) -> Edges:
    owners, (entries, *tables) = segment_tables(graph.indptr)
    others, p = np.append(graph.indices, np.int32(0)), np.append(graph.weights, 0).astype(np.float32)
    levels = tuple(jnp.asarray(table) for table in tables)
    return Edges(jnp.asarray(owners), jnp.asarray(others[entries]), jnp.asarray(p[entries]), levels)


@partial(jax.jit, static_argnames="nodes")
def advanced(state: State, edges: Edges, rates: Rates, steps: Int32[Array, ""], *, nodes: int) -> State:
    """The state after some iterations, on a grid of `nodes` a side, or over all pairs if that is 0."""
    after: State = lax.fori_loop(0, steps, lambda _, s: _moved(s, edges, rates, nodes), state)
    return after


def _moved(state: State, edges: Edges, rates: Rates, nodes: int) -> State:
    push, z = _repulsion(state.y, nodes)
    f = rates.exaggeration * attraction(state.y, edges) - push / jnp.maximum(z, descent.LEAST_NORMALISER)
    opposed = jnp.sign(state.moves) != jnp.sign(f)
    gains = jnp.where(opposed, state.gains + descent.GAIN_STEP, state.gains * descent.GAIN_DECAY + descent.LEAST_GAIN)
    moves = rates.momentum * state.moves - rates.learning_rate * gains * f
    lengths = jnp.sqrt((moves * moves).sum(axis=0, keepdims=True))
    moves = moves * (descent.LONGEST_MOVE / jnp.maximum(lengths, descent.LONGEST_MOVE))
    y = state.y + moves
    return State(y - y.mean(axis=1, keepdims=True), moves, gains)


@jax.jit
def attraction(y: Float32[Array, "2 n"], edges: Edges) -> Float32[Array, "2 n"]:
    """The sums over j of p_ij q_ij (y_i - y_j)."""
    away = y[:, edges.owners][:, :, None] - y[:, edges.others]
    sums = (away * (edges.p / (1 + (away * away).sum(axis=0)))[None]).sum(axis=2)
    for table in edges.tables:
        sums = jnp.pad(sums, ((0, 0), (0, 1)))[:, table].sum(axis=2)
    return sums


@partial(jax.jit, static_argnames="nodes")
def repelled(y: Float32[Array, "2 n"], *, nodes: int) -> tuple[Float32[Array, "2 n"], Float32[Array, ""]]:
    """The sums over j of q_ij^2 (y_i - y_j), and Z: on a grid of `nodes` a side, or over all pairs if that is 0."""
    return _repulsion(y, nodes)


def _repulsion(y: Array, nodes: int) -> Pair:
    return _on_grid(y, nodes) if nodes else _over_all_pairs(y)


def _blocks(y: Array, width: int) -> Pair:
    """The points in blocks [blocks, 2, rows], the last one padded, and their numbers [blocks, rows]: padding's >= n."""
    n = y.shape[1]
    rows = max(min(_CELLS // width, n), 1)
    blocks = -(-n // rows)
    padded = jnp.pad(y, ((0, 0), (0, blocks * rows - n)), mode="edge")
    numbers = jnp.arange(blocks * rows, dtype=jnp.int32)
    return padded.reshape(2, blocks, rows).transpose(1, 0, 2), numbers.reshape(blocks, rows)


def _joined(blocks: Float32[Array, "blocks 2 rows"], n: int) -> Float32[Array, "2 n"]:
    return blocks.transpose(1, 0, 2).reshape(2, -1)[:, :n]


def _over_all_pairs(y: Array) -> Pair:
    n = y.shape[1]

    def of_block(block: Pair) -> Pair:
        points, numbers = block
        q, *forces = kernels(*(points[a][:, None] - y[a][None, :] for a in range(2)))
        itself = numbers[:, None] == jnp.arange(n, dtype=jnp.int32)[None, :]
        sums = jnp.where(itself, 0, q).sum(axis=1)
        return jnp.stack([force.sum(axis=1) for force in forces]), jnp.where(numbers < n, sums, 0)

    push, z = lax.map(of_block, _blocks(y, n))
    return _joined(push, n), z.sum()


def _on_grid(y: Array, nodes: int) -> Pair:
    """As in `interpolation_grid`, with the spacing that just holds the points: a growing embedding stays inside."""
    n, low = y.shape[1], y.min(axis=1, keepdims=True)
    spacing = jnp.maximum(_span(y), 1e-6) / (nodes - STENCIL - 1)
    blocks, numbers = _blocks((y - low) / spacing + 1.25, nodes)
    charges, own = _spread(blocks, numbers < n, spacing, nodes)
    fields, z = _convolved(charges, spacing)
    push = lax.map(lambda block: _gathered(block, fields), blocks)
    return _joined(push, n), z - own


def _stencils(u: Float32[Array, "2 rows"]) -> tuple[Int32[Array, "2 rows"], tuple[Array, ...]]:
    node = u.astype(jnp.int32)
    return node - 1, weights(u - node.astype(u.dtype))


def _dense(u: Float32[Array, "2 rows"], nodes: int) -> Float32[Array, "2 rows nodes"]:
    """The weights of all nodes for each point and axis, zero but on its stencil."""
    first, stencil = _stencils(u)
    at = jnp.arange(nodes, dtype=jnp.int32)[None, None, :] - first[:, :, None]
    return sum((jnp.where(at == a, w[:, :, None], 0) for a, w in enumerate(stencil)), start=jnp.float32(0))


def _spread(blocks: Array, are_points: Array, spacing: Array, nodes: int) -> Pair:
    """Charges on the nodes, and the sum of q between each charge and itself."""
    offsets = jnp.arange(STENCIL, dtype=jnp.float32) * spacing
    own_kernel = kernels(offsets[:, None], offsets[None, :])[0]

    def add(sums: Pair, block: Pair) -> tuple[Pair, None]:
        u, is_point = block
        along_x, along_y = _dense(u, nodes)
        charges = _product(jnp.where(is_point[:, None], along_x, 0).T, along_y)
        x, y = _lagged(_stencils(u)[1])
        own = jnp.where(is_point, (_product(x, own_kernel) * y).sum(axis=1), 0).sum()
        return (sums[0] + charges, sums[1] + own), None

    zero = jnp.zeros((nodes, nodes), jnp.float32), jnp.zeros((), jnp.float32)
    return lax.scan(add, zero, (blocks, are_points))[0]


def _lagged(stencil: tuple[Array, ...]) -> Float32[Array, "2 rows lags"]:
    """The products of a stencil's weights by how many nodes they are apart, both directions counted."""
    return jnp.stack(
        [
            (1 if lag == 0 else 2) * sum(stencil[a] * stencil[a + lag] for a in range(STENCIL - lag))
            for lag in range(STENCIL)
        ],
        axis=2,
    )


def _convolved(charges: Float32[Array, "nodes nodes"], spacing: Array) -> Pair:
    """The forces of all nodes on all, [2, nodes, nodes], and the sum of q between all charges."""
    nodes = charges.shape[0]
    offsets = jnp.roll(jnp.arange(-nodes, nodes, dtype=jnp.float32), nodes) * spacing
    spectra = jnp.fft.rfft2(jnp.stack(kernels(offsets[:, None], offsets[None, :])))
    transformed = jnp.fft.rfft2(charges, (2 * nodes, 2 * nodes))
    convolved = jnp.fft.irfft2(transformed[None] * spectra, (2 * nodes, 2 * nodes))[:, :nodes, :nodes]
    return convolved[1:], (convolved[0] * charges).sum()


def _gathered(u: Float32[Array, "2 rows"], fields: Float32[Array, "2 nodes nodes"]) -> Float32[Array, "2 rows"]:
    along_x, along_y = _dense(u, fields.shape[1])
    forces: Array = _product(along_x[None], fields) * along_y[None]
    return forces.sum(axis=2)
