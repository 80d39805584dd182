"""Where units are looked for: channels or single entries of a layer's activation, or of a tensor of weights.

Each unit has a gain: 1 in the full network, 0 in the ablated one. A contribution is the derivative in the gain, and an
intervention sets it; so layers and weights, channels and entries are one thing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.models.bias_metrics import Metric
from weighbridge.models.saliency_batches import Runs
from weighbridge.models.saliency_calls import Apply, Network, abstract, names
from weighbridge.models.saliency_taps import tapped

Ablation = Literal["zero", "mean"]
_NEVER = np.iinfo(np.int32).max
_MEAN_BATCH = 32

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Site:
    """A layer or a tensor, and its grain; `shape` is that of one input's activation, or of the tensor."""

    kind: Literal["layer", "tensor"]
    name: str
    grain: Literal["channel", "entry"]
    shape: tuple[int, ...]
    axis: int

    @property
    def gains(self) -> tuple[int, ...]:
        """The shape of the units' gains, which broadcasts to the site's."""
        if self.grain == "entry" or not self.shape:
            return self.shape
        return tuple(size if i == self.axis else 1 for i, size in enumerate(self.shape))

    @property
    def count(self) -> int:
        return int(np.prod(self.gains))

    def units(self) -> tuple[IntArray, IntArray | None]:
        """Channel of every unit, and of entries the place along the other axes, (units, axes)."""
        at = np.stack(np.unravel_index(np.arange(self.count), self.gains), axis=1) if self.shape else np.zeros((1, 0))
        at = at.astype(np.int64)
        channel = at[:, self.axis] if self.shape else np.zeros(1, np.int64)
        return channel, np.delete(at, self.axis, axis=1) if self.grain == "entry" and self.shape else None


def sites_of(
    network: Network,
    inputs: npt.NDArray[Any],
    *,
    layers: Sequence[str],
    positions: Sequence[str],
    weights: Sequence[str],
    entries: Sequence[str],
    channel_axis: int,
) -> list[Site]:
    """The sites that a call names, layers first. Raises `BadArgument` for unknown ones, and where there are none."""
    for what, given in (("layers", layers), ("positions", positions), ("weights", weights), ("entries", entries)):
        if isinstance(given, str):
            raise BadArgument(f"{what} is {given!r}; expected a sequence of names, such as [{given!r}]")
        for name in given:
            if [*given].count(name) > 1:
                raise BadArgument(f"{what} has {name!r} twice; expected each name once")
    found = [_layer(network, inputs, name, "channel", channel_axis) for name in layers]
    found += [_layer(network, inputs, name, "entry", channel_axis) for name in positions]
    found += [_tensor(network, name, "channel", channel_axis) for name in weights]
    found += [_tensor(network, name, "entry", channel_axis) for name in entries]
    if not found:
        raise BadArgument("no layers, positions, weights or entries; name where units are to be looked for")
    return found


def _layer(network: Network, inputs: Any, name: str, grain: Any, channel_axis: int) -> Site:
    held = abstract(inputs.shape, inputs.dtype)
    _, activation = jax.eval_shape(tapped(network.traced, name), None, network.params, network.fixed, held)
    shape = activation.shape
    if shape[:1] != (len(inputs),) or not jnp.issubdtype(activation.dtype, jnp.floating):
        raise BadArgument(f"layer {name!r} gives {activation.dtype} {shape}; expected floats of {len(inputs)} inputs")
    if grain == "entry" and len(shape) < 3:
        raise BadArgument(f"layer {name!r} gives {shape}, no places beside its channels; give it in layers")
    return Site("layer", name, grain, tuple(shape[1:]), _axis(name, shape[1:], channel_axis))


def _tensor(network: Network, name: str, grain: Any, channel_axis: int) -> Site:
    known = names(network.params)
    if name not in known:
        there = ", ".join(known) or "none; give params, and a function of (params, inputs)"
        raise BadArgument(f"tensor {name!r} is not among the parameters; they are {there}")
    leaf = jax.tree.leaves(network.params)[known.index(name)]
    if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
        raise BadArgument(f"tensor {name!r} is {jnp.result_type(leaf)}; expected real floats")
    return Site("tensor", name, grain, tuple(leaf.shape), _axis(name, leaf.shape, channel_axis))


def _axis(name: str, shape: tuple[int, ...], channel_axis: int) -> int:
    """The channels' axis within one input's activation or within a tensor."""
    if shape and not -len(shape) <= channel_axis < 0:
        raise BadArgument(f"channel_axis is {channel_axis}; expected -1 to {-len(shape)} for {name!r} of shape {shape}")
    return channel_axis % len(shape) if shape else 0


def with_gains(function: Apply, layer: str, edit: Callable[[Any], Any]) -> Apply:
    """`function` with a layer's activation replaced by what `edit` makes of it."""
    opened = tapped(function, layer)

    def changed(*arguments: Any) -> Any:
        return opened(edit, *arguments)[0]

    return changed


