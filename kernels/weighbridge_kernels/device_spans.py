"""NumPy spans to the devices and their sums back: the host's side of `span_pass`.

A span's array is handed to the device as it is, or through a padded copy, and must stay unchanged until
`Accumulator.add` has returned. Nothing waits before that, so while one span is worked on the next is on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jax
import numpy as np

from weighbridge_kernels.bit_histogram import Method
from weighbridge_kernels.padding import padded_size
from weighbridge_kernels.span_pass import CodeTable, RowSums, Totals, accumulate, weigh_codes, weigh_floats, widened


@dataclass(frozen=True)
class SpanOnDevice:
    """The sums of a span, on their way or being computed; `shape` is that of the span without padding."""

    shape: tuple[int, int]
    rows: RowSums | None
    totals: Totals


@dataclass(frozen=True)
class DeviceSpans:
    """The devices that share a scan; `method` is how they count (`bit_histogram`)."""

    devices: Sequence[Any]
    method: Method

    def weigh_codes(
        self, codes: np.ndarray, format_name: str, turn: int, *, channels: bool, columns: bool, blocks: bool
    ) -> SpanOnDevice:
        """See `span_pass.weigh_codes`; the `turn` chooses the device, so that a tensor's spans always fall alike."""
        device = self._device(turn)
        sums = weigh_codes(
            jax.device_put(_padded(codes, 0), device),
            jax.device_put(np.array(codes.shape, np.int32), device),
            _table(format_name, device),
            method=self.method,
            channels=channels,
            columns=columns,
            blocks=blocks,
        )
        return SpanOnDevice(codes.shape, *sums)

    def weigh_floats(self, x: np.ndarray, words: np.ndarray, turn: int, *, columns: bool) -> SpanOnDevice:
        """See `span_pass.weigh_floats`."""
        device = self._device(turn)
        with jax.enable_x64(True):
            padded = _padded(x, np.nan)
            on_device = jax.device_put(padded, device)
            same = words.dtype.itemsize == x.dtype.itemsize
            sums = weigh_floats(
                on_device,
                on_device.view(np.uint32) if same else jax.device_put(_padded(words, _NAN_WORD), device),
                jax.device_put(np.array(x.shape, np.int32), device),
                method=self.method,
                columns=columns,
            )
        return SpanOnDevice(x.shape, *sums)

    def _device(self, turn: int) -> Any:
        return self.devices[turn % len(self.devices)]


_NAN_WORD = 0x7FC00000


@cache
def _table(format_name: str, device: Any) -> CodeTable:
    table: CodeTable = jax.device_put(CodeTable.of(format_name), device)
    return table


def _padded(matrix: np.ndarray, value: float) -> np.ndarray:
    """Of the size that a compilation serves; the very array where it has one."""
    shape = tuple(padded_size(side) for side in matrix.shape)
    if shape == matrix.shape:
        return matrix
    padded = np.full(shape, value, matrix.dtype)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    return padded


@dataclass
class Accumulator:
    """The totals of one tensor, on each device that spans of it went to."""

    _totals: dict[Any, Totals] = field(default_factory=dict)

    def add(self, span: SpanOnDevice) -> RowSums | None:
        """Adds a span's totals and returns its row sums in NumPy, padding cut off; the span's memory is free then."""
        device = span.totals.exponent.device
        with jax.enable_x64(True):
            before = self._totals.get(device)
            self._totals[device] = widened(span.totals) if before is None else accumulate(before, span.totals)
        if span.rows is None:
            span.totals.tallies["counts"].block_until_ready()
            return None
        rows: RowSums = jax.device_get(span.rows)
        return rows._replace(sums=rows.sums[:, : span.shape[0]], missing=rows.missing[: span.shape[0]])

    def fetch(self) -> list[Totals]:
        """The totals of each device, in NumPy, and then nothing is held there."""
        totals = [jax.device_get(self._totals[device]) for device in sorted(self._totals, key=lambda d: d.id)]
        self._totals.clear()
        return totals
