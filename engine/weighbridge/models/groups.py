"""`record_groups`: gradients by group of inputs, which an optimiser cannot see, their noise, and idle units."""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

from weighbridge.errors import BadArgument
from weighbridge.models.paths import is_real, named
from weighbridge.models.recording import WAITING_ROWS, IfExists, Watched, about, folder_for
from weighbridge.patterns import patterns, wanted
from weighbridge.report.manifest import Manifest
from weighbridge.report.run_columns import WHOLE
from weighbridge.report.schema import TABLES
from weighbridge.report.tables import TableWriter, drop_steps

GROUPS, UNITS = "training_groups", "training_units"
SPLITS = 8
NEAR, NEARLY_ALL = 0.01, 0.95
"""Of a unit's range to a bound, and of its inputs: what counts as saturated."""

_LOG = logging.getLogger("weighbridge")

FloatArray = npt.NDArray[np.float64]
LossFn = Callable[[Any, Any], Any]
Activations = Callable[[Any, Any], Mapping[str, Any]]
Bounds = tuple[float, float]
Row = dict[str, Any]


def record_groups(
    loss_fn: LossFn,
    groups: Mapping[str, Any],
    *,
    report: str | os.PathLike[str],
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    splits: int = SPLITS,
    key: int = 0,
    activations: Activations | None = None,
    bounds: Bounds | None = None,
    if_exists: IfExists = "resume",
    name: str = "training",
) -> Callable[[Any, int], None]:
    """A function `measure(params, step)` that writes how groups of inputs would move the weights at a step.

    `loss_fn(params, batch)` is the mean loss over a batch, a tree of arrays whose first axis counts examples; `groups`
    names such batches: classes, sources of data, alike in all but the number of examples. The gradient is that by the
    leaves of `params` that hold real floats; the others stay as they are. The table `training_groups` has a row for
    each tensor that `include` and `exclude` select and for all of them together, and each group (`part`): the norm of
    the group's gradient, the share of its square in the tensor, and the cosines with the other groups' gradients;
    negative ones are conflicts.

    Its noise scale is that of McCandlish and others 2018 (arXiv 1812.06162, appendix A.1), of the union of the groups
    cut at random (`key`) into `splits` batches of b examples with gradients g_i and mean g, of B = splits · b:
    `squared_gradient` = (B |g|² - b mean|g_i|²) / (B - b), `noise_trace` = (mean|g_i|² - |g|²) / (1/b - 1/B), each
    unbiased, and `noise_scale` their quotient, null where the squared gradient is not positive.

    With `activations(params, batch)`, a mapping of layers to arrays whose first axis counts examples and whose last
    counts units, the table `training_units` tells which are dead (the same on every input, in each place between these
    axes; null for fewer than two examples) and, with `bounds` (-1 and 1 for tanh), which are saturated: within a
    hundredth of the range of a bound on 95 % of the inputs or more.

    Steps from the measured one on are replaced. Gradients of all groups are held on the device at a time. NaN stays
    NaN in norms and cosines. Rows that cannot be written wait for the next call, with a warning. Raises `BadArgument`
    for groups that are empty or not alike and splits that leave no example, `ReportError`; the first `measure` raises
    `BadArgument` for a loss that is not one number or cannot be differentiated.
    """
    counts = {group: _examples(group, batch) for group, batch in groups.items()}
    if not counts:
        raise BadArgument("groups is empty; expected at least one batch by name")
    _alike(groups)
    if splits < 2 or sum(counts.values()) < splits:
        raise BadArgument(f"splits is {splits}; expected 2 to {sum(counts.values())}, the number of examples")
    if bounds is not None and not bounds[0] < bounds[1]:
        raise BadArgument(f"bounds are {bounds}; expected a lower and a greater one")
    globs = {"include": sorted(patterns(include)), "exclude": sorted(patterns(exclude))}
    options = {"groups": counts, **globs, "splits": splits, "key": key}
    tables = [GROUPS, *([UNITS] if activations is not None else [])]
    for table in tables:
        folder, manifest = folder_for(report, table, options, name=name, if_exists=if_exists)
        manifest.save(folder)
        if if_exists == "overwrite":
            drop_steps(folder / "tables" / table, 0)
    gradients, pending = _Gradients(loss_fn, wanted(include, exclude)), _Pending(folder, tables)

    def measure(params: Any, step: int) -> None:
        began = time.monotonic()
        gradients.check(params, groups)
        found = {GROUPS: _group_rows(gradients, params, groups, counts, splits, key)}
        if activations is not None:
            found[UNITS] = _unit_rows(activations, params, groups, bounds)
        pending.put(found, step)
        pending.write(time.monotonic() - began)

    return measure


