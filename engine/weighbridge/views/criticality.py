"""What each task needs of a network: its channels, its layers, and how it fares as weights are removed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.report import Report
from weighbridge.views.colours import Theme, categories, colours
from weighbridge.views.frame import WIDTH, framed, load, number
from weighbridge.views.placeholder import placeholder

if TYPE_CHECKING:
    import pandas as pd

UNITS, WEIGHTS, CURVES = "criticality_units", "criticality", "criticality_curves"
UnitScore = Literal["leave_one_out", "taylor", "joint", "fisher"]
LayerScore = Literal["taylor", "joint", "fisher"]
Outcome = Literal["loss", "accuracy"]
MEANINGS = {
    "leave_one_out": "rise of the mean loss without it",
    "taylor": "Σ |mean of w ∂L/∂w|",
    "joint": "|mean of Σ w ∂L/∂w|",
    "fisher": "Σ mean of (∂L/∂w)²",
    "magnitude": "Σ |w|",
}
ALL = "all"
_QUANTILE = 0.98
"""Of the magnitudes that a grid shows, its colours' limit: a few units are often far above all others."""
_ROW, _HEAD = 26, 130
"""Pixels of a task's row, and of all that is around the rows."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """One layer's scores, (tasks, units), with the units in an order by the task that they serve most."""

    tasks: list[str]
    units: npt.NDArray[np.int64]
    scores: FloatArray
    kind: str
    idle: int


def grid(report: Report, layer: str, score: UnitScore) -> Grid:
    """What `criticality` draws. Units that score 0 for every task are only counted.

    Raises `BadArgument` for another score, a layer that is not in the report, and one that lacks the score.
    """
    if score not in get_args(UnitScore):
        raise BadArgument(f"score {score!r}; expected one of {', '.join(get_args(UnitScore))}")
    rows = report.matrices(layer, UNITS)
    if not rows:
        raise BadArgument(f"layer {layer!r} is not in the report; there is: {', '.join(unit_layers(report))}")
    rows = rows[1:] if len(rows) > 1 else rows
    scores = np.stack([row[f"unit_{score}"] for row in rows]).astype(np.float64)
    if np.isnan(scores).all():
        raise BadArgument(f"layer {layer!r} has no {score}; ask for it with leave_one_out=[{layer!r}]")
    live = np.flatnonzero(~(scores == 0).all(axis=0))
    served = np.nan_to_num(scores[:, live], nan=-np.inf)
    order = live[np.lexsort((-served.max(axis=0, initial=-np.inf), served.argmax(axis=0)))] if live.size else live
    idle = scores.shape[1] - live.size
    return Grid([row["part"] or ALL for row in rows], order, scores[:, order], rows[0]["kind"], idle)


def unit_layers(report: Report) -> list[str]:
    """The layers that have units in a report, in its order."""
    return list(dict.fromkeys(report.table(UNITS)["name"]))


