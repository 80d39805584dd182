"""Saliency maps on the page: one input by one method, and beside it the same input by every method."""

from html import escape
from typing import Any

import panel

from weighbridge.app.style import html
from weighbridge.report import Report, StoredSaliency
from weighbridge.views import saliency
from weighbridge.views.colours import Theme


def saliency_tab(report: Report, theme: Theme) -> Any:
    """The maps that a report holds; which input and which maps is chosen above them."""
    parts = list(dict.fromkeys(report.table("saliency")["part"]))
    stored = {part: report.saliency(part) for part in parts}
    maps = panel.widgets.Select(name="maps", options=parts, width=260)
    chosen = panel.widgets.Select(name="input", options=_inputs(stored[parts[0]]), width=260)
    maps.param.watch(lambda event: chosen.param.update(options=_inputs(stored[event.new])), "value")

    def drawn(part: str, index: int) -> Any:
        held = stored[part]
        picture = saliency(held.found, held.inputs, index, channel_axis=held.channel_axis, theme=theme)
        return panel.Column(
            html(f"<p>{_said(held, index)}</p>", theme), panel.pane.HoloViews(picture, linked_axes=False), margin=0
        )

    return panel.Column(panel.Row(maps, chosen, margin=0), panel.bind(drawn, maps, chosen), sizing_mode="stretch_width")


def _inputs(held: StoredSaliency) -> dict[str, int]:
    """Captions to places; captions that are not one of a kind have their place before them."""
    texts = held.captions
    return {text if texts.count(text) == 1 else f"{i}: {text}": i for i, text in enumerate(texts)}


def _said(held: StoredSaliency, index: int) -> str:
    """Target, output and completeness in a line."""
    found = held.found
    facts = [escape(held.captions[index])]
    if found.target.shape[1]:
        facts.append(f"output {', '.join(map(str, found.target[index]))}")
    facts.append(f"value {found.output[index]:.4g}")
    if found.completeness_gap[index] == found.completeness_gap[index]:
        gap = found.completeness_gap[index]
        within = "complete" if found.converged[index] else "not complete"
        facts += [f"baseline {found.baseline_output[index]:.4g}", f"{within}, gap {gap:.2g}"]
    return " · ".join([*facts, f"{found.steps[index]:,} runs"])
