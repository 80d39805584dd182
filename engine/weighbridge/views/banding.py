"""Whether the kernels of layers are striped: weight banding, layer by layer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge.views.colours import Theme, colours
from weighbridge.views.frame import framed, load
from weighbridge.views.kernels import checked
from weighbridge.views.placeholder import placeholder
from weighbridge_kernels.weight_banding import WeightBanding, weight_banding

_HEIGHT = 380
_SPREAD = 0.3
"""Half the width that the points of a layer take, of what there is between two."""


def banding(kernels: Mapping[str, npt.ArrayLike], *, theme: Theme = "light") -> Any:
    """The banding of every unit of kernels [h, w, in, out] by layer, and of each layer as a whole: an `hv.Overlay`.

    1 is horizontal bands, -1 vertical ones, 0 neither: `weighbridge_kernels.weight_banding`. Units of one layer are
    spread sideways in their order. Layers whose kernels are a single weight wide have none and are left out; where
    no other is left a text says so. Raises `BadArgument` for another shape.
    """
    found = {name: weight_banding(checked(kernel)) for name, kernel in kernels.items()}
    shown = {name: layer for name, layer in found.items() if not np.isnan(layer.whole)}
    if not shown:
        return placeholder("no kernel varies in space, so none is banded", theme=theme)
    hv, paint = load(), colours(theme)
    points = hv.Points(_columns(shown), ["layer", "index"], ["unit", "name"])
    tips = [("", "@name"), ("unit", "@unit"), ("banding", "@index{0.00}")]
    dots = points.opts(color=paint.accent, alpha=0.5, size=4, tools=["hover"], hover_tooltips=tips, backend="bokeh")
    bars = hv.Segments([(i - 0.4, b.whole, i + 0.4, b.whole) for i, b in enumerate(shown.values())])
    layers = [dots, bars.opts(color=paint.series[1], line_width=3, backend="bokeh")]
    layers.append(hv.HLine(0).opts(color=paint.muted, line_width=1, backend="bokeh"))
    return framed(
        hv.Overlay(layers),
        "weight banding: 1 horizontal, −1 vertical",
        theme=theme,
        height=_HEIGHT,
        xticks=list(enumerate(shown)),
        xrotation=30,
        xlabel="",
        ylabel="(variance along y − along x) / both",
        ylim=(-1.05, 1.05),
        show_legend=False,
    )


def _columns(layers: Mapping[str, WeightBanding]) -> dict[str, npt.NDArray[Any]]:
    """Points of every unit whose kernel varies: a place, a height, its number and its layer's name."""
    parts = []
    for i, (name, layer) in enumerate(layers.items()):
        units = np.flatnonzero(~np.isnan(layer.index))
        place = i + np.linspace(-_SPREAD, _SPREAD, len(layer.index))[units]
        parts.append((place, layer.index[units], units, np.full(len(units), name, object)))
    columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    return dict(zip(("layer", "index", "unit", "name"), columns, strict=True))
