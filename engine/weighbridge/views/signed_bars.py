"""Values with a sign as bars, one below the other, in the two colours of for and against."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge.views.colours import Theme, colours
from weighbridge.views.frame import framed, load

_AROUND, _BAR, _MOST = 120, 18, 1200
"""Pixels of all but the bars, of a bar, and of the whole at most."""


def signed_bars(
    names: Sequence[str],
    values: npt.NDArray[np.floating[Any]],
    title: str,
    label: str,
    *,
    theme: Theme,
    width: int | None,
) -> Any:
    """A bar from zero for each of the distinct names, from above, as an `hv.Overlay`; NaN has none."""
    hv, paint = load(), colours(theme)
    known = np.nan_to_num(values)
    shades = [paint.series[1] if value > 0 else paint.series[0] for value in known]
    bars = hv.Bars((list(names)[::-1], known[::-1], shades[::-1]), "entry", ["value", "shade"]).opts(
        invert_axes=True, color="shade", line_color=None, tools=["hover"], show_legend=False, backend="bokeh"
    )
    height = min(_AROUND + _BAR * len(known), _MOST)
    return framed(hv.Overlay([bars]), title, theme=theme, width=width, height=height, xlabel="", ylabel=label)
