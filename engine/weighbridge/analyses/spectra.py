"""`spectra`: the singular values of every matrix of a checkpoint, and what follows from them.

A tensor of two axes is a matrix. Of more, a convolution is unfolded to output channels by all the rest, as a report
views it, and every other is a stack of matrices, one row each (experts). What has no spectrum has a row that says why.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from weighbridge.analyses import weightwatcher
from weighbridge.analyses.plan import IfExists, Plan, Progress, Watch, make_plan, start
from weighbridge.checkpoints.protocol import Tensor
from weighbridge.errors import BadArgument, WeighbridgeError
from weighbridge.matrix import MatrixView, matrix_view
from weighbridge.report import Report
from weighbridge.report.tables import TableWriter
from weighbridge.roles import Assignment, assign
from weighbridge_kernels.leading_spectrum import leading_spectrum
from weighbridge_kernels.marchenko_pastur import marchenko_pastur
from weighbridge_kernels.power_law import power_law
from weighbridge_kernels.spectral_metrics import entropy, gram_floor, spectral_metrics
from weighbridge_kernels.spectrum_host import gram, singular_values_direct, singular_values_of_gram

TABLE = "spectra"
EXACT_UP_TO = 8192
"""Short side beyond which only the greatest singular values are found: all would take minutes."""
TOP = 32
PASSES = 8
"""Times that a matrix is read for its greatest singular values."""
VARIANT = "host"
_STRIP_ENTRIES = 1 << 22
_NO_WEIGHTS = ("codes", "scales")

Route = Literal["gram", "direct"]
Compat = Literal["weightwatcher"]
FloatArray = npt.NDArray[np.float64]
Row = dict[str, Any]


class Matrix(NamedTuple):
    """A matrix in a tensor: `rows` × `cols` entries from `start` on, as stored."""

    part: str
    start: int
    rows: int
    cols: int


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
    compat: Compat | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """The spectrum of every matrix of a checkpoint, in the table `spectra` of a report.

    `source`, `report`, `include`, `exclude` and `if_exists` are as for `scan`; a report of the same files may hold
    both. Singular values are exact in float64: by the Gram matrix of the short side, read strip by strip, or directly,
    where small ones matter (`route="direct"`: some four times the work, and the matrix in memory). Of a matrix whose
    short side exceeds `exact_up_to` the `top` greatest are found by block Lanczos, in eight passes from a random block
    that `key` seeds, each with a bound on its error; what needs all of them is null. With `compat="weightwatcher"` the
    table `weightwatcher` holds that program's columns by its definitions. Raises what `scan` raises.
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
        compat=compat,
    )
    return run(prepared, progress=progress)


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
    compat: Compat | None = None,
) -> Plan:
    """What `spectra` would do. Writes nothing."""
    for name, value in (("exact_up_to", exact_up_to), ("top", top)):
        if value < 1:
            raise BadArgument(f"{name} is {value}; expected 1 or more")
    options = {} if compat else {"route": route, "exact_up_to": exact_up_to, "top": top, "key": key}
    table = compat or TABLE
    return make_plan(source, table, options, report=report, include=include, exclude=exclude, if_exists=if_exists)


def run(prepared: Plan, *, progress: Callable[[Progress], None] | None = None) -> Report:
    """Carries out a plan; see `spectra`."""
    if prepared.finished is not None:
        return prepared.finished
    began = time.monotonic()
    writer, manifest = start(prepared, VARIANT)
    analysis = manifest.analyses[prepared.table]
    try:
        _fill(prepared, writer, analysis.options, Watch(prepared, progress))
    finally:
        writer.flush()
        analysis.seconds += time.monotonic() - began
        manifest.save(prepared.folder)
    analysis.status = "complete"
    manifest.save(prepared.folder)
    return Report(prepared.folder)


