"""Bias: which units stand behind a gap between two groups of inputs, and what closing it costs."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.models import bias_report
from weighbridge.models.bias_attribution import Attribution, SiteSum, attributed
from weighbridge.models.bias_case import Case
from weighbridge.models.bias_data import SHARES, SPLITS, IntArray, Rows, Split, read
from weighbridge.models.bias_outcomes import INTERVENTIONS, Intervention, Judge, Outcome, Sampling
from weighbridge.models.bias_report import BiasReport, unit_names
from weighbridge.models.bias_search import Aim, Found, shortest
from weighbridge.models.bias_significance import MaxT, intervals, max_t
from weighbridge.models.bias_sites import Ablation, rank_by_site

IfExists = Literal["error", "overwrite"]
Design = Literal["groups", "pairs"]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Units:
    """Every unit's part of the gap and what it is worth, (units,) in the order of the sites that the call named.

    `low` and `high` are the ends of the attribution's interval, `p` is adjusted for all units together, `threshold` is
    what |attribution| has to exceed for p to be within the level, and `rank`, from 1, goes by what makes the gap.
    `order` has the candidates for the named set, as indices, most of the gap first.
    """

    names: tuple[str, ...]
    attribution: FloatArray
    low: FloatArray
    high: FloatArray
    statistic: FloatArray
    p: FloatArray
    threshold: FloatArray
    rank: IntArray
    significant: BoolArray
    named: BoolArray
    order: IntArray

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """What the report's table has of each unit."""
        known = ("attribution", "low", "high", "statistic", "p", "threshold", "rank", "named")
        return {name: getattr(self, name) for name in known}


@dataclass(frozen=True, eq=False)
class Bias:
    """Units with their parts of the gap, sites with their sums, and what changing the named units does.

    `reached` says whether the named set removes as much as was asked for; `splits` has for each part the rows of both
    groups, in the array that has the first group's inputs before the second's; `notes` say what limits the result.
    """

    metric: str
    groups: tuple[str, str]
    units: Units
    reached: bool
    sites: tuple[SiteSum, ...]
    outcomes: tuple[Outcome, ...]
    splits: dict[Split, Rows]
    notes: tuple[str, ...]

    def outcome(self, intervention: Literal["none"] | Intervention, split: Split = "held_out") -> Outcome:
        """Gap and accuracy of a split before ("none") or after an intervention. Raises `BadArgument` where none was."""
        for found in self.outcomes:
            if (found.intervention, found.split) == (intervention, split):
                return found
        raise BadArgument(f"no outcome of {intervention!r} on {split!r}; without a named set there is only 'none'")


