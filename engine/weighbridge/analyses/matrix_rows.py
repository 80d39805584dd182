"""Filling a table that has rows for the matrices of every tensor: what its analyses share."""

import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from weighbridge import devices
from weighbridge.analyses.plan import Plan, Progress, Watch, start
from weighbridge.checkpoints.protocol import Tensor
from weighbridge.errors import WeighbridgeError
from weighbridge.report import Report
from weighbridge.report.tables import TableWriter
from weighbridge.roles import Role, assign
from weighbridge_kernels.variants import Device, Variant

Row = dict[str, Any]
Rows = Callable[[Tensor, Role, Variant], Iterable[Row]]
_NO_WEIGHTS = ("codes", "scales")
_SMALL = 1 << 22
"""Entries up to which tensors are worked on side by side."""


def run_rows(
    prepared: Plan, rows: Rows, *, device: Device = "auto", progress: Callable[[Progress], None] | None = None
) -> Report:
    """Carries out a plan: the rows that `rows(tensor, role, kernels)` gives, tensor after tensor.

    A tensor that holds no matrix of weights has a row that says so, one that cannot be read a row with the reason; what
    is done stays if the run is broken off.
    """
    if prepared.finished is not None:
        return prepared.finished
    began = time.monotonic()
    kernels = devices.select(device)
    writer, manifest = start(prepared, kernels.name)
    analysis = manifest.analyses[prepared.table]
    try:
        _fill(prepared, writer, rows, kernels, Watch(prepared, progress))
    finally:
        writer.flush()
        analysis.seconds += time.monotonic() - began
        manifest.save(prepared.folder)
    analysis.status = "complete"
    manifest.save(prepared.folder)
    return Report(prepared.folder)


def _fill(prepared: Plan, writer: TableWriter, rows: Rows, kernels: Variant, watch: Watch) -> None:
    order = {name: i for i, name in enumerate(prepared.checkpoint)}
    for i, fault in enumerate(prepared.faults):
        row = {"name": fault.name, "shape": list(fault.shape), "part": "", "status": "failed", "reason": fault.reason}
        writer.add(row | {"role": "other", "order": len(order) + i})

    def of(tensor: Tensor) -> list[Row]:
        known = about(tensor, order, kernels.name)
        return [known | row for row in _rows_of(tensor, known["role"], rows, kernels)]

    small = [tensor for tensor in prepared.remaining if tensor.count <= _SMALL]
    large = [tensor for tensor in prepared.remaining if tensor.count > _SMALL]
    for tensor, found in itertools.chain(_side_by_side(of, small), ((tensor, of(tensor)) for tensor in large)):
        writer.add_all(found)
        watch.advance(tensor.nbytes, 1)


def about(tensor: Tensor, order: Mapping[str, int], variant: str) -> Row:
    """The columns that every row of a tensor begins with; `order` has the places of all names of the checkpoint."""
    role, layer = assign(tensor.name, tensor.shape, tensor.dtype.name, order.keys())
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype.name,
        "role": role,
        "layer": layer,
        "part": "",
        "variant": variant,
        "order": order[tensor.name],
    }


def _side_by_side(of: Callable[[Tensor], list[Row]], tensors: Sequence[Tensor]) -> Iterator[tuple[Tensor, list[Row]]]:
    """The rows of small tensors, one a processor at a time: of such matrices a product has no use for several."""
    from threadpoolctl import threadpool_limits

    workers = os.cpu_count() or 1
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        ahead: deque[tuple[Tensor, Future[list[Row]]]] = deque()
        try:
            for tensor in tensors:
                ahead.append((tensor, pool.submit(of, tensor)))
                if len(ahead) > 2 * workers:
                    done, rows = ahead.popleft()
                    yield done, rows.result()
            for done, rows in ahead:
                yield done, rows.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _rows_of(tensor: Tensor, role: Role, rows: Rows, kernels: Variant) -> list[Row]:
    reason = without_matrix(tensor, role)
    if reason:
        return [{"status": "skipped", "reason": reason}]
    try:
        return list(rows(tensor, role, kernels))
    except WeighbridgeError as error:
        return [{"status": "failed", "reason": f"{tensor.name}: {error}"}]


def without_matrix(tensor: Tensor, role: Role) -> str:
    """Why a tensor holds no matrix of weights; empty where it does."""
    if tensor.dtype.kind != "float":
        return f"{tensor.dtype} holds no weights"
    if role in _NO_WEIGHTS:
        return f"{role} of a quantised tensor, not weights"
    if len(tensor.shape) < 2:
        return "has fewer than two axes"
    return "" if tensor.count else "has no entries"
