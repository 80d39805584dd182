"""What stands where there is nothing to draw: a sentence that says why."""

from textwrap import fill
from typing import Any

from weighbridge.views.colours import Theme, colours
from weighbridge.views.frame import WIDTH, framed, load

_CHARACTER = 7.5
"""Pixels a character takes at 10 points."""


def placeholder(message: str, *, theme: Theme = "light", width: int = WIDTH, height: int = 240) -> Any:
    """An overlay of one `hv.Text` without axes, its message wrapped to the width in pixels."""
    hv = load()
    text = hv.Text(0.5, 0.5, fill(message, int(width * 0.9 / _CHARACTER)))
    text = text.opts(text_color=colours(theme).muted, text_font_size="10pt", backend="bokeh")
    limits = {"xlim": (0, 1), "ylim": (0, 1), "xaxis": None, "yaxis": None, "toolbar": None}
    return framed(hv.Overlay([text]), "", theme=theme, width=width, height=height, **limits)
