"""The way back to weights on the page: what tensors, channels and single weights contributed to an output."""

from html import escape
from typing import Any

import holoviews
import panel

from weighbridge.app.panes import pane, side_by_side
from weighbridge.app.style import html
from weighbridge.checkpoints import open as open_source
from weighbridge.report import Report
from weighbridge.report.saliency import load_inputs
from weighbridge.report.weight_attribution import TABLE
from weighbridge.views import channel_attribution, heatmap, tensor_attribution
from weighbridge.views.colours import Theme

_HEIGHT = 560
"""Pixels of the weights' map."""


def attribution_tab(report: Report, theme: Theme) -> Any:
    """An input and a tensor to choose: the contributions of all tensors, and this one's channels and weights.

    A line where the report has none.
    """
    inputs = load_inputs(report.folder)
    if inputs is None or report.table(TABLE).empty:
        return html("<p class='note'>no attribution to weights; save_saliency(weights=...) writes it</p>", theme)
    found = report.attribution_to_weights()
    of = panel.widgets.Select(name="input", options={label: i for i, label in enumerate(inputs.labels)}, width=260)
    which = panel.widgets.Select(name="tensor", options=list(found.tensors), width=260)

    def bars(index: int, tensor: str) -> Any:
        beside = channel_attribution(found, tensor, index, theme=theme, width=None)
        return side_by_side(holoviews.Layout([tensor_attribution(found, index, theme=theme, width=None), beside]))

    def weights(tensor: str) -> Any:
        said = f"{tensor}: w ∂f/∂w of each weight, the mean over all inputs"
        drawn = heatmap(open_source({tensor: found.weights[tensor]})[tensor], theme=theme)
        return panel.Column(
            html(f"<p class='note'>{escape(said)}</p>", theme),
            pane(drawn, sizing_mode="stretch_both", margin=0),
            height=_HEIGHT,
            sizing_mode="stretch_width",
            margin=0,
        )

    return panel.Column(
        panel.Row(of, which, margin=0),
        panel.bind(bars, of, which),
        panel.bind(weights, which),
        sizing_mode="stretch_both",
        scroll=True,
        margin=0,
    )
