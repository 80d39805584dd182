"""Where points lie on a map of few dimensions, by each method, and what the method says of its own fit."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weighbridge.analyses.points import Neighbourhood, Points
from weighbridge_kernels.affinities import affinities, neighbours_needed
from weighbridge_kernels.descent import scaled_start

Method = Literal["pca", "tsne", "nmf", "random"]
FloatArray = npt.NDArray[np.floating[Any]]
Told = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Layout:
    """Scores [n, dims], the components [dims, d] that give them, of methods that have some, and columns of the row."""

    scores: FloatArray
    components: FloatArray
    figures: dict[str, Any] = field(default_factory=dict)


def needed(method: Method, perplexity: float, n: int) -> int:
    """Nearest neighbours of each point that a method looks at."""
    return neighbours_needed(perplexity, n) if method == "tsne" else 0


def lay_out(
    method: Method, points: Points, near: Neighbourhood, *, dims: int, perplexity: float, key: int, told: Told
) -> Layout:
    """The map of a method."""
    if method == "tsne":
        return _tsne(points, near, perplexity, key, told)
    if method == "random":
        scores = points.kernels.module("random_projection").random_projection(points.x, dims, key=key)
        return Layout(np.asarray(scores), _none(points))
    return (_pca if method == "pca" else _nmf)(points, dims, key)


def principal_scores(x: npt.NDArray[Any], count: int, points: Points, key: int) -> tuple[FloatArray, Any]:
    """Scores along the leading principal components, as many as there are up to `count`, and the components."""
    kernel = points.kernels.module("pca")
    found = kernel.pca(lambda: (x,), x.shape, count=min(count, *x.shape), key=key)
    return np.asarray(kernel.scores(x, found)), found


def _pca(points: Points, dims: int, key: int) -> Layout:
    scores, found = principal_scores(points.x, dims, points, key)
    share = float(found.explained_variance_ratio.sum())
    figures = {"explained_variance": _plain(share), "reconstruction_error": _plain(math.sqrt(max(1 - share, 0)))}
    return Layout(_widened(scores, dims), _widened(found.components.T, dims).T, figures)


def _nmf(points: Points, dims: int, key: int) -> Layout:
    """Points are not negative along any factor, as channels in Voss et al. 2021; the factors themselves are signed."""
    rows, cols = points.x.shape
    kernel = points.kernels.module("nmf")
    found = kernel.one_sided_nmf(points.x, min(dims, rows, 2 * cols), axis=0, key=key)
    share = float(found.explained_share)
    figures = {
        "explained_variance": share,
        "reconstruction_error": math.sqrt(max(1 - share, 0)),
        "iterations": int(found.iterations),
    }
    return Layout(_widened(found.channels.T, dims), _widened(found.spatial, dims).T, figures)


def _tsne(points: Points, near: Neighbourhood, perplexity: float, key: int, told: Told) -> Layout:
    n = len(points.x)
    count = needed("tsne", perplexity, n)
    graph = affinities(near.distances[:, :count], near.indices[:, :count], perplexity)
    start = scaled_start(principal_scores(points.seen, 2, points, key)[0], key)
    found = points.kernels.module("tsne").tsne(
        graph, start, progress=lambda done, total: told("descending", done, total)
    )
    figures = {"perplexity": float(found.perplexity), "iterations": int(found.iterations), "kl": float(found.kl)}
    return Layout(found.points, _none(points), figures)


def _none(points: Points) -> FloatArray:
    return np.zeros((0, points.x.shape[1]), np.float32)


def _widened(scores: FloatArray, dims: int) -> FloatArray:
    """With columns of zeros for the dimensions that so few points, or entries of each, do not have."""
    return np.pad(scores, [(0, 0), (0, dims - scores.shape[1])])


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
