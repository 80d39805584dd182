"""The pictures of a gap between two groups as one figure for a paper: units, gap and accuracy, places of maps."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.errors import BadArgument
from weighbridge.report import Report
from weighbridge.views.bias import LABELS, Maps, maps_of, metric_of, units_of
from weighbridge.views.colours import Colours, Theme, colours
from weighbridge.views.picture_file import STYLE, provenance, write

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
_DPI = 150
_MAPS = 2
_LINE, _PLOT, _MAP = 0.19, 1.7, 2.4
"""Inches of a unit's line, and of the plots and maps beside them."""


def save_bias(report: Report, file: str | os.PathLike[str], *, top: int = 20, theme: Theme = "light") -> None:
    """Writes the figure of a report with a table `bias` to a .png, .svg or .pdf file; the same report, the same bytes.

    Raises `BadArgument` for another kind of file and a report without units, `ReportError` where it has no such table
    or the file cannot be written.
    """
    path = Path(file)
    if path.suffix.lower() not in FORMATS:
        raise BadArgument(f"{path.name}: unknown kind of picture; expected one of {', '.join(FORMATS)}")
    write(path, bias_picture(report, path.suffix.lower()[1:], top=top, theme=theme))


def bias_picture(report: Report, kind: str = "svg", *, top: int = 20, theme: Theme = "light") -> bytes:
    """The bytes of the figure. Raises `BadArgument` for a report without units."""
    from matplotlib import style

    rows, written = units_of(report).head(top), io.BytesIO()
    if rows.empty:
        raise BadArgument("bias: no unit has been attributed a part of the gap")
    with style.context({**STYLE, "font.size": 8, "axes.titlesize": 9}, after_reset=True):
        figure = _figure(report, rows, colours(theme))
        ground = colours(theme).background
        figure.savefig(written, format=kind, dpi=_DPI, facecolor=ground, metadata=provenance(kind))
    return written.getvalue()


def _figure(report: Report, rows: "pd.DataFrame", paint: Colours) -> "Figure":
    from matplotlib.figure import Figure

    outcomes = report.table("bias_interventions") if "bias_interventions" in report.manifest.analyses else None
    held = None if outcomes is None else outcomes[outcomes["part"] == "held_out"]
    maps = _maps(report)
    sides = [_PLOT, _PLOT, *[_MAP] * len(maps)]
    height = max(len(rows) * _LINE + 0.9, sum(sides))
    figure = Figure((9.6, height), facecolor=paint.background, layout="constrained")
    grid = figure.add_gridspec(len(sides), 2, width_ratios=[1.5, 1], height_ratios=sides)
    _units(figure.add_subplot(grid[:, 0]), rows, report, paint)
    for i, column in enumerate(("gap", "accuracy")):
        axes = figure.add_subplot(grid[i, 1])
        if held is None or held.empty or held[column].isna().all():
            axes.set_axis_off()
            axes.text(0.5, 0.5, f"{column} not known", ha="center", va="center", color=paint.muted)
            continue
        _outcomes(axes, held, column, report, paint)
    for i, (layer, found) in enumerate(maps.items()):
        _map(figure, figure.add_subplot(grid[2 + i, 1]), layer, found, paint)
    return figure


def _units(axes: Any, rows: "pd.DataFrame", report: Report, paint: Colours) -> None:
    y = np.arange(len(rows))[::-1]
    found, low, high, limit = (rows[c].to_numpy(float) for c in ("attribution", "low", "high", "threshold"))
    named = rows["named"].fillna(False).to_numpy(bool)
    axes.axvline(0, color=paint.grid, lw=1)
    for side in (limit, -limit):
        mark = axes.scatter(side, y, marker="|", s=70, color=paint.muted, lw=1)
    mark.set_label("significant beyond")
    axes.hlines(y, low, high, color=paint.series[0], lw=1.8)
    for chosen, face, edge, label in (
        (named, paint.series[1], paint.series[1], "named"),
        (~named, paint.background, paint.series[0], "not named"),
    ):
        if chosen.any():
            axes.scatter(found[chosen], y[chosen], s=26, facecolor=face, edgecolor=edge, lw=1.4, zorder=3, label=label)
    texts = [f"{name} : {part}" for name, part in zip(rows["name"], rows["part"], strict=True)]
    axes.set_yticks(y, texts)
    axes.set_ylim(-0.8, len(rows) - 0.2)
    level = report.manifest.analyses["bias"].options["level"]
    axes.set_xlabel(f"part of the gap ({metric_of(report)}), {1 - level:.0%} intervals")
    axes.set_title("Units that make the gap, ranked", color=paint.text, loc="left")
    axes.legend(loc="lower right", frameon=False, labelcolor=paint.text)
    _plain(axes, paint)


def _outcomes(axes: Any, rows: "pd.DataFrame", column: str, report: Report, paint: Colours) -> None:
    x = np.arange(len(rows))
    value, low, high = (rows[f"{column}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
    axes.axhline(value[0], color=paint.muted, lw=1, ls="--")
    if column == "gap":
        axes.axhline(0, color=paint.grid, lw=1)
    axes.vlines(x, low, high, color=paint.series[0], lw=2.5)
    axes.scatter(x, value, s=36, color=paint.series[1], zorder=3)
    axes.set_xticks(x, [LABELS[name] for name in rows["name"]])
    axes.set_xlim(-0.5, len(rows) - 0.5)
    of = report.manifest.analyses["bias"].options["accuracy_of"]
    axes.set_title(
        "Gap on inputs held out" if column == "gap" else f"Accuracy on inputs held out{f', {of}' if of else ''}",
        color=paint.text,
        loc="left",
        parse_math=False,
    )
    _plain(axes, paint)


def _map(figure: Any, axes: Any, layer: str, found: Maps, paint: Colours) -> None:
    from matplotlib.colors import ListedColormap

    limit = float(np.nanmax(np.abs(found.attribution), initial=0.0)) or 1.0
    image = axes.imshow(found.attribution, ListedColormap(list(paint.diverging)), vmin=-limit, vmax=limit)
    rows, cols = found.attribution.shape
    for (y, x), count in np.ndenumerate(found.significant):
        if count and max(rows, cols) <= 16:
            shade = paint.background if abs(found.attribution[y, x]) > 0.55 * limit else paint.text
            axes.text(x, y, str(count), ha="center", va="center", color=shade, fontsize=7)
    axes.set_xticks(range(0, cols, -(-cols // 16)))
    axes.set_yticks(range(0, rows, -(-rows // 16)))
    axes.set_title(f"{layer}: places, significant entries", color=paint.text, loc="left", parse_math=False)
    bar = figure.colorbar(image, ax=axes, fraction=0.05)
    bar.ax.tick_params(labelsize=7, colors=paint.muted)
    bar.set_label("part of the gap", color=paint.text)
    bar.outline.set_edgecolor(paint.grid)
    _plain(axes, paint)


def _plain(axes: Any, paint: Colours) -> None:
    axes.set_facecolor(paint.background)
    axes.tick_params(colors=paint.muted, labelcolor=paint.text, length=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(paint.grid)
    axes.xaxis.label.set_color(paint.text)


def _maps(report: Report) -> dict[str, Maps]:
    """Of the first layers whose single entries were looked at."""
    rows = units_of(report)
    own = rows["name"][(rows["kind"] == "layer") & (rows["grain"] == "entry")]
    return {layer: maps_of(report, layer) for layer in sorted(dict.fromkeys(own))[:_MAPS]}
