"""What a reviewer wants to be told: checks over a report's rows, each finding with its evidence.

`CHECKS` is the list; an analysis that adds a table adds its checks here.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from weighbridge.analyses.initialisers import initialiser
from weighbridge.errors import BadArgument

if TYPE_CHECKING:
    import pandas as pd

    from weighbridge.report import Report

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""Worst first."""

_WEIGHTS = ("F64", "F32", "F16", "BF16", "F8_E5M2", "F8_E4M3", "F8_E5M2FNUZ", "F8_E4M3FNUZ", "F6_E2M3", "F6_E3M2", "F4")
_LARGEST = {"F8_E4M3": 448.0, "F8_E5M2": 57344.0, "F8_E4M3FNUZ": 240.0, "F8_E5M2FNUZ": 57344.0}
_SIGNED = re.compile(r"(?:quant_map|zero_points?|biases)$")
"""What has the role of scales and may have any sign; so may MLX's `scales`, which lie beside `biases`."""
_SATURATED_SHARE = 1e-3
_OUTLIER_FACTOR = 8.0
_MIN_PEERS = 4
_MIN_WEIGHTS = 1024
_MIN_SIDE = 32
"""Short side below which a spectrum says little."""
_MIN_TAIL = 20
_PHASES = "Martin and Mahoney 2021, JMLR 22, 165"
_STABLE = "stable rank: Rudelson and Vershynin 2007"
_COLLAPSED = 1.5
_NOISE = 0.9


@dataclass(frozen=True)
class Finding:
    """One thing worth a look. `rows` are the names of the tensors it stands on; `evidence` says the figures."""

    check: str
    severity: Severity
    summary: str
    evidence: str
    rows: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """A check gives for each tensor it objects to a line of evidence; those of one check make one finding."""

    name: str
    severity: Severity
    summary: str
    find: Callable[["pd.DataFrame"], Iterator[tuple[str, str]]]
    over: Literal["done", "all"] = "done"
    """The rows it is shown: those whose tensor was read, or all."""
    table: str = "scan"
    """The analysis whose rows it is shown; a report without it has none of its findings."""


def findings(report: "Report") -> list[Finding]:
    """All findings of a report, worst first; within a severity in the order of `CHECKS`."""
    tables = {name: report.table(name) for name in {check.table for check in CHECKS} & set(report.manifest.analyses)}
    found = []
    for check in CHECKS:
        if check.table not in tables:
            continue
        rows = tables[check.table]
        hits = list(check.find(rows[rows["status"] == "done"] if check.over == "done" else rows))
        if hits:
            names = tuple(name for name, _ in hits)
            found.append(Finding(check.name, check.severity, check.summary, _evidence(hits), names))
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def reaches(found: list[Finding], severity: str) -> bool:
    """Whether a finding is at or above a severity. Raises `BadArgument` for an unknown one."""
    if severity not in SEVERITIES:
        raise BadArgument(f"severity {severity!r}; expected one of {', '.join(SEVERITIES)}")
    return any(SEVERITIES.index(finding.severity) <= SEVERITIES.index(severity) for finding in found)


def _evidence(hits: list[tuple[str, str]], shown: int = 3) -> str:
    text = "; ".join(f"{name}: {evidence}" for name, evidence in hits[:shown])
    return text + (f"; and {len(hits) - shown:,} more" if len(hits) > shown else "")


def _records(rows: "pd.DataFrame") -> Iterator[dict[str, Any]]:
    """Rows as plain values, None for null."""
    for record in rows.astype(object).where(rows.notna(), None).to_dict("records"):
        yield {str(key): value for key, value in record.items()}


