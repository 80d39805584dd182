"""`spectra`: the singular values of every matrix of a checkpoint, and what follows from them.

A tensor of two axes is a matrix. Of more, a convolution is unfolded to output channels by all the rest, as a report
views it, and every other is a stack of matrices, one row each (experts). What has no spectrum has a row that says why.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any, Literal

from weighbridge import devices
from weighbridge.analyses import spectrum_row, weightwatcher
from weighbridge.analyses.matrices import Attention, Convolutions
from weighbridge.analyses.plan import IfExists, Plan, Progress, Watch, make_plan, start
from weighbridge.analyses.spectrum_row import Baseline, Job, Options, Route, Row
from weighbridge.checkpoints.config import config, heads
from weighbridge.checkpoints.protocol import Tensor
from weighbridge.errors import BadArgument, WeighbridgeError
from weighbridge.matrix import matrix_view
from weighbridge.report import Report
from weighbridge.report.tables import TableWriter
from weighbridge.roles import assign
from weighbridge_kernels.variants import Device, Variant

TABLE = "spectra"
EXACT_UP_TO = 8192
"""Short side beyond which only the greatest singular values are found: all would take minutes."""
TOP = 32
_NO_WEIGHTS = ("codes", "scales")

Compat = Literal["weightwatcher"]


def spectra(
    source: Any,
    *,
    report: str | os.PathLike[str] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    if_exists: IfExists = "reuse",
    route: Route = "gram",
    exact_up_to: int = EXACT_UP_TO,
    top: int = TOP,
    key: int = 0,
    convolutions: Convolutions = "unfolded",
    input_size: Sequence[int] | None = None,
    attention: Attention = "whole",
    baseline: Baseline = "none",
    compat: Compat | None = None,
    device: Device = "auto",
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """The spectrum of every matrix of a checkpoint, in the table `spectra` of a report.

    `source`, `report`, `include`, `exclude`, `if_exists` and `device` are as for `scan`; a report of the same files may
    hold both. Singular values are exact in float64: by the Gram matrix of the short side, read strip by strip, or
    directly, where small ones matter (`route="direct"`: some four times the work, and the matrix in memory). Of a
    matrix whose short side exceeds `exact_up_to` the `top` greatest are found by block Lanczos, each with a bound on
    its error, and the density of all by stochastic Lanczos quadrature with its standard error; what needs every value
    is null. `key` seeds all that is random.

    A convolution is one unfolded matrix, a matrix for each place of its kernel (`convolutions="slices"`), or the map
    that it is under circular padding and stride 1 of inputs of `input_size` (`"circular"`). With `attention="heads"`
    query, key, value and output matrices have a row for each head as well, where `config.json` tells of them. With
    `baseline="permuted"` each matrix is compared with its own entries in random order, at twice the work. With
    `compat="weightwatcher"` the table `weightwatcher` holds that program's columns by its definitions.

    Raises what `scan` raises.
    """
    prepared = plan(
        source,
        report=report,
        include=include,
        exclude=exclude,
        if_exists=if_exists,
        route=route,
        exact_up_to=exact_up_to,
        top=top,
        key=key,
        convolutions=convolutions,
        input_size=input_size,
        attention=attention,
        baseline=baseline,
        compat=compat,
    )
    return run(prepared, device=device, progress=progress)


def plan(
    source: Any,
    *,
    report: str | os.PathLike[str] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    if_exists: IfExists = "reuse",
    route: Route = "gram",
    exact_up_to: int = EXACT_UP_TO,
    top: int = TOP,
    key: int = 0,
    convolutions: Convolutions = "unfolded",
    input_size: Sequence[int] | None = None,
    attention: Attention = "whole",
    baseline: Baseline = "none",
    compat: Compat | None = None,
) -> Plan:
    """What `spectra` would do. Writes nothing."""
    for name, value in (("exact_up_to", exact_up_to), ("top", top), *(("input_size", n) for n in input_size or ())):
        if value < 1:
            raise BadArgument(f"{name} is {value}; expected 1 or more")
    if (convolutions == "circular") != bool(input_size):
        raise BadArgument(
            f"convolutions {convolutions!r} with input_size {input_size}; expected a size with 'circular', else none"
        )
    size = list(input_size) if input_size else None
    asked = Options(route, exact_up_to, top, key, convolutions, size, attention, baseline)
    options = {"key": key, "baseline": baseline} if compat else asdict(asked)
    table = compat or TABLE
    return make_plan(source, table, options, report=report, include=include, exclude=exclude, if_exists=if_exists)


def run(prepared: Plan, *, device: Device = "auto", progress: Callable[[Progress], None] | None = None) -> Report:
    """Carries out a plan; see `spectra`."""
    if prepared.finished is not None:
        return prepared.finished
    began = time.monotonic()
    kernels = devices.select(device)
    writer, manifest = start(prepared, kernels.name)
    analysis = manifest.analyses[prepared.table]
    try:
        _fill(prepared, writer, analysis.options, kernels, Watch(prepared, progress))
    finally:
        writer.flush()
        analysis.seconds += time.monotonic() - began
        manifest.save(prepared.folder)
    analysis.status = "complete"
    manifest.save(prepared.folder)
    return Report(prepared.folder)


def _fill(prepared: Plan, writer: TableWriter, given: dict[str, Any], kernels: Variant, watch: Watch) -> None:
    order = {name: i for i, name in enumerate(prepared.checkpoint)}
    for i, fault in enumerate(prepared.faults):
        row = {"name": fault.name, "shape": list(fault.shape), "part": "", "status": "failed", "reason": fault.reason}
        writer.add(row | {"role": "other", "order": len(order) + i})
    decompose = _decomposer(prepared, given, kernels)
    for tensor in prepared.remaining:
        role, layer = assign(tensor.name, tensor.shape, tensor.dtype.name, order.keys())
        about = {
            "name": tensor.name,
            "shape": list(tensor.shape),
            "dtype": tensor.dtype.name,
            "role": role,
            "layer": layer,
            "part": "",
            "variant": kernels.name,
            "order": order[tensor.name],
        }
        writer.add_all([about | row for row in _rows_of(tensor, role, decompose)])
        watch.advance(tensor.nbytes, 1)


Decompose = Callable[[Tensor, Any], Iterator[Row]]


def _decomposer(prepared: Plan, given: dict[str, Any], kernels: Variant) -> Decompose:
    """What gives the rows of a tensor of a role, for the table that the plan fills."""
    if prepared.table != TABLE:
        options = weightwatcher.Options(key=given["key"], baseline=given["baseline"])
        return lambda tensor, role: weightwatcher.rows(tensor, matrix_view(tensor.name, tensor.shape, role), options)
    asked = Options(**{option.name: given[option.name] for option in fields(Options)})
    settings = config(prepared.checkpoint) if asked.attention == "heads" else {}
    return lambda tensor, role: spectrum_row.rows(
        Job(
            tensor,
            matrix_view(tensor.name, tensor.shape, role),
            heads(settings, role, tensor.shape),
            asked,
            kernels,
        )
    )


def _rows_of(tensor: Tensor, role: Any, decompose: Decompose) -> list[Row]:
    reason = _without_spectrum(tensor, role)
    if reason:
        return [{"status": "skipped", "reason": reason}]
    try:
        return list(decompose(tensor, role))
    except WeighbridgeError as error:
        return [{"status": "failed", "reason": f"{tensor.name}: {error}"}]


def _without_spectrum(tensor: Tensor, role: str) -> str:
    if tensor.dtype.kind != "float":
        return f"{tensor.dtype} holds no weights"
    if role in _NO_WEIGHTS:
        return f"{role} of a quantised tensor, not weights"
    if len(tensor.shape) < 2:
        return "has fewer than two axes"
    return "" if tensor.count else "has no entries"
