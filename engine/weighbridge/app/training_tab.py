"""A training on the page, recorded or being recorded: figures of tensors, gradients, groups of inputs, idle units."""

from collections.abc import Callable, Sequence
from typing import Any

import panel

from weighbridge.report import Report
from weighbridge.report.tables import parts_of
from weighbridge.views import gradient_histogram, training
from weighbridge.views.colours import Theme
from weighbridge.views.training import COLUMNS
from weighbridge.views.training_groups import group_conflicts, group_curves, group_shares, idle_units, noise_scale

_FOLLOW_MS = 1000


def training_tab(report: Report, theme: Theme) -> Any:
    """Curves of a figure by tensor or by role, and one tensor's gradients; they grow while the run writes."""
    figure = panel.widgets.Select(name="figure", options=list(COLUMNS), value="gradient_norm", width=200)
    by = panel.widgets.Select(name="a line for each", options=["tensor", "role"], width=160)
    tensor = panel.widgets.Select(name="gradients of", options=_names(report, "training"), width=320)

    def draw() -> list[Any]:
        tensor.options = _names(report, "training")
        pictures = [training(report, figure.value, by=by.value, theme=theme)]
        return [*pictures, *([gradient_histogram(report, tensor.value, theme=theme)] if tensor.value else [])]

    return _following(report, "training", (figure, by, tensor), draw)


def groups_tab(report: Report, theme: Theme) -> Any:
    """Which tensors each group of inputs moves, where groups conflict, and the noise of the gradient."""
    tensor = panel.widgets.Select(name="groups of inputs, in", options=_names(report, "training_groups"), width=320)

    def draw() -> list[Any]:
        tensor.options = _names(report, "training_groups")
        if tensor.value is None:
            return [group_shares(report, theme=theme)]
        return [
            group_conflicts(report, tensor.value, theme=theme),
            group_curves(report, name=tensor.value, theme=theme),
            group_shares(report, theme=theme),
            noise_scale(report, theme=theme),
        ]

    return _following(report, "training_groups", (tensor,), draw)


def units_tab(report: Report, theme: Theme) -> Any:
    """Units with one value throughout, and those at a bound of their activation."""
    return _following(
        report,
        "training_units",
        (),
        lambda: [idle_units(report, "dead", theme=theme), idle_units(report, "saturated", theme=theme)],
    )


def _names(report: Report, table: str) -> list[str]:
    """What has rows that are done: of groups the rows of all tensors first."""
    rows = report.table(table)
    done = rows[rows["status"] == "done"].sort_values("order", ascending=table == "training", kind="stable")
    return list(dict.fromkeys(done["name"]))


def _following(report: Report, table: str, chosen: Sequence[Any], draw: Callable[[], list[Any]]) -> Any:
    """Widgets above pictures, which are drawn anew when another value is chosen or the table has grown."""
    pictures = panel.Column(sizing_mode="stretch_width", margin=0)
    drawn: list[Any] = []

    def redraw(*_: Any) -> None:
        parts = parts_of(report.folder / "tables" / table)
        pictures.objects = [panel.pane.HoloViews(picture, linked_axes=False) for picture in draw()]
        drawn[:] = parts

    def follow() -> None:
        if parts_of(report.folder / "tables" / table) != drawn:
            redraw()

    for widget in chosen:
        widget.param.watch(redraw, "value")
    redraw()
    panel.state.add_periodic_callback(follow, _FOLLOW_MS)
    return panel.Column(panel.Row(*chosen, margin=0), pictures, sizing_mode="stretch_width")
