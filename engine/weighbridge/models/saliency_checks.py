"""Whether a saliency map says something of the network: randomise its weights, delete what the map points at."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from weighbridge.errors import BadArgument
from weighbridge.models.saliency import Case, chosen, saliency
from weighbridge.models.saliency_arguments import random_key, whole
from weighbridge.models.saliency_calls import Apply, names, network
from weighbridge.models.saliency_taps import first_uses
from weighbridge.report.saliency import Curves, FloatArray, Randomisation, Saliency, Score
from weighbridge.roles import layer_of


def parameter_randomisation(
    function: Any,
    inputs: Any,
    targets: Any = None,
    *,
    key: Any,
    params: Any = None,
    layers: Sequence[str] | None = None,
    **options: Any,
) -> Randomisation:
    """Spearman's rank correlation of maps with those of the network whose layers are random, cascading from the output.

    A random layer has, in the place of each tensor, normal draws of its mean and standard deviation, so that a tensor
    of equal entries stays. `layers` are names without their last part ("conv2" for "conv2.kernel"), from output to
    input; by default all, in the reverse order in which the network uses them. `options` are those of `saliency`:
    `method`, ...

    Raises `BadArgument` for an unknown layer, a network without parameters, and what `saliency` raises.

    Source: Adebayo et al. 2018, arXiv 1810.03292.
    """
    found = network(function, params)
    taken: dict[str, Any] = {"context": (), "baseline": 0.0, "memory": None} | options
    case = Case.of(found, inputs, targets, None, taken["context"], taken["baseline"], taken["memory"])
    order = tuple(layers) if layers is not None else _from_output(case)
    known = dict.fromkeys(map(layer_of, names(found.params)))
    if not known:
        raise BadArgument("the network has no parameters to randomise; give params, and a function of (params, inputs)")
    for layer in order:
        if layer not in known:
            raise BadArgument(f"layer {layer!r} is not in the network; its layers are {', '.join(known)}")
    changed, drawn = found.params, random_key(key)
    maps = [saliency(found, inputs, targets, **options)]
    for i, layer in enumerate(order):
        changed = _randomised(changed, layer, jax.random.fold_in(drawn, i))
        maps.append(saliency(found.with_params(changed), inputs, targets, **options))
    flat = [one.values.reshape(len(one.values), math.prod(one.values.shape[1:])).astype(np.float64) for one in maps]
    signed = np.array([_spearman(flat[0], other) for other in flat])
    absolute = np.array([_spearman(np.abs(flat[0]), np.abs(other)) for other in flat])
    return Randomisation(order, signed, absolute, maps[0].method)


def _from_output(case: Case) -> tuple[str, ...]:
    """Layers from the last that the network uses to the first."""
    found = case.network
    leaves, structure = jax.tree.flatten(found.params)

    def call(leaves: Any, fixed: Any, *arguments: Any) -> Any:
        return found.apply(jax.tree.unflatten(structure, leaves), fixed, *arguments)

    one = [array[:1] for array in (case.inputs, *case.context)]
    used = first_uses(call, leaves, found.fixed, *one)
    known = names(found.params)
    return tuple(dict.fromkeys(layer_of(known[i]) for i in used))[::-1]


def _randomised(params: Any, layer: str, key: Any) -> Any:
    """Parameters with one layer's tensors drawn anew."""
    leaves, structure = jax.tree.flatten(params)
    for i, name in enumerate(names(params)):
        if layer_of(name) == layer and jnp.issubdtype(jnp.result_type(leaves[i]), jnp.floating):
            drawn = jax.random.normal(jax.random.fold_in(key, i), np.shape(leaves[i]), jnp.float32)
            old = jnp.asarray(leaves[i])
            leaves[i] = (old.mean() + old.std() * drawn).astype(old.dtype)
    return jax.tree.unflatten(structure, leaves)


def _spearman(a: FloatArray, b: FloatArray) -> FloatArray:
    """Rank correlation of each row, ties sharing their mean rank; NaN for constant rows and rows with NaN."""
    from scipy.stats import rankdata

    ranks = [np.asarray(rankdata(rows, axis=1)) if rows.size else rows for rows in (a, b)]
    x, y = (rank - rank.mean(axis=1, keepdims=True) if rank.size else rank for rank in ranks)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.where(np.isnan(a).any(axis=1) | np.isnan(b).any(axis=1), np.nan, found)


