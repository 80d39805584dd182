"""A whole model at a glance: a map of layers and roles in the colours of a column, and distributions by layer."""

from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.errors import BadArgument
from weighbridge.report import Report
from weighbridge.report.entry import Entry
from weighbridge.report.scan_columns import SCAN
from weighbridge.report.schema import SCALARS
from weighbridge.roles import ROLES
from weighbridge.views.colours import Theme, colours
from weighbridge.views.frame import framed, load, number
from weighbridge.views.placeholder import placeholder

if TYPE_CHECKING:
    import pandas as pd

NO_LAYER = -1
"""The layer of a tensor outside of numbered blocks."""
RIDGES = 60
"""Layers that a ridge plot draws at most."""

_SUMS = (
    "count",
    "nbytes",
    "nan",
    "posinf",
    "neginf",
    "zeros",
    "outlier_rows",
    "outlier_cols",
    "dead_rows",
    "dead_cols",
)
_GREATEST = ("absmax", "max", "kurtosis", "skewness", "min", "distinct")
_COLUMNS = [column.name for column in SCAN if column.name in SCALARS and column.type in ("int64", "float64")]
_DECADES = 3
"""Decades beyond which positive values are coloured by their logarithm."""
_FAR = 5
"""How many times the middle four fifths of the values' range the whole range must be for colours to go by rank."""
_ROW_HEIGHT, _RIDGE_HEIGHT = 24, 16
_BINS = 240
_OVERLAP = 1.8
"""Height of the tallest ridge, in distances of two."""
_RIDGE_COLUMNS = (
    "name", "dtype", "effective_dtype", "status", "zeros", "min", "max", "layer", "count", "q001", "q999",
    "histogram_bins", "histogram_counts",
)  # fmt: skip


def map_table(rows: "pd.DataFrame", column: str) -> "pd.DataFrame":
    """A row for each layer and role of a table `scan`, in the order of ROLES: `layer, role, value, tensors, name`.

    `layer` is -1 outside of numbered blocks. Of several tensors in one place `value` is their sum for counts, the value
    of greatest magnitude for extremes, skewness and kurtosis, else the mean weighted by entries; NaN where none has
    one. `name` is the tensor whose own value has the greatest magnitude. Raises `BadArgument` for a column without
    numbers.
    """
    import pandas as pd

    if column not in _COLUMNS:
        raise BadArgument(f"column {column!r}; expected one of {', '.join(_COLUMNS)}")
    places = rows.assign(
        layer=rows["layer"].fillna(NO_LAYER).astype(int), value=rows[column].astype("Float64").astype(float)
    ).groupby(["role", "layer"], sort=False)
    found = [
        {"layer": layer, "role": role, "value": _joined(group, column), "tensors": len(group), "name": _extreme(group)}
        for (role, layer), group in places
    ]
    table = pd.DataFrame(found, columns=["layer", "role", "value", "tensors", "name"])
    order = table["role"].map({role: i for i, role in enumerate(ROLES)})
    return table.assign(order=order).sort_values(["order", "layer"], kind="stable").drop(columns="order")


def _joined(group: "pd.DataFrame", column: str) -> float:
    known = group[group["value"].notna()]
    values = known["value"].to_numpy(float)
    if not len(values):
        return float("nan")
    if column in _SUMS:
        return float(values.sum())
    if column in _GREATEST:
        return float(values[np.abs(values).argmax()])
    weights = known["count"].to_numpy(float)
    return float(values @ (weights / weights.sum())) if weights.sum() else float(values.mean())


def _extreme(group: "pd.DataFrame") -> str:
    magnitudes = group["value"].abs().fillna(-1.0).to_numpy(float)
    return str(group["name"].iloc[int(magnitudes.argmax())])


