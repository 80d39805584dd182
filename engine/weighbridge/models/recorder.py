"""`record`: watches an optimiser train, from inside the jitted step, and changes nothing.

    recorder = weighbridge.recorder.record(optax.adam(1e-3), every=50, report="run")
    state = recorder.init(params)
    ...                      # updates, state = recorder.update(gradients, state, params), jitted or scanned
    recorder.close(state)

A record lies in a ring of a few in the optimiser's state, on the device. A full ring goes to the host by a callback of
microseconds; a thread there writes it into the table `training` of the report.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from weighbridge.errors import BadArgument
from weighbridge.models.gradient_figures import Figures, figures, stacked
from weighbridge.models.groups import record_groups
from weighbridge.models.paths import is_real, named
from weighbridge.models.recording import Batch, IfExists, Recording, Watched
from weighbridge.patterns import patterns, wanted

if TYPE_CHECKING:
    from jaxtyping import Array, Int32

__all__ = ["Recorder", "RecorderState", "record", "record_groups"]

Successive = Literal["compare", "ignore"]
Delivery = Literal["callback", "flush"]
BUFFER = 8
_Leaves = dict[str, Any]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Owner:
    """Whose state it is, told by the report's folder; no array, so that JAX carries it for nothing."""

    folder: str


class RecorderState(NamedTuple):
    """The state of a recorded optimiser.

    `step` counts updates, `made` the records, of which the ring (`steps`, `figures`: one a row) holds the last;
    `previous` are the gradients of the last record by path, scaled by powers of two.
    """

    inner: Any
    step: "Int32[Array, '']"
    made: "Int32[Array, '']"
    steps: "Int32[Array, ' buffer']"
    figures: Figures
    previous: _Leaves
    owner: Owner


class Recorder(optax.GradientTransformationExtraArgs):  # type: ignore[misc]
    """An optax transformation that records another one; see `record`."""

    recording: Recording

    def flush(self, state: Any) -> None:
        """Writes what waits in a state of this recorder, or in any tree that holds one, and waits until it is written.

        Records that are written already are left as they are; of a state that went back, later ones are replaced from
        the first that differs. Where the disk is full it warns, as training does.
        """
        for found in _states(state, Owner(str(self.recording.folder))):
            steps, rings = jax.tree.map(np.asarray, (found.steps, found.figures))
            filled = np.arange(min(int(np.asarray(found.made)), len(steps)))
            order = filled[np.argsort(steps[filled], kind="stable")]
            if order.size:
                self.recording.put(Batch(steps[order], Figures(*(ring[order] for ring in rings))), "known")
        self.recording.flush()

    def close(self, state: Any = None) -> None:
        """`flush`, ends the writing thread and marks the table as complete."""
        if state is not None:
            self.flush(state)
        self.recording.close()


