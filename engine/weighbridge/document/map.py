"""The document's map of the model: a cell for each role and layer, its colour one of a few levels of a column."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from weighbridge.document.table import MEANINGS, clipped, number, share, whole

if TYPE_CHECKING:
    import pandas as pd

LEVELS = 32
"""Colours of a map."""
_TICKS = 5
_FORMS = {"number": number, "share": share, "whole": whole}

FloatArray = npt.NDArray[np.float64]
Place = tuple[int, str]


class MapColumn(NamedTuple):
    """A column of the table `scan` that a map can show, and how its values spread over the colours."""

    name: str
    label: str
    form: Literal["number", "share", "whole"] = "number"
    scale: Literal["linear", "log", "asinh"] = "linear"


COLUMNS = (
    MapColumn("std", "std", scale="log"),
    MapColumn("absmax", "absmax", scale="log"),
    MapColumn("kurtosis", "excess kurtosis", scale="asinh"),
    MapColumn("sparsity_1e3", "sparsity 1e-3", form="share"),
    MapColumn("entropy", "entropy (bits a weight)"),
    MapColumn("exponent_entropy", "exponent entropy (bits a weight)"),
    MapColumn("qerr_int4_32", "error of int4, blocks of 32", form="share"),
    MapColumn("qerr_fp8_e4m3", "error of FP8 E4M3", form="share"),
    MapColumn("outlier_rows", "outlier rows", form="whole", scale="asinh"),
    MapColumn("outlier_cols", "outlier columns", form="whole", scale="asinh"),
    MapColumn("dead_rows", "dead rows", form="whole", scale="asinh"),
    MapColumn("dead_cols", "dead columns", form="whole", scale="asinh"),
)


class ModelMap(NamedTuple):
    """Roles down, layers across (-1: in none), and for each column what each place of the grid shows.

    `places` are those that hold tensors, role by role. `data` is what the page's script draws from: names, the lines of
    the table, and for each column its legend and, in the order of `places`, [level, value, name, tensors]; a level of
    -1 is no value. `beyond` is how many layers are left out.
    """

    roles: list[str]
    layers: list[int]
    places: dict[Place, int]
    data: dict[str, Any]
    beyond: int


def model_map(rows: "pd.DataFrame", anchors: Mapping[str, str], *, layers: int, text: int) -> ModelMap:
    """The map of a table `scan`, of its first `layers` layers. `anchors` are the lines of the table, by name."""
    from weighbridge.views.overview import map_table

    tables = {column: map_table(rows, column.name) for column in COLUMNS}
    tables = {column: table for column, table in tables.items() if table["value"].notna().any()}
    held = _places(tables.values())
    shown = sorted({layer for layer, _ in held})[:layers]
    roles = list(dict.fromkeys(role for _, role in held))
    places = [(layer, role) for role in roles for layer in shown if (layer, role) in held]
    names: dict[str, int] = {}
    columns = [_column(column, table, places, names) for column, table in tables.items()]
    data = {
        "names": [clipped(name, text) for name in names],
        "lines": [anchors.get(name, "") for name in names],
        "columns": columns,
    }
    beyond = len({layer for layer, _ in held}) - len(shown)
    return ModelMap(roles, shown, {place: i for i, place in enumerate(places)}, data, beyond)


def _places(tables: Any) -> dict[Place, None]:
    return {
        (int(layer), str(role)): None
        for table in tables
        for layer, role in zip(table["layer"], table["role"], strict=True)
    }


def _column(column: MapColumn, table: "pd.DataFrame", places: list[Place], names: dict[str, int]) -> dict[str, Any]:
    """A column as data; names are numbered in `names`, which it extends."""
    form = _FORMS[column.form]
    by_place = {(row["layer"], row["role"]): row for row in table.to_dict("records")}
    found = [by_place.get(place) for place in places]
    values = np.array([np.nan if row is None else row["value"] for row in found], np.float64)
    levels, ticks = _levels(values, column.scale)
    cells = [
        [level, form(value), names.setdefault(row["name"], len(names)), row["tensors"]] if row is not None else None
        for level, value, row in zip(levels.tolist(), values.tolist(), found, strict=True)
    ]
    return {
        "name": column.name,
        "label": column.label,
        "meaning": MEANINGS[column.name],
        "scale": column.scale,
        "ticks": [form(tick) for tick in ticks],
        "cells": cells,
    }


def _levels(values: FloatArray, scale: str) -> tuple[npt.NDArray[np.int64], list[float]]:
    """A level for each value, -1 for NaN, and the values at equal steps over the levels."""
    known = values[np.isfinite(values)]
    if known.size == 0:
        return np.full(values.shape, -1), []
    forward: Callable[[Any], Any] = np.positive
    back: Callable[[Any], Any] = np.positive
    positive = known[known > 0]
    if scale == "log" and positive.size:
        least = positive.min()
        forward, back = lambda x: np.log(np.maximum(x, least)), np.exp
    elif scale == "asinh":
        unit = max(float(np.median(np.abs(known))), float(np.abs(known).max()) / 1e3) or 1.0
        forward, back = lambda x: np.arcsinh(x / unit), lambda y: unit * np.sinh(y)
    low, high = forward(known.min()), forward(known.max())
    if low == high:
        return np.where(np.isfinite(values), LEVELS // 2, -1), [float(known[0])]
    position = (forward(np.where(np.isfinite(values), values, known.min())) - low) / (high - low)
    levels = np.minimum((position * LEVELS).astype(int), LEVELS - 1)
    return np.where(np.isfinite(values), levels, -1), [float(back(y)) for y in np.linspace(low, high, _TICKS)]