class _Pending:
    """Rows on their way into their tables; those that cannot be written, mostly for want of space, wait."""

    def __init__(self, folder: Path, tables: Sequence[str]) -> None:
        self._folder = folder
        self._rows: dict[str, list[Row]] = {table: [] for table in tables}
        self._seconds = 0.0
        self._warned = False

    def put(self, found: Mapping[str, Sequence[Row]], step: int) -> None:
        """Takes the rows of a step, which replace those from it on; of earlier ones that wait the oldest may go."""
        for table, rows in found.items():
            earlier = [row for row in self._rows[table] if row["step"] < step][-WAITING_ROWS:]
            self._rows[table] = earlier + [row | {"step": step, "status": "done"} for row in rows]

    def write(self, seconds: float) -> None:
        """Writes what there is; the first failure is a warning, for an exception would end the training."""
        self._seconds += seconds
        try:
            for table in self._rows:
                self._write(table)
            self._mark()
            self._warned = False
        except Exception as error:
            if not self._warned:
                _LOG.warning("%s; training goes on, rows wait for the next call", error)
            self._warned = True

    def _write(self, table: str) -> None:
        rows, folder = self._rows[table], self._folder / "tables" / table
        if not rows:
            return
        drop_steps(folder, min(row["step"] for row in rows))
        writer = TableWriter(folder, TABLES[table])
        writer.add_all(rows)
        writer.flush()
        self._rows[table] = []

    def _mark(self) -> None:
        manifest = Manifest.load(self._folder)
        for table in self._rows:
            manifest.analyses[table].status = "complete"
            manifest.analyses[table].seconds += self._seconds
        manifest.save(self._folder)
        self._seconds = 0.0


def _examples(group: str, batch: Any) -> int:
    sides = {leaf.shape[0] if getattr(leaf, "shape", ()) else 0 for leaf in jax.tree.leaves(batch)}
    if len(sides) != 1 or 0 in sides:
        raise BadArgument(f"group {group!r}: first axes are {sorted(sides)}; expected one number of examples")
    return int(sides.pop())


def _alike(groups: Mapping[str, Any]) -> None:
    """Raises `BadArgument` unless the groups' batches differ in the number of examples alone."""
    (first, batch), *others = groups.items()
    structure: Any = jax.tree.structure(batch)
    shapes = [list(leaf.shape[1:]) for leaf in jax.tree.leaves(batch)]
    for group, other in others:
        if structure != jax.tree.structure(other):
            raise BadArgument(f"group {group!r}: its arrays are not called as those of {first!r}; give all the same")
        found = [list(leaf.shape[1:]) for leaf in jax.tree.leaves(other)]
        if found != shapes:
            a, b = next((a, b) for a, b in zip(found, shapes, strict=True) if a != b)
            raise BadArgument(f"group {group!r}: an example is of shape {a}, in {first!r} of {b}; pad or cut them")


