"""Curves that check saliency maps: deletion and insertion, and rank correlations as parameters become random."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.errors import BadArgument
from weighbridge.views.colours import Colours, Theme, colours
from weighbridge.views.frame import WIDTH, framed, load
from weighbridge.views.picture_file import STYLE, provenance, write
from weighbridge.views.placeholder import placeholder
from weighbridge.views.saliency_maps import NAMES, FloatArray

if TYPE_CHECKING:
    from weighbridge.report.saliency import Curves, Randomisation

FORMATS = (".png", ".svg", ".pdf")

_Line = tuple[str, FloatArray, FloatArray]


@dataclass(frozen=True)
class _Panel:
    """Lines by name, and what stands about them; `ticks` replace the numbers along x."""

    title: str
    xlabel: str
    ylabel: str
    lines: list[_Line]
    ticks: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        return any(np.isfinite(values).any() for _, _, values in self.lines)


def saliency_curves(found: "Sequence[Curves] | Curves", *, theme: Theme = "light", width: int = WIDTH) -> Any:
    """Mean scores over the inputs as the highest values of each method's map go, and as they come: an `hv.Layout`.

    The legend gives the mean area. Inputs whose scores are NaN are left out of the mean.
    """
    panels = _curve_panels([*found] if isinstance(found, Sequence) else [found])
    if not any(panel.known for panel in panels):
        return placeholder("deletion and insertion: no input has scores", theme=theme, width=width)
    drawn = [_drawn(panel, theme, width // 2) for panel in panels]
    return load().Layout(drawn).cols(2).opts(toolbar=None, shared_axes=False, backend="bokeh")


def saliency_randomisation(
    found: "Sequence[Randomisation] | Randomisation", *, theme: Theme = "light", width: int = WIDTH
) -> Any:
    """Mean rank correlation of maps' magnitudes with the trained network's, as layers become random from the output.

    Inputs whose correlation is NaN are left out of the mean.
    """
    panel = _random_panel([*found] if isinstance(found, Sequence) else [found])
    if not panel.known:
        return placeholder("randomised parameters: no correlation is known", theme=theme, width=width)
    return _drawn(panel, theme, width)


def save_saliency_curves(
    curves: "Sequence[Curves]",
    randomised: "Sequence[Randomisation]",
    file: str | os.PathLike[str],
    *,
    theme: Theme = "light",
) -> None:
    """Writes deletion, insertion and randomised parameters side by side to a .png, .svg or .pdf file.

    The same results are the same bytes. Raises `BadArgument` for another kind of file and where there is nothing to
    draw, `ReportError` where the file cannot be written.
    """
    path = Path(file)
    if path.suffix.lower() not in FORMATS:
        raise BadArgument(f"{path.name}: unknown kind of picture; expected one of {', '.join(FORMATS)}")
    panels = [panel for panel in (*_curve_panels(curves), _random_panel(randomised)) if panel.known]
    if not panels:
        raise BadArgument("saliency: there are no curves to draw")
    from matplotlib import style
    from matplotlib.figure import Figure

    kind, written, paint = path.suffix[1:].lower(), io.BytesIO(), colours(theme)
    with style.context(STYLE, after_reset=True):
        figure = Figure((3.6 * len(panels), 3.8), facecolor=paint.background, layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _plot(axes, panel, paint)
        figure.savefig(written, format=kind, dpi=150, facecolor=paint.background, metadata=provenance(kind))
    write(path, written.getvalue())


def _curve_panels(results: "Sequence[Curves]") -> list[_Panel]:
    panels = []
    for which in ("deletion", "insertion"):
        lines = [_curve(one, which) for one in results]
        title = f"{which}: {lines[0][0]}" if len(lines) == 1 else f"{which}, with mean areas"
        panels.append(_Panel(title, "share of places", results[0].score if results else "", lines))
    return panels


def _curve(found: "Curves", which: str) -> _Line:
    scores, areas = getattr(found, which), getattr(found, f"{which}_area")
    known = np.isfinite(areas)
    area = f"{areas[known].mean():.3f}" if known.any() else "none"
    mean = scores[known].mean(axis=0) if known.any() else np.full(len(found.fraction), np.nan)
    return f"{NAMES.get(found.method, found.method or 'map')} {area}", found.fraction, mean


def _random_panel(results: "Sequence[Randomisation]") -> _Panel:
    lines: list[_Line] = []
    for one in results:
        known = np.isfinite(one.absolute)
        total = np.where(known, one.absolute, 0).sum(axis=1)
        mean = np.divide(total, known.sum(axis=1), out=np.full(len(total), np.nan), where=known.any(axis=1))
        lines.append((NAMES.get(one.method, one.method), np.arange(len(mean), dtype=np.float64), mean))
    ticks = ("trained", *results[0].layers) if results else ()
    title = "maps as layers become random"
    return _Panel(title, "random down to", "rank correlation", lines, ticks)


def _drawn(panel: _Panel, theme: Theme, width: int) -> Any:
    hv, paint = load(), colours(theme)
    drawn = []
    for i, (name, x, y) in enumerate(panel.lines):
        shade = paint.series[i % len(paint.series)]
        drawn.append(hv.Curve((x, y), "x", "y", label=name).opts(color=shade, line_width=2, backend="bokeh"))
    look = {"xlabel": panel.xlabel, "ylabel": panel.ylabel, "legend_position": "right", "show_legend": True}
    if panel.ticks:
        look |= {"xticks": [*enumerate(panel.ticks)], "xrotation": 30}
    return framed(hv.Overlay(drawn), panel.title, theme=theme, width=width, height=300, **look)


def _plot(axes: Any, panel: _Panel, paint: Colours) -> None:
    for i, (name, x, y) in enumerate(panel.lines):
        axes.plot(x, y, color=paint.series[i % len(paint.series)], linewidth=1.5, label=name)
    axes.set_title(panel.title, fontsize=9, color=paint.text)
    axes.set_xlabel(panel.xlabel, fontsize=8, color=paint.text)
    axes.set_ylabel(panel.ylabel, fontsize=8, color=paint.text)
    axes.set_facecolor(paint.background)
    axes.tick_params(labelsize=7, colors=paint.muted)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(paint.muted)
    if panel.ticks:
        axes.set_xticks(range(len(panel.ticks)), panel.ticks, rotation=30, ha="right", parse_math=False)
    if len(panel.lines) > 1:
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.3 if panel.ticks else -0.18), "ncols": 2}
        axes.legend(fontsize=6.5, labelcolor=paint.text, facecolor="none", edgecolor="none", **below)
