"""What a chunk of examples says about weights and units, computed on the device, kept in states on the host."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.models.criticality_data import Chunk, device_arrays, said
from weighbridge.models.criticality_moments import Moments, empty, merge, summarize
from weighbridge.models.criticality_units import Parts, removed
from weighbridge.models.paths import is_real
from weighbridge.models.saliency_calls import Network, abstract, names
from weighbridge.models.saliency_taps import bytes_between

_HOST_BYTES, _DEVICE_BYTES = 1 << 28, 1 << 31
"""What a chunk may take by default on CPUs and on accelerators."""
CHUNK = 64
"""Examples at a time, at most."""

Loss = Callable[[Any, Any], Any]


@dataclass(frozen=True, eq=False)
class Subject:
    """A network, a loss, and those of its tensors that are looked at; the others stay as they are."""

    network: Network
    loss: Loss
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    at: tuple[int, ...]
    memory: int
    leaves: tuple[Any, ...] = field(repr=False)

    @classmethod
    def of(cls, found: Network, loss: Loss, selects: Callable[[str], bool], memory: int | None) -> "Subject":
        """Raises `BadArgument` where no tensor of real floats is left, and for a bound that is not positive."""
        if memory is not None and memory <= 0:
            raise BadArgument(f"memory is {memory}; expected a positive number of bytes")
        leaves, known = jax.tree.leaves(found.params), names(found.params)
        at = tuple(i for i, leaf in enumerate(leaves) if is_real(jnp.asarray(leaf)) and selects(known[i]))
        if not at:
            raise BadArgument(
                f"no tensor of real floats is left of {len(known):,}; give params with a function of (params, inputs), "
                "and globs that select some"
            )
        bound = memory or (_HOST_BYTES if jax.default_backend() == "cpu" else _DEVICE_BYTES)
        held = tuple(jnp.asarray(leaf) for leaf in leaves)
        shapes = tuple(held[i].shape for i in at)
        return cls(found, loss, tuple(known[i] for i in at), shapes, at, bound, held)

    @property
    def weights(self) -> list[Any]:
        return [self.leaves[i] for i in self.at]

    @property
    def count(self) -> int:
        return sum(int(np.prod(shape)) for shape in self.shapes)

    def flat(self) -> npt.NDArray[np.float64]:
        """All weights in one row, in the order of the tensors."""
        return np.concatenate([np.asarray(w, np.float64).reshape(-1) for w in self.weights])

    def split(self, row: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Rows of all weights, (..., weights), as tensors by name."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        parts = np.split(row, ends, axis=-1)
        lead = row.shape[:-1]
        return {
            name: part.reshape(*lead, *shape) for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }

    def check(self, inputs: Any, labels: Any) -> None:
        """Raises `BadArgument` where the network or the loss does not take an example, or gives no number for it."""
        one = [abstract(array.shape, jax.dtypes.canonicalize_dtype(array.dtype)) for array in (inputs, labels)]
        net = self.network
        try:
            out = jax.eval_shape(net.apply, net.params, net.fixed, one[0])
        except Exception as error:
            raise BadArgument(f"function fails on inputs of shape {inputs.shape}: {said(error)}") from error
        if not hasattr(out, "shape"):
            raise BadArgument(f"function gives a {type(out).__name__}; expected one array, the outputs of a batch")
        try:
            loss = jax.eval_shape(self.loss, out, one[1])
        except Exception as error:
            raise BadArgument(
                f"loss fails on outputs of shape {out.shape} and labels of shape {labels.shape}: {said(error)}"
            ) from error
        if getattr(loss, "size", 0) != 1 or not jnp.issubdtype(loss.dtype, jnp.floating):
            got = f"{loss.dtype} of shape {loss.shape}" if hasattr(loss, "shape") else f"a {type(loss).__name__}"
            raise BadArgument(
                f"loss gives {got} for one example; expected one floating-point number, sum or average it over the rest"
            )


def default_loss(outputs: Any, labels: Any) -> Any:
    """Cross-entropy in nats of each example, averaged over positions where there are several.

    In float32 at least, whatever the outputs are. A label that is no class gives NaN.
    """
    wide = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
    found = -jnp.take_along_axis(jax.nn.log_softmax(wide), labels[..., None], axis=-1)[..., 0]
    found = jnp.where((labels >= 0) & (labels < outputs.shape[-1]), found, jnp.nan)
    return found.mean(axis=tuple(range(1, found.ndim)))


def _one(subject: Subject, fixed: Any, leaves: Sequence[Any], x: Any, label: Any) -> tuple[Any, Any]:
    """Loss of one example, and whether its greatest output is at the label, averaged over positions."""
    structure = jax.tree.structure(subject.network.params)
    outputs = subject.network.apply(jax.tree.unflatten(structure, list(leaves)), fixed, x[None])
    loss = jnp.reshape(subject.loss(outputs, label[None]), ())
    whole = jnp.issubdtype(label.dtype, jnp.integer) and outputs.ndim == label.ndim + 2
    correct = (outputs.argmax(axis=-1)[0] == label).mean() if whole else jnp.nan
    return loss, jnp.asarray(correct, jnp.float32)


def _replaced(subject: Subject, leaves: Sequence[Any], weights: Sequence[Any]) -> list[Any]:
    found = list(leaves)
    for i, w in zip(subject.at, weights, strict=True):
        found[i] = w
    return found


def losses(subject: Subject, fixed: Any, leaves: Sequence[Any], inputs: Any, labels: Any) -> tuple[Any, Any]:
    """Loss and correctness of each example of a chunk."""
    return jax.vmap(partial(_one, subject, fixed, leaves))(inputs, labels)


def gradients(
    subject: Subject, parts: Parts, fixed: Any, leaves: Sequence[Any], inputs: Any, labels: Any
) -> tuple[Any, ...]:
    """Loss, correctness and gradient of each example, and its sums of w · g and g² by tensor, layer and unit.

    The gradient is (examples, weights), all tensors in one row; an example whose loss or gradient is not finite has a
    loss of NaN and a gradient of zero.
    """
    weights = [leaves[i] for i in subject.at]

    def one(x: Any, label: Any) -> tuple[Any, ...]:
        def loss(chosen: list[Any]) -> tuple[Any, Any]:
            return _one(subject, fixed, _replaced(subject, leaves, chosen), x, label)

        (value, correct), found = jax.value_and_grad(loss, has_aux=True)(weights)
        found = [_wide(g) for g in found]
        finite = jnp.isfinite(value) & jnp.stack([jnp.isfinite(g).all() for g in found]).all()
        found = [jnp.where(finite, g, 0) for g in found]
        taylor = parts.sum([_wide(w) * g for w, g in zip(weights, found, strict=True)])
        row = jnp.concatenate([g.reshape(-1) for g in found])
        return jnp.where(finite, value, jnp.nan), correct, row, taylor, parts.sum([g**2 for g in found])

    found: tuple[Any, ...] = jax.vmap(one)(inputs, labels)
    return found


def _wide(x: Any) -> Any:
    """In float32 at least."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@jax.jit
