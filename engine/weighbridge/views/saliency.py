"""One input's saliency: over the image, or as a bar for each token or column, and the input as it is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.errors import BadArgument
from weighbridge.views.colours import Theme, colours
from weighbridge.views.frame import WIDTH, framed, load
from weighbridge.views.placeholder import placeholder
from weighbridge.views.saliency_maps import FloatArray, Map, blended, coloured, grey, maps, nearest, of_one, shades
from weighbridge.views.signed_bars import signed_bars

if TYPE_CHECKING:
    from weighbridge.report.saliency import Saliency

_BESIDE = 110
"""Pixels that the colour bar and the tools take of a picture's width."""


def saliency(
    found: "Saliency",
    inputs: Any,
    index: int = 0,
    *,
    labels: Sequence[str] | None = None,
    channel_axis: int = -1,
    theme: Theme = "light",
    width: int = WIDTH // 2,
) -> Any:
    """One input's map: over the image, or as a bar for each token or column, with `labels` for these.

    An `hv.Overlay` whose colour bar is in the method's own units. An input of one number is one bar. An empty result,
    and a map that is no picture, such as a volume's, give a text that says so. Raises `BadArgument` for an index out of
    range and labels of another number.
    """
    x = np.asarray(inputs)
    if not found.values.size or 0 in x.shape:
        return placeholder("saliency: there are no inputs to draw", theme=theme, width=width)
    if not 0 <= index < len(x):
        raise BadArgument(f"index is {index}; there are {len(x)} inputs, give 0 to {len(x) - 1}")
    shown = maps(found, x.shape, channel_axis=channel_axis)[index]
    title = f"{shown.title}, output {shown.output:.4g}"
    if shown.shares.ndim < 2:
        return _bars(shown, labels, title, theme, width)
    under = grey(x[index], of_one(channel_axis, x.ndim))
    if shown.shares.ndim > 2 or under.ndim != 2:
        said = f"saliency: a map {shown.shares.shape} of an input {x.shape[1:]} is no picture; draw a slice of both"
        return placeholder(said, theme=theme, width=width)
    return _picture(shown, under, title, theme, width)


def _picture(shown: Map, under: FloatArray, title: str, theme: Theme, width: int) -> Any:
    hv, paint = load(), colours(theme)
    rows, cols = under.shape
    box = {"bounds": (0, 0, cols, rows)}
    mixed = hv.RGB(blended(shown.shares, under, paint, signed=shown.signed), **box)
    value = hv.Dimension("value", range=(-shown.limit if shown.signed else 0, shown.limit))
    scale = hv.Image(nearest(shown.shares, under.shape) * shown.limit, ["column", "row"], value, **box).opts(
        cmap=shades(paint, shown.signed),
        alpha=0,  # only its colour bar and hover are seen
        colorbar=True,
        clabel="",
        tools=["hover"],
        backend="bokeh",
    )
    bare = {"xaxis": None, "yaxis": None}
    return framed(
        mixed * scale, title, theme=theme, width=width, height=round((width - _BESIDE) * rows / cols) + 40, **bare
    )


def _bars(shown: Map, labels: Sequence[str] | None, title: str, theme: Theme, width: int) -> Any:
    values = np.atleast_1d(shown.shares) * shown.limit
    names = [str(i) for i in range(len(values))] if labels is None else list(labels)
    if len(names) != len(values):
        raise BadArgument(f"labels has {len(names)} entries; expected {len(values)}, one for each")
    distinct = names if len(set(names)) == len(names) else [f"{i} {name}" for i, name in enumerate(names)]
    return signed_bars(distinct, values, title, "contribution", theme=theme, width=width)


def saliency_input(
    inputs: Any,
    index: int = 0,
    *,
    title: str = "input",
    channel_axis: int = -1,
    theme: Theme = "light",
    height: int = 340,
) -> Any:
    """An input of a batch of images as it is looked at, from its least value to its greatest, `height` pixels high."""
    x = np.asarray(inputs)
    if x.ndim not in (3, 4) or 0 in x.shape:
        return placeholder("the input is no image", theme=theme, width=height)
    picture = coloured(x[index], of_one(channel_axis, x.ndim))
    rows, cols = picture.shape[:2]
    shown = load().RGB(picture, bounds=(0, 0, cols, rows))
    bare = {"xaxis": None, "yaxis": None, "toolbar": None}
    return framed(shown, title, theme=theme, width=round(height * cols / rows), height=height + 40, **bare)
