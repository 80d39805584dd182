"""The part of the page on one tensor: its heatmap, distribution, channels and figures."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from html import escape
from typing import Any

import numpy as np
import panel

from weighbridge.app.circuit_tab import CircuitTab
from weighbridge.app.model import Model
from weighbridge.app.neurons import neurons
from weighbridge.app.panes import side_by_side
from weighbridge.app.projection_tab import ProjectionTab
from weighbridge.app.similarity_tab import SimilarityTab, within
from weighbridge.app.state import TABS, State, Tab
from weighbridge.app.style import html
from weighbridge.errors import WeighbridgeError
from weighbridge.pyramid import Build, Matrix, Preparation, WeightMatrix, matrix_of
from weighbridge.pyramid.store import CorruptPyramid, Pyramid
from weighbridge.report import Entry
from weighbridge.report.scan_columns import SCAN
from weighbridge.report.schema import SCALARS
from weighbridge.views import channels, distribution, singular_vectors, spectrum
from weighbridge.views.colours import Theme
from weighbridge.views.heatmap import Heatmap
from weighbridge.views.spectrum import KINDS, Kind
from weighbridge.views.window import MEANINGS, Picture, Range

_WIDENINGS = (1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1000.0)
_POLL_MS = 200
_NEEDS = {"spectrum": "spectra", "neurons": "correlations", "projection": "projections"}
"""The table that a tab shows, where it is not the scan."""
_AROUND = 8
"""Channels shown on each side of one that was clicked."""
_SLIDER_PARTS = 4096

Changed = Callable[..., None]


class TensorPage:
    """One tensor; `changed` is told what of the page's state has, `say` what went wrong, in one line."""

    def __init__(self, model: Model, entry: Entry, state: State, changed: Changed, say: Callable[[str], None]) -> None:
        self._model = model
        self._entry = entry
        self._theme = state.theme
        self._state = state
        self._tell = changed
        self._say = say
        self._build: Build | Preparation | None = None
        self._polling: Any = None
        self._shown = panel.Column(sizing_mode="stretch_both", margin=0)
        self._tabs = panel.widgets.RadioButtonGroup(
            name="what to show of the tensor", options=self._known_tabs(), value=state.tab, button_type="default"
        )
        if state.tab not in self._tabs.options:
            self._tabs.value = "heatmap"
        self._tabs.param.watch(lambda event: self.show(event.new), "value")
        self.view = panel.Column(
            _headline(entry, state.theme), self._tabs, self._shown, sizing_mode="stretch_both", margin=0
        )
        self.show(self._tabs.value)

    def _known_tabs(self) -> list[Tab]:
        """A tab for each analysis that the report holds."""
        held = self._model.report.manifest.analyses
        return [tab for tab in TABS if _NEEDS.get(tab, "scan") in held]

    def show(self, tab: Tab) -> None:
        """Turns to a tab."""
        self._tabs.value = tab
        if tab != self._state.tab and "similarity" in (tab, self._state.tab):  # a window is of one matrix
            self._changed(rows=None, cols=None)
        self._changed(tab=tab)
        try:
            self._shown.objects = [getattr(self, f"_{tab}")()]
        except WeighbridgeError as error:
            self._shown.objects = [note(str(error), self._theme)]

    def _changed(self, **changes: Any) -> None:
        self._state = replace(self._state, **changes)
        self._tell(**changes)

    def close(self) -> None:
        """Gives up what is still being built for this page alone."""
        if self._polling is not None:
            self._polling.stop()
            self._polling = None
        if self._build is not None:
            self._build.release()
            self._build = None

    def _heatmap(self) -> Any:
        tensor = self._model.tensor(self._entry.name)
        if tensor is None:
            return self._unreadable()
        matrix = matrix_of(tensor, self._model.checkpoint or ())
        if isinstance(matrix, WeightMatrix) and matrix.needs_pyramid:
            return self._building(matrix)
        return self._mapped(matrix)

    def _mapped(self, matrix: Matrix) -> Any:
        return HeatmapTab(matrix, self._entry, self._state, self._changed, partial(self._failed, matrix)).view

    def _building(self, matrix: WeightMatrix) -> Any:
        """A bar while the pyramid is built, then the map in its place."""

        def mapped(pyramid: Pyramid) -> Any:
            matrix.pyramid = pyramid
            return self._mapped(matrix)

        return self._waiting(self._model.cache.request(matrix.tensor, matrix.view), mapped)

    def _waiting(self, build: Any, show: Callable[[Any], Any]) -> Any:
        """A bar until a build has its result, then what `show` makes of it; any other build is given up."""
        self.close()
        self._build = build
        bar = panel.indicators.Progress(value=0, max=100, sizing_mode="stretch_width", name="reading the tensor")
        holder = panel.Column(note("reading the whole tensor once …", self._theme), bar, sizing_mode="stretch_both")

        def shown() -> Any:
            try:
                return show(build.result())
            except WeighbridgeError as error:
                return note(str(error), self._theme)

        def poll() -> None:
            bar.value = int(100 * build.progress)
            if build.done:
                self._stop_polling()
                holder.objects = [shown()]

        if build.done:
            return shown()
        self._polling = panel.state.add_periodic_callback(poll, _POLL_MS)
        return holder

    def _stop_polling(self) -> None:
        if self._polling is not None:
            self._polling.stop()
            self._polling = None

    def _failed(self, matrix: Matrix, error: WeighbridgeError) -> None:
        """A damaged pyramid is built anew; anything else is said."""
        if isinstance(error, CorruptPyramid) and isinstance(matrix, WeightMatrix) and matrix.pyramid is not None:
            self._model.cache.discard(matrix.pyramid)
            matrix.pyramid = None
            panel.state.execute(lambda: self.show("heatmap"), schedule=True)
        else:
            self._say_error(error)

    def _distribution(self) -> Any:
        quantisers = panel.widgets.CheckButtonGroup(
            name="grids of quantisers", options=["int8", "fp8_e4m3", "int4_32", "nf4_64", "mxfp4_32", "nvfp4_16"]
        )

        def draw(chosen: list[str]) -> Any:
            return distribution(self._entry, quantisers=chosen, theme=self._theme)

        plot = panel.pane.HoloViews(panel.bind(draw, quantisers), sizing_mode="stretch_both", linked_axes=False)
        return panel.Column(panel.Row("grids of quantisers", quantisers), plot, sizing_mode="stretch_both")

    def _channels(self) -> Any:
        return panel.Row(*(self._channels_of(side) for side in ("row", "col")), sizing_mode="stretch_both")

    def _channels_of(self, side: Any) -> Any:
        """The norms of one side; a click goes to the channel in the heatmap."""
        from holoviews import streams

        plot = channels(self._entry, side=side, theme=self._theme)
        tap = streams.Tap(source=plot)
        tap.add_subscriber(lambda x, y: self._to_channel(side, x))
        return panel.pane.HoloViews(plot, sizing_mode="stretch_both", linked_axes=False)

    def _to_channel(self, side: str, x: float | None) -> None:
        """Shows a channel in the heatmap, with some on each side."""
        if x is not None and x >= 0:
            self._to_channels(side, int(x) - _AROUND, int(x) + _AROUND + 1, holds=int(x))

    def _to_channels(self, side: str, low: int, high: int, holds: int = 0) -> None:
        """Shows the channels from `low` to before `high` in the heatmap, if it has the one that it must hold."""
        norms, tensor = self._entry[f"{side}_l2"], self._model.tensor(self._entry.name)
        if norms is None or tensor is None or holds >= len(norms):
            return
        extent = matrix_of(tensor, self._model.checkpoint or ()).shape[0 if side == "row" else 1]
        width = extent / len(norms)
        window = max(low, 0) * width, min(high * width, extent)
        self._changed(rows=None, cols=None)
        self._changed(**{f"{side}s": window})
        self.show("heatmap")

    def _spectrum(self) -> Any:
        """The spectrum of the tensor's matrix, or of the one chosen among several."""
        rows = {row["part"]: row for row in self._model.report.matrices(self._entry.name)}
        if not rows:
            return note("this tensor has not been decomposed yet", self._theme)
        part = panel.widgets.Select(name="part", options=list(rows), value=next(iter(rows)), visible=len(rows) > 1)

        def draw(kind: Kind, chosen: str) -> Any:
            return spectrum(rows[chosen], kind=kind, theme=self._theme)

        plots = [
            panel.pane.HoloViews(panel.bind(draw, kind, part), sizing_mode="stretch_width", linked_axes=False)
            for kind in KINDS
        ]
        vectors = panel.bind(lambda chosen: self._vectors(rows[chosen]), part)
        return panel.Column(part, *plots, vectors, sizing_mode="stretch_both", scroll=True)

    def _vectors(self, row: dict[str, Any]) -> Any:
        rows, cols = (self._model.channel_name(row[side] or 0) for side in ("rows", "cols"))
        return side_by_side(singular_vectors(row, rows=rows, cols=cols, theme=self._theme))

    def _neurons(self) -> Any:
        """How similar the rows and the columns of the tensor's matrix are, and the neighbours of any one of them."""
        return neurons(self._model, self._entry.name, self._theme)

    def _projection(self) -> Any:
        """The maps of the tensor's rows or columns."""
        return ProjectionTab(self._model, self._entry, self._theme, self._to_channels).view

    def _circuit(self) -> Any:
        """What one of the tensor's units is built from, and what reads it."""
        checkpoint = self._model.checkpoint
        if checkpoint is None or self._entry.name not in checkpoint:
            return self._unreadable()
        return CircuitTab(checkpoint, self._entry.name, self._state.unit, self._theme, self._changed).view

    def _similarity(self) -> Any:
        tensor = self._model.tensor(self._entry.name)
        if tensor is None:
            return self._unreadable()
        names = self._model.checkpoint or ()
        return SimilarityTab(tensor, names, self._state, self._changed, self._say_error, self._waiting).view

    def _say_error(self, error: WeighbridgeError) -> None:
        self._say(str(error))

    def _unreadable(self) -> Any:
        return note(self._model.missing or "the tensor is not among those that can be read", self._theme)

    def _figures(self) -> Any:
        rows = "".join(
            f"<tr><th>{column.name}</th><td>{_text(self._entry[column.name])}</td><td>{escape(column.meaning)}</td></tr>"
            for column in SCAN
            if column.name in SCALARS
        )
        return html(f"<table class='figures'>{rows}</table>", self._theme)


