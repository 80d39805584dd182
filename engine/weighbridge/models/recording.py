"""The host's side of a recording: batches of records from the device, written to a report by a thread of its own."""

import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from weighbridge.checkpoints import dtypes
from weighbridge.errors import BadArgument, ReportError
from weighbridge.models.gradient_figures import COUNTS, NORMS, Figures
from weighbridge.report.manifest import Analysis, Manifest
from weighbridge.report.schema import TABLES
from weighbridge.report.tables import TableWriter, clear, drop_rows, drop_steps
from weighbridge.roles import assign

TABLE = "training"
IfExists = Literal["resume", "overwrite"]
Origin = Literal["new", "known"]
LEAST_SECONDS, MOST_SECONDS, SHARE = 1.0, 30.0, 0.02
"""Between parts: a fiftieth of the time recorded so far, within bounds, so that a page is fresh and parts are few."""
WAITING_ROWS = 1 << 14
"""Rows that may wait while the disk is full, and as many again for the thread, some 32 MB each; then the oldest go.

At half of them a part is written before its time.
"""
_LATELY = 64
"""Records of which is known what they were, so that a state that went back is told from one that was written."""
_LOG = logging.getLogger("weighbridge")

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]


class Watched(NamedTuple):
    """A tensor of the run: its path, shape and dtype, and its place among all."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    order: int


class Batch(NamedTuple):
    """Records of several steps, one a row."""

    steps: npt.NDArray[np.int32]
    figures: Figures


def folder_for(
    report: str | os.PathLike[str],
    table: str,
    options: dict[str, Any],
    *,
    name: str,
    if_exists: IfExists,
    of: Literal["run", "any"] = "run",
) -> tuple[Path, Manifest]:
    """The folder of a report of a run, and its manifest with one more table; other tables stay.

    Raises `ReportError` where the folder holds anything but a report, or one of a checkpoint unless `of` is "any",
    `BadArgument` for an unknown word.
    """
    if if_exists not in ("resume", "overwrite"):
        raise BadArgument(f"if_exists {if_exists!r}; expected resume or overwrite")
    folder = Path(report).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        vacant = not any(path.name != "tables" and not path.name.startswith(".") for path in folder.iterdir())
    except OSError as error:
        raise ReportError(f"{folder}: cannot be used: {error.strerror}; choose another report") from error
    old = Manifest(name, "", [], "") if vacant else Manifest.load(folder)
    if old.files and of == "run":
        raise ReportError(f"{folder}: holds a report of {old.source}, not of a run; choose another report")
    old.analyses[table] = Analysis(options, "jax")
    return folder, old


class Recording:
    """Takes batches from any thread without waiting and writes them; whatever goes wrong is a warning."""

    def __init__(self, folder: Path, if_exists: IfExists) -> None:
        self.folder = folder
        self._table = folder / "tables" / TABLE
        self._columns = TABLES[TABLE]
        self._tensors: list[dict[str, Any]] = []
        self._odd: list[dict[str, Any]] = []
        self._inbox: deque[tuple[Batch, Origin]] = deque()
        self._rows: list[dict[str, Any]] = []
        self._last: int | None = None
        self._lately: dict[int, bytes] = {}
        self._drop_from: int | None = None
        self._begins: IfExists | None = if_exists
        self._warned = False
        self._losing = False
        self._wake = threading.Condition()
        self._work = threading.Lock()
        self._began = self._wrote = time.monotonic()
        self._thread: threading.Thread | None = None
        self._closing = False

    @classmethod
    def begin(
        cls, report: str | os.PathLike[str], options: dict[str, Any], *, name: str, if_exists: IfExists
    ) -> "Recording":
        """A recording into a report, whose manifest is written at once. Raises `ReportError`, `BadArgument`."""
        folder, manifest = folder_for(report, TABLE, options, name=name, if_exists=if_exists)
        manifest.save(folder)
        found = cls(folder, if_exists)
        atexit.register(_at_exit, weakref.ref(found))
        return found

    def watch(self, tensors: Sequence[Watched], odd: Sequence[Watched]) -> None:
        """Says what the rows of a batch are, and which tensors have no record.

        Raises `BadArgument` where others were watched before: rows of two models would lie under the same steps.
        """
        names = [tensor.name for tensor in (*tensors, *odd)]
        before = {row["name"]: tuple(row["shape"]) for row in self._tensors}
        if before and before != {tensor.name: tensor.shape for tensor in tensors}:
            raise BadArgument(
                f"{self.folder}: its recorder watches {len(before)} tensors, {next(iter(before))!r} first, of other "
                f"names or shapes than these {len(tensors)}; make another recorder for another model"
            )
        self._tensors = [about(tensor, names) | {"status": "done"} for tensor in tensors]
        why = "holds no real floats; nothing is recorded of it"
        self._odd = [about(t, names) | {"status": "skipped", "reason": f"{t.dtype} {why}"} for t in odd]

    def put(self, batch: Batch, origin: Origin) -> None:
        """Leaves a batch to the thread. Steps of a `new` one replace what is there from its first on.

        Of a `known` one, which may have come before, those count that differ from what came and those after.
        """
        with self._wake:
            self._inbox.append((batch, origin))
            while len(self._inbox) > max(WAITING_ROWS // batch.figures.norms[..., 0].size, 2):
                self._inbox.popleft()
                self._tell_of_loss()
            if self._thread is None or not self._thread.is_alive():
                self._closing = False
                self._thread = threading.Thread(target=_run, args=(weakref.ref(self),), daemon=True, name="weighbridge")
                self._thread.start()
            self._wake.notify()

    def flush(self) -> None:
        """Writes all that has come."""
        self.turn("now")

    def close(self) -> None:
        """Writes all that has come, ends the thread and says in the manifest that the table is complete."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(MOST_SECONDS)
        self.turn("now")
        if not self._rows:
            self._attempt(self._completed)

    def turn(self, when: Literal["due", "now"]) -> None:
        """Takes what has come and writes it, if it is time."""
        with self._work:
            self._take()
            many = len(self._rows) >= WAITING_ROWS // 2
            if self._rows and (when == "now" or many or time.monotonic() - self._wrote > self._pause()):
                self._attempt(self._write)
            if len(self._rows) > WAITING_ROWS:
                del self._rows[:-WAITING_ROWS]
                self._tell_of_loss()

    def wait(self) -> bool:
        """Waits until a batch has come or a part is due; whether to go on."""
        with self._wake:
            if not self._inbox and not self._closing:
                self._wake.wait(LEAST_SECONDS)
            return not self._closing

    def _pause(self) -> float:
        return min(max(SHARE * (time.monotonic() - self._began), LEAST_SECONDS), MOST_SECONDS)

    def _take(self) -> None:
        while self._inbox:
            batch, origin = self._inbox.popleft()
            for step in range(len(batch.steps)):
                self._take_step(int(batch.steps[step]), batch.figures, step, origin)

    def _take_step(self, step: int, figures: Figures, at: int, origin: Origin) -> None:
        seen = figures.norms[at].tobytes()
        if origin == "known" and self._lately.get(step) == seen:
            return
        if self._last is None or step <= self._last:
            self._replace_from(step)
        if self._last is None:
            self._rows += [row | {"step": None} for row in self._odd]
        self._last = step
        self._lately[step] = seen
        while len(self._lately) > _LATELY:
            del self._lately[next(iter(self._lately))]
        for tensor, *of in zip(self._tensors, *(ring[at] for ring in figures), strict=True):
            self._rows.append(tensor | {"step": step} | _row(*of))

    def _replace_from(self, step: int) -> None:
        """A run that begins, or goes on from an earlier state: later rows go."""
        self._rows = [row for row in self._rows if row["step"] is None or row["step"] < step]
        self._lately = {at: seen for at, seen in self._lately.items() if at < step}
        self._drop_from = step if self._drop_from is None else min(self._drop_from, step)

    def _write(self) -> None:
        self._wrote = time.monotonic()
        if self._begins == "overwrite":
            clear(self._table)
        elif self._begins == "resume":
            drop_rows(self._table, [row["name"] for row in self._odd])
        self._begins = None
        if self._drop_from is not None:
            drop_steps(self._table, self._drop_from)
            self._drop_from = None
        writer = TableWriter(self._table, self._columns)
        rows = list(self._rows)
        writer.add_all(rows)
        writer.flush()
        del self._rows[: len(rows)]

    def _tell_of_loss(self) -> None:
        if not self._losing:
            _LOG.warning("%s: more than %s rows wait to be written; the oldest are lost", self.folder, WAITING_ROWS)
        self._losing = True

    def _completed(self) -> None:
        manifest = Manifest.load(self.folder)
        analysis = manifest.analyses[TABLE]
        analysis.status, analysis.seconds = "complete", time.monotonic() - self._began
        manifest.save(self.folder)

    def _attempt(self, act: Callable[[], None]) -> None:
        """Does what may fail, mostly for want of space; the first failure is a warning, and the rows wait.

        Whatever it is, an exception would end the thread, or the training.
        """
        try:
            act()
            self._warned = False
        except Exception as error:
            if not self._warned:
                _LOG.warning("%s; training goes on, records wait", error)
            self._warned = True


