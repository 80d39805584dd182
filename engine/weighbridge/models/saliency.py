"""Saliency: which parts of an input an output depends on, by gradients and by covering up.

Every method takes a batch of inputs and gives a value for each entry of each input, Grad-CAM for each place of a
layer. Inputs are images, embeddings of tokens, rows of tables: whatever floating-point array has the batch first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.models.saliency_arguments import (
    baseline_of,
    context_of,
    floating,
    least_and_most,
    output_shape,
    random_key,
    sides,
    targets_of,
    whole,
)
from weighbridge.models.saliency_batches import Point, Runs
from weighbridge.models.saliency_calls import Apply, Network, PairCall, abstract, network
from weighbridge.models.saliency_taps import tapped, zeros_at
from weighbridge.report.saliency import METHODS, BoolArray, FloatArray, IntArray, Method, Saliency

_RELATIVE, _ABSOLUTE = 0.01, 1e-4
"""Completeness: shares of the output's difference and of its magnitude that the gap may have."""


def saliency(
    function: Any,
    inputs: Any,
    targets: Any = None,
    *,
    method: Method = "integrated_gradients",
    params: Any = None,
    context: Sequence[Any] = (),
    baseline: Any = 0.0,
    steps: tuple[int, int] = (64, 512),
    samples: int = 32,
    noise: float = 0.15,
    key: Any = None,
    layer: str | None = None,
    keep: Literal["positive", "signed"] = "positive",
    channel_axis: int = -1,
    window: int | tuple[int, ...] | None = None,
    stride: int | tuple[int, ...] | None = None,
    memory: int | None = None,
) -> Saliency:
    """What each entry of each input contributes to an output of a network.

    With f the chosen output, x an input and x' its baseline, for every entry i:

    - "gradient": ∂f/∂xᵢ at x.
    - "input_x_gradient": xᵢ ∂f/∂xᵢ.
    - "integrated_gradients": (xᵢ - x'ᵢ) times the mean of ∂f/∂xᵢ over the midpoints of `steps[0]` equal pieces of the
      line from x' to x; the pieces double up to `steps[1]` for inputs whose sum is not yet f(x) - f(x').
    - "smoothgrad": mean of ∂f/∂xᵢ over `samples` copies of x with Gaussian noise of `noise` times x's range.
    - "grad_cam": Σ over channels k of Aₖ times the mean over space of ∂f/∂Aₖ, for the activation A of `layer`; negative
      values are set to zero unless `keep="signed"`.
    - "occlusion": f(x) - f(x with a window set to x'), averaged over the windows that cover i. Windows begin every
      `stride` entries; those at the end are cut off. An int is for every axis but `channel_axis`, which a
      window has whole. By default an eighth of an image's sides, one token or one column, and half a window as stride.

    `function` is a flax nnx module, a bound linen module, a function of `inputs`, with `params` of `(params, inputs)`,
    or a pair `(features, head)`; further arguments with a batch axis, such as masks, go into `context`. It treats the
    inputs of a batch, of whatever size, one by one. A layer is a flax module's path ("blocks.0.conv"), or the name that
    the function gives an activation by `jax.ad_checkpoint.checkpoint_name(x, name)`; a pair's is "features".

    Outputs are (batch,), and `targets` is None, or (batch, classes) with one class for all or one for each; with k more
    axes a target is k indices. `baseline` broadcasts to the inputs.

    Runs are batched so that what the compiler plans for a batch stays within `memory` bytes (default: 256 MiB on CPUs,
    2 GiB on accelerators, or what one input takes if that is more), beside the inputs and the result. Sums are float32,
    or float64 for such inputs. NaN in an input or its baseline makes its output and values NaN, and leaves the
    others alone. An empty batch gives an empty result.

    Raises `BadArgument` for a target outside of the outputs, outputs of another batch size, an unknown method or layer,
    inputs that are not floating-point, a function of one batch size, a baseline or window of another shape, numbers of
    steps or samples that are not ints, a key that is none, and where one input exceeds `memory`.

    Source: Simonyan et al. 2013, arXiv 1312.6034; Sundararajan et al. 2017, arXiv 1703.01365; Smilkov et al. 2017,
    arXiv 1706.03825; Selvaraju et al. 2017, arXiv 1610.02391; Zeiler and Fergus 2014, arXiv 1311.2901.
    """
    if method not in METHODS:
        raise BadArgument(f"method {method!r}; expected one of {', '.join(METHODS)}")
    case = Case.of(function, inputs, targets, params, context, baseline, memory)
    if method == "integrated_gradients":
        return _integrated(case, steps)
    if method == "smoothgrad":
        return _smooth(case, samples, noise, key)
    if method == "grad_cam":
        return _grad_cam(case, layer, keep, channel_axis)
    if method == "occlusion":
        return _occluded(case, window, stride, channel_axis)
    return _gradient(case, method)


