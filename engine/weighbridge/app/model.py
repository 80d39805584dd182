"""What all sessions of a page share: the report, the checkpoint where it can still be had, pyramids."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from weighbridge import checkpoints
from weighbridge.analyses import scan as scanning
from weighbridge.analyses.plan import Plan
from weighbridge.checkpoints.protocol import Checkpoint, Tensor
from weighbridge.checkpoints.tokens import channel_namer, tokens
from weighbridge.errors import ReportError, WeighbridgeError
from weighbridge.pyramid import PyramidCache
from weighbridge.report import Report
from weighbridge.report import manifest as manifests
from weighbridge.report.manifest import Manifest
from weighbridge.report.tables import parts_of


class Model:
    """A report, complete or growing, and the weights that it is of.

    `missing` says why the weights cannot be looked at, where they cannot: what is stored is shown all the same.
    `trouble` says what stopped a scan that the page began.
    """

    def __init__(self, folder: Path, checkpoint: Checkpoint | None, missing: str, cache: PyramidCache) -> None:
        self.folder = folder
        self.checkpoint = checkpoint
        self.missing = missing
        self.cache = cache
        self.trouble = ""
        self._lock = threading.Lock()
        self._stamp: tuple[Any, ...] = ()
        self._report: Report | None = None
        self._tokens: dict[int, str] | None = None

    @classmethod
    def open(cls, source: Any, cache: PyramidCache) -> "Model":
        """A report's folder with the source that its manifest names, or a source with its report in the data folder.

        Raises `SourceNotFound`, `CorruptCheckpoint`, `ReportError` or `BadArgument`.
        """
        if isinstance(source, Report):
            source = source.folder
        if isinstance(source, str | Path) and "://" not in str(source):
            folder = Path(source).expanduser()
            if (folder / manifests.FILE).exists():
                return cls(folder, *_source_of(Report.open(folder)), cache)
        prepared = scanning.plan(source, if_exists="resume")
        model = cls(prepared.folder, prepared.checkpoint, "", cache)
        if prepared.remaining or not (prepared.folder / manifests.FILE).exists():
            model._scan(prepared)
        return model

    def _scan(self, prepared: Plan) -> None:
        """Weighs what is not weighed yet, while the page is shown; it follows."""
        begun = threading.Event()

        def run() -> None:
            try:
                scanning.run(prepared, progress=lambda _: begun.set())
            except WeighbridgeError as error:
                self.trouble = str(error)
            finally:
                begun.set()

        threading.Thread(target=run, daemon=True, name="scan").start()
        begun.wait()

    @property
    def report(self) -> Report:
        """The report as it is now. Raises `ReportError` where it is gone."""
        stamp = self.stamp()
        with self._lock:
            if self._report is None or stamp != self._stamp:
                self._report, self._stamp = Report.open(self.folder), stamp
            return self._report

    @property
    def name(self) -> str:
        """What the source is called."""
        try:
            return self.report.manifest.source
        except ReportError:
            return self.folder.name

    def stamp(self) -> tuple[Any, ...]:
        """Changes whenever there is more to show."""
        return (*parts_of(self.folder / "tables" / "scan"), self._manifest_time())

    def _manifest_time(self) -> int:
        try:
            return (self.folder / manifests.FILE).stat().st_mtime_ns
        except OSError:
            return 0

    def channel_name(self, extent: int) -> Callable[[int], str]:
        """What one of `extent` channels is called: a token where the vocabulary is about as long, else its index."""
        with self._lock:
            if self._tokens is None:
                self._tokens = tokens(self.checkpoint) if self.checkpoint is not None else {}
            return channel_namer(self._tokens, extent)

    def tensor(self, name: str) -> Tensor | None:
        """The tensor of that name in the checkpoint, if it can still be read; names are looked up and nothing else."""
        return self.checkpoint.get(name) if self.checkpoint is not None else None


def _source_of(report: Report) -> tuple[Checkpoint | None, str]:
    """The checkpoint that a report was made of, unless it is gone or is another by now, and the reason then."""
    location = report.manifest.location
    if not location:
        return None, "the weights were in memory when they were weighed"
    try:
        checkpoint = checkpoints.open(location)
    except WeighbridgeError as error:
        return None, f"the weights are not where they were: {error}"
    if not report.manifest.same_source(Manifest.of(checkpoint, location)):
        return None, f"{location} has changed since it was weighed; scan it again to look at its weights"
    return checkpoint, ""
