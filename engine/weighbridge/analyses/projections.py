"""`project`: the rows or columns of a tensor as points of two or three dimensions, and how far the map can be trusted.

Every call is a row of the table `projections`, called by what was asked for (`rows tsne`); its arrays lie in a zarr
group beside the table.
"""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from weighbridge import devices
from weighbridge.analyses import clusters as clustering
from weighbridge.analyses.clusters import Clustering
from weighbridge.analyses.layouts import Layout, Method, lay_out, needed
from weighbridge.analyses.part_plan import PartPlan, begin, finish, make_part_plan
from weighbridge.analyses.plan import IfExists
from weighbridge.analyses.points import Metric, Neighbourhood, Points, Side, chosen, read_points
from weighbridge.checkpoints.protocol import Tensor
from weighbridge.errors import BadArgument
from weighbridge.matrix import MatrixView, matrix_view
from weighbridge.report import Report
from weighbridge.report.projections import NO_CLUSTER, TABLE, Arrays, Clusters, save
from weighbridge.roles import assign
from weighbridge_kernels.projection_quality import neighbour_recall, trustworthiness
from weighbridge_kernels.variants import Device, Variant

LISTED = 10
"""Nearest neighbours kept of each point, by as many of which the map is judged."""
_JUDGED = 5000
"""Points up to which all are judged; of more a sample."""
_SAMPLE = 2000
_LONGEST = 1e18
"""Norm up to which squares of distances are float32 numbers."""
_PERPLEXITY = 30.0
_FEW_DIMENSIONS = 3

