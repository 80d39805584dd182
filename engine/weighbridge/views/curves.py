"""A figure of tensors over steps, a line each; what the pictures of training and of checkpoints share."""

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.views.colours import Theme, colours
from weighbridge.views.frame import framed, load
from weighbridge.views.placeholder import placeholder

if TYPE_CHECKING:
    import pandas as pd

_HEIGHT = 380
LEGEND = 14
"""Lines that a legend names; of more, hovering tells."""
_DASHES = ("solid", "dashed", "dotted", "dotdash")
"""Of lines of one colour, in turn."""


def curves(rows: "pd.DataFrame", column: str, source: str, *, by: str, theme: Theme) -> Any:
    """A line for each tensor, or for each role the median of its tensors, as an `hv.Overlay`.

    Colours tell roles apart where there are several, else tensors; rows that are `broken` have a cross.
    """
    hv, paint = load(), colours(theme)
    held = rows[rows[column].notna()]
    if held.empty:
        return placeholder(f"no record has a value in {column}", theme=theme)
    groups = held.groupby("role" if by == "role" else "name", sort=False)
    roles = list(dict.fromkeys(held["role"]))
    series = paint.series
    layers, drawn = [], Counter[str]()
    for i, (name, group) in enumerate(groups):
        line = _line(group, column)
        several = by == "tensor" and len(groups) > len(series) and len(roles) > 1
        colour = series[(roles.index(group["role"].iloc[0]) if several else i) % len(series)]
        dash = _DASHES[drawn[colour] % len(_DASHES)]
        drawn[colour] += 1
        label = str(name) if len(groups) <= LEGEND else ""
        told = np.full(len(line), str(name), object)
        steps, values = line.index.to_numpy(float), line["value"].to_numpy(float)
        curve = hv.Curve((steps, values, told), "step", [column, "name"], label=label)
        layers.append(curve.opts(color=colour, line_dash=dash, line_width=1.5, tools=["hover"], backend="bokeh"))
        broken = line["broken"].to_numpy(bool)
        if broken.any():
            marks = hv.Scatter((steps[broken], values[broken]), "step", column)
            layers.append(marks.opts(marker="x", size=9, line_width=2, color=paint.nan, backend="bokeh"))
    marked = ", × holds NaN or Inf" if held["broken"].any() else ""
    return framed(
        hv.Overlay(layers),
        f"{source}: {column}{' (median of each role)' if by == 'role' else ''}{marked}",
        theme=theme,
        height=_HEIGHT,
        xlabel="step",
        ylabel=column,
        logy=_decades_apart(held[column].to_numpy(float)),
        legend_position="right",
    )


def _line(group: "pd.DataFrame", column: str) -> "pd.DataFrame":
    """By step: the median of the column, and whether any record is broken."""
    found = group.assign(value=group[column].astype(float)).groupby("step", sort=True)
    return found.agg(value=("value", "median"), broken=("broken", "any"))


def _decades_apart(values: Any) -> bool:
    """Whether values are positive and more than a decade apart, so that a logarithmic axis suits them."""
    return bool((values > 0).all() and np.isfinite(values).all() and values.max() > 20 * values.min())