def bias(
    function: Any,
    groups: Mapping[str, Any],
    labels: Mapping[str, Any] | None = None,
    *,
    key: int,
    metric: Any = "probability",
    target: int | None = None,
    design: Design = "groups",
    layers: Sequence[str] = (),
    positions: Sequence[str] = (),
    weights: Sequence[str] = (),
    entries: Sequence[str] = (),
    params: Any = None,
    channel_axis: int = -1,
    ablation: Ablation = "mean",
    steps: tuple[int, int] = (32, 256),
    splits: Sequence[float] | Mapping[str, Any] = SHARES,
    permutations: int = 9999,
    resamples: int = 2000,
    level: float = 0.05,
    intervention: Intervention = "mean",
    rescale: float = 0.5,
    remove: float = 0.8,
    lose: float = 0.01,
    accuracy_of: str | None = None,
    count: int | None = None,
    memory: int | None = None,
    report: str | os.PathLike[str] | None = None,
    name: str = "bias",
    if_exists: IfExists = "error",
) -> Bias:
    """Which units make the gap between two groups of inputs, which of them to change, and what that changes.

    The gap is the mean of a metric over the first group less that over the second:

    - "score": the output, of several that of class `target`; "probability": its softmax (of one output, its sigmoid).
    - "true_positive_rate": the share of the inputs labelled `target` that the network says so of; what is attributed is
      the mean probability instead, which has a gradient.
    - A function of (outputs, labels) that gives a number for each input, or a pair of such: one with a gradient, which
      is attributed, and the exact one.

    `groups` maps two names to arrays of inputs, and `labels` the same names to labels; a group may also be an iterable
    of batches, of inputs or of pairs (inputs, labels), from which `count` inputs are taken. With `design="pairs"` the
    i-th inputs of both groups are one, but for one attribute. `function` and `params` are as for `saliency`.

    1. *Attribution*, on the first split. A unit is a channel of an activation (`layers`), one entry of it
       (`positions`), an output channel of a tensor (`weights`) or a single weight (`entries`). With gain g a site's
       activation is base + g (a - base), where the base is zero or, for layers, the mean over the split's inputs
       (`ablation`); a tensor is g w. An input's contribution is the derivative of its metric in the unit's gain, the
       mean over the midpoints of `steps[0]` equal pieces of the way on which all gains of a site go from 0 to 1; the
       pieces double up to `steps[1]` until the units' sum misses what ablating the site takes off the gap by no more
       than 1 %, or 1e-4 of the metric's mean magnitude. A unit's attribution is the difference of the groups' mean
       contributions: one site's add up to the gap, less what is left of it when the site is ablated.
       Sites that overlap, such as a layer's channels and its positions, are attributed each by itself and share one
       ranking, so that a named set may hold an entry beside the channel that it lies in.
    2. *Significance*: max-T over the units of all sites, with permuted groups, or flipped signs of pairs; see
       `bias_significance.max_t`. Intervals of 1 - `level` by bootstrap over inputs.
    3. *The named set*: of the significant units that make the gap, ranked by attribution, the shortest prefix that
       takes `remove` off |gap| on the second split at under `lose` of accuracy, when they are changed as `intervention`
       says. Where none does, the prefix within that cost which removes most, and `reached` is false. Accuracy is over
       both groups, or that of the group `accuracy_of`; without labels, or a class for each output, it bounds nothing.
    4. *Proof*, on the third split, which nothing before has seen: gap and accuracy with the named units set to zero
       ("ablate"), to `rescale` times themselves ("rescale"), or to their mean ("mean"; of weights, zero).

    `splits` are shares, drawn with `key`; or arrays of 0, 1, 2 by group. Inputs that hold NaN or infinities are left
    out; batches that end early or fail leave what came before; `notes` say so. Contributions take (inputs × units)
    float32 in memory, their bootstrap 16 bytes a unit and resample; runs of the network `memory` bytes, as for
    `saliency`. Weights are run input by input, which is
    slower. With `report`, a folder, tables `bias` and `bias_interventions` are written as they come about: what fails
    later leaves them, marked incomplete. `weighbridge.export(report, html=file)` makes an audit page of them.

    Raises `BadArgument` for shapes that do not fit, unknown layers, tensors and metrics, values that are no number for
    each input and splits with fewer than two inputs of a group; `ReportError` where the report cannot be written.

    Source: Leino et al. 2018, arXiv 1802.03788 (influence of units as integrated gradients); Dhamdhere et al. 2018,
    arXiv 1805.12233 (conductance); Westfall and Young 1993 (max-T).
    """
    aim = Aim(intervention, float(rescale), float(remove), float(lose))
    _check(design, ablation, steps, permutations, resamples, level, key, aim, if_exists)
    examples = read(groups, labels, paired=design == "pairs", count=count)
    if accuracy_of not in (None, *examples.names):
        raise BadArgument(f"accuracy_of is {accuracy_of!r}; expected {' or '.join(map(repr, examples.names))}, or None")
    sought = {"layers": layers, "positions": positions, "weights": weights, "entries": entries}
    case = Case.of(function, params, examples, metric, target, sought, channel_axis, splits, key)
    options = {
        **case.told(),
        **{what: [*given] for what, given in sought.items()},
        "design": design,
        "ablation": ablation,
        "steps": [*map(int, steps)],
        "permutations": int(permutations),
        "resamples": int(resamples),
        "level": float(level),
        "key": int(key),
        "accuracy_of": accuracy_of,
        **asdict(aim),
        "function": getattr(function, "__name__", type(function).__name__),
        "made": bias_report.now(),
        "notes": [*examples.notes],
    }
    out = BiasReport(report, options, name=name, replace=if_exists == "overwrite") if report is not None else None
    probe = case.probe(ablation, memory)
    attribution = attributed(probe, case.attribution_rows, steps)
    drawn: dict[str, Any] = {"paired": examples.paired, "level": level}
    test = max_t(attribution.values, attribution.first, permutations=permutations, key=(key, 3), **drawn)
    ends = intervals(attribution.values, attribution.first, (1, -1), resamples=resamples, key=(key, 4), **drawn)
    units = _units(attribution, test, ends, level)
    if out is not None:
        out.write_units(attribution, units.columns())
    ranks = rank_by_site(case.sites, units.order)
    judge = Judge(probe, examples, case.compared, accuracy_of, Sampling(resamples, level, (key, 2)))
    named = shortest(judge, case.parts["validation"], ranks, len(units.order), aim)
    units = replace(units, named=np.isin(np.arange(len(units.rank)), units.order[: named.units]))
    if out is not None:
        out.write_units(attribution, units.columns())
        out.write_search(intervention, named)
    outcomes = [o for n in SPLITS[1:] for o in judge.compare(n, case.parts[n], ranks, named.units, rescale)]
    notes = (*examples.notes, *_notes(attribution, units, named, aim))
    if out is not None:
        out.write_outcomes(outcomes)
        out.complete({"notes": [*notes], "reached": named.reached})
    told = case.metric.name, examples.names, units, named.reached, attribution.sums, tuple(outcomes)
    return Bias(*told, case.parts, notes)