def record(
    optimizer: optax.GradientTransformation,
    *,
    report: str | os.PathLike[str],
    every: int = 50,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    buffer: int = BUFFER,
    start: int = 0,
    successive: Successive = "compare",
    delivery: Delivery = "callback",
    if_exists: IfExists = "resume",
    name: str = "training",
) -> Recorder:
    """The same optimiser, recorded every `every` steps into the table `training` of a report.

    For each tensor whose dotted path `include` and `exclude` select (globs), from the gradient that comes in, the
    update that goes out and the weights before it: norms, update over weight, zeros, NaN, infinities, the cosine with
    the gradient recorded before, and a histogram of the gradient's signs and binary exponents. Norms and cosines are
    of the finite entries, float32; NaN is counted, and training goes on as it would.

    Updates are those of `optimizer`, to the bit on a CPU wherever it uses each gradient more than once (Adam and its
    kin, Nesterov's momentum, clipping by the global norm) and for plain SGD. Of one that adds to it once (plain
    momentum, noise) XLA may fold that sum into the reduction or scatter that makes the gradient, and does not where the
    recorder reads it too: then the last bit of a step may differ. Beside the step it takes the memory of three
    gradients: copies of gradient and update, and for the cosine the gradient recorded before, which
    `successive="ignore"` spares. `buffer` records go to the host at a time, by a callback. With `delivery="flush"`
    there is none, for backends that know no callbacks: call `recorder.flush(state)` at least every `buffer` records,
    for of more the oldest are lost. A full disk or a report that cannot be written warns once, and later records are
    tried again. A killed run loses what came since the last part, at most some 30 seconds.

    A recorder is of one model: for another make another, with a report of its own. Under `jax.vmap` it does not work.

    The step is counted in the state from `start` on (that of the first update), so a run that restores its optimiser's
    state goes on where it was: rows from the first recorded step on are replaced, earlier ones stay. With
    `if_exists="overwrite"` the table begins anew.

    `update` needs the parameters for all that concerns weights; without them these columns are null. Tensors that are
    not real floats have one row that says so.

    Raises `BadArgument` for numbers out of range, `ReportError` where the folder holds something else.
    """
    for what, value, least in (("every", every, 1), ("buffer", buffer, 1), ("start", start, 0)):
        if not isinstance(value, Integral) or value < least:
            raise BadArgument(f"{what} is {value}; expected a whole number of at least {least}")
    for given, words in ((successive, get_args(Successive)), (delivery, get_args(Delivery))):
        if given not in words:
            raise BadArgument(f"{given!r}; expected {' or '.join(words)}")
    options = {"every": every, "include": sorted(patterns(include)), "exclude": sorted(patterns(exclude))}
    options["successive"] = successive
    recording = Recording.begin(report, options, name=name, if_exists=if_exists)
    plan = _Plan(
        optax.with_extra_args_support(optimizer),
        recording,
        every,
        buffer,
        start,
        successive,
        delivery,
        wanted(include, exclude),
    )
    recorder = Recorder(plan.init, plan.update)
    recorder.recording = recording
    return recorder


def _copied(leaves: _Leaves, due: "Array") -> _Leaves:
    """Copies for a record where one is due, else zeros.

    A branch that read the gradients themselves would keep the compiler from computing them within the optimiser's own
    loops, where products and sums round once; a selection by a value unknown until it runs is one loop more that they
    are computed within. So the optimiser's loops, and with them its bits, stay as they are.
    """
    return {name: jnp.where(due, leaf, jnp.zeros((), leaf.dtype)) for name, leaf in leaves.items()}


