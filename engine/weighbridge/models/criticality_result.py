"""What `criticality` finds: scores of weights, channels, heads and layers by task, with their standard errors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.models.criticality_curves import AblationCurve
from weighbridge.models.criticality_data import WHOLE
from weighbridge.models.criticality_moments import FloatArray, Moments
from weighbridge.models.criticality_passes import State, Subject
from weighbridge.models.criticality_units import Family, Kind, Parts

SCORES = ("taylor", "fisher", "magnitude")
"""Scores of a weight."""


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over the weights of something: a tensor or a layer, (tasks,), or each unit of a layer, (tasks, units).

    `taylor` and `fisher` are the sums of the weights' scores, `joint` is |mean over examples of the sum of w · ∂L/∂w|:
    what the loss would change by, to first order, if all of these weights were gone. Standard errors are over examples.
    `magnitude` is the sum of |w|, without tasks.
    """

    taylor: FloatArray
    joint: FloatArray
    joint_error: FloatArray
    fisher: FloatArray
    fisher_error: FloatArray
    magnitude: FloatArray


@dataclass(frozen=True, eq=False)
class Units(Sums):
    """The channels of a layer or the heads of an attention; `tensors` are those that make them.

    `leave_one_out` is what the mean loss changes by without a unit; NaN for layers that were not asked for.
    """

    kind: Kind
    tensors: tuple[str, ...]
    leave_one_out: FloatArray
    leave_one_out_error: FloatArray

    def selectivity(self, score: str = "leave_one_out") -> FloatArray:
        """The index `selectivity` of a score over the tasks beside "all", (units,); NaN for one task."""
        return selectivity(getattr(self, score)[1:])


@dataclass(frozen=True, eq=False)
class Criticality:
    """What `criticality` found, as NumPy arrays; the tasks come first in each.

    `tasks` begins with "all", every example; with one task there is no other. `taylor`, `fisher` and their standard
    errors are by tensor name, (tasks, *shape), `magnitude` (*shape). `tensors` and `layers` hold their sums by name,
    `units` those of channels and heads by layer. `examples` and `broken` count those that are in, and those left out
    because their loss or gradient is not finite.
    """

    tasks: tuple[str, ...]
    examples: npt.NDArray[np.int64]
    broken: npt.NDArray[np.int64]
    loss: FloatArray
    loss_error: FloatArray
    accuracy: FloatArray
    taylor: dict[str, FloatArray]
    taylor_error: dict[str, FloatArray]
    fisher: dict[str, FloatArray]
    fisher_error: dict[str, FloatArray]
    magnitude: dict[str, FloatArray]
    tensors: dict[str, Sums]
    layers: dict[str, Sums]
    units: dict[str, Units]
    curves: list[AblationCurve] = field(default_factory=list)

    def scores(self, score: str, task: str = WHOLE) -> dict[str, FloatArray]:
        """Each weight's "taylor", "fisher" or "magnitude" for a task, by tensor. Raises `BadArgument`."""
        if score not in SCORES:
            raise BadArgument(f"score {score!r}; expected one of {', '.join(SCORES)}")
        if task not in self.tasks:
            raise BadArgument(f"task {task!r}; expected one of {', '.join(self.tasks)}")
        if score == "magnitude":
            return self.magnitude
        at = self.tasks.index(task)
        return {name: values[at] for name, values in getattr(self, score).items()}

    def selectivity(self, score: str = "taylor") -> dict[str, FloatArray]:
        """`selectivity` of each weight over the tasks beside "all", by tensor; NaN for one task."""
        if score not in ("taylor", "fisher"):
            raise BadArgument(f"score {score!r}; expected taylor or fisher")
        return {name: selectivity(values[1:]) for name, values in getattr(self, score).items()}


