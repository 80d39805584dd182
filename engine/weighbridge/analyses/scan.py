"""`scan`: every tensor of a checkpoint, read once, to a report of exact statistics."""

import fnmatch
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from weighbridge import checkpoints, devices, stream
from weighbridge.analyses.scan_device import TensorOnDevice
from weighbridge.analyses.scan_row import finished_row
from weighbridge.analyses.scan_state import SpanSummary, TensorState
from weighbridge.analyses.scan_summary import summarize
from weighbridge.checkpoints.protocol import Checkpoint, Fault, Tensor
from weighbridge.errors import BadArgument, ReportError, WeighbridgeError
from weighbridge.matrix import matrix_view
from weighbridge.report import Report
from weighbridge.report import manifest as manifests
from weighbridge.report.manifest import Analysis, Manifest
from weighbridge.report.schema import SCAN
from weighbridge.report.tables import TableWriter, keep_rows
from weighbridge.roles import Assignment, assign
from weighbridge.stream import Fold, Piece
from weighbridge_kernels.variants import Device, Variant

TABLE = "scan"
DEFAULT_MEMORY = 1 << 30

IfExists = Literal["reuse", "resume", "overwrite"]


class Progress(NamedTuple):
    """What a watcher is told: bytes done and in all, tensors done and in all."""

    bytes_done: int
    bytes_total: int
    tensors_done: int
    tensors_total: int


@dataclass(frozen=True)
class Plan:
    """What a scan would read and write; nothing has been read but headers."""

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


def scan(
    source: Any,
    *,
    report: str | os.PathLike[str] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    if_exists: IfExists = "reuse",
    memory: int = DEFAULT_MEMORY,
    device: Device = "auto",
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Weighs every tensor of a checkpoint and returns the report.

    `source` is whatever `weighbridge.open` takes; `include` and `exclude` are globs on names. The report is written
    to the folder `report`, by default `<name>-<8 hex of the header's hash>` in the user's data folder. Where one is
    there already: a complete one of the same files and options is returned at once; `if_exists="resume"` finishes an
    incomplete one and retries failed rows; "overwrite" starts anew. `memory` bounds what is held of the checkpoint,
    in bytes. `progress` is called from threads.

    A tensor that cannot be read has a row with status `failed` and the reason; the others are not held up. Raises
    `BadArgument`, `SourceNotFound`, `CorruptCheckpoint`, `ReportError`.
    """
    prepared = plan(source, report=report, include=include, exclude=exclude, if_exists=if_exists)
    return run(prepared, memory=memory, device=device, progress=progress)


def plan(
    source: Any,
    *,
    report: str | os.PathLike[str] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    if_exists: IfExists = "reuse",
) -> Plan:
    """What `scan` would do, with all that can be wrong in the call found before any work. Writes nothing."""
    checkpoint = checkpoints.open(source)
    selected = [tensor for tensor in checkpoint.values() if _wanted(tensor.name, include, exclude)]
    faults = [fault for fault in checkpoint.faults if _wanted(fault.name, include, exclude)]
    if not selected and not faults and (include or exclude):
        raise BadArgument(f"{checkpoint.name}: include and exclude leave none of {len(checkpoint):,} tensors")
    folder = Path(report).expanduser() if report is not None else default_folder(checkpoint)
    location = _location(source)
    manifest = Manifest.of(checkpoint, location)
    options = {"include": sorted(include), "exclude": sorted(exclude)}
    manifest.analyses[TABLE] = Analysis(options, "")
    finished, done = _existing(folder, manifest, if_exists)
    remaining = [tensor for tensor in selected if tensor.name not in done]
    return Plan(checkpoint, folder, selected, faults, len(checkpoint) - len(selected), remaining, manifest, finished)


def run(
    prepared: Plan,
    *,
    memory: int = DEFAULT_MEMORY,
    device: Device = "auto",
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Carries out a plan; see `scan`."""
    stream.check_memory(memory)
    if prepared.finished is not None:
        return prepared.finished
    variant = devices.select(device)
    began = time.monotonic()
    writer, manifest = _start(prepared, variant)
    analysis = manifest.analyses[TABLE]
    names = set(prepared.checkpoint)
    pairs = [(tensor, assign(tensor.name, tensor.shape, tensor.dtype.name, names)) for tensor in prepared.remaining]
    order = {tensor.name: i for i, tensor in enumerate(prepared.checkpoint.values())}
    fold = _ScanFold(pairs, order, variant, writer, _Watch(prepared, progress))
    cut = (stream.pieces(tensor, fold.views[tensor.name].cols) for tensor in prepared.remaining)
    try:
        for i, fault in enumerate(prepared.faults):
            writer.add(_fault_row(fault, len(order) + i))
        stream.run(
            list(stream.spans(cut)),
            fold,
            memory=memory,
            workers=variant.workers or os.cpu_count() or 1,
            readers=prepared.checkpoint.readers,
            advanced=fold.watch.advance,
        )
    finally:
        writer.flush()
        analysis.seconds += time.monotonic() - began
        manifest.save(prepared.folder)
    report = Report(prepared.folder)
    analysis.status = "complete"
    _hash_contents(manifest, report)
    manifest.save(prepared.folder)
    return Report(prepared.folder)


def _location(source: Any) -> str:
    """Where the source lies, for the manifest: an address, a path from the root, or nowhere."""
    if isinstance(source, str) and "://" in source:
        return source
    return os.path.abspath(source) if isinstance(source, str | os.PathLike) else ""


def default_folder(checkpoint: Checkpoint) -> Path:
    """`<name>-<8 hex of the header's hash>` in the user's data folder."""
    import platformdirs

    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in checkpoint.name).strip(".") or "checkpoint"
    return Path(platformdirs.user_data_dir("weighbridge")) / f"{safe}-{checkpoint.header_hash[:8]}"


