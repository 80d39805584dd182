"""The map of a tensor's rows or columns, with what stands beside each point: a zarr group of a report."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from weighbridge.errors import ReportError
from weighbridge.report.arrays import Array, write

TABLE = "projections"
NO_CLUSTER = -1


@dataclass(frozen=True)
class Clusters:
    """Groups of points, the largest first.

    `sizes` [m]; `medoids` [m], the row or column that is nearest to all others of its cluster; `similarities` [m], mean
    cosine over the pairs within; `columns` [m, t], where the cluster's mean is farthest from that of all points, in
    `deviations` [m, t] standard deviations of that column.
    """

    sizes: Array
    medoids: Array
    similarities: Array
    columns: Array
    deviations: Array


@dataclass(frozen=True)
class Arrays:
    """All n points, row by row or column by column; those left out of the map have NaN, and -1 for an index.

    `scores` [n, dims]; `norms` [n]; `labels` [n], the cluster; `neighbours` [n, k], nearest first, as numbers of rows
    or columns, and their `similarities` [n, k], or distances where the metric is euclidean; `components` [dims, d],
    which give the scores of pca and nmf, none for other methods.
    """

    scores: Array
    norms: Array
    labels: Array
    neighbours: Array
    similarities: Array
    components: Array


@dataclass(frozen=True)
class Projection:
    """A map and the row of the table `projections` that tells of its quality: `projection["trustworthiness"]`."""

    row: Mapping[str, Any]
    arrays: Arrays
    clusters: Clusters

    def __getitem__(self, column: str) -> Any:
        return self.row[column]

    @property
    def name(self) -> str:
        """The tensor's name."""
        return str(self.row["name"])

    @property
    def part(self) -> str:
        """What tells it from other projections of the tensor."""
        return str(self.row["part"])

    @property
    def quality(self) -> list[str]:
        """How far the map can be trusted, a text each for what is known."""
        row, texts = self.row, [f"{self.row['points']:,} points"]
        for column in ("trustworthiness", "neighbour_recall"):
            if row[column] is not None:
                error = row[f"{column}_error"]
                texts.append(f"{column.replace('_', ' ')} {row[column]:.3f}" + (f" ± {error:.3f}" if error else ""))
        if row["kl"] is not None:
            texts.append(f"KL {row['kl']:.3f} at perplexity {row['perplexity']:.3g}")
        if row["explained_variance"] is not None:
            texts.append(f"explained variance {row['explained_variance']:.1%}")
        return texts

    @cached_property
    def channels(self) -> npt.NDArray[np.int64]:
        """The row or column that each point is."""
        return int(self.row["first"]) + np.arange(len(self.arrays.norms))

    @cached_property
    def placed(self) -> npt.NDArray[np.int64]:
        """The points that are on the map."""
        return np.flatnonzero(np.isfinite(self.arrays.scores).all(axis=1))


def place(folder: Path, name: str, part: str) -> Path:
    """Where the arrays of a projection lie in a report's folder; names of tensors are no names of files."""
    key = blake3(f"{name}\0{part}".encode()).hexdigest()[:32]
    return folder / "arrays" / TABLE / f"{key}.zarr"


def save(folder: Path, name: str, part: str, arrays: Arrays, clusters: Clusters) -> None:
    """Writes the arrays of a projection whole beside their place, then renames them into it. Raises `ReportError`."""
    held = {
        f"{type(of).__name__.lower()}/{field.name}": getattr(of, field.name)
        for of in (arrays, clusters)
        for field in fields(of)
    }
    write(place(folder, name, part), held, {"name": name, "part": part})


def load(folder: Path, row: Mapping[str, Any]) -> Projection:
    """The projection of a row. Raises `ReportError` where its arrays are gone or cannot be read."""
    import zarr

    found = place(folder, str(row["name"]), str(row["part"]))
    try:
        group = zarr.open_group(found, mode="r", zarr_format=3)
        return Projection(row, Arrays(**_held(group, Arrays)), Clusters(**_held(group, Clusters)))
    except Exception as error:  # whatever a codec raises
        raise ReportError(f"{found}: cannot be read: {error}; project again with --overwrite") from error


def _held(group: Any, kind: type[Arrays] | type[Clusters]) -> dict[str, Array]:
    return {field.name: np.asarray(group[f"{kind.__name__.lower()}/{field.name}"][...]) for field in fields(kind)}
