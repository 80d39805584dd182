"""`correlate`: how the neurons of every matrix relate, among its rows and among its columns, and across matrices.

The table `correlations` has a row for each matrix, or matrix of a stack, with both sides; the table `relations` says
how matrices that share the residual axis relate to one another (`weighbridge.analyses.relations`).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weighbridge.analyses import relations
from weighbridge.analyses.matrices import Part, Reader, parts_of
from weighbridge.analyses.matrix_rows import run_rows
from weighbridge.analyses.plan import IfExists, Plan, Progress, make_plan
from weighbridge.checkpoints.protocol import Tensor
from weighbridge.errors import BadArgument
from weighbridge.matrix import matrix_view
from weighbridge.report import Report
from weighbridge.roles import Role
from weighbridge_kernels.null_similarity import NullSimilarity
from weighbridge_kernels.similar_pairs import EDGES, NO_ROW, Correlations, Kind
from weighbridge_kernels.variants import Device, Variant

TABLE = "correlations"
COUNT = 5
THRESHOLD = 0.99
MEMORY = 4 << 30
_JITTER = 1e-9
"""Added to the diagonal of a Gram matrix of unit rows, of which some may be the same: far below float32's rounding."""
_DEAD = 1e-24
"""Of the greatest square: what is left of a constant neuron less its mean."""

Row = dict[str, Any]
Between = Literal["layers", "none"]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """What a caller of `correlate` may choose for each matrix; see there."""

    kind: Kind
    count: int
    threshold: float


