"""`export`: a report as a file: a table that other programs read, or a document that people do."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from weighbridge.errors import BadArgument, ReportError, SourceNotFound, TensorNotFound, WeighbridgeError
from weighbridge.report import Manifest, Report, dumps

if TYPE_CHECKING:
    import pandas as pd

    from weighbridge.checkpoints import Checkpoint, Tensor


def export(
    report: Report | str | os.PathLike[str],
    *,
    csv: str | os.PathLike[str] | None = None,
    json: str | os.PathLike[str] | None = None,
    html: str | os.PathLike[str] | None = None,
    heatmaps: Sequence[str] = (),
    table: str | None = None,
) -> None:
    """Writes a table as CSV (its scalar columns) or JSON (all, one object a line), or the report as HTML.

    `table` is by default the one that stands for the report: `scan` where there is one.

    The HTML document stands by itself and is less than 15 MB. Of a report of `bias` it is an audit page. Of a scan it
    holds a heatmap of each tensor named in `heatmaps`, or the reason why there is none: the checkpoint has moved away,
    or is no longer the one that was scanned. `report` is a report or its folder. Raises `BadArgument` unless one of
    `csv`, `json` and `html` is given and for heatmaps without `html` or without a scan, `TensorNotFound` for a heatmap
    of what the report does not have, `ReportError` where there is no report or the file cannot be written.
    """
    if sum(file is not None for file in (csv, json, html)) != 1:
        raise BadArgument("give one of --csv FILE, --json FILE and --html FILE")
    if heatmaps and html is None:
        raise BadArgument("--heatmap NAME needs --html FILE; a table holds no pictures")
    opened = report if isinstance(report, Report) else Report.open(Path(report))
    if csv is not None:
        _write_csv(opened.table(table or opened.main), Path(csv))
    if json is not None:
        with written(Path(json)) as file:
            file.writelines(dumps(row) + "\n" for row in opened.rows(table or opened.main, lists=True))
    if html is not None:
        _write_html(opened, Path(html), list(dict.fromkeys(heatmaps)))


def _write_csv(table: "pd.DataFrame", path: Path) -> None:
    if "shape" in table:
        table = table.assign(shape=table["shape"].map(lambda sides: "x".join(map(str, sides))))
    with written(path) as file:
        table.to_csv(file, index=False)


def _write_html(report: Report, path: Path, heatmaps: list[str]) -> None:
    from weighbridge.document import audit, document

    if "scan" not in report.manifest.analyses and "bias" in report.manifest.analyses:
        if heatmaps:
            raise BadArgument("--heatmap NAME needs a scan; this report is an audit of a gap between groups")
        page = audit(report)
        with written(path) as file:
            file.write(page)
        return
    pictures, missing = _heatmaps(report, heatmaps)
    page = document(report, pictures=pictures, missing=missing)
    with written(path) as file:
        file.write(page)


def _heatmaps(report: Report, names: Sequence[str]) -> tuple[dict[str, bytes], dict[str, str]]:
    """PNG images of tensors by name, and the reasons why others could not be made."""
    unknown = set(names) - set(report.names if names else ())
    if unknown:
        raise TensorNotFound(f"{report.folder.name}: no tensor {min(unknown)!r} in this report; expected one it holds")
    pictures: dict[str, bytes] = {}
    missing: dict[str, str] = {}
    try:
        checkpoint = _scanned(report.manifest) if names else {}
    except WeighbridgeError as error:
        return pictures, dict.fromkeys(names, str(error))
    for name in names:
        try:
            pictures[name] = _png(checkpoint[name])
        except WeighbridgeError as error:
            missing[name] = str(error)
    return pictures, missing


def _scanned(manifest: Manifest) -> "Checkpoint":
    """The checkpoint that a report is of. Raises `SourceNotFound` where it is gone or no longer the same."""
    from weighbridge import checkpoints

    if not manifest.location:
        raise SourceNotFound("the weights were in memory when they were scanned")
    checkpoint = checkpoints.open(manifest.location)
    if not Manifest.of(checkpoint, manifest.location).same_source(manifest):
        raise SourceNotFound(f"{manifest.location}: the checkpoint has changed since it was scanned; scan it again")
    return checkpoint


def _png(tensor: "Tensor") -> bytes:
    from weighbridge.views.snapshot import png

    return png(tensor)


@contextmanager
def written(path: Path) -> Iterator[TextIO]:
    """A text file that takes its place when it is complete. Raises `ReportError` where it cannot be written."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            yield file
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ReportError(f"{path}: cannot be written: {error.strerror or error}; choose another place") from error
