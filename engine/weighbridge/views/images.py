"""Images side by side: the icons of units."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.views.sheet import Sheet, arranged


def images(icons: npt.ArrayLike, *, captions: Sequence[str] = (), cols: int | None = None, title: str = "") -> Sheet:
    """Images [n, h, w, 3] in [0, 1], or grey ones [n, h, w, 1], row by row; captions under them where given.

    Raises `BadArgument` for another shape, entries outside of [0, 1] and another number of captions.
    """
    found = np.asarray(icons)
    if found.ndim != 4 or found.shape[3] not in (1, 3) or not ((found >= 0) & (found <= 1)).all():
        raise BadArgument(f"images of shape {found.shape}; expected [n, h, w, 3] or [n, h, w, 1], all in [0, 1]")
    if captions and len(captions) != len(found):
        raise BadArgument(f"{len(captions)} captions of {len(found)} images; expected as many")
    coloured = np.broadcast_to(found, (*found.shape[:3], 3))
    return Sheet(arranged(coloured, cols=cols, captions=captions), title)
