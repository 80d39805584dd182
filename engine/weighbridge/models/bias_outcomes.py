"""Gap and accuracy of a split with units changed, before and after, with bootstrap intervals."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from weighbridge.models.bias_data import Examples, Rows, Split
from weighbridge.models.bias_significance import intervals
from weighbridge.models.bias_sites import Ablation, IntArray, Probe, Site

Intervention = Literal["ablate", "rescale", "mean"]
INTERVENTIONS: tuple[Intervention, ...] = get_args(Intervention)
_EXACT, _CORRECT = 1, 2
"""Columns of what a probe gives; the first is the surrogate."""

FloatArray = npt.NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Outcome:
    """Gap and accuracy of a split under an intervention on so many units; figures that nobody can know are NaN.

    `means` are the metric's over each group, whose difference is `gap`; `removed` is 1 - |gap| / |gap before|.
    `accuracies` are each group's, `accuracy` that which the search bounds; `change` is it less the one before.
    """

    intervention: Literal["none"] | Intervention
    split: Split
    units: int
    gap: float
    gap_interval: Interval
    removed: float
    means: tuple[float, float]
    accuracy: float
    accuracy_interval: Interval
    change: float
    change_interval: Interval
    accuracies: tuple[float, float]
    compared: tuple[int, int]


class Sampling(NamedTuple):
    """How intervals are drawn."""

    resamples: int
    level: float
    key: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Judge:
    """Runs the network with units changed and compares the groups."""

    probe: Probe
    examples: Examples
    compared: npt.NDArray[np.bool_]
    """Inputs that the metric applies to."""
    accuracy_of: str | None
    sampling: Sampling

    def prefixes(
        self, rows: Rows, ranks: Mapping[Site, IntArray], intervention: Intervention, scale: float, first: int
    ) -> tuple[FloatArray, FloatArray]:
        """Gap and accuracy with the first `first`, `first` + 1, ... units changed, a few of them."""
        found = self._run(rows, ranks, intervention, scale, first, 1, self.probe.at_once)
        gaps, right = self._gap_values(rows, found), self._judged(rows, found)
        return _difference(gaps), np.concatenate(right).mean(axis=0)

    def compare(
        self, split: Split, rows: Rows, ranks: Mapping[Site, IntArray], units: int, scale: float
    ) -> list[Outcome]:
        """The outcome of every intervention on the first `units` of a ranking, after the one of none."""
        runs = [self._run(rows, ranks, of, scale, 0, units, 2) for of in INTERVENTIONS] if units else []
        before = runs[0][:, :1] if runs else self._run(rows, ranks, "ablate", scale, 0, 0, 1)
        found = np.concatenate([before, *(run[:, 1:] for run in runs)], axis=1)
        return self._outcomes(split, rows, found, units)

    def _run(
        self,
        rows: Rows,
        ranks: Mapping[Site, IntArray],
        intervention: Intervention,
        scale: float,
        offset: int,
        stride: int,
        count: int,
    ) -> FloatArray:
        shift: Ablation = "mean" if intervention == "mean" else "zero"
        kept = scale if intervention == "rescale" else 0.0
        steps = {"offset": offset, "stride": stride, "count": count}
        found = self.probe.outcomes(ranks, np.concatenate(rows), shift=shift, scale=kept, **steps)
        return found.astype(np.float64)

    def _gap_values(self, rows: Rows, found: FloatArray) -> tuple[FloatArray, FloatArray]:
        at = len(rows[0])
        return found[:at][self.compared[rows[0]]][..., _EXACT], found[at:][self.compared[rows[1]]][..., _EXACT]

    def _judged(self, rows: Rows, found: FloatArray) -> list[FloatArray]:
        """Whether predictions are right, of each group that the accuracy is of."""
        at = len(rows[0])
        halves = [found[:at][..., _CORRECT], found[at:][..., _CORRECT]]
        own = zip(self.examples.names, halves, strict=True)
        return [half if self.accuracy_of in (None, name) else half[:0] for name, half in own]

    def _outcomes(self, split: Split, rows: Rows, found: FloatArray, units: int) -> list[Outcome]:
        gaps = self._gap_values(rows, found)
        gap = _difference(gaps)
        right = self._judged(rows, found)
        weight = tuple(len(half) / max(sum(map(len, right)), 1) for half in right)
        accuracy = np.concatenate(right).mean(axis=0)
        gap_ends = self._intervals(gaps, (1.0, -1.0), 0)
        ends = self._intervals(right, weight, 1)
        change_ends = self._intervals([half - half[:, :1] for half in right], weight, 1)
        at = len(rows[0])
        by_group = found[:at, :, _CORRECT].mean(axis=0), found[at:, :, _CORRECT].mean(axis=0)
        names: tuple[Literal["none"] | Intervention, ...] = ("none", *INTERVENTIONS)
        with np.errstate(invalid="ignore", divide="ignore"):
            removed = 1 - np.abs(gap) / np.abs(gap[0])
        return [
            Outcome(
                names[i],
                split,
                units if i else 0,
                float(gap[i]),
                (float(gap_ends[0][i]), float(gap_ends[1][i])),
                float(removed[i]),
                (float(gaps[0].mean(axis=0)[i]), float(gaps[1].mean(axis=0)[i])),
                float(accuracy[i]),
                (float(ends[0][i]), float(ends[1][i])),
                float(accuracy[i] - accuracy[0]),
                (float(change_ends[0][i]), float(change_ends[1][i])),
                (float(by_group[0][i]), float(by_group[1][i])),
                (len(gaps[0]), len(gaps[1])),
            )
            for i in range(found.shape[1])
        ]

    def _intervals(self, halves: Any, coefficients: Any, draw: int) -> tuple[FloatArray, FloatArray]:
        paired = self.examples.paired and len(halves[0]) == len(halves[1])
        sampling = {**self.sampling._asdict(), "key": (*self.sampling.key, draw)}
        return intervals(np.concatenate(halves), len(halves[0]), coefficients, paired=paired, **sampling)


def _difference(halves: tuple[FloatArray, FloatArray]) -> FloatArray:
    return np.asarray(halves[0].mean(axis=0) - halves[1].mean(axis=0))
