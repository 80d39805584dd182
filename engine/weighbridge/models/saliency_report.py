"""Saliency into a report: rows that say what each method found in each input, the values and inputs beside them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weighbridge.checkpoints import dtypes
from weighbridge.errors import BadArgument
from weighbridge.models.recording import IfExists, Watched, about, folder_for
from weighbridge.report import Report
from weighbridge.report.manifest import Manifest
from weighbridge.report.saliency import (
    CHECKS,
    TABLE,
    Curves,
    FloatArray,
    Inputs,
    Randomisation,
    Saliency,
    forget,
    load_inputs,
    part_of,
    save_inputs,
    save_values,
    storable,
)
from weighbridge.report.schema import TABLES
from weighbridge.report.tables import TableWriter, clear, drop_rows
from weighbridge.report.weight_attribution import TABLE as WEIGHTS
from weighbridge.report.weight_attribution import WeightAttribution, save_weights

Check = Curves | Randomisation


def save_saliency(
    report: str | os.PathLike[str],
    inputs: Any,
    results: Sequence[Saliency] | Saliency,
    *,
    labels: Sequence[str] | None = None,
    entries: Sequence[Any] | None = None,
    channel_axis: int = -1,
    checks: Sequence[Check] | Check = (),
    weights: WeightAttribution | None = None,
    name: str = "saliency",
    if_exists: IfExists = "resume",
) -> Report:
    """Writes results of `saliency` into a report, with the inputs that they are of.

    The table `saliency` has a row for each input (`name`, its label, or its number without `labels`) and method
    (`part`, for Grad-CAM with its layer). `checks`, of `deletion_insertion` and `parameter_randomisation`, go to the
    table `saliency_checks`. `report.saliency(part)` reads all of a method back. `weights`, of `attribution_to_weights`
    for the same inputs, go to the table `saliency_weights` (a row for each tensor and input) and, in the tensors' own
    shapes, beside it; `report.attribution_to_weights()` reads them back. `entries` names the columns of a table, or the
    tokens of every input. `channel_axis` is that of the inputs.

    The report may be new, of a run, or of a checkpoint, such as a scan's. It holds one batch of inputs: methods on the
    same inputs lie side by side and replace those of the same part; with other inputs "resume" raises, "overwrite"
    drops what is there. NaN becomes null in the tables and stays in the values. bfloat16 and the narrower types
    of ml_dtypes are stored as float32. A call that is refused for its arguments changes nothing.

    Raises `BadArgument` for results or checks of another number of inputs, labels that are not distinct, a check of a
    method that is not among the results, or other inputs than those in the report; `ReportError` where it cannot be
    written.
    """
    found = [results] if isinstance(results, Saliency) else list(results)
    checked = [checks] if isinstance(checks, Curves | Randomisation) else list(checks)
    batch = _inputs(inputs, labels, entries, channel_axis)
    parts = _by_part(found, len(batch.values))
    checks_of = _checks_by_part(checked, parts, len(batch.values))
    if weights is not None and len(weights.output) != len(batch.values):
        raise BadArgument(f"weights are of {len(weights.output)} inputs; expected {len(batch.values)}")
    options = {"inputs": list(batch.values.shape), "channel_axis": channel_axis}
    tables = [TABLE, *([CHECKS] if checked else []), *([WEIGHTS] if weights is not None else [])]
    if if_exists != "overwrite":
        _check_held(Path(report).expanduser(), batch)
    folder = _opened(report, tables, options, name, if_exists)
    if if_exists == "overwrite":
        for table in (TABLE, CHECKS, WEIGHTS):
            clear(folder / "tables" / table)
        forget(folder)
    save_inputs(folder, batch)
    for part, one in parts.items():
        save_values(folder, part, one.values)
        _replace_rows(folder, TABLE, part, batch, [_row(one, i) for i in range(len(batch.values))])
        of = checks_of.get(part, [])  # what is there was of another map
        _replace_rows(folder, CHECKS, part, batch, [_check_row(of, i) for i in range(len(batch.values)) if of])
    if weights is not None:
        save_weights(folder, weights)
        clear(folder / "tables" / WEIGHTS)
        _write(folder, WEIGHTS, _weight_rows(weights, batch))
    _complete(folder, tables)
    return Report(folder)


def _inputs(inputs: Any, labels: Sequence[str] | None, entries: Sequence[Any] | None, channel_axis: int) -> Inputs:
    values = storable(inputs)
    if not values.ndim:
        raise BadArgument("inputs are one number; expected a batch, with the inputs along the first axis")
    count = len(values)
    names = tuple(str(label) for label in (range(count) if labels is None else labels))
    if len(names) != count or len(set(names)) != count:
        raise BadArgument(f"labels has {len(set(names))} different entries; expected {count}, one for each input")
    return Inputs(values, names, _entries(entries, values), channel_axis)


def _entries(entries: Sequence[Any] | None, values: Any) -> tuple[tuple[str, ...], ...]:
    """The names of the columns or tokens of every input."""
    if entries is None:
        return ()
    of_each = [entries] * len(values) if not len(entries) or isinstance(entries[0], str) else entries
    found = tuple(tuple(str(name) for name in names) for names in of_each)
    if len(found) != len(values) or any(values.shape[1:2] != (len(names),) for names in found):
        raise BadArgument(f"entries name other columns or tokens than those of inputs of shape {values.shape}")
    return found


def _by_part(results: Sequence[Saliency], count: int) -> dict[str, Saliency]:
    found: dict[str, Saliency] = {}
    for result in results:
        part = part_of(result.method, result.layer)
        if len(result.values) != count:
            raise BadArgument(f"{part} is of {len(result.values)} inputs; expected {count}")
        if part in found:
            raise BadArgument(f"{part} is there twice; a report holds one result of a method, save the other elsewhere")
        found[part] = result
    return found


def _checks_by_part(checks: Sequence[Check], parts: dict[str, Saliency], count: int) -> dict[str, list[Check]]:
    found: dict[str, list[Check]] = {}
    for check in checks:
        of = [part for part, result in parts.items() if result.method == check.method]
        if len(of) != 1:
            raise BadArgument(f"a check is of {check.method!r}; the results are {', '.join(parts)}; expected one of it")
        size = len(check.deletion) if isinstance(check, Curves) else check.correlation.shape[1]
        if size != count:
            raise BadArgument(f"a check of {check.method} is of {size} inputs; expected {count}")
        found.setdefault(of[0], []).append(check)
    return found


def _check_held(folder: Path, batch: Inputs) -> None:
    held = load_inputs(folder)
    if held is not None and not _same(held, batch):
        raise BadArgument(
            f"{folder}: holds saliency of other inputs, {held.values.shape}, or of these under other labels; "
            "choose another report, or if_exists='overwrite'"
        )


def _opened(
    report: str | os.PathLike[str], tables: Sequence[str], options: dict[str, Any], name: str, if_exists: IfExists
) -> Path:
    for table in tables:
        folder, manifest = folder_for(report, table, options, name=name, if_exists=if_exists, of="any")
        manifest.save(folder)
    return folder


def _same(held: Inputs, batch: Inputs) -> bool:
    equal = np.array_equal(held.values, batch.values, equal_nan=True)
    return equal and held.labels == batch.labels and held.channel_axis == batch.channel_axis


def _replace_rows(folder: Path, table: str, part: str, inputs: Inputs, rows: Sequence[dict[str, Any]]) -> None:
    drop_rows(folder / "tables" / table, inputs.labels, part)
    known = dtypes.of_array(inputs.values.dtype)
    of = {"part": part, "shape": inputs.values.shape[1:], "dtype": known.name if known else str(inputs.values.dtype)}
    of |= {"role": "other", "status": "done", "variant": "jax"}
    _write(folder, table, [of | {"name": inputs.labels[i], "order": i} | row for i, row in enumerate(rows)])


def _write(folder: Path, table: str, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        writer = TableWriter(folder / "tables" / table, TABLES[table])
        writer.add_all(rows)
        writer.flush()


def _weight_rows(found: WeightAttribution, inputs: Inputs) -> list[dict[str, Any]]:
    """A row for each tensor and input."""
    names = list(found.weights)
    rows: list[dict[str, Any]] = []
    for name, weights in found.weights.items():
        of = about(Watched(name, weights.shape, str(weights.dtype), len(rows)), names) | {"status": "done"}
        for i, label in enumerate(inputs.labels):
            contribution, output = float(found.tensors[name][i]), float(found.output[i])
            row = {"part": label, "order": len(rows), "channels": found.channels[name][i]}
            row |= {"contribution": _known(contribution), "output": _known(output), "targets": found.target[i]}
            row |= {"target": int(found.target[i][0]) if len(found.target[i]) else None}
            rows.append(of | row | {"share": _known(contribution / output) if output else None})
    return rows


def _row(found: Saliency, i: int) -> dict[str, Any]:
    values, targets = np.asarray(found.values[i], np.float64), found.target[i]
    return {
        "method": found.method,
        "activation": found.layer,
        "target": int(targets[0]) if len(targets) else None,
        "targets": targets,
        "output": _known(found.output[i]),
        "baseline_output": _known(found.baseline_output[i]),
        "completeness_gap": _known(found.completeness_gap[i]),
        "converged": bool(found.converged[i]),
        "steps": int(found.steps[i]),
        "sum": _known(values.sum()),
        "absmax": _known(np.abs(values).max(initial=0.0)),
        "reason": "the values hold NaN" if np.isnan(values).any() else None,
    }


def _check_row(checks: Sequence[Check], i: int) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for check in checks:
        row["method"] = check.method
        if isinstance(check, Curves):
            row |= {"score": check.score, "fraction": check.fraction}
            row |= {"deletion": check.deletion[i], "insertion": check.insertion[i]}
            row |= {"deletion_area": _known(check.deletion_area[i]), "insertion_area": _known(check.insertion_area[i])}
        else:
            row |= {"layers": check.layers, "correlation": check.correlation[:, i], "absolute": check.absolute[:, i]}
            row["randomised_correlation"] = _known(check.absolute[-1, i])
    return row


def _known(value: FloatArray | float) -> float | None:
    return None if np.isnan(value) else float(value)


def _complete(folder: Path, tables: Sequence[str]) -> None:
    manifest = Manifest.load(folder)
    for table in tables:
        manifest.analyses[table].status = "complete"
    manifest.save(folder)
