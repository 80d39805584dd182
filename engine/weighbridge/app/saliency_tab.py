"""Saliency maps on the page: an input, and beside it what each method makes of it."""

from html import escape
from typing import Any

import panel

from weighbridge.app.style import html
from weighbridge.report import Report, StoredSaliency
from weighbridge.views import saliency, saliency_input
from weighbridge.views.colours import Theme

_SIDE = 330
Stored = dict[str, StoredSaliency]


def saliency_tab(report: Report, theme: Theme) -> Any:
    """The maps that a report holds of an input that is chosen by its caption."""
    stored = {part: report.saliency(part) for part in dict.fromkeys(report.table("saliency")["part"])}
    names = dict.fromkeys(name for held in stored.values() for name in _places(held))
    chosen = panel.widgets.Select(name="input", options=list(names), width=260)
    drawn = panel.bind(lambda name: panel.FlexBox(*_cards(stored, name, theme), margin=0), chosen)
    return panel.Column(chosen, drawn, sizing_mode="stretch_both", scroll=True, margin=0)


def _places(held: StoredSaliency) -> dict[str, int]:
    """Captions to places; captions that are not one of a kind have their place before them."""
    texts = held.captions
    return {text if texts.count(text) == 1 else f"{i}: {text}": i for i, text in enumerate(texts)}


def _cards(stored: Stored, name: str, theme: Theme) -> list[Any]:
    """The input, where it is an image, and the map of each method that has one of it."""
    of = {part: (held, _places(held)[name]) for part, held in stored.items() if name in _places(held)}
    held, index = next(iter(of.values()))
    image = held.inputs.ndim > 3
    first = [saliency_input(held.inputs, index, channel_axis=held.channel_axis, theme=theme, width=_SIDE)]
    return [
        *(_card(picture, name, theme) for picture in (first if image else [])),
        *(_card(_map(*found, theme), f"{part}: {_said(*found)}", theme) for part, found in of.items()),
    ]


def _map(held: StoredSaliency, index: int, theme: Theme) -> Any:
    return saliency(held.found, held.inputs, index, channel_axis=held.channel_axis, theme=theme, width=_SIDE)


def _card(picture: Any, text: str, theme: Theme) -> Any:
    pane = panel.pane.HoloViews(picture, linked_axes=False)
    return panel.Column(pane, html(f"<p>{escape(text)}</p>", theme), width=_SIDE)


def _said(held: StoredSaliency, index: int) -> str:
    """Target, output and completeness in a line."""
    found = held.found
    facts = [f"output {', '.join(map(str, found.target[index]))}"] if found.target.shape[1] else []
    facts.append(f"value {found.output[index]:.4g}")
    if found.completeness_gap[index] == found.completeness_gap[index]:
        gap = found.completeness_gap[index]
        within = "complete" if found.converged[index] else "not complete"
        facts += [f"baseline {found.baseline_output[index]:.4g}", f"{within}, gap {gap:.2g}"]
    runs = found.steps[index]
    return " · ".join([*facts, f"{runs:,} run{'s' if runs > 1 else ''}"])
