"""A map of a tensor's rows or columns, a point each, of any number of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import mul
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.report.projections import NO_CLUSTER
from weighbridge.views.colours import Theme, categories, colours
from weighbridge.views.frame import framed, load
from weighbridge.views.placeholder import placeholder

if TYPE_CHECKING:
    from weighbridge.report import Entry, Projection

Colour = Literal["norm", "cluster", "similarity", "absmax", "mean"]
Namer = Callable[[int], str]
FloatArray = npt.NDArray[np.float64]

DRAWN_SINGLY = 5000
"""Points up to which each is a glyph of its own; more are rasterised."""
_NEAREST = 5
SIDE = 780
"""Of the map, pixels."""
_BAR = 90
_REACH = 0.015
"""Of what is seen: how near the pointer must be to a point."""
_DOTS = {"max_px": 1, "threshold": 0.9, "shape": "circle"}
_LEAST_DOT = 1
"""Pixels about that of a point."""
_WIDE, _HIGH = 0.011, 0.028
"""Of the map: what a letter and a line of a label take."""
_PALE = 0.2
"""Of a map from the background's colour on, which would not be seen."""
_METHODS = {
    "pca": "principal components",
    "tsne": "t-SNE",
    "nmf": "non-negative factors",
    "random": "random projection",
}
_AXES = {"pca": "component", "nmf": "factor", "random": "direction"}
_MEANINGS = {
    "norm": "L2 norm",
    "cluster": "cluster",
    "similarity": "nearest neighbour",
    "absmax": "greatest magnitude",
    "mean": "mean",
}
_TIPS = [
    ("point", "@point"),
    ("norm", "@norm{0.0000}"),
    ("cluster", "@group"),
    ("nearest", "@nearest"),
]


def scatter(
    projection: "Projection",
    *,
    colour: Colour = "norm",
    entry: "Entry | None" = None,
    named: Namer = str,
    axes: tuple[int, int] = (0, 1),
    theme: Theme = "light",
    size: int = SIDE,
) -> Any:
    """The map of a projection: `hv.Points`, beyond 5,000 of them rasterised by datashader in a `DynamicMap`.

    `colour` is the norm, the cluster, the similarity to the nearest neighbour (or the distance), or, with the tensor's
    entry in a report, a channel's `absmax` or `mean`. Hover tells the point (`named` gives its name from its index, as
    `channel_namer` does for tokens), norm, cluster and nearest neighbours. `axes` are two of its dimensions; the map's
    side is of `size` pixels. The title carries the quality of the map. Clusters are named at their medoids. A
    projection without points gives a text.

    Raises `BadArgument` for a colour that the projection does not have, and for axes beyond its dimensions.
    """
    return Scatter(projection, colour=colour, entry=entry, named=named, axes=axes, theme=theme, size=size).element


def colours_of(projection: "Projection", entry: "Entry | None" = None) -> list[Colour]:
    """What the points can be coloured by."""
    return [colour for colour in get_args(Colour) if _values(projection, colour, entry) is not None]


@dataclass(frozen=True)
class _Span:
    """A square that holds all points."""

    x: tuple[float, float]
    y: tuple[float, float]

    @classmethod
    def around(cls, x: FloatArray, y: FloatArray) -> "_Span":
        middles = [(float(a.min()) + float(a.max())) / 2 for a in (x, y)]
        half = 0.54 * max(float(np.ptp(x)), float(np.ptp(y))) or 1.0
        bounds = [(middle - half, middle + half) for middle in middles]
        return cls(bounds[0], bounds[1])


