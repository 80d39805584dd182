"""How a report and a tensor show themselves in a notebook: tables and one small picture, no script, no network."""

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.report.schema import HEADLINES
from weighbridge.report.summary import summarize

if TYPE_CHECKING:
    import pandas as pd

    from weighbridge.report import Entry, Report

_ROWS = 20
_COLUMNS = ("name", "role", "dtype", "shape", "nbytes", "mean", "std", "absmax", "kurtosis", "qerr_int4_32")
_FIGURES = (
    "count",
    "nan",
    "zeros",
    "min",
    "max",
    "mean",
    "std",
    "skewness",
    "kurtosis",
    "absmax",
    "entropy",
    "sparsity_2of4",
    "qerr_int8",
    "qerr_fp8_e4m3",
    "qerr_int4_32",
    "qerr_nf4_64",
    "qerr_mxfp4_32",
    "qerr_nvfp4_16",
)
_WIDTH, _HEIGHT, _BINS = 480, 120, 120


def report_html(report: "Report") -> str:
    """Summary and the largest tensors; of a report without a scan the headlines of its matrices."""
    if report.main != "scan":
        return _matrices_html(report)
    rows = report.table("scan")
    summary = summarize(rows)
    head = (
        f"<b>{escape(report.manifest.source)}</b>: {summary.tensors:,} tensors, {summary.parameters:,} parameters, "
        f"{summary.nbytes:,} bytes, {summary.nan:,} NaN, {summary.inf:,} Inf"
        + ("" if report.complete else " (incomplete)")
    )
    largest = rows.sort_values("nbytes", ascending=False, kind="stable").head(_ROWS)
    rest = f"<p>{len(rows) - _ROWS:,} more tensors</p>" if len(rows) > _ROWS else ""
    return f"<div><p>{head}</p>{_table(largest, _COLUMNS)}{rest}</div>"


def _matrices_html(report: "Report") -> str:
    rows = report.table(report.main)
    done = rows[rows["status"] == "done"]
    head = f"<b>{escape(report.manifest.source)}</b>: {report.main}, {len(done):,} matrices"
    rest = f"<p>{len(done) - _ROWS:,} more matrices</p>" if len(done) > _ROWS else ""
    wanted = ("name", "part", "role", "rows", "cols", *HEADLINES[report.main])
    columns = tuple(column for column in wanted if column in rows)
    return f"<div><p>{head}</p>{_table(done.head(_ROWS), columns)}{rest}</div>"


def _table(rows: "pd.DataFrame", columns: tuple[str, ...]) -> str:
    header = "".join(f"<th>{column}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(row[column])}</td>" for column in columns) + "</tr>"
        for row in rows.to_dict("records")
    )
    return f"<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"


def entry_html(entry: "Entry") -> str:
    """The figures of one tensor beside its distribution."""
    title = f"<b>{escape(entry.name)}</b> {_cell(entry['shape'])} {_cell(entry['dtype'])}, {_cell(entry['role'])}"
    if entry["status"] != "done":
        return f"<div>{title}: {escape(str(entry['status']))}, {escape(str(entry['reason']))}</div>"
    figures = "".join(f"<tr><th>{name}</th><td>{_cell(entry[name])}</td></tr>" for name in _FIGURES)
    return f"<div>{title}{_histogram_svg(entry)}<table><tbody>{figures}</tbody></table></div>"


def _histogram_svg(entry: "Entry") -> str:
    """Counts in equal bins from the 0.0001 to the 0.9999 quantile."""
    if entry["histogram_bins"] is None or entry["q0001"] is None or entry["q0001"] == entry["q9999"]:
        return ""
    values, counts = entry.histogram
    low, high = entry["q0001"], entry["q9999"]
    inside = (values >= low) & (values <= high)
    bins, _ = np.histogram(values[inside], bins=_BINS, range=(low, high), weights=counts[inside])
    width = _WIDTH / _BINS
    bars = "".join(
        f'<rect x="{i * width:.1f}" y="{_HEIGHT - h:.1f}" width="{width - 0.5:.1f}" height="{h:.1f}"/>'
        for i, h in enumerate(bins / bins.max() * _HEIGHT)
        if h > 0
    )
    labels = (
        f'<text x="0" y="{_HEIGHT + 14}">{low:.3g}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 14}" text-anchor="end">{high:.3g}</text>'
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 18}" width="{_WIDTH}" role="img" '
        'aria-label="distribution of the weights" '
        f'style="display:block;margin:.5em 0;font:11px sans-serif"><g fill="#4477aa">{bars}</g>'
        f'<g fill="currentColor">{labels}</g></svg>'
    )


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value) or str(value) == "<NA>":
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, np.ndarray | list):
        return "×".join(str(int(side)) for side in value) or "scalar"
    return escape(f"{value:,}" if isinstance(value, int) else str(value))
