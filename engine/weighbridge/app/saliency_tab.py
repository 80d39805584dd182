"""Saliency on the page: an input, a method's map over it, its figures and what was stored of the method's checks."""

from html import escape
from typing import Any

import panel

from weighbridge.app.panes import pane
from weighbridge.app.style import html
from weighbridge.report import Report, SavedSaliency
from weighbridge.report.saliency import TABLE
from weighbridge.views import saliency, saliency_curves, saliency_input, saliency_randomisation
from weighbridge.views.colours import Theme
from weighbridge.views.frame import load, number
from weighbridge.views.saliency_maps import NAMES, maps

_WIDTH = 560
"""Pixels of the map with its colour bar."""
_BESIDE = 110
"""Of these, what the colour bar takes."""


def saliency_tab(report: Report, theme: Theme) -> Any:
    """The inputs and methods that a report's saliency has, one of each to choose; a line where it has none."""
    parts = list(dict.fromkeys(report.table(TABLE)["part"])) if TABLE in report.manifest.analyses else []
    if not parts:
        return html("<p class='note'>no saliency in this report; weighbridge.save_saliency writes it</p>", theme)
    held: dict[str, SavedSaliency] = {}

    def found(part: str) -> SavedSaliency:
        if part not in held:
            held[part] = report.saliency(part)
        return held[part]

    def map_of(index: int, part: str) -> Any:
        return _one(found(part), index, theme)

    def checks_of(part: str) -> Any:
        return _checks(found(part), theme)

    labels = found(parts[-1]).inputs.labels
    of = panel.widgets.Select(name="input", options={label: i for i, label in enumerate(labels)}, width=260)
    by = panel.widgets.Select(name="method", options={_named(part): part for part in parts}, value=parts[-1], width=260)
    return panel.Column(
        panel.Row(of, by, margin=0),
        panel.bind(map_of, of, by),
        panel.bind(checks_of, by),
        sizing_mode="stretch_both",
        scroll=True,
        margin=0,
    )


def _named(part: str) -> str:
    """A part as a person reads it: `grad_cam conv2` as `Grad-CAM conv2`."""
    method, _, layer = part.partition(" ")
    return f"{NAMES.get(method, method)} {layer}".rstrip()


def _one(saved: SavedSaliency, index: int, theme: Theme) -> Any:
    """An input beside its map, with the figures."""
    x, axis = saved.inputs.values, saved.inputs.channel_axis
    names = _labels(saved, index)
    drawn = [saliency(saved.result, x, index, labels=names, channel_axis=axis, theme=theme, width=_WIDTH)]
    if saved.result.values[0].ndim > 1 and x.ndim == 4:
        rows, cols = (side for i, side in enumerate(x.shape) if i not in (0, axis % x.ndim))
        height = round((_WIDTH - _BESIDE) * rows / cols)
        drawn.insert(0, saliency_input(x, index, title="input", channel_axis=axis, theme=theme, height=height))
    figures = html(_figures(saved, index), theme, width=_WIDTH, sizing_mode=None)
    return panel.FlexBox(*(pane(element) for element in drawn), figures, align_items="flex-start")


def _labels(saved: SavedSaliency, index: int) -> tuple[str, ...] | None:
    """The names of an input's tokens or columns; None where there are none, or its map has other places than these."""
    if not saved.inputs.entries:
        return None
    names, shape = saved.inputs.entries[index], saved.inputs.values.shape
    shown = maps(saved.result, shape, channel_axis=saved.inputs.channel_axis)[index].shares
    return names if shown.shape == (len(names),) else None


def _figures(saved: SavedSaliency, index: int) -> str:
    """The figures of one input's map as a table."""
    result = saved.result
    target = ", ".join(map(str, result.target[index])) or "the only output"
    lines = {"target": target, "output": number(result.output[index])}
    if result.baseline_output[index] == result.baseline_output[index]:
        lines["output of the baseline"] = number(result.baseline_output[index])
    if result.completeness_gap[index] == result.completeness_gap[index]:
        within = "within its bound" if result.converged[index] else "beyond its bound: take more steps"
        lines["completeness gap"] = f"{number(result.completeness_gap[index])}, {within}"
    lines["runs of the network"] = f"{result.steps[index]:,}"
    if saved.curves is not None:
        lines["area of deletion"] = number(saved.curves.deletion_area[index])
        lines["area of insertion"] = number(saved.curves.insertion_area[index])
    if saved.randomisation is not None:
        lines["rank correlation, all random"] = number(saved.randomisation.absolute[-1, index])
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in lines.items())
    return f"<table class='figures'>{cells}</table>"


def _checks(saved: SavedSaliency, theme: Theme) -> Any:
    """What was stored of a method's checks, over all inputs."""
    drawn = []
    if saved.curves is not None:
        curves = saliency_curves(saved.curves, theme=theme)
        drawn += list(curves) if isinstance(curves, load().Layout) else [curves]  # a grid of both would shrink
    if saved.randomisation is not None:
        drawn.append(saliency_randomisation(saved.randomisation, theme=theme))
    return panel.FlexBox(*(pane(element) for element in drawn), align_items="flex-start")
