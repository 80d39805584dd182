"""The factors of a unit's weights: where each is read, and the units that make it."""

import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.views.kernels import FloatArray, Icons, checked, strongest
from weighbridge.views.sheet import Sheet, Tile


def factors(
    spatial: npt.ArrayLike,
    channels: npt.ArrayLike,
    *,
    count: int = 6,
    icons: Icons | None = None,
    factor_icons: Icons | None = None,
    limit: float | None = None,
    title: str = "",
) -> Sheet:
    """A row for each factor: its spatial weights [h, w, r], its own icon, then the inputs with the most of it.

    `channels` [r, in] are non-negative; captions name an input and its share of the factor's squares. An input without
    an icon is a grey, the darker the more it has. Raises `BadArgument` for shapes that do not fit.
    """
    maps, loadings = checked(spatial, "[h, w, r]"), checked(channels, "[r, in]")
    if maps.shape[2] != len(loadings) or (loadings < 0).any():
        raise BadArgument(f"{len(loadings)} factors of {maps.shape[2]} maps; expected as many, no channel negative")
    first = 1 + bool(factor_icons)
    tiles = [Tile(row, 0, maps[:, :, row], "", f"where factor {row} is read") for row in range(len(loadings))]
    own = (factor_icons or {}).items()
    tiles += [Tile(row, 1, icon, "", f"factor {row}") for row, icon in own if 0 <= row < len(loadings)]
    for row, loading in enumerate(loadings):
        tiles += _makers(row, first, loading, count, icons or {})
    return Sheet(tuple(tiles), title, tuple(f"factor {row}" for row in range(len(loadings))), given_limit=limit)


def _makers(row: int, first: int, loading: FloatArray, count: int, icons: Icons) -> list[Tile]:
    """The inputs with the most of a factor, those with none of it left out."""
    shares = np.square(loading) / (np.square(loading).sum() or 1)
    made = []
    for col, channel in enumerate(strongest(loading, count), start=first):
        if loading[channel] > 0:
            grey = np.full((1, 1, 3), 1 - np.sqrt(shares[channel]))
            text = f"{channel}: {shares[channel]:.0%}"
            made.append(Tile(row, col, icons.get(channel, grey), text, f"input {text} of factor {row}"))
    return made
