"""An audit of a gap between two groups as one HTML file: what was tested, what was found, what closing it costs.

It is made from the tables of `weighbridge.bias` alone, loads nothing and runs no script.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup

from weighbridge.document.page import Figure
from weighbridge.document.shell import environment, iso, policy, style_sheet
from weighbridge.document.table import clipped, number
from weighbridge.views.bias import LABELS

if TYPE_CHECKING:
    import pandas as pd

    from weighbridge.report import Report

_TEXT, _UNITS, _LOOKED = 300, 500, 300
"""Characters of a name, units and prefixes of the search that a page holds; of more it says how many."""
_SPLITS = {"attribution": "attribution", "validation": "validation", "held_out": "held out"}
_GRAINS = {
    ("layer", "channel"): "channels of a layer",
    ("layer", "entry"): "single positions of a layer's map",
    ("tensor", "channel"): "output channels of a tensor of weights",
    ("tensor", "entry"): "single weights",
}


Row = Mapping[Any, Any]


class Line(NamedTuple):
    """A line of a table: its cells, and whether it stands out."""

    cells: list[str]
    marked: bool = False


def audit(report: "Report", *, at: datetime | None = None) -> str:
    """The audit page of a report with a table `bias`; `at` is the time of export, now by default.

    Raises `ReportError` where the report cannot be read.
    """
    analysis = report.manifest.analyses["bias"]
    options = analysis.options
    rows = report.table("bias")
    units = rows[rows["rank"].notna()].sort_values("rank", kind="stable")
    outcomes = report.table("bias_interventions")
    told = outcomes[outcomes["part"].isin(_SPLITS)]
    found = units[(units["p"] <= options["level"]) | units["named"].fillna(False)]
    style = style_sheet()
    return (
        environment()
        .get_template("audit.html.j2")
        .render(
            policy=policy(style),
            style=Markup(style),
            source=clipped(report.manifest.source, _TEXT),
            complete=analysis.status == "complete",
            verdict=_verdict(options, units, told),
            figures=list(_figures(options, units, told)),
            tested=list(_tested(options, rows, units)),
            groups=[clipped(name, _TEXT) for name in options["groups"]],
            splits=[Line([_SPLITS[name], *(f"{n:,}" for n in of.values())]) for name, of in options["splits"].items()],
            pictures=_pictures(report) if len(units) else [],
            sites=list(_sites(rows[rows["units"].notna()])),
            units=[_unit(row) for row in found.head(_UNITS).to_dict("records")],
            units_beyond=max(len(found) - _UNITS, 0),
            level=f"{options['level']:g}",
            confidence=f"{1 - options['level']:.0%}",
            outcomes=[_outcome(row) for row in told.to_dict("records")],
            accuracy_of=clipped(options["accuracy_of"] or "both groups", _TEXT),
            search=[_looked(row) for row in outcomes[~outcomes["part"].isin(_SPLITS)].head(_LOOKED).to_dict("records")],
            intervention=_changed(options),
            notes=[clipped(note, 4 * _TEXT) for note in options.get("notes", ())],
            limits=list(_limits(options)),
            provenance=list(_provenance(report, at or datetime.now(UTC))),
        )
    )


def _verdict(options: dict[str, Any], units: "pd.DataFrame", told: "pd.DataFrame") -> str:
    """What it comes to, in two sentences."""
    significant, named = int((units["p"] <= options["level"]).sum()), int(units["named"].fillna(False).sum())
    said = f"Of {len(units):,} units {significant:,} have a part of the gap beyond chance, {named:,} are named."
    rows = {row["name"]: row for row in told[told["part"] == "held_out"].to_dict("records")}
    before, after = rows.get("none"), rows.get(options["intervention"])
    if before is None or after is None:
        return said if named else f"{said} There is no set of units to change."
    cost = ""
    if after["accuracy"] == after["accuracy"]:
        of = options["accuracy_of"] or "both groups"
        cost = f"; accuracy ({of}) goes from {_percent(before['accuracy'])} to {_percent(after['accuracy'])}"
    return (
        f"{said} On inputs held out, changing these takes the gap from {_interval(before, 'gap')} to "
        f"{_interval(after, 'gap')}{cost}."
    )


def _figures(options: dict[str, Any], units: "pd.DataFrame", told: "pd.DataFrame") -> Iterator[Figure]:
    rows = {row["name"]: row for row in told[told["part"] == "held_out"].to_dict("records")}
    before, after = rows.get("none"), rows.get(options["intervention"])
    yield Figure("gap, held out", number(before["gap"]) if before else "not reached")
    if after is not None:
        yield Figure("gap after the change", number(after["gap"]))
        yield Figure("gap removed", _percent(after["removed"]))
        if after["accuracy"] == after["accuracy"]:
            yield Figure("accuracy, points", _points(after["accuracy_change"]))
    yield Figure("units tested", f"{len(units):,}")
    yield Figure("significant", f"{int((units['p'] <= options['level']).sum()):,}")
    yield Figure("named", f"{int(units['named'].fillna(False).sum()):,}")


def _tested(options: dict[str, Any], rows: "pd.DataFrame", units: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    first, second = (clipped(name, _TEXT) for name in options["groups"])
    yield "metric", str(options["metric"]).replace("_", " ")
    yield "gap", f"its mean over {first} less its mean over {second}"
    paired = options["design"] == "pairs"
    yield "design", "pairs of inputs that differ in one attribute" if paired else "two groups of inputs"
    for (kind, grain), said in _GRAINS.items():
        names = [*dict.fromkeys(rows["name"][(rows["kind"] == kind) & (rows["grain"] == grain)])]
        if names:
            yield said, clipped(", ".join(names), 4 * _TEXT)
    base = "the mean over the inputs of the attribution" if options["ablation"] == "mean" else "zero"
    yield "ablated network", f"activations at {base}{'; weights at zero' if _of_weights(options) else ''}"
    yield (
        "integral",
        f"{options['steps'][0]} to {options['steps'][1]} midpoint steps from the ablated to the full network",
    )
    chance = "flips of the signs of pairs" if paired else "permutations of the groups' labels"
    yield (
        "test",
        f"max-T over all {len(units):,} units, {options['permutations']:,} {chance}, level {options['level']:g}",
    )
    yield "intervals", f"bootstrap, {options['resamples']:,} resamples, {1 - options['level']:.0%}, percentiles"
    yield "key of all that is random", str(options["key"])
    yield (
        "the named set",
        f"shortest prefix of the ranking that takes {options['remove']:.0%} off the gap of the validation at under "
        f"{100 * options['lose']:g} points of accuracy ({clipped(options['accuracy_of'] or 'both groups', _TEXT)}), "
        f"units {_changed(options)}",
    )


def _of_weights(options: dict[str, Any]) -> bool:
    return bool(options["weights"] or options["entries"])


def _changed(options: dict[str, Any]) -> str:
    """What the search does to units."""
    return {
        "ablate": "set to zero",
        "rescale": f"multiplied by {options['rescale']:g}",
        "mean": f"replaced by their mean{' (weights: by zero)' if _of_weights(options) else ''}",
    }[options["intervention"]]


def _pictures(report: "Report") -> list[tuple[str, str]]:
    """The figure in the light and in the dark theme, as data URIs."""
    from weighbridge.views.bias_file import bias_picture

    drawn = ((theme, bias_picture(report, "png", theme=theme)) for theme in ("light", "dark"))
    return [(theme, f"data:image/png;base64,{b64encode(image).decode()}") for theme, image in drawn]


def _sites(rows: "pd.DataFrame") -> Iterator[Line]:
    for row in rows.to_dict("records"):
        figures = [number(row[c]) for c in ("attribution", "ablated_gap", "completeness_gap")]
        yield Line([clipped(row["name"], _TEXT), row["part"], f"{row['units']:,}", *figures, str(row["steps"])])


def _unit(row: Row) -> Line:
    ends = f"{row['low']:.3g} to {row['high']:.3g}"
    cells = [str(row["rank"]), clipped(row["name"], _TEXT), row["part"], f"{row['attribution']:.3g}", ends]
    named = row["named"] is True or row["named"] is np.True_
    return Line([*cells, _p(row["p"]), "named" if named else ""], named)


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 1e-4 else f"{value:.1e}"


def _outcome(row: Row) -> Line:
    known = row["accuracy"] == row["accuracy"]
    cells = [
        _SPLITS[row["part"]],
        LABELS[row["name"]],
        f"{row['units']:,}",
        _interval(row, "gap"),
        _percent(row["removed"]) if row["name"] != "none" else "",
        f"{row['mean_first']:.3g}",
        f"{row['mean_second']:.3g}",
        _interval(row, "accuracy", _percent) if known else "",
        _interval(row, "accuracy_change", _points) if known and row["name"] != "none" else "",
        _percent(row["accuracy_first"]),
        _percent(row["accuracy_second"]),
    ]
    return Line(cells, row["part"] == "held_out")


def _looked(row: Row) -> Line:
    return Line([f"{row['units']:,}", number(row["gap"]), _percent(row["accuracy"])])


def _limits(options: dict[str, Any]) -> Iterator[str]:
    yield (
        "The attribution says what in this network makes the gap on inputs like these. It does not say where in the "
        "data the gap comes from, nor that the groups differ in nothing else."
    )
    yield (
        "A unit's part counts what it does together with others: one whose own values are the same in both groups may "
        "have a part because what they do further on differs."
    )
    yield (
        "Adjusted p holds for the units of this one run together. A run that was chosen among several, or repeated "
        "with other layers or keys until it pleased, proves less than it says."
    )
    yield (
        "Adjusted p is against groups that do not differ at all. Where one is much smaller than the other and its "
        "values spread more, units of equal means may be found; groups of one size are safe from that."
    )
    yield "Intervals of units are each for itself, not for all together, and the ranking was made from the same inputs."
    yield (
        "The set was chosen on the validation inputs, so that its figures there are too good; those held out were not "
        "looked at before."
    )
    yield "Units that were not looked at may read the same attribute; another metric may have a gap that this leaves."
    yield "Accuracy is that of the inputs given. What the change does to other inputs, nobody has measured."
    if str(options["metric"]).startswith("true_positive_rate"):
        yield "What is attributed is the mean probability of the class, as the rate has no gradient; gaps are rates."
    if _of_weights(options):
        yield "Weights have no mean over inputs: where units are mean-replaced, weights are set to zero."


def _provenance(report: "Report", at: datetime) -> Iterator[tuple[str, str]]:
    manifest = report.manifest
    analysis = manifest.analyses["bias"]
    options = analysis.options
    yield "network", clipped(options["function"], _TEXT)
    held = options["parameters_hash"]
    yield "hash of all parameters", f"{held} (BLAKE3)" if held else "not known: the function holds its own"
    yield "hash of inputs and labels", f"{options['data_hash']} (BLAKE3)"
    yield "begun", options["made"]
    yield "state", f"{analysis.status}, {analysis.seconds:,.1f} s"
    yield "report", clipped(report.folder.absolute(), _TEXT)
    call = {
        name: value for name, value in options.items() if name not in ("notes", "parameters_hash", "data_hash", "made")
    }
    yield "options of weighbridge.bias", clipped(json.dumps(call, ensure_ascii=False), 10 * _TEXT)
    yield "made with", ", ".join(f"{package} {found}" for package, found in manifest.versions.items())
    yield "schema of the report", f"version {manifest.schema_version}"
    yield "exported", f"{iso(at)} by weighbridge {version('weighbridge')}"


def _interval(row: Row, column: str, form: Callable[[float], str] = "{:.3g}".format) -> str:
    return f"{form(row[column])} ({form(row[f'{column}_low']).removesuffix(' %')} to {form(row[f'{column}_high'])})"


def _percent(value: float) -> str:
    return "" if value != value else f"{100 * value:.1f} %"


def _points(value: float) -> str:
    """A change of a share, in points, with its sign."""
    return "" if value != value else f"{100 * value:+.1f}".replace("-", "−")
