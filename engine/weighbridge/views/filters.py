"""The filters that read an image, as images."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from weighbridge.views.kernels import checked
from weighbridge.views.sheet import Sheet, arranged

_QUANTILE = 0.995


def filters(
    kernel: npt.ArrayLike,
    *,
    order: Literal["stored", "norm"] = "stored",
    limit: float | None = None,
    cols: int | None = None,
    title: str = "",
) -> Sheet:
    """Every filter of a kernel [h, w, in, out]: in colours where it reads red, green and blue, on one shared scale.

    A coloured filter is `0.5 + weight / (2 limit)`, so grey is no weight and a colour is what excites; any other
    kernel shows the mean over its inputs, blue to red. `limit` is by default the 0.995 quantile of the magnitudes.
    Captions are units; `order="norm"` puts the greatest first. Raises `BadArgument` for another shape.
    """
    weights = checked(kernel)
    units = list(range(weights.shape[3]))
    sizes = np.sqrt(np.square(weights).sum(axis=(0, 1, 2)))
    if order == "norm":
        units.sort(key=lambda unit: -sizes[unit])
    coloured = weights.shape[2] == 3
    end = limit or float(np.nanquantile(np.abs(weights), _QUANTILE)) or 1.0
    pictures = 0.5 + weights / (2 * end) if coloured else weights.mean(axis=2, keepdims=True)
    shown = [pictures[..., unit] if coloured else pictures[:, :, 0, unit] for unit in units]
    tiles = arranged(shown, cols=cols, captions=map(str, units))
    named = [
        tile._replace(says=f"unit {unit}: norm {sizes[unit]:.3g}") for tile, unit in zip(tiles, units, strict=True)
    ]
    return Sheet(tuple(named), title, given_limit=limit)
