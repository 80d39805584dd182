"""How similar the neurons of a matrix are, beside what random ones would be."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge.views.channels import Side
from weighbridge.views.colours import Theme, colours
from weighbridge.views.frame import framed, load, number
from weighbridge.views.placeholder import placeholder
from weighbridge_kernels.null_similarity import NullSimilarity
from weighbridge_kernels.similar_pairs import EDGES, SimilarityCounts

FloatArray = npt.NDArray[np.float64]
_HEIGHT = 360
_SIDES = {"row": "rows", "col": "columns"}
_BOTTOM = 0.5
"""Where the logarithmic axis begins."""
_JOINED = 8
"""Bins of 1/1024 that one bar joins."""


def similarities(row: Mapping[str, Any], *, side: Side = "row", theme: Theme = "light") -> Any:
    """How many pairs of neurons have which similarity, from a row of the table `correlations`, as an `hv.Overlay`.

    Bars are exact counts, on a logarithmic axis, so that the few pairs that are alike show; the line is what as many
    pairs of random directions would give. A side that was not compared gives a text.
    """
    counts = row.get(f"{side}_distribution")
    if row["status"] != "done" or counts is None or not row[f"{side}_pairs"]:
        why = row["reason"] or f"it has no pair of {_SIDES[side]} to compare"
        return placeholder(f"{row['name']}: {why}", theme=theme)
    hv, paint = load(), colours(theme)
    edges, heights = bars(counts)
    shown = np.flatnonzero(heights)
    first, last = shown[0], shown[-1] + 1
    filled = shown[heights[shown] > 0]
    histogram = hv.Rectangles(
        (edges[filled], np.full(filled.size, _BOTTOM), edges[filled + 1], heights[filled], heights[filled]),
        ["left", "bottom", "right", "top"],
        "pairs",
    )
    layers = [histogram.opts(color=paint.accent, line_color=None, tools=["hover"], backend="bokeh")]
    expected = _expected(row, side, int(np.sum(counts)))
    if expected is not None:
        kept = expected > _BOTTOM
        middles = (edges[1:] + edges[:-1]) / 2
        line = hv.Curve((middles[kept], expected[kept]), "similarity", "pairs", label="random directions")
        layers.append(line.opts(color=paint.series[1], line_width=2, backend="bokeh"))
    facts = (
        f"{number(row[f'{side}_spread'])} rms, greatest {row[f'{side}_greatest']:.3f}, least {row[f'{side}_least']:.3f}"
    )
    return framed(
        hv.Overlay(layers),
        f"{row['name']}: {row['kind']} of {_SIDES[side]}, {facts}",
        theme=theme,
        height=_HEIGHT,
        logy=True,
        xlabel=f"{row['kind']} of two {_SIDES[side]}",
        ylabel="pairs",
        xlim=(max(edges[first] - 0.02, -1), min(edges[last] + 0.02, 1)),
        ylim=(_BOTTOM, 2 * float(heights.max())),
        legend_position="top_right",
    )


def bars(counts: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Edges and heights of bars of 8 bins of 1/1024 each."""
    linear = SimilarityCounts(np.asarray(counts, np.int64)).linear
    heights = linear.reshape(-1, _JOINED).sum(axis=1).astype(np.float64)
    return np.linspace(-1, 1, heights.size + 1), heights


def _expected(row: Mapping[str, Any], side: Side, pairs: int) -> FloatArray | None:
    """What as many pairs of random directions would give in each bar; None where these have no density."""
    length = row["cols"] if side == "row" else row["rows"]
    if length < (3 if row["kind"] == "pearson" else 2):
        return None
    expected = NullSimilarity(int(length), row["kind"]).expected_counts(pairs)
    fine = np.cumsum(np.concatenate([[0.0], expected]))
    edges = np.linspace(-1, 1, 2048 // _JOINED + 1)
    between: FloatArray = np.diff(np.interp(edges, EDGES, fine))
    return between
