"""What an analysis of one tensor begins with and ends in: a row of its own, beside those of other calls."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weighbridge import checkpoints
from weighbridge.analyses.plan import IfExists, default_folder, location_of, vacant
from weighbridge.checkpoints.protocol import Checkpoint, Tensor
from weighbridge.errors import ReadFailed, ReportError
from weighbridge.report import Report
from weighbridge.report.manifest import FILE, Analysis, Manifest
from weighbridge.report.schema import TABLES
from weighbridge.report.tables import TableWriter, drop_rows


@dataclass(frozen=True)
class PartPlan:
    """The row (tensor, part) that a call asks for; nothing has been read but headers.

    `part` says all that was asked for, so that a call with other options is another row and never a conflict.
    """

    table: str
    checkpoint: Checkpoint
    tensor: Tensor
    part: str
    folder: Path
    manifest: Manifest
    finished: Report | None
    """The report that holds the row already, where there is one."""

    @property
    def key(self) -> tuple[str, str]:
        """The row's name and part."""
        return self.tensor.name, self.part


def make_part_plan(
    source: Any,
    table: str,
    name: str,
    part: str,
    *,
    report: str | os.PathLike[str] | None,
    if_exists: IfExists,
) -> PartPlan:
    """The plan of one row. Writes nothing.

    With `reuse` a row that is there answers the call, with `resume` unless it failed, with `overwrite` never; whatever
    else a report of the same files holds stays.
    """
    checkpoint = checkpoints.open(source)
    for fault in checkpoint.faults:
        if fault.name == name:
            raise ReadFailed(f"{checkpoint.name}: tensor {name!r} cannot be had: {fault.reason}")
    tensor = checkpoint[name]
    folder = Path(report).expanduser() if report is not None else default_folder(checkpoint)
    manifest = Manifest.of(checkpoint, location_of(source))
    finished = _existing(folder, manifest, (table, name, part), if_exists)
    return PartPlan(table, checkpoint, tensor, part, folder, manifest, finished)


def _existing(folder: Path, manifest: Manifest, row: tuple[str, str, str], if_exists: IfExists) -> Report | None:
    """The report with the row, if that answers; what the manifest of the same files knows is taken over."""
    if vacant(folder) or (if_exists == "overwrite" and not (folder / FILE).exists()):
        return None
    try:
        old = Report(folder)
        same = old.manifest.same_source(manifest)
    except ReportError:
        if if_exists != "overwrite":
            raise
        return None
    if not same:
        if if_exists == "overwrite":
            return None
        raise ReportError(f"{folder}: holds a report of other files; use --overwrite or another --report")
    manifest.analyses = old.manifest.analyses
    manifest.files = old.manifest.files
    return old if if_exists != "overwrite" and _holds(old, row, retry=if_exists == "resume") else None


def _holds(report: Report, row: tuple[str, str, str], *, retry: bool) -> bool:
    table, name, part = row
    if table not in report.manifest.analyses:
        return False
    rows = report.table(table)
    status = rows.loc[(rows["name"] == name) & (rows["part"] == part), "status"]
    return bool(len(status)) and not (retry and (status == "failed").any())


def begin(prepared: PartPlan) -> None:
    """Makes the folder ready, without what the manifest does not know: of other files, or of a run killed at its end.

    Raises `ReportError`.
    """
    folder, manifest = prepared.folder, prepared.manifest
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"{folder}: cannot be written: {error.strerror}; choose another --report") from error
    manifest.save(folder)
    for table in set(TABLES) - set(manifest.analyses):
        for held in ("tables", "arrays"):
            shutil.rmtree(folder / held / table, ignore_errors=True)


def finish(prepared: PartPlan, row: Mapping[str, Any], variant: str, seconds: float) -> Report:
    """Writes the row in place of one that was there, and a manifest that knows of it. Raises `ReportError`."""
    folder, manifest = prepared.folder, prepared.manifest
    table = folder / "tables" / prepared.table
    writer = TableWriter(table, TABLES[prepared.table])
    drop_rows(table, [prepared.tensor.name], prepared.part)
    writer.add(row)
    writer.flush()
    analysis = manifest.analyses.setdefault(prepared.table, Analysis({}, variant))
    analysis.variant, analysis.status = variant, "complete"
    analysis.seconds += seconds
    manifest.save(folder)
    return Report(folder)
