"""A report as one HTML file that stands by itself: for a reviewer to read, an auditor to keep, a release to carry.

Nothing in it comes from anywhere else, and its Content-Security-Policy lets no script but its own run. Its parts are
beside it: `page.html.j2`, `page.css`, `page.js`, the table in `table`, the map in `map`.
"""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from weighbridge.analyses.findings import SEVERITIES, Finding, findings
from weighbridge.document.map import model_map
from weighbridge.document.shell import environment, iso, policy, style_sheet
from weighbridge.document.table import clipped, number, share, table
from weighbridge.report.summary import Summary, summarize
from weighbridge.terminal import size

if TYPE_CHECKING:
    import pandas as pd

    from weighbridge.report import Report

LIMIT = 15_000_000
"""Bytes of a document, whatever it is of."""
_HERE = Path(__file__).parent
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Bounds:
    """How much of each kind a document holds; what lies beyond is counted in it.

    `text` is in characters of a name or a reason, `pictures` in bytes of PNG.
    """

    text: int
    rows: int
    unread: int
    linked: int
    files: int
    layers: int
    pictures: int


USUAL = Bounds(text=300, rows=5_000, unread=1_000, linked=100, files=2_000, layers=256, pictures=5_000_000)
SPARE = Bounds(text=48, rows=1_000, unread=500, linked=20, files=500, layers=64, pictures=4_000_000)
"""For a model whose names or layers are so many or so long that the usual bounds would pass `LIMIT`."""


class Figure(NamedTuple):
    """One of the figures at the head; `alarm` colours it."""

    label: str
    value: str
    alarm: str = ""


class Picture(NamedTuple):
    """A heatmap as a data URI, or the reason why there is none."""

    name: str
    uri: str
    reason: str


def document(
    report: "Report",
    *,
    pictures: Mapping[str, bytes] | None = None,
    missing: Mapping[str, str] | None = None,
    at: datetime | None = None,
) -> str:
    """A report as an HTML document: figures, findings, map, heatmaps, provenance, and the table of tensors.

    `pictures` are PNG images of tensors by name, `missing` the reasons why others could not be made. `at` is the time
    of export, now by default. Less than 15 MB; beyond 5,000 tensors the table has a row for each group of tensors whose
    names differ in their numbers alone. Raises `ReportError` where the report cannot be read.
    """
    rows, found = report.table("scan"), findings(report)
    at = at or datetime.now(UTC)
    page = ""
    for bounds in (USUAL, SPARE):
        page = _page(report, rows, found, list(_pictures(pictures or {}, missing or {}, bounds)), at, bounds)
        if len(page.encode()) < LIMIT:
            break
    return page


def _page(
    report: "Report",
    rows: "pd.DataFrame",
    found: list[Finding],
    pictures: list[Picture],
    at: datetime,
    bounds: Bounds,
) -> str:
    tensors = table(report, rows, limit=bounds.rows, text=bounds.text)
    unread = rows[rows["status"] != "done"]
    style, script = style_sheet(), (_HERE / "page.js").read_text(encoding="utf-8")
    grid = model_map(rows, tensors.anchors, layers=bounds.layers, text=bounds.text)
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            policy=policy(style, script),
            style=Markup(style),
            script=Markup(script),
            source=clipped(report.manifest.source, bounds.text),
            complete=report.complete,
            figures=list(_figures(summarize(rows), found)),
            findings=[_finding(finding, tensors.anchors, bounds) for finding in found],
            map=grid,
            map_data=htmlsafe_json_dumps(grid.data, ensure_ascii=False, separators=(",", ":"), allow_nan=False),
            pictures=pictures,
            provenance=list(_provenance(report, at, bounds)),
            files=[_file(file, bounds) for file in report.manifest.files[: bounds.files]],
            files_beyond=max(len(report.manifest.files) - bounds.files, 0),
            unread=[
                (clipped(name, bounds.text), status, clipped(reason, bounds.text))
                for name, status, reason in zip(unread["name"], unread["status"], unread["reason"], strict=True)
            ][: bounds.unread],
            unread_beyond=max(len(unread) - bounds.unread, 0),
            table=tensors,
            bounds=bounds,
        )
    )