@dataclass(frozen=True)
class _Plan:
    """What the two functions of the transformation know."""

    optimizer: optax.GradientTransformationExtraArgs
    recording: Recording
    every: int
    buffer: int
    start: int
    successive: Successive
    delivery: Delivery
    wanted: Callable[[str], bool]

    def init(self, params: Any) -> RecorderState:
        leaves = self._tell(params)
        ring = jnp.zeros(self.buffer, jnp.int32)
        empty = jax.eval_shape(lambda: stacked([figures(x, x, x, None)[0] for x in leaves.values()]))
        rings = jax.tree.map(lambda of: jnp.zeros((self.buffer, *of.shape), of.dtype), empty)
        kept = {n: jnp.zeros(x.size, _kept(x)) for n, x in leaves.items()} if self.successive == "compare" else {}
        zero = jnp.zeros((), jnp.int32)
        owner = Owner(str(self.recording.folder))
        return RecorderState(self.optimizer.init(params), zero + self.start, zero, ring, rings, kept, owner)

    def update(
        self, gradients: Any, state: RecorderState, params: Any = None, **extra: Any
    ) -> tuple[Any, RecorderState]:
        watched = self._tell(gradients if params is None else params)
        updates, inner = self.optimizer.update(gradients, state.inner, params, **extra)
        due = state.step % self.every == 0
        seen = [_copied(_chosen(tree, watched), due) for tree in (gradients, updates)]
        outer = state._replace(step=state.step + 1, inner=())
        weights = {} if params is None else watched
        recorded = lax.cond(due, self._record, lambda ring, *_: ring, outer, *seen, weights)
        return updates, recorded._replace(inner=inner)

    def _record(self, ring: RecorderState, gradients: _Leaves, updates: _Leaves, weights: _Leaves) -> RecorderState:
        """The ring with one more record."""
        found, kept = [], {}
        for name, gradient in gradients.items():
            of, scaled = figures(weights.get(name), gradient, updates[name], ring.previous.get(name))
            found.append(of)
            if name in ring.previous:
                kept[name] = scaled.astype(ring.previous[name].dtype)
        at, made = ring.made % self.buffer, ring.made + 1
        rings = jax.tree.map(
            lambda old, new: lax.dynamic_update_index_in_dim(old, new, at, 0), ring.figures, stacked(found)
        )
        steps = ring.steps.at[at].set(ring.step - 1)
        if self.delivery == "callback":
            made = lax.cond(made % self.buffer == 0, self._deliver, lambda made, *_: made, made, steps, rings)
        return ring._replace(made=made, steps=steps, figures=rings, previous=kept)

    def _deliver(self, made: Any, steps: Any, rings: Figures) -> Any:
        """Hands a full ring to the host; that the count comes back makes later records wait for it.

        To JAX the callback is pure: a step that holds one with effects is dispatched by Python, at a millisecond. It is
        kept because its result is used, and were a compiler to repeat it, a ring would replace itself.
        """
        return jax.pure_callback(self._received, jnp.zeros_like(made), made, steps, *rings)

    def _received(self, made: Any, steps: Any, norms: Any, counts: Any, histogram: Any) -> np.ndarray:
        if int(made) % self.buffer:  # a compiler that runs both branches has no full ring
            return np.array(made)
        try:
            held: list[Any] = [np.array(ring) for ring in (steps, norms, counts, histogram)]
            self.recording.put(Batch(held[0], Figures(*held[1:])), "new")
        except Exception:  # whatever it is, an exception here would end the training
            logging.getLogger("weighbridge").exception("a record is lost; training goes on")
        return np.array(made)

    def _watched(self, tree: Any) -> _Leaves:
        """The real floating leaves that are wanted, by dotted path."""
        return {name: leaf for name, leaf in named(tree).items() if self.wanted(name) and is_real(leaf)}

    def _tell(self, params: Any) -> _Leaves:
        """Tells the recording what the rows of the ring are: the leaves that come back."""
        everything, leaves = named(params), self._watched(params)
        if not leaves:
            raise BadArgument(f"include and exclude leave none of {len(everything):,} tensors that are real floats")
        odd = {name: leaf for name, leaf in everything.items() if self.wanted(name) and name not in leaves}
        order = {name: i for i, name in enumerate(everything)}
        self.recording.watch(
            [Watched(name, tuple(leaf.shape), str(leaf.dtype), order[name]) for name, leaf in leaves.items()],
            [Watched(name, np.shape(leaf), str(jnp.result_type(leaf)), order[name]) for name, leaf in odd.items()],
        )
        return leaves


def _kept(leaf: Any) -> Any:
    """The dtype in which a scaled gradient is kept: its own where that has float32's range or close to it."""
    return leaf.dtype if leaf.dtype in (jnp.bfloat16, jnp.float16, jnp.float32) else jnp.float32


def _chosen(tree: Any, watched: _Leaves) -> _Leaves:
    """The leaves of a tree that are called as those that are watched."""
    leaves = named(tree)
    return {name: leaves[name] for name in watched}


def _states(tree: Any, owner: Owner) -> list[RecorderState]:
    """An owner's states in a tree, flax's variables taken for what they hold; the only one there is, whosever it is."""
    held = list(_held(tree))
    return held if len(held) == 1 else [state for state in held if state.owner == owner]


def _held(tree: Any) -> Iterator[RecorderState]:
    """The recorders' states in a tree, those within others among them."""
    for node in jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, RecorderState)):
        if isinstance(node, RecorderState):
            yield node
            yield from _held(node.inner)
