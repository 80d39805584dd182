"""How much the heads, or the experts, of one matrix have in common."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from weighbridge.views.colours import Theme, colours
from weighbridge.views.frame import framed, load, number
from weighbridge.views.placeholder import placeholder

_SIDE = 420


def overlaps(row: Mapping[str, Any], *, theme: Theme = "light") -> Any:
    """Mean squared cosine of the principal angles between parts, from a row of the table `relations`.

    An `hv.Image` of part by part, from 0 to 1; the title says what spaces in random position would have. A matrix
    without parts gives a text.
    """
    if row["status"] != "done" or row.get("part_overlap") is None:
        return placeholder(
            f"{row['name']}: {row['reason'] or 'has no heads or experts that are told apart'}", theme=theme
        )
    hv, paint = load(), colours(theme)
    count = int(row["parts"])
    values = np.asarray(row["part_overlap"], np.float64).reshape(count, count)
    bounds = (-0.5, -0.5, count - 0.5, count - 0.5)
    image = hv.Image(values[::-1], bounds=bounds, kdims=["part", "other"], vdims="overlap")
    return framed(
        image,
        f"overlap of {count} parts, {number(row['part_overlap_expected'])} at random",
        theme=theme,
        width=_SIDE + 80,
        height=_SIDE,
        cmap=list(paint.sequential),
        clim=(0, 1),
        colorbar=True,
        tools=["hover"],
        invert_yaxis=True,
    )
