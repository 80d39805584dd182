"""`trajectory`: how the tensors of a network move over its saved checkpoints.

The table `trajectory` has a row for each tensor and checkpoint; the table `trajectory_path` the principal components of
the path that all weights take together. Every tensor is read from all checkpoints side by side, some entries at a time.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge import checkpoints, devices
from weighbridge.analyses.matrices import Part, Reader, parts_of
from weighbridge.analyses.plan import IfExists, Plan, Progress, Watch, further_plan, make_plan, start
from weighbridge.checkpoints.protocol import Checkpoint, Tensor
from weighbridge.errors import BadArgument, WeighbridgeError
from weighbridge.matrix import matrix_view
from weighbridge.report import Report
from weighbridge.report.run_columns import WHOLE
from weighbridge.report.tables import TableWriter
from weighbridge.roles import Role, assign
from weighbridge_kernels.leading_spectrum import leading_spectrum
from weighbridge_kernels.path_components import path_components
from weighbridge_kernels.variants import Device, Variant

TABLE, PATH = "trajectory", "trajectory_path"
TOP, COMPONENTS = 8, 8
CHUNK_ENTRIES = 1 << 21
"""Entries, of all checkpoints together, that are held in float64 at a time; a few copies are made of them."""
_EXACT_UP_TO = 1024
"""Short side up to which singular values are those of the whole Gram matrix."""
_PASSES = 8
_THRESHOLD = 1e-3

FloatArray = npt.NDArray[np.float64]
Row = dict[str, Any]


def trajectory(
    sources: Sequence[Any],
    *,
    steps: Sequence[int] | None = None,
    report: str | os.PathLike[str] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    if_exists: IfExists = "reuse",
    top: int = TOP,
    key: int = 0,
    device: Device = "auto",
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """How every tensor moves over checkpoints in order, in the tables `trajectory` and `trajectory_path` of a report.

    `sources` are what `open` takes, two or more; `steps` are theirs, by default the last number in each name where
    these increase (`checkpoint-500`), else 0, 1, 2 and so on. `report`, `include`, `exclude`, `if_exists` and `device`
    are as for `scan`. Of each tensor at each step: norm, greatest magnitude, zeros, sparsity; cosines with the first,
    the previous and the last; how far it went from the first and from the previous, and how much it turned; the `top`
    leading singular values of a matrix or an unfolded convolution, found by block Lanczos from a block that `key` seeds
    where the short side exceeds 1,024. All in float64. A checkpoint in which a tensor is missing, of another shape or
    not finite has a row with the reason; cosines and lengths that would need it are null.

    The path is that of all tensors that every checkpoint has, about its mean. Raises what `scan` raises.
    """
    prepared = plan(
        sources, steps=steps, report=report, include=include, exclude=exclude, if_exists=if_exists, top=top, key=key
    )
    return run(prepared, sources, device=device, progress=progress)


def plan(
    sources: Sequence[Any],
    *,
    steps: Sequence[int] | None = None,
    report: str | os.PathLike[str] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    if_exists: IfExists = "reuse",
    top: int = TOP,
    key: int = 0,
) -> Plan:
    """What `trajectory` would do. Writes nothing."""
    if isinstance(sources, str | os.PathLike) or len(sources) < 2:
        raise BadArgument("a trajectory needs two checkpoints or more; name them in order")
    if top < 1:
        raise BadArgument(f"top is {top}; expected 1 or more")
    opened = [checkpoints.open(source) for source in sources]
    numbers = _steps(sources, steps)
    names = [_called(source, of) for source, of in zip(sources, opened, strict=True)]
    options = {"steps": numbers, "checkpoints": names, "top": top, "key": key}
    joined = _joined(opened)
    return make_plan(joined, TABLE, options, report=report, include=include, exclude=exclude, if_exists=if_exists)


def run(
    prepared: Plan,
    sources: Sequence[Any],
    *,
    device: Device = "auto",
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Carries out a plan for the sources that it was made of; see `trajectory`."""
    if prepared.finished is None:
        kernels = devices.select(device)
        opened = [checkpoints.open(source) for source in sources]
        with _Filling(prepared, kernels.name) as writer:
            watch = Watch(prepared, progress)
            for tensor in prepared.remaining:
                writer.add_all(list(_rows(prepared, opened, tensor, kernels)))
                watch.advance(tensor.nbytes, 1)
    return _path(prepared)


class _Filling:
    """A table being filled: its rows are kept whatever happens, and it is complete where nothing did."""

    def __init__(self, prepared: Plan, variant: str) -> None:
        self._prepared, self._began = prepared, time.monotonic()
        self._writer, self._manifest = start(prepared, variant)

    def __enter__(self) -> TableWriter:
        return self._writer

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self._writer.flush()
        analysis = self._manifest.analyses[self._prepared.table]
        analysis.seconds += time.monotonic() - self._began
        analysis.status = "complete" if kind is None else "incomplete"
        self._manifest.save(self._prepared.folder)


