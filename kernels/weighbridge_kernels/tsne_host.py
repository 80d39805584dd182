"""Host form of `tsne`: Numba over points and edges, SciPy's FFT on the grid, both from threads.

Every task of a step writes what no other task writes, and sums are taken in a fixed order: the bits do not depend on
timing, nor on how many threads there are.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy import fft

from weighbridge_kernels import descent, interpolation_grid
from weighbridge_kernels.affinities import Graph
from weighbridge_kernels.descent import Embedding, Progress, Repulsion, Schedule, Stage
from weighbridge_kernels.interpolation_grid import STENCIL, Grid, fitted, kernels

Float32Array = npt.NDArray[np.float32]

_PARTS = 8
"""Slices of the points, with about as many edges in each: the most threads that a step can use."""
_ONE = np.float32(1)
_GAIN_STEP, _GAIN_DECAY, _LEAST_GAIN, _LONGEST_MOVE = (
    np.float32(rate) for rate in (descent.GAIN_STEP, descent.GAIN_DECAY, descent.LEAST_GAIN, descent.LONGEST_MOVE)
)
_REASSOCIATED = {"reassoc", "contract", "nsz"}
"""For sums over many terms, whose order the compiler may choose, once and for all."""
_weights: Any = njit(nogil=True, cache=True, error_model="numpy")(interpolation_grid.weights)


@dataclass(frozen=True, slots=True)
class _State:
    """Coordinates [2, n], their last moves and gains."""

    y: Float32Array
    moves: Float32Array
    gains: Float32Array


@dataclass(frozen=True, slots=True)
class _Edges:
    indptr: npt.NDArray[np.int64]
    others: npt.NDArray[np.uint32]
    p: Float32Array
    parts: tuple[tuple[int, int], ...]


Repel = Callable[[Float32Array], tuple[Float32Array, float]]
"""The sums over j of q^2 (y_i - y_j), [2, n], and Z."""


def tsne(
    graph: Graph,
    start: npt.NDArray[np.floating[Any]],
    *,
    iterations: tuple[int, int] = (250, 500),
    exaggeration: float = 12.0,
    momentum: tuple[float, float] = (0.5, 0.8),
    repulsion: Repulsion = "auto",
    progress: Progress | None = None,
    threads: int | None = None,
) -> Embedding:
    """See `weighbridge_kernels.tsne.tsne`; on `threads` threads, by default one a processor."""
    schedule = Schedule(iterations, exaggeration, momentum)
    route = descent.route_of(repulsion, graph.n)
    y = descent.coordinates(graph, start)
    if graph.n < 2:
        return descent.unmoved(graph, route, schedule)
    edges = _edges(graph)
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        repel = _exactly(pool) if route == "exact" else _on_grids(pool)
        advance = partial(_advance, edges=edges, repel=repel, pool=pool)
        state = descent.descend(advance, _State(y, np.zeros_like(y), np.ones_like(y)), schedule, graph.n, progress)
        _, z = repel(state.y)
    return descent.answer(graph, state.y, z, route, schedule)


def _edges(graph: Graph) -> _Edges:
    shares = np.linspace(0, graph.indptr[-1] + graph.n, _PARTS + 1)
    cuts = np.searchsorted(graph.indptr + np.arange(graph.n + 1), shares)
    parts = tuple((int(a), int(b)) for a, b in pairwise(cuts))
    return _Edges(graph.indptr, graph.indices.astype(np.uint32), graph.weights.astype(np.float32), parts)


def _in_parts(n: int) -> Iterator[tuple[int, int]]:
    for part in range(_PARTS):
        yield n * part // _PARTS, n * (part + 1) // _PARTS


def _advance(state: _State, stage: Stage, *, edges: _Edges, repel: Repel, pool: Executor) -> _State:
    for _ in range(stage.steps):
        pull = np.empty_like(state.y)
        pulls = [
            pool.submit(_attract, state.y, edges.indptr, edges.others, edges.p, *part, pull) for part in edges.parts
        ]
        push, z = repel(state.y)
        for each in pulls:
            each.result()
        rates = (stage.exaggeration, 1 / max(z, descent.LEAST_NORMALISER), stage.learning_rate, stage.momentum)
        _move(state.y, state.moves, state.gains, pull, push, np.array(rates, np.float32))
        np.subtract(state.y, state.y.mean(axis=1, keepdims=True, dtype=np.float64), out=state.y, casting="same_kind")
    return state


@njit(nogil=True, cache=True, error_model="numpy", fastmath=_REASSOCIATED)
def _attract(y, indptr, others, p, start, stop, pull):  # type: ignore[no-untyped-def]
    """The sums over the neighbours j of p q (y_i - y_j)."""
    for i in range(start, stop):
        x0, y0 = y[0, i], y[1, i]
        fx = fy = np.float32(0)
        for e in range(indptr[i], indptr[i + 1]):
            dx, dy = x0 - y[0, others[e]], y0 - y[1, others[e]]
            f = p[e] / (_ONE + dx * dx + dy * dy)
            fx += f * dx
            fy += f * dy
        pull[0, i], pull[1, i] = fx, fy


@njit(nogil=True, cache=True, error_model="numpy")
def _move(y, moves, gains, pull, push, rates):  # type: ignore[no-untyped-def]
    exaggeration, share, learning_rate, momentum = rates
    for i in range(y.shape[1]):
        square = np.float32(0)
        for a in range(2):
            f = exaggeration * pull[a, i] - share * push[a, i]
            opposed = np.sign(moves[a, i]) != np.sign(f)
            gains[a, i] = gains[a, i] + _GAIN_STEP if opposed else gains[a, i] * _GAIN_DECAY + _LEAST_GAIN
            moves[a, i] = momentum * moves[a, i] - learning_rate * gains[a, i] * f
            square += moves[a, i] * moves[a, i]
        if square > _LONGEST_MOVE * _LONGEST_MOVE:
            shorter = _LONGEST_MOVE / np.sqrt(square)
            moves[0, i] *= shorter
            moves[1, i] *= shorter
        y[0, i] += moves[0, i]
        y[1, i] += moves[1, i]


def _exactly(pool: Executor) -> Repel:
    """Repulsion over all pairs."""

    def repel(y: Float32Array) -> tuple[Float32Array, float]:
        push, z = np.empty_like(y), np.empty(y.shape[1])
        tasks = [pool.submit(_repel_all, y[0], y[1], *part, push, z) for part in _in_parts(y.shape[1])]
        for each in tasks:
            each.result()
        return push, float(z.sum())

    return repel


@njit(nogil=True, cache=True, error_model="numpy")
def _repel_all(x, y, start, stop, push, z):  # type: ignore[no-untyped-def]
    """The point itself is left out of its sums, not subtracted: its 1 may dwarf all other terms."""
    for i in range(start, stop):
        before, after = _repel_some(x, y, i, 0, i), _repel_some(x, y, i, i + 1, x.size)
        push[0, i], push[1, i] = before[0] + after[0], before[1] + after[1]
        z[i] = np.float64(before[2]) + np.float64(after[2])


@njit(nogil=True, cache=True, error_model="numpy", fastmath=_REASSOCIATED)
def _repel_some(x, y, i, start, stop):  # type: ignore[no-untyped-def]
    x0, y0 = x[i], y[i]
    fx = fy = total = np.float32(0)
    for j in range(start, stop):
        dx, dy = x0 - x[j], y0 - y[j]
        q = _ONE / (_ONE + dx * dx + dy * dy)
        total += q
        fx += q * q * dx
        fy += q * q * dy
    return fx, fy, total


@dataclass(frozen=True, slots=True)
class _Spectra:
    """Transforms of the kernels on a grid of twice the nodes: q's, real, and those of the forces, imaginary."""

    q: Float32Array
    forces: tuple[Float32Array, Float32Array]


