"""What every analysis of a checkpoint begins with: which tensors are left to do, and the folder where rows go."""

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from weighbridge import checkpoints
from weighbridge.checkpoints.protocol import Checkpoint, Fault, Tensor
from weighbridge.errors import BadArgument, ReportError
from weighbridge.patterns import patterns, wanted
from weighbridge.report import Report
from weighbridge.report import manifest as manifests
from weighbridge.report.manifest import Analysis, Manifest
from weighbridge.report.schema import TABLES
from weighbridge.report.tables import TableWriter, drop_rows

IfExists = Literal["reuse", "resume", "overwrite"]


class Progress(NamedTuple):
    """What a watcher is told: bytes done and in all, tensors done and in all."""

    bytes_done: int
    bytes_total: int
    tensors_done: int
    tensors_total: int


@dataclass(frozen=True)
class Plan:
    """What an analysis would read and write; nothing has been read but headers."""

    table: str
    checkpoint: Checkpoint
    folder: Path
    selected: list[Tensor]
    faults: list[Fault]
    excluded: int
    remaining: list[Tensor]
    manifest: Manifest
    finished: Report | None = None
    """The complete report that answers the call, where there is one."""

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.remaining)


def make_plan(
    source: Any,
    table: str,
    options: dict[str, Any],
    *,
    report: str | os.PathLike[str] | None,
    include: Sequence[str],
    exclude: Sequence[str],
    if_exists: IfExists,
) -> Plan:
    """The plan of an analysis that fills `table`, with all that can be wrong in the call found before any work.

    Writes nothing. A folder may hold other analyses of the same files, which stay as they are.
    """
    checkpoint = checkpoints.open(source)
    selects = wanted(include, exclude)
    selected = [tensor for tensor in checkpoint.values() if selects(tensor.name)]
    faults = [fault for fault in checkpoint.faults if selects(fault.name)]
    if not selected and not faults and (include or exclude):
        raise BadArgument(f"{checkpoint.name}: include and exclude leave none of {len(checkpoint):,} tensors")
    folder = Path(report).expanduser() if report is not None else default_folder(checkpoint)
    manifest = Manifest.of(checkpoint, location_of(source))
    globs = {"include": sorted(patterns(include)), "exclude": sorted(patterns(exclude))}
    manifest.analyses[table] = Analysis(globs | options, "")
    finished, done = _existing(folder, table, manifest, if_exists)
    remaining = [tensor for tensor in selected if tensor.name not in done]
    excluded = len(checkpoint) - len(selected)
    return Plan(table, checkpoint, folder, selected, faults, excluded, remaining, manifest, finished)


def further_plan(prepared: Plan, table: str, options: dict[str, Any]) -> Plan:
    """The plan of another table for the same tensors, in the report that a plan that has been carried out made.

    Nothing of a complete table with these options remains; any other is filled anew.
    """
    manifest = Manifest.load(prepared.folder)
    asked = prepared.manifest.analyses[prepared.table].options
    wanted = {name: asked[name] for name in ("include", "exclude")} | options
    old = manifest.analyses.get(table)
    complete = old is not None and old.status == "complete" and old.options == wanted
    if not complete:
        manifest.analyses[table] = Analysis(wanted, "")
    finished = Report(prepared.folder) if complete else None
    return replace(prepared, table=table, remaining=prepared.selected, manifest=manifest, finished=finished)


def location_of(source: Any) -> str:
    """Where the source lies, for the manifest: an address, a path from the root, or nowhere."""
    if isinstance(source, str) and "://" in source:
        return source
    return os.path.abspath(source) if isinstance(source, str | os.PathLike) else ""


def default_folder(checkpoint: Checkpoint) -> Path:
    """`<name>-<8 hex of the header's hash>` in the user's data folder."""
    import platformdirs

    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in checkpoint.name).strip(".") or "checkpoint"
    return Path(platformdirs.user_data_dir("weighbridge")) / f"{safe}-{checkpoint.header_hash[:8]}"


