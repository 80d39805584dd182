"""A figure of every matrix against the depth it lies at, by role."""

from typing import Any

import numpy as np

from weighbridge.errors import BadArgument
from weighbridge.report import Report
from weighbridge.report.matrix_columns import SPECTRA
from weighbridge.views.colours import Theme, colours
from weighbridge.views.frame import framed, load
from weighbridge.views.placeholder import placeholder

_STATE = ("step", "order")
COLUMNS = [column.name for column in SPECTRA if column.type in ("int64", "float64") and column.name not in _STATE]
_TRAINED = (2.0, 6.0)
"""Where alpha lies in well trained layers (Martin and Mahoney 2021)."""
_HEIGHT = 340
_SPREAD = 0.5
"""Of the step from layer to layer, over which the roles of one layer stand side by side."""


def depth(report: Report, column: str = "alpha", *, theme: Theme = "light") -> Any:
    """A column of the table `spectra` by layer, a colour a role, as an `hv.Overlay`.

    Whole matrices and experts are points, joined by a line where a role has one a layer; heads and slices are left out.
    For alpha the range of well trained layers is shaded. A report without such matrices gives a text. Raises
    `BadArgument` for a column that is no figure, `ReportError` without the table.
    """
    if column not in COLUMNS:
        raise BadArgument(f"column {column!r}; expected one of {', '.join(COLUMNS)}")
    hv, paint = load(), colours(theme)
    rows = report.table("spectra")
    held = rows[rows["layer"].notna() & rows[column].notna() & ~rows["part"].str.startswith(("head", "place"))]
    if held.empty:
        return placeholder(f"no matrix of a numbered layer has a value in {column}", theme=theme)
    roles = list(dict.fromkeys(held["role"]))
    layers = [hv.HSpan(*_TRAINED).opts(color=paint.grid, alpha=0.5, backend="bokeh")] if column == "alpha" else []
    for i, role in enumerate(roles):
        of_role = held[held["role"] == role].sort_values("layer", kind="stable")
        at = of_role["layer"].to_numpy(float) + _SPREAD * ((i + 0.5) / len(roles) - 0.5)
        values = of_role[column].to_numpy(float)
        told = [of_role[key].to_numpy(object) for key in ("name", "part")]
        colour = paint.series[i % len(paint.series)]
        points = hv.Scatter((at, values, *told), "layer", [column, "name", "part"], label=role)
        layers.append(points.opts(color=colour, size=7, tools=["hover"], backend="bokeh"))
        if of_role["layer"].is_unique and len(at) > 1:
            layers.append(hv.Curve((at, values), "layer", column).opts(color=colour, alpha=0.4, backend="bokeh"))
    positive = _decades_apart(held[column].to_numpy(float))
    return framed(
        hv.Overlay(layers),
        f"{report.manifest.source}: {column} by layer and role",
        theme=theme,
        height=_HEIGHT,
        xlabel="layer",
        ylabel=column,
        logy=positive,
        legend_position="right",
    )


def _decades_apart(values: Any) -> bool:
    """Whether values are positive and more than two decades apart, so that a logarithmic axis suits them."""
    return bool((values > 0).all() and values.max() > 100 * values.min() and np.isfinite(values).all())