def _run(recording: "weakref.ref[Recording]") -> None:
    """The thread: as long as somebody holds the recording and it is not closed."""
    while (held := recording()) is not None and held.wait():
        held.turn("due")
        del held


def _at_exit(recording: "weakref.ref[Recording]") -> None:
    held = recording()
    if held is not None:
        held.flush()


def about(tensor: Watched, names: Sequence[str]) -> dict[str, Any]:
    """The columns that say which tensor a row is of."""
    known = dtypes.of_array(np.dtype(tensor.dtype))
    dtype = known.name if known is not None else tensor.dtype
    role, layer = assign(tensor.name, tensor.shape, dtype, names)
    named = {"name": tensor.name, "shape": list(tensor.shape), "dtype": dtype, "role": role, "layer": layer}
    return named | {"part": "", "variant": "jax", "order": tensor.order}


def _row(norms: FloatArray, counts: IntArray, histogram: IntArray) -> dict[str, Any]:
    """The columns of one record of one tensor; what is not there is null."""
    row: dict[str, Any] = {name: None if np.isnan(x) else float(x) for name, x in zip(NORMS, norms, strict=True)}
    row |= {name: None if n < 0 else int(n) for name, n in zip(COUNTS, counts, strict=True)}
    if row["weight_norm"]:
        row["update_ratio"] = row["update_norm"] / row["weight_norm"]
    return row | {"gradient_histogram": histogram}