@dataclass(frozen=True)
class Case:
    """A call that has been checked: a network, inputs with their baselines, and which output of each is meant."""

    network: Network
    inputs: Any
    baseline: Any
    targets: IntArray
    context: tuple[Any, ...]
    memory: int | None

    @classmethod
    def of(
        cls, function: Any, inputs: Any, targets: Any, params: Any, context: Any, baseline: Any, memory: int | None
    ) -> "Case":
        found = network(function, params)
        x = floating(inputs)
        held = context_of(context, x)
        if memory is not None and memory <= 0:
            raise BadArgument(f"memory is {memory}; expected a positive number of bytes")
        shape = output_shape(found, x, held)
        return cls(found, x, baseline_of(baseline, x), targets_of(targets, len(x), shape), held, memory)

    @property
    def count(self) -> int:
        return len(self.inputs)

    @property
    def empty(self) -> bool:
        return bool(self.inputs.size == 0)

    @cached_property
    def broken(self) -> BoolArray:
        """Inputs that hold a NaN, or whose baseline does: XLA's max on CPUs may lose it, so that nobody would know."""
        along = tuple(range(1, self.inputs.ndim))
        return np.asarray((jnp.isnan(self.inputs) | jnp.isnan(self.baseline)).any(axis=along))

    @property
    def every(self) -> IntArray:
        return np.arange(self.count)

    def runs(self, point: Point, measure: Any, per: Literal["example", "item"], items: int, **data: Any) -> Runs:
        """The compiled program for this case; `data` is what `point` reads beside inputs and baseline."""
        arrays = {"inputs": self.inputs, "baseline": self.baseline, **data}
        targets = jnp.asarray(self.targets, jnp.int32)
        return Runs(self.network, point, measure, per, arrays, targets, self.context, items=items, memory=self.memory)

    def scores(self, point: Point, steps: int, measure: Any = None, **data: Any) -> FloatArray:
        """The chosen output at `steps` points of every input: (batch, steps)."""
        if not self.count:
            return np.zeros((0, steps), np.float32)
        found = self.runs(point, measure or scores, "item", self.count * steps, **data)(self.every, steps)
        found[self.broken] = np.nan
        return found

    def result(self, values: Any, method: Method, runs: int, **more: Any) -> Saliency:
        """A `Saliency` whose unnamed parts are those of a method without a baseline."""
        nothing = np.full(self.count, np.nan)
        fields = {
            "output": more["output"] if "output" in more else self.scores(itself, 1)[:, 0],
            "baseline_output": nothing,
            "completeness_gap": nothing,
            "steps": np.full(self.count, runs, np.int64),
            "converged": np.ones(self.count, bool),
            **more,
        }
        values = np.array(values)
        values[self.broken] = np.nan
        return Saliency(values, method, self.targets, **fields)


def scores(apply: Apply, params: Any, fixed: Any, inputs: Any, targets: Any, context: Any) -> Any:
    """The chosen output of each input of a batch."""
    return chosen(apply(params, fixed, inputs, *context), targets)


def chosen(outputs: Any, targets: Any) -> Any:
    """One output of each input; `targets` is (batch, axes of one output)."""
    return outputs[(jnp.arange(len(outputs)), *(targets[:, axis] for axis in range(targets.shape[1])))]


def gradients(apply: Apply, params: Any, fixed: Any, inputs: Any, targets: Any, context: Any) -> Any:
    """The chosen output's gradient in each input of a batch."""
    return jax.grad(lambda x: scores(apply, params, fixed, x, targets, context).sum())(inputs)


def itself(data: Any, example: Any, step: Any, steps: Any) -> Any:
    """The input."""
    return data["inputs"][example]


def _ends(data: Any, example: Any, step: Any, steps: Any) -> Any:
    """The input at step 0, its baseline at step 1."""
    return jnp.where(step == 0, data["inputs"][example], data["baseline"][example])