def _existing(folder: Path, table: str, manifest: Manifest, if_exists: IfExists) -> tuple[Report | None, set[str]]:
    """The finished report that answers the call, or the names whose rows an interrupted run has left."""
    if vacant(folder):
        return None, set()
    if if_exists == "overwrite" and (folder / manifests.FILE).exists():
        _keep_others(folder, table, manifest)
        return None, set()
    old = Report(folder)
    analysis, asked = old.manifest.analyses.get(table), manifest.analyses[table]
    others = {name: other for name, other in old.manifest.analyses.items() if name != table}
    if not old.manifest.same_source(manifest) or (analysis is not None and analysis.options != asked.options):
        raise ReportError(f"{folder}: holds a report of other files or options; use --overwrite or another --report")
    manifest.analyses = others | manifest.analyses
    for file, known in zip(manifest.files, old.manifest.files, strict=True):
        file["content"] = known["content"]
    if analysis is None:
        return None, set()
    complete = analysis.status == "complete"
    if complete and if_exists == "reuse":
        return old, set()
    if not complete and if_exists == "reuse":
        raise ReportError(f"{folder}: holds an incomplete report of this checkpoint; use --resume or --overwrite")
    rows = old.table(table)
    asked.seconds = analysis.seconds
    failed = set(rows.loc[rows["status"] == "failed", "name"])
    return None, set(rows["name"]) - failed


def _keep_others(folder: Path, table: str, manifest: Manifest) -> None:
    """What another analysis of the same files has left stays, though this one begins anew."""
    try:
        old = Manifest.load(folder)
    except ReportError:  # of another version: all of it goes
        return
    if old.same_source(manifest):
        manifest.analyses |= {name: other for name, other in old.analyses.items() if name != table}


def vacant(folder: Path) -> bool:
    """Whether there is nothing here, or only what a run killed at its very start has left."""
    try:
        return all(path.name.startswith(f".{manifests.FILE}.") for path in folder.iterdir())
    except FileNotFoundError:
        return True
    except OSError as error:
        raise ReportError(f"{folder}: cannot be used: {error.strerror}; choose another --report") from error


def start(prepared: Plan, variant: str) -> tuple[TableWriter, Manifest]:
    """Makes the folder ready: emptied of what is not resumed, and with a manifest that says incomplete."""
    folder, manifest = prepared.folder, prepared.manifest
    table = folder / "tables" / prepared.table
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _reopen(folder, prepared.table)
        for other in set(TABLES) - set(manifest.analyses):
            for of_table in ("tables", "arrays"):
                shutil.rmtree(folder / of_table / other, ignore_errors=True)
        if table.exists() and len(prepared.remaining) == len(prepared.selected):
            shutil.rmtree(table)
        drop_rows(table, {*(tensor.name for tensor in prepared.remaining), *(fault.name for fault in prepared.faults)})
    except OSError as error:
        raise ReportError(f"{folder}: cannot be written: {error.strerror}; choose another --report") from error
    manifest.analyses[prepared.table].variant = variant
    manifest.save(folder)
    return TableWriter(table, TABLES[prepared.table]), manifest


def _reopen(folder: Path, table: str) -> None:
    """Marks what is there as incomplete before a part of it goes, so that a run killed then leaves nothing whole."""
    for leftover in folder.glob(f".{manifests.FILE}.*"):
        leftover.unlink()
    try:
        old = Manifest.load(folder)
    except ReportError:  # nothing there, or of another version
        return
    if table in old.analyses:
        old.analyses[table].status = "incomplete"
        old.save(folder)


class Watch:
    """Counts what is done and tells the caller's `progress`."""

    def __init__(self, prepared: Plan, progress: Callable[[Progress], None] | None) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._now = Progress(0, prepared.nbytes, 0, len(prepared.remaining))

    def advance(self, nbytes: int = 0, tensors: int = 0) -> None:
        with self._lock:
            now = self._now
            self._now = now._replace(bytes_done=now.bytes_done + nbytes, tensors_done=now.tensors_done + tensors)
            if self._progress is not None:
                self._progress(self._now)
