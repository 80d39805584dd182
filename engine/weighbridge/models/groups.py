"""`record_groups`: gradients by group of inputs, which an optimiser cannot see, their noise, and idle units."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

from weighbridge.errors import BadArgument
from weighbridge.models.paths import is_real, named, wanted
from weighbridge.models.recording import IfExists, Watched, about, folder_for
from weighbridge.report.manifest import Manifest
from weighbridge.report.run_columns import WHOLE
from weighbridge.report.schema import TABLES
from weighbridge.report.tables import TableWriter, drop_steps

GROUPS, UNITS = "training_groups", "training_units"
SPLITS = 8
NEAR, NEARLY_ALL = 0.01, 0.95
"""Of a unit's range to a bound, and of its inputs: what counts as saturated."""

FloatArray = npt.NDArray[np.float64]
LossFn = Callable[[Any, Any], Any]
Activations = Callable[[Any, Any], Mapping[str, Any]]
Bounds = tuple[float, float]


def record_groups(
    loss_fn: LossFn,
    groups: Mapping[str, Any],
    *,
    report: str | os.PathLike[str],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    splits: int = SPLITS,
    key: int = 0,
    activations: Activations | None = None,
    bounds: Bounds | None = None,
    if_exists: IfExists = "resume",
    name: str = "training",
) -> Callable[[Any, int], None]:
    """A function `measure(params, step)` that writes how groups of inputs would move the weights at a step.

    `loss_fn(params, batch)` is the mean loss over a batch, a tree of arrays whose first axis counts examples; `groups`
    names such batches: classes, sources of data. The table `training_groups` has a row for each tensor that `include`
    and `exclude` select and for all of them together, and each group (`part`): the norm of the group's gradient, the
    share of its square in the tensor, and the cosines with the other groups' gradients; negative ones are conflicts.

    Its noise scale is that of McCandlish and others 2018 (arXiv 1812.06162, appendix A.1), of the union of the groups
    cut at random (`key`) into `splits` batches of b examples with gradients g_i and mean g, of B = splits · b:
    `squared_gradient` = (B |g|² - b mean|g_i|²) / (B - b), `noise_trace` = (mean|g_i|² - |g|²) / (1/b - 1/B), each
    unbiased, and `noise_scale` their quotient, null where the squared gradient is not positive.

    With `activations(params, batch)`, a mapping of layers to arrays whose last axis counts units, the table
    `training_units` tells which are dead (one and the same value on every input) and, with `bounds` (-1 and 1 for
    tanh), which are saturated: within a hundredth of the range of a bound on 95 % of the inputs or more.

    Steps from the measured one on are replaced. Gradients of all groups are held on the device at a time. NaN stays
    NaN in norms and cosines. Raises `BadArgument` for empty groups and splits that leave no example, `ReportError`.
    """
    counts = {group: _examples(group, batch) for group, batch in groups.items()}
    if not counts:
        raise BadArgument("groups is empty; expected at least one batch by name")
    if splits < 2 or sum(counts.values()) < splits:
        raise BadArgument(f"splits is {splits}; expected 2 to {sum(counts.values())}, the number of examples")
    if bounds is not None and not bounds[0] < bounds[1]:
        raise BadArgument(f"bounds are {bounds}; expected a lower and a greater one")
    options = {"groups": counts, "include": sorted(include), "exclude": sorted(exclude), "splits": splits, "key": key}
    tables = [GROUPS, *([UNITS] if activations is not None else [])]
    for table in tables:
        folder, manifest = folder_for(report, table, options, name=name, if_exists=if_exists)
        manifest.save(folder)
        if if_exists == "overwrite":
            drop_steps(folder / "tables" / table, 0)
    gradients = _Gradients(loss_fn, wanted(include, exclude))

    def measure(params: Any, step: int) -> None:
        began = time.monotonic()
        found = {GROUPS: _group_rows(gradients, params, groups, counts, splits, key)}
        if activations is not None:
            found[UNITS] = _unit_rows(activations, params, groups, bounds)
        for table, rows in found.items():
            drop_steps(folder / "tables" / table, step)
            writer = TableWriter(folder / "tables" / table, TABLES[table])
            writer.add_all([row | {"step": step, "status": "done"} for row in rows])
            writer.flush()
        _mark(folder, tables, time.monotonic() - began)

    return measure


def _mark(folder: Any, tables: Sequence[str], seconds: float) -> None:
    manifest = Manifest.load(folder)
    for table in tables:
        manifest.analyses[table].status = "complete"
        manifest.analyses[table].seconds += seconds
    manifest.save(folder)


def _examples(group: str, batch: Any) -> int:
    sides = {leaf.shape[0] if getattr(leaf, "shape", ()) else 0 for leaf in jax.tree.leaves(batch)}
    if len(sides) != 1 or 0 in sides:
        raise BadArgument(f"group {group!r}: first axes are {sorted(sides)}; expected one number of examples")
    return int(sides.pop())


@dataclass
class _Gradients:
    """Loss and gradient of a batch, compiled once a shape; the gradient by path, the tensors that are wanted."""

    loss_fn: LossFn
    wanted: Callable[[str], bool]
    _compiled: Any = field(init=False)

    def __post_init__(self) -> None:
        self._compiled = jax.jit(jax.value_and_grad(self.loss_fn))

    def __call__(self, params: Any, batch: Any) -> tuple[float, dict[str, Any]]:
        loss, tree = self._compiled(params, batch)
        return float(loss), {n: leaf for n, leaf in named(tree).items() if self.wanted(n) and is_real(leaf)}