Told = Callable[[str, int, int], None]
Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What a caller of `project` may choose; see there."""

    method: Method
    side: Side
    dims: int
    metric: Metric
    perplexity: float
    clusters: Clustering
    cluster_count: int | None
    key: int
    rows: range | slice | None

    @property
    def part(self) -> str:
        """What a projection is called: all that it hangs on, what is as by default left out."""
        some = f" {_bound(self.rows.start)}:{_bound(self.rows.stop)}" if self.rows is not None else ""
        kept = [
            f"{self.side}{some} {self.method}",
            f"{self.dims}d" if self.dims != 2 else "",
            self.metric if self.metric != "cosine" else "",
            f"perplexity {self.perplexity:g}" if self.method == "tsne" and self.perplexity != _PERPLEXITY else "",
            self.clusters + (f" {self.cluster_count}" if self.cluster_count else "") if self.clusters != "none" else "",
            f"key {self.key}" if self.key else "",
        ]
        return " ".join(text for text in kept if text)


@dataclass(frozen=True)
class ProjectionPlan:
    """A row to be, and what the points are to be made of."""

    row: PartPlan
    view: MatrixView
    role: str
    layer: int | None
    extent: range
    options: Options

    @property
    def channels(self) -> int:
        """Rows or columns of the tensor, those that are no points too."""
        return self.view.rows if self.options.side == "rows" else self.view.cols


def project(
    source: Any,
    tensor: str,
    *,
    method: Method = "pca",
    side: Side = "rows",
    dimensions: int = 2,
    metric: Metric = "cosine",
    perplexity: float = _PERPLEXITY,
    clusters: Clustering = "none",
    cluster_count: int | None = None,
    key: int = 0,
    rows: slice | range | None = None,
    report: str | os.PathLike[str] | None = None,
    if_exists: IfExists = "reuse",
    device: Device = "auto",
    progress: Told | None = None,
) -> Report:
    """Lays the rows or columns of a tensor out on a map, in the table `projections` of a report.

    `report.projection(tensor)` gives coordinates, neighbours and clusters. Maps are principal components (`pca`), t-SNE
    over exact neighbours from a start by principal components (`tsne`, two dimensions), non-negative factors (`nmf`) or
    a random projection (`random`). Neighbours, quality and clusters are by `metric`: cosines, or Euclidean distances.
    `rows` takes some consecutive rows, or columns where those are the points. Quality is of the 10 nearest neighbours
    of each point, beyond 5,000 points by a sample of 2,000 with its standard error.

    Clusters are of scikit-learn (extra `[clusters]`), never on the map: `kmeans` on 50 principal scores,
    `cluster_count` of them (else about sqrt(n / 2), 32 at most), or `hdbscan` on the graph of 15 nearest neighbours.

    Points of zeros and such with NaN or Inf are left out and counted. The points are held in memory, in float32. One
    call gives the same numbers again on one device; `key` seeds all that is random. `report`, `if_exists` and `device`
    are as for `scan`; other options make another row. `progress` is told what is done: words, steps, steps in all.

    Raises `TensorNotFound`, `BadArgument` for what cannot be asked of the tensor, and what `scan` raises.
    """
    prepared = plan(
        source,
        tensor,
        method=method,
        side=side,
        dimensions=dimensions,
        metric=metric,
        perplexity=perplexity,
        clusters=clusters,
        cluster_count=cluster_count,
        key=key,
        rows=rows,
        report=report,
        if_exists=if_exists,
    )
    return run(prepared, device=device, progress=progress)


def plan(
    source: Any,
    tensor: str,
    *,
    method: Method = "pca",
    side: Side = "rows",
    dimensions: int = 2,
    metric: Metric = "cosine",
    perplexity: float = _PERPLEXITY,
    clusters: Clustering = "none",
    cluster_count: int | None = None,
    key: int = 0,
    rows: slice | range | None = None,
    report: str | os.PathLike[str] | None = None,
    if_exists: IfExists = "reuse",
) -> ProjectionPlan:
    """What `project` would do. Writes nothing."""
    options = Options(method, side, dimensions, metric, perplexity, clusters, cluster_count, key, rows)
    _check(options)
    row = make_part_plan(source, TABLE, tensor, options.part, report=report, if_exists=if_exists)
    found = row.tensor
    role, layer = assign(found.name, found.shape, found.dtype.name, row.checkpoint.keys())
    view = matrix_view(found.name, found.shape, role)
    _check_tensor(found, view)
    extent = chosen(rows, view.rows if side == "rows" else view.cols)
    return ProjectionPlan(row, view, role, layer, extent, options)


def run(prepared: ProjectionPlan, *, device: Device = "auto", progress: Told | None = None) -> Report:
    """Carries out a plan; see `project`."""
    if prepared.row.finished is not None:
        return prepared.row.finished
    began = time.monotonic()
    kernels = devices.select(device)
    begin(prepared.row)
    found = _projected(prepared, kernels, progress or _silent)
    seconds = time.monotonic() - began
    row = _about(prepared) | found | {"variant": kernels.name, "seconds": seconds}
    return finish(prepared.row, row, kernels.name, seconds)


def _projected(prepared: ProjectionPlan, kernels: Variant, told: Told) -> Row:
    """The columns that follow from the points; their arrays are written."""
    options, tensor = prepared.options, prepared.row.tensor
    told("reading", 0, 1)
    points = read_points(tensor, prepared.view, options.side, prepared.extent, options.metric, kernels)
    counts = {
        "points": len(points.x),
        "dead": int((points.norms == 0).sum()),
        "not_finite": int(np.isnan(points.norms).sum()),
    }
    reason = _without_map(points, counts)
    if reason:
        return counts | {"status": "failed", "reason": f"{tensor.name}: no {options.side} to lay out: {reason}"}
    figures, arrays, clusters = _mapped(points, options, prepared.extent, told)
    save(prepared.row.folder, tensor.name, prepared.row.part, arrays, clusters)
    return counts | figures | {"status": "done"}


def _without_map(points: Points, counts: dict[str, int]) -> str:
    if not counts["points"]:
        return f"{counts['dead']:,} of zeros, {counts['not_finite']:,} with NaN or Inf"
    longest = float(np.nanmax(points.norms))
    return f"norms up to {longest:.3g} have no squares in float32" if longest > _LONGEST else ""


def _mapped(points: Points, options: Options, extent: range, told: Told) -> tuple[Row, Arrays, Clusters]:
    n = len(points.x)
    told("finding neighbours", 0, 1)
    count = max(LISTED, clustering.GRAPH_NEIGHBOURS, needed(options.method, options.perplexity, n))
    near = points.neighbourhood(min(count, n - 1))
    layout = lay_out(
        options.method,
        points,
        near,
        dims=options.dims,
        perplexity=options.perplexity,
        key=options.key,
        told=told,
    )
    told("judging the map", 0, 1)
    figures = layout.figures | _quality(points, layout.scores, options.key)
    told("clustering", 0, 1)
    labels = clustering.labels_of(options.clusters, points, near, options.cluster_count, options.key)
    channels = np.flatnonzero(points.live) + extent.start
    groups = clustering.described(points, labels, channels)
    if options.clusters != "none":
        figures |= {"unclustered": int((labels == NO_CLUSTER).sum())}
    arrays = _arrays(points, near, layout, labels, channels)
    return figures | {"clusters": len(groups.sizes)}, arrays, groups


def _quality(points: Points, scores: Any, key: int) -> Row:
    """Of few points none: a neighbour can only be a stranger where there are more."""
    n = len(points.x)
    k = min(LISTED, (n - 1) // 2)
    if k < 1:
        return {}
    rows = None if n <= _JUDGED else _SAMPLE
    of: dict[str, Any] = {"neighbours": k, "metric": points.metric, "rows": rows, "key": key}
    trust, recall = trustworthiness(points.x, scores, **of), neighbour_recall(points.x, scores, **of)
    return {
        "trustworthiness": trust.value,
        "trustworthiness_error": trust.standard_error,
        "neighbour_recall": recall.value,
        "neighbour_recall_error": recall.standard_error,
        "quality_neighbours": k,
        "quality_points": trust.rows,
    }


def _arrays(points: Points, near: Neighbourhood, layout: Layout, labels: Any, channels: Any) -> Arrays:
    """What stands beside each point, those left out too."""
    k = min(LISTED, near.indices.shape[1])
    nearest = near.indices[:, :k]
    named = np.where(nearest >= 0, channels[nearest], -1) if k else nearest.astype(np.int64)

    def widened(values: Any, blank: float) -> Any:
        whole = np.full((len(points.live), *values.shape[1:]), blank, values.dtype)
        whole[points.live] = values
        return whole

    return Arrays(
        scores=widened(np.asarray(layout.scores, np.float32), np.nan),
        norms=points.norms,
        labels=widened(labels, NO_CLUSTER),
        neighbours=widened(named, -1),
        similarities=widened(near.values[:, :k], np.nan),
        components=layout.components,
    )


def _about(prepared: ProjectionPlan) -> Row:
    """The columns that are known before anything is read."""
    options, tensor = prepared.options, prepared.row.tensor
    return {
        "name": tensor.name,
        "part": prepared.row.part,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype.name,
        "role": prepared.role,
        "layer": prepared.layer,
        "rows": prepared.view.rows,
        "cols": prepared.view.cols,
        "method": options.method,
        "side": options.side,
        "first": prepared.extent.start,
        "dims": options.dims,
        "metric": options.metric,
        "key": options.key,
        "clustering": options.clusters,
        "order": list(prepared.row.checkpoint).index(tensor.name),
    }


def _check(options: Options) -> None:
    """Raises `BadArgument` for options that make no sense."""
    if options.rows is not None and not isinstance(options.rows, slice | range):
        raise BadArgument(f"rows {options.rows!r}; expected a slice or a range, such as slice(0, 10000)")
    for given, kind in (
        (options.method, Method),
        (options.side, Side),
        (options.metric, Metric),
        (options.clusters, Clustering),
    ):
        if given not in get_args(kind):
            raise BadArgument(f"{given!r}; expected {' or '.join(get_args(kind))}")
    if not 2 <= options.dims <= _FEW_DIMENSIONS:
        raise BadArgument(f"dimensions {options.dims}; expected 2 or {_FEW_DIMENSIONS}")
    if options.method == "tsne" and options.dims != 2:
        raise BadArgument(f"t-SNE in {options.dims} dimensions; expected 2, or another method")
    if not (math.isfinite(options.perplexity) and options.perplexity > 0):
        raise BadArgument(f"perplexity {options.perplexity}; expected a positive number, such as 30")
    if options.key < 0 or options.key >= 1 << 32:
        raise BadArgument(f"key {options.key}; expected 0 to 2^32 - 1")
    clustering.check(options.clusters, options.cluster_count)


def _check_tensor(tensor: Tensor, view: MatrixView) -> None:
    """Raises `BadArgument` for a tensor without rows of weights."""
    if tensor.dtype.kind != "float":
        raise BadArgument(f"{tensor.name}: {tensor.dtype} holds no weights; expected a tensor of floats")
    if not view.has_channels:
        raise BadArgument(f"{tensor.name}: {list(tensor.shape)} has no rows and columns; expected two axes or more")
    if not tensor.count:
        raise BadArgument(f"{tensor.name}: {list(tensor.shape)} has no entries")


def _bound(value: int | None) -> str:
    return "" if value is None else str(value)


def _silent(what: str, done: int, total: int) -> None:
    """Where nobody asks."""
