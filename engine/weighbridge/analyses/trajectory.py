"""`trajectory`: how the tensors of a network move over its saved checkpoints.

The table `trajectory` has a row for each tensor and checkpoint; the table `trajectory_path` the principal components of
the path that all weights take together. Every tensor is read from all checkpoints side by side, some entries at a time.
"""

import itertools
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
_LEAST = -1000
"""Exponent of what has had no entry but 0: two to the minus that is finite, and lifts the least entry far enough."""
_PLAIN = 400
"""Exponents up to which squares of float64, and sums of them, neither under- nor overflow."""
_EXTENSIONS = re.compile(r"(\.(h5|hdf5|(b?f|fp|b?float|u?int|q)(4|6|8|16|32|64)(?!\d)\w*|[a-z]+))+$", re.IGNORECASE)
"""What a name ends in that says how it is stored, such as .fp16.safetensors, and not when."""

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
    these increase (`checkpoint-500`; extensions do not count), else 0, 1, 2 and so on. `report`, `include`, `exclude`,
    `if_exists` and `device` are as for `scan`. Of each tensor at each step: norm, greatest magnitude, zeros, sparsity;
    cosines with the first, the previous and the last; how far it went from the first and from the previous, and how
    much it turned; the `top` leading singular values of a matrix or an unfolded convolution, found by block Lanczos
    from a block that `key` seeds where the short side exceeds 1,024. All in float64. A checkpoint in which a tensor is
    missing, of another shape or not finite has a row with the reason; cosines and lengths that would need it are null.
    Tensors that hold no floats are skipped.

    The path is that of all tensors that every checkpoint has, about its mean. Raises what `scan` raises, and
    `BadArgument` for steps that are not whole numbers in order.
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
        prepared.manifest.analyses.pop(PATH, None)
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
        found = [number for number in map(_number, sources) if number is not None]
        steps = found if len(found) == len(sources) and _in_order(found) else range(len(sources))
    if len(steps) != len(sources) or not _in_order(steps):
        raise BadArgument(
            f"steps are {list(steps)}; expected {len(sources)} whole numbers, each greater than the one before"
        )
    return [int(step) for step in steps]


def _in_order(steps: Sequence[Any]) -> bool:
    """Whether steps are whole numbers of 64 bits, each greater than the one before."""
    real: Any = (int, float, np.integer, np.floating)
    whole = all(isinstance(step, real) and abs(step) < 1 << 63 and step == int(step) for step in steps)
    return whole and all(a < b for a, b in itertools.pairwise(steps))


def _number(source: Any) -> int | None:
    """The last number in a source's name, its extensions apart."""
    found = re.findall(r"\d+", _EXTENSIONS.sub("", str(source))) if isinstance(source, str | os.PathLike) else []
    return int(found[-1]) if found else None


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
    without = [_without(one, tensor) for one in held]
    usable = {i: one for i, one in enumerate(held) if one is not None and not without[i]}
    try:
        found = moves(usable, len(held))
        for i, one in usable.items():
            if "l2" in found[i]:
                found[i] |= _spectrum(one, role, found[i], options, kernels)
    except WeighbridgeError as error:
        return [row or {"reason": f"{tensor.name}: {error}"} for row in without]
    return [row or found[i] for i, row in enumerate(without)]


def _without(tensor: Tensor | None, first: Tensor) -> Row:
    """Status and reason of a checkpoint whose tensor has no place in the trajectory; empty where it has."""
    dtype = (first if tensor is None else tensor).dtype
    if dtype.kind != "float":
        return {"status": "skipped", "reason": f"{dtype} holds no weights"}
    if tensor is None:
        return {"status": "failed", "reason": "this checkpoint has no such tensor"}
    if tensor.shape != first.shape:
        reason = f"its shape is {list(tensor.shape)}, in an earlier checkpoint {list(first.shape)}"
        return {"status": "failed", "reason": reason}
    return {}


