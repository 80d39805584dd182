"""The document's table: a row for each tensor, or for each group of like-named ones where there are too many."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from weighbridge.report.scan_columns import SCAN
from weighbridge.terminal import printable, size

if TYPE_CHECKING:
    import pandas as pd

    from weighbridge.report import Entry, Report

FloatArray = npt.NDArray[np.float64]

_BINS, _HEIGHT = 48, 20
_BATCH = 512
"""Histograms held at a time."""
_PICTURED = (
    *("name", "dtype", "effective_dtype", "zeros", "min", "max", "q001", "q999"),
    *("histogram_bins", "histogram_counts"),
)
_OTHERS = "every other name"


class Column(NamedTuple):
    """A column's head; `numeric` ones sort by figure, others by text. `over` is the heading of several columns."""

    label: str
    meaning: str
    numeric: bool = True
    over: str = ""


class Cell(NamedTuple):
    """What a cell shows, what it sorts by where that is not what it shows, and what a pointer on it reveals."""

    text: str
    order: str = ""
    title: str = ""


class Row(NamedTuple):
    """A line of the table; `unread` marks what could not be read."""

    anchor: str
    cells: list[Cell]
    unread: bool


class Table(NamedTuple):
    """The whole table; `anchors` has the line of every tensor, `aggregated` says that lines stand for groups."""

    columns: list[Column]
    rows: list[Row]
    anchors: dict[str, str]
    tensors: int
    aggregated: bool

    @property
    def headings(self) -> list[tuple[str, int]]:
        """The headings over the columns, each with how many it spans."""
        return [(over, len(list(columns))) for over, columns in groupby(self.columns, lambda column: column.over)]


def clipped(text: Any, characters: int) -> str:
    """Text out of a file on one line, without anything that steers a reader, its middle left out where it is long."""
    shown = printable(text)
    if len(shown) <= characters:
        return shown
    half = characters // 2
    return f"{shown[:half]} … {len(shown) - 2 * half:,} characters … {shown[-half:]}"


def number(value: float) -> str:
    """Four digits."""
    return "" if value != value else f"{value:.4g}"


def share(value: float) -> str:
    """A fraction in percent, three digits."""
    return "" if value != value else f"{100 * value:.3g} %"


def whole(value: float) -> str:
    """A count."""
    return "" if value != value else f"{value:,.0f}"


class Statistic(NamedTuple):
    """A column of figures; those of a group are its least, median and greatest, or their sum where `counted`."""

    column: str
    label: str
    form: Callable[[float], str]
    counted: bool = False


STATISTICS = (
    Statistic("mean", "mean", number),
    Statistic("std", "std", number),
    Statistic("absmax", "absmax", number),
    Statistic("kurtosis", "kurtosis", number),
    Statistic("zero_share", "zeros", share),
    Statistic("sparsity_1e3", "sparsity 1e-3", share),
    Statistic("not_finite", "NaN, Inf", whole, counted=True),
    Statistic("entropy", "entropy", number),
    Statistic("qerr_int4_32", "int4/32", share),
    Statistic("qerr_fp8_e4m3", "fp8 e4m3", share),
    Statistic("outlier_rows", "outlier rows", whole, counted=True),
    Statistic("outlier_cols", "outlier cols", whole, counted=True),
    Statistic("dead_rows", "dead rows", whole, counted=True),
    Statistic("dead_cols", "dead cols", whole, counted=True),
)
MEANINGS = {column.name: column.meaning for column in SCAN} | {
    "zero_share": "share of all entries that are +0 or -0",
    "not_finite": "entries that are NaN, +Inf or -Inf",
    "content": "BLAKE3 of the tensor's bytes, its first 12 hexadecimal digits",
    "distribution": "exact counts between the 0.001 and the 0.999 quantile; the line is at 0",
}
_PICTURE = Column("distribution", MEANINGS["distribution"], numeric=False)


def table(report: "Report", rows: "pd.DataFrame", *, limit: int, text: int) -> Table:
    """A row for each tensor of a table `scan`, or where these are more than `limit` for each group of them.

    A group is the tensors of one role whose names differ in their numbers alone. No text is longer than about `text`
    characters.
    """
    with_shares = rows.assign(
        zero_share=figures(rows, "zeros") / np.maximum(figures(rows, "count"), 1),
        not_finite=figures(rows, "nan") + figures(rows, "posinf") + figures(rows, "neginf"),
    )
    return (_individual if len(rows) <= limit else _aggregated)(report, with_shares, limit=limit, text=text)


def figures(rows: "pd.DataFrame", column: str) -> FloatArray:
    """A column in float64, NaN for null."""
    return rows[column].to_numpy(np.float64, na_value=np.nan)