def _fill(prepared: Plan, writer: TableWriter, options: dict[str, Any], watch: Watch) -> None:
    names = set(prepared.checkpoint)
    order = {name: i for i, name in enumerate(prepared.checkpoint)}
    for i, fault in enumerate(prepared.faults):
        row = {"name": fault.name, "shape": list(fault.shape), "part": "", "status": "failed", "reason": fault.reason}
        writer.add(row | {"role": "other", "order": len(order) + i})
    for tensor in prepared.remaining:
        given = assign(tensor.name, tensor.shape, tensor.dtype.name, names)
        about = {
            "name": tensor.name,
            "shape": list(tensor.shape),
            "dtype": tensor.dtype.name,
            "role": given.role,
            "layer": given.layer,
            "part": "",
            "variant": VARIANT,
            "order": order[tensor.name],
        }
        compat = prepared.table == "weightwatcher"
        rows = _rows_of(tensor, given, weightwatcher.rows if compat else spectrum_rows, options)
        writer.add_all([about | row for row in rows])
        watch.advance(tensor.nbytes, 1)


Rows = Callable[[Tensor, MatrixView, dict[str, Any]], Iterator[Row]]


def _rows_of(tensor: Tensor, given: Assignment, rows: Rows, options: dict[str, Any]) -> list[Row]:
    reason = _without_spectrum(tensor, given)
    if reason:
        return [{"status": "skipped", "reason": reason}]
    try:
        return list(rows(tensor, matrix_view(tensor.name, tensor.shape, given.role), options))
    except WeighbridgeError as error:
        return [{"status": "failed", "reason": f"{tensor.name}: {error}"}]


def _without_spectrum(tensor: Tensor, given: Assignment) -> str:
    if tensor.dtype.kind != "float":
        return f"{tensor.dtype} holds no weights"
    if given.role in _NO_WEIGHTS:
        return f"{given.role} of a quantised tensor, not weights"
    if len(tensor.shape) < 2:
        return "has fewer than two axes"
    return "" if tensor.count else "has no entries"


def spectrum_rows(tensor: Tensor, view: MatrixView, options: dict[str, Any]) -> Iterator[Row]:
    """A row for each matrix of a tensor."""
    for matrix in matrices(tensor, view):
        where = {"part": matrix.part, "rows": matrix.rows, "cols": matrix.cols}
        short = min(matrix.rows, matrix.cols)
        if short > options["exact_up_to"]:
            yield where | _leading(tensor, matrix, options)
            continue
        values, floor = singular_values(tensor, matrix, options["route"])
        if not np.isfinite(values).all():
            yield where | _not_finite(tensor)
            continue
        route = {"route": options["route"], "accuracy": floor, "status": "done"}
        yield where | route | figures(values, (matrix.rows, matrix.cols), floor)


def _not_finite(tensor: Tensor) -> Row:
    reason = f"{tensor.name}: holds NaN or Inf, which leave no spectrum; see the scan for where"
    return {"status": "failed", "reason": reason}


def _leading(tensor: Tensor, matrix: Matrix, options: dict[str, Any]) -> Row:
    """What is known of a matrix by its greatest singular values and the sum of its squares."""
    energy = 0.0

    def apply_gram(block: FloatArray) -> FloatArray:
        nonlocal energy
        total, energy = np.zeros_like(block), 0.0
        for strip in _strips(tensor, matrix):
            total += strip.T @ (strip @ block)
            energy += float(np.vdot(strip, strip))
        return total if np.isfinite(energy) else np.zeros_like(block)

    side = min(matrix.rows, matrix.cols)
    found = leading_spectrum(apply_gram, side, count=options["top"], passes=PASSES, key=options["key"])
    if not np.isfinite(energy):
        return _not_finite(tensor)
    spectral = float(found.values[0])
    return {
        "status": "done",
        "reason": f"its short side of {side:,} exceeds --exact-up-to {options['exact_up_to']:,}: leading values alone",
        "route": "leading",
        "accuracy": float(found.bounds.max()),
        "spectral_norm": spectral,
        "frobenius_norm": math.sqrt(energy),
        "log_spectral_norm": _log10(spectral, 2),
        "log_frobenius_norm": _log10(energy, 1),
        "stable_rank": energy / spectral**2 if spectral else None,
        "singular_values": found.values,
        "singular_value_bounds": found.bounds,
    }