@dataclass
class _Gradients:
    """Loss and gradient of a batch, compiled once a shape; the gradient by path, the tensors that are wanted."""

    loss_fn: LossFn
    wanted: Callable[[str], bool]
    _compiled: Any = field(init=False)
    _checked: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._compiled = jax.jit(jax.value_and_grad(self._loss))

    def __call__(self, params: Any, batch: Any) -> tuple[float, dict[str, Any]]:
        loss, tree = self._compiled(*_parted(params), batch)
        return float(loss), {n: leaf for n, leaf in named(tree).items() if self.wanted(n)}

    def check(self, params: Any, groups: Mapping[str, Any]) -> None:
        """Traces loss and gradient of each group, once. Raises `BadArgument` where there is no gradient."""
        if self._checked:
            return
        if not any(self.wanted(name) and is_real(leaf) for name, leaf in named(params).items()):
            raise BadArgument("include and exclude leave no tensor of real floats")
        for group, batch in groups.items():
            _one_number(group, _traced(group, partial(jax.eval_shape, self._loss), *_parted(params), batch))
            _traced(group, self._compiled.eval_shape, *_parted(params), batch)
        self._checked = True

    def _loss(self, real: Any, rest: Any, batch: Any) -> Any:
        both = jax.tree.map(lambda a, b: b if a is None else a, real, rest, is_leaf=lambda leaf: leaf is None)
        return self.loss_fn(both, batch)


def _parted(params: Any) -> tuple[Any, Any]:
    """The tree of its real floating leaves, and that of the others, each with None for the rest."""
    return (
        jax.tree.map(lambda leaf: leaf if is_real(leaf) else None, params),
        jax.tree.map(lambda leaf: None if is_real(leaf) else leaf, params),
    )


def _traced(group: str, trace: Callable[..., Any], *of: Any) -> Any:
    try:
        return trace(*of)
    except Exception as error:
        said = next(iter(str(error).splitlines()), "")
        raise BadArgument(
            f"group {group!r}: loss_fn cannot be traced and differentiated: {type(error).__name__}: {said}; "
            "expected a function of params and a batch that jax.grad takes"
        ) from error


def _one_number(group: str, loss: Any) -> None:
    if getattr(loss, "shape", None) != () or not is_real(loss):
        got = f"{loss.dtype}{list(loss.shape)}" if hasattr(loss, "shape") else f"a {type(loss).__name__}"
        raise BadArgument(f"group {group!r}: the loss is {got}; expected one real number, the mean over the batch")


def _group_rows(
    gradients: _Gradients, params: Any, groups: Mapping[str, Any], counts: Mapping[str, int], splits: int, key: int
) -> list[Row]:
    found = {group: gradients(params, batch) for group, batch in groups.items()}
    held = [of for _, of in found.values()]
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


def _unit_rows(activations: Activations, params: Any, groups: Mapping[str, Any], bounds: Bounds | None) -> list[Row]:
    rows = []
    for group, batch in groups.items():
        for i, (layer, values) in enumerate(activations(params, batch).items()):
            dead, saturated = idle_units(np.asarray(values), bounds)
            of = {"name": layer, "part": group, "shape": list(values.shape), "role": "other", "variant": "host"}
            units = {"order": i, "units": values.shape[-1], "dead_units": dead, "saturated_units": saturated}
            rows.append(of | units | {"dead": _count(dead), "saturated": _count(saturated)})
    return rows


def _count(units: npt.NDArray[np.int64] | None) -> int | None:
    return None if units is None else len(units)


def idle_units(
    values: npt.NDArray[Any], bounds: Bounds | None
) -> tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.int64] | None]:
    """Units (last axis) that are the same on every example (first axis), and those near a bound nearly always.

    A unit with a map is dead where each place of it is the same on all examples, though places differ; NaN is never
    the same. None for fewer than two examples, where nothing tells; and without bounds.
    """
    several = values.ndim > 1 and len(values) > 1
    dead = np.flatnonzero(_by_unit(values == values[:1]).all(axis=0)) if several else None
    if bounds is None:
        return dead, None
    near = NEAR * (bounds[1] - bounds[0])
    flat = _by_unit(values).astype(np.float64)
    at_bound = (flat <= bounds[0] + near) | (flat >= bounds[1] - near)
    return dead, np.flatnonzero(at_bound.mean(axis=0) >= NEARLY_ALL)


def _by_unit(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.reshape(-1, values.shape[-1])
