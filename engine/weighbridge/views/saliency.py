"""Saliency maps over what they are of, and curves of deletion, insertion and randomised parameters.

One scale for a sheet: each method's values are in shares of its limit, the 0.995 quantile of its magnitudes, so that
the inputs of a row compare, and a colour means the same part of a method's range everywhere. Methods with signs are
drawn in the diverging map, others in the sequential one.
"""

import io
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument, ReportError
from weighbridge.views.colours import Colours, Theme, colours
from weighbridge.views.frame import WIDTH, framed, load
from weighbridge.views.placeholder import placeholder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from weighbridge.report.saliency import Curves, Randomisation, Saliency

FORMATS = (".png", ".svg", ".pdf")
_QUANTILE = 0.995
_SIDE = 190
"""Pixels of a picture in a sheet."""
_FAINT = 0.25
"""How much of the picture's range is seen below a map."""
_MOST = 8
"""Inputs in a sheet."""
_STYLE = {"svg.hashsalt": "weighbridge", "svg.fonttype": "none"}
_BESIDE = 110
"""Pixels that the colour bar and the tools take of a picture's width."""
_NAMES = {
    "gradient": "gradient",
    "input_x_gradient": "input × gradient",
    "integrated_gradients": "integrated gradients",
    "smoothgrad": "SmoothGrad",
    "grad_cam": "Grad-CAM",
    "occlusion": "occlusion",
}

FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Map:
    """One input's values by place, summed over channels, in shares of its method's limit."""

    shares: FloatArray
    name: str
    limit: float
    signed: bool
    output: float
    warning: str = ""

    @property
    def title(self) -> str:
        return f"{self.name}{' ⚠ ' + self.warning if self.warning else ''}"


def maps(found: "Saliency", shape: tuple[int, ...], *, channel_axis: int = -1) -> list[Map]:
    """The maps of all inputs of a result; `shape` is the inputs', `channel_axis` theirs.

    Images (three axes and more for each input) and tokens (two) are summed over channels; the columns of tables stay.
    """
    axis = channel_axis % len(shape)
    values = found.values
    if values.shape == tuple(shape) and len(shape) > 2:
        values = values.sum(axis=axis)
    finite = np.abs(values[np.isfinite(values)])
    limit = float(np.quantile(finite, _QUANTILE)) if finite.size else 0.0
    limit = limit or float(finite.max(initial=0.0)) or 1.0
    name = _NAMES.get(found.method, found.method)
    warned = ("" if done else "gap beyond 1 %" for done in found.converged)
    return [
        Map(value / limit, name, limit, found.signed, float(output), warning)
        for value, output, warning in zip(values, found.output, warned, strict=True)
    ]


def blended(shares: FloatArray, under: FloatArray, paint: Colours, *, signed: bool) -> npt.NDArray[np.uint8]:
    """Colours of a map times a faint picture, (height, width, 3); dark themes screen instead, so zero is the picture.

    `shares` beyond 1 keep the ends' colours; it is spread over a larger picture by its nearest entries. `under` is
    (height, width), in [0, 1]. NaN has the theme's colour for it.
    """
    spread = _nearest(shares, under.shape)
    known = np.nan_to_num(spread, nan=0.0, posinf=1.0, neginf=-1.0).clip(-1 if signed else 0, 1)
    table = _table(_shades(paint, signed))
    at = (known + 1) / 2 if signed else known
    over = table[np.rint(at * (len(table) - 1)).astype(int)]
    dark = _dark(paint)
    faint = _FAINT * (under if dark else 1 - under)[..., None]
    mixed = 1 - (1 - over) * (1 - faint) if dark else over * (1 - faint)
    mixed[np.isnan(spread)] = _table((paint.nan,))[0]
    return np.asarray(np.rint(mixed * 255), np.uint8)