def _wanted(name: str, include: Iterable[str], exclude: Iterable[str]) -> bool:
    included = not include or any(fnmatch.fnmatchcase(name, glob) for glob in include)
    return included and not any(fnmatch.fnmatchcase(name, glob) for glob in exclude)


def _existing(folder: Path, manifest: Manifest, if_exists: IfExists) -> tuple[Report | None, set[str]]:
    """The finished report that answers the call, or the names whose rows an interrupted run has left."""
    if _vacant(folder) or (if_exists == "overwrite" and (folder / manifests.FILE).exists()):
        return None, set()
    old = Report(folder)
    analysis = old.manifest.analyses.get(TABLE)
    same = (
        analysis is not None
        and old.manifest.same_source(manifest)
        and analysis.options == manifest.analyses[TABLE].options
    )
    if analysis is None or not same:
        raise ReportError(f"{folder}: holds a report of other files or options; use --overwrite or another --report")
    complete = analysis.status == "complete"
    if complete and if_exists == "reuse":
        return old, set()
    if not complete and if_exists == "reuse":
        raise ReportError(f"{folder}: holds an incomplete report of this checkpoint; use --resume or --overwrite")
    rows = old.table(TABLE)
    manifest.analyses[TABLE].seconds = analysis.seconds
    return None, set(rows.loc[rows["status"] == "done", "name"])


def _vacant(folder: Path) -> bool:
    """Whether there is nothing here, or only what a run killed at its very start has left."""
    try:
        return all(path.name.startswith(f".{manifests.FILE}.") for path in folder.iterdir())
    except FileNotFoundError:
        return True
    except OSError as error:
        raise ReportError(f"{folder}: cannot be used: {error.strerror}; choose another --report") from error


def _start(prepared: Plan, variant: Variant) -> tuple[TableWriter, Manifest]:
    """Makes the folder ready: emptied of what is not resumed, and with a manifest that says incomplete."""
    folder = prepared.folder
    table = folder / "tables" / TABLE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _reopen(folder)
        if table.exists() and len(prepared.remaining) == len(prepared.selected):
            shutil.rmtree(table)
        keep_rows(table, "status", "done")
    except OSError as error:
        raise ReportError(f"{folder}: cannot be written: {error.strerror}; choose another --report") from error
    prepared.manifest.analyses[TABLE].variant = variant.name
    prepared.manifest.save(folder)
    return TableWriter(table, SCAN), prepared.manifest


