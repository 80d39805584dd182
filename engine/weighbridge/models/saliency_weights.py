"""The way back from an output to the weights: what each weight, channel and layer contributes to it."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from weighbridge.errors import BadArgument
from weighbridge.models.saliency import Case, scores
from weighbridge.models.saliency_calls import Apply, names
from weighbridge.report.saliency import FloatArray
from weighbridge.report.weight_attribution import WeightAttribution


def attribution_to_weights(
    function: Any,
    params: Any,
    inputs: Any,
    targets: Any = None,
    *,
    context: Sequence[Any] = (),
    channel_axis: int = -1,
) -> WeightAttribution:
    """The contribution w · ∂f/∂w of every weight w to the chosen output f of each input.

    In a network of linear maps and ReLUs (or max pools) without biases f is homogeneous of degree one in each layer's
    weights, so each layer's contributions sum to f (Euler), and the sum over L layers in a row is L · f. A bias takes a
    part for itself: what a layer's weights then lack of f is what later biases add. Where a network branches, a
    layer's sum is the part of f that passes through it.

    `function`, `targets` and `context` are as for `saliency`; `params` may be None for a flax module. `channel_axis` is
    that of the tensors: -1 in flax's layouts, 0 in PyTorch's. The inputs pass one by one, so that memory holds twice
    the parameters beside one input's activations. Sums are float32. NaN in an input makes its own contributions NaN,
    and the mean of `weights`. An empty batch gives empty sums and weights of NaN. `weights` is
    a mean over the batch: those of one input come from a batch of that one.

    Raises `BadArgument` where there are no floating-point parameters or two of one name, and what
    `saliency` raises for bad calls.

    Source: Dhamdhere et al. 2018, arXiv 1805.12233; Ancona et al. 2018, arXiv 1711.06104 (gradient × input).
    """
    case = Case.of(function, inputs, targets, params, context, 0.0, None)
    leaves = jax.tree.leaves(case.network.params)
    floating = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]
    if not floating:
        raise BadArgument(
            "the network has no floating-point parameters; give params, and a function of (params, inputs)"
        )
    every = names(case.network.params)
    known = [every[i] for i in floating]
    total = [jnp.zeros(np.shape(leaves[i]), jnp.float32) for i in floating]
    rows: list[tuple[list[Any], Any]] = []
    step = jax.jit(partial(_add_one, case.network.apply, tuple(floating), channel_axis), donate_argnums=0)
    for i in range(case.count):
        one = jax.tree.map(lambda array, i=i: array[i : i + 1], (case.inputs, jnp.asarray(case.targets), case.context))
        total, sums, output = step(total, case.network.params, case.network.fixed, *one)
        rows.append(jax.device_get((sums, output)))
    return _gathered(case, known, channel_axis, total, rows)


def _add_one(
    apply: Apply,
    floating: tuple[int, ...],
    axis: int,
    total: list[Any],
    params: Any,
    fixed: Any,
    inputs: Any,
    targets: Any,
    context: Any,
) -> tuple[list[Any], list[Any], Any]:
    """`total` with one input's contributions, their sums by channel, and the output."""
    leaves, structure = jax.tree.flatten(params)

    def score(chosen: list[Any]) -> Any:
        replaced = dict(zip(floating, chosen, strict=True))
        whole = jax.tree.unflatten(structure, [replaced.get(i, leaf) for i, leaf in enumerate(leaves)])
        return scores(apply, whole, fixed, inputs, targets, context)[0]

    weights = [jnp.asarray(leaves[i]) for i in floating]
    output, gradient = jax.value_and_grad(score)(weights)
    parts = [w.astype(jnp.float32) * g.astype(jnp.float32) for w, g in zip(weights, gradient, strict=True)]
    sums = [_by_channel(part, axis) for part in parts]
    return [t + part for t, part in zip(total, parts, strict=True)], sums, output


def _by_channel(part: Any, axis: int) -> Any:
    kept = range(part.ndim)[axis] if -part.ndim <= axis < part.ndim else None
    return jnp.atleast_1d(part.sum(axis=tuple(i for i in range(part.ndim) if i != kept)))


def _gathered(
    case: Case, known: list[str], axis: int, total: list[Any], rows: list[tuple[list[Any], Any]]
) -> WeightAttribution:
    with np.errstate(invalid="ignore"):
        weights: dict[str, FloatArray] = {
            name: np.asarray(t) / np.float32(case.count) for name, t in zip(known, total, strict=True)
        }
    channels: dict[str, FloatArray] = {
        name: np.stack([sums[i] for sums, _ in rows])
        if rows
        else np.zeros((0, *_by_channel(total[i], axis).shape), np.float32)
        for i, name in enumerate(known)
    }
    output = np.array([score for _, score in rows], np.float32)
    for sums in (output, *channels.values()):
        sums[case.broken] = np.nan
    if case.broken.any():
        weights = {name: np.full_like(values, np.nan) for name, values in weights.items()}
    tensors: dict[str, FloatArray] = {name: np.asarray(values.sum(axis=1)) for name, values in channels.items()}
    return WeightAttribution(weights, channels, tensors, output, case.targets)
