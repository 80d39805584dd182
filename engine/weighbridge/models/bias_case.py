"""A call of `bias` that has been checked: network, inputs, metric, sites and splits that fit each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.models.bias_data import Examples, Rows, Split, split
from weighbridge.models.bias_metrics import Metric, metric_of
from weighbridge.models.bias_report import hash_of
from weighbridge.models.bias_sites import Ablation, Probe, Site, mean_activations, sites_of
from weighbridge.models.saliency_calls import Network, abstract, network

_LEAST = 2
"""Inputs of a group to be compared in a split."""


@dataclass(frozen=True, eq=False)
class Case:
    """`compared` are the inputs that the metric applies to, of all; `parts` the rows of each split."""

    network: Network
    examples: Examples
    inputs: Any
    metric: Metric
    sites: tuple[Site, ...]
    parts: dict[Split, Rows]
    compared: npt.NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        function: Any,
        params: Any,
        examples: Examples,
        metric: Any,
        target: int | None,
        sought: Mapping[str, Sequence[str]],
        channel_axis: int,
        splits: Sequence[float] | Mapping[str, Any],
        key: int,
    ) -> "Case":
        """Raises `BadArgument` for what does not fit."""
        inputs, net = jnp.asarray(examples.inputs), network(function, params)
        shaped = abstract(inputs.shape, inputs.dtype)
        measured = metric_of(metric, target, net, shaped, examples.labels)
        sites = tuple(sites_of(net, shaped, **sought, channel_axis=channel_axis))
        compared = measured.applies(examples.labels, len(inputs))
        found = cls(net, examples, inputs, measured, sites, split(examples, splits, key), compared)
        found._check()
        return found

    @property
    def attribution_rows(self) -> Rows:
        first, second = (rows[self.compared[rows]] for rows in self.parts["attribution"])
        return first, second

    def probe(self, ablation: Ablation, memory: int | None) -> Probe:
        """The network ready to be run, with the layers' mean activations over the inputs of the attribution."""
        labels = self.examples.labels
        held = jnp.zeros(len(self.inputs)) if labels is None else jnp.asarray(labels)
        found = Probe(self.network, self.inputs, held, self.metric, self.sites, {}, ablation, memory)
        rows = np.concatenate(self.attribution_rows)
        return replace(found, means=mean_activations(self.network, self.sites, self.inputs, rows))

    def told(self) -> dict[str, Any]:
        """What a report says of metric, groups, splits, weights and data."""
        names, held = self.examples.names, (self.network.params, self.network.fixed)
        return {
            "metric": self.metric.name,
            "groups": dict(zip(names, self.examples.sizes, strict=True)),
            "splits": {n: dict(zip(names, map(len, rows), strict=True)) for n, rows in self.parts.items()},
            "parameters_hash": hash_of(held) if jax.tree.leaves(held) else None,
            "data_hash": hash_of({"inputs": self.examples.inputs, "labels": self.examples.labels}),
        }

    def _check(self) -> None:
        names = self.examples.names
        for name, both in self.parts.items():
            for group, rows in zip(names, both, strict=True):
                held = int(self.compared[rows].sum())
                if held < _LEAST:
                    of = f" that {self.metric.name} applies to" if held < len(rows) else ""
                    raise BadArgument(
                        f"split {name!r} has {held} inputs of {group!r}{of}; expected {_LEAST} at least, give more"
                    )
        halves = np.split(self.compared, [self.examples.second])
        if self.examples.paired and not np.array_equal(halves[0], halves[1]):
            raise BadArgument(f"{self.metric.name} applies to one of a pair alone; give both the same label")
