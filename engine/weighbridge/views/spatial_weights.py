"""What a unit reads at each position of its kernel."""

import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.views.kernels import FloatArray, check_channels, checked, squared, strongest
from weighbridge.views.sheet import Sheet, Tile

_TOLD = 5
"""Inputs that hovering names."""


def spatial_weights(
    kernel: npt.ArrayLike,
    unit: int,
    *,
    images: npt.ArrayLike | None = None,
    limit: float | None = None,
    title: str = "",
) -> Sheet:
    """A tile for each position of a unit's kernel [h, w, in, out]: what the unit looks for there.

    With `images` [h, w, height, width, 3], such as `visualize_feature` makes of `weights_at`, these; without, the
    weights themselves, inputs row by row in a square and each in the same place at every position. Captions are L2
    norms; hovering names the strongest inputs. Raises `BadArgument` for another shape and a unit that is not there.
    """
    weights = checked(kernel)
    check_channels([unit], weights.shape[3], "unit")
    own = weights[..., unit]
    shown = None if images is None else np.asarray(images)
    if shown is not None and (shown.ndim != 5 or shown.shape[:2] != own.shape[:2]):
        raise BadArgument(f"images of shape {shown.shape}; expected {own.shape[:2]} positions of [height, width, 3]")
    tiles = []
    for y, x in np.ndindex(own.shape[:2]):
        picture = squared(own[y, x]) if shown is None else shown[y, x]
        tiles.append(Tile(y, x, picture, f"norm {np.linalg.norm(own[y, x]):.2g}", _says(own, y, x)))
    return Sheet(tuple(tiles), title, given_limit=limit)


def _says(own: FloatArray, y: int, x: int) -> str:
    told = ", ".join(f"{channel} {own[y, x, channel]:+.2g}" for channel in strongest(own[y, x], _TOLD))
    return f"row {y}, column {x}: inputs {told}"