def _replaced(params: Any, tensors: Mapping[str, Callable[[Any], Any]]) -> Any:
    """Parameters with some tensors replaced by what is made of them."""
    leaves, structure = jax.tree.flatten(params)
    known = names(params)
    return jax.tree.unflatten(
        structure, [tensors[n](x) if n in tensors else x for n, x in zip(known, leaves, strict=True)]
    )


def _on_path(data: Any, example: Any, step: Any, steps: Any) -> Any:
    """An input, and the gain at the midpoint of a piece of the way from the ablated to the full network."""
    return data["inputs"][example], (step.astype(jnp.float32) + 0.5) / steps.astype(jnp.float32)


@dataclass(frozen=True)
class _GainGradients:
    """The metric's derivative in each unit's gain, (batch, units)."""

    traced: Apply
    site: Site
    metric: Metric

    def __call__(self, apply: Apply, params: Any, fixed: Any, inputs: Any, labels: Any, context: Any) -> Any:
        x, share = inputs
        if self.site.kind == "tensor":
            one = partial(self._of_one, params, fixed[0])
            found = jax.vmap(one)(x, share, labels)
        else:
            found = jax.grad(self._total)(jnp.zeros((len(x), *self.site.gains)), params, fixed, x, share, labels)
        return found.reshape(len(x), -1)

    def _total(self, gain: Any, params: Any, fixed: Any, x: Any, share: Any, labels: Any) -> Any:
        own, base = fixed
        gain = share.reshape(-1, *[1] * len(self.site.shape)) + gain

        def edit(activation: Any) -> Any:
            return (base + gain * (activation - base)).astype(activation.dtype)

        outputs = with_gains(self.traced, self.site.name, edit)(params, own, x)
        return self.metric.surrogate(outputs, labels).sum()

    def _of_one(self, params: Any, own: Any, x: Any, share: Any, label: Any) -> Any:
        def value(gain: Any) -> Any:
            changed = _replaced(params, {self.site.name: lambda w: ((share + gain) * w).astype(w.dtype)})
            return self.metric.surrogate(self.traced(changed, own, x[None]), label[None])[0]

        return jax.grad(value)(jnp.zeros(self.site.gains))


def _prefix(data: Any, example: Any, step: Any, steps: Any) -> Any:
    """An input, and how many units of the ranking are changed."""
    return data["inputs"][example], data["offset"] + step * data["stride"]


@dataclass(frozen=True)
class _Outcomes:
    """Surrogate, exact metric and whether the prediction is right, (batch, 3), with leading units changed.

    A unit whose rank is below the prefix becomes `shift` + `scale` times itself.
    """

    traced: Apply
    layers: tuple[str, ...]
    tensors: tuple[str, ...]
    metric: Metric

    def __call__(self, apply: Apply, params: Any, fixed: Any, inputs: Any, labels: Any, context: Any) -> Any:
        x, prefix = inputs
        if not self.tensors:
            return self._batch(params, fixed, x, prefix, labels)

        def one(x: Any, prefix: Any, label: Any) -> Any:
            return self._batch(params, fixed, x[None], prefix[None], label[None])[0]

        return jax.vmap(one)(x, prefix, labels)

    def _batch(self, params: Any, fixed: Any, x: Any, prefix: Any, labels: Any) -> Any:
        own, (ranks, shifts, scale) = fixed
        function = self.traced
        for layer in self.layers:
            edit = partial(_changed, ranks[layer], shifts[layer], scale, prefix)
            function = with_gains(function, layer, edit)
        edits = {name: partial(_changed_one, ranks[name], scale, prefix[:1]) for name in self.tensors}
        changed = _replaced(params, edits) if edits else params
        outputs = function(changed, own, x)
        columns = (self.metric.surrogate, self.metric.exact, self.metric.correct)
        return jnp.stack([f(outputs, labels).astype(jnp.float32) for f in columns], axis=1)


def _changed(rank: Any, shift: Any, scale: Any, prefix: Any, values: Any) -> Any:
    """Values of a batch, those of the units ranked below the prefix changed."""
    chosen = rank < prefix.reshape(-1, *[1] * (values.ndim - 1))
    return jnp.where(chosen, shift + scale * values, values).astype(values.dtype)


def _changed_one(rank: Any, scale: Any, prefix: Any, tensor: Any) -> Any:
    return _changed(rank, 0.0, scale, prefix, tensor[None])[0]


