"""What stands behind a gap between two groups, from a report: ranked units, gap before and after, places of a map."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.report import Report
from weighbridge.views.colours import Theme, colours
from weighbridge.views.frame import framed, load
from weighbridge.views.placeholder import placeholder

if TYPE_CHECKING:
    import pandas as pd

LABELS = {"none": "as it is", "ablate": "set to zero", "rescale": "rescaled", "mean": "mean-replaced"}
_LINE = 19
"""Pixels of a unit's line."""
_SIDE = 420

FloatArray = npt.NDArray[np.float64]


class Maps(NamedTuple):
    """Of a layer's single entries: parts of the gap summed over channels, and significant entries, at each place."""

    attribution: FloatArray
    significant: npt.NDArray[np.int64]


def units_of(report: Report) -> "pd.DataFrame":
    """The rows of units, those of sites left out, most of the gap first."""
    rows = report.table("bias")
    return rows[rows["rank"].notna()].sort_values("rank", kind="stable").reset_index(drop=True)


def bias(report: Report, *, top: int = 24, theme: Theme = "light") -> Any:
    """The units that make the gap, ranked, with their intervals, as an `hv.Overlay`.

    Filled points are of the named set. The bars are intervals; the two grey ticks of a unit are where its part of the
    gap becomes significant among all units. A report without units gives a text. Raises `ReportError` without it.
    """
    rows = units_of(report)
    if rows.empty:
        return placeholder("bias: no unit has been attributed a part of the gap", theme=theme)
    hv, paint = load(), colours(theme)
    shown = rows.head(top)
    y = np.arange(len(shown))[::-1].astype(float)
    found, low, high, limit = (shown[c].to_numpy(float) for c in ("attribution", "low", "high", "threshold"))
    named = shown["named"].fillna(False).to_numpy(bool)
    axes = ["attribution", "unit"]
    bars = hv.Segments((low, y, high, y), ["x0", "y0", "x1", "y1"]).opts(color=paint.series[0], line_width=2)
    sides = np.concatenate([limit, -limit])
    ticks = hv.Segments(
        (sides, np.tile(y, 2) - 0.35, sides, np.tile(y, 2) + 0.35), ["x0", "y0", "x1", "y1"], label="significance"
    ).opts(color=paint.muted, line_width=1.5)
    layers = [hv.VLine(0).opts(color=paint.grid, line_width=1), ticks, bars]
    names = shown["name"].to_numpy(object), shown["part"].to_numpy(object), shown["p"].to_numpy(float)
    for chosen, label, fill in ((named, "named", paint.series[1]), (~named, "others", paint.background)):
        if chosen.any():
            data = (found[chosen], y[chosen], *(column[chosen] for column in names))
            points = hv.Points(data, axes, ["layer", "part", "p"], label=label)
            edge = paint.series[1] if label == "named" else paint.series[0]
            layers.append(points.opts(size=8, fill_color=fill, line_color=edge, line_width=2, tools=["hover"]))
    texts = [f"{name} : {part}" for name, part in zip(*names[:2], strict=True)]
    beyond = f", the first {len(shown)}" if len(shown) < len(rows) else ""
    return framed(
        hv.Overlay(layers),
        f"{report.manifest.source}: parts of the gap of {len(rows):,} units{beyond}",
        theme=theme,
        height=len(shown) * _LINE + 110,
        xlabel=f"part of the gap ({metric_of(report)})",
        ylabel="",
        yticks=[*zip(y.tolist(), texts, strict=True)],
        ylim=(-0.8, len(shown) - 0.2),
        show_legend=True,
        legend_position="bottom_right",
    )


def metric_of(report: Report) -> str:
    """What the gap is a difference of."""
    return str(report.manifest.analyses["bias"].options["metric"]).replace("_", " ")


def bias_interventions(report: Report, *, split: str = "held_out", theme: Theme = "light") -> Any:
    """Gap and accuracy of a split before and after each intervention, with their intervals, as an `hv.Layout`.

    A report without outcomes gives a text. Raises `BadArgument` for an unknown split, `ReportError` without the table.
    """
    if split not in ("validation", "held_out"):
        raise BadArgument(f"split {split!r}; expected validation or held_out")
    rows = report.table("bias_interventions")
    rows = rows[rows["part"] == split]
    if rows.empty:
        return placeholder("bias: gap and accuracy were not reached", theme=theme)
    hv = load()
    where = {"held_out": "inputs held out", "validation": "inputs of the validation"}[split]
    panels = [_bars(hv, rows, "gap", f"Gap on {where}", metric_of(report), theme)]
    if rows["accuracy"].notna().any():
        of = report.manifest.analyses["bias"].options["accuracy_of"] or "both groups"
        panels.append(_bars(hv, rows, "accuracy", f"Accuracy on {where}", f"accuracy ({of})", theme))
    return hv.Layout(panels).opts(toolbar=None, shared_axes=False)