class Scatter:
    """The element of a map, and `target`, that of its points, whose streams tell of taps and selections."""

    def __init__(
        self,
        projection: "Projection",
        *,
        colour: Colour = "norm",
        entry: "Entry | None" = None,
        named: Namer = str,
        axes: tuple[int, int] = (0, 1),
        theme: Theme = "light",
        size: int = SIDE,
    ) -> None:
        self._projection, self._named, self._theme, self._colour = projection, named, theme, colour
        values = _values(projection, colour, entry)
        if values is None:
            known = ", ".join(colours_of(projection, entry))
            raise BadArgument(f"{projection.name}: no colour {colour!r} for this projection; expected one of {known}")
        if len(axes) != 2 or not all(0 <= axis < projection.arrays.scores.shape[1] for axis in axes):
            raise BadArgument(f"axes {axes}; expected two of the {projection.arrays.scores.shape[1]} from 0 on")
        self.placed = projection.placed
        self.x, self.y = (projection.arrays.scores[self.placed, axis].astype(np.float64) for axis in axes)
        self._values = values[self.placed]
        self._axes, self._size = axes, size
        self.target: Any = None
        self.element = self._element() if len(self.placed) else self._empty()

    def within(self, inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """The points among all of the projection that a mask over those on the map takes."""
        return self.placed[inside]

    def nearest(self, x: float, y: float, reach: float) -> int | None:
        """The point on the map nearest to a place, by its position among those; None where none is within reach."""
        apart = np.hypot(self.x - x, self.y - y)
        at = int(apart.argmin())
        return at if apart[at] <= reach else None

    def described(self, at: npt.NDArray[np.int64]) -> dict[str, Any]:
        """Columns of hover for some points on the map."""
        arrays, channels = self._projection.arrays, self._projection.channels
        points = self.placed[at]
        return {
            "x": self.x[at],
            "y": self.y[at],
            self._colour: self._values[at],
            "point": [self._named(int(channel)) for channel in channels[points]],
            "norm": arrays.norms[points],
            "group": [_group(label) for label in arrays.labels[points]],
            "nearest": [self._neighbours(point) for point in points],
        }

    def _neighbours(self, point: int) -> str:
        arrays = self._projection.arrays
        pairs = zip(arrays.neighbours[point][:_NEAREST], arrays.similarities[point][:_NEAREST], strict=True)
        return ", ".join(f"{self._named(int(other))} ({near:.2f})" for other, near in pairs if other >= 0)

    def _empty(self) -> Any:
        return placeholder(f"{self._projection.name}: no points are on this map", theme=self._theme)

    def _element(self) -> Any:
        hv = load()
        span = _Span.around(self.x, self.y)
        many = len(self.placed) > DRAWN_SINGLY
        self.target = self._rasterised(hv, span) if many else self._glyphs(hv)
        layers = [self.target, *([self._pointed(hv, span)] if many else []), *self._labels(hv, span)]
        overlay = reduce(mul, layers) if len(layers) > 1 else hv.Overlay(layers)
        labels = self._axis_labels()
        return framed(
            overlay,
            "\n".join(self._title()),
            theme=self._theme,
            width=self._size + _BAR,
            height=self._size,
            xlim=span.x,
            ylim=span.y,
            xlabel=labels[0],
            ylabel=labels[1],
            show_legend=False,
            **({"xaxis": None, "yaxis": None} if self._projection["method"] == "tsne" else {}),
        )

    def _title(self) -> list[str]:
        row = self._projection.row
        what = "rows" if row["side"] == "rows" else "columns"
        count, *quality = self._projection.quality
        first = f"{row['name']}: {_METHODS[row['method']]} of its {what}, coloured by {_MEANINGS[self._colour]}"
        note = (
            ["distances between clusters of t-SNE mean nothing, nor do their sizes"] if row["method"] == "tsne" else []
        )
        return [first, " · ".join([count, *quality]), *note]

    def _axis_labels(self) -> tuple[str, str]:
        kind = _AXES.get(self._projection["method"], "axis")
        return f"{kind} {self._axes[0] + 1}", f"{kind} {self._axes[1] + 1}"

    def _glyphs(self, hv: Any) -> Any:
        columns = self.described(np.arange(len(self.placed)))
        names = ["norm", "point", "group", "nearest"]
        if self._colour not in names:
            names.append(self._colour)
        points = hv.Points(columns, ["x", "y"], names)
        look = {"cmap": self._kinds()} if self._colour == "cluster" else self._scale()
        return points.opts(
            color="group" if self._colour == "cluster" else self._colour,
            size=5 if len(self.placed) > 500 else 7,
            line_color=None,
            alpha=0.85,
            tools=["hover", "box_select", "lasso_select", "tap"],
            hover_tooltips=_TIPS,
            backend="bokeh",
            **look,
        )

    def _rasterised(self, hv: Any, span: _Span) -> Any:
        import datashader
        import pandas as pd
        from holoviews.operation.datashader import datashade, dynspread, rasterize, spread

        frame = pd.DataFrame({"x": self.x, "y": self.y, "value": self._values})
        canvas = {"x_range": span.x, "y_range": span.y, "width": self._size, "height": self._size}
        tools = {"tools": ["box_select", "lasso_select", "tap"], "backend": "bokeh"}
        if self._colour == "cluster":
            kinds = self._kinds()
            codes = self._values.astype(np.int64) - NO_CLUSTER
            frame["value"] = pd.Categorical.from_codes(codes, pd.Index(list(kinds)))
            points = hv.Points(frame, ["x", "y"], "value")
            by = datashader.by("value", datashader.count())
            shaded = datashade(points, aggregator=by, color_key=kinds, min_alpha=160, **canvas)
            return spread(dynspread(shaded, **_DOTS), px=_LEAST_DOT).opts(**tools)
        points = hv.Points(frame, ["x", "y"], "value")
        image = rasterize(points, aggregator=datashader.mean("value"), **canvas)
        dots = spread(dynspread(image, how="source", **_DOTS), how="source", px=_LEAST_DOT)
        return dots.opts(**self._scale(), **tools)

    def _pointed(self, hv: Any, span: _Span) -> Any:
        """The point under the pointer, with all that hover tells."""
        from holoviews import streams

        pointer = streams.PointerXY(source=self.target)
        seen = streams.RangeX(source=self.target)
        ring = {"color": None, "line_color": colours(self._theme).text, "line_width": 2, "size": 13}

        def draw(x: float | None, y: float | None, x_range: tuple[float, float] | None) -> Any:
            low, high = x_range or span.x
            at = None if x is None or y is None else self.nearest(x, y, _REACH * abs(high - low))
            columns = self.described(np.array([] if at is None else [at], np.int64))
            points = hv.Points(columns, ["x", "y"], ["norm", "point", "group", "nearest"])
            return points.opts(tools=["hover"], hover_tooltips=_TIPS, backend="bokeh", **ring)

        return hv.DynamicMap(draw, streams=[pointer, seen])

    def _labels(self, hv: Any, span: _Span) -> list[Any]:
        """Where points are coloured by cluster, the names at their medoids, of the largest where names would meet."""
        held = self._projection.clusters
        if self._colour != "cluster" or not len(held.sizes):
            return []
        at = np.searchsorted(self._projection.channels[self.placed], held.medoids)
        names = [self._named(int(medoid)).rsplit(" · ", 1)[0] for medoid in held.medoids]
        kept = apart(self.x[at], self.y[at], names, span.x[1] - span.x[0])
        labels = hv.Labels((self.x[at[kept]], self.y[at[kept]], [names[i] for i in kept]), ["x", "y"], "name")
        paint = colours(self._theme)
        look = {"text_color": paint.text, "text_font_size": "10pt"}
        return [labels.opts(hooks=[_on_ground(paint.background)], backend="bokeh", **look)]

    def _kinds(self) -> dict[str, str]:
        """A colour for every cluster, and a quiet one for points in none."""
        count = len(self._projection.clusters.sizes)
        kinds = {_group(i): colour for i, colour in enumerate(categories(count, self._theme))}
        return {_group(NO_CLUSTER): colours(self._theme).grid} | kinds

    def _scale(self) -> dict[str, Any]:
        """A colour map over all but the rarest values; a diverging one about zero for means."""
        paint, finite = colours(self._theme), self._values[np.isfinite(self._values)]
        low, high = np.quantile(finite, [0.005, 0.995]) if finite.size else (0.0, 1.0)
        if self._colour == "mean":
            high = max(abs(low), abs(high)) or 1.0
            low, palette = -high, paint.diverging
        else:
            palette = paint.sequential[int(_PALE * len(paint.sequential)) :]
        return {
            "cmap": list(palette),
            "clim": (float(low), float(high) if high > low else float(low) + 1),
            "colorbar": True,
            "clabel": _MEANINGS[self._colour],
        }


def _values(projection: "Projection", colour: str, entry: "Entry | None") -> npt.NDArray[Any] | None:
    """What every point is coloured by; None where it is not known."""
    arrays = projection.arrays
    if colour == "norm":
        return arrays.norms
    if colour == "cluster":
        return arrays.labels if len(projection.clusters.sizes) else None
    if colour == "similarity":
        return arrays.similarities[:, 0] if arrays.similarities.shape[1] else None
    kept = None if entry is None or colour not in ("absmax", "mean") else _channels(projection, colour, entry)
    return None if kept is None or projection.channels[-1] >= len(kept) else kept[projection.channels]


def _channels(projection: "Projection", colour: str, entry: "Entry") -> FloatArray | None:
    found: FloatArray | None = getattr(entry, f"{'row' if projection['side'] == 'rows' else 'col'}_{colour}")
    return found


def _group(label: int) -> str:
    return "none" if label == NO_CLUSTER else str(label)


def apart(x: FloatArray, y: FloatArray, names: list[str], extent: float) -> list[int]:
    """Which labels there is room for on a map, the first ones first."""
    kept: list[int] = []
    for i, name in enumerate(names):
        wide = [0.5 * _WIDE * extent * (len(name) + len(names[other]) + 2) for other in kept]
        if all(
            abs(x[i] - x[other]) > reach or abs(y[i] - y[other]) > _HIGH * extent
            for other, reach in zip(kept, wide, strict=True)
        ):
            kept.append(i)
    return kept


def _on_ground(colour: str) -> Callable[[Any, Any], None]:
    """A hook that puts text on a ground of its own, to be read over points."""

    def lay(plot: Any, element: Any) -> None:
        glyph = plot.handles["glyph"]
        glyph.update(text_font={"value": "sans-serif"}, background_fill_color=colour, background_fill_alpha=0.75)
        glyph.update(padding=2, border_radius=3)

    return lay