def _on_line(data: Any, example: Any, step: Any, steps: Any) -> Any:
    """The midpoint of a piece of the line from the baseline to the input."""
    x, base = data["inputs"][example], data["baseline"][example]
    share = (step.astype(jnp.float32) + 0.5) / steps.astype(jnp.float32)
    return base + share.astype(x.dtype) * (x - base)


def _noisy(data: Any, example: Any, step: Any, steps: Any) -> Any:
    """The input with noise that depends on the key, the input's place and the step alone."""
    x = data["inputs"][example]
    key = jax.random.fold_in(jax.random.fold_in(data["key"], example), step)
    return x + data["noise"].astype(x.dtype) * (x.max() - x.min()) * jax.random.normal(key, x.shape, x.dtype)


def _covered(data: Any, example: Any, step: Any, steps: Any) -> Any:
    """The input with one window set to the baseline."""
    x, inside = data["inputs"][example], jnp.bool_(True)
    for axis, size in enumerate(x.shape):
        at, low = jnp.arange(size).reshape([-1 if i == axis else 1 for i in range(x.ndim)]), data["starts"][step, axis]
        inside &= (at >= low) & (at < low + data["window"][axis])
    return jnp.where(inside, data["baseline"][example], x)


def _gradient(case: Case, method: Method) -> Saliency:
    if case.empty:
        return case.result(np.zeros(case.inputs.shape, np.float32), method, 1)
    found = case.runs(itself, gradients, "example", case.count)(case.every, 1)
    if method == "input_x_gradient":
        found = np.asarray(case.inputs).astype(found.dtype) * found
    return case.result(found, method, 1)


def _smooth(case: Case, samples: int, noise: float, key: Any) -> Saliency:
    if key is None:
        raise BadArgument("smoothgrad draws noise; give key, such as jax.random.key(0)")
    if not whole(samples) or samples < 1 or not 0 <= noise < np.inf:
        raise BadArgument(f"samples is {samples}, noise {noise}; expected an int from 1, and a share of the range")
    drawn = {"key": random_key(key), "noise": jnp.float32(noise)}
    if case.empty:
        return case.result(np.zeros(case.inputs.shape, np.float32), "smoothgrad", samples)
    found = case.runs(_noisy, gradients, "example", case.count * samples, **drawn)(case.every, samples)
    return case.result(found / samples, "smoothgrad", samples)


def _integrated(case: Case, steps: tuple[int, int]) -> Saliency:
    """Integrated gradients of all inputs, then again with twice the steps of those whose gap is too great."""
    least, most = least_and_most(steps)
    ends = case.scores(_ends, 2).astype(np.float64)
    values = np.zeros(case.inputs.shape, np.float32)
    used = np.full(case.count, least, np.int64)
    if case.empty:
        return _completed(case, values, ends, used)
    run = case.runs(_on_line, gradients, "example", case.count * least)
    away = np.asarray(case.inputs - case.baseline)
    rows, now = case.every, least
    while len(rows):
        found = run(rows, now) / now
        values = values.astype(found.dtype, copy=False)
        values[rows], used[rows] = away[rows].astype(found.dtype) * found, now
        gap = _gap(values, ends)
        now *= 2
        rows = np.flatnonzero((gap > _allowed(ends)) & (used < now)) if now <= most else rows[:0]
    return _completed(case, values, ends, used)


def _completed(case: Case, values: FloatArray, ends: FloatArray, used: IntArray) -> Saliency:
    gap = _gap(values, ends)
    more = {"output": ends[:, 0], "baseline_output": ends[:, 1], "completeness_gap": gap, "steps": used}
    return case.result(values, "integrated_gradients", 0, **more, converged=gap <= _allowed(ends))


def _gap(values: FloatArray, ends: FloatArray) -> npt.NDArray[np.float64]:
    total = values.sum(axis=tuple(range(1, values.ndim)), dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(total - (ends[:, 0] - ends[:, 1])))


def _allowed(ends: FloatArray) -> FloatArray:
    """How large the completeness gap of each input may be."""
    with np.errstate(invalid="ignore"):
        relative, absolute = _RELATIVE * np.abs(ends[:, 0] - ends[:, 1]), _ABSOLUTE * np.abs(ends).max(axis=1)
    return np.asarray(np.maximum(relative, absolute))


