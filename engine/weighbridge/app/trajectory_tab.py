"""Saved checkpoints on the page: the path of all weights in a plane, and figures of tensors over the steps."""

from typing import Any

import panel

from weighbridge.report import Report
from weighbridge.views import trajectory, trajectory_curves
from weighbridge.views.colours import Theme
from weighbridge.views.trajectory import COLUMNS


def trajectory_tab(report: Report, theme: Theme) -> Any:
    """The path, once it is known, above curves of a figure by tensor or by role."""
    figure = panel.widgets.Select(name="figure", options=list(COLUMNS), value="distance", width=200)
    by = panel.widgets.Select(name="a line for each", options=["tensor", "role"], width=160)

    def drawn(column: str, each: Any) -> Any:
        return panel.pane.HoloViews(trajectory_curves(report, column, by=each, theme=theme), linked_axes=False)

    known = "trajectory_path" in report.manifest.analyses
    path = [panel.pane.HoloViews(trajectory(report, theme=theme), linked_axes=False)] if known else []
    return panel.Column(*path, panel.Row(figure, by, margin=0), panel.bind(drawn, figure, by))
