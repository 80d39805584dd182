"""One session of the page: the tensors on the left, what is looked at on the right, all of it in the address."""

import logging
from dataclasses import replace
from functools import partial
from html import escape
from typing import Any
from urllib.parse import urlencode

import panel

from weighbridge.analyses.findings import Finding, findings
from weighbridge.app.model import Model
from weighbridge.app.results import RESULTS
from weighbridge.app.state import State
from weighbridge.app.style import html, sheet
from weighbridge.app.table import TensorTable
from weighbridge.app.tensor_page import TensorPage, note
from weighbridge.errors import WeighbridgeError
from weighbridge.report.summary import summarize
from weighbridge.terminal import size
from weighbridge.views import depth, model_map, relations, ridge

MAP_COLUMNS = (
    "std",
    "absmax",
    "kurtosis",
    "mean",
    "sparsity_1e3",
    "entropy",
    "qerr_int4_32",
    "qerr_nf4_64",
    "qerr_fp8_e4m3",
    "outlier_rows",
    "outlier_cols",
    "count",
)
DEPTH_COLUMNS = ("alpha", "stable_rank")
_FOLLOW_MS = 2000
_LOG = logging.getLogger("weighbridge")


def page(model: Model) -> Any:
    """The page of a new session, as its address asks for."""
    return Page(model).view