@dataclass(frozen=True)
class _Cam:
    """Grad-CAM's map of each input of a batch."""

    traced: Apply
    layer: str
    channel_axis: int
    keep: str

    def __call__(self, apply: Apply, params: Any, fixed: Any, inputs: Any, targets: Any, context: Any) -> Any:
        opened, arguments = tapped(self.traced, self.layer), (params, fixed, inputs, *context)

        def score(delta: Any) -> Any:
            outputs, activation = opened(delta, *arguments)
            return chosen(outputs, targets).sum(), activation

        gradient, activation = jax.grad(score, has_aux=True)(zeros_at(self.traced, self.layer, *arguments))
        axis = range(activation.ndim)[self.channel_axis]
        space = tuple(i for i in range(1, activation.ndim) if i != axis)
        found = (gradient.mean(axis=space, keepdims=True) * activation).sum(axis=axis)
        return jnp.maximum(found, 0) if self.keep == "positive" else found


def _grad_cam(case: Case, layer: str | None, keep: str, channel_axis: int) -> Saliency:
    name = layer or ("features" if isinstance(case.network.apply, PairCall) else None)
    if name is None:
        raise BadArgument("grad_cam needs layer, the name of an activation with axes of space and channels")
    if keep not in ("positive", "signed"):
        raise BadArgument(f"keep is {keep!r}; expected 'positive' or 'signed'")
    traced = case.network.traced
    one = jax.tree.map(lambda a: abstract((1, *a.shape[1:]), a.dtype), (case.inputs, *case.context))
    shape = jax.eval_shape(partial(zeros_at, traced, name), case.network.params, case.network.fixed, *one).shape
    if len(shape) < 3 or not -len(shape) < channel_axis < len(shape) or channel_axis % len(shape) == 0:
        raise BadArgument(f"layer {name!r} gives {shape}; grad_cam needs axes of space beside channels, {channel_axis}")
    if not case.count:
        space = [size for axis, size in enumerate(shape) if axis not in (0, channel_axis % len(shape))]
        return case.result(np.zeros((0, *space), np.float32), "grad_cam", 1, layer=name)
    found = case.runs(itself, _Cam(traced, name, channel_axis, keep), "item", case.count)(case.every, 1)
    return case.result(found[:, 0], "grad_cam", 1, layer=name)


def _occluded(case: Case, window: Any, stride: Any, channel_axis: int) -> Saliency:
    shape = case.inputs.shape[1:]
    around = sides("window", window, shape, channel_axis, [_default_side(shape, i) for i in range(len(shape))])
    strides = sides("stride", stride, shape, channel_axis, [max(1, side // 2) for side in around])
    if any(step > side for step, side in zip(strides, around, strict=True)):
        raise BadArgument(f"stride {strides} is beyond the window {around}; entries between windows would be left out")
    if case.empty:
        return case.result(np.zeros(case.inputs.shape, np.float32), "occlusion", 1)
    starts = window_starts(shape, around, strides)
    places = {"starts": jnp.asarray(starts, jnp.int32), "window": jnp.asarray(around, jnp.int32)}
    ends = case.scores(_ends, 2)
    dropped = ends[:, :1] - case.scores(_covered, len(starts), **places)
    values = _spread(dropped, starts, around, shape)
    return case.result(values, "occlusion", len(starts), output=ends[:, 0], baseline_output=ends[:, 1])


def _default_side(shape: tuple[int, ...], axis: int) -> int:
    return max(1, shape[axis] // 8) if len(shape) > 2 else 1


def window_starts(shape: tuple[int, ...], sides: tuple[int, ...], strides: tuple[int, ...]) -> IntArray:
    """Where windows begin, shape (windows, axes): every stride until the last reaches the end of its axis.

    A shape without axes, that of one number, has one window.
    """
    count = [-(-(extent - side) // step) + 1 for extent, side, step in zip(shape, sides, strides, strict=True)]
    return np.array([*np.ndindex(*count)], np.int64) * np.array(strides, np.int64)


def _spread(dropped: FloatArray, starts: IntArray, sides: tuple[int, ...], shape: tuple[int, ...]) -> FloatArray:
    """What each window's cover took off the output, as the mean over the windows at each entry."""
    values = np.zeros((len(dropped), *shape), dropped.dtype)
    times = np.zeros(shape, np.int64)
    for place, start in enumerate(starts):
        inside = tuple(slice(low, low + side) for low, side in zip(start, sides, strict=True))
        values[(slice(None), *inside)] += dropped[:, place].reshape(-1, *[1] * len(shape))
        times[inside] += 1
    return np.asarray(values / times.astype(values.dtype))
