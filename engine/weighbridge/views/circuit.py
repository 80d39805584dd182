"""A circuit as a diagram: units as circles in a column a layer, lines as thick as the weight, coloured by its sign."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge.circuit import Circuit, Unit
from weighbridge.views.circuit_layout import COLUMN, Drawing, drawing
from weighbridge.views.colours import Colours, Theme, colours
from weighbridge.views.frame import framed, load, number

MOST = 60
"""Edges that are drawn by default."""
_END = 30
"""Pixels above and below the columns."""
_LINE = 26
"""Letters of a layer's name in a line."""


def circuit(
    found: Circuit, *, icons: Mapping[Unit, Any] | None = None, most: int | None = MOST, theme: Theme = "light"
) -> Any:
    """A circuit as an `hv.Overlay`, red for positive weights and blue for negative; hover tells weights and units.

    Of more than `most` edges the strongest are drawn. Units with an icon, an image [h, w, 3] in [0, 1], show it.
    """
    hv, paint = load(), colours(theme)
    icons = icons or {}
    drawn = drawing(found, most, icons)
    units = [
        (x, y, unit.layer, found.label(unit) if drawn.named else "", unit.number, 2 * drawn.radius(unit in icons))
        for unit, (x, y) in drawn.places.items()
    ]
    points = hv.Points(units, ["x", "y"], ["layer", "unit", "number", "size"]).opts(
        size="size",
        color=paint.surface,
        line_color=paint.text,
        tools=["hover"],
        hover_tooltips=[("layer", "@layer"), ("unit", "@number"), ("", "@unit")],
        backend="bokeh",
    )
    below = {unit: drawn.radius(True) + 9 if unit in icons else 0 for unit in drawn.places}
    texts = [(x, y - below[unit], found.label(unit)) for unit, (x, y) in drawn.places.items() if drawn.named]
    names = hv.Labels(texts, ["x", "y"], "unit").opts(text_color=paint.text, text_font_size="8pt", backend="bokeh")
    pictures = [_picture(hv, icons[unit], at, drawn) for unit, at in drawn.places.items() if unit in icons]
    down = drawn.height / 2 + _END
    return framed(
        hv.Overlay([*([_lines(hv, drawn, paint)] if drawn.edges else []), points, *pictures, names]),
        f"{title(found)}\n{legend(found, drawn)}",
        theme=theme,
        width=None,
        height=None,
        frame_width=int(drawn.across + 2 * drawn.side),
        frame_height=int(2 * down),
        xticks=[(column * COLUMN, folded(layer)) for column, layer in enumerate(drawn.layers)],
        yaxis=None,
        xlabel="",
        xlim=(-drawn.side, drawn.across + drawn.side),
        ylim=(-down, down),
    )


def _lines(hv: Any, drawn: Drawing, paint: Colours) -> Any:
    lines: list[dict[str, Any]] = [
        {
            "x": path[:, 0],
            "y": path[:, 1],
            "weight": edge.weight,
            "width": drawn.width(edge),
            "sign": np.sign(edge.weight),
        }
        for edge, path in reversed([*zip(drawn.edges, drawn.paths(), strict=True)])
    ]
    return hv.Path(lines, ["x", "y"], ["weight", "width", "sign"]).opts(
        color="sign",
        cmap=[paint.diverging[0], paint.diverging[-1]],
        clim=(-1, 1),
        line_width="width",
        alpha=alpha(drawn),
        tools=["hover"],
        hover_tooltips=[("weight", "@weight")],
        backend="bokeh",
    )


def _picture(hv: Any, icon: Any, at: tuple[float, float], drawn: Drawing) -> Any:
    """An icon cut to a circle."""
    (x, y), r = at, drawn.radius(True) - 1
    shown = hv.RGB(round_icon(icon), bounds=(x - r, y - r, x + r, y + r), vdims=list("RGBA"))
    return shown.opts(apply_hard_bounds=False, backend="bokeh")


def round_icon(icon: Any) -> npt.NDArray[np.float64]:
    """An image [h, w, 3] as [n, n, 4], the greatest circle in it opaque, of enough pixels for a smooth edge."""
    image = np.clip(np.asarray(icon, np.float64), 0, 1)
    side = max(min(image.shape[:2]), 96)
    rows, cols = (np.arange(side) * length // side for length in image.shape[:2])
    at = (np.arange(side) + 0.5) / side * 2 - 1
    inside = np.clip((1 - np.hypot(at[:, None], at[None])) * side / 2, 0, 1)
    return np.concatenate([image[np.ix_(rows, cols)], inside[..., None]], axis=2)


def alpha(drawn: Drawing) -> float:
    """Opacity of lines, the less the more there are."""
    return 0.3 if drawn.bundled else 0.75


def title(found: Circuit) -> str:
    """What the circuit is of."""
    return f"{found.unit.layer}, unit {found.label(found.unit)}"


def legend(found: Circuit, drawn: Drawing) -> str:
    """What lines mean, and how many of all are drawn."""
    if not drawn.edges:
        return "no weights"
    of = f"all {len(drawn.edges)}" if len(drawn.edges) == len(found.edges) else f"the {len(drawn.edges)} strongest"
    return f"{of} weights, red positive, blue negative; the thickest line is {number(drawn.strongest)}"


def folded(name: str) -> str:
    """A layer's name in lines that fit a column, cut after its dots."""
    lines = [""]
    for part in name.replace(".", ".\0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(part) > _LINE:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)