def matrices(tensor: Tensor, view: MatrixView) -> Iterator[Matrix]:
    """The matrices of a tensor: itself, a convolution unfolded, or one for each index before the last two axes."""
    if len(tensor.shape) == 2 or view.layout != "matrix":
        yield Matrix("", 0, view.rows, view.cols)
        return
    *stack, rows, cols = tensor.shape
    for number, index in enumerate(np.ndindex(*stack)):
        yield Matrix(",".join(map(str, index)), number * rows * cols, rows, cols)


def singular_values(tensor: Tensor, matrix: Matrix, route: Route) -> tuple[FloatArray, float]:
    """All singular values, greatest first, and below what they are noise; NaN where an entry is not finite."""
    short = min(matrix.rows, matrix.cols)
    if route == "direct":
        x = _entries(tensor, matrix, slice(0, matrix.rows), slice(0, matrix.cols))
        values = singular_values_direct(x) if np.isfinite(x).all() else np.full(short, np.nan)
        return values, float(values[0] * max(x.shape) * np.finfo(np.float64).eps)
    total = np.zeros((short, short))
    for strip in _strips(tensor, matrix):
        total += gram(strip)
    values = singular_values_of_gram(total) if np.isfinite(total).all() else np.full(short, np.nan)
    return values, gram_floor(float(values[0]), short)


def _strips(tensor: Tensor, matrix: Matrix) -> Iterator[FloatArray]:
    """The matrix in strips of its long side, each with the short side across."""
    rows, cols = matrix.rows, matrix.cols
    step = max(_STRIP_ENTRIES // min(rows, cols), 1)
    for at in range(0, max(rows, cols), step):
        if rows >= cols:
            yield _entries(tensor, matrix, slice(at, min(at + step, rows)), slice(0, cols))
        else:
            yield _entries(tensor, matrix, slice(0, rows), slice(at, min(at + step, cols))).T


def _entries(tensor: Tensor, matrix: Matrix, rows: slice, cols: slice) -> FloatArray:
    """A window of a matrix in float64, of which only whole rows or parts of rows are read."""
    if cols == slice(0, matrix.cols):
        count = (rows.stop - rows.start) * matrix.cols
        read = tensor.entries(matrix.start + rows.start * matrix.cols, count).reshape(-1, matrix.cols)
    else:
        width = cols.stop - cols.start
        read = np.stack(
            [tensor.entries(matrix.start + row * matrix.cols + cols.start, width) for row in range(matrix.rows)]
        )
    return read.astype(np.float64)


def figures(values: FloatArray, shape: tuple[int, int], floor: float) -> Row:
    """The columns that follow from singular values; those below `floor` are left out of the fits."""
    metrics = spectral_metrics(values, shape)
    eigenvalues = np.square(values)
    law = power_law(eigenvalues[values > floor])
    bulk = marchenko_pastur(eigenvalues, shape)
    found = {name: getattr(metrics, name) for name in metrics.__slots__}
    found |= {
        "log_spectral_norm": _log10(metrics.spectral_norm, 2),
        "log_frobenius_norm": _log10(metrics.frobenius_norm, 2),
        "entropy": entropy(values),
        "alpha": law.alpha,
        "alpha_sigma": law.sigma,
        "alpha_xmin": law.xmin,
        "alpha_distance": law.distance,
        "alpha_tail": law.tail,
        "mp_sigma": bulk.sigma,
        "mp_edge": bulk.high,
        "mp_spikes": bulk.spikes,
        "mp_soft_rank": bulk.soft_rank,
    }
    plain = {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in found.items()}
    return plain | {"singular_values": values}


def _log10(value: float, power: int) -> float:
    return power * math.log10(value) if value > 0 else math.nan
