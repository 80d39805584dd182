"""`export`: a report's table as a file that other programs read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from weighbridge.errors import BadArgument, ReportError
from weighbridge.report import Report, dumps


def export(
    report: Report | str | os.PathLike[str],
    *,
    csv: str | os.PathLike[str] | None = None,
    json: str | os.PathLike[str] | None = None,
) -> None:
    """Writes the table `scan`: its scalar columns as CSV, or all columns as JSON, one object a line.

    `report` is a report or its folder. Raises `BadArgument` unless one of `csv` and `json` is given, `ReportError`
    where there is no report or the file cannot be written.
    """
    if (csv is None) == (json is None):
        raise BadArgument("give one of --csv FILE and --json FILE")
    opened = report if isinstance(report, Report) else Report.open(Path(report))
    if csv is not None:
        table = opened.table("scan")
        with written(Path(csv)) as file:
            table.assign(shape=table["shape"].map(lambda sides: "x".join(map(str, sides)))).to_csv(file, index=False)
    if json is not None:
        with written(Path(json)) as file:
            file.writelines(dumps(row) + "\n" for row in opened.rows("scan", lists=True))


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
