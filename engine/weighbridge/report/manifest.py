"""`manifest.json`: what a report is of, how it was made, and whether it is complete."""

import json
import os
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from weighbridge.checkpoints.protocol import Checkpoint
from weighbridge.errors import ReportError

SCHEMA_VERSION = 1
FILE = "manifest.json"
_PACKAGES = ("weighbridge", "numpy", "numba", "jax", "pyarrow")

Status = Literal["incomplete", "complete"]


@dataclass
class Analysis:
    """How one table was made."""

    options: dict[str, Any]
    variant: str
    status: Status = "incomplete"
    seconds: float = 0.0


@dataclass
class Manifest:
    source: str
    location: str
    files: list[dict[str, Any]]
    header: str
    analyses: dict[str, Analysis] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: _versions())
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def of(cls, checkpoint: Checkpoint, location: str) -> "Manifest":
        files = [asdict(file) | {"content": None} for file in checkpoint.files]
        return cls(checkpoint.name, location, files, checkpoint.header_hash)

    def same_source(self, other: "Manifest") -> bool:
        """The same files by name, size, modification time and header. Weights in memory have no time: nobody knows."""
        keys = ("name", "size", "modified_ns", "header")
        mine, others = ([[f[k] for k in keys] for f in of.files] for of in (self, other))
        return mine == others and all(file["modified_ns"] is not None for file in self.files)

    def save(self, folder: Path) -> None:
        """Written whole beside its place and renamed into it, so a reader never sees half."""
        part = folder / f".{FILE}.{os.getpid()}"
        try:
            part.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
            part.replace(folder / FILE)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise ReportError(
                f"{folder}: cannot write {FILE}: {error.strerror}; free space or choose another --report"
            ) from error

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """The manifest of a report folder. Raises `ReportError` where there is none that can be read."""
        try:
            fields = json.loads((folder / FILE).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ReportError(
                f"{folder}: holds no {FILE}; expected a report folder, as `weighbridge scan` makes one"
            ) from error
        except (OSError, ValueError) as error:
            raise ReportError(f"{folder}: {FILE} cannot be read: {error}") from error
        found = fields.get("schema_version") if isinstance(fields, dict) else None
        if found != SCHEMA_VERSION:
            raise ReportError(f"{folder}: schema version {found!r}, expected {SCHEMA_VERSION}; scan again")
        try:
            fields["analyses"] = {name: Analysis(**analysis) for name, analysis in fields["analyses"].items()}
            return cls(**fields)
        except (TypeError, KeyError, AttributeError) as error:
            raise ReportError(f"{folder}: {FILE} has unexpected fields: {error}; scan again") from error


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
