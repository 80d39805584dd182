"""The rows or columns of a tensor as points, apart from those that have no direction."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weighbridge.analyses.matrices import Part, Reader
from weighbridge.checkpoints.protocol import Tensor
from weighbridge.errors import BadArgument
from weighbridge.matrix import MatrixView
from weighbridge_kernels.variants import Variant

Side = Literal["rows", "cols"]
Metric = Literal["cosine", "euclidean"]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Neighbourhood:
    """Of each point the nearest others and how near: cosines, or Euclidean distances; -1 and NaN beyond the last."""

    indices: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]
    metric: Metric

    @property
    def distances(self) -> npt.NDArray[np.float64]:
        """1 less the cosines, or the Euclidean distances."""
        values = self.values.astype(np.float64)
        return 1 - values if self.metric == "cosine" else values


@dataclass(frozen=True)
class Points:
    """`x` [n, d] are the live ones, in float32, or float64 where stored so; `live` [m] says which of all they are.

    `norms` [m] are of all: 0 for what is dead, NaN for what holds NaN or Inf.
    """

    x: Array
    norms: npt.NDArray[np.float64]
    live: npt.NDArray[np.bool_]
    metric: Metric
    kernels: Variant

    @cached_property
    def seen(self) -> Array:
        """The points as the metric sees them: under the cosine each over its norm."""
        if self.metric == "euclidean":
            return self.x
        return self.kernels.unit_rows(self.x)[0]

    def neighbourhood(self, count: int) -> Neighbourhood:
        """The `count` nearest of every point, exactly."""
        found = self.kernels.neighbours(self.x, self.x, count=max(count, 1), metric=self.metric, first=0)
        return Neighbourhood(found.indices[:, :count], found.values[:, :count], self.metric)


def read_points(
    tensor: Tensor, view: MatrixView, side: Side, extent: range, metric: Metric, kernels: Variant
) -> Points:
    """Some consecutive rows or columns of a tensor's matrix."""
    matrix = Part("", 0, view.rows, view.cols, view.cols)
    across = slice(extent.start, extent.stop)
    if side == "rows":
        window = Reader(tensor).window(matrix, across, slice(0, view.cols))
    else:
        window = Reader(tensor).window(matrix, slice(0, view.rows), across).T
    x = np.ascontiguousarray(window, np.float64 if window.dtype == np.float64 else np.float32)
    norms = kernels.unit_rows(x)[1]
    live = norms > 0
    return Points(x if live.all() else x[live], norms, live, metric, kernels)


def chosen(rows: slice | range | None, total: int) -> range:
    """The consecutive channels that a slice or range takes out of so many; all for None. Raises `BadArgument`."""
    if rows is None:
        return range(total)
    found = range(total)[slice(rows.start, rows.stop, rows.step)]
    if found.step != 1 or not found:
        raise BadArgument(f"rows {rows!r} of {total:,}; expected some consecutive ones, such as 0:{min(total, 10000)}")
    return found