def _on_grids(pool: Executor) -> Repel:
    """Repulsion by interpolation, with the kernels of the last few grids kept."""
    spectra_of = lru_cache(maxsize=2)(_spectra)

    def repel(y: Float32Array) -> tuple[Float32Array, float]:
        low = y.min(axis=1)
        grid = fitted(float((y.max(axis=1) - low).max()))
        spectra = spectra_of(grid)
        x_low, y_low = (low - 1.25 * grid.spacing).astype(np.float32)
        at = x_low, y_low, np.float32(1 / grid.spacing)
        charges = np.zeros((grid.nodes, grid.nodes), np.float32)
        own = _spread(y, *at, _own_kernel(grid), charges)
        transformed = _transform(charges)
        z = _energy(transformed, spectra.q) / len(transformed) ** 2 - own
        transformed *= np.complex64(1j)
        fields = [pool.submit(_field, transformed, force) for force in spectra.forces]
        x_field, y_field = (field.result() for field in fields)
        push = np.empty_like(y)
        tasks = [pool.submit(_gather, y, *at, x_field, y_field, *part, push) for part in _in_parts(y.shape[1])]
        for each in tasks:
            each.result()
        return push, z

    return repel


def _spectra(grid: Grid) -> _Spectra:
    offsets = np.roll(np.arange(-grid.nodes, grid.nodes, dtype=np.float32), grid.nodes) * np.float32(grid.spacing)
    q, x, y = (fft.rfft2(kernel) for kernel in kernels(offsets[:, None], offsets[None, :]))
    return _Spectra(q.real.copy(), (x.imag.copy(), y.imag.copy()))