def _group_rows(
    gradients: _Gradients, params: Any, groups: Mapping[str, Any], counts: Mapping[str, int], splits: int, key: int
) -> list[dict[str, Any]]:
    found = {group: gradients(params, batch) for group, batch in groups.items()}
    held = [of for _, of in found.values()]
    if not held[0]:
        raise BadArgument("include and exclude leave no tensor of real floats")
    grams = {n: np.asarray(_gram([of[n] for of in held]), np.float64) for n in held[0]}
    grams[WHOLE] = np.sum(list(grams.values()), axis=0)
    noise = _noise(gradients, params, groups, splits, key)
    tensors = {w.name: about(w, list(held[0])) for w in _watched(held[0])}
    tensors[WHOLE] = {"name": WHOLE, "shape": [], "role": "other", "variant": "jax", "order": len(held[0])}
    whole = np.diagonal(grams[WHOLE])
    rows = []
    for name, gram in grams.items():
        norms = np.sqrt(np.diagonal(gram))
        with np.errstate(invalid="ignore", divide="ignore"):
            cosines, shares = gram / np.outer(norms, norms), norms**2 / whole
        for i, group in enumerate(groups):
            figures = {"gradient_norm": norms[i], "share": shares[i], "cosine": cosines[i], "others": list(groups)}
            of = {"part": group, "examples": counts[group], "loss": found[group][0]}
            rows.append(tensors[name] | of | figures | noise[name])
    return rows


def _watched(leaves: Mapping[str, Any]) -> list[Watched]:
    return [Watched(n, tuple(x.shape), str(x.dtype), i) for i, (n, x) in enumerate(leaves.items())]


@jax.jit
def _gram(vectors: list[Any]) -> Any:
    """Inner products of arrays of one shape with one another, in float32."""
    flat = jnp.stack([x.astype(jnp.float32).reshape(-1) for x in vectors])
    return jnp.matmul(flat, flat.T, precision=lax.Precision.HIGHEST)


def _noise(
    gradients: _Gradients, params: Any, groups: Mapping[str, Any], splits: int, key: int
) -> dict[str, dict[str, float | None]]:
    """The noise scale of each tensor and of all; see `record_groups`."""
    union = jax.tree.map(lambda *leaves: np.concatenate(leaves), *jax.tree.map(np.asarray, list(groups.values())))
    total = jax.tree.leaves(union)[0].shape[0]
    small = total // splits
    order = np.random.default_rng(key).permutation(total)[: small * splits].reshape(splits, small)
    mean: dict[str, Any] = {}
    squares: dict[str, float] = {}
    for at in order:
        _, of = gradients(params, jax.tree.map(lambda leaf, at=at: leaf[at], union))
        for name, g in of.items():
            squares[name] = squares.get(name, 0.0) + float(_gram([g])[0, 0]) / splits
            mean[name] = g / splits if name not in mean else mean[name] + g / splits
    big = {name: float(_gram([g])[0, 0]) for name, g in mean.items()}
    squares[WHOLE], big[WHOLE] = sum(squares.values()), sum(big.values())
    return {name: noise_scale(squares[name], big[name], small, small * splits) for name in squares}


def noise_scale(small_square: float, big_square: float, small: int, big: int) -> dict[str, float | None]:
    """Signal, noise and their quotient from squared gradient norms over `small` and over `big` examples.

    Source: McCandlish and others 2018, arXiv 1812.06162, appendix A.1. Both estimates are unbiased, the quotient is
    not, and is null where the estimate of the squared gradient is not positive.
    """
    signal = (big * big_square - small * small_square) / (big - small)
    trace = (small_square - big_square) / (1 / small - 1 / big)
    scale = trace / signal if signal > 0 else None
    return {"squared_gradient": signal, "noise_trace": trace, "noise_scale": scale}


def _unit_rows(
    activations: Activations, params: Any, groups: Mapping[str, Any], bounds: Bounds | None
) -> list[dict[str, Any]]:
    rows = []
    for group, batch in groups.items():
        for i, (layer, values) in enumerate(activations(params, batch).items()):
            dead, saturated = idle_units(np.asarray(values), bounds)
            row: dict[str, Any] = {
                "name": layer,
                "part": group,
                "shape": list(values.shape),
                "role": "other",
                "variant": "host",
            }
            row |= {"order": i, "units": values.shape[-1], "dead": len(dead), "dead_units": dead}
            rows.append(
                row | {"saturated": None if saturated is None else len(saturated), "saturated_units": saturated}
            )
    return rows


def idle_units(
    values: npt.NDArray[Any], bounds: Bounds | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64] | None]:
    """Units (last axis) with one value throughout, and those near a bound nearly always; None without bounds."""
    flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
    dead = np.flatnonzero((flat == flat[:1]).all(axis=0))
    if bounds is None:
        return dead, None
    near = NEAR * (bounds[1] - bounds[0])
    at_bound = (flat <= bounds[0] + near) | (flat >= bounds[1] - near)
    return dead, np.flatnonzero(at_bound.mean(axis=0) >= NEARLY_ALL)
