"""How the page looks: one style sheet in the colours of a theme, given to every part that has text of its own."""

from functools import cache
from pathlib import Path
from typing import Any

import panel

from weighbridge.views.colours import Theme, colours

_SHEET = Path(__file__).with_name("page.css")
_VARIABLES = ("background", "surface", "text", "muted", "grid", "accent")


@cache
def sheet(theme: Theme) -> str:
    """The style sheet of a theme."""
    paint = colours(theme)
    variables = "; ".join(f"--{name}: {getattr(paint, name)}" for name in _VARIABLES)
    return f":root, :host {{ {variables}; color-scheme: {theme} }}\n{_SHEET.read_text('utf-8')}"


def html(markup: str, theme: Theme, **options: Any) -> Any:
    """Markup of our own, in which whatever comes from a file has been escaped."""
    return panel.pane.HTML(
        markup, stylesheets=[sheet(theme)], **{"sizing_mode": "stretch_width", "margin": 0} | options
    )