def _units(attribution: Attribution, test: MaxT, ends: tuple[FloatArray, FloatArray], level: float) -> Units:
    """All units with their rank; candidates for the named set are significant and make the gap."""
    found = attribution.units
    signed = np.nan_to_num(found) * (np.sign(attribution.gap) or 1.0)
    ranking = np.argsort(-signed, kind="stable")
    rank = np.empty(len(ranking), np.int64)
    rank[ranking] = np.arange(1, len(ranking) + 1)
    significant = test.p <= level
    return Units(
        tuple(f"{site.name}:{text}" for site, _, _, text in unit_names([s.site for s in attribution.sums])),
        found,
        *ends,
        test.statistic,
        test.p,
        test.threshold,
        rank,
        significant,
        np.zeros(len(rank), bool),
        ranking[(significant & (signed > 0))[ranking]],
    )


def _notes(attribution: Attribution, units: Units, named: Found, aim: Aim) -> list[str]:
    """What a reader should know before trusting the result."""
    found = [
        f"the units of {s.site.name!r} sum to {s.total:.3g}, its ablation takes off {s.ablated:.3g}: beyond 1 % of "
        f"that and 1e-4 of the metric after {s.steps} steps"
        for s in attribution.sums
        if not s.complete
    ]
    broken = int(np.isnan(units.p).sum())
    if broken:
        found.append(f"{broken} units have contributions that are not finite; nothing is said of them")
    if not units.significant.any():
        found.append("no unit is significant")
    elif not len(units.order):
        found.append("all significant units work against the gap")
    elif named.gapless:
        found.append("the metric shows no gap on the validation inputs, so that there is none to close")
    elif not named.reached:
        left = abs(named.gaps[named.units]) / abs(named.gaps[0])
        found.append(
            f"no prefix of the {len(units.order)} candidates removes {aim.remove:.0%} of the gap at under "
            f"{100 * aim.lose:g} points of accuracy; the best of {named.units} leaves {left:.0%}"
        )
    if np.isnan(named.accuracies).any():
        found.append("accuracy is not known, so that it bounds nothing")
    return found


def _check(
    design: str,
    ablation: str,
    steps: tuple[int, int],
    permutations: int,
    resamples: int,
    level: float,
    key: int,
    aim: Aim,
    if_exists: str,
) -> None:
    words = {
        "design": (design, get_args(Design)),
        "ablation": (ablation, get_args(Ablation)),
        "intervention": (aim.intervention, INTERVENTIONS),
        "if_exists": (if_exists, get_args(IfExists)),
    }
    for what, (given, known) in words.items():
        if given not in known:
            raise BadArgument(f"{what} {given!r}; expected one of {', '.join(known)}")
    if not 1 <= steps[0] <= steps[1]:
        raise BadArgument(f"steps is {steps}; expected the fewest and the most, such as (32, 256)")
    if not 0 < level < 1 or permutations + 1 < 1 / level or resamples < 1:
        raise BadArgument(
            f"permutations is {permutations}, resamples {resamples}, level {level}; expected a level between 0 and 1 "
            "and at least 1 / level - 1 permutations"
        )
    if not isinstance(key, int | np.integer) or key < 0:
        raise BadArgument(f"key is {key}; expected a whole number from 0 on, which all that is random follows from")
    if not 0 < aim.remove <= 1 or not aim.lose > 0 or not np.isfinite(aim.rescale):
        raise BadArgument(
            f"remove is {aim.remove}, lose {aim.lose}, rescale {aim.rescale}; expected shares, such as 0.8 and 0.01, "
            "and a finite factor"
        )
