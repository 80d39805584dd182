"""Many runs of a network in bounded memory: items, which are (input, step) pairs, go through in batches of one size.

An item's input is made where it is needed, inside the compiled program, so that 512 steps take no more memory than 8.
Only the sums, or a number for each item, stay. The loop over batches is the host's: XLA's convolutions for CPUs run
about 20 times slower inside of a compiled loop.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.models.saliency_calls import Apply, Network, abstract
from weighbridge.models.saliency_taps import bytes_between

_HOST_BYTES, _DEVICE_BYTES = 1 << 28, 1 << 31
"""What a batch may take by default on CPUs and on accelerators."""
_FEW = 8
_CACHED_BYTES = 1 << 25
"""On a CPU more than a few inputs at once are no faster, unless all they need stays in its caches."""

Point = Callable[[Any, Any, Any, Any], Any]
Measure = Callable[..., Any]


@dataclass(frozen=True)
class Batches:
    """What the compiled program does with every item of a batch; all of it static.

    `point(data, example, step, steps)` is the item's input. `measure(apply, params, fixed, inputs, targets, context)`
    is what is kept of a batch. The results are summed by example, or stored by item.
    """

    apply: Apply
    point: Point
    measure: Measure
    per: Literal["example", "item"]
    shape: tuple[int, ...]
    dtype: Any
    size: int = 1


class Runs:
    """A network, inputs with their targets, and what to do with them: compiled once for any number of steps."""

    def __init__(
        self,
        network: Network,
        point: Point,
        measure: Measure,
        per: Literal["example", "item"],
        data: Any,
        targets: Any,
        context: tuple[Any, ...],
        *,
        items: int,
        memory: int | None,
    ) -> None:
        """`items` is the number to prepare for; no run that stores by item has more.

        Raises `BadArgument` where one item exceeds `memory` bytes.
        """
        self._network = network
        self._arrays = (network.params, network.fixed, data, targets, context)
        self._inputs = len(data["inputs"])
        self._slots = self._inputs if per == "example" else items
        found = _abstract_item(network.apply, point, measure, self._arrays)
        dtype = jnp.promote_types(found.dtype, jnp.float32)
        self._job = Batches(network.apply, point, measure, per, tuple(found.shape[1:]), dtype)
        self._job = replace(self._job, size=_size(network, self._job, self._arrays, self._slots, items, memory))

    def __call__(self, rows: npt.NDArray[np.int64], steps: int) -> npt.NDArray[Any]:
        """For the inputs `rows`: sums over the steps, shape (rows, ...), or every step's result, (rows, steps, ...)."""
        count = len(rows) if self._job.per == "example" else len(rows) * steps
        padded = np.zeros(self._inputs, np.int32)
        padded[: len(rows)] = rows
        out = jnp.zeros((self._slots, *self._job.shape), self._job.dtype)
        run = _compiled(self._network, self._job, (out, *self._arrays))
        items = len(rows) * steps
        for first in range(0, items, self._job.size):
            out = run(out, *self._arrays, padded, np.int32(first), np.int32(items), np.int32(steps))
            out.block_until_ready()  # else batches in flight would each hold their memory
        found = np.array(out)[:count]
        return found if self._job.per == "example" else found.reshape(len(rows), steps, *found.shape[1:])


def _size(network: Network, job: Batches, arrays: Any, slots: int, items: int, memory: int | None) -> int:
    """Items at a time that stay within the bound: by a rule first, then by what the compiler says it needs."""
    host = jax.default_backend() == "cpu"
    bound = memory if memory is not None else _HOST_BYTES if host else _DEVICE_BYTES
    each = max(_item_bytes(job, arrays), 1)
    useful = max(_FEW, _CACHED_BYTES // each) if host else items
    size = max(1, min(items, bound // each, useful))
    while True:
        needed = _needed(network, replace(job, size=size), arrays, slots)
        if needed <= bound or (size == 1 and memory is None):
            return size
        if size == 1:
            raise BadArgument(f"memory is {bound:,} bytes; one input needs {needed:,}, give at least that")
        size = max(1, min(size // 2, size * bound // needed))


def _needed(network: Network, job: Batches, arrays: Any, slots: int) -> int:
    """Bytes of temporaries that the compiler plans for a batch."""
    out = abstract((slots, *job.shape), job.dtype)
    analysis = _compiled(network, job, (out, *arrays)).memory_analysis()
    return int(analysis.temp_size_in_bytes) if analysis is not None else 0


def _abstract_item(apply: Apply, point: Point, measure: Measure, arrays: Any) -> Any:
    run = partial(_batch, apply, point, measure)
    return jax.eval_shape(run, arrays, *_one())


def _item_bytes(job: Batches, arrays: Any) -> int:
    return bytes_between(partial(_batch, job.apply, job.point, job.measure), arrays, *_one())


def _one() -> tuple[Any, Any, Any]:
    zero = abstract((1,), jnp.int32)
    return zero, zero, abstract((), jnp.int32)


def _batch(apply: Apply, point: Point, measure: Measure, arrays: Any, example: Any, step: Any, steps: Any) -> Any:
    """What is measured of a batch of items."""
    params, fixed, data, targets, context = arrays
    inputs = jax.vmap(point, (None, 0, 0, None))(data, example, step, steps)
    context = jax.tree.map(lambda values: values[example], context)
    return measure(apply, params, fixed, inputs, targets[example], context)


def _compiled(network: Network, job: Batches, arrays: Any) -> Any:
    """The program for a batch, made or found."""
    spec = _spec(arrays)
    if (job, spec) not in network.compiled:
        network.compiled[job, spec] = _compile(job, *spec)
    return network.compiled[job, spec]


def _compile(job: Batches, structure: Any, leaves: Any) -> Any:
    out, *arrays = jax.tree.unflatten(structure, [abstract(*leaf) for leaf in leaves])
    slots = abstract((len(arrays[2]["inputs"]),), np.int32)
    number = abstract((), np.int32)
    return jax.jit(partial(_fill, job), donate_argnums=0).lower(out, *arrays, slots, number, number, number).compile()


def _spec(arrays: Any) -> Any:
    leaves, structure = jax.tree.flatten(arrays)
    return structure, tuple((np.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)


def _fill(job: Batches, out: Any, params: Any, fixed: Any, data: Any, targets: Any, context: Any, *where: Any) -> Any:
    """`out` with what is measured of the batch that begins with the item `first`."""
    rows, first, items, steps = where
    item = first + jnp.arange(job.size, dtype=jnp.int32)
    at = jnp.minimum(item, items - 1)
    row, step = at // steps, at % steps
    arrays = (params, fixed, data, targets, context)
    found = _batch(job.apply, job.point, job.measure, arrays, rows[row], step, steps)
    slot = jnp.where(item < items, row if job.per == "example" else at, out.shape[0])
    return out.at[slot].add(found.astype(out.dtype), mode="drop")
