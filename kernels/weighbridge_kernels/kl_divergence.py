"""How much of the affinities an embedding loses: the Kullback-Leibler divergence, exactly, in float64.

KL(P || Q) = sum p_ij log(p_ij / q_ij) over pairs i != j, in nats, where q_ij = 1 / (1 + |y_i - y_j|^2) / Z and Z is the
sum of 1 / (1 + |y_i - y_j|^2) over all pairs, the normaliser. A p of 0 adds nothing. NumPy alone.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge_kernels.affinities import FloatArray, Graph, calibrated

Points = npt.NDArray[np.floating[Any]]

_CELLS = 1 << 21
"""Pairs that are looked at together."""


def kl_divergence(graph: Graph, points: Points) -> float:
    """The divergence with every p given and Z over all n (n - 1) pairs, in blocks; NaN where a point is NaN."""
    return kl_with_normaliser(graph, points, normaliser(points))


def kl_with_normaliser(graph: Graph, points: Points, z: float) -> float:
    """The divergence where Z is known: sum p log(p (1 + d^2)) + log(Z) sum p. 0 for a graph without edges."""
    y, total = np.asarray(points, np.float64), 0.0
    rows = np.repeat(np.arange(graph.n), np.diff(graph.indptr))
    for start in range(0, graph.weights.size, _CELLS):
        part = slice(start, start + _CELLS)
        p, d = graph.weights[part], y[rows[part]] - y[graph.indices[part]]
        total += float(_p_log(p, 1 + (d * d).sum(axis=1)).sum())
    return total + math.log(z) * float(graph.weights.sum()) if graph.weights.size else 0.0


def _p_log(p: FloatArray, inverse_q: FloatArray) -> FloatArray:
    terms: FloatArray = p * np.log(np.where(p > 0, p, 1) * inverse_q)
    return terms


def normaliser(points: Points) -> float:
    """Z, exactly but for rounding; 0 for fewer than two points."""
    y, total = np.asarray(points, np.float64), 0.0
    step = max(_CELLS // max(len(y), 1), 1)
    for start in range(0, len(y), step):
        inverse_q = np.ones((min(step, len(y) - start), len(y)))
        for a in range(y.shape[1]):
            inverse_q += (y[start : start + step, None, a] - y[None, :, a]) ** 2
        total += float((1 / inverse_q).sum())
    return total - len(y)


def all_pairs(x: npt.NDArray[Any], perplexity: float = 30.0) -> Graph:
    """Affinities over all pairs of few points, none left out, by Euclidean distance: what a judge holds others to.

    [n, features] in, n (n - 1) weights out. As `affinities`, with every other point a neighbour and the perplexity
    lowered where n - 1 < 3 * perplexity.
    """
    y = np.asarray(x, np.float64)
    n = len(y)
    other = np.array([np.delete(np.arange(n), i) for i in range(n)], np.int32).reshape(n, max(n - 1, 0))
    squares = np.array([((y[i] - y[other[i]]) ** 2).sum(axis=1) for i in range(n)]).reshape(other.shape)
    return calibrated(squares, other, perplexity)
