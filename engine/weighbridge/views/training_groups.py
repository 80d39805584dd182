"""How groups of inputs pull at the weights: which tensors each moves, where groups conflict, which units idle."""

from typing import Any, Literal

import numpy as np

from weighbridge.report import Report
from weighbridge.report.run_columns import WHOLE
from weighbridge.views.colours import Theme, colours
from weighbridge.views.curves import curves
from weighbridge.views.frame import framed, load
from weighbridge.views.placeholder import placeholder

GroupColumn = Literal["loss", "gradient_norm"]
_CELL = 34
_LABELS = 300
"""Pixels that names, title and colour bar take beside the cells."""


_NUMBERS, _DARK = 12, 0.55
"""Rows or columns up to which cells tell their number, and the share of the limit above which it is white."""


def group_curves(
    report: Report, column: GroupColumn = "gradient_norm", name: str = WHOLE, *, theme: Theme = "light"
) -> Any:
    """Loss or gradient norm of each group of inputs over the steps, in a tensor or in all: `hv.Overlay`.

    A tensor without measurements gives a text. Raises `ReportError` without the table `training_groups`.
    """
    rows = report.table("training_groups")
    rows = rows[rows["name"] == name]
    return curves(rows.assign(name=rows["part"], broken=False), column, name, by="tensor", theme=theme)


def group_shares(report: Report, step: int | None = None, *, theme: Theme = "light") -> Any:
    """Each tensor's share of the squared gradient norm of each group at a step, the last by default: `hv.HeatMap`.

    A report without measurements gives a text. Raises `ReportError` without the table `training_groups`.
    """
    rows, at = _at(report, step)
    rows = rows[rows["name"] != WHOLE]
    title = f"share of each group's squared gradient by tensor, step {at:,}"
    names = list(dict.fromkeys(rows["name"]))
    cells = rows["part"], rows["name"], rows["share"].astype(float)
    limit = float(rows["share"].max()) if rows["share"].notna().any() else 1.0
    return _grid(cells, names[::-1], "share", title, list(colours(theme).sequential), (0.0, limit), theme)


def group_conflicts(report: Report, name: str = WHOLE, step: int | None = None, *, theme: Theme = "light") -> Any:
    """Cosines between the groups' gradients in a tensor, or in all: negative ones are conflicts; an `hv.HeatMap`.

    A tensor without measurements gives a text. Raises `ReportError` without the table `training_groups`.
    """
    rows, at = _at(report, step, lists=True)
    rows = rows[rows["name"] == name]
    pairs = [
        (row["part"], other, float(cosine))
        for row in rows.to_dict("records")
        for other, cosine in zip(row["others"], row["cosine"], strict=True)
    ]
    title = f"{name}: cosines of the groups' gradients, step {at:,}"
    cells = tuple(zip(*pairs, strict=True)) if pairs else ((), (), ())
    return _grid(cells, list(rows["part"])[::-1], "cosine", title, list(colours(theme).diverging), (-1.0, 1.0), theme)


def noise_scale(report: Report, *, theme: Theme = "light") -> Any:
    """The gradient noise scale of each tensor and of all, in examples, over the steps: `hv.Overlay`.

    Null where the squared gradient's estimate is not positive. Raises `ReportError` without `training_groups`.
    """
    rows = report.table("training_groups").drop_duplicates(["name", "step"]).assign(broken=False)
    return curves(rows, "noise_scale", report.manifest.source, by="tensor", theme=theme)


def idle_units(report: Report, kind: Literal["dead", "saturated"] = "dead", *, theme: Theme = "light") -> Any:
    """The share of each layer's units that are dead, or saturated, over the steps: `hv.Overlay`.

    It is that of the group of inputs on which fewest are: a unit that one group moves does not idle. Raises
    `ReportError` without the table `training_units`.
    """
    rows, share = report.table("training_units"), f"share of {kind} units"
    rows[share] = rows[kind] / rows["units"]
    least = rows[rows[share].notna()].sort_values(share).drop_duplicates(["name", "step"])
    ordered = least.sort_values(["order", "step"]).assign(broken=False)
    return curves(ordered, share, report.manifest.source, by="tensor", theme=theme)


def _at(report: Report, step: int | None, *, lists: bool = False) -> tuple[Any, int]:
    """The rows of a step, the last by default."""
    rows = report.table("training_groups", lists=lists)
    at = int(rows["step"].max() if step is None else step) if len(rows) else 0
    return rows[rows["step"] == at], at


def _grid(
    cells: Any, down: list[str], value: str, title: str, shades: list[str], limits: tuple[float, float], theme: Theme
) -> Any:
    """A coloured cell for each (across, down, value)."""
    if not down:
        return placeholder("no group has been measured", theme=theme)
    hv, paint = load(), colours(theme)
    across = list(dict.fromkeys(cells[0]))
    axes = [hv.Dimension("group", values=across), hv.Dimension("of", values=down)]
    columns = [np.asarray(column) for column in cells]
    grid = hv.HeatMap((*columns,), axes, value).opts(
        cmap=shades, clim=limits, clipping_colors={"NaN": paint.nan}, colorbar=True, tools=["hover"], backend="bokeh"
    )
    told = slice(None if max(len(across), len(down)) <= _NUMBERS else 0)
    values = columns[2][told].tolist()
    texts = [f"{x:.2f}".replace("-0.00", "0.00").replace("-", "−") for x in values]
    inks = ["#ffffff" if x > _DARK * limits[1] else "#000000" for x in values]
    numbers = hv.Labels((*(column[told] for column in columns[:2]), texts, inks), axes, ["text", "ink"])
    return framed(
        grid * numbers.opts(text_color="ink", text_font_size="8pt", backend="bokeh"),
        title,
        theme=theme,
        width=_LABELS + max(_CELL * len(across), 320),
        height=140 + max(_CELL * len(down), 120),
        xrotation=30 if max(map(len, across)) > 3 else 0,
        xlabel="",
        ylabel="",
    )
