"""The similarities of a tensor's rows or columns on the page, with their controls."""

from collections.abc import Callable, Collection
from typing import Any

import panel

from weighbridge.app.state import State
from weighbridge.checkpoints.protocol import Tensor
from weighbridge.errors import WeighbridgeError
from weighbridge.pyramid.similarity import MEANINGS as KIND_NAMES
from weighbridge.pyramid.similarity import NAMES, Preparation, SimilarityMatrix
from weighbridge.views.heatmap import Heatmap
from weighbridge.views.window import MEANINGS, Range

_ORDERS = {"as stored": "stored", "similar ones together": "seriated"}

Changed = Callable[..., None]
Wait = Callable[[Preparation, Callable[[SimilarityMatrix], Any]], Any]


class SimilarityTab:
    """The map of all pairs; `wait` shows a bar until they can be looked at, and then what is made of them."""

    def __init__(
        self,
        tensor: Tensor,
        names: Collection[str],
        state: State,
        changed: Changed,
        failed: Callable[[WeighbridgeError], None],
        wait: Wait,
    ) -> None:
        from holoviews import streams

        self._tensor = tensor
        self._names = names
        self._theme = state.theme
        self._window: tuple[Range | None, Range | None] = state.rows, state.cols
        self._changed = changed
        self._failed = failed
        self._wait = wait
        self._side = _select("similarities of", {f"{name}s": side for side, name in NAMES.items()}, state.side)
        self._kind = _select("kind", {name: kind for kind, name in KIND_NAMES.items()}, state.kind)
        self._order = _select("order", _ORDERS, state.order)
        self._reduction = _select("reduction", {text: key for key, text in MEANINGS.items()}, state.joined)
        self._again = streams.Stream.define("Again", count=0)()
        self._map = panel.Column(sizing_mode="stretch_both", margin=0)
        for widget in (self._side, self._kind, self._order):
            widget.param.watch(self._others, "value")
        self._reduction.param.watch(self._redraw, "value")
        controls = panel.Row(self._side, self._kind, self._order, self._reduction, margin=0)
        self.view = panel.Column(controls, self._map, sizing_mode="stretch_both", margin=0)
        self._prepare()

    def _prepare(self) -> None:
        preparation = Preparation(
            self._tensor, side=self._side.value, kind=self._kind.value, order=self._order.value, names=self._names
        )
        self._map.objects = [self._wait(preparation, self._mapped)]

    def _others(self, *_: Any) -> None:
        """Other pairs, which are looked at from the whole on."""
        self._window = None, None
        self._changed(side=self._side.value, kind=self._kind.value, order=self._order.value, rows=None, cols=None)
        self._prepare()

    def _redraw(self, *_: Any) -> None:
        self._changed(joined=self._reduction.value)
        self._again.event(count=self._again.count + 1)

    def _mapped(self, matrix: SimilarityMatrix) -> Any:
        rows, cols = self._window
        shown = Heatmap(matrix, self._theme, rows=rows, cols=cols, failed=self._failed)
        image = shown.element(lambda: self._reduction.value, lambda found: found.limit, self._again)
        shown.range.add_subscriber(lambda x_range, y_range: self._moved(matrix, x_range, y_range))
        return panel.pane.HoloViews(image, sizing_mode="stretch_both", margin=0)

    def _moved(self, matrix: SimilarityMatrix, x_range: Range | None, y_range: Range | None) -> None:
        self._changed(rows=within(y_range, matrix.shape[0]), cols=within(x_range, matrix.shape[1]))


def within(range_: Range | None, extent: int) -> Range | None:
    """A range in whole entries; None for all of them."""
    if range_ is None:
        return None
    low, high = max(round(min(range_), 1), 0.0), min(round(max(range_), 1), float(extent))
    return None if (low, high) == (0.0, float(extent)) or low >= high else (low, high)


def _select(name: str, options: dict[str, Any], value: str) -> Any:
    return panel.widgets.Select(name=name, options=options, value=value, width=170)