def model_map(report: Report, column: str = "std", *, theme: Theme = "light") -> Any:
    """The map of a report as `hv.Rectangles`: layers across, roles down, coloured by a column of the table `scan`.

    Colours are by the logarithm where positive values span more than three decades, by rank where a few lie far from
    the rest. What of several tensors in one place is shown, `map_table` says. A report without tensors gives a text.
    Raises `BadArgument` as `map_table`.
    """
    hv = load()
    table = map_table(report.table("scan"), column)
    if table["value"].isna().all():
        what = "no tensor has been weighed yet" if table.empty else f"no tensor has a value in {column}"
        return placeholder(what, theme=theme)
    layers, roles = sorted(set(table["layer"])), list(dict.fromkeys(table["role"]))
    left = table["layer"].map(layers.index).to_numpy(float)
    top = table["role"].map(roles.index).to_numpy(float)
    told = [
        table[key].to_numpy(object if key in ("role", "name") else None) for key in ("layer", "role", "name", "tensors")
    ]
    cells = hv.Rectangles(
        (left, top, left + 1, top + 1, table["value"].to_numpy(float), *told),
        ["left", "top", "right", "bottom"],
        [hv.Dimension("value", label=column), "layer", "role", "name", "tensors"],
    )
    tips = [("layer", "@layer"), ("role", "@role"), (column, "@value"), ("tensor", "@name"), ("tensors", "@tensors")]
    every = -(-len(layers) // 48)
    names = [(i + 0.5, "–" if layer == NO_LAYER else str(layer)) for i, layer in enumerate(layers)]
    return framed(
        cells,
        f"{report.manifest.source}: {column} by layer and role",
        theme=theme,
        height=_ROW_HEIGHT * len(roles) + 120,
        color="value",
        cmap=list(colours(theme).sequential),
        cnorm=_scale(table["value"].to_numpy(float)),
        line_color=colours(theme).background,
        colorbar=True,
        tools=["hover", "tap"],
        hover_tooltips=tips,
        xticks=names[::every],
        yticks=[(i + 0.5, role) for i, role in enumerate(roles)],
        invert_yaxis=True,
        xlabel="layer",
        ylabel="",
        xlim=(0, len(layers)),
        ylim=(0, len(roles)),
    )


def _scale(values: Any) -> str:
    """By the logarithm for positive values decades apart, by rank where a few lie far outside of the rest."""
    known = values[np.isfinite(values)]
    if (known > 0).all() and known.max() * 10.0**-_DECADES > known.min():
        return "log"
    known = known / (np.abs(known).max() or 1.0)  # so that differences stay in range
    low, high = np.quantile(known, [0.1, 0.9])
    return "eq_hist" if np.ptp(known) > _FAR * (high - low) else "linear"


def ridge(report: Report, role: str | None = None, *, theme: Theme = "light") -> Any:
    """Distributions of a role's weights, layer above layer, as an `hv.Overlay`.

    Every curve is the density of exact counts in equal bins between the least 0.001 and the greatest 0.999 quantile of
    all that are shown. `role` is by default the one with most bytes among numbered layers. Of more than 60 layers every
    so many are drawn, the first and the last among them. A report without such tensors gives a text.
    """
    rows = report.table("scan")
    held = rows[rows["layer"].notna() & (rows["status"] == "done") & rows["q001"].notna() & (rows["count"] > 1)]
    if role is None and len(held):
        role = str(held.groupby("role")["nbytes"].sum().idxmax())
    held = held[held["role"] == role].sort_values("nbytes").drop_duplicates("layer", keep="last").sort_values("layer")
    chosen = held.iloc[np.unique(np.linspace(0, len(held) - 1, min(RIDGES, len(held))).round().astype(int))]
    entries = [entry for entry in report.entries(list(chosen["name"]), _RIDGE_COLUMNS) if _counted(entry)]
    if not entries:
        return placeholder("no weights of a numbered layer have been counted", theme=theme)
    some = f", {len(entries)} of {len(held)} layers" if len(entries) < len(held) else ""
    return _ridges(sorted(entries, key=lambda entry: int(entry["layer"])), f"{role} weights by layer{some}", theme)


def _counted(entry: Entry) -> bool:
    return entry["histogram_bins"] is not None and entry["q001"] is not None


def _ridges(entries: list[Entry], title: str, theme: Theme) -> Any:
    hv, paint = load(), colours(theme)
    low, high = min(entry["q001"] for entry in entries), max(entry["q999"] for entry in entries)
    edges = np.linspace(low, high if high > low else low + (abs(low) or 1.0), _BINS + 1)
    densities = [_density(entry, edges) for entry in entries]
    tallest = max(float(density.max()) for density in densities) or 1.0
    middles = (edges[1:] + edges[:-1]) / 2
    areas = [
        hv.Area((middles, np.full(_BINS, -i, float), -i + density / tallest * _OVERLAP), "weight", ["base", "density"])
        for i, density in enumerate(densities)
    ]
    drawn = [
        area.opts(color=paint.accent, fill_alpha=0.75, line_color=paint.background, line_width=1, backend="bokeh")
        for area in areas
    ]
    ticks = [(-i, str(int(entry["layer"]))) for i, entry in enumerate(entries)]
    every = -(-len(ticks) // 30)
    return framed(
        hv.Overlay(drawn),
        f"{title}, {number(low)} to {number(high)}",
        theme=theme,
        height=_RIDGE_HEIGHT * len(entries) + 140,
        yticks=ticks[::every],
        xlabel="weight",
        ylabel="layer",
        show_legend=False,
    )


def _density(entry: Entry, edges: Any) -> Any:
    """Share of the entries in each bin over its width."""
    values, counts = entry.histogram
    return np.histogram(values, edges, weights=counts)[0] / max(int(counts.sum()), 1) / (edges[1] - edges[0])


def overview(report: Report, column: str = "std", *, theme: Theme = "light") -> Any:
    """The map of a report above the distributions of its largest role, as an `hv.Layout`."""
    shown = model_map(report, column, theme=theme) + ridge(report, theme=theme)
    return shown.cols(1).opts(shared_axes=False, backend="bokeh")
