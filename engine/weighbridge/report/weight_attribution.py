"""What each weight contributed to an output: a table with a row for each tensor and input, a zarr group of weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from weighbridge.errors import BadArgument, ReportError
from weighbridge.report import arrays
from weighbridge.report.saliency import FloatArray, IntArray, storable
from weighbridge.roles import layer_of

TABLE = "saliency_weights"

Part = Literal["layers", "tensors", "channels"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True, eq=False)
class WeightAttribution:
    """Weight times gradient of the chosen output, by tensor name, in the order in which the pytree has them.

    `weights` is the mean over the inputs in each tensor's shape, so that of one input comes from a batch of that one;
    `channels` the sums over all but the channels' axis, (batch, channels); `tensors` the sums over a tensor, (batch,).
    `output` is (batch,), `target` (batch, axes of one output).
    """

    weights: dict[str, FloatArray]
    channels: dict[str, FloatArray]
    tensors: dict[str, FloatArray]
    output: FloatArray
    target: IntArray

    @cached_property
    def layers(self) -> dict[str, FloatArray]:
        """The sums over a layer's tensors, (batch,). A layer is what a name says before its last dot."""
        found: dict[str, FloatArray] = {}
        for name, values in self.tensors.items():
            found[layer_of(name)] = found.get(layer_of(name), 0) + values
        return found

    def shares(self, of: Part = "layers") -> dict[str, FloatArray]:
        """Contributions over the output: (batch,) of layers and tensors, (batch, channels) of a tensor's channels.

        A layer has 1 where all of the output passes through its weights. An output of 0 gives NaN, or infinities.
        `weights` is a mean over the batch: a weight's share in the output of one input is `weights` over `output`, of a
        batch of that one. Raises `BadArgument` for another word.
        """
        if of not in PARTS:
            raise BadArgument(f"of is {of!r}; expected one of {', '.join(PARTS)}")
        found: dict[str, FloatArray] = getattr(self, of)
        with np.errstate(divide="ignore", invalid="ignore"):
            return {name: np.asarray((values.T / self.output).T) for name, values in found.items()}


def save_weights(folder: Path, found: WeightAttribution) -> None:
    """Writes the weights' contributions. Raises `ReportError`."""
    numbered = {str(i): storable(values) for i, values in enumerate(found.weights.values())}
    arrays.write(_place(folder), numbered, {"names": list(found.weights)})


def load(folder: Path, rows: Sequence[dict[str, Any]]) -> WeightAttribution:
    """The attribution of the rows of its table, which come tensor by tensor. Raises `ReportError`."""
    held, said = arrays.read(_place(folder), _AGAIN)
    names = list(said["names"])
    of: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for row in rows:
        of.setdefault(row["name"], []).append(row)
    first = rows[: len(rows) // len(of)]
    if list(of) != names or len(held) != len(names) or {len(those) for those in of.values()} != {len(first)}:
        raise ReportError(f"{folder}: the rows of {TABLE} are not those of its arrays; {_AGAIN}")
    return WeightAttribution(
        {name: held[str(i)] for i, name in enumerate(names)},
        {name: np.stack([row["channels"] for row in those]) for name, those in of.items()},
        {name: _column(those, "contribution") for name, those in of.items()},
        _column(first, "output"),
        np.array([row["targets"] for row in first], np.int64),
    )


_AGAIN = "save it again with if_exists='overwrite'"


def _place(folder: Path) -> Path:
    return folder / "arrays" / "saliency" / "weights.zarr"


def _column(rows: Sequence[dict[str, Any]], column: str) -> FloatArray:
    return np.array([np.nan if row[column] is None else row[column] for row in rows], np.float32)
