"""The distribution of one tensor, bulk and tail at once: exact counts in bins logarithmic on both sides of 0."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.report import Entry
from weighbridge.report.scan_columns import QUANTILES
from weighbridge.views.colours import Colours, Theme, colours
from weighbridge.views.frame import WIDTH, framed, load, number
from weighbridge.views.placeholder import placeholder
from weighbridge_kernels import formats, quantizers

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

STEPS = 8
"""Bins an octave. A power of two, so that no bin parts the entries of a float32 counted by its upper 16 bits."""

_CORE_SHARE = 0.01
_MAX_OCTAVES = 32
_CORE = 1 / np.log(2)
"""Width on the axis of the linear part, in octaves: with it the scale has no kink at the threshold."""
_ZERO = _CORE / STEPS
"""Width on the axis of the bin of zeros: that of a bin of the linear part."""

_HEIGHT = 380
_HEADROOM = 4.2
"""Rows above the bars, for the names of the quantiles."""
_FEW_DECADES = 3
_LABEL_GAP = 14
"""Least distance of two upright labels, in pixels."""
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Bins:
    """How many entries lie in each bin.

    `edges` ascend, one more than `counts`, in the units of the weights; the bin of the zeros reaches from -0.0 to 0.0.
    A bin holds its edge nearer to 0 and not the other (the greatest float64 is in the last bin). Below `threshold` bins
    are equally wide; beyond it there are 8 an octave, equally wide within it.
    """

    edges: FloatArray
    counts: IntArray
    threshold: float

    @property
    def sides(self) -> FloatArray:
        """The edges on the axis."""
        return np.copysign(_distances(self.edges, self.threshold), self.edges)


def symmetric_log_bins(values: FloatArray, counts: IntArray) -> Bins:
    """Bins of a distribution from the first occupied one to the last; their counts sum to those given.

    `values` are finite, in any order. The threshold is the greatest power of two at or below the 0.01 quantile of the
    non-zero magnitudes, and at most 32 octaves below the greatest; 1 where there is none. No value gives no bin.
    """
    absmax = float(np.abs(values).max(initial=0))
    threshold = _threshold(values, counts, absmax)
    magnitudes = _magnitude_edges(threshold, absmax)
    side = np.sign(values).astype(np.int64)
    bin_ = np.minimum(np.searchsorted(magnitudes, np.abs(values), side="right"), magnitudes.size - 1)
    place = side * (bin_ + 1) + magnitudes.size
    totals = np.bincount(place, weights=counts, minlength=2 * magnitudes.size + 1).astype(np.int64)
    edges = np.concatenate([-magnitudes[::-1], [-0.0, 0.0], magnitudes])
    occupied = np.flatnonzero(totals)
    if occupied.size == 0:
        return Bins(np.empty(0), np.empty(0, np.int64), threshold)
    first, last = occupied[0], occupied[-1]
    return Bins(edges[first : last + 2], totals[first : last + 1], threshold)


def positions(weights: FloatArray, threshold: float) -> FloatArray:
    """Where weights lie on the axis, in octaves: linear to ±threshold, logarithmic beyond, odd, 0 at 0."""
    return np.sign(weights) * _distances(weights, threshold)


def levels(quantiser: str, absmax: float) -> FloatArray:
    """The values that a quantiser can give at the scale of `absmax`, ascending; for a block, that of its absmax.

    Raises `BadArgument` for an unknown quantiser.
    """
    e2m1 = np.array(quantizers.E2M1_LEVELS)
    if quantiser == "int8":
        return np.arange(-127.0, 128.0) * (absmax / 127)
    if quantiser == "fp8_e4m3":
        grid = formats.values("F8_E4M3")
        return np.unique(grid[np.isfinite(grid)] + 0.0) * (absmax / 448)
    if quantiser == "int4_32":
        return np.arange(-7.0, 8.0) * (absmax / 7)
    if quantiser == "nf4_64":
        return np.array(quantizers.NF4_LEVELS) * absmax
    if quantiser == "mxfp4_32":
        return e2m1 * (_power_of_two(absmax) / 4)
    if quantiser == "nvfp4_16":
        return e2m1 * _four_significant_bits(absmax / 6)
    known = ", ".join(["int8", "fp8_e4m3", *quantizers.BLOCK_QUANTIZERS])
    raise BadArgument(f"quantiser {quantiser!r}; expected one of {known}")


def distribution(entry: Entry, *, quantisers: Sequence[str] = (), theme: Theme = "light") -> Any:
    """The distribution of a tensor as an `hv.Overlay`.

    Bars are the finite entries, exactly counted, per octave of magnitude (`symmetric_log_bins`); dotted lines the
    extremes and the quantiles of the report; ticks below the levels of `quantisers`, those of blocks at the scale of
    the tensor's absmax. A tensor without a histogram or a finite entry gives a text that says why. Raises
    `BadArgument` for an unknown quantiser.
    """
    grids = {name: levels(name, entry["absmax"] or 0.0) for name in quantisers}
    try:
        counted = entry.distribution
    except ValueError as error:
        return placeholder(str(error if entry["status"] == "done" else entry["reason"]), theme=theme)
    if counted.count == 0:
        return placeholder(f"{entry.name}: none of its {entry['count']:,} entries is finite", theme=theme)
    plot = _Plot(entry, symmetric_log_bins(counted.values, counted.counts), len(grids), colours(theme))
    layers = [plot.bars(), *plot.marks(), *(plot.rug(i, *grid) for i, grid in enumerate(grids.items()))]
    return framed(load().Overlay(layers), _title(entry), theme=theme, height=_HEIGHT, **plot.axes())


class _Plot:
    """Places of everything on the axes: bars between `floor` and `top`, labels above, a row for each rug below."""

    def __init__(self, entry: Entry, bins: Bins, rugs: int, c: Colours) -> None:
        self.entry, self.bins, self.c = entry, bins, c
        self.density = bins.counts / np.diff(bins.sides)
        occupied = self.density[self.density > 0]
        self.floor, self.top = occupied.min() / 2, occupied.max() * 1.2
        self.row = (self.top / self.floor) ** 0.06
        self.left, self.right = bins.sides[0] - 0.4, bins.sides[-1] + 0.4
        self.bottom = self.floor / self.row**rugs

    def bars(self) -> Any:
        hv, bins = load(), self.bins
        kept = bins.counts > 0
        spans = [_span(low, high) for low, high in pairwise(bins.edges)]
        zeros = np.array([low == high for low, high in pairwise(bins.edges)])
        data = {
            "x0": bins.sides[:-1][kept],
            "y0": np.full(kept.sum(), self.floor),
            "x1": bins.sides[1:][kept],
            "y1": self.density[kept],
            "weights": np.array(spans)[kept],
            "entries": bins.counts[kept],
            "colour": np.where(zeros, self.c.series[4], self.c.accent)[kept],
        }
        bars = hv.Rectangles(data, ["x0", "y0", "x1", "y1"], ["weights", "entries", "colour"])
        tooltips = [("weights", "@weights"), ("entries", "@entries{0,0}")]
        style = {"color": "colour", "line_width": 0, "tools": ["hover"], "hover_tooltips": tooltips}
        return bars.opts(**style, backend="bokeh")

    def marks(self) -> Iterator[Any]:
        """A line at each quantile, and the names of those that have room."""
        hv, name, weight = load(), *zip(*_quantiles(self.entry), strict=True)
        at = positions(np.array(weight), self.bins.threshold)
        lines = hv.Segments(
            (at, self.floor, at, self.top * self.row, name, list(map(number, weight))),
            ["x0", "y0", "x1", "y1"],
            ["quantile", "weight"],
        )
        style = {"line_color": self.c.muted, "line_dash": "dotted", "line_alpha": 0.8, "tools": ["hover"]}
        yield lines.opts(**style, hover_tooltips=["quantile", "weight"], backend="bokeh")
        shown = _spread(at, (self.right - self.left) * _LABEL_GAP / WIDTH)
        text = {"x": at[shown], "y": np.full(len(shown), self.top * self.row), "text": [name[i] for i in shown]}
        style = {"angle": 90, "text_align": "left", "text_baseline": "middle", "text_font_size": "8pt"}
        yield hv.Labels(text, ["x", "y"], "text").opts(**style, text_color=self.c.muted, backend="bokeh")

    def rug(self, row: int, quantiser: str, grid: FloatArray) -> Any:
        """The levels of a quantiser, as far as the axis reaches."""
        at = positions(grid, self.bins.threshold)
        at, grid = at[inside := (at > self.left) & (at < self.right)], grid[inside]
        high = self.floor / self.row ** (row + 0.25)
        low = self.floor / self.row ** (row + 0.95)
        label = quantiser if quantiser not in quantizers.BLOCK_QUANTIZERS else f"{quantiser}, scale of the absmax"
        ticks = load().Segments((at, low, at, high, grid), ["x0", "y0", "x1", "y1"], "level", label=label)
        colour = self.c.series[(row + 1) % len(self.c.series)]
        return ticks.opts(line_color=colour, line_width=1.5, show_legend=True, backend="bokeh")

    def axes(self) -> dict[str, Any]:
        """Limits, ticks and labels."""
        decades = range(math.ceil(math.log10(self.floor)), math.ceil(math.log10(self.top)))
        most = float(self.density.max())
        return {
            "xlim": (self.left, self.right),
            "ylim": (self.bottom, self.top * self.row**_HEADROOM),
            "logy": True,
            "xticks": _ticks(self.bins),
            "yticks": [(10.0**k, "10" + str(k).translate(_SUPERSCRIPTS)) for k in decades] or [(most, number(most))],
            "xlabel": "weight",
            "ylabel": "entries per octave",
            "legend_position": "bottom",
        }


def _distances(weights: FloatArray, threshold: float) -> FloatArray:
    """How far from 0 weights lie on the axis; zeros at the edge of their bin."""
    magnitude = np.abs(weights) / threshold
    beyond = _CORE + np.log2(np.maximum(magnitude, 1))
    distances: FloatArray = _ZERO / 2 + np.where(magnitude < 1, magnitude * _CORE, beyond)
    return distances


def _threshold(values: FloatArray, counts: IntArray, absmax: float) -> float:
    if absmax == 0:
        return 1.0
    order = np.argsort(np.abs(values), kind="stable")
    reached = np.cumsum(np.where(values == 0, 0, counts)[order])
    low = np.abs(values)[order][np.searchsorted(reached, _CORE_SHARE * reached[-1])]
    return _power_of_two(max(float(low), absmax * 2.0**-_MAX_OCTAVES))


def _magnitude_edges(threshold: float, absmax: float) -> FloatArray:
    """Edges above 0, the last beyond `absmax`: multiples of threshold / 8, then eight an octave."""
    octaves = max(math.frexp(absmax / threshold)[1], 0)
    steps = 1 + np.arange(STEPS) / STEPS
    logarithmic = np.multiply.outer(np.exp2(np.arange(octaves)), steps).ravel()
    with np.errstate(over="ignore"):
        edges = np.concatenate([np.arange(1, STEPS) / STEPS, logarithmic, [2.0**octaves]]) * threshold
    return np.minimum(edges, np.finfo(np.float64).max)


def _power_of_two(value: float) -> float:
    """The greatest power of two at or below a positive value; 0 for 0."""
    return math.ldexp(0.5, math.frexp(value)[1]) if value else 0.0


def _four_significant_bits(value: float) -> float:
    """To the nearest number of four significant bits, ties to even, as E4M3 has them."""
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(mantissa * 16), exponent - 4)


def _quantiles(entry: Entry) -> list[tuple[str, float]]:
    """Names and weights of the marks, those that matter most first."""
    marks = {"min": "min", "max": "max"} | {column: f"{100 * q:g} %" for column, q in QUANTILES.items()}
    marks["q50"] = "median"
    order = sorted(marks, key=lambda column: column not in ("min", "max", "q50"))
    return [(marks[column], entry[column]) for column in order]


def _spread(at: FloatArray, gap: float) -> list[int]:
    """Indices of places at least `gap` from each other; the earlier in the list wins."""
    shown: list[int] = []
    for i, place in enumerate(at):
        if all(abs(place - at[j]) >= gap for j in shown):
            shown.append(i)
    return shown


def _ticks(bins: Bins) -> list[tuple[float, str]]:
    """0 and round weights where the bins reach; their own ends where that gives fewer than two."""
    low, high = bins.edges[0], bins.edges[-1]
    magnitudes = _round_numbers(bins.threshold, max(-low, high))
    weights = np.concatenate([-magnitudes[::-1], [0.0], magnitudes])
    weights = weights[(weights >= low) & (weights <= high)]
    if weights.size < 2:
        weights = np.unique([low, high]) + 0.0  # -0.0 becomes 0.0
    return list(zip(positions(weights, bins.threshold).tolist(), map(number, weights), strict=True))


def _round_numbers(low: float, high: float) -> FloatArray:
    """Powers of ten from `low` to `high`, with 2 and 5 between where they are few and thinned where they are many."""
    if high < low:
        return np.empty(0)
    decades = np.arange(math.ceil(math.log10(low)) - 1, math.floor(math.log10(high)) + 1)
    multiples = [1, 2, 5] if decades.size <= _FEW_DECADES else [1]
    thinned = decades[:: -max(1, decades.size // 6)][::-1]
    with np.errstate(over="ignore"):
        numbers: FloatArray = np.multiply.outer(10.0**thinned, multiples).ravel()
    return numbers[(numbers >= low) & (numbers <= high)]


def _span(low: float, high: float) -> str:
    return "0" if low == high else f"{number(low)} to {number(high)}"


def _title(entry: Entry) -> str:
    shape = "×".join(str(int(side)) for side in entry["shape"]) or "scalar"
    return f"{entry.name}   {shape} {entry['dtype']}, {entry['count']:,} entries"
