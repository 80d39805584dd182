"""The maps of one tensor's rows or columns: what is selected on them is listed, and seen in the heatmap."""

from collections.abc import Callable
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
import panel

from weighbridge.app.model import Model
from weighbridge.app.style import html
from weighbridge.errors import BadArgument
from weighbridge.matrix import matrix_view
from weighbridge.pyramid.matrix import DIRECT_ENTRIES, WeightMatrix
from weighbridge.report import Entry, Projection
from weighbridge.report.projections import TABLE
from weighbridge.views.colours import Theme
from weighbridge.views.scatter import Scatter, colours_of
from weighbridge.views.selected import selected

_LISTED = 100
_DRAWN = 200
"""Lines of the small heatmap, at most."""
_SIDE, _LIST = 660, 640
"""Of the map and of the list beside it, or below where there is no room, in pixels."""
_REACH = 0.02
"""Of the map: how near a tap must be to a point."""
_AXES = {"1 and 2": (0, 1), "1 and 3": (0, 2), "2 and 3": (1, 2)}

Channels = npt.NDArray[np.int64]
ToChannels = Callable[[str, int, int], None]


class ProjectionTab:
    """One tensor's maps; `see` shows a side's channels from one to before another in the heatmap."""

    def __init__(self, model: Model, entry: Entry, theme: Theme, see: ToChannels) -> None:
        self._model, self._entry, self._theme, self._see = model, entry, theme, see
        rows = model.report.matrices(entry.name, TABLE)
        parts = [row["part"] for row in rows if row["status"] == "done"]
        if not parts:
            why = rows[-1]["reason"] if rows else f"not laid out yet; run weighbridge project on {entry.name}"
            raise BadArgument(str(why))
        self._part = panel.widgets.Select(name="map", options=parts, value=parts[-1], width=220)
        self._colour = panel.widgets.Select(name="colour", width=150)
        self._axes = panel.widgets.Select(name="dimensions", options=_AXES, width=110)
        self._shown = panel.Column(margin=0)
        self._list = panel.Column(margin=0, width=_LIST)
        self._open()
        self._part.param.watch(lambda _: self._open(), "value")
        for widget in (self._colour, self._axes):
            widget.param.watch(lambda _: self._draw(), "value")
        self.view = panel.Column(
            panel.Row(self._part, self._colour, self._axes, margin=0),
            panel.FlexBox(self._shown, self._list, align_items="flex-start"),
            sizing_mode="stretch_both",
            scroll=True,
            margin=0,
        )

    def _open(self) -> None:
        """Turns to the chosen map."""
        self._found: Projection = self._model.report.projection(self._entry.name, self._part.value)
        side = "rows" if self._found["side"] == "rows" else "cols"
        self._named = self._model.channel_name(int(self._found[side]))
        kept = self._colour.value
        self._colour.options = colours_of(self._found, self._entry)
        self._colour.value = kept if kept in self._colour.options else self._colour.options[0]
        self._axes.visible = self._found["dims"] > 2
        self._axes.value = _AXES["1 and 2"]
        self._draw()

    def _draw(self) -> None:
        from holoviews import streams

        self._scatter = shown = Scatter(
            self._found,
            colour=self._colour.value,
            entry=self._entry,
            named=self._named,
            axes=self._axes.value if self._axes.visible else (0, 1),
            theme=self._theme,
            size=_SIDE,
        )
        if shown.target is not None:
            streams.BoundsXY(source=shown.target).add_subscriber(self._boxed)
            streams.Lasso(source=shown.target).add_subscriber(self._lassoed)
            streams.Tap(source=shown.target).add_subscriber(self._tapped)
        self._shown.objects = [panel.pane.HoloViews(shown.element, linked_axes=False)]
        self._list.objects = [_text("select points with the box or the lasso, or tap one", self._theme)]

    def _boxed(self, bounds: tuple[float, float, float, float] | None) -> None:
        if bounds is not None:
            left, bottom, right, top = bounds
            x, y = self._scatter.x, self._scatter.y
            self._select(self._scatter.within((x >= left) & (x <= right) & (y >= bottom) & (y <= top)))

    def _lassoed(self, geometry: Any) -> None:
        if geometry is not None and len(geometry) > 2:
            self._select(self._scatter.within(inside(np.asarray(geometry), self._scatter.x, self._scatter.y)))

    def _tapped(self, x: float | None, y: float | None) -> None:
        if x is None or y is None:
            return
        extent = max(float(np.ptp(self._scatter.x)), float(np.ptp(self._scatter.y))) or 1.0
        at = self._scatter.nearest(x, y, _REACH * extent)
        if at is not None:
            self._select(self._scatter.placed[[at]])

    def _select(self, points: Channels) -> None:
        """Lists some points, with a way to their weights."""
        channels = self._found.channels[points]
        words = "rows" if self._found["side"] == "rows" else "columns"
        head = f"<p><b>{len(points):,}</b> {words if len(points) != 1 else words[:-1]} selected</p>"
        lines = "".join(self._line(at) for at in np.searchsorted(self._scatter.placed, points[:_LISTED]))
        more = f"<p>and {len(points) - _LISTED:,} more</p>" if len(points) > _LISTED else ""
        titles = "<tr><th>point</th><th>norm</th><th>cluster</th><th>nearest</th></tr>"
        table = html(f"{head}<table class='figures'>{titles}{lines}</table>{more}", self._theme)
        button = panel.widgets.Button(name="see them in the heatmap", disabled=not len(points))
        holder = panel.Column(margin=0)
        button.on_click(lambda _: self._show_weights(channels, holder))
        self._list.objects = [button, holder, table]

    def _line(self, at: int) -> str:
        of = self._scatter.described(np.array([at]))
        cells = (of["point"][0], f"{of['norm'][0]:.4g}", of["group"][0], of["nearest"][0])
        return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"

    def _show_weights(self, channels: Channels, holder: Any) -> None:
        """Of channels that follow one another the heatmap's window, of others a heatmap of these alone."""
        low, high = int(channels[0]), int(channels[-1]) + 1
        side = "row" if self._found["side"] == "rows" else "col"
        if high - low == len(channels):
            self._see(side, low, high)
            return
        try:
            lines = self._lines(side, channels[:_DRAWN])
        except BadArgument as error:
            holder.objects = [_text(str(error), self._theme)]
            return
        names = [self._named(int(channel)) for channel in channels[:_DRAWN]]
        first = f"the first {_DRAWN} of " if len(channels) > _DRAWN else ""
        drawn = selected(lines, names, title=f"{first}{len(channels):,} selected", theme=self._theme)
        holder.objects = [panel.pane.HoloViews(drawn, linked_axes=False)]

    def _lines(self, side: str, channels: Channels) -> npt.NDArray[Any]:
        """The weights of some rows or columns. Raises `BadArgument` where they cannot be had."""
        tensor = self._model.tensor(self._entry.name)
        if tensor is None:
            raise BadArgument(self._model.missing or "the tensor is not among those that can be read")
        matrix = WeightMatrix(tensor, matrix_view(tensor.name, tensor.shape, self._entry["role"]))
        rows, cols = matrix.shape
        if side == "row":
            return np.concatenate([matrix.entries(slice(c, c + 1), slice(0, cols)) for c in map(int, channels)])
        if tensor.count > DIRECT_ENTRIES:
            raise BadArgument("columns of so large a tensor are shown where they follow one another")
        return matrix.entries(slice(0, rows), slice(0, cols))[:, channels].T


def inside(polygon: npt.NDArray[Any], x: npt.NDArray[Any], y: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which points lie within a polygon [corners, 2]: a ray to the right crosses its sides an odd number of times."""
    found = np.zeros(len(x), bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 != y1:
            crossed = ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
            found ^= crossed
    return found


def _text(said: str, theme: Theme) -> Any:
    return html(f"<p class='note'>{escape(said)}</p>", theme)
