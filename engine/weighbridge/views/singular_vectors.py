"""Which rows and columns carry the leading singular vectors of a matrix, as bars."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from weighbridge.views.colours import Theme, colours
from weighbridge.views.frame import framed, load, number
from weighbridge.views.placeholder import placeholder

Namer = Callable[[int], str]
_WIDTH, _HEIGHT = 450, 230
_SIDES = {"row": "row", "col": "column"}


def singular_vectors(row: Mapping[str, Any], *, rows: Namer = str, cols: Namer = str, theme: Theme = "light") -> Any:
    """Of a row of the table `spectra` the greatest entries of its leading singular vectors, as an `hv.Layout`.

    One line a vector, its rows on the left, its columns on the right; `rows` and `cols` give a channel's name from its
    index. Titles say its rank, its singular value σ and how many entries carry it (the participation ratio). A vector
    that equal singular values leave undetermined is not there; a matrix without any gives a text.
    """
    if row["status"] != "done" or row.get("row_carriers") is None:
        why = row["reason"] or "its leading singular values are equal, which leaves the vectors undetermined"
        return placeholder(f"{row['name']}: {why}", theme=theme)
    hv = load()
    drawn = [
        _bars(row, side, vector, namer, theme)
        for vector in range(len(row["vector_ranks"]))
        for side, namer in (("row", rows), ("col", cols))
    ]
    return hv.Layout(drawn).cols(2).opts(shared_axes=False, toolbar=None, backend="bokeh")


def _bars(row: Mapping[str, Any], side: str, vector: int, namer: Namer, theme: Theme) -> Any:
    """The carriers of one vector on one side, the greatest on top."""
    hv, paint = load(), colours(theme)
    carriers, loadings = (
        np.asarray(row[f"{side}_{what}"]).reshape(len(row["vector_ranks"]), -1)[vector]
        for what in ("carriers", "loadings")
    )
    places = np.arange(len(carriers))[::-1]
    names = [namer(int(channel)) for channel in carriers]
    low, high = np.minimum(loadings, 0), np.maximum(loadings, 0)
    bars = hv.Rectangles(
        (low, places - 0.4, high, places + 0.4, np.sign(loadings), names, loadings),
        ["left", "bottom", "right", "top"],
        ["sign", "channel", "loading"],
    )
    rank = int(row["vector_ranks"][vector])
    value = number(row["singular_values"][rank - 1])
    carried = f"{row[f'{side}_participation'][vector]:,.0f} of {row[f'{side}s']:,} {_SIDES[side]}s carry it"
    reach = 1.05 * float(np.abs(loadings).max(initial=1e-9))
    return framed(
        bars,
        f"vector {rank}, σ {value}: {carried}",
        theme=theme,
        width=_WIDTH,
        height=_HEIGHT,
        color="sign",
        cmap=[paint.diverging[0], paint.diverging[-1]],
        clim=(-1, 1),
        line_color=None,
        toolbar=None,
        tools=["hover"],
        hover_tooltips=[(_SIDES[side], "@channel"), ("entry", "@loading")],
        yticks=list(zip(places.tolist(), names, strict=True)),
        xlabel="entry of the vector",
        ylabel="",
        xlim=(-reach, reach),
    )
