"""A heatmap as a file for a paper: PNG, or SVG and PDF with the map as a picture and everything else as lines."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.checkpoints.protocol import Tensor
from weighbridge.errors import BadArgument, ReportError
from weighbridge.pyramid.matrix import Matrix
from weighbridge.views.colours import Colours, Theme, colours
from weighbridge.views.heatmap import prepared
from weighbridge.views.window import MEANINGS, Picture, Range, Reduction, picture, window

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
_DPI = 150
_MAP_SHARE = 0.72, 0.84
"""About how much of the figure's width and height the map itself takes."""


def snapshot(
    tensor: Tensor | Matrix,
    file: str | os.PathLike[str],
    *,
    size: tuple[int, int] = (1200, 900),
    rows: Range | None = None,
    cols: Range | None = None,
    reduction: Reduction = "absmax",
    limit: float | None = None,
    theme: Theme = "light",
) -> None:
    """Writes a heatmap of a tensor, or of a window of it, to a .png, .svg or .pdf file.

    `size` is width and height in pixels; `rows` and `cols` are ranges of entries, end excluded. The map shows what
    `heatmap` shows. Raises `BadArgument` for another kind of file, a window outside of the tensor or a size beyond
    64 ... 8,192 pixels, `ReportError` where the file cannot be written.
    """
    path = Path(file)
    if path.suffix.lower() not in FORMATS:
        raise BadArgument(f"{path.name}: unknown kind of picture; expected one of {', '.join(FORMATS)}")
    drawn = _rendered(tensor, path.suffix[1:].lower(), size, rows, cols, reduction, limit, theme)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(drawn)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ReportError(f"{path}: cannot be written: {error.strerror or error}; choose another place") from error


def png(tensor: Tensor | Matrix, *, size: tuple[int, int] = (1200, 900), theme: Theme = "light") -> bytes:
    """The whole tensor as the bytes of a PNG; see `snapshot`."""
    return _rendered(tensor, "png", size, None, None, "absmax", None, theme)


def _rendered(
    tensor: Tensor | Matrix,
    kind: str,
    size: tuple[int, int],
    rows: Range | None,
    cols: Range | None,
    reduction: Reduction,
    limit: float | None,
    theme: Theme,
) -> bytes:
    if not all(64 <= side <= 8192 for side in size):
        raise BadArgument(f"size {size[0]} × {size[1]}; expected 64 to 8,192 pixels a side")
    if limit is not None and not 0 < limit < np.inf:
        raise BadArgument(f"limit {limit!r}; expected a positive number")
    matrix = prepared(tensor) if isinstance(tensor, Tensor) else tensor
    for asked, extent, what in ((rows, matrix.shape[0], "rows"), (cols, matrix.shape[1], "columns")):
        if asked is not None and not 0 <= asked[0] < asked[1] <= extent:
            raise BadArgument(f"{what} {asked[0]:g}:{asked[1]:g}; {matrix.name} has {extent:,}, give low:high in them")
    width, height = (int(side * share) for side, share in zip(size, _MAP_SHARE, strict=True))
    found = picture(matrix, window(matrix, rows, cols, height, width), reduction)
    figure = _figure(matrix, found, found.limit if limit is None else limit, size, colours(theme))
    written = io.BytesIO()
    figure.savefig(written, format=kind, dpi=_DPI, facecolor=figure.get_facecolor(), metadata=_provenance(kind))
    return written.getvalue()


def _provenance(kind: str) -> dict[str, Any]:
    """Two snapshots of the same weights are the same bytes: no date."""
    return {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})


def _figure(matrix: Matrix, found: Picture, limit: float, size: tuple[int, int], paint: Colours) -> "Figure":
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "weighbridge", "svg.fonttype": "none"}):
        figure = Figure((size[0] / _DPI, size[1] / _DPI), facecolor=paint.background, layout="constrained")
        axes = figure.add_subplot(facecolor=paint.background)
        image = axes.imshow(found.values, _colour_map(paint), vmin=-limit, vmax=limit, **_placed(found))
        _draw_flags(axes, found, paint)
        _label(axes, matrix, found, paint)
        bar = figure.colorbar(image, ax=axes, pad=0.02, fraction=0.05, extend=_extend(found, limit))
        bar.ax.tick_params(labelsize=8, colors=paint.text)
        bar.set_label(MEANINGS[found.reduction], color=paint.text, fontsize=9)
        bar.outline.set_edgecolor(paint.grid)
    return figure


def _placed(found: Picture) -> dict[str, Any]:
    """Cells in entries, those at the matrix's end in their full size."""
    at, (down, across) = found.window, found.window.shape
    right, bottom = at.cols[0] + across * at.cell[1], at.rows[0] + down * at.cell[0]
    return {"extent": (at.cols[0], right, bottom, at.rows[0]), "aspect": "auto", "interpolation": "nearest"}


def _colour_map(paint: Colours) -> Any:
    from matplotlib.colors import ListedColormap

    made = ListedColormap(list(paint.diverging))
    return made.with_extremes(under=paint.below, over=paint.above, bad=paint.nan)


def _draw_flags(axes: Any, found: Picture, paint: Colours) -> None:
    from matplotlib.colors import ListedColormap

    if found.nan.any() or found.inf.any():
        flags = np.ma.masked_equal(np.where(found.inf, 2, np.where(found.nan, 1, 0)), 0)
        axes.imshow(flags, ListedColormap([paint.nan, paint.inf]), vmin=1, vmax=2, **_placed(found))


def _label(axes: Any, matrix: Matrix, found: Picture, paint: Colours) -> None:
    at = found.window
    block = "each weight" if at.cell == (1, 1) else f"blocks of {at.cell[0]} × {at.cell[1]}"
    axes.set_title(f"{matrix.name}   {matrix.shape[0]:,} × {matrix.shape[1]:,}, {block}", fontsize=9, color=paint.text)
    axes.set(xlim=at.cols, ylim=at.rows[::-1])
    axes.set_xlabel("column", fontsize=9, color=paint.text)
    axes.set_ylabel("row", fontsize=9, color=paint.text)
    axes.tick_params(labelsize=8, colors=paint.text)
    for spine in axes.spines.values():
        spine.set_edgecolor(paint.grid)


def _extend(found: Picture, limit: float) -> str:
    """Which ends of the colour bar have cells beyond them."""
    with np.errstate(invalid="ignore"):
        below, above = bool((found.values < -limit).any()), bool((found.values > limit).any())
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[below, above]
