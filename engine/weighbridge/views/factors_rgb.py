"""The kernels of many units at a glance: three groups of inputs as red, green and blue."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.views.kernels import FloatArray, checked
from weighbridge.views.sheet import Sheet, arranged

_QUANTILE = 0.99


def factors_rgb(
    spatial: npt.ArrayLike,
    *,
    units: Sequence[int] | None = None,
    limit: float | None = None,
    cols: int | None = None,
    captions: Sequence[str] | None = None,
    title: str = "",
) -> Sheet:
    """A coloured picture for each unit, from its `spatial` weights [units, h, w, 3] on three factors.

    Grey is no weight; the first factor excites in red, the second in green, the third in blue, and inhibits in the
    opposite colour: `0.5 + spatial / (2 limit)`. `limit` is by default the 0.99 quantile of the magnitudes. Factors
    are those of `weighbridge.analyses.weight_factors`. Captions are by default none, for there are many; hovering
    tells a unit and what it has of each factor. Raises `BadArgument` for another shape or number of units.
    """
    found = checked(spatial, "[units, h, w, 3]")
    names = list(units) if units is not None else list(range(len(found)))
    if found.shape[3] != 3 or len(names) != len(found):
        raise BadArgument(f"{len(names)} units of weights {found.shape}; expected as many [units, h, w, 3]")
    tiles = arranged(rgb(found, limit), cols=cols, captions=captions or [""] * len(found))
    says = map(_says, names, found)
    return Sheet(tuple(tile._replace(says=text) for tile, text in zip(tiles, says, strict=True)), title)


def rgb(spatial: FloatArray, limit: float | None = None) -> FloatArray:
    """Colours in [0, 1] of signed weights [..., 3], grey for none."""
    end = limit or float(np.nanquantile(np.abs(spatial), _QUANTILE)) or float(np.nanmax(np.abs(spatial))) or 1.0
    return np.clip(0.5 + spatial / (2 * end), 0, 1)


def _says(unit: int, spatial: FloatArray) -> str:
    parts = np.sqrt(np.square(spatial).sum(axis=(0, 1)))
    return f"unit {unit}: red {parts[0]:.3g}, green {parts[1]:.3g}, blue {parts[2]:.3g}"
