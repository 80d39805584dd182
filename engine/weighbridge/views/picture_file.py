"""A picture's file: written whole or not at all, and the same bytes whenever the same picture is drawn."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from weighbridge.errors import ReportError

STYLE = {"svg.hashsalt": "weighbridge", "svg.fonttype": "none"}
"""Matplotlib's, whatever style the caller has set for plots of their own."""


def provenance(kind: str) -> dict[str, Any]:
    """Metadata of a kind of file: two pictures of the same weights are the same bytes, so no date."""
    return {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})


def write(path: Path, picture: bytes) -> None:
    """Puts a file in its place when it is complete. Raises `ReportError` where it cannot be written."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(picture)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise ReportError(f"{path}: cannot be written: {error.strerror or error}; choose another place") from error