class Page:
    """One session."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._location = panel.state.location
        query = self._location.search if self._location is not None else ""
        self._state, complaints = State.parse(query or "", MAP_COLUMNS)
        theme = self._state.theme
        panel.extension("tabulator", notifications=False, theme="dark" if theme == "dark" else "default")
        panel.config.raw_css = [sheet(theme)]
        panel.config.exception_handler = self._own_bug
        self._stamp = model.stamp()
        self._open: TensorPage | None = None
        self._alert = html("", theme, visible=False)
        self._weighed = "scan" in model.report.manifest.analyses
        self._results: dict[str, Any] = {}
        self._views = panel.FlexBox(margin=0)
        self._table = TensorTable(model.report.table(), self.open_tensor, theme) if self._weighed else None
        self._main = panel.Column(sizing_mode="stretch_both", margin=0, css_classes=["main"])
        self._summary = html(_summary(model), theme)
        self.view = self._layout()
        if self._state.tensor and self._weighed:
            self.open_tensor(self._state.tensor)
        elif self._state.result:
            self._show(self._state.result)
        else:
            self._begin()
        if complaints:
            self._say("; ".join(complaints))
        panel.state.add_periodic_callback(self._follow, _FOLLOW_MS)
        panel.state.on_session_destroyed(lambda context: self._close_tensor())

    def open_tensor(self, name: str) -> None:
        """Shows a tensor by its name; an unknown one is said to be so."""
        self._close_tensor()
        try:
            entry = self._model.report[name]
        except WeighbridgeError as error:
            self._say(str(error))
            self._overview()
            return
        if name != self._state.tensor:
            self._state = replace(self._state, tensor=name, rows=None, cols=None, unit="")
        self._hush()
        self._open = TensorPage(self._model, entry, self._state, self._change, self._say)
        self._main.objects = [self._open.view]
        self._change(tensor=name, result="")

    def _layout(self) -> Any:
        self._views.objects = self._buttons()
        side = panel.Column(
            html(f"<h1>{escape(self._model.name)}</h1>", self._state.theme),
            self._views,
            *([self._table.view] if self._table is not None else [self._summary]),
            css_classes=["side"],
            sizing_mode="stretch_height",
            width=620 if self._weighed else 340,
            margin=0,
        )
        body = panel.Row(side, self._main, sizing_mode="stretch_both", margin=0)
        return panel.Column(self._alert, body, sizing_mode="stretch_both", margin=0)

    def _buttons(self) -> list[Any]:
        """Where a person can go: the tensors' views where they are weighed, and a tab for each result that is held."""
        tensors = [
            _button("Model", lambda: self._leave(self._overview)),
            _button("Findings", lambda: self._leave(self._findings)),
        ]
        results = [_button(RESULTS[table].label, partial(self._show, table)) for table in self._held()]
        theme = _button("Dark" if self._state.theme == "light" else "Light", self._turn_theme)
        return [*(tensors if self._weighed else []), *results, theme]

    def _held(self) -> list[str]:
        """The tables of the report that have a tab."""
        analyses = self._model.report.manifest.analyses
        return [table for table in RESULTS if table in analyses]

    def _begin(self) -> None:
        """What is shown first: the overview of a model, else the first result."""
        if self._weighed:
            self._overview()
        elif held := self._held():
            self._show(held[0])
        else:
            tables = ", ".join(self._model.report.manifest.analyses) or "no table yet"
            said = f"this report holds {tables}; print it with: weighbridge show"
            self._main.objects = [note(said, self._state.theme)]

    def _show(self, table: str) -> None:
        """The tab of a table, which is built once; what is not there is said to be so."""
        self._close_tensor()
        self._hush()
        if table not in self._held():
            self._say(f"result={table!r} in the address: this report holds {', '.join(self._held()) or 'none'}")
            self._change(result="")
            self._begin()
            return
        try:
            if table not in self._results:
                self._results[table] = RESULTS[table].tab(self._model.report, self._state.theme)
            self._main.objects = [self._results[table]]
        except WeighbridgeError as error:
            self._main.objects = [note(str(error), self._state.theme)]
        self._change(result=table, tensor="", rows=None, cols=None)

    def _overview(self) -> None:
        """Summary, map and the distributions by layer."""
        column = panel.widgets.Select(name="colour", options=list(MAP_COLUMNS), value=self._state.column, width=170)
        column.param.watch(lambda event: self._change(column=event.new), "value")
        report = self._model.report

        def mapped(chosen: str) -> Any:
            drawn = model_map(report, chosen, theme=self._state.theme)
            _on_tap(drawn, self.open_tensor)
            return drawn

        self._main.objects = [
            self._summary,
            column,
            panel.pane.HoloViews(panel.bind(mapped, column), sizing_mode="stretch_width", linked_axes=False),
            panel.pane.HoloViews(
                ridge(report, theme=self._state.theme), sizing_mode="stretch_width", linked_axes=False
            ),
            *self._depths(),
        ]

    def _depths(self) -> list[Any]:
        """Figures of the spectra by layer, and what the layers share, where the report has them."""
        report = self._model.report
        held, plots = report.manifest.analyses, []
        if "spectra" in held:
            plots += [depth(report, figure, theme=self._state.theme) for figure in DEPTH_COLUMNS]
        if "relations" in held:
            plots.append(relations(report, theme=self._state.theme))
        return [panel.pane.HoloViews(plot, sizing_mode="stretch_width", linked_axes=False) for plot in plots]

    def _findings(self) -> None:
        found = findings(self._model.report)
        if not found:
            self._main.objects = [note("no findings", self._state.theme)]
            return
        self._main.objects = [self._finding(finding) for finding in found]

    def _finding(self, finding: Finding) -> Any:
        """One finding; its tensors can be had in the table."""
        text = (
            f"<p class='finding {finding.severity}'><b>{escape(finding.severity)}</b> {escape(finding.summary)} "
            f"<small>{escape(finding.check)}</small><br><span>{escape(finding.evidence)}</span></p>"
        )
        count = f"{len(finding.rows):,} tensor{'s' if len(finding.rows) > 1 else ''}"
        table = self._table
        shown = _button(count, lambda: table.keep(finding.rows, finding.check) if table is not None else None)
        return panel.Row(html(text, self._state.theme), shown, sizing_mode="stretch_width")

    def _leave(self, to: Any) -> None:
        self._close_tensor()
        self._hush()
        self._change(tensor="", result="", rows=None, cols=None)
        to()

    def _close_tensor(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _change(self, **changes: Any) -> None:
        """Notes what is shown, and puts it into the address."""
        self._state = replace(self._state, **changes)
        if self._location is not None:
            said = {key: text for key, text in self._state.query().items() if text is not None}
            self._location.search = f"?{urlencode(said)}" if said else ""

    def _turn_theme(self) -> None:
        self._change(theme="dark" if self._state.theme == "light" else "light")
        if self._location is not None:
            self._location.reload = True

    def _say(self, text: str) -> None:
        self._alert.object = f"<p class='alert' role='alert'>{escape(' '.join(text.split()))}</p>"
        self._alert.visible = True

    def _own_bug(self, error: Exception) -> None:
        """What no part of the page expects is said and logged, and costs nothing but the event that it came from."""
        _LOG.error("the page failed", exc_info=error)
        self._say(f"this is a bug of Weighbridge, and its log has more: {type(error).__name__}: {error}")

    def _hush(self) -> None:
        self._alert.visible = False

    def _follow(self) -> None:
        """Shows what a scan that goes on has added."""
        try:
            if self._model.trouble:
                self._say(self._model.trouble)
            stamp = self._model.stamp()
            if stamp != self._stamp:
                self._stamp = stamp
                self._views.objects = self._buttons()
                if self._table is not None:
                    self._table.update(self._model.report.table())
                elif not self._results:
                    self._begin()
                self._summary.object = _summary(self._model)
                if self._weighed and self._open is None and self._summary in self._main.objects:
                    self._overview()
        except WeighbridgeError as error:
            self._say(str(error))


def _summary(model: Model) -> str:
    """The model in a line or two, or the run."""
    report = model.report
    if "scan" not in report.manifest.analyses:
        done = [
            f"{name}{'' if of.status == 'complete' else ', goes on'}" for name, of in report.manifest.analyses.items()
        ]
        return f"<p>{escape(' · '.join(done))}</p>"
    rows = report.table()
    figures = summarize(rows)
    bad = figures.nan + figures.inf
    facts = [
        f"{figures.tensors:,} tensors",
        f"{figures.parameters:,} parameters",
        size(figures.nbytes),
        " ".join(f"{name} {size(n)}" for name, n in figures.bytes_by_dtype.items()),
        f"{figures.nan:,} NaN, {figures.inf:,} Inf" if bad else "all finite",
    ]
    if figures.entropy is not None:
        facts.append(f"{figures.entropy:.2f} bits a weight")
    if figures.failed:
        facts.append(f"{figures.failed:,} not read")
    if not report.complete:
        facts.append("scan goes on or was interrupted")
    source = "" if model.checkpoint is not None else f"<br>Stored results only: {escape(model.missing)}"
    return f"<p>{escape(' · '.join(fact for fact in facts if fact))}{source}</p>"


def _button(name: str, act: Any) -> Any:
    button = panel.widgets.Button(name=name)
    button.on_click(lambda _: act())
    return button


def _on_tap(element: Any, act: Any) -> None:
    """A click on a cell of the map opens its tensor."""
    from holoviews import streams

    selection = streams.Selection1D(source=element)

    def tapped(index: list[int]) -> None:
        if index:
            act(str(element.dimension_values("name")[index[0]]))

    selection.add_subscriber(tapped)