def _weights(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Floating tensors with entries, codes and scales apart."""
    return rows[rows["dtype"].isin(_WEIGHTS) & ~rows["role"].isin(["codes", "scales"]) & (rows["count"] > 0)]


def _unread(rows: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    for row in _records(rows[rows["status"] != "done"]):
        yield row["name"], f"{row['status']}, {row['reason']}"


def _not_finite(rows: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    bad = rows[(rows[["nan", "posinf", "neginf"]].fillna(0).sum(axis=1) > 0)]
    for row in _records(bad):
        yield row["name"], f"{row['nan']:,} NaN, {row['posinf']:,} +Inf, {row['neginf']:,} -Inf of {row['count']:,}"


def _all_zero(rows: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    weights = _weights(rows)
    for row in _records(weights[(weights["zeros"] == weights["count"]) & ~weights["role"].isin(["bias", "norm"])]):
        yield row["name"], f"all {row['count']:,} entries are 0"


def _constant(rows: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    weights = _weights(rows)
    constant = (weights["min"] == weights["max"]) & (weights["count"] > 1) & (weights["zeros"] < weights["count"])
    for row in _records(weights[constant & ~weights["role"].isin(["norm", "bias"])]):
        yield row["name"], f"all {row['count']:,} entries are {row['min']:g}"


def _initialised(rows: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    """Norms still at one or zero, biases still at zero, matrices still flat or normal at an initialiser's width."""
    for row in _records(_weights(rows)):
        match = initialiser(row)
        if match:
            yield row["name"], match


def _dead(rows: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    weights = _weights(rows)
    dead = weights[["dead_rows", "dead_cols"]].fillna(0).astype(int)
    hits = weights[(dead.sum(axis=1) > 0) & (weights["zeros"] < weights["count"])]
    for row in _records(hits):
        shape = "×".join(map(str, row["shape"]))
        yield row["name"], f"{_channels(row['dead_rows'], row['dead_cols'])} of {shape} are all 0"


def _channels(rows: int | None, cols: int | None) -> str:
    counts = [f"{n:,} {side}{'s' if n > 1 else ''}" for n, side in ((rows or 0, "row"), (cols or 0, "column")) if n]
    return " and ".join(counts)


def _outlier_channels(rows: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    weights = _weights(rows)
    outliers = weights[["outlier_rows", "outlier_cols"]].fillna(0).astype(int)
    for row in _records(weights[outliers.sum(axis=1) > 0]):
        channels = _channels(row["outlier_rows"], row["outlier_cols"])
        yield row["name"], f"{channels} beyond 6 times the median norm"


def _outlier_tensors(rows: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    """Tensors whose std or absmax is far from the median of their peers: the same tensor of the other layers."""
    weights = _weights(rows)
    weights = weights[weights["count"] > 1]
    place = weights["name"].str.replace(r"\d+", "*", regex=True)
    for (role, _), peers in weights.groupby([weights["role"], place], sort=False):
        if len(peers) < _MIN_PEERS:
            continue
        for column in ("std", "absmax"):
            median = peers[column].median()
            for name, value in zip(peers["name"], peers[column], strict=True):
                times = value / median if median > 0 else 1.0
                if times > _OUTLIER_FACTOR or 0 < times < 1 / _OUTLIER_FACTOR:
                    yield name, f"{column} {value:.3g} is {times:.3g} times the median of its {len(peers)} {role} peers"


def _disguised(rows: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    wide = rows[rows["dtype"].isin(["F32", "F64"]) & (rows["effective_dtype"] != rows["dtype"])]
    wide = wide[(wide["count"] >= _MIN_WEIGHTS) & (wide["min"] != wide["max"])]
    for row in _records(wide):
        bits = {"F32": 32, "BF16": 16, "F16": 16}[row["effective_dtype"]]
        saved = row["nbytes"] - row["count"] * bits // 8
        yield row["name"], f"{row['dtype']} holds {row['effective_dtype']} values, {saved:,} bytes too many"


def _tied(rows: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    tied = rows[rows["tied_to"].notna() & (rows["count"] > 1) & (rows["min"] != rows["max"])]
    for row in _records(tied):
        yield row["name"], f"same bytes as {row['tied_to']}"


def _saturated(rows: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    """float8 tensors with more entries at the largest value than a fit scale leaves there (the share beyond 0.9999)."""
    for row in _records(rows[rows["dtype"].isin(_LARGEST) & ~rows["role"].isin(["scales"])]):
        largest = _LARGEST[row["dtype"]]
        if row["q999"] is not None and (row["q999"] >= largest or row["q001"] <= -largest):
            yield (
                row["name"],
                f"{_SATURATED_SHARE:.1%} of entries or more on a side are ±{largest:g}, the largest of {row['dtype']}",
            )


def _clipping_scales(rows: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    """Scales that are zero, negative or not finite, or power-of-two scales at the end of their range."""
    scales = rows[(rows["role"] == "scales") & rows["dtype"].isin([*_WEIGHTS, "F8_E8M0"]) & (rows["count"] > 0)]
    names = set(rows["name"])
    for row in _records(scales):
        name = row["name"]
        signed = _SIGNED.search(name) or (name.endswith("scales") and name.removesuffix("scales") + "biases" in names)
        if row["min"] is not None and row["min"] <= 0 and not signed:
            yield row["name"], f"{row['zeros']:,} zero scales, least {row['min']:g}; a scale must be positive"
        elif row["dtype"] == "F8_E8M0" and row["max"] is not None and row["max"] >= 2.0**127:
            yield row["name"], "greatest scale is 2^127, the end of E8M0's range"
        elif row["q99"] is not None and row["q99"] >= _LARGEST.get(row["dtype"], math.inf):
            yield row["name"], f"1 % of scales or more are {row['max']:g}, the largest of {row['dtype']}"


def _sparse(rows: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    weights = _weights(rows)
    for row in _records(weights[(weights["sparsity_2of4"] >= 0.999) & (weights["zeros"] < weights["count"])]):
        share = row["zeros"] / row["count"]
        yield row["name"], f"{row['sparsity_2of4']:.2%} of groups of four have two zeros ({share:.1%} zeros)"


def _low_rank(rows: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    """Matrices that a product of two thin ones would hold: more than half of the singular values within the noise."""
    short = rows[["rows", "cols"]].min(axis=1)
    for row in _records(rows[(rows["rank"] < short / 2) & (rows["rank"] > 0) & (short >= _MIN_SIDE)]):
        yield row["name"], f"{_part(row)}rank {row['rank']:,} of {min(row['rows'], row['cols']):,}"


def _collapsed(rows: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    """Matrices whose energy is nearly all in one direction: a stable rank below 1.5."""
    short = rows[["rows", "cols"]].min(axis=1)
    for row in _records(rows[(rows["stable_rank"] < _COLLAPSED) & (short >= _MIN_SIDE)]):
        yield row["name"], f"{_part(row)}stable rank {row['stable_rank']:.3g}: one direction holds most of its energy"


def _near_random(rows: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    """Matrices whose spectrum is that of noise: no eigenvalue beyond the bulk of Marchenko and Pastur."""
    short = rows[["rows", "cols"]].min(axis=1)
    noise = (rows["mp_spikes"] == 0) & (rows["mp_soft_rank"] > _NOISE) & (short >= _MIN_SIDE)
    for row in _records(rows[noise]):
        yield row["name"], f"{_part(row)}no eigenvalue beyond noise of sigma {row['mp_sigma']:.3g}"


def _alpha_outside(rows: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    """Tails surely outside of what well trained layers have: alpha from 2 to 6, by two standard errors."""
    judged = rows[(rows["alpha_tail"] >= _MIN_TAIL) & rows["alpha"].notna()]
    beyond = (judged["alpha"] + 2 * judged["alpha_sigma"] < 2) | (judged["alpha"] - 2 * judged["alpha_sigma"] > 6)
    for row in _records(judged[beyond]):
        yield row["name"], f"{_part(row)}alpha {row['alpha']:.2f} ± {row['alpha_sigma']:.2f}, expected from 2 to 6"


def _duplicates(rows: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    """Neurons that are the same as another, up to the threshold that the analysis was given."""
    yield from _groups(rows, "duplicates", "same direction as another's")


def _opposites(rows: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    """Neurons that are the opposite of another."""
    yield from _groups(rows, "opposites", "opposite direction of another's")


def _groups(rows: "pd.DataFrame", column: str, what: str) -> Iterator[tuple[str, str]]:
    counts = rows[[f"row_{column}", f"col_{column}"]].fillna(0).astype(int)
    for row in _records(rows[counts.sum(axis=1) > 0]):
        channels = _channels(row[f"row_{column}"], row[f"col_{column}"])
        yield row["name"], f"{_part(row)}{channels} have the {what}"


def _part(row: dict[str, Any]) -> str:
    return f"part {row['part']}: " if row["part"] else ""


CHECKS = (
    Check("unread", "error", "tensors could not be read", _unread, over="all"),
    Check("not-finite", "error", "tensors hold NaN or Inf", _not_finite),
    Check("all-zero", "error", "weight tensors are all zero", _all_zero),
    Check("clipping-scales", "error", "scales clip or are not positive", _clipping_scales),
    Check("constant", "warning", "weight tensors hold one value only", _constant),
    Check("initialised", "warning", "tensors look as an initialiser leaves them", _initialised),
    Check("dead-channels", "warning", "channels are all zero", _dead),
    Check("saturated", "warning", "float8 tensors saturate", _saturated),
    Check("outlier-tensors", "warning", "tensors differ far from others of their role", _outlier_tensors),
    Check("outlier-channels", "info", "channels have outlying norms", _outlier_channels),
    Check("wide-storage", "info", "values would fit a narrower dtype exactly", _disguised),
    Check("tied", "info", "tensors have the same content", _tied),
    Check("sparse-2of4", "info", "sparsity that 2:4 hardware could use", _sparse),
    Check("low-rank", "info", f"matrices are of low rank ({_PHASES})", _low_rank, table="spectra"),
    Check("rank-collapse", "warning", f"matrices act along one direction ({_STABLE})", _collapsed, table="spectra"),
    Check("near-random", "warning", f"matrices have the spectrum of noise ({_PHASES})", _near_random, table="spectra"),
    Check("duplicate-neurons", "info", "neurons do the same as others", _duplicates, table="correlations"),
    Check("opposite-neurons", "info", "neurons do the opposite of others", _opposites, table="correlations"),
    Check("alpha", "info", f"tails are not those of trained layers ({_PHASES})", _alpha_outside, table="spectra"),
)