def correlate(
    source: Any,
    *,
    report: str | os.PathLike[str] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    if_exists: IfExists = "reuse",
    kind: Kind = "cosine",
    count: int = COUNT,
    threshold: float = THRESHOLD,
    between: Between = "layers",
    key: int = 0,
    memory: int = MEMORY,
    device: Device = "auto",
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """How the neurons of each matrix relate, in the tables `correlations` and `relations` of a report.

    `source`, `report`, `include`, `exclude`, `if_exists` and `device` are as for `scan`. Of all pairs among the rows,
    and among the columns, of every matrix: for each neuron the `count` most similar and most opposed ones, by cosine or
    Pearson correlation (`kind`); how often each similarity occurs; which are dead, and which are the same or opposite
    up to `threshold`, as groups; beside what random rows would give. A side whose neurons do not fit `memory` bytes in
    float32 is null, with the reason. With `between="layers"` also how much the matrices have in common that share the
    residual axis: debiased linear CKA and overlaps of leading subspaces, heads and experts among themselves, beside
    what random matrices of the same norms give; `key` seeds what is drawn.

    Raises what `scan` raises.
    """
    prepared = plan(
        source,
        report=report,
        include=include,
        exclude=exclude,
        if_exists=if_exists,
        kind=kind,
        count=count,
        threshold=threshold,
    )
    return run(prepared, between=between, key=key, memory=memory, device=device, progress=progress)


def plan(
    source: Any,
    *,
    report: str | os.PathLike[str] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    if_exists: IfExists = "reuse",
    kind: Kind = "cosine",
    count: int = COUNT,
    threshold: float = THRESHOLD,
) -> Plan:
    """What `correlate` would do. Writes nothing."""
    if count < 1:
        raise BadArgument(f"count is {count}; expected 1 or more")
    if not 0 < threshold <= 1:
        raise BadArgument(f"threshold is {threshold}; expected a similarity above 0, at most 1")
    options = asdict(Options(kind, count, threshold))
    return make_plan(source, TABLE, options, report=report, include=include, exclude=exclude, if_exists=if_exists)


def run(
    prepared: Plan,
    *,
    between: Between = "layers",
    key: int = 0,
    memory: int = MEMORY,
    device: Device = "auto",
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Carries out a plan; see `correlate`."""
    given = prepared.manifest.analyses[TABLE].options
    options = Options(**{option.name: given[option.name] for option in fields(Options)})

    def rows(tensor: Tensor, role: Role, kernels: Variant) -> Iterator[Row]:
        yield from _rows(tensor, role, options, kernels, memory)

    found = run_rows(prepared, rows, device=device, progress=progress)
    return relations.relate(prepared, key=key) if between == "layers" else found


def _rows(tensor: Tensor, role: Role, options: Options, kernels: Variant, memory: int) -> Iterator[Row]:
    reader = Reader(tensor)
    for part in parts_of(tensor, matrix_view(tensor.name, tensor.shape, role)):
        row: Row = {"part": part.name, "rows": part.rows, "cols": part.cols, "status": "done", "kind": options.kind}
        reasons = []
        for side in ("row", "col"):
            x = _neurons(reader, part, side, options.kind, kernels, memory)
            if x is None:
                reasons.append(f"{side}s need {_needed(part, reader.itemsize):,} bytes, --memory allows {memory:,}")
                continue
            length = part.cols if side == "row" else part.rows
            kind: Kind = options.kind if x.shape[1] == length else "cosine"  # a factor has lost its means
            found = kernels.correlations(x, kind=kind, count=options.count, threshold=options.threshold)
            row |= {f"{side}_{name}": value for name, value in columns(found, length, options.kind).items()}
        yield row | {"reason": "; ".join(reasons) or None}


def _needed(part: Part, itemsize: int) -> int:
    """Bytes of a side's neurons as they are stored, turned where need be, and in float32."""
    return part.rows * part.cols * (2 * itemsize + 4)


def _neurons(
    reader: Reader, part: Part, side: str, kind: Kind, kernels: Variant, memory: int
) -> npt.NDArray[Any] | None:
    """The neurons of one side, a row each; where that is the short side and they do not fit, a factor of their Gram.

    None where neither fits `memory`.
    """
    if _needed(part, reader.itemsize) <= memory:
        return np.ascontiguousarray(reader.whole(part) if side == "row" else reader.whole(part).T)
    count, length = part.shape if side == "row" else part.shape[::-1]
    if length < count or 3 * 8 * count**2 > memory:
        return None
    return gram_factor(reader, part, kind, kernels)


def gram_factor(reader: Reader, part: Part, kind: Kind, kernels: Variant) -> npt.NDArray[np.float64]:
    """Short rows that have the norms and products of the neurons of a matrix's short side: of Pearson's, less means.

    The Gram matrix of the neurons is added up in float64 over strips of the matrix; this is its Cholesky factor.
    Neurons with NaN or Inf are rows of NaN, dead ones of zeros.
    """
    gram = np.array(kernels.gram(reader.strips([part])), np.float64)
    if kind == "pearson":
        length = max(part.shape)
        sums = sum(strip.astype(np.float64).sum(axis=0) for strip in reader.strips([part]))
        gram -= np.multiply.outer(sums, sums) / length
    squares = np.diagonal(gram).copy()
    live = np.isfinite(squares) & (squares > _DEAD * np.nanmax(np.where(np.isfinite(squares), squares, 0), initial=0))
    scale = np.sqrt(squares[live])
    unit = gram[np.ix_(live, live)] / scale[:, None] / scale
    unit[np.diag_indices_from(unit)] = 1 + _JITTER
    factor = np.zeros_like(gram)
    factor[np.ix_(live, live)] = np.linalg.cholesky(unit) * scale[:, None]
    factor[~np.isfinite(squares)] = np.nan
    return factor


def columns(found: Correlations, length: int, kind: Kind) -> Row:
    """The columns of one side, whose neurons have `length` entries."""
    live = int((found.norms > 0).sum())
    pairs = found.distribution.pairs
    row: Row = {
        "dead": int((found.norms == 0).sum()),
        "not_finite": int(np.isnan(found.norms).sum()),
        "duplicates": _grouped(found.duplicates),
        "opposites": _grouped(found.opposites),
        "pairs": pairs,
        "neighbours": found.similar.indices.reshape(-1),
        "similarities": found.similar.values.reshape(-1),
        "opposed": found.opposed.indices.reshape(-1),
        "opposed_similarities": found.opposed.values.reshape(-1),
        "distribution": found.distribution.counts,
    }
    for name, labels in (("duplicate", found.duplicates), ("opposite", found.opposites)):
        members = _members(labels)
        row |= {f"{name}_members": members, f"{name}_groups": labels[members]}
    if not pairs or live < 2:
        return row
    row |= _spread(found) | {"greatest": _extreme(found.similar.values, 1), "least": _extreme(found.opposed.values, -1)}
    least = 3 if kind == "pearson" else 2
    if length >= least:
        null = NullSimilarity(length, kind)
        row |= {"null_spread": null.std, "null_greatest": null.expected_greatest(pairs)}
    return row


def _spread(found: Correlations) -> Row:
    """Mean and root mean square of all similarities, by the middles of their bins."""
    middles = (EDGES[1:] + EDGES[:-1]) / 2
    shares = found.distribution.counts / found.distribution.pairs
    return {"mean_similarity": float(shares @ middles), "spread": float(np.sqrt(shares @ middles**2))}


def _extreme(values: npt.NDArray[np.float32], sign: int) -> float:
    return float(sign * np.nanmax(sign * values[:, 0]))


def _members(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The neurons that share a group with another."""
    sizes = np.bincount(labels[labels != NO_ROW], minlength=labels.size)
    return np.flatnonzero(sizes[labels] > 1).astype(np.int32)


def _grouped(labels: npt.NDArray[np.int32]) -> int:
    return int(_members(labels).size)
