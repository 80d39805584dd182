"""`snapshot`: a tensor of a checkpoint as a picture in a file."""

import os
from typing import Any

from weighbridge import checkpoints
from weighbridge.views.colours import Theme
from weighbridge.views.snapshot import snapshot as draw
from weighbridge.views.window import Range, Reduction


def snapshot(
    source: Any,
    tensor: str,
    file: str | os.PathLike[str],
    *,
    size: tuple[int, int] = (1200, 900),
    rows: Range | None = None,
    cols: Range | None = None,
    reduction: Reduction = "absmax",
    limit: float | None = None,
    theme: Theme = "light",
) -> None:
    """Writes a heatmap of a checkpoint's tensor, or of a window of it, to a .png, .svg or .pdf file.

    `source` is whatever `weighbridge.open` takes; see `weighbridge.views.snapshot` for the rest, and `weighbridge.view`
    to look around first. Raises `TensorNotFound` beside what opening and drawing raise.
    """
    found = checkpoints.open(source)[tensor]
    draw(found, file, size=size, rows=rows, cols=cols, reduction=reduction, limit=limit, theme=theme)