def deletion_insertion(
    function: Any,
    inputs: Any,
    targets: Any = None,
    *,
    maps: Saliency | Any,
    params: Any = None,
    context: Sequence[Any] = (),
    baseline: Any = 0.0,
    steps: int = 32,
    score: Score = "probability",
    channel_axis: int = -1,
    memory: int | None = None,
) -> Curves:
    """Scores of the chosen output as what a map holds for most important goes first, and comes first.

    Places (pixels, tokens, columns) are ranked by the map summed over channels, the greatest first, ties and then NaN
    by place; after step s of `steps`, the first s/steps of them have the baseline (deletion), or all the others have
    (insertion). `maps` is a `Saliency`, or an array like the inputs; one without the channels' axis, or coarser, such
    as Grad-CAM's, is spread over the inputs by its nearest entries. "probability" is the softmax of the outputs along
    their last axis, the classes, and the sigmoid where there is one class or no such axis; "output" the output itself.

    Raises `BadArgument` for maps of another shape, fewer than one step, an unknown score, and as `saliency` does.

    Source: Petsiuk et al. 2018, arXiv 1806.07421; Samek et al. 2017, doi:10.1109/TNNLS.2016.2599820.
    """
    if not whole(steps) or steps < 1 or score not in ("probability", "output"):
        raise BadArgument(f"steps is {steps}, score {score!r}; expected an int from 1, and 'probability' or 'output'")
    case = Case.of(function, inputs, targets, params, context, baseline, memory)
    values = maps.values if isinstance(maps, Saliency) else np.asarray(maps)
    ranks = _ranks(per_place(values, case.inputs.shape, channel_axis))
    measure = _probability if score == "probability" else None
    order = {"ranks": jnp.asarray(ranks.reshape(_with_channels(ranks, case.inputs.ndim, channel_axis)), jnp.int32)}
    order["places"] = jnp.int32(ranks[0].size if len(ranks) else 0)
    found = case.scores(_partly, 2 * (steps + 1), measure, **order).astype(np.float64)
    deletion, insertion = found[:, : steps + 1], found[:, steps + 1 :]
    fraction = np.arange(steps + 1) / steps
    gone, come = (np.asarray(np.trapezoid(curve, fraction, axis=1)) for curve in (deletion, insertion))
    named = maps.method if isinstance(maps, Saliency) else ""
    return Curves(fraction, deletion, insertion, gone, come, score, named)


def per_place(values: FloatArray, shape: tuple[int, ...], channel_axis: int) -> FloatArray:
    """A map of inputs of `shape`, summed over channels, or spread where it is coarser: (batch, *places)."""
    axis = channel_axis % len(shape) if len(shape) > 2 else None
    space = tuple(size for i, size in enumerate(shape) if i not in (0, axis))
    if values.shape == tuple(shape):
        return values if axis is None else np.asarray(values.sum(axis=axis))
    if values.ndim != len(space) + 1 or len(values) != shape[0] or 0 in values.shape[1:]:
        raise BadArgument(f"maps have shape {values.shape}; expected {tuple(shape)}, or ({shape[0]}, axes of space)")
    for i, size in enumerate(space, 1):
        values = np.take(values, (2 * np.arange(size) + 1) * values.shape[i] // (2 * size), axis=i)
    return values


def _ranks(values: FloatArray) -> Any:
    """The place of each entry in the order from the greatest down; NaN last."""
    flat = np.where(np.isnan(values), -np.inf, values).reshape(len(values), math.prod(values.shape[1:]))
    order = np.argsort(-flat, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(flat.shape[1])[None], axis=1)
    return ranks.reshape(values.shape)


def _with_channels(ranks: Any, ndim: int, channel_axis: int) -> tuple[int, ...]:
    shape = list(ranks.shape)
    if len(shape) < ndim:
        shape.insert(channel_axis % ndim, 1)
    return tuple(shape)


def _partly(data: Any, example: Any, step: Any, steps: Any) -> Any:
    """The input without the first places (first half of the steps), then the baseline with them alone."""
    half = steps // 2
    count = (step % half) * data["places"] // (half - 1)
    first = data["ranks"][example] < count
    given = jnp.where(step < half, ~first, first)
    return jnp.where(given, data["inputs"][example], data["baseline"][example])


def _probability(apply: Apply, params: Any, fixed: Any, inputs: Any, targets: Any, context: Any) -> Any:
    """Softmax over the last axis; the sigmoid where that holds one output, or there is none."""
    out = apply(params, fixed, inputs, *context)
    if out.ndim == 1 or out.shape[-1] == 1:
        return jax.nn.sigmoid(chosen(out, targets))
    return chosen(jax.nn.softmax(out, axis=-1), targets)
