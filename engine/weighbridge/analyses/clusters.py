"""Groups of points by scikit-learn, found among the points themselves and never on a map, and what sets each apart."""

from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weighbridge.analyses.layouts import principal_scores
from weighbridge.analyses.points import Neighbourhood, Points
from weighbridge.errors import BadArgument
from weighbridge.report.projections import NO_CLUSTER, Clusters

Clustering = Literal["none", "kmeans", "hdbscan"]
Labels = npt.NDArray[np.int32]

GRAPH_NEIGHBOURS = 15
"""Nearest neighbours of each point by which HDBSCAN knows densities."""
_SCORES = 50
"""Principal components that k-means looks at."""
_MOST, _FEWEST_POINTS = 32, 5
_STARTS = 4
_TELLING = 5
"""Columns told of each cluster."""
_LEAST_DISTANCE = 1e-12
"""Of equal points: SciPy's graphs take 0 for no edge."""


def check(clustering: Clustering, count: int | None) -> None:
    """Raises `BadArgument` where clusters cannot be found as asked."""
    if count is not None and (clustering != "kmeans" or count < 1):
        raise BadArgument(f"cluster_count {count} with clusters {clustering!r}; expected 1 or more, with 'kmeans'")
    if clustering != "none" and find_spec("sklearn") is None:
        raise BadArgument(f"clusters {clustering!r} needs scikit-learn; pip install 'weighbridge[clusters]'")


def labels_of(clustering: Clustering, points: Points, near: Neighbourhood, count: int | None, key: int) -> Labels:
    """The cluster of every point, the largest cluster 0; -1 for a point in none."""
    n = len(points.x)
    if clustering == "none" or n < 2:
        return np.full(n, NO_CLUSTER, np.int32)
    found = _kmeans(points, count, key) if clustering == "kmeans" else _hdbscan(near)
    return _by_size(found)


def _kmeans(points: Points, count: int | None, key: int) -> npt.NDArray[Any]:
    """Among the leading principal scores; without a count about sqrt(n / 2) clusters, 32 at most."""
    import warnings

    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    n = len(points.x)
    scores, _ = principal_scores(points.seen, _SCORES, points, key)
    wanted = min(count or min(round((n / 2) ** 0.5), _MOST), n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different points than clusters
        found: npt.NDArray[Any] = KMeans(wanted, n_init=_STARTS, random_state=key).fit_predict(scores)
    return found


def _hdbscan(near: Neighbourhood) -> npt.NDArray[Any]:
    """Over the graph of nearest neighbours, whose separate parts are joined at twice the greatest distance."""
    from sklearn.cluster import HDBSCAN

    n = len(near.indices)
    fewest = max(_FEWEST_POINTS, n // 500)
    if n <= fewest:
        return np.full(n, NO_CLUSTER)
    model = HDBSCAN(min_cluster_size=fewest, min_samples=_FEWEST_POINTS, metric="precomputed", copy=True)
    found: npt.NDArray[Any] = model.fit_predict(_connected(near))
    return found


def _connected(near: Neighbourhood) -> Any:
    """Distances to nearest neighbours, both ways, as a sparse matrix of one connected part."""
    from scipy.sparse import coo_array, csr_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(near.indices)
    others = near.indices[:, :GRAPH_NEIGHBOURS]
    own, k = np.repeat(np.arange(n), others.shape[1]), others.shape[1]
    far = np.maximum(near.distances[:, :k], _LEAST_DISTANCE)
    edges = coo_array((far.ravel(), (own, others.ravel())), shape=(n, n)).tocsr()
    _, part = connected_components(edges, directed=False)
    _, first = np.unique(part, return_index=True)
    bridges = coo_array((np.full(len(first) - 1, 2 * far.max()), (first[:-1], first[1:])), shape=(n, n)).tocsr()
    joined = edges + bridges
    return csr_matrix(joined.maximum(joined.T))


def _by_size(labels: npt.NDArray[Any]) -> Labels:
    """The same groups, numbered from the largest down; of equal ones the first to appear first."""
    known, first, counts = np.unique(labels, return_index=True, return_counts=True)
    inside = known >= 0
    order = np.lexsort((first[inside], -counts[inside]))
    rank = np.full(len(known), NO_CLUSTER, np.int32)
    rank[np.flatnonzero(inside)[order]] = np.arange(inside.sum())
    return rank[np.searchsorted(known, labels)]


def described(points: Points, labels: Labels, channels: npt.NDArray[np.int64]) -> Clusters:
    """What each cluster comes to; `channels` are the rows or columns that the points are."""
    groups = [np.flatnonzero(labels == label) for label in range(labels.max(initial=NO_CLUSTER) + 1)]
    telling = min(_TELLING, points.x.shape[1])
    if not groups:
        none = np.zeros(0)
        table = np.zeros((0, telling))
        return Clusters(none.astype(np.int64), none.astype(np.int64), none, table.astype(np.int64), table)
    units = points.kernels.unit_rows(points.x)[0]
    means = np.stack([points.x[group].mean(axis=0, dtype=np.float64) for group in groups])
    columns, deviations = _telling(means, points.x, telling)
    return Clusters(
        np.array([group.size for group in groups]),
        channels[[_medoid(points.seen, group) for group in groups]],
        np.array([_mean_cosine(units[group]) for group in groups]),
        columns,
        deviations,
    )


def _medoid(x: npt.NDArray[Any], group: npt.NDArray[np.int64]) -> int:
    """The point of least mean squared distance to all of its group, which is the nearest to their mean."""
    apart = x[group] - x[group].mean(axis=0, dtype=np.float64)
    return int(group[np.einsum("ij,ij->i", apart, apart).argmin()])


def _mean_cosine(units: npt.NDArray[Any]) -> float:
    """Over all pairs; NaN for a single point."""
    m = len(units)
    total = units.sum(axis=0, dtype=np.float64)
    return float((total @ total - m) / (m * (m - 1))) if m > 1 else float("nan")


def _telling(means: npt.NDArray[Any], x: npt.NDArray[Any], count: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Of each mean the columns that are farthest from the mean of all, and by how many standard deviations."""
    spread = x.std(axis=0, dtype=np.float64)
    z = (means - x.mean(axis=0, dtype=np.float64)) / np.where(spread > 0, spread, 1)
    columns = np.argsort(-np.abs(z), axis=1, kind="stable")[:, :count]
    return columns, np.take_along_axis(z, columns, axis=1)
