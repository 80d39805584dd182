"""A pre-norm transformer as its residual stream wires it: tokens, the neurons of every MLP, logits."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from weighbridge.analyses.transformer import Array, Transformer
from weighbridge.analyses.virtual_weights import before_logits, read_by_logit, read_by_mlp
from weighbridge.analyses.wiring import Direction, Weights
from weighbridge.checkpoints.protocol import Tensor
from weighbridge.checkpoints.tokens import tokens
from weighbridge.circuit import Unit
from weighbridge.errors import BadArgument

TOKENS, LOGITS = "tokens", "logits"
_ROWS = 8192
"""Rows of a table of tokens held at a time."""


class ResidualStream:
    """The wiring of a transformer whose blocks normalise what they read; see `weighbridge.analyses.virtual_weights`.

    A neuron reads all tokens and the neurons of all earlier MLPs, is read by those of later ones and by the logits.
    Raises `BadArgument` for a post-norm network.
    """

    def __init__(self, network: Transformer) -> None:
        network.check_pre_norm("what an MLP writes is normalised before another reads it")
        self._network = network
        self.layers = (TOKENS, *(mlp(i) for i in range(network.layers)), LOGITS)
        self._texts: Mapping[int, str] | None = None

    def check(self, unit: Unit) -> None:
        if unit.layer not in self.layers:
            last = self._network.layers - 1
            raise BadArgument(f"{self._network.checkpoint.name}: no layer {_layer(unit)}; expected 0 to {last}")
        table = unit.layer in (TOKENS, LOGITS)
        size = self._network.embedding().shape[0] if table else self._network.neurons(_layer(unit))
        if not 0 <= unit.number < size:
            raise BadArgument(
                f"{unit.layer}: no {'token' if table else 'neuron'} {unit.number}; expected 0 to {size - 1}"
            )

    def weights(self, units: list[Unit], direction: Direction) -> list[Weights]:
        """All units of one front share what is read of a layer."""
        found: list[Weights] = [{} for _ in units]
        if direction == "upstream":
            self._add_inputs(units, found)
        else:
            self._add_outputs(units, found)
        return found

    def names(self, units: Iterable[Unit]) -> Mapping[Unit, str]:
        """Texts of tokens; a neuron bears the one that it reads most of. None without a vocabulary."""
        texts = self._vocabulary()
        if not texts:
            return {}
        named = {u: texts[u.number] for u in units if u.layer in (TOKENS, LOGITS) and u.number in texts}
        neurons = [unit for unit in units if unit.layer not in (TOKENS, LOGITS)]
        for unit, token in zip(neurons, self._top_tokens(neurons), strict=True):
            named[unit] = f"{unit.number} {texts[token].strip()}" if token in texts else str(unit.number)
        return named

    def _vocabulary(self) -> Mapping[int, str]:
        if self._texts is None:
            self._texts = tokens(self._network.checkpoint)
        return self._texts

    def _top_tokens(self, neurons: list[Unit]) -> list[int]:
        """For each neuron the token whose embedding it reads with the greatest weight."""
        if not neurons:
            return []
        directions = self._read_by(neurons)
        best, at = np.full(len(neurons), -np.inf), np.zeros(len(neurons), int)
        for start, part in _against(self._network.embedding(), directions):
            rows = part.argmax(axis=0)
            greatest = part[rows, np.arange(len(neurons))]
            at, best = np.where(greatest > best, start + rows, at), np.maximum(best, greatest)
        return at.tolist()

    def _read_by(self, neurons: list[Unit]) -> Array:
        """What neurons read by, [width, neurons], each layer's matrix read once."""
        directions = np.zeros((self._network.width, len(neurons)), np.float32)
        for layer in {_layer(unit) for unit in neurons}:
            own = [i for i, unit in enumerate(neurons) if _layer(unit) == layer]
            directions[:, own] = read_by_mlp(self._network, layer)[:, [neurons[i].number for i in own]]
        return directions

    def _written_by(self, units: list[Unit]) -> Array:
        """What tokens and neurons write, [units, width]."""
        written = np.zeros((len(units), self._network.width), np.float32)
        for layer in {unit.layer for unit in units} - {LOGITS}:
            own = [i for i, unit in enumerate(units) if unit.layer == layer]
            if layer == TOKENS:
                for i in own:
                    written[i] = self._network.embedding().read(units[i].number).astype(np.float32)
            else:
                written[own] = self._network.outward(_layer(units[own[0]]))[[units[i].number for i in own]]
        return written

    def _add_inputs(self, units: list[Unit], found: list[Weights]) -> None:
        reading = [i for i, unit in enumerate(units) if unit.layer != TOKENS]
        if not reading:
            return
        directions = self._reading_directions([units[i] for i in reading])
        table = _all_against(self._network.embedding(), directions)
        for col, i in enumerate(reading):
            found[i][TOKENS] = table[:, col]
        for layer in range(self._network.layers):
            own = [(col, i) for col, i in enumerate(reading) if self.layers.index(units[i].layer) > layer + 1]
            if own:
                weights = self._network.outward(layer) @ directions[:, [col for col, _ in own]]
                for at, (_, i) in enumerate(own):
                    found[i][mlp(layer)] = weights[:, at]

    def _reading_directions(self, units: list[Unit]) -> Array:
        neurons = [unit for unit in units if unit.layer != LOGITS]
        directions = np.zeros((self._network.width, len(units)), np.float32)
        directions[:, [unit.layer != LOGITS for unit in units]] = self._read_by(neurons)
        for i, unit in enumerate(units):
            if unit.layer == LOGITS:
                directions[:, i] = read_by_logit(self._network, unit.number)
        return directions

    def _add_outputs(self, units: list[Unit], found: list[Weights]) -> None:
        written = self._written_by(units)
        for layer in range(self._network.layers):
            own = [i for i, unit in enumerate(units) if self.layers.index(unit.layer) < layer + 1]
            if own:
                weights = written[own] @ read_by_mlp(self._network, layer)
                for at, i in enumerate(own):
                    found[i][mlp(layer)] = weights[at]
        writing = [i for i, unit in enumerate(units) if unit.layer != LOGITS]
        if writing:
            table = _all_against(self._network.unembedding(), before_logits(self._network, written[writing].T))
            for col, i in enumerate(writing):
                found[i][LOGITS] = table[:, col]


def mlp(layer: int) -> str:
    return f"mlp {layer}"


def _layer(unit: Unit) -> int:
    return int(unit.layer.removeprefix("mlp "))


def _against(table: Tensor, directions: Array) -> Iterator[tuple[int, Array]]:
    """A stored table [tokens, width] times directions [width, n], a strip of rows at a time."""
    for start in range(0, table.shape[0], _ROWS):
        rows: Array = table.read(slice(start, start + _ROWS)).astype(np.float32)
        yield start, rows @ directions


def _all_against(table: Tensor, directions: Array) -> Array:
    return np.concatenate([part for _, part in _against(table, directions)])
