"""How the matrices of a model relate along the axis they share, the residual dimension.

The table `relations` has a row for each matrix with that axis. With every other: debiased linear CKA, beside what
random matrices of the same row norms give. With those of its own role: principal angles between the leading subspaces.
Within it: those between its heads, or its experts.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weighbridge.analyses.matrices import Reader, parts_of
from weighbridge.analyses.matrix_rows import about, without_matrix
from weighbridge.analyses.plan import Plan, further_plan, start
from weighbridge.checkpoints.config import Heads, config, heads, width
from weighbridge.checkpoints.protocol import Tensor
from weighbridge.errors import WeighbridgeError
from weighbridge.matrix import matrix_view
from weighbridge.report import Report
from weighbridge.roles import Role, assign
from weighbridge_kernels.cka import cka_null, debiased_cka
from weighbridge_kernels.principal_angles import SubspaceOverlaps, subspace_overlaps

TABLE = "relations"
_VARIANT = "host"
COORDINATES = 1024
"""Places of the residual axis that are looked at; of a longer one so many are drawn."""
_ENTRIES = 1 << 27
"""Of all matrices together, in float64: beyond, fewer places of the axis are looked at."""
_LEAST_COORDINATES = 64
_DIRECTIONS = 32
"""Of the leading subspace of a matrix that is of nearly full rank; at most an eighth of the axis."""
_PEERS = 256
_DRAWS = 4
_WRITES = ("attention_o", "mlp_down")
_ROLES = (
    "embedding", "head", "attention_q", "attention_k", "attention_v", "attention_o", "attention_qkv",
    "mlp_up", "mlp_gate", "mlp_down", "expert", "router",
)  # fmt: skip

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
Row = dict[str, Any]


@dataclass(frozen=True)
class Member:
    """A matrix with the residual axis, whose leading axes, if any, count experts."""

    tensor: Tensor
    role: Role
    layer: int | None
    axis: Literal["rows", "cols"]
    heads: Heads | None


def relate(prepared: Plan, *, key: int) -> Report:
    """Fills the table for the tensors that a plan of `correlate` selects."""
    plan = further_plan(prepared, TABLE, {"key": key})
    if plan.finished is not None:
        return plan.finished
    began = time.monotonic()
    writer, manifest = start(plan, _VARIANT)
    try:
        writer.add_all(list(_rows(plan, key)))
    finally:
        writer.flush()
        manifest.analyses[TABLE].seconds += time.monotonic() - began
        manifest.save(plan.folder)
    manifest.analyses[TABLE].status = "complete"
    manifest.save(plan.folder)
    return Report(plan.folder)


def _rows(plan: Plan, key: int) -> Iterator[Row]:
    order = {name: i for i, name in enumerate(plan.checkpoint)}
    extent, members = members_of(plan)
    related: dict[str, Row] = {}
    if len(members) > 1:
        related = _related(members, extent, key)
    for tensor in plan.selected:
        missing: Row = {"status": "skipped", "reason": "does not share the residual axis with another matrix"}
        yield about(tensor, order, _VARIANT) | related.get(tensor.name, missing)


def members_of(plan: Plan) -> tuple[int, list[Member]]:
    """The length of the residual axis, and the matrices that have it."""
    settings = config(plan.checkpoint)
    found = []
    for tensor in plan.selected:
        role, layer = assign(tensor.name, tensor.shape, tensor.dtype.name, plan.checkpoint.keys())
        if role in _ROLES and not without_matrix(tensor, role):
            found.append((tensor, role, layer))
    extent = width(settings) or _commonest([tensor.shape for tensor, _, _ in found])
    return extent, [
        Member(tensor, role, layer, axis, heads(settings, role, tensor.shape))
        for tensor, role, layer in found
        if (axis := residual_axis(tensor.name, role, tensor.shape, extent))
    ]


def _commonest(shapes: Sequence[tuple[int, ...]]) -> int:
    """The side that most matrices have; of equals the longer."""
    sides = Counter(side for shape in shapes for side in set(shape[-2:]))
    return max(sides, key=lambda side: (sides[side], side), default=0)


def residual_axis(name: str, role: Role, shape: tuple[int, ...], extent: int) -> Literal["rows", "cols"] | None:
    """Which of the last two axes is the residual one: by its length, and where both have it by what the matrix does.

    Matrices that write to the residual stream have it on the side of their outputs, those that read from it on that of
    their inputs; PyTorch stores [out, in], flax and Keras, whose matrices are called kernels, [in, out].
    """
    rows, cols = shape[-2:]
    if extent not in (rows, cols):
        return None
    if rows != cols:
        return "rows" if rows == extent else "cols"
    return "rows" if (role in _WRITES) != name.endswith("kernel") else "cols"


def _related(members: list[Member], extent: int, key: int) -> dict[str, Row]:
    """The columns of every member by its name; one that cannot be read fails alone."""
    rng = np.random.default_rng(key)
    drawn = _coordinates(members, extent)
    at = np.sort(rng.choice(extent, drawn, replace=False)) if drawn < extent else np.arange(extent)
    rows: dict[str, Row] = {}
    matrices: list[Array] = []
    held: list[Member] = []
    for member in members:
        try:
            stack = _along_residual(member)[..., at, :]
        except WeighbridgeError as error:
            rows[member.tensor.name] = {"status": "failed", "reason": f"{member.tensor.name}: {error}"}
            continue
        if not np.isfinite(stack).all():
            rows[member.tensor.name] = {"status": "failed", "reason": f"{member.tensor.name}: holds NaN or Inf"}
            continue
        rows[member.tensor.name] = {"status": "done", "reason": None, "extent": extent, "coordinates": at.size}
        rows[member.tensor.name] |= _within(member, stack)
        matrices.append(np.concatenate(list(stack), axis=1))
        held.append(member)
    _across(rows, held, matrices, key)
    _among_peers(rows, held, matrices)
    return rows


def _coordinates(members: list[Member], extent: int) -> int:
    """How many places of the residual axis are looked at."""
    others = sum(member.tensor.count // extent for member in members)
    return min(extent, COORDINATES, max(_ENTRIES // max(others, 1), _LEAST_COORDINATES))


def _along_residual(member: Member) -> Array:
    """The tensor as matrices [experts, residual, others]."""
    reader = Reader(member.tensor)
    view = matrix_view(member.tensor.name, member.tensor.shape, member.role)
    wholes = [reader.whole(part).astype(np.float32) for part in parts_of(member.tensor, view)]
    return np.stack([whole if member.axis == "rows" else whole.T for whole in wholes])


def _across(rows: Mapping[str, Row], members: list[Member], matrices: list[Array], key: int) -> None:
    """CKA with every other matrix, and of random ones with the same row norms."""
    names = [member.tensor.name for member in members]
    found, null = debiased_cka(matrices), cka_null(matrices, key=key, draws=_DRAWS)
    for i, name in enumerate(names):
        rows[name].update(others=names, cka=found[i], cka_null_mean=null.mean[i], cka_null_std=null.std[i])


def _among_peers(rows: Mapping[str, Row], members: list[Member], matrices: list[Array]) -> None:
    """Principal angles between the leading subspaces of the matrices of one role, of up to 256 of them."""
    for role in dict.fromkeys(member.role for member in members):
        of_role = [(m.tensor.name, x) for m, x in zip(members, matrices, strict=True) if m.role == role]
        peers = of_role[:_PEERS]
        if len(peers) < 2:
            continue
        for name, _ in of_role[_PEERS:]:
            rows[name]["reason"] = f"no angles with its peers: they are of the first {_PEERS} of {len(of_role)} alone"
        names = [name for name, _ in peers]
        found = subspace_overlaps(_leading([x for _, x in peers]))
        for i, name in enumerate(names):
            rows[name].update(
                peers=names,
                peer_overlap=found.mean_squared_cosine[i],
                peer_least_angle=found.least_angle[i],
                peer_overlap_expected=_expected(found),
            )


def _leading(matrices: Sequence[Array]) -> FloatArray:
    """Leading left singular vectors of matrices that share their rows, as many of each."""
    count = min(_DIRECTIONS, max(matrices[0].shape[0] // 8, 1), *(min(x.shape) for x in matrices))
    bases = []
    for x in matrices:
        wide = x.astype(np.float64)
        top = float(np.abs(wide).max(initial=0)) or 1.0
        bases.append(np.linalg.eigh((wide / top) @ (wide / top).T)[1][:, ::-1][:, :count])
    return np.stack(bases)


def _within(member: Member, stack: Array) -> Row:
    """Principal angles between the heads of a matrix, or between the leading subspaces of its experts."""
    pieces = _head_spaces(member, stack[0]) if member.heads is not None and len(stack) == 1 else list(stack)
    if len(pieces) < 2:
        return {}
    full = pieces[0].shape[1] <= pieces[0].shape[0] // 2
    found = subspace_overlaps(np.stack(pieces) if full else _leading(pieces))
    return {
        "parts": len(pieces),
        "part_overlap": found.mean_squared_cosine.reshape(-1),
        "part_least_angle": found.least_angle.reshape(-1),
        "part_overlap_expected": _expected(found),
    }


def _head_spaces(member: Member, x: Array) -> list[Array]:
    """What each head reads from, or writes to, the residual axis; none where heads lie along that axis itself."""
    if member.heads is None or member.heads.axis == member.axis:
        return []
    return np.split(x, member.heads.count, axis=1)


def _expected(found: SubspaceOverlaps) -> float | None:
    known = found.expected[~np.isnan(found.expected)]
    return float(known.mean()) if known.size and math.isfinite(known.mean()) else None
