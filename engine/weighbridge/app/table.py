"""The table of tensors: searched, sorted and filtered on the server, a page of it at a time in the browser."""

import fnmatch
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import panel

from weighbridge.views.colours import Theme

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("name", "role", "layer", "shape", "dtype", "nbytes", "std", "absmax", "kurtosis", "zeros", "qerr_int4_32")
_WIDTHS = {"name": 330, "role": 90, "layer": 60, "shape": 100, "dtype": 60}
_PAGE = 25


class TensorTable:
    """The rows of a report, each a click from its tensor."""

    def __init__(self, rows: "pd.DataFrame", opened: Callable[[str], None], theme: Theme) -> None:
        self._opened = opened
        self._kept: frozenset[str] | None = None
        self._search = panel.widgets.TextInput(
            placeholder="part of a name, * for anything; Enter opens the first",
            name="search tensors",
            sizing_mode="stretch_width",
        )
        self._only = panel.widgets.Button(name="", visible=False)
        self._table = panel.widgets.Tabulator(
            _shown(rows),
            disabled=True,
            show_index=False,
            pagination="remote",
            page_size=_PAGE,
            selectable=1,
            header_filters={"role": {"type": "input"}, "dtype": {"type": "input"}},
            widths=_WIDTHS,
            formatters=_formatters(),
            sizing_mode="stretch_both",
            layout="fit_data_fill",
            theme="midnight" if theme == "dark" else "simple",
            margin=0,
        )
        self._table.add_filter(self._matching)
        self._table.param.watch(lambda event: self._open(), "selection")
        self._search.param.watch(lambda event: self._filter(), "value_input")
        self._search.param.watch(lambda event: self._open_first(), "enter_pressed")
        self._only.on_click(lambda _: self.keep(None, ""))
        self.view = panel.Column(self._search, self._only, self._table, sizing_mode="stretch_both", margin=0)

    def update(self, rows: "pd.DataFrame") -> None:
        """Shows other rows, filters and order as they are."""
        self._table.value = _shown(rows)

    def keep(self, names: Collection[str] | None, why: str) -> None:
        """Only these tensors, or all for None; a button says why and takes it back."""
        self._kept = None if names is None else frozenset(names)
        self._only.name = f"only {why} ✕"
        self._only.visible = names is not None
        self._filter()

    def _filter(self) -> None:
        self._table.page = 1
        self._table._update_cds()

    def _matching(self, rows: "pd.DataFrame") -> "pd.DataFrame":
        text = (self._search.value_input or "").strip().lower()
        found = rows if self._kept is None else rows[rows["name"].isin(self._kept)]
        if not text:
            return found
        return found[[fnmatch.fnmatchcase(name.lower(), f"*{text}*") for name in found["name"]]]

    def _open(self) -> None:
        chosen = self._table.selected_dataframe
        if len(chosen):
            self._opened(str(chosen["name"].iloc[0]))

    def _open_first(self) -> None:
        view = self._table.current_view
        if len(view):
            self._opened(str(view["name"].iloc[0]))


def _shown(rows: "pd.DataFrame") -> "pd.DataFrame":
    shown = rows[list(_COLUMNS)].copy()
    shown["shape"] = shown["shape"].map(lambda sides: " × ".join(map(str, sides)))
    return shown


def _formatters() -> dict[str, Any]:
    """Figures to four digits; text as text, whatever it holds."""
    from bokeh.models.widgets.tables import HTMLTemplateFormatter

    number = HTMLTemplateFormatter(template="<%- value == null || isNaN(value) ? '' : Number(value.toPrecision(4)) %>")
    texts = {key: {"type": "plaintext"} for key in ("name", "role", "shape", "dtype")}
    return texts | dict.fromkeys(("std", "absmax", "kurtosis", "qerr_int4_32"), number)