def _figures(summary: Summary, found: list[Finding]) -> Iterator[Figure]:
    yield Figure("parameters", f"{summary.parameters:,}")
    if summary.quantised:
        yield Figure("codes and scales", f"{summary.quantised:,}")
    yield Figure("tensors", f"{summary.tensors:,}")
    yield Figure("bytes", size(summary.nbytes))
    for dtype, nbytes in summary.bytes_by_dtype.items():
        yield Figure(f"in {dtype}", size(nbytes))
    if summary.entropy is not None:
        yield Figure("entropy of a weight", f"{number(summary.entropy)} bits")
    if summary.exponent_saving is not None:
        yield Figure("saved by coding exponents", share(summary.exponent_saving))
    yield Figure("NaN", f"{summary.nan:,}", "error" if summary.nan else "")
    yield Figure("Inf", f"{summary.inf:,}", "error" if summary.inf else "")
    yield Figure("not read", f"{summary.failed:,}", "error" if summary.failed else "")
    for severity in SEVERITIES:
        count = sum(finding.severity == severity for finding in found)
        yield Figure(f"findings: {severity}", f"{count:,}", severity if count else "")


def _finding(finding: Finding, anchors: Mapping[str, str], bounds: Bounds) -> dict[str, Any]:
    listed = [(clipped(name, bounds.text), anchors.get(name, "")) for name in finding.rows[: bounds.linked]]
    return {
        "check": finding.check,
        "severity": finding.severity,
        "summary": finding.summary,
        "evidence": clipped(finding.evidence, 10 * bounds.text),
        "rows": listed,
        "count": len(finding.rows),
        "beyond": len(finding.rows) - len(listed),
    }


def _pictures(pictures: Mapping[str, bytes], missing: Mapping[str, str], bounds: Bounds) -> Iterator[Picture]:
    left = bounds.pictures
    for name, image in pictures.items():
        shown = clipped(name, bounds.text)
        if len(image) > left:
            yield Picture(shown, "", f"its picture of {size(len(image))} would make the document too large")
            continue
        left -= len(image)
        yield Picture(shown, f"data:image/png;base64,{b64encode(image).decode()}", "")
    for name, reason in missing.items():
        yield Picture(clipped(name, bounds.text), "", clipped(reason, bounds.text))


def _provenance(report: "Report", at: datetime, bounds: Bounds) -> Iterator[tuple[str, str]]:
    manifest = report.manifest
    yield "source", clipped(manifest.source, bounds.text)
    yield "location", clipped(public(manifest.location), bounds.text) or "weights in memory"
    yield "hash of all headers", f"{manifest.header} (BLAKE3)"
    yield "report", clipped(report.folder.absolute(), bounds.text)
    for name, analysis in manifest.analyses.items():
        what = f"{analysis.status}, {analysis.seconds:,.1f} s, kernels: {analysis.variant or 'none ran yet'}"
        yield f"analysis {clipped(name, bounds.text)}", what
        options = json.dumps(analysis.options, ensure_ascii=False)
        yield f"options of {clipped(name, bounds.text)}", clipped(options, 10 * bounds.text)
    yield "made with", ", ".join(f"{package} {found}" for package, found in manifest.versions.items())
    yield "schema of the report", f"version {manifest.schema_version}"
    yield "exported", f"{iso(at)} by weighbridge {version('weighbridge')}"


def public(location: str) -> str:
    """A location without what may be a secret in an address: a user's name and password, and the query."""
    if "://" not in location:
        return location
    parts = urlsplit(location)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" + ("?…" if parts.query else "")


def _file(file: Mapping[str, Any], bounds: Bounds) -> dict[str, str]:
    modified = file["modified_ns"]
    return {
        "name": clipped(file["name"], bounds.text),
        "size": f"{file['size']:,}",
        "modified": "not known" if modified is None else iso(_EPOCH + timedelta(microseconds=modified // 1000)),
        "header": clipped(file["header"], bounds.text),
        "content": clipped(file["content"] or "not known before the scan is complete", bounds.text),
    }
