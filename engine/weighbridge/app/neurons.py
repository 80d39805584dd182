"""The part of the page on how the neurons of a matrix relate: what is common among them, and who is like whom."""

from collections.abc import Callable
from functools import partial
from html import escape
from typing import Any

import numpy as np
import panel

from weighbridge.app.model import Model
from weighbridge.app.style import html
from weighbridge.views import overlaps, similarities
from weighbridge.views.channels import Side
from weighbridge.views.colours import Theme

_SIDES: dict[str, Side] = {"rows": "row", "columns": "col"}
Row = dict[str, Any]


def neurons(model: Model, name: str, theme: Theme) -> Any:
    """Of a tensor in the table `correlations`: similarities of both sides, a neuron's neighbours, overlaps of heads."""
    rows = {row["part"]: row for row in model.report.matrices(name, "correlations")}
    if not rows:
        return html("<p class='note'>the neurons of this tensor have not been compared yet</p>", theme)
    part = panel.widgets.Select(name="part", options=list(rows), value=next(iter(rows)), visible=len(rows) > 1)
    plots = [
        panel.pane.HoloViews(
            panel.bind(partial(_drawn, rows, side, theme), part), sizing_mode="stretch_width", linked_axes=False
        )
        for side in _SIDES.values()
    ]
    table = _neighbours(model, rows, part, theme)
    shown = [part, *plots, table, *_overlaps(model, name, theme)]
    return panel.Column(*shown, sizing_mode="stretch_both", scroll=True)


def _drawn(rows: dict[str, Row], side: Side, theme: Theme, part: str) -> Any:
    return similarities(rows[part], side=side, theme=theme)


def _overlaps(model: Model, name: str, theme: Theme) -> list[Any]:
    """The overlaps of the tensor's heads or experts, where it has some."""
    if "relations" not in model.report.manifest.analyses:
        return []
    rows = [row for row in model.report.matrices(name, "relations") if row["part_overlap"] is not None]
    return [panel.pane.HoloViews(overlaps(row, theme=theme), linked_axes=False) for row in rows]


def _neighbours(model: Model, rows: dict[str, Row], part: Any, theme: Theme) -> Any:
    """The most similar and most opposed neurons of one that is chosen by its number."""
    side = panel.widgets.RadioButtonGroup(name="side", options=list(_SIDES))
    neuron = panel.widgets.IntInput(name="neuron", value=0, start=0, width=140)

    def told(chosen: str, of: str, index: int) -> Any:
        row = rows[chosen]
        extent = row["rows" if of == "rows" else "cols"] or 0
        return html(neighbour_table(row, _SIDES[of], index, model.channel_name(extent)), theme)

    return panel.Column(panel.Row(side, neuron), panel.bind(told, part, side, neuron))


def neighbour_table(row: Row, side: Side, index: int, name: Callable[[int], str]) -> str:
    """The neighbours of a neuron of a row of the table, as HTML."""
    extent = row["rows" if side == "row" else "cols"] or 0
    if row[f"{side}_neighbours"] is None or not 0 <= index < extent:
        why = row["reason"] or f"there is no neuron {index:,} among {extent:,}"
        return f"<p class='note'>{escape(str(why))}</p>"
    similar, opposed = (
        [np.asarray(row[f"{side}_{what}"]).reshape(extent, -1)[index] for what in pair]
        for pair in (("neighbours", "similarities"), ("opposed", "opposed_similarities"))
    )
    lines = "".join(
        f"<tr><td>{_called(a, name)}</td><td>{_number(s)}</td><td>{_called(b, name)}</td><td>{_number(t)}</td></tr>"
        for a, s, b, t in zip(*similar, *opposed, strict=True)
    )
    head = f"<tr><th>most like {escape(name(index))}</th><th></th><th>most opposed</th><th></th></tr>"
    return f"<table class='figures'>{head}{lines}</table>"


def _called(index: Any, name: Callable[[int], str]) -> str:
    return escape(name(int(index))) if index >= 0 else "–"


def _number(value: Any) -> str:
    return f"{value:.3f}".replace("-", "−") if value == value else "–"
