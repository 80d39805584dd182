"""What each task needs of the network, from a report's tables of criticality alone."""

from html import escape
from typing import Any, get_args

import panel

from weighbridge.app.panes import pane
from weighbridge.app.style import html
from weighbridge.errors import BadArgument
from weighbridge.report import Report
from weighbridge.views.colours import Theme
from weighbridge.views.criticality import (
    CURVES,
    UNITS,
    WEIGHTS,
    LayerScore,
    Outcome,
    UnitScore,
    criticality,
    criticality_curves,
    criticality_layers,
    criticality_selectivity,
    unit_layers,
)

_NAMES = {
    "leave_one_out": "leave-one-out",
    "taylor": "Taylor",
    "joint": "Taylor, whole unit",
    "fisher": "Fisher",
    "loss": "loss",
    "accuracy": "accuracy",
}


def criticality_tab(report: Report, theme: Theme) -> Any:
    """The pictures of a report's criticality, with what chooses among them; a text where there is none."""
    if WEIGHTS not in report.manifest.analyses or report.table(WEIGHTS).empty:
        return _text("no criticality is in this report; weighbridge.criticality(..., report=...) measures it", theme)

    def sums(score: LayerScore) -> Any:
        return pane(criticality_layers(report, score=score, theme=theme))

    def curves(outcome: Outcome) -> Any:
        return pane(criticality_curves(report, outcome, theme=theme))

    parts: list[Any] = [_text(_examined(report), theme)]
    if UNITS in report.manifest.analyses and unit_layers(report):
        layer = panel.widgets.Select(name="layer", options=unit_layers(report), width=260)
        score = panel.widgets.Select(name="score", options=_options(get_args(UnitScore)), width=180)

        def grid(layer: str, score: UnitScore) -> Any:
            try:
                return pane(criticality(report, layer, score=score, theme=theme))
            except BadArgument as error:
                return _text(str(error), theme)

        parts += [panel.Row(layer, score, margin=0), panel.bind(grid, layer, score)]
        parts.append(pane(criticality_selectivity(report, theme=theme)))
    of_layers = panel.widgets.Select(name="sum", options=_options(get_args(LayerScore)), width=180)
    parts += [of_layers, panel.bind(sums, of_layers)]
    if CURVES in report.manifest.analyses and not report.table(CURVES).empty:
        outcome = panel.widgets.RadioButtonGroup(name="outcome", options=_options(get_args(Outcome)))
        parts += [panel.Row(outcome, width=220, margin=0), panel.bind(curves, outcome)]
    return panel.Column(*parts, sizing_mode="stretch_both", scroll=True, margin=0)


def _options(words: tuple[str, ...]) -> dict[str, str]:
    return {_NAMES[word]: word for word in words}


def _examined(report: Report) -> str:
    """What was looked at, in a sentence, and why it is not all of it where the data set broke off."""
    rows = report.table(WEIGHTS)
    whole = rows[rows["part"] == ""].iloc[0]
    tasks = rows["part"].nunique() - 1
    said = f"{whole['examples']:,} examples" + (f", {tasks:,} tasks" if tasks else "")
    said += f", {whole['broken']:,} left out because they are not finite" if whole["broken"] else ""
    reason = whole["reason"]
    return f"{said}; {reason}" if isinstance(reason, str) and reason else said


def _text(said: str, theme: Theme) -> Any:
    return html(f"<p class='note'>{escape(said)}</p>", theme)
