"""`scan`: every tensor of a checkpoint, read once, to a report of exact statistics."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from weighbridge import devices, stream
from weighbridge.analyses.plan import IfExists, Plan, Progress, Watch, make_plan, start
from weighbridge.analyses.scan_device import TensorOnDevice
from weighbridge.analyses.scan_row import finished_row
from weighbridge.analyses.scan_state import SpanSummary, TensorState
from weighbridge.analyses.scan_summary import summarize
from weighbridge.checkpoints.protocol import Fault, Tensor
from weighbridge.errors import WeighbridgeError
from weighbridge.matrix import matrix_view
from weighbridge.report import Report
from weighbridge.report.manifest import Manifest
from weighbridge.report.tables import TableWriter
from weighbridge.roles import Assignment, assign
from weighbridge.stream import Fold, Piece
from weighbridge_kernels.variants import Device, Variant

TABLE = "scan"
DEFAULT_MEMORY = 1 << 30


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
    return make_plan(source, TABLE, {}, report=report, include=include, exclude=exclude, if_exists=if_exists)


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
    writer, manifest = start(prepared, variant.name)
    analysis = manifest.analyses[TABLE]
    names = set(prepared.checkpoint)
    pairs = [(tensor, assign(tensor.name, tensor.shape, tensor.dtype.name, names)) for tensor in prepared.remaining]
    order = {tensor.name: i for i, tensor in enumerate(prepared.checkpoint.values())}
    fold = _ScanFold(pairs, order, variant, writer, Watch(prepared, progress))
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
        watch: Watch,
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