def selectivity(scores: FloatArray) -> FloatArray:
    """How far something serves one task only: 1 for one task, 0 for all alike; scores are (tasks, ...).

    Equivalent to `(1 - a) / (1 - 1/T)` with a = (Σ s / T)² / (Σ s² / T) over the T tasks: the sparseness of Rolls and
    Tovee as Vinje and Gallant scale it. Negative scores count as 0. NaN where no score is positive, where one is NaN,
    and for fewer than two tasks. `scores.argmax(axis=0)` is the task that is served most.

    Source: Rolls and Tovee 1995, doi:10.1152/jn.1995.73.2.713; Vinje and Gallant 2000,
    doi:10.1126/science.287.5456.1273.
    """
    count = len(scores)
    if count < 2:
        return np.full(scores.shape[1:], np.nan)
    positive = np.maximum(scores, 0)
    top = positive.max(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = positive / top
        spread = scaled.sum(axis=0) ** 2 / (count * (scaled**2).sum(axis=0))
        return np.asarray((1 - spread) / (1 - 1 / count))


def assembled(subject: Subject, parts: Parts, states: Mapping[str, State]) -> Criticality:
    """The result of the states of all tasks; tasks in the order of their numbers, or names."""
    several = list(states) != [WHOLE]
    names = sorted(states, key=_natural) if several else []
    whole = State.empty(subject.count, parts.sums, len(parts.removed))
    for name in sorted(states, key=_natural):
        whole = whole.merge(states[name])
    of = [whole, *(states[name] for name in names)]
    flat = np.abs(subject.flat())
    magnitude = subject.split(flat)
    taylor = subject.split(np.stack([flat * np.abs(state.gradient.value) for state in of]))
    taylors, fishers = [state.taylor for state in of], [state.fisher for state in of]
    rows = _Rows(_values(taylors), _errors(taylors), _values(fishers), _errors(fishers))
    made = {
        name: rows.sums(i, taylor[name].reshape(len(of), -1).sum(axis=1), magnitude[name].sum())
        for i, name in enumerate(subject.names)
    }
    layers = {
        name: rows.sums(
            len(subject.names) + i,
            np.sum([made[subject.names[j]].taylor for j in held], axis=0),
            np.sum([made[subject.names[j]].magnitude for j in held]),
        )
        for i, (name, held) in enumerate(parts.layers.items())
    }
    lack = _lack(of, parts)
    return Criticality(
        tasks=(WHOLE, *names),
        examples=np.array([state.loss.count for state in of], np.int64),
        broken=np.array([state.broken for state in of], np.int64),
        loss=_values([state.loss for state in of]),
        loss_error=_errors([state.loss for state in of]),
        accuracy=_values([state.correct for state in of]),
        taylor=taylor,
        taylor_error=subject.split(np.stack([flat * state.gradient.error for state in of])),
        fisher=subject.split(np.stack([state.square.value for state in of])),
        fisher_error=subject.split(np.stack([state.square.error for state in of])),
        magnitude=magnitude,
        tensors=made,
        layers=layers,
        units={
            family.name: _units(family, parts, subject.names, rows, lack, taylor, magnitude)
            for family in parts.families
        },
    )


def _natural(name: str) -> tuple[int, int, str]:
    """Numbers by size, before names."""
    return (0, int(name), "") if name.isdecimal() else (1, 0, name)


def _values(of: list[Moments]) -> FloatArray:
    return np.stack([moments.value for moments in of])


def _errors(of: list[Moments]) -> FloatArray:
    return np.stack([moments.error for moments in of])


@dataclass(frozen=True, eq=False)
class _Rows:
    """Means and errors of the sums of w · g and g², (tasks, sums)."""

    taylor: FloatArray
    taylor_error: FloatArray
    fisher: FloatArray
    fisher_error: FloatArray

    def at(self, where: Any) -> dict[str, FloatArray]:
        """The fields of `Sums` that are of these."""
        return {
            "joint": np.abs(self.taylor[:, where]),
            "joint_error": self.taylor_error[:, where],
            "fisher": self.fisher[:, where],
            "fisher_error": self.fisher_error[:, where],
        }

    def sums(self, where: int, taylor: FloatArray, magnitude: Any) -> Sums:
        return Sums(taylor=taylor, magnitude=np.asarray(magnitude), **self.at(where))


def _lack(of: list[State], parts: Parts) -> tuple[FloatArray, FloatArray]:
    """What the loss changes by without each unit, and its error, (tasks, units); NaN for those not removed."""
    found = np.full((2, len(of), parts.units), np.nan)
    found[0][:, parts.removed] = _values([state.lack for state in of])
    found[1][:, parts.removed] = _errors([state.lack for state in of])
    return found[0], found[1]


def _units(
    family: Family,
    parts: Parts,
    names: tuple[str, ...],
    rows: _Rows,
    lack: tuple[FloatArray, FloatArray],
    taylor: Mapping[str, FloatArray],
    magnitude: Mapping[str, FloatArray],
) -> Units:
    first = parts.sums - parts.units
    tensors = tuple(names[member.tensor] for member in family.members)
    sums = [np.zeros((lead, family.count)) for lead in (len(rows.taylor), 1)]
    for member, name in zip(family.members, tensors, strict=True):
        for total, values in zip(sums, (taylor[name], magnitude[name][None]), strict=True):
            along = np.moveaxis(values, member.axis + 1, -1) if values.ndim > 1 else values[:, None]
            flat = along.reshape(len(values), -1, along.shape[-1]).sum(axis=1)
            np.add.at(total.T, member.units - family.first, flat.T)
    where = slice(first + family.slice.start, first + family.slice.stop)
    return Units(
        **rows.at(where),
        taylor=sums[0],
        magnitude=sums[1][0],
        kind=family.kind,
        tensors=tensors,
        leave_one_out=lack[0][:, family.slice],
        leave_one_out_error=lack[1][:, family.slice],
    )
