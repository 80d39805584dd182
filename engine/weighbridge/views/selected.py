"""Some rows or columns of a matrix under each other, by name."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge.views.colours import Theme, colours
from weighbridge.views.frame import framed, load
from weighbridge.views.placeholder import placeholder

_CELLS = 1000
"""Across, at most."""
_NAMED = 60
_WIDTH = 620
_LINE = 14
_CLEAR = 0.995


def selected(lines: npt.NDArray[Any], names: Sequence[str], *, title: str = "", theme: Theme = "light") -> Any:
    """Lines [m, d] of a matrix as an `hv.Image`, the first on top, each called by its name up to 60 of them.

    Beyond 1,000 entries a cell shows the entry of greatest magnitude of several. Colours are symmetric about zero, up
    to the 0.995 quantile of the magnitudes. No lines give a text.
    """
    if not lines.size:
        return placeholder("nothing is selected", theme=theme, width=_WIDTH)
    hv, paint = load(), colours(theme)
    cells = signed_absmax(lines, _CELLS)
    finite = np.abs(cells[np.isfinite(cells)])
    limit = (float(np.quantile(finite, _CLEAR)) or float(finite.max()) or 1.0) if finite.size else 1.0
    m, d = lines.shape
    image = hv.Image(cells[::-1], ["entry", "line"], "value", bounds=(0, 0, d, m))
    ticks = [(i + 0.5, name[:24]) for i, name in enumerate(names)] if m <= _NAMED else 0
    return framed(
        image,
        title,
        theme=theme,
        width=_WIDTH,
        height=110 + max(_LINE * min(m, _NAMED), 60),
        cmap=list(paint.diverging),
        clim=(-limit, limit),
        clipping_colors={"min": paint.below, "max": paint.above, "NaN": paint.nan},
        colorbar=True,
        invert_yaxis=True,
        yticks=ticks,
        tools=["hover"],
        xlabel="entry",
        ylabel="",
    )


def signed_absmax(lines: npt.NDArray[Any], most: int) -> npt.NDArray[np.float64]:
    """Of every few entries of a line that of greatest magnitude, so that at most so many are left."""
    step = -(-lines.shape[1] // most)
    padded = np.pad(lines.astype(np.float64), [(0, 0), (0, -lines.shape[1] % step)])
    groups = padded.reshape(len(lines), -1, step)
    at = np.abs(groups).argmax(axis=2, keepdims=True)
    found: npt.NDArray[np.float64] = np.take_along_axis(groups, at, axis=2)[:, :, 0]
    return found