def _reopen(folder: Path) -> None:
    """Marks what is there as incomplete before a part of it goes, so that a run killed then leaves nothing whole."""
    for leftover in folder.glob(f".{manifests.FILE}.*"):
        leftover.unlink()
    try:
        old = Manifest.load(folder)
    except ReportError:  # nothing there, or of another version
        return
    if TABLE in old.analyses:
        old.analyses[TABLE].status = "incomplete"
        old.save(folder)


class _Watch:
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


@dataclass
class _Open:
    """A tensor whose pieces are arriving."""

    state: TensorState
    hasher: Any = field(default_factory=blake3)
    on_device: TensorOnDevice | None = None


class _ScanFold(Fold[SpanSummary]):
    """The scan as a fold: summaries by the kernels, merged by tensor, a row when the last piece is in."""

    def __init__(
        self,
        pairs: list[tuple[Tensor, Assignment]],
        order: dict[str, int],
        variant: Variant,
        writer: TableWriter,
        watch: _Watch,
    ) -> None:
        self.watch = watch
        self.views = {tensor.name: matrix_view(tensor.name, tensor.shape, given.role) for tensor, given in pairs}
        self._given = {tensor.name: given for tensor, given in pairs}
        self._order = order
        self._variant = variant
        self._writer = writer
        self._open: dict[str, _Open] = {}

    def summarize(self, piece: Piece, packed: npt.NDArray[np.uint8]) -> SpanSummary:
        return summarize(piece, packed, self.views[piece.tensor.name], self._variant)

    def absorb(self, piece: Piece, packed: npt.NDArray[np.uint8], state: SpanSummary) -> None:
        tensor = piece.tensor
        if piece.index == 0:
            self._open[tensor.name] = _Open(TensorState(tensor, self.views[tensor.name]))
        merged = self._open[tensor.name]
        merged.hasher.update(packed)
        if state.on_device is not None:
            merged.on_device = merged.on_device or TensorOnDevice(tensor.dtype, self.views[tensor.name])
            merged.on_device.receive(state)
        merged.state.merge(state)
        if piece.index == piece.last:
            del self._open[tensor.name]
            for rest in merged.on_device.rest() if merged.on_device else ():
                merged.state.merge(rest)
            self._add(tensor, finished_row(merged.state, merged.hasher.hexdigest()))

    def fail(self, tensor: Tensor, error: WeighbridgeError) -> None:
        self._add(tensor, {"status": "failed", "reason": f"{tensor.name}: {error}"})

    def _add(self, tensor: Tensor, row: dict[str, Any]) -> None:
        given = self._given[tensor.name]
        self._writer.add(
            {
                "name": tensor.name,
                "shape": list(tensor.shape),
                "dtype": tensor.dtype.name,
                "count": tensor.count,
                "nbytes": tensor.nbytes,
                "file": tensor.file,
                "order": self._order[tensor.name],
                "role": given.role,
                "layer": given.layer,
                "part": "",
                "variant": self._variant.name,
            }
            | row
        )
        self.watch.advance(tensors=1)


def _fault_row(fault: Fault, order: int) -> dict[str, Any]:
    return {
        "name": fault.name,
        "shape": list(fault.shape),
        "dtype": fault.dtype or None,
        "file": fault.file,
        "order": order,
        "role": "other",
        "part": "",
        "status": "failed",
        "reason": fault.reason,
    }


def _hash_contents(manifest: Manifest, report: Report) -> None:
    """Gives each file the BLAKE3 of its tensors' hashes, in checkpoint order."""
    rows = report.table(TABLE)
    for file in manifest.files:
        hashes = rows.loc[(rows["file"] == file["name"]) & (rows["status"] == "done"), "content_hash"]
        file["content"] = blake3("".join(hashes).encode()).hexdigest()