def _bars(hv: Any, rows: "pd.DataFrame", column: str, title: str, label: str, theme: Theme) -> Any:
    paint = colours(theme)
    texts = [LABELS[name] for name in rows["name"]]
    x = np.arange(len(rows)).astype(float)
    value, low, high = (rows[f"{column}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
    points = hv.Points((x, value), ["x", column])
    bars = hv.Segments((x, low, x, high), ["x0", "y0", "x1", "y1"])
    before = hv.HLine(value[0]).opts(color=paint.muted, line_dash="dashed", line_width=1)
    layers = [before, bars.opts(color=paint.series[0], line_width=3)]
    layers.append(points.opts(size=10, color=paint.series[1], tools=["hover"]))
    if column == "gap":
        layers.insert(0, hv.HLine(0).opts(color=paint.grid, line_width=1))
    return framed(
        hv.Overlay(layers),
        title,
        theme=theme,
        width=_SIDE,
        height=300,
        xlabel="",
        ylabel=label,
        xticks=[*zip(x.tolist(), texts, strict=True)],
        xlim=(-0.5, len(rows) - 0.5),
        padding=0.1,
    )


def maps_of(report: Report, layer: str, channel: int | None = None) -> Maps:
    """Parts of the gap at each place of a layer's map, over all channels or of one.

    Raises `BadArgument` for a layer whose single entries were not looked at.
    """
    rows = report.table("bias", lists=True)
    rows = rows[(rows["grain"] == "entry") & rows["place"].notna()]
    own = rows[(rows["name"] == layer) & (rows["kind"] == "layer")]
    own = own if channel is None else own[own["channel"] == channel]
    if own.empty:
        known = ", ".join(dict.fromkeys(rows["name"][rows["kind"] == "layer"])) or "none; give positions to bias"
        raise BadArgument(
            f"no single entries of layer {layer!r}{'' if channel is None else f', channel {channel}'}; {known}"
        )
    places = np.stack(own["place"].to_list()).astype(int)
    shape = tuple(places.max(axis=0) + 1)
    level = report.manifest.analyses["bias"].options["level"]
    found, many = np.zeros(shape), np.zeros(shape, np.int64)
    np.add.at(found, tuple(places.T), own["attribution"].to_numpy(float, na_value=np.nan))
    np.add.at(many, tuple(places.T), (own["p"].to_numpy(float, na_value=np.nan) <= level).astype(np.int64))
    if found.ndim == 1:
        return Maps(found[None], many[None])
    return Maps(found.reshape(len(found), -1), many.reshape(len(found), -1))


def bias_map(report: Report, layer: str, *, channel: int | None = None, theme: Theme = "light") -> Any:
    """Which places of a layer's map make the gap: a cell a place, all channels' parts added up, or of one.

    The number in a cell is how many of its entries are significant. Raises what `maps_of` does.
    """
    hv, paint = load(), colours(theme)
    found = maps_of(report, layer, channel)
    rows, cols = found.attribution.shape
    limit = float(np.nanmax(np.abs(found.attribution), initial=0.0)) or 1.0
    at = np.arange(cols), np.arange(rows)
    box = (-0.5, -0.5, cols - 0.5, rows - 0.5)
    image = hv.Image((*at, found.attribution), ["column", "row"], "part of the gap", bounds=box)
    of = "all channels" if channel is None else f"channel {channel}"
    cells = [(x, y, str(n)) for (y, x), n in np.ndenumerate(found.significant) if n]
    layers = [image.opts(cmap=list(paint.diverging), clim=(-limit, limit), colorbar=True, tools=["hover"])]
    if rows <= 16 and cols <= 16 and cells:
        strong = np.abs(found.attribution) > 0.55 * limit
        for shade, chosen in ((paint.text, False), (paint.background, True)):
            texts = [cell for cell in cells if strong[cell[1], cell[0]] == chosen]
            if texts:
                drawn = hv.Labels(texts, ["column", "row"], "significant")
                layers.append(drawn.opts(text_color=shade, text_font_size="9pt"))
    side = max(240, round(_SIDE * rows / cols))
    return framed(
        hv.Overlay(layers),
        f"{layer}, {of}: parts of the gap, significant entries",
        theme=theme,
        width=_SIDE + 120,
        height=min(side, 2 * _SIDE) + 60,
        invert_yaxis=True,
        xticks=[*range(0, cols, -(-cols // 16))],
        yticks=[*range(0, rows, -(-rows // 16))],
    )
