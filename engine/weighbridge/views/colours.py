"""The colours of every picture: diverging maps with zero in the middle, safe for the colour-blind, light and dark.

The maps are Kovesi's (2015, "Good colour maps: how to design them", arXiv 1509.03700): perceptually uniform, blue for
negative, red for positive, white or black for zero.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

from weighbridge.errors import BadArgument

Theme = Literal["light", "dark"]
THEMES: tuple[Theme, ...] = ("light", "dark")


@dataclass(frozen=True)
class Colours:
    """What a theme paints with; all colours as `#rrggbb`.

    `below` and `above` mark entries beyond the limits of the map, `nan` and `inf` those that are no number. `series`
    tells lines apart (Okabe and Ito 2008, "Color universal design").
    """

    diverging: tuple[str, ...]
    sequential: tuple[str, ...]
    below: str
    above: str
    nan: str
    inf: str
    background: str
    surface: str
    text: str
    muted: str
    grid: str
    accent: str
    series: tuple[str, ...] = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")


@cache
def colours(theme: Theme = "light") -> Colours:
    """The colours of a theme. Raises `BadArgument` for an unknown one."""
    import colorcet

    if theme not in THEMES:
        raise BadArgument(f"theme {theme!r}; expected one of {', '.join(THEMES)}")
    if theme == "dark":
        return Colours(
            diverging=_hex(colorcet.CET_D4),
            sequential=_hex(colorcet.CET_L17)[::-1],
            below="#00e5ff",
            above="#ffc400",
            nan="#c653ff",
            inf="#7dff5a",
            background="#14161a",
            surface="#1d2026",
            text="#e6e8eb",
            muted="#9aa3ad",
            grid="#333840",
            accent="#5aa9ff",
        )
    return Colours(
        diverging=_hex(colorcet.CET_D9),
        sequential=_hex(colorcet.CET_L17),
        below="#001a66",
        above="#5c0010",
        nan="#a020f0",
        inf="#008a2e",
        background="#ffffff",
        surface="#f6f7f9",
        text="#1b1f24",
        muted="#5b6570",
        grid="#d9dde2",
        accent="#0b62c4",
    )


def categories(count: int, theme: Theme = "light") -> tuple[str, ...]:
    """Colours that tell so many kinds apart: those of lines for a few, else Glasbey's, which repeat beyond 256."""
    import colorcet

    known = colours(theme).series[:-1]
    if count > len(known):
        known = _hex(colorcet.glasbey_bw_minc_20_minl_30 if theme == "dark" else colorcet.glasbey_bw_minc_20_maxl_70)
    return tuple(known[i % len(known)] for i in range(count))


def _hex(palette: list[str] | list[list[float]]) -> tuple[str, ...]:
    return tuple(c if isinstance(c, str) else "#" + "".join(f"{round(255 * v):02x}" for v in c) for c in palette)