def _individual(report: "Report", rows: "pd.DataFrame", *, limit: int, text: int) -> Table:
    columns = [
        Column("tensor", MEANINGS["name"], numeric=False),
        Column("role", MEANINGS["role"], numeric=False),
        Column("layer", MEANINGS["layer"]),
        Column("dtype", MEANINGS["dtype"] + "; after the arrow " + MEANINGS["effective_dtype"], numeric=False),
        Column("shape", MEANINGS["shape"]),
        Column("bytes", MEANINGS["nbytes"]),
        _PICTURE,
        *(Column(statistic.label, MEANINGS[statistic.column]) for statistic in STATISTICS),
        Column("content", MEANINGS["content"], numeric=False),
        Column("status", MEANINGS["status"], numeric=False),
    ]
    pictures = _pictures(report, list(rows["name"]))
    statistics = [map(statistic.form, figures(rows, statistic.column)) for statistic in STATISTICS]
    lines = []
    for i, (row, *shown) in enumerate(zip(_records(rows), *statistics, strict=True)):
        cells = [
            Cell(clipped(row["name"], text)),
            Cell(row["role"] or ""),
            Cell("" if row["layer"] is None else str(row["layer"])),
            Cell(clipped(_dtype(row), text)),
            _shape(row["shape"], row["count"], text),
            _size(row["nbytes"]),
            Cell(pictures.get(row["name"], "")),
            *map(Cell, shown),
            _content(row, text),
            Cell(_status(row, text)),
        ]
        lines.append(Row(f"t{i}", cells, row["status"] != "done"))
    anchors = {name: line.anchor for name, line in zip(rows["name"], lines, strict=True)}
    return Table(columns, lines, anchors, len(rows), aggregated=False)


def _aggregated(report: "Report", rows: "pd.DataFrame", *, limit: int, text: int) -> Table:
    columns = [
        Column("tensors named", "names of the group, * for any number", numeric=False),
        Column("role", MEANINGS["role"], numeric=False),
        Column("tensors", "tensors of the group"),
        Column("not read", "tensors of the group that could not be read"),
        Column("dtype", "dtypes as stored", numeric=False),
        Column("shape", "the shape, if it is one; sorts by the entries of all tensors"),
        Column("bytes", "bytes of all tensors"),
        _PICTURE._replace(meaning=f"of the tensor of the median std: {_PICTURE.meaning}"),
        *(column for statistic in STATISTICS for column in _group_columns(statistic)),
    ]
    groups = [group for _, group in rows.groupby(_groups(rows, limit), sort=False)]
    middles = [_middle(group) for group in groups]
    pictures = _pictures(report, [name for name in middles if name is not None])
    lines: list[Row] = []
    anchors: dict[str, str] = {}
    for i, (group, middle) in enumerate(zip(groups, middles, strict=True)):
        unread = int((group["status"] != "done").sum())
        cells = [
            Cell(clipped(_pattern(group), text)),
            Cell(str(group["role"].iloc[0] or "")),
            Cell(whole(len(group))),
            Cell(whole(unread)),
            Cell(_several(list(group["dtype"].dropna().unique()), "dtypes", text)),
            _shared_shape(group, text),
            _size(group["nbytes"].sum()),
            Cell(pictures.get(middle or "", ""), title=clipped(middle or "", text)),
            *(cell for statistic in STATISTICS for cell in _group_cells(statistic, group)),
        ]
        lines.append(Row(f"t{i}", cells, unread > 0))
        anchors |= dict.fromkeys(group["name"], f"t{i}")
    return Table(columns, lines, anchors, len(rows), aggregated=True)


def _groups(rows: "pd.DataFrame", limit: int) -> "pd.Series[Any]":
    """A number for each row, equal for those of one role and one pattern of names; at most `limit` of them.

    Beyond that the smallest groups of a role are one.
    """
    keys = _patterns(rows["name"]).to_frame("pattern").assign(role=rows["role"].fillna(""))
    count = keys.groupby(["role", "pattern"])["pattern"].transform("size")
    sizes = count.groupby([keys["role"], keys["pattern"]]).first()
    if len(sizes) > limit:
        kept = sizes.nlargest(max(limit - keys["role"].nunique(), 0)).index
        small = ~keys.set_index(["role", "pattern"]).index.isin(kept)
        keys.loc[small, "pattern"] = ""
    return keys.groupby(["role", "pattern"], sort=False).ngroup()


def _patterns(names: "pd.Series[Any]") -> "pd.Series[Any]":
    return names.str.replace(r"\d+", "*", regex=True)