def weight_moments(rows: Any, counts: Any) -> Any:
    """Mean and squared deviations of g, and of g², over the examples that count: (4, weights)."""
    number = jnp.maximum(counts.sum(), 1)
    found = []
    for values in (rows, rows**2):
        mean = jnp.where(counts[:, None], values, 0).sum(axis=0) / number
        found += [mean, jnp.where(counts[:, None], (values - mean) ** 2, 0).sum(axis=0)]
    return jnp.stack(found)


def lacking(
    subject: Subject,
    parts: Parts,
    fixed: Any,
    leaves: Sequence[Any],
    inputs: Any,
    labels: Any,
    units: Any,
) -> Any:
    """Losses (units, examples) of the network without each of some units; -1 is the whole network."""

    def one(unit: Any) -> Any:
        without = removed(parts.families, [leaves[i] for i in subject.at], unit)
        return losses(subject, fixed, _replaced(subject, leaves, without), inputs, labels)[0]

    return jax.vmap(one)(units)


def ablated(
    subject: Subject, fixed: Any, leaves: Sequence[Any], inputs: Any, labels: Any, ranks: Any, first: Any
) -> tuple[Any, Any]:
    """Losses and correctness of a chunk by the network without the weights whose rank is below `first`."""
    kept, start = [], 0
    for i, shape in zip(subject.at, subject.shapes, strict=True):
        size = int(np.prod(shape))
        keep = (ranks[start : start + size] >= first).reshape(shape)
        kept.append(jnp.where(keep, leaves[i], jnp.zeros((), leaves[i].dtype)))
        start += size
    return losses(subject, fixed, _replaced(subject, leaves, kept), inputs, labels)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A compiled program and how many items it takes at a time."""

    run: Callable[..., Any]
    size: int


def fitted(
    subject: Subject, program: Callable[..., Any], arguments: Callable[[int], tuple[Any, ...]], most: int, what: str
) -> Fitted:
    """The program for as many items as stay within the bound, by a rule first, then by what the compiler plans.

    Raises `BadArgument` where one item exceeds it.
    """
    of = (subject.network.fixed, subject.leaves)
    each = max(bytes_between(program, *of, *arguments(1)), 1)
    size = max(1, min(most, subject.memory // each))
    while True:
        compiled = jax.jit(program).lower(*of, *arguments(size)).compile()
        analysis = compiled.memory_analysis()
        needed = 0 if analysis is None else int(analysis.temp_size_in_bytes + analysis.output_size_in_bytes)
        if needed <= subject.memory:
            return Fitted(partial(compiled, *of), size)
        if size == 1:
            raise BadArgument(f"memory is {subject.memory:,} bytes; {what} needs {needed:,}, give at least that")
        size = max(1, min(size // 2, size * subject.memory // needed))


def shaped(example: tuple[Any, Any], size: int) -> tuple[Any, Any]:
    """Abstract inputs and labels of so many examples like one."""
    made = (abstract((size, *a.shape[1:]), jax.dtypes.canonicalize_dtype(a.dtype)) for a in example)
    inputs, labels = made
    return inputs, labels


@dataclass(frozen=True)
class State:
    """What is known of one task: moments over its examples.

    `gradient` and `square` are of each weight; `taylor` and `fisher` of the sums of w · g and g² by tensor and unit;
    `lack` of the loss without each unit less the loss with it. `broken` counts examples that are left out.
    """

    gradient: Moments
    square: Moments
    taylor: Moments
    fisher: Moments
    lack: Moments
    loss: Moments
    correct: Moments
    broken: int = 0

    @classmethod
    def empty(cls, weights: int, sums: int, units: int) -> "State":
        shapes = ((weights,), (weights,), (sums,), (sums,), (units,), (), ())
        gradient, square, taylor, fisher, lack, loss, correct = map(empty, shapes)
        return cls(gradient, square, taylor, fisher, lack, loss, correct)

    def merge(self, other: "State") -> "State":
        """The state of the examples of both."""
        parts = ("gradient", "square", "taylor", "fisher", "lack", "loss", "correct")
        merged = {part: merge(getattr(self, part), getattr(other, part)) for part in parts}
        return replace(self, **merged, broken=self.broken + other.broken)


@dataclass(frozen=True, eq=False)
class Pass:
    """The programs for a chunk, compiled once, and the units to remove, of which the first is none."""

    gradients: Fitted
    lacking: Fitted | None
    units: npt.NDArray[np.int32]

    @classmethod
    def of(cls, subject: Subject, parts: Parts, example: tuple[Any, Any]) -> "Pass":
        by_example = partial(gradients, subject, parts)
        first = fitted(subject, by_example, lambda n: shaped(example, n), CHUNK, "one example's gradient")
        units = np.array([-1, *parts.removed], np.int32)
        if len(units) == 1:
            return cls(first, None, units)

        def arguments(n: int) -> tuple[Any, ...]:
            return *shaped(example, first.size), abstract((n,), np.int32)

        most = UNITS_AT_ONCE if jax.default_backend() == "cpu" else len(units)
        second = fitted(subject, partial(lacking, subject, parts), arguments, most, "one chunk without a unit")
        return cls(first, second, units)

    def __call__(self, chunk: Chunk) -> dict[str, State]:
        """The states of the tasks that a chunk has examples of."""
        inputs, labels = device_arrays(chunk)
        loss, correct, rows, taylor, fisher = self.gradients.run(inputs, labels)
        host = (np.asarray(of, np.float64)[: chunk.count] for of in (loss, correct, taylor, fisher))
        losses_, rights, taylors, fishers = host
        lack = self._lack(inputs, labels, chunk.count)
        tasks = np.array(chunk.tasks)
        finite = np.isfinite(losses_)
        found = {}
        for task in dict.fromkeys(chunk.tasks):
            of_task = tasks == task
            here = of_task & finite
            among = np.zeros(len(loss), bool)
            among[: chunk.count] = here
            g = np.asarray(weight_moments(rows, among), np.float64)
            count = int(here.sum())
            found[task] = State(
                gradient=Moments(count, g[0], g[1]),
                square=Moments(count, g[2], g[3]),
                taylor=summarize(taylors[here]),
                fisher=summarize(fishers[here]),
                lack=summarize(lack[here]),
                loss=summarize(losses_[here]),
                correct=summarize(rights[here]),
                broken=int((of_task & ~finite).sum()),
            )
        return found

    def _lack(self, inputs: Any, labels: Any, count: int) -> npt.NDArray[np.float64]:
        """Loss without each unit less the loss with it, (examples, units)."""
        if self.lacking is None:
            return np.zeros((count, 0))
        size, rows = self.lacking.size, []
        for first in range(0, len(self.units), size):
            part = np.full(size, -1, np.int32)
            taken = self.units[first : first + size]
            part[: len(taken)] = taken
            rows.append(np.asarray(self.lacking.run(inputs, labels, part), np.float64)[: len(taken)])
        found = np.concatenate(rows)[:, :count]
        with np.errstate(invalid="ignore"):
            return np.asarray((found[1:] - found[0]).T)


UNITS_AT_ONCE = 1
"""Units that a CPU removes at a time: with kernels of their own XLA's convolutions run three times slower a unit."""