class HeatmapTab:
    """The heatmap with its controls."""

    def __init__(
        self, matrix: Matrix, entry: Entry, state: State, changed: Changed, failed: Callable[[WeighbridgeError], None]
    ) -> None:
        from holoviews import streams

        self._matrix = matrix
        self._changed = changed
        self._locked: float | None = None
        self._reduction = panel.widgets.Select(
            name="reduction", options={text: key for key, text in MEANINGS.items()}, value=state.reduction, width=170
        )
        self._widen = panel.widgets.DiscreteSlider(
            name="limits times", options=list(_WIDENINGS), value=_nearest(state.widen), width=200
        )
        self._lock = panel.widgets.Checkbox(name="hold the limits", value=False)
        self._again = streams.Stream.define("Again", count=0)()
        self._heatmap = Heatmap(matrix, state.theme, rows=state.rows, cols=state.cols, failed=failed)
        image = self._heatmap.element(lambda: self._reduction.value, self._limit, self._again)
        self._heatmap.range.add_subscriber(self._moved)
        self._lock.param.watch(self._hold, "value")
        for widget in (self._reduction, self._widen):
            widget.param.watch(self._redraw, "value")
        norms = entry["row_l2"] is not None and matrix.shape == (len(entry["row_l2"]), len(entry["col_l2"]))
        shown = self._heatmap.beside_norms(image, entry) if norms else _alone(image)
        controls = panel.Row(self._reduction, self._widen, self._lock, *self._parts(), margin=0)
        self.view = panel.Column(controls, shown, sizing_mode="stretch_both", margin=0)

    def _parts(self) -> list[Any]:
        """A slider over the first axis of a tensor whose rows are folded from several, such as experts."""
        parts = self._matrix.axes[0][0] if len(self._matrix.axes[0]) > 1 else 0
        if not 1 < parts <= _SLIDER_PARTS or not isinstance(self._matrix, WeightMatrix):
            return []
        rows = self._matrix.shape[0] // parts
        slider = panel.widgets.IntSlider(name="part", start=0, end=parts - 1, width=200)
        slider.param.watch(
            lambda event: self._heatmap.go_to(rows=(event.new * rows, (event.new + 1) * rows)), "value_throttled"
        )
        return [slider]

    def _limit(self, found: Picture) -> float:
        if not self._lock.value or self._locked is None:
            self._locked = found.limit * self._widen.value
        return self._locked

    def _hold(self, event: Any) -> None:
        if not event.new:
            self._redraw()

    def _redraw(self, *_: Any) -> None:
        self._lock.value = False
        self._changed(reduction=self._reduction.value, widen=self._widen.value)
        self._again.event(count=self._again.count + 1)

    def _moved(self, x_range: Range | None, y_range: Range | None) -> None:
        self._changed(rows=within(y_range, self._matrix.shape[0]), cols=within(x_range, self._matrix.shape[1]))


def note(text: str, theme: Theme) -> Any:
    """A line in place of a picture."""
    return html(f"<p class='note'>{escape(text)}</p>", theme)


def _alone(image: Any) -> Any:
    return panel.pane.HoloViews(image, sizing_mode="stretch_both", margin=0)


def _nearest(widen: float) -> float:
    return min(_WIDENINGS, key=lambda known: abs(known - widen))


def _headline(entry: Entry, theme: Theme) -> Any:
    shape = _sides(entry["shape"])
    status = "" if entry["status"] == "done" else f" · {entry['status']}: {entry['reason']}"
    facts = f"{shape} · {entry['dtype']} · {entry['role']}{status}"
    return html(f"<h2>{escape(entry.name)} <small>{escape(facts)}</small></h2>", theme)


def _sides(shape: Iterable[int]) -> str:
    return " × ".join(f"{int(side):,}" for side in shape) or "scalar"


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):  # the one list among the scalars is the shape
        return _sides(value)
    if value is None or value != value:
        return "–"
    return escape(
        f"{value:.9g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    )