def moves(usable: dict[int, Tensor], count: int) -> dict[int, Row]:
    """What of each tensor, by the number of its checkpoint of `count`, does not depend on its being a matrix.

    One that is not finite has a reason instead, and no part in the figures of the others.
    """
    size = next(iter(usable.values())).count if usable else 0
    step = max(CHUNK_ENTRIES // max(len(usable), 1), 1)
    cuts = [(at, min(step, size - at)) for at in range(0, size, step)]
    absmax = {i: _greatest(np.array([_greatest(one.entries(*cut)) for cut in cuts])) for i, one in usable.items()}
    finite = {i: one for i, one in usable.items() if np.isfinite(absmax[i])}
    places = list(finite)
    sums = _Sums(len(places))
    for cut in cuts if finite else ():
        sums.add(np.stack([one.entries(*cut).astype(np.float64) for one in finite.values()]), absmax, places)
    rows = {i: {"reason": "holds NaN or Inf; see a scan for where"} for i in usable}
    for at, i in enumerate(places):
        rows[i] = sums.row(at, places, count, size) | {"absmax": absmax[i]}
    return rows


def _greatest(entries: npt.NDArray[Any]) -> float:
    """The greatest magnitude; NaN where there is one."""
    return float(np.abs(entries.astype(np.float64)).max(initial=0.0))


class _Products:
    """Inner products of n rows over all their entries, in float64 whatever the magnitudes.

    Each row is in units of a power of two, at least its greatest entry so far, so that no square under- or overflows.
    """

    def __init__(self, n: int) -> None:
        self._sums, self._exponents = np.zeros((n, n)), np.full(n, _LEAST)

    @np.errstate(over="ignore", invalid="ignore")
    def add(self, rows: FloatArray) -> None:
        """Takes the next entries of each row."""
        greatest = np.abs(rows).max(axis=1, initial=0)
        exponents = np.maximum(self._exponents, np.where(greatest > 0, np.frexp(greatest)[1], _LEAST))
        shift = self._exponents - exponents
        scaled = rows * np.ldexp(1.0, -exponents)[:, None]
        self._sums = np.ldexp(self._sums, shift[:, None] + shift) + scaled @ scaled.T
        self._exponents = exponents

    @np.errstate(over="ignore")
    def norm(self, at: int) -> float:
        """L2 norm of a row; infinite where it exceeds float64."""
        return float(np.ldexp(np.sqrt(self._sums[at, at]), self._exponents[at]))

    @np.errstate(invalid="ignore")
    def cosine(self, a: int, b: int) -> float | None:
        """Cosine of two rows; None where one of them is 0."""
        norms = np.sqrt(self._sums[a, a]) * np.sqrt(self._sums[b, b])
        return float(np.clip(self._sums[a, b] / norms, -1, 1)) if norms else None

    @np.errstate(over="ignore")
    def of(self, at: int) -> FloatArray:
        """Inner products of a row with all rows; 0 or infinite where they are beyond float64."""
        found: FloatArray = np.ldexp(self._sums[at], self._exponents[at] + self._exponents)
        return found


class _Sums:
    """Sums over the entries of one tensor in n checkpoints: inner products of weights, of steps, of differences."""

    def __init__(self, n: int) -> None:
        self.weights, self.steps, self.products = (_Products(n) for _ in range(3))
        self.zeros, self.small = np.zeros(n, np.int64), np.zeros(n, np.int64)

    @np.errstate(over="ignore")
    def add(self, chunk: FloatArray, absmax: dict[int, float], places: Sequence[int]) -> None:
        """Takes the next entries, a row each checkpoint."""
        self.zeros += (chunk == 0).sum(axis=1)
        limits = np.array([_THRESHOLD * absmax[i] for i in places])
        self.small += (np.abs(chunk) <= limits[:, None]).sum(axis=1)
        self.weights.add(chunk)
        self.steps.add(np.diff(chunk, axis=0, prepend=chunk[:1]))
        self.products.add(chunk - chunk[:1])

    def row(self, at: int, places: Sequence[int], count: int, size: int) -> Row:
        """The columns of one of the checkpoints, `places[at]` of `count`."""
        sparsity = self.small[at] / size if size else None
        row: Row = {"l2": self.weights.norm(at), "zeros": int(self.zeros[at]), "sparsity_1e3": sparsity}
        for name, other in (("first", 0), ("previous", places[at] - 1), ("last", count - 1)):
            if other in places:
                row[f"cosine_{name}"] = self.weights.cosine(at, places.index(other))
        if 0 in places:
            row["distance"] = self.products.norm(at)
        if places[at] - 1 in places:
            row["step_length"] = self.steps.norm(at)
            if places[at] - 2 in places:
                row["turn"] = self.steps.cosine(at, at - 1)
        return row | ({"products": self.products.of(at)} if len(places) == count else {})


def _spectrum(tensor: Tensor, role: Role, of: Row, options: dict[str, Any], kernels: Variant) -> Row:
    """The leading singular values of a tensor that is one matrix, whose other figures are known."""
    if len(tensor.shape) < 2 or not tensor.count:
        return {}
    view = matrix_view(tensor.name, tensor.shape, role)
    if view.layout == "matrix" and len(tensor.shape) > 2:
        return {"reason": "a stack of matrices; spectra are of single ones"}
    (part,) = parts_of(tensor, view)
    exponent = int(np.frexp(of["absmax"])[1])
    strips = _Strips(tensor, part, exponent if abs(exponent) > _PLAIN else 0)
    values = strips.magnified(_leading(strips, options["top"], options["key"], kernels))
    ratio = {"stable_rank": (of["l2"] / values[0]) ** 2} if values[0] > 0 else {}
    return {"singular_values": values, "spectral_norm": float(values[0])} | ratio


class _Strips:
    """A matrix strip by strip, over two to the power of `exponent`."""

    def __init__(self, tensor: Tensor, part: Part, exponent: int) -> None:
        self._reader, self.part, self._exponent = Reader(tensor), part, exponent

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        strips = self._reader.strips([self.part])
        return (np.ldexp(strip, -self._exponent) for strip in strips) if self._exponent else strips

    @np.errstate(over="ignore")
    def magnified(self, values: FloatArray) -> FloatArray:
        """Singular values of the strips as those of the matrix."""
        found: FloatArray = np.ldexp(values, self._exponent)
        return found


def _leading(strips: _Strips, top: int, key: int, kernels: Variant) -> FloatArray:
    short = min(strips.part.shape)
    if short <= _EXACT_UP_TO:
        found = kernels.singular_values_of_gram(kernels.gram(iter(strips)))
        return np.asarray(found, np.float64).reshape(-1)[:top]

    def apply_gram(block: FloatArray) -> FloatArray:
        return np.asarray(kernels.gram_product(iter(strips), block), np.float64)

    return leading_spectrum(apply_gram, short, count=top, passes=_PASSES, key=key).values


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
        products = _total(tensors, len(options["steps"]))
        found = path_components(np.where(np.isfinite(products).all(), products, 0), count=COMPONENTS)
        of = {"name": WHOLE, "part": "", "tensors": len(tensors), "count": int(first["count"].sum())}
        state = _path_state(products, len(tensors))
        for i, (step, called) in enumerate(zip(options["steps"], options["checkpoints"], strict=True)):
            place = {"step": step, "checkpoint": called, "order": i, "explained": found.explained}
            writer.add(of | state | place | {"scores": found.scores[i]})
    return Report(prepared.folder)


@np.errstate(over="ignore", invalid="ignore")
def _total(tensors: Sequence[Any], n: int) -> FloatArray:
    """Inner products [n, n] of the differences of all weights; zeros for no tensor, infinite beyond float64."""
    total: FloatArray = np.asarray(tensors, np.float64).reshape(-1, n, n).sum(axis=0)
    return total


def _path_state(products: FloatArray, tensors: int) -> Row:
    """Whether there is a path of some tensors, or why not."""
    if not tensors:
        return {"status": "skipped", "reason": "no tensor is in every checkpoint"}
    if not np.isfinite(products).all():
        return {"status": "skipped", "reason": "squared steps exceed float64; exclude the tensors that move so far"}
    return {"status": "done"}