def criticality(
    report: Report, layer: str, *, score: UnitScore = "leave_one_out", theme: Theme = "light", width: int = WIDTH
) -> Any:
    """A layer's channels or heads by task, as an `hv.Image`: a row each task, units by the task that they serve most.

    Leave-one-out has a sign: red is what a task needs, blue what it is better without. Colours saturate at the 0.98
    quantile of the magnitudes; NaN has a colour of its own. Units that score 0 for every task are left out, the title
    says how many. Raises what `grid` raises, `ReportError` without the table.
    """
    found, hv, paint = grid(report, layer, score), load(), colours(theme)
    if not found.units.size:
        return placeholder(f"{layer}: no {found.kind} matters to any task", theme=theme, width=width)
    signed = score == "leave_one_out"
    limit = _limit(found.scores)
    names = np.broadcast_to(found.units.astype(str), found.scores.shape)
    tasks = np.broadcast_to(np.array(found.tasks)[:, None], found.scores.shape)
    places = np.arange(len(found.units)), np.arange(len(found.tasks))
    box = (-0.5, -0.5, len(found.units) - 0.5, len(found.tasks) - 0.5)  # of one task its spacing would tell nothing
    picture = hv.Image((*places, found.scores, names, tasks), ["x", "y"], [score, found.kind, "task"], bounds=box)
    every = -(-len(found.units) // max(width // 32, 1))
    idle = f", {found.idle:,} that none needs left out" if found.idle else ""
    return framed(
        picture,
        f"{layer}: {MEANINGS[score]}, by {found.kind} and task{idle}",
        theme=theme,
        width=width,
        height=_HEAD + _ROW * len(found.tasks),
        cmap=list(paint.diverging if signed else paint.sequential),
        clim=(-limit if signed else 0.0, limit),
        clipping_colors={"NaN": paint.nan},
        colorbar=True,
        clabel="",
        tools=["hover"],
        invert_yaxis=True,
        xticks=[(int(i), str(found.units[i])) for i in places[0][::every]],
        yticks=[(int(i), task) for i, task in enumerate(found.tasks)],
        xlabel=f"{found.kind}, by the task that it serves most",
        ylabel="task",
    )


def _limit(scores: FloatArray) -> float:
    magnitudes = np.abs(scores[np.isfinite(scores)])
    return float(np.quantile(magnitudes, _QUANTILE)) if magnitudes.any() else 1.0


def criticality_layers(
    report: Report, *, score: LayerScore = "taylor", theme: Theme = "light", width: int = WIDTH
) -> Any:
    """Each tensor's sum of a score, as an `hv.Overlay`: all examples as bars' ends, a point for each task.

    Whiskers are standard errors over the examples, for scores that have them. On a logarithmic axis where values are
    positive. Raises `BadArgument` for another score, `ReportError` without the table.
    """
    if score not in get_args(LayerScore):
        raise BadArgument(f"score {score!r}; expected one of {', '.join(get_args(LayerScore))}")
    rows = report.table(WEIGHTS)
    rows = rows[rows["status"] == "done"]
    if rows.empty:
        return placeholder("no tensor has a criticality", theme=theme, width=width)
    hv, paint = load(), colours(theme)
    names = list(dict.fromkeys(rows["name"]))
    place = {name: i for i, name in enumerate(names)}
    tasks = [task for task in dict.fromkeys(rows["part"]) if task]
    shades = categories(max(len(tasks), 1), theme)
    layers = []
    for i, task in enumerate(tasks):
        of = rows[rows["part"] == task]
        x = np.array([place[name] for name in of["name"]]) + _beside(i, len(tasks))
        layers.append(_points(hv, x, of, score, task, shades[i], 5))
    whole = rows[rows["part"] == ""]
    x = np.array([place[name] for name in whole["name"]], float)
    values = whole[score].to_numpy(float)
    if f"{score}_error" in whole:
        bars = hv.ErrorBars((x, values, whole[f"{score}_error"].to_numpy(float)), "x", [score, "error"])
        layers.append(bars.opts(line_color=paint.text, backend="bokeh"))
    layers.append(_points(hv, x, whole, score, "all examples", paint.text, 9).opts(marker="diamond", size=11))
    positive = rows[score].to_numpy(float)
    return framed(
        hv.Overlay(layers),
        f"{report.manifest.source}: {MEANINGS[score]}, by tensor and task",
        theme=theme,
        width=width,
        height=400,
        xlabel="",
        ylabel=score,
        xticks=[(i, name) for i, name in enumerate(names)],
        xrotation=30,
        logy=bool((positive > 0).all()),
        legend_position="right",
        show_legend=True,
    )


def _beside(i: int, count: int) -> float:
    """Where a task's points stand beside a tensor's middle."""
    return 0.6 * ((i + 0.5) / count - 0.5)


def _points(hv: Any, x: FloatArray, rows: "pd.DataFrame", score: str, label: str, colour: str, size: int) -> Any:
    told = (rows["name"].to_numpy(object), np.full(len(rows), label, object))
    points = hv.Scatter((x, rows[score].to_numpy(float), *told), "x", [score, "tensor", "task"], label=label)
    return points.opts(color=colour, size=size, tools=["hover"], backend="bokeh")


def criticality_curves(report: Report, outcome: Outcome = "loss", *, theme: Theme = "light", width: int = WIDTH) -> Any:
    """Loss or accuracy as the weights of the highest scores are removed, with the areas, as an `hv.Overlay`.

    A line for each score, shaded down to the mean of the random orders; these are a band from the least to the
    greatest. Shares are on a scale of cube roots, so that small ones are seen apart. The legend gives each area.
    Raises `BadArgument` for another outcome, `ReportError` without the table.
    """
    if outcome not in get_args(Outcome):
        raise BadArgument(f"outcome {outcome!r}; expected one of {', '.join(get_args(Outcome))}")
    rows = report.table(CURVES, lists=True)
    if rows.empty or rows[outcome].map(lambda values: bool(np.isnan(values).all())).all():
        return placeholder(f"no ablation curve has a value in {outcome}", theme=theme, width=width)
    hv, paint = load(), colours(theme)
    random = rows[rows["name"] == "random"]
    shares = np.asarray(rows["shares"].iloc[0], np.float64)
    x = np.cbrt(shares)
    layers = []
    middle = None
    if len(random):
        drawn = np.stack(random[outcome].to_list())
        middle = drawn.mean(axis=0)
        band = hv.Area((x, drawn.min(axis=0), drawn.max(axis=0)), "share", ["low", "high"])
        layers.append(band.opts(color=paint.muted, alpha=0.35, line_alpha=0, backend="bokeh"))
    for i, row in enumerate(rows[rows["name"] != "random"].to_dict("records")):
        layers += _curve(
            hv, x, row, outcome, middle, paint.series[i % len(paint.series)], _DASH.get(row["name"], "solid")
        )
    if middle is not None:
        area = random[f"{outcome}_area"].to_numpy(float)
        label = f"{len(random)} random, area {area.mean():.3g}"
        line = hv.Curve((x, middle), "share", outcome, label=label)
        layers.append(line.opts(color=paint.muted, line_width=2, tools=["hover"], backend="bokeh"))
    return framed(
        hv.Overlay(layers),
        f"{report.manifest.source}: {outcome} without the weights of the highest scores",
        theme=theme,
        width=width,
        height=420,
        xlabel=f"share of {int(rows['weights'].iloc[0]):,} weights removed",
        ylabel="mean loss" if outcome == "loss" else "accuracy",
        xticks=[(float(at), f"{100 * share:.3g} %") for at, share in zip(x, shares, strict=True)],
        legend_position="right",
        show_legend=True,
    )


_DASH = {"magnitude": "dashed"}


def _curve(
    hv: Any, x: FloatArray, row: Mapping[Any, Any], outcome: str, middle: FloatArray | None, colour: str, dash: str
) -> list[Any]:
    """A score's line with its points, and the area between it and the random orders."""
    values = np.asarray(row[outcome], np.float64)
    label = f"{row['name']}, area {row[f'{outcome}_area']:.3g}"
    line = hv.Curve((x, values), "share", outcome, label=label)
    layers = [line.opts(color=colour, line_width=2, line_dash=dash, tools=["hover"], backend="bokeh")]
    layers.append(hv.Scatter((x, values), "share", outcome).opts(color=colour, size=6, backend="bokeh"))
    if outcome == "loss":
        errors = np.nan_to_num(np.asarray(row["loss_error"], np.float64))
        whiskers = hv.ErrorBars((x, values, errors), "share", [outcome, "error"])
        layers.append(whiskers.opts(line_color=colour, upper_head=None, lower_head=None, backend="bokeh"))
    if middle is not None:
        area = hv.Area((x, values, middle), "share", ["low", "high"])
        layers.insert(0, area.opts(color=colour, alpha=0.08, line_alpha=0, backend="bokeh"))
    return layers


@dataclass(frozen=True)
class Served:
    """Units of all layers: score over all examples, its selectivity, and the task served most; idle ones left out."""

    layer: list[str]
    unit: npt.NDArray[np.int64]
    score: FloatArray
    selectivity: FloatArray
    task: list[str]


def served(report: Report) -> Served:
    """What `criticality_selectivity` draws, of the score that the report's selectivity is of."""
    found = Served([], np.zeros(0, np.int64), np.zeros(0), np.zeros(0), [])
    for layer in unit_layers(report):
        whole, *tasks = report.matrices(layer, UNITS)
        if not tasks:
            continue
        column = f"unit_{whole['selectivity_of']}"
        index, score = np.asarray(whole["unit_selectivity"], float), np.asarray(whole[column], float)
        known = np.flatnonzero(np.isfinite(index))
        most = np.stack([row[column] for row in tasks])[:, known].argmax(axis=0)
        found = Served(
            found.layer + [layer] * len(known),
            np.concatenate([found.unit, known]),
            np.concatenate([found.score, score[known]]),
            np.concatenate([found.selectivity, index[known]]),
            found.task + [tasks[i]["part"] for i in most],
        )
    return found


def criticality_selectivity(report: Report, *, theme: Theme = "light", width: int = WIDTH) -> Any:
    """Every channel and head: how much all examples need it, and how far one task alone does, as an `hv.Overlay`.

    Colour is the task that a unit serves most. To the right stand units of one task, to the left what tasks share.
    Scores are on a scale of square roots. A report of one task gives a text; `ReportError` without the table.
    """
    found, hv, paint = served(report), load(), colours(theme)
    if not found.layer:
        return placeholder("one task alone: there is nothing to tell apart", theme=theme, width=width)
    tasks = list(dict.fromkeys(row for row in report.table(UNITS)["part"] if row))
    shades = categories(len(tasks), theme)
    owner, layer = np.array(found.task, object), np.array(found.layer, object)
    layers = []
    for task, shade in zip(tasks, shades, strict=True):
        of = owner == task
        if of.any():
            data = (
                found.selectivity[of],
                _root(found.score[of]),
                found.score[of],
                layer[of],
                found.unit[of],
                owner[of],
            )
            points = hv.Scatter(data, "selectivity", ["height", "score", "layer", "unit", "task"], label=task)
            layers.append(points.opts(color=shade, size=7, alpha=0.85, tools=["hover"], backend="bokeh"))
    zero = hv.HLine(0).opts(color=paint.grid, line_width=1, backend="bokeh")
    return framed(
        hv.Overlay([zero, *layers]),
        f"{report.manifest.source}: {len(found.layer):,} channels and heads, coloured by the task that they serve most",
        theme=theme,
        width=width,
        height=440,
        xlabel="selectivity (0: all tasks alike, 1: one task only)",
        ylabel=_score_label(report),
        yticks=_root_ticks(found.score),
        padding=0.05,
        legend_position="right",
        show_legend=True,
    )


def _root(values: FloatArray) -> FloatArray:
    """Square roots with the sign: of scores that are mostly near zero and decades apart, none is lost."""
    return np.asarray(np.sign(values) * np.sqrt(np.abs(values)))


def _root_ticks(values: FloatArray) -> list[tuple[float, str]]:
    """Round values over the range: 1 and 3 of three decades, on each side of zero that has some."""
    top = float(np.abs(values).max(initial=0.0))
    if not top > 0:
        return [(0.0, "0")]
    first = int(np.floor(np.log10(top)))
    steps = [m * 10.0 ** (first - d) for d in range(3) for m in (1, 3)]
    low, high = float(values.min()), float(values.max())
    least = 0.004 * top
    ticks = [sign * step for step in steps for sign in (1, -1) if step > least and low <= sign * step <= high]
    return [(float(_root(np.array(tick))), number(tick)) for tick in sorted({0.0, *ticks})]


def _score_label(report: Report) -> str:
    kinds = list(dict.fromkeys(report.table(UNITS)["selectivity_of"]))
    return MEANINGS[kinds[0]] if len(kinds) == 1 else "score"