def _pattern(group: "pd.DataFrame") -> str:
    patterns = _patterns(group["name"]).unique()
    return str(patterns[0]) if len(patterns) == 1 else f"{_OTHERS} ({len(patterns):,} patterns)"


def _middle(group: "pd.DataFrame") -> str | None:
    """The name of the tensor of the (lower) median std."""
    measured = group[group["std"].notna()].sort_values("std", kind="stable")
    return None if measured.empty else str(measured["name"].iloc[(len(measured) - 1) // 2])


def _group_columns(statistic: Statistic) -> Iterator[Column]:
    meaning = MEANINGS[statistic.column]
    if statistic.counted:
        yield Column(statistic.label, f"sum over the group of: {meaning}")
        return
    for which, what in (("min", "least"), ("median", "median"), ("max", "greatest")):
        yield Column(which, f"{what} over the group of: {meaning}", over=statistic.label)


def _group_cells(statistic: Statistic, group: "pd.DataFrame") -> Iterator[Cell]:
    values = figures(group, statistic.column)
    values = values[~np.isnan(values)]
    if statistic.counted:
        yield Cell(statistic.form(values.sum()) if values.size else "")
        return
    for reduce in (np.min, np.median, np.max):
        yield Cell(statistic.form(float(reduce(values))) if values.size else "")


def _records(rows: "pd.DataFrame") -> Iterator[dict[str, Any]]:
    """Rows as plain values, None for null."""
    for record in rows.astype(object).where(rows.notna(), None).to_dict("records"):
        yield {str(key): value for key, value in record.items()}


def _dtype(row: dict[str, Any]) -> str:
    stored, effective = row["dtype"] or "", row["effective_dtype"]
    return stored if effective in (None, stored) else f"{stored} → {effective}"


def _sides(shape: Iterable[int]) -> str:
    return "×".join(str(int(side)) for side in shape)


def _shape(shape: Iterable[int], count: int | None, text: int) -> Cell:
    return Cell(clipped(_sides(shape), text) or ("" if count is None else "scalar"), order=str(count or 0))


def _shared_shape(group: "pd.DataFrame", text: int) -> Cell:
    shapes = group["shape"][group["count"].notna()].map(_sides).unique()
    shown = "" if len(shapes) == 0 else clipped(shapes[0], text) or "scalar"
    return Cell(shown if len(shapes) <= 1 else f"{len(shapes):,} shapes", order=str(int(group["count"].sum())))


def _size(nbytes: Any) -> Cell:
    return Cell(size(nbytes), order=str(int(nbytes or 0)))


def _several(values: Sequence[str], noun: str, text: int) -> str:
    return clipped(", ".join(map(str, values)), text) if len(values) <= 3 else f"{len(values):,} {noun}"


def _content(row: dict[str, Any], text: int) -> Cell:
    content = row["content_hash"] or ""
    same = f"{content}, the same as {clipped(row['tied_to'], text)}" if row["tied_to"] else content
    return Cell(content[:12], title=same)


def _status(row: dict[str, Any], text: int) -> str:
    return str(row["status"]) + (f": {clipped(row['reason'], text)}" if row["reason"] else "")


def _pictures(report: "Report", names: Sequence[str]) -> dict[str, Markup]:
    """The distributions of those tensors that have one, by name."""
    drawn = {}
    for start in range(0, len(names), _BATCH):
        for entry in report.entries(names[start : start + _BATCH], _PICTURED):
            low, high = entry["q001"], entry["q999"]
            if entry["histogram_bins"] is not None and low is not None and low < high:
                drawn[entry.name] = _picture(entry, low, high)
    return drawn


def _picture(entry: "Entry", low: float, high: float) -> Markup:
    """Counts in equal bins as the outline of an area, the tallest bin as high as the picture."""
    values, counts = entry.histogram
    inside = (values >= low) & (values <= high)
    bins, _ = np.histogram(values[inside], bins=_BINS, range=(low, high), weights=counts[inside])
    heights = np.ceil(bins / max(bins.max(), 1) * _HEIGHT).astype(int)
    steps = "".join(f"V{_HEIGHT - height}h1" for height in heights)
    zero = f'<path class="zero" d="M{-low / (high - low) * _BINS:.1f} 0V{_HEIGHT}"/>' if low < 0 < high else ""
    label = escape(f"{low:.3g} to {high:.3g}")
    return Markup(
        f'<svg viewBox="0 0 {_BINS} {_HEIGHT}" preserveAspectRatio="none" role="img"><title>{label}</title>'
        f'<path d="M0 {_HEIGHT}{steps}V{_HEIGHT}z"/>{zero}</svg>'
    )
