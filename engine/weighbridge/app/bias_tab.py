"""The page's tab on a gap between two groups: from the report's tables alone."""

from html import escape
from typing import Any

import panel

from weighbridge.app.panes import pane, side_by_side
from weighbridge.app.style import html
from weighbridge.report import Report
from weighbridge.views.bias import LABELS, bias, bias_interventions, bias_map, metric_of, units_of
from weighbridge.views.colours import Theme


def bias_tab(report: Report, theme: Theme) -> Any:
    """Ranked units, gap and accuracy before and after, and the map of each layer whose entries were looked at.

    Raises `ReportError` for a report without the table `bias`.
    """
    rows = report.table("bias")
    mapped = list(dict.fromkeys(rows["name"][(rows["kind"] == "layer") & (rows["grain"] == "entry")]))
    units = [bias(report, theme=theme)]
    units += [bias_map(report, layer, theme=theme) for layer in mapped if _has_units(report, layer)]
    parts = [
        html(_head(report), theme),
        side_by_side(bias_interventions(report, theme=theme)),
        html(_costs(report), theme),
    ]
    parts += [pane(element, margin=0) for element in units]
    return panel.Column(*parts, sizing_mode="stretch_both", scroll=True, margin=0)


def _share(value: float) -> str:
    return "" if value != value else f"{value:.1%}"


def _has_units(report: Report, layer: str) -> bool:
    units = units_of(report)
    return bool(((units["name"] == layer) & (units["grain"] == "entry")).any())


def _head(report: Report) -> str:
    analysis = report.manifest.analyses["bias"]
    options, units = analysis.options, units_of(report)
    groups = " and ".join(f"{escape(name)} ({size:,})" for name, size in options["groups"].items())
    named = int(units["named"].fillna(False).sum())
    significant = int((units["p"] <= options["level"]).sum())
    said = (
        f"<p>{escape(metric_of(report))}, {groups}: <b>{significant:,}</b> of {len(units):,} units are significant at "
        f"{options['level']:g}, <b>{named:,}</b> are named.</p>"
    )
    notes = "".join(f"<p class='note'>{escape(note)}</p>" for note in options.get("notes", ()))
    unfinished = "" if analysis.status == "complete" else "<p class='note'>The analysis has not finished.</p>"
    return said + unfinished + notes


def _costs(report: Report) -> str:
    """What every intervention does, in figures."""
    rows = report.table("bias_interventions")
    rows = rows[rows["part"].isin(["validation", "held_out"])]
    lines = "".join(
        f"<tr><td>{escape(row['part'].replace('_', ' '))}</td><td>{LABELS[row['name']]}</td><td>{row['units']:,}</td>"
        f"<td>{row['gap']:.4g}</td><td>{_share(row['removed'])}</td><td>{_share(row['accuracy'])}</td></tr>"
        for row in rows.to_dict("records")
    )
    titles = "<tr><th>split</th><th>change</th><th>units</th><th>gap</th><th>removed</th><th>accuracy</th></tr>"
    return f"<table class='figures'>{titles}{lines}</table>" if lines else ""