def _steps(sources: Sequence[Any], steps: Sequence[int] | None) -> list[int]:
    """The steps given, or found in the sources' names, or their places."""
    if steps is None:
        found = [re.findall(r"\d+", str(source)) if isinstance(source, str | os.PathLike) else [] for source in sources]
        steps = [int(numbers[-1]) for numbers in found if numbers]
        if len(steps) < len(sources) or sorted(set(steps)) != steps:
            steps = range(len(sources))
    if len(steps) != len(sources) or sorted(set(steps)) != list(steps):
        raise BadArgument(f"steps are {list(steps)}; expected {len(sources)} of them, each greater than the one before")
    return [int(step) for step in steps]


def _called(source: Any, opened: Checkpoint) -> str:
    return os.path.basename(os.fspath(source)) if isinstance(source, str | os.PathLike) else opened.name


def _joined(opened: Sequence[Checkpoint]) -> Checkpoint:
    """One checkpoint that stands for all: their files, and of each tensor the first that there is."""
    tensors = {name: of[name] for of in reversed(opened) for name in of}
    order = dict.fromkeys(name for of in opened for name in of)
    files = [file for of in opened for file in of.files]
    faults = [fault for of in opened for fault in of.faults if fault.name not in tensors]
    return Checkpoint(f"{opened[0].name} to {opened[-1].name}", files, [tensors[name] for name in order], faults)


def _rows(prepared: Plan, opened: Sequence[Checkpoint], tensor: Tensor, kernels: Variant) -> Iterator[Row]:
    """The rows of one tensor, a checkpoint each."""
    options = prepared.manifest.analyses[TABLE].options
    role, layer = assign(tensor.name, tensor.shape, tensor.dtype.name, prepared.checkpoint.keys())
    about = {"name": tensor.name, "part": "", "role": role, "layer": layer, "variant": kernels.name}
    about["order"] = list(prepared.checkpoint).index(tensor.name)
    held = [of.get(tensor.name) for of in opened]
    found = _figures(held, tensor, role, options, kernels)
    for i, (one, row) in enumerate(zip(held, found, strict=True)):
        of = {} if one is None else {"shape": list(one.shape), "dtype": one.dtype.name, "count": one.count}
        of |= {"step": options["steps"][i], "checkpoint": options["checkpoints"][i]}
        yield about | of | {"status": "done" if "l2" in row else "failed"} | row


def _figures(
    held: Sequence[Tensor | None], tensor: Tensor, role: Role, options: dict[str, Any], kernels: Variant
) -> list[Row]:
    """Of each checkpoint the figures of its tensor, or the reason why there are none."""
    reasons = [_reason(one, tensor) for one in held]
    usable = {i: one for i, one in enumerate(held) if one is not None and not reasons[i]}
    try:
        found = moves(usable, len(held))
        for i, one in usable.items():
            if "l2" in found[i]:
                found[i] |= _spectrum(one, role, found[i]["l2"], options, kernels)
    except WeighbridgeError as error:
        return [{"reason": reason or f"{tensor.name}: {error}"} for reason in reasons]
    return [{"reason": reason} if reason else found[i] for i, reason in enumerate(reasons)]


def _reason(tensor: Tensor | None, first: Tensor) -> str:
    """Why a checkpoint's tensor has no place in the trajectory; empty where it has."""
    if tensor is None:
        return "this checkpoint has no such tensor"
    if tensor.shape != first.shape:
        return f"its shape is {list(tensor.shape)}, in an earlier checkpoint {list(first.shape)}"
    return "" if tensor.dtype.kind == "float" else f"{tensor.dtype} holds no weights"


