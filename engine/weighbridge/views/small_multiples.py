"""Kernels between two layers as small multiples on one scale: the strongest inputs of units, and family by family."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from weighbridge.views.kernels import FloatArray, Icons, check_channels, checked, norms, strongest
from weighbridge.views.sheet import Sheet, Tile


def strongest_inputs(
    kernel: npt.ArrayLike,
    units: Sequence[int],
    *,
    count: int = 8,
    input_icons: Icons | None = None,
    unit_icons: Icons | None = None,
    limit: float | None = None,
    title: str = "",
) -> Sheet:
    """For each unit of a kernel [h, w, in, out] the inputs with the greatest L2 norms over space, greatest first.

    A row for each unit; icons of inputs stand in a row above, a unit's own before its row. Raises `BadArgument` for
    another shape and a unit that is not there.
    """
    weights = checked(kernel)
    check_channels(units, weights.shape[3], "unit")
    sizes, inputs, own = norms(weights), input_icons or {}, unit_icons or {}
    step, first = 1 + bool(inputs), int(bool(own))
    tiles: list[Tile] = []
    for n, unit in enumerate(units):
        row = n * step + step - 1
        if unit in own:
            tiles.append(Tile(row, 0, own[unit], f"unit {unit}"))
        for col, channel in enumerate(strongest(sizes[:, unit], count), start=first):
            says = f"input {channel} to unit {unit}: norm {sizes[channel, unit]:.3g}"
            tiles.append(Tile(row, col, weights[:, :, channel, unit], str(channel), says))
            if channel in inputs:
                tiles.append(Tile(row - 1, col, inputs[channel], "", f"input {channel}"))
    names = [f"unit {unit}" if i == step - 1 else "" for unit in units for i in range(step)]
    return Sheet(tuple(tiles), title, row_names=tuple(names) if not own else (), given_limit=limit)


def expanded_inputs(
    weights: npt.ArrayLike,
    *,
    count: int = 8,
    input_icons: Icons | None = None,
    limit: float | None = None,
    title: str = "",
) -> Sheet:
    """Of one unit's weights [h, w, in], or [in] without a map, the inputs with the greatest L2 norms, greatest first.

    What `weighbridge.expanded_weights` and `chain_weights` give; otherwise as `strongest_inputs`.
    """
    whole = np.asarray(weights)
    kernel = whole.reshape((1,) * max(3 - whole.ndim, 0) + whole.shape)
    sheet = strongest_inputs(kernel[..., None], [0], count=count, input_icons=input_icons, limit=limit, title=title)
    return replace(sheet, row_names=())


def family_grid(
    kernel: npt.ArrayLike,
    inputs: Sequence[int],
    units: Sequence[int],
    *,
    input_icons: Icons | None = None,
    unit_icons: Icons | None = None,
    limit: float | None = None,
    title: str = "",
) -> Sheet:
    """Kernels [h, w, in, out] from a family of inputs, across, to a family of units, down; icons along the sides.

    Raises `BadArgument` for another shape, an input or a unit that is not there.
    """
    weights = checked(kernel)
    check_channels(inputs, weights.shape[2], "input")
    check_channels(units, weights.shape[3], "unit")
    top, left = int(bool(input_icons)), int(bool(unit_icons))
    tiles = [
        _between(weights, source, unit, row + top, col + left)
        for row, unit in enumerate(units)
        for col, source in enumerate(inputs)
    ]
    above, beside = input_icons or {}, unit_icons or {}
    tiles += [Tile(0, n + left, above[i], "", f"input {i}") for n, i in enumerate(inputs) if i in above]
    tiles += [Tile(n + top, 0, beside[i], "", f"unit {i}") for n, i in enumerate(units) if i in beside]
    rows = ("",) * top + tuple(f"unit {i}" for i in units)
    return Sheet(tuple(tiles), title, rows, ("",) * left + tuple(map(str, inputs)), limit)


def _between(weights: FloatArray, source: int, unit: int, row: int, col: int) -> Tile:
    return Tile(row, col, weights[:, :, source, unit], "", f"input {source} to unit {unit}")