def _own_kernel(grid: Grid) -> npt.NDArray[np.float64]:
    """q between nodes of one stencil by how far they are apart, both directions counted."""
    offsets = np.arange(STENCIL) * grid.spacing
    twice = np.where(offsets > 0, 2, 1)
    q: npt.NDArray[np.float64] = kernels(offsets[:, None], offsets[None, :])[0] * twice[:, None] * twice[None, :]
    return q


def _transform(charges: Float32Array) -> npt.NDArray[np.complex64]:
    """`rfft2` of the charges with as many zeros after them on each axis."""
    nodes = len(charges)
    transformed: npt.NDArray[np.complex64] = fft.fft(fft.rfft(charges, 2 * nodes, axis=1), 2 * nodes, axis=0)
    return transformed


def _field(transformed: npt.NDArray[np.complex64], force: Float32Array) -> Float32Array:
    """The nodes' part of the inverse transform of the product."""
    size = len(transformed)
    rows = fft.ifft(transformed * force, axis=0, overwrite_x=True)[: size // 2]
    field: Float32Array = fft.irfft(rows, size, axis=1)[:, : size // 2]
    return field


@njit(nogil=True, cache=True, error_model="numpy", fastmath=_REASSOCIATED)
def _energy(transformed, q):  # type: ignore[no-untyped-def]
    """The sum of q between all charges, times the number of frequencies (Parseval); inner columns stand for two."""
    total = 0.0
    last = transformed.shape[1] - 1
    for r in range(transformed.shape[0]):
        row = 0.0
        for c in range(last + 1):
            v = transformed[r, c]
            row += np.float64((v.real * v.real + v.imag * v.imag) * q[r, c])
        for c in (0, last):
            v = transformed[r, c]
            row -= 0.5 * np.float64((v.real * v.real + v.imag * v.imag) * q[r, c])
        total += 2 * row
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def _place(coordinate, low, inverse):  # type: ignore[no-untyped-def]
    """The first node of a point's stencil, and its nodes' weights."""
    u = (coordinate - low) * inverse
    node = np.int64(u)
    return node - 1, _weights(u - np.float32(node))


@njit(nogil=True, cache=True, error_model="numpy")
def _spread(y, x_low, y_low, inverse, own_kernel, charges):  # type: ignore[no-untyped-def]
    """Adds the points' charges to the nodes, and gives the sum over points of q of its charges on themselves."""
    own = 0.0
    for i in range(y.shape[1]):
        row, along_x = _place(y[0, i], x_low, inverse)
        column, along_y = _place(y[1, i], y_low, inverse)
        for a in range(STENCIL):
            for b in range(STENCIL):
                charges[row + a, column + b] += along_x[a] * along_y[b]
        for a in range(STENCIL):
            for b in range(STENCIL):
                own += own_kernel[a, b] * _lagged(along_x, a) * _lagged(along_y, b)
    return own


@njit(nogil=True, cache=True, error_model="numpy")
def _lagged(weights, lag):  # type: ignore[no-untyped-def]
    total = 0.0
    for a in range(STENCIL - lag):
        total += weights[a] * weights[a + lag]
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def _gather(y, x_low, y_low, inverse, x_field, y_field, start, stop, push):  # type: ignore[no-untyped-def]
    for i in range(start, stop):
        row, along_x = _place(y[0, i], x_low, inverse)
        column, along_y = _place(y[1, i], y_low, inverse)
        fx = fy = np.float32(0)
        for a in range(STENCIL):
            for b in range(STENCIL):
                weight = along_x[a] * along_y[b]
                fx += weight * x_field[row + a, column + b]
                fy += weight * y_field[row + a, column + b]
        push[0, i], push[1, i] = fx, fy
