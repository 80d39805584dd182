"""What each channel of a tensor comes to: norms, extremes or means along its rows or columns."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weighbridge.report import Entry
from weighbridge.views.colours import Theme, colours
from weighbridge.views.frame import framed, load
from weighbridge.views.placeholder import placeholder

Side = Literal["row", "col"]
Quantity = Literal["l2", "absmax", "mean"]

BUCKETS = 2000
"""Buckets that channels are joined into, at most."""
OUTLIER_MEDIANS = 6
_MARKED = 200
"""Outliers that are marked, the greatest first, and as many dead channels."""
_HEIGHT = 380
_SIDES = {"row": "row", "col": "column"}
_QUANTITIES = {"l2": "L2 norm", "absmax": "greatest magnitude", "mean": "mean"}

_LARGEST = float(np.finfo(np.float32).max)
"""What is beyond float32, in which channels are kept, is drawn here."""

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def channels(
    entry: Entry,
    *,
    side: Side = "row",
    quantity: Quantity = "l2",
    order: Literal["stored", "sorted"] = "stored",
    theme: Theme = "light",
) -> Any:
    """A quantity of every row or column as an `hv.Overlay`, by index or from the greatest down.

    Beyond 2,000 channels neighbours share a bar from the least to the greatest of them, so none vanishes. Of norms the
    median and 6 medians are drawn, with the outliers beyond (the 200 greatest) and dead channels marked. A tensor whose
    channels are not kept gives a text that says so.
    """
    values = getattr(entry, f"{side}_{quantity}")
    if values is None or not len(values):
        return placeholder(f"{entry.name}: no {_SIDES[side]}s are kept: {_why(entry, side)}", theme=theme)
    hv, paint = load(), colours(theme)
    names = np.argsort(-values, kind="stable") if order == "sorted" else np.arange(len(values))
    shown = np.clip(values[names], -_LARGEST, _LARGEST)
    first, last, low, high = envelope(shown)
    bars = hv.Rectangles(
        (first, np.minimum(low, 0), last + 1, np.maximum(high, 0), first, last, low, high),
        ["left", "bottom", "right", "top"],
        ["first", "last", "least", "greatest"],
    ).opts(color=paint.accent, line_color=None, tools=["hover"], hover_tooltips=_tips(side), backend="bokeh")
    empty = np.isnan(getattr(entry, f"{side}_mean"))[names]
    layers = [bars, *(_marks(hv, shown, names, empty, paint) if quantity == "l2" else [])]
    by = " (greatest first)" if order == "sorted" else ""
    return framed(
        hv.Overlay(layers),
        f"{entry.name}: {_QUANTITIES[quantity]} of {len(values):,} {_SIDES[side]}s",
        theme=theme,
        height=_HEIGHT,
        xlabel=f"{_SIDES[side]}{by}",
        ylabel=_QUANTITIES[quantity],
        show_legend=False,
        xlim=(0, len(values)),
    )


def envelope(values: FloatArray) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
    """First and last channel, least and greatest value of at most 2,000 buckets that neighbours are joined into.

    NaN, a channel without a finite entry, counts as 0.
    """
    step = -(-len(values) // BUCKETS)
    first = np.arange(0, len(values), step)
    known = np.where(np.isnan(values), 0, values)
    last = np.minimum(first + step, len(values)) - 1
    return first, last, np.minimum.reduceat(known, first), np.maximum.reduceat(known, first)


def outliers(values: FloatArray) -> tuple[float, IntArray]:
    """The median norm of the live channels, and the channels beyond 6 medians, greatest first."""
    live = values[values > 0]
    median = float(np.median(live)) if live.size else 0.0
    beyond = np.flatnonzero(values > OUTLIER_MEDIANS * median) if median else np.zeros(0, np.int64)
    return median, beyond[np.argsort(-values[beyond], kind="stable")]


def _marks(hv: Any, values: FloatArray, names: IntArray, empty: npt.NDArray[np.bool_], paint: Any) -> list[Any]:
    """The median, the bound of outliers where there are any, outliers and dead channels.

    `names` are the channels' indices; `empty` ones have no finite entry, and are not dead.
    """
    median, beyond = outliers(values)
    dead = np.flatnonzero((values == 0) & ~empty)[:_MARKED]
    line = {"line_width": 1, "backend": "bokeh"}
    found = [hv.HLine(median).opts(color=paint.muted, **line)]
    if beyond.size:
        found.append(hv.HLine(OUTLIER_MEDIANS * median).opts(color=paint.above, line_dash="dashed", **line))
    for at, colour in ((beyond[:_MARKED], paint.above), (dead, paint.nan)):
        points = hv.Points((at + 0.5, values[at], names[at]), ["left", "norm"], "channel")
        tips = [("channel", "@channel"), ("norm", "@norm")]
        found.append(points.opts(color=colour, size=6, tools=["hover"], hover_tooltips=tips, backend="bokeh"))
    return found


def _why(entry: Entry, side: Side) -> str:
    """Why a tensor has no channels of a side: what the scan says of them, or of the whole tensor where it failed."""
    if entry["status"] != "done":
        return str(entry["reason"])
    said = (entry["reason"] or "").split("; ")
    return next((reason for reason in said if reason.startswith(f"{side}s: ")), "it has no channels")


def _tips(side: Side) -> list[tuple[str, str]]:
    return [(f"{_SIDES[side]}s", "@first – @last"), ("least", "@least"), ("greatest", "@greatest")]
