"""`spectra`: the singular values of every matrix of a checkpoint, and what follows from them.

A tensor of two axes is a matrix. Of more, a convolution is unfolded to output channels by all the rest, as a report
views it, and every other is a stack of matrices, one row each (experts). What has no spectrum has a row that says why.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any, Literal

from weighbridge.analyses import spectrum_row, weightwatcher
from weighbridge.analyses.matrices import Attention, Convolutions
from weighbridge.analyses.matrix_rows import Rows, run_rows
from weighbridge.analyses.plan import IfExists, Plan, Progress, make_plan
from weighbridge.analyses.spectrum_row import Baseline, Job, Options, Route, Row
from weighbridge.checkpoints.config import config, heads
from weighbridge.checkpoints.protocol import Tensor
from weighbridge.errors import BadArgument
from weighbridge.matrix import matrix_view
from weighbridge.report import Report
from weighbridge.roles import Role
from weighbridge_kernels.variants import Device, Variant

TABLE = "spectra"
TOP = 32

Compat = Literal["weightwatcher"]


def spectra(
    source: Any,
    *,
    report: str | os.PathLike[str] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    if_exists: IfExists = "reuse",
    route: Route = "gram",
    exact_up_to: int | None = None,
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
    matrix whose short side exceeds `exact_up_to` (8,192 on a CPU, 16,384 on an accelerator) the `top` greatest are
    found by block Lanczos, each with a bound on its error, and the density of all by stochastic Lanczos quadrature with
    its standard error; what needs every value is null. `key` seeds all that is random.

    A convolution is one unfolded matrix, a matrix for each place of its kernel (`convolutions="slices"`), or the map
    that it is under circular padding and stride 1 of inputs of `input_size` (`"circular"`). With `attention="heads"`
    query, key, value and output matrices have a row for each head as well, where `config.json` tells of them. With
    `baseline="permuted"` each matrix whose values are all found is compared with its own entries in random order, at
    twice the work. With `compat="weightwatcher"` the table `weightwatcher` holds that program's columns by its
    definitions.

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
    exact_up_to: int | None = None,
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
        if value is not None and value < 1:
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
    return run_rows(prepared, _rows(prepared), device=device, progress=progress)


def _rows(prepared: Plan) -> Rows:
    """What gives the rows of a tensor, for the table that the plan fills."""
    given = prepared.manifest.analyses[prepared.table].options
    if prepared.table != TABLE:
        options = weightwatcher.Options(key=given["key"], baseline=given["baseline"])
        return lambda tensor, role, kernels: weightwatcher.rows(
            tensor, matrix_view(tensor.name, tensor.shape, role), kernels, options
        )
    asked = Options(**{option.name: given[option.name] for option in fields(Options)})
    settings = config(prepared.checkpoint) if asked.attention == "heads" else {}

    def rows(tensor: Tensor, role: Role, kernels: Variant) -> Iterator[Row]:
        view = matrix_view(tensor.name, tensor.shape, role)
        yield from spectrum_row.rows(Job(tensor, view, heads(settings, role, tensor.shape), asked, kernels))

    return rows
