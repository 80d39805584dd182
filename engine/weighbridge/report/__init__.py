"""Results on disk: a folder with a manifest and Parquet tables that other tools can read while it grows."""

import json
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weighbridge.errors import ReportError, TensorNotFound
from weighbridge.report import projections, saliency, weight_attribution
from weighbridge.report.entry import Entry
from weighbridge.report.manifest import Manifest
from weighbridge.report.projections import Projection
from weighbridge.report.saliency import SavedSaliency
from weighbridge.report.schema import scalars
from weighbridge.report.tables import frame, parts_of, read_table, records
from weighbridge.report.weight_attribution import WeightAttribution

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Entry", "Manifest", "Projection", "Report", "SavedSaliency", "WeightAttribution"]


class Report:
    """A report folder, opened for reading.

    `report.table("scan")` is a pandas frame with a row a tensor, in checkpoint order; `report[name]` is one tensor's
    entry with its histogram and channel norms.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = Manifest.load(folder)
        self._read: dict[str, tuple[list[tuple[str, int]], pd.DataFrame]] = {}

    @classmethod
    def open(cls, folder: str | Path) -> "Report":
        """Opens a report, complete or still growing. Raises `ReportError` where there is none."""
        return cls(Path(folder).expanduser())

    @property
    def complete(self) -> bool:
        """Whether every analysis of the report ran to its end."""
        return all(analysis.status == "complete" for analysis in self.manifest.analyses.values())

    def table(self, name: str = "scan", *, lists: bool = False) -> "pd.DataFrame":
        """A table as a pandas frame; histograms and norms (`lists`) only when asked for.

        In `scan`, `tied_to` names the first tensor of the same content, in checkpoint order. Raises `ReportError`
        where the report has no such table.
        """
        import pandas as pd

        parts = parts_of(self._table(name))
        if not lists and name in self._read and self._read[name][0] == parts:
            return self._read[name][1].copy()
        table = read_table(self._table(name), None if lists else scalars(name))
        if table is None:
            return pd.DataFrame(columns=[*scalars(name), *(["tied_to"] if name == "scan" else [])])
        rows = frame(table).sort_values("order", kind="stable").reset_index(drop=True)
        if name == "scan":
            rows = rows.assign(tied_to=_tied_to(rows))
        if not lists:
            self._read[name] = parts, rows.copy()
        return rows

    def __getitem__(self, name: str) -> Entry:
        for entry in self.entries([name]):
            return entry
        raise TensorNotFound(f"{self.folder.name}: no tensor {name!r} in this report")

    def entries(self, names: Sequence[str], columns: Sequence[str] | None = None) -> Iterator[Entry]:
        """The entries of those tensors that the report has, in its own order; some columns of them where given."""
        table = read_table(self._table("scan"), columns, names)
        for row in records(table) if table is not None else ():
            yield Entry(row)

    def matrices(self, name: str, table: str = "spectra") -> list[dict[str, Any]]:
        """The rows of one tensor in a table that has a row for each of its matrices, lists as NumPy arrays."""
        found = read_table(self._table(table), None, [name])
        return list(records(found)) if found is not None else []

    def projection(self, name: str, part: str | None = None) -> Projection:
        """A map of a tensor's rows or columns; of several the last made, or the one called `part`.

        Raises `TensorNotFound` where there is none, `ReportError` where its arrays cannot be read.
        """
        made = [row for row in self.matrices(name, projections.TABLE) if row["status"] == "done"]
        for row in reversed(made):
            if part in (None, row["part"]):
                return projections.load(self.folder, row)
        known = ", ".join(repr(row["part"]) for row in made) or "none"
        raise TensorNotFound(f"{self.folder.name}: no projection {part or ''!r} of {name!r}; there is: {known}")

    def saliency(self, part: str | None = None) -> SavedSaliency:
        """What a method found in the inputs, and its checks; of several the last saved, or the one called `part`.

        Raises `TensorNotFound` where there is none, `ReportError` where its arrays cannot be read.
        """
        held = list(dict.fromkeys(self.table(saliency.TABLE)["part"]))
        if not held or part not in (None, *held):
            known = ", ".join(map(repr, held)) or "none"
            raise TensorNotFound(f"{self.folder.name}: no saliency by {part or ''!r}; there is: {known}")
        wanted = held[-1] if part is None else part
        rows, checks = (self._of_part(table, wanted) for table in (saliency.TABLE, saliency.CHECKS))
        return saliency.load(self.folder, wanted, rows, checks)

    def attribution_to_weights(self) -> WeightAttribution:
        """What each weight contributed to the outputs that the report's saliency is of.

        Raises `TensorNotFound` where there is none, `ReportError` where its arrays cannot be read.
        """
        rows = self._in_order(weight_attribution.TABLE)
        if not rows:
            raise TensorNotFound(f"{self.folder.name}: no attribution to weights; save_saliency(weights=...) writes it")
        return weight_attribution.load(self.folder, rows)

    def _of_part(self, name: str, part: str) -> list[dict[str, Any]]:
        return [row for row in self._in_order(name) if row["part"] == part]

    def _in_order(self, name: str) -> list[dict[str, Any]]:
        """The rows of a table in their order, lists as NumPy arrays; none where the report has no such table."""
        found = read_table(self._table(name)) if name in self.manifest.analyses else None
        return sorted(records(found), key=lambda row: int(row["order"])) if found is not None else []

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def names(self) -> list[str]:
        """The tensors' names in checkpoint order."""
        return list(dict.fromkeys(self.table(self.main)["name"]))

    @property
    def main(self) -> str:
        """The table that stands for the report: the scan, or without one that of the first analysis."""
        held = self.manifest.analyses
        return "scan" if "scan" in held or not held else next(iter(held))

    def rows(self, name: str = "scan", *, lists: bool = False) -> Iterator[dict[str, Any]]:
        """The table row by row in plain Python values, as JSON can hold them."""
        table = self.table(name, lists=lists)
        for row in table.to_dict("records"):
            yield {str(key): _jsonable(value) for key, value in row.items()}

    def _table(self, name: str) -> Path:
        if name not in self.manifest.analyses:
            known = ", ".join(self.manifest.analyses) or "none"
            raise ReportError(f"{self.folder}: no table {name!r}; this report has: {known}; run the analysis into it")
        return self.folder / "tables" / name

    def __repr__(self) -> str:
        return f"Report({str(self.folder)!r}, {self.manifest.source}, {len(self):,} tensors)"

    def _repr_html_(self) -> str:
        from weighbridge.report.html import report_html

        return report_html(self)


def _tied_to(rows: "pd.DataFrame") -> "pd.Series[Any]":
    """The first name of the same content, shape and dtype; tensors without entries are tied to none."""
    shape = rows["shape"].map(lambda sides: "x".join(map(str, sides))).astype("string")
    same = rows["content_hash"].astype("string") + rows["dtype"].astype("string") + shape
    same = same.where((rows["count"] > 0) & (rows["status"] == "done"))
    first = rows["name"].groupby(same).transform("first")
    return first.where(first != rows["name"])


def _jsonable(value: Any) -> Any:
    import numpy as np
    import pandas as pd

    if isinstance(value, np.ndarray):
        return [None if isinstance(x, float) and not math.isfinite(x) else x for x in value.tolist()]
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def dumps(row: dict[str, Any]) -> str:
    """One row as one line of JSON."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False)
