"""Checks of saliency maps as curves: deletion and insertion, and maps as layers become random."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.views.colours import Theme, colours
from weighbridge.views.frame import WIDTH, framed, load
from weighbridge.views.placeholder import placeholder
from weighbridge.views.saliency_map import NAMES, FloatArray

if TYPE_CHECKING:
    from weighbridge.models.saliency_checks import Curves, Randomisation


def saliency_curves(found: "Sequence[Curves] | Curves", *, theme: Theme = "light", width: int = WIDTH) -> Any:
    """Mean scores over the inputs as the highest values of each method's map go, and as they come: an `hv.Layout`.

    The legend gives the mean area. Inputs whose scores are NaN are left out of the mean.
    """
    results = [*found] if isinstance(found, Sequence) else [found]
    parts = [(which, [_curve(one, which) for one in results]) for which in ("deletion", "insertion")]
    if not results or all(np.isnan(values).all() for _, lines in parts for _, _, values in lines):
        return placeholder("deletion and insertion: no input has scores", theme=theme, width=width)
    hv = load()
    panels = [
        _lines(lines, f"{which} (beside each method its area)", "share of places", results[0].score, theme, width // 2)
        for which, lines in parts
    ]
    return hv.Layout(panels).cols(2).opts(toolbar=None, shared_axes=False, backend="bokeh")


def _curve(found: "Curves", which: str) -> tuple[str, FloatArray, FloatArray]:
    scores, areas = getattr(found, which), getattr(found, f"{which}_area")
    known = np.isfinite(areas)
    area = f"{areas[known].mean():.3g}" if known.any() else "none"
    mean = scores[known].mean(axis=0) if known.any() else np.full(len(found.fraction), np.nan)
    return f"{NAMES.get(found.method, found.method or 'map')} {area}", found.fraction, mean


def saliency_randomisation(
    found: "Sequence[Randomisation] | Randomisation", *, theme: Theme = "light", width: int = WIDTH
) -> Any:
    """Mean rank correlation of maps' magnitudes with the trained network's, as layers become random from the output.

    Inputs whose correlation is NaN are left out of the mean.
    """
    results = [*found] if isinstance(found, Sequence) else [found]
    lines: list[tuple[str, FloatArray, FloatArray]] = []
    for one in results:
        known = np.isfinite(one.absolute)
        total = np.where(known, one.absolute, 0).sum(axis=1)
        mean = np.divide(total, known.sum(axis=1), out=np.full(len(total), np.nan), where=known.any(axis=1))
        lines.append((NAMES.get(one.method, one.method), np.arange(len(mean), dtype=np.float64), mean))
    if not lines or all(np.isnan(mean).all() for _, _, mean in lines):
        return placeholder("randomised parameters: no correlation is known", theme=theme, width=width)
    ticks = [(0, "trained"), *enumerate(results[0].layers, 1)]
    title = "Maps as layers become random, from the output down"
    return _lines(lines, title, "random down to", "rank correlation", theme, width, xticks=ticks, xrotation=30)


def _lines(
    lines: list[tuple[str, FloatArray, FloatArray]],
    title: str,
    xlabel: str,
    ylabel: str,
    theme: Theme,
    width: int,
    **more: Any,
) -> Any:
    hv, paint = load(), colours(theme)
    drawn = []
    for i, (name, x, y) in enumerate(lines):
        shade = paint.series[i % len(paint.series)]
        drawn.append(hv.Curve((x, y), "x", "y", label=name).opts(color=shade, line_width=2, backend="bokeh"))
    look = {"xlabel": xlabel, "ylabel": ylabel, "legend_position": "right", "show_legend": True, **more}
    return framed(hv.Overlay(drawn), title, theme=theme, width=width, height=300, **look)