@dataclass(frozen=True, eq=False)
class Probe:
    """A network with inputs, their labels and a metric, ready to be run with the units of some sites changed."""

    network: Network
    inputs: Any
    labels: Any
    metric: Metric
    sites: tuple[Site, ...]
    means: dict[str, Any]
    """Of each layer the mean activation over the inputs of the attribution."""
    ablation: Ablation
    memory: int | None

    def contributions(self, site: Site, rows: IntArray, steps: int) -> FloatArray:
        """Each input's contributions of a site's units, (rows, units): midpoint sums of derivatives in the gains."""
        base = self.means[site.name] if site.kind == "layer" and self.ablation == "mean" else jnp.float32(0)
        measure = _GainGradients(self.network.traced, site, self.metric)
        run = self._runs(_on_path, measure, "example", base, {})
        return run(rows, steps) / steps

    def ablated(self, site: Site, rows: IntArray) -> FloatArray:
        """The surrogate of inputs with all of a site ablated, and in full, (rows, 2)."""
        ranks = {site: np.zeros(site.count, np.int64)}
        return self.outcomes(ranks, rows, shift=self.ablation, scale=0.0, offset=0, stride=1, count=2)[:, ::-1, 0]

    def outcomes(
        self,
        ranks: Mapping[Site, IntArray],
        rows: IntArray,
        *,
        shift: Ablation,
        scale: float,
        offset: int,
        stride: int,
        count: int,
    ) -> FloatArray:
        """For prefixes of a ranking, of `offset` units and `stride` more each time: (rows, count, 3).

        The last axis is surrogate, exact metric and whether the prediction is right.
        """
        layers = tuple(dict.fromkeys(site.name for site in self.sites if site.kind == "layer"))
        tensors = tuple(dict.fromkeys(site.name for site in self.sites if site.kind == "tensor"))
        placed = {name: self._placed(ranks, name) for name in (*layers, *tensors)}
        shifts = {name: self.means[name] * (shift == "mean") for name in layers}
        measure = _Outcomes(self.network.traced, layers, tensors, self.metric)
        steps = {"offset": jnp.int32(offset), "stride": jnp.int32(stride)}
        run = self._runs(_prefix, measure, "item", (placed, shifts, jnp.float32(scale)), steps)
        return run(rows, count)

    @property
    def at_once(self) -> int:
        """Prefixes of a ranking that one run may have."""
        return _PREFIXES

    def _runs(self, point: Any, measure: Any, per: Any, more: Any, data: dict[str, Any]) -> Runs:
        network = self.network._replace(fixed=(self.network.fixed, more))
        items = len(self.inputs) * _PREFIXES
        arrays = {"inputs": self.inputs, **data}
        return Runs(network, point, measure, per, arrays, self.labels, (), items=items, memory=self.memory)

    def _placed(self, ranks: Mapping[Site, IntArray], name: str) -> Any:
        """The least rank of the units that each entry of a layer or tensor belongs to, with an axis for the batch."""
        own = [site for site in self.sites if site.name == name]
        found = np.full(own[0].shape, _NEVER, np.int64)
        for site in own:
            if site in ranks:
                found = np.minimum(found, ranks[site].reshape(site.gains))
        return jnp.asarray(found[None], jnp.int32)


_PREFIXES = 8


def mean_activations(network: Network, sites: Sequence[Site], inputs: Any, rows: IntArray) -> dict[str, Any]:
    """Each layer's mean activation over some inputs, float32, with an axis for the batch."""
    layers = tuple(dict.fromkeys(site.name for site in sites if site.kind == "layer"))
    if not layers:
        return {}
    run = network.compiled.setdefault(("means", layers), jax.jit(partial(_sums, network.traced, layers)))
    total: list[npt.NDArray[np.float64]] = []
    for first in range(0, len(rows), _MEAN_BATCH):
        taken = rows[first : first + _MEAN_BATCH]
        padded = np.resize(taken, _MEAN_BATCH)
        weight = (np.arange(_MEAN_BATCH) < len(taken)).astype(np.float32)
        found = [np.asarray(x, np.float64) for x in run(network.params, network.fixed, inputs[padded], weight)]
        total = [a + b for a, b in zip(total, found, strict=True)] if total else found
    return {name: jnp.asarray(x[None] / len(rows), jnp.float32) for name, x in zip(layers, total, strict=True)}


def _sums(traced: Apply, layers: tuple[str, ...], params: Any, fixed: Any, inputs: Any, weight: Any) -> list[Any]:
    """Each layer's activation, weighted and summed over a batch."""
    found = [tapped(traced, layer)(None, params, fixed, inputs)[1] for layer in layers]
    return [jnp.tensordot(weight, x.astype(jnp.float32), axes=1, precision="highest") for x in found]


def rank_by_site(sites: Sequence[Site], order: IntArray) -> dict[Site, IntArray]:
    """Ranks of the units of each site, as `order`, the units in all of them from the first on, has it."""
    total = sum(site.count for site in sites)
    ranks = np.full(total, _NEVER, np.int64)
    ranks[order] = np.arange(len(order))
    ends = np.cumsum([site.count for site in sites])
    return {site: ranks[end - site.count : end] for site, end in zip(sites, ends, strict=True)}
