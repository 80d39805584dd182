"""The tables of a criticality run in a report."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weighbridge.errors import WeighbridgeError
from weighbridge.models.criticality_curves import AblationCurve
from weighbridge.models.criticality_passes import Subject
from weighbridge.models.criticality_result import Criticality, Sums, Units
from weighbridge.models.recording import IfExists, Watched, about, folder_for
from weighbridge.report.manifest import Manifest
from weighbridge.report.schema import TABLES
from weighbridge.report.tables import TableWriter, clear, drop_rows

WEIGHTS, UNITS, CURVES = "criticality", "criticality_units", "criticality_curves"
SUMS = ("taylor", "joint", "joint_error", "fisher", "fisher_error")


@dataclass(frozen=True)
class Written:
    """Where the tables go; nowhere without a folder."""

    folder: Path | None

    def measured(self, result: Criticality, subject: Subject, seconds: float, ended: WeighbridgeError | None) -> None:
        """Writes the rows of tensors and of units; of a data set that broke off they say so."""
        if self.folder is None:
            return
        of = _tensors(subject)
        reason = None if ended is None else str(ended)
        tensors = [of[name] | row for name, sums in result.tensors.items() for row in _rows(result, sums, reason)]
        units = []
        for i, (name, found) in enumerate(result.units.items()):
            named = {column: of[found.tensors[0]][column] for column in ("role", "layer", "variant")}
            named |= {"name": name, "order": i, "kind": found.kind, "units": len(found.magnitude)}
            units += [named | row for row in _unit_rows(result, found, reason)]
        _write(self.folder, WEIGHTS, tensors, seconds, complete=ended is None)
        _write(self.folder, UNITS, units, seconds, complete=ended is None)

    def ablated(self, result: Criticality, weights: int, seconds: float, ended: WeighbridgeError | None) -> None:
        """Writes the curves."""
        if self.folder is not None:
            reason = {"reason": None if ended is None else str(ended)}
            rows = [_curve_row(curve, i, weights) | reason for i, curve in enumerate(result.curves)]
            _write(self.folder, CURVES, rows, seconds, complete=ended is None)


def begin(
    report: str | os.PathLike[str] | None,
    tables: Sequence[str],
    options: dict[str, Any],
    name: str,
    if_exists: IfExists,
) -> Written:
    """The folder, with a manifest that promises the tables. Raises `ReportError`, `BadArgument`."""
    if report is None:
        return Written(None)
    for table in tables:
        folder, manifest = folder_for(report, table, options, name=name, if_exists=if_exists)
        if if_exists == "overwrite":
            clear(folder / "tables" / table)
            clear(folder / "tables" / CURVES)  # they are of the scores that go
            if CURVES not in tables:
                manifest.analyses.pop(CURVES, None)
        manifest.save(folder)
    return Written(folder)


def _write(folder: Path, table: str, rows: list[dict[str, Any]], seconds: float, *, complete: bool) -> None:
    drop_rows(folder / "tables" / table, {row["name"] for row in rows})
    writer = TableWriter(folder / "tables" / table, TABLES[table])
    writer.add_all([{"status": "done"} | row for row in rows])
    writer.flush()
    manifest = Manifest.load(folder)
    manifest.analyses[table].status = "complete" if complete else "incomplete"
    manifest.analyses[table].seconds = seconds
    manifest.save(folder)


def _tensors(subject: Subject) -> dict[str, dict[str, Any]]:
    dtypes = [str(weight.dtype) for weight in subject.weights]
    watched = zip(subject.names, subject.shapes, dtypes, strict=True)
    return {
        name: about(Watched(name, shape, dtype, i), subject.names) for i, (name, shape, dtype) in enumerate(watched)
    }


def _rows(result: Criticality, sums: Sums, reason: str | None) -> list[dict[str, Any]]:
    """A row each task: of whom it is, and the sums over a tensor."""
    return [
        _examined(result, i)
        | {"magnitude": float(sums.magnitude), "reason": reason}
        | {name: _known(getattr(sums, name)[i]) for name in SUMS}
        for i in range(len(result.tasks))
    ]


def _unit_rows(result: Criticality, found: Units, reason: str | None) -> list[dict[str, Any]]:
    """A row each task: of whom it is, and lists by unit."""
    chosen = "taylor" if np.isnan(found.leave_one_out).all() else "leave_one_out"
    index = found.selectivity(chosen)
    return [
        _examined(result, i)
        | {"tensors": list(found.tensors), "reason": reason}
        | {f"unit_{name}": getattr(found, name)[i] for name in (*SUMS, "leave_one_out", "leave_one_out_error")}
        | {"unit_magnitude": found.magnitude, "unit_selectivity": index, "selectivity_of": chosen}
        for i in range(len(result.tasks))
    ]


def _curve_row(curve: AblationCurve, order: int, weights: int) -> dict[str, Any]:
    lists = ("shares", "loss", "loss_error", "accuracy")
    return {
        "name": curve.score,
        "part": "",
        "draw": curve.draw,
        "weights": weights,
        "loss_area": _known(curve.loss_area),
        "accuracy_area": _known(curve.accuracy_area),
        "role": "other",
        "order": order,
        "variant": "jax",
    } | {name: getattr(curve, name) for name in lists}


def _examined(result: Criticality, i: int) -> dict[str, Any]:
    """The columns that say which examples a row is of; the part of all of them is empty."""
    figures = {name: _known(getattr(result, name)[i]) for name in ("loss", "loss_error", "accuracy")}
    counts = {name: int(getattr(result, name)[i]) for name in ("examples", "broken")}
    return {"part": result.tasks[i] if i else ""} | counts | figures


def _known(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
