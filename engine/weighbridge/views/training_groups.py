"""How groups of inputs pull at the weights: which tensors each moves, where groups conflict, which units idle."""

from typing import Any, Literal

import numpy as np

from weighbridge.report import Report
from weighbridge.report.schema import WHOLE
from weighbridge.views.colours import Theme, colours
from weighbridge.views.curves import curves
from weighbridge.views.frame import framed, load
from weighbridge.views.placeholder import placeholder

_CELL = 26
_LABELS = 300
"""Pixels that names, title and colour bar take beside the cells."""


def group_shares(report: Report, step: int | None = None, *, theme: Theme = "light") -> Any:
    """Each tensor's share of the squared gradient norm of each group at a step, the last by default: `hv.HeatMap`.

    A report without measurements gives a text. Raises `ReportError` without the table `training_groups`.
    """
    rows, at = _at(report, step)
    rows = rows[rows["name"] != WHOLE]
    title = f"share of each group's squared gradient by tensor, step {at:,}"
    names = list(dict.fromkeys(rows["name"]))
    cells = rows["part"], rows["name"], rows["share"].astype(float)
    return _grid(cells, names[::-1], "share", title, list(colours(theme).sequential), (0.0, 1.0), theme)


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
    """How many units of each layer are dead, or saturated, on each group's inputs over the steps: `hv.Overlay`.

    Raises `ReportError` without the table `training_units`.
    """
    rows = report.table("training_units")
    rows = rows.assign(name=rows["name"] + ", " + rows["part"], broken=False)
    return curves(rows, kind, report.manifest.source, by="tensor", theme=theme)


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
    grid = hv.HeatMap((*(np.asarray(column) for column in cells),), axes, value)
    return framed(
        grid,
        title,
        theme=theme,
        width=_LABELS + max(_CELL * len(across), 320),
        height=140 + max(_CELL * len(down), 120),
        cmap=shades,
        clim=limits,
        clipping_colors={"NaN": paint.nan},
        colorbar=True,
        tools=["hover"],
        xrotation=30,
        xlabel="",
        ylabel="",
    )