def _nearest(values: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    for axis, size in enumerate(shape):
        extent = values.shape[axis]
        values = np.take(values, (2 * np.arange(size) + 1) * extent // (2 * size), axis=axis)
    return values


def _dark(paint: Colours) -> bool:
    return paint.background < "#808080"


def _shades(paint: Colours, signed: bool) -> list[str]:
    """The colour map of methods with or without signs; on a dark ground zero is dark in both."""
    if signed or not _dark(paint):
        return list(paint.diverging if signed else paint.sequential)
    table = _table(paint.sequential)
    table *= np.minimum(np.linspace(0, 4, len(table)), 1)[:, None]
    return ["#" + "".join(f"{round(255 * part):02x}" for part in shade) for shade in table]


def _table(shades: Sequence[str]) -> FloatArray:
    return np.array([[int(shade[i : i + 2], 16) for i in (1, 3, 5)] for shade in shades]) / 255


def grey(image: FloatArray, channel_axis: int = -1) -> FloatArray:
    """A picture's mean over channels, from its least finite value to its greatest as 0 to 1."""
    flat = np.asarray(image, np.float64)
    flat = flat.mean(axis=channel_axis) if flat.ndim > 2 else flat
    finite = flat[np.isfinite(flat)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    return np.asarray(np.nan_to_num(flat - low) / (high - low or 1.0)).clip(0, 1)


def saliency(
    found: "Saliency",
    inputs: Any,
    index: int = 0,
    *,
    labels: Sequence[str] | None = None,
    channel_axis: int = -1,
    theme: Theme = "light",
    width: int = WIDTH // 2,
) -> Any:
    """One input's map: over the image, or as a bar for each token or column, with `labels` for these.

    An `hv.Overlay` whose colour bar is in the method's own units. An empty result gives a text that says so.
    """
    x = np.asarray(inputs)
    if not found.values.size or 0 in x.shape:
        return placeholder("saliency: there are no inputs to draw", theme=theme, width=width)
    if not 0 <= index < len(x):
        raise BadArgument(f"index is {index}; there are {len(x)} inputs, give 0 to {len(x) - 1}")
    shown = maps(found, x.shape, channel_axis=channel_axis)[index]
    title = f"{shown.title}, output {shown.output:.4g}"
    if shown.shares.ndim == 1:
        return _bars(shown, labels, title, theme, width)
    under = grey(x[index], _of_one(channel_axis, x.ndim))
    return _picture(shown, under, title, theme, width)


def _of_one(channel_axis: int, ndim: int) -> int:
    """The channels' axis of one input, from that of a batch."""
    return channel_axis if channel_axis < 0 else channel_axis % ndim - 1


def _picture(shown: Map, under: FloatArray, title: str, theme: Theme, width: int) -> Any:
    hv, paint = load(), colours(theme)
    rows, cols = under.shape
    box = {"bounds": (0, 0, cols, rows)}
    mixed = hv.RGB(blended(shown.shares, under, paint, signed=shown.signed), **box)
    value = hv.Dimension("value", range=(-shown.limit if shown.signed else 0, shown.limit))
    scale = hv.Image(_nearest(shown.shares, under.shape) * shown.limit, ["column", "row"], value, **box).opts(
        cmap=_shades(paint, shown.signed),
        alpha=0,  # only its colour bar and hover are seen
        colorbar=True,
        clabel="",
        tools=["hover"],
        backend="bokeh",
    )
    bare = {"xaxis": None, "yaxis": None}
    return framed(
        mixed * scale, title, theme=theme, width=width, height=round((width - _BESIDE) * rows / cols) + 40, **bare
    )


def _bars(shown: Map, labels: Sequence[str] | None, title: str, theme: Theme, width: int) -> Any:
    hv, paint = load(), colours(theme)
    names = [str(i) for i in range(len(shown.shares))] if labels is None else list(labels)
    if len(names) != len(shown.shares):
        raise BadArgument(f"labels has {len(names)} entries; expected {len(shown.shares)}, one for each")
    distinct = names if len(set(names)) == len(names) else [f"{i} {name}" for i, name in enumerate(names)]
    values = np.nan_to_num(shown.shares * shown.limit)
    shades = [paint.series[1] if value > 0 else paint.series[0] for value in values]
    bars = hv.Bars((distinct[::-1], values[::-1], shades[::-1]), "entry", ["value", "shade"]).opts(
        invert_axes=True, color="shade", line_color=None, tools=["hover"], show_legend=False, backend="bokeh"
    )
    height = min(120 + 18 * len(values), 1200)
    return framed(hv.Overlay([bars]), title, theme=theme, width=width, height=height, xlabel="", ylabel="contribution")


def saliency_curves(found: "Sequence[Curves] | Curves", *, theme: Theme = "light", width: int = WIDTH) -> Any:
    """Mean scores over the inputs as the highest values of each method's map go, and as they come: an `hv.Layout`.

    The legend gives the mean area. Inputs whose scores are NaN are left out of the mean.
    """
    results = [*found] if isinstance(found, Sequence) else [found]
    parts = [(which, [_curve(one, which) for one in results]) for which in ("deletion", "insertion")]
    if not results or all(np.isnan(values).all() for _, lines in parts for _, _, values in lines):
        return placeholder("deletion and insertion: no input has scores", theme=theme, width=width)
    hv = load()
    panels = [
        _lines(lines, f"{which} (beside each method its area)", "share of places", results[0].score, theme, width // 2)
        for which, lines in parts
    ]
    return hv.Layout(panels).cols(2).opts(toolbar=None, shared_axes=False, backend="bokeh")


def _curve(found: "Curves", which: str) -> tuple[str, FloatArray, FloatArray]:
    scores, areas = getattr(found, which), getattr(found, f"{which}_area")
    known = np.isfinite(areas)
    area = f"{areas[known].mean():.3g}" if known.any() else "none"
    mean = scores[known].mean(axis=0) if known.any() else np.full(len(found.fraction), np.nan)
    return f"{_NAMES.get(found.method, found.method or 'map')} {area}", found.fraction, mean


def saliency_randomisation(
    found: "Sequence[Randomisation] | Randomisation", *, theme: Theme = "light", width: int = WIDTH
) -> Any:
    """Mean rank correlation of maps' magnitudes with the trained network's, as layers become random from the output.

    Inputs whose correlation is NaN are left out of the mean.
    """
    results = [*found] if isinstance(found, Sequence) else [found]
    lines: list[tuple[str, FloatArray, FloatArray]] = []
    for one in results:
        known = np.isfinite(one.absolute)
        total = np.where(known, one.absolute, 0).sum(axis=1)
        mean = np.divide(total, known.sum(axis=1), out=np.full(len(total), np.nan), where=known.any(axis=1))
        lines.append((_NAMES.get(one.method, one.method), np.arange(len(mean), dtype=np.float64), mean))
    if not lines or all(np.isnan(mean).all() for _, _, mean in lines):
        return placeholder("randomised parameters: no correlation is known", theme=theme, width=width)
    ticks = [(0, "trained"), *enumerate(results[0].layers, 1)]
    title = "Maps as layers become random, from the output down"
    return _lines(lines, title, "random down to", "rank correlation", theme, width, xticks=ticks, xrotation=30)


def _lines(
    lines: list[tuple[str, FloatArray, FloatArray]],
    title: str,
    xlabel: str,
    ylabel: str,
    theme: Theme,
    width: int,
    **more: Any,
) -> Any:
    hv, paint = load(), colours(theme)
    drawn = []
    for i, (name, x, y) in enumerate(lines):
        shade = paint.series[i % len(paint.series)]
        drawn.append(hv.Curve((x, y), "x", "y", label=name).opts(color=shade, line_width=2, backend="bokeh"))
    look = {"xlabel": xlabel, "ylabel": ylabel, "legend_position": "right", "show_legend": True, **more}
    return framed(hv.Overlay(drawn), title, theme=theme, width=width, height=300, **look)


def saliency_sheet(
    results: "Sequence[Saliency]",
    inputs: Any,
    *,
    captions: Sequence[str] | None = None,
    channel_axis: int = -1,
    theme: Theme = "light",
) -> Any:
    """A row for each of the first 8 inputs, a column for each method, on one scale of shares: an `hv.Layout`.

    Raises `BadArgument` for inputs that are no images.
    """
    hv, paint = load(), colours(theme)
    rows = _rows(results, inputs, captions, channel_axis)
    if not rows:
        return placeholder("saliency: there are no inputs to draw", theme=theme)
    panels = []
    for caption, under, shown in rows:
        panels.append(_panel(hv, _plain(under, paint), caption, theme))
        for one in shown:
            mixed = blended(one.shares, under, paint, signed=one.signed)
            panels.append(_panel(hv, mixed, one.title, theme))
    panels.extend(_key(hv, paint, signed, theme) for signed in _kinds(rows))
    layout = hv.Layout(panels).cols(1 + len(results))
    return layout.opts(toolbar=None, shared_axes=False, backend="bokeh")


def save_saliency_sheet(
    results: "Sequence[Saliency]",
    inputs: Any,
    file: str | os.PathLike[str],
    *,
    captions: Sequence[str] | None = None,
    channel_axis: int = -1,
    theme: Theme = "light",
) -> None:
    """Writes a sheet, as `saliency_sheet` draws it, with its scale, to a .png, .svg or .pdf file.

    The same maps are the same bytes. Raises `BadArgument` for another kind of file, inputs that are no images or none,
    `ReportError` where the file cannot be written.
    """
    path = Path(file)
    if path.suffix.lower() not in FORMATS:
        raise BadArgument(f"{path.name}: unknown kind of picture; expected one of {', '.join(FORMATS)}")
    rows = _rows(results, inputs, captions, channel_axis)
    if not rows:
        raise BadArgument("saliency: there are no inputs to draw")
    kind, written = path.suffix[1:].lower(), io.BytesIO()
    from matplotlib import style

    with style.context(_STYLE, after_reset=True):
        figure = _figure(rows, colours(theme))
        date = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
        figure.savefig(written, format=kind, dpi=150, facecolor=colours(theme).background, metadata=date)
    _write(path, written.getvalue())


def _write(path: Path, drawn: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(drawn)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise ReportError(f"{path}: cannot be written: {error.strerror or error}; choose another place") from error


_Row = tuple[str, FloatArray, list[Map]]


def _rows(results: "Sequence[Saliency]", inputs: Any, captions: Sequence[str] | None, channel_axis: int) -> list[_Row]:
    """Caption, picture and maps of each input of a sheet."""
    x = np.asarray(inputs)
    if x.ndim not in (3, 4):
        raise BadArgument(f"inputs have shape {x.shape}; a sheet needs images, (batch, height, width, channels)")
    if not results or 0 in x.shape:
        return []
    shape = x.shape if x.ndim == 4 else (*x.shape, 1)
    columns = [maps(found, shape, channel_axis=channel_axis) for found in results]
    names = captions if captions is not None else [f"input {i}" for i in range(len(x))]
    axis = _of_one(channel_axis, x.ndim)
    return [(str(names[i]), grey(x[i], axis), [column[i] for column in columns]) for i in range(min(len(x), _MOST))]


def _plain(under: FloatArray, paint: Colours) -> npt.NDArray[np.uint8]:
    shade = np.rint(under * 255).astype(np.uint8)
    return np.repeat(shade[..., None], 3, axis=-1)


def _panel(hv: Any, picture: npt.NDArray[np.uint8], title: str, theme: Theme) -> Any:
    rows, cols = picture.shape[:2]
    image = hv.RGB(picture, bounds=(0, 0, cols, rows))
    bare = {"xaxis": None, "yaxis": None, "toolbar": None}
    return framed(image, title, theme=theme, width=_SIDE, height=round(_SIDE * rows / cols) + 24, **bare)


def _kinds(rows: list[_Row]) -> list[bool]:
    """Which colour maps a sheet uses: the diverging one (True), the sequential one."""
    return sorted({one.signed for _, _, shown in rows for one in shown}, reverse=True)


def _key(hv: Any, paint: Colours, signed: bool, theme: Theme) -> Any:
    """The scale of a colour map as a strip with an axis."""
    low, shades = -1.0 if signed else 0.0, _shades(paint, signed)
    strip = hv.Image(np.linspace(low, 1, 128)[None], bounds=(low, 0, 1, 1), vdims=hv.Dimension("share", range=(low, 1)))
    strip = strip.opts(cmap=shades, backend="bokeh")
    look = {"yaxis": None, "toolbar": None, "xlabel": "share of the method's limit"}
    return framed(strip, "with signs" if signed else "without signs", theme=theme, width=_SIDE, height=90, **look)


def _figure(rows: list[_Row], paint: Colours) -> "Figure":
    from matplotlib.figure import Figure

    across, down = 1 + len(rows[0][2]), len(rows)
    height, width = rows[0][1].shape
    inches = 1.4 * across + 0.7, 1.4 * height / width * down + 0.35
    figure = Figure(inches, facecolor=paint.background)
    grid = figure.subplots(down, across, squeeze=False)
    edges = {"left": 0.25 / inches[0], "right": 1 - 0.75 / inches[0], "bottom": 0.06 / inches[1]}
    figure.subplots_adjust(**edges, top=1 - 0.3 / inches[1], wspace=0.05, hspace=0.05)
    for line, (caption, under, shown) in zip(grid, rows, strict=True):
        line[0].imshow(_plain(under, paint), interpolation="nearest")
        line[0].set_ylabel(caption, fontsize=7, color=paint.text, parse_math=False)
        for axes, one in zip(line[1:], shown, strict=True):
            axes.imshow(blended(one.shares, under, paint, signed=one.signed), interpolation="nearest")
            axes.set_xlabel(one.warning, fontsize=6, color=paint.above)
    for axes, title in zip(grid[0], ["input", *(one.name for one in rows[0][2])], strict=True):
        axes.set_title(title, fontsize=7, color=paint.text, pad=3)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    _scales(figure, rows, paint, inches[0])
    return figure


def _scales(figure: "Figure", rows: list[_Row], paint: Colours, width: float) -> None:
    """The bar of each colour map that a sheet uses, one below the other."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    kinds = _kinds(rows)
    for i, signed in enumerate(kinds):
        table = ListedColormap(_shades(paint, signed))
        height = 0.8 / len(kinds)
        axes = figure.add_axes((1 - 0.62 / width, 0.9 - (i + 1) * height, 0.1 / width, 0.85 * height))
        bar = figure.colorbar(ScalarMappable(Normalize(-1 if signed else 0, 1), table), cax=axes)
        bar.ax.tick_params(labelsize=6, colors=paint.text, length=2)
        bar.set_label("share of the method's limit", fontsize=6, color=paint.text)
        bar.outline.set_edgecolor(paint.grid)