def moves(usable: dict[int, Tensor], count: int) -> dict[int, Row]:
    """What of each tensor, by the number of its checkpoint of `count`, does not depend on its being a matrix."""
    size = next(iter(usable.values())).count if usable else 0
    step = max(CHUNK_ENTRIES // max(len(usable), 1), 1)
    cuts = [(at, min(step, size - at)) for at in range(0, size, step)]
    absmax = {i: max((_greatest(one.entries(*cut)) for cut in cuts), default=0.0) for i, one in usable.items()}
    finite = {i: one for i, one in usable.items() if np.isfinite(absmax[i])}
    places = list(finite)
    sums = _Sums(len(places))
    for cut in cuts:
        sums.add(np.stack([one.entries(*cut).astype(np.float64) for one in finite.values()]), absmax, places)
    rows = {i: {"reason": "holds NaN or Inf; see a scan for where"} for i in usable}
    for at, i in enumerate(places):
        rows[i] = sums.row(at, places, count, size) | {"absmax": absmax[i]}
    return rows


def _greatest(entries: npt.NDArray[Any]) -> float:
    """The greatest magnitude; NaN where there is one."""
    return float(np.abs(entries.astype(np.float64)).max(initial=0.0))


class _Sums:
    """Sums over the entries of one tensor in n checkpoints: inner products of weights, of steps, of differences."""

    def __init__(self, n: int) -> None:
        self.weights, self.steps, self.products = (np.zeros((n, n)) for _ in range(3))
        self.zeros, self.small = np.zeros(n, np.int64), np.zeros(n, np.int64)

    def add(self, chunk: FloatArray, absmax: dict[int, float], places: Sequence[int]) -> None:
        """Takes the next entries, a row each checkpoint."""
        self.zeros += (chunk == 0).sum(axis=1)
        limits = np.array([_THRESHOLD * absmax[i] for i in places])
        self.small += (np.abs(chunk) <= limits[:, None]).sum(axis=1)
        self.weights += chunk @ chunk.T
        moved = np.diff(chunk, axis=0, prepend=chunk[:1])
        self.steps += moved @ moved.T
        moved = chunk - chunk[:1]
        self.products += moved @ moved.T

    def row(self, at: int, places: Sequence[int], count: int, size: int) -> Row:
        """The columns of one of the checkpoints, `places[at]` of `count`."""
        norm = float(np.sqrt(self.weights[at, at]))
        row: Row = {"l2": norm, "zeros": int(self.zeros[at]), "sparsity_1e3": self.small[at] / size if size else None}
        for name, other in (("first", 0), ("previous", places[at] - 1), ("last", count - 1)):
            if other in places:
                row[f"cosine_{name}"] = _cosine(self.weights, at, places.index(other))
        if 0 in places:
            row["distance"] = float(np.sqrt(self.products[at, at]))
        if places[at] - 1 in places:
            row["step_length"] = float(np.sqrt(self.steps[at, at]))
            if places[at] - 2 in places:
                row["turn"] = _cosine(self.steps, at, at - 1)
        return row | ({"products": self.products[at]} if len(places) == count else {})


def _cosine(products: FloatArray, a: int, b: int) -> float | None:
    norms = float(np.sqrt(products[a, a]) * np.sqrt(products[b, b]))
    return float(np.clip(products[a, b] / norms, -1, 1)) if norms else None


def _spectrum(tensor: Tensor, role: Role, norm: float, options: dict[str, Any], kernels: Variant) -> Row:
    """The leading singular values of a tensor that is one matrix."""
    if len(tensor.shape) < 2 or not tensor.count:
        return {}
    view = matrix_view(tensor.name, tensor.shape, role)
    if view.layout == "matrix" and len(tensor.shape) > 2:
        return {"reason": "a stack of matrices; spectra are of single ones"}
    (part,) = parts_of(tensor, view)
    values = _leading(Reader(tensor), part, options["top"], options["key"], kernels)
    ratio = {"stable_rank": (norm / values[0]) ** 2} if values[0] > 0 else {}
    return {"singular_values": values, "spectral_norm": float(values[0])} | ratio


def _leading(reader: Reader, part: Part, top: int, key: int, kernels: Variant) -> FloatArray:
    if min(part.shape) <= _EXACT_UP_TO:
        found = kernels.singular_values_of_gram(kernels.gram(reader.strips([part])))
        return np.asarray(found, np.float64).reshape(-1)[:top]

    def apply_gram(block: FloatArray) -> FloatArray:
        return np.asarray(kernels.gram_product(reader.strips([part]), block), np.float64)

    return leading_spectrum(apply_gram, min(part.shape), count=top, passes=_PASSES, key=key).values


def _path(prepared: Plan) -> Report:
    """Fills the table of the path from the finished table of the tensors."""
    options = prepared.manifest.analyses[TABLE].options
    further = further_plan(prepared, PATH, {"components": COMPONENTS})
    if further.finished is not None:
        return further.finished
    rows = Report(prepared.folder).table(TABLE, lists=True)
    rows = rows[rows["products"].notna()]
    tensors = [list(of["products"]) for _, of in rows.groupby("order", sort=True)]
    first = rows[rows["step"] == options["steps"][0]]
    with _Filling(further, "host") as writer:
        products = np.sum(tensors, axis=0) if tensors else np.zeros((len(options["steps"]),) * 2)
        found = path_components(np.asarray(products, np.float64), count=COMPONENTS)
        of = {"name": WHOLE, "part": "", "tensors": len(tensors), "count": int(first["count"].sum())}
        state = {"status": "done"} if tensors else {"status": "skipped", "reason": "no tensor is in every checkpoint"}
        for i, (step, called) in enumerate(zip(options["steps"], options["checkpoints"], strict=True)):
            place = {"step": step, "checkpoint": called, "order": i, "explained": found.explained}
            writer.add(of | state | place | {"scores": found.scores[i]})
    return Report(prepared.folder)
