"""Criticality: which weights, channels and heads a task needs, and whether removing them shows it."""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, Literal, get_args

import numpy as np

from weighbridge.errors import BadArgument
from weighbridge.models.criticality_curves import ablation_curves, checked_shares
from weighbridge.models.criticality_data import Dataset, DatasetEnded
from weighbridge.models.criticality_moments import FloatArray
from weighbridge.models.criticality_passes import Loss, Pass, State, Subject, default_loss
from weighbridge.models.criticality_report import CURVES, UNITS, WEIGHTS, begin
from weighbridge.models.criticality_result import SCORES, Criticality, assembled
from weighbridge.models.criticality_units import Parts, parts_of
from weighbridge.models.recording import IfExists
from weighbridge.models.saliency_calls import network
from weighbridge.patterns import wanted

Tasks = Literal["given", "labels", "none"]
Told = Callable[[str, int, int], None]
SHARES = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def criticality(
    function: Any,
    dataset: Iterable[Any],
    *,
    params: Any = None,
    loss: Loss = default_loss,
    tasks: Tasks = "given",
    held_out: Iterable[Any] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    layers: Mapping[str, Sequence[str]] | None = None,
    heads: Mapping[str, int] | None = None,
    channel_axis: int = -1,
    leave_one_out: Sequence[str] | None = None,
    shares: Sequence[float] = SHARES,
    draws: int = 20,
    key: int = 0,
    memory: int | None = None,
    report: str | os.PathLike[str] | None = None,
    if_exists: IfExists = "overwrite",
    name: str = "criticality",
    progress: Told | None = None,
) -> Criticality:
    """How much each weight, channel and head of a network matters to each task, measured over a data set.

    With L the loss of an example and w a weight, for every task (a group of examples) and for all of them together:

    - Taylor: |mean of w · ∂L/∂w|, what the mean loss would change by, to first order, without the weight.
    - Fisher: the mean of (∂L/∂w)², the diagonal of the empirical Fisher information.
    - magnitude: |w|.
    - leave-one-out, for channels and heads: the mean loss with all of their weights set to zero, less the mean loss.

    `function` is a flax nnx module in evaluation mode, a bound linen module, or a function of `(params, inputs)`; it
    treats inputs one by one. `loss(outputs, labels)` gives a number for each example of a batch (it is called with
    batches of one); the default is cross-entropy in nats of integer labels. `dataset` gives batches `(inputs, labels)`
    or `(inputs, labels, tasks)`, of any sizes; `tasks` says whether groups are those `given` (a number or a name for
    each example), the `labels`, or `none`. It is read once, and once more for the ablation curves unless there are
    others `held_out`.

    A channel is an index along `channel_axis` (-1 in flax's layouts, 0 in PyTorch's) of all of a layer's tensors that
    have as many: kernel and bias. A layer is what a name says before its last dot, unless `layers` maps it to its
    tensors' names. Heads are known by the names of flax's attention; of others `heads` says how many there are, by the
    attention's name; keys and values that several heads share belong to none. `include` and `exclude` select tensors,
    `leave_one_out` the layers whose units are removed.

    The curves remove the `shares` of the weights with the highest scores over all examples, against `draws` random
    orders (`key`); `shares=()` is for none.

    Memory: what the compiler plans for a chunk of examples stays within `memory` bytes (default: 256 MiB on CPUs, 2 GiB
    on accelerators); the host holds some 80 bytes a weight and task. The network runs in the arithmetic of its weights,
    so that of bfloat16 ones scores are as coarse as that; the default loss, sums and squares are float32 or wider, and
    states merge in float64, in the order of the examples, so the cut into batches changes nothing. Examples whose loss
    or gradient is not finite are counted in `broken` and left out. Errors are standard errors over examples, NaN for
    fewer than two.

    With `report`, the tables `criticality` (a row each tensor and task), `criticality_units` (each layer and task,
    lists by unit) and `criticality_curves` go to that folder; `if_exists="resume"` keeps rows of other tensors there.
    `progress` is told what is done: words, examples, examples in all or 0.

    Raises `BadArgument` before any work for a first batch, a loss or a network that do not fit, unknown layers and
    heads, no examples, a bound that one example exceeds; `DatasetEnded` where the data set breaks off: what was
    computed is in the report and in the error's `partial`. `ReportError` where the report cannot be written.

    Source: Molchanov et al. 2017, arXiv 1611.06440 (Taylor); Kirkpatrick et al. 2017, arXiv 1612.00796 (Fisher).
    """
    if tasks not in get_args(Tasks):
        raise BadArgument(f"tasks {tasks!r}; expected one of {', '.join(get_args(Tasks))}")
    if not isinstance(draws, Integral) or draws < 0:
        raise BadArgument(f"draws is {draws}; expected a whole number, 0 or more")
    began = time.monotonic()
    removed_shares = checked_shares(shares)
    subject = Subject.of(network(function, params), loss, wanted(include, exclude), memory)
    parts = parts_of(
        subject.names,
        subject.shapes,
        layers=layers or {},
        heads=heads or {},
        channel_axis=channel_axis,
        leave_one_out=leave_one_out,
    )
    given = Dataset(dataset, tasks)
    subject.check(*given.one)
    other = _for_curves(given, held_out, tasks, shares, subject)
    options = {"tasks": tasks, "shares": list(map(float, shares)), "draws": draws, "key": key}
    tables = (WEIGHTS, UNITS) if other is None else (WEIGHTS, UNITS, CURVES)
    written = begin(report, tables, options, name, if_exists)
    told = progress or _silent
    ended: DatasetEnded | None = None
    states: dict[str, State] = {}
    try:
        _measure(subject, parts, given, states, told)
    except DatasetEnded as error:
        ended = error
    if ended is not None and not states:
        raise ended
    result = assembled(subject, parts, states)
    written.measured(result, subject, time.monotonic() - began, ended)
    if ended is None and other is not None:
        scores = {score: _row(result.scores(score), subject) for score in SCORES}
        try:
            curves = ablation_curves(subject, other, scores, removed_shares, draws=draws, seed=key, told=told)
        except DatasetEnded as error:
            ended, curves = error, error.partial
        result.curves.extend(curves)
        written.ablated(result, subject.count, time.monotonic() - began, ended)
    if ended is not None:
        ended.partial = result
        raise ended
    return result


def _silent(what: str, done: int, total: int) -> None:
    """Progress that nobody asked for."""


def _for_curves(
    given: Dataset, held_out: Iterable[Any] | None, tasks: str, shares: Sequence[float], subject: Subject
) -> Dataset | None:
    if not len(shares):
        return None
    if held_out is None:
        if not given.again:
            raise BadArgument("dataset can be read once; the curves need it again: give a list, held_out, or shares=()")
        return given
    other = Dataset(held_out, tasks, what="held_out")
    subject.check(*other.one)
    return other


def _measure(subject: Subject, parts: Parts, given: Dataset, states: dict[str, State], told: Told) -> None:
    """Adds the states of each task to `states`, so that they are there if the data set breaks off."""
    run = Pass.of(subject, parts, given.one)
    seen = 0
    for chunk in given.chunks(run.gradients.size):
        for task, state in run(chunk).items():
            states[task] = states[task].merge(state) if task in states else state
        seen += chunk.count
        told("weighing", seen, 0)


def _row(scores: Mapping[str, FloatArray], subject: Subject) -> FloatArray:
    """Scores by tensor in one row, in the order of the weights."""
    return np.concatenate([scores[name].reshape(-1) for name in subject.names])
