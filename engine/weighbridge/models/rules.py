"""The linear operation that stands for each non-linear one, in a table that users extend.

A rule is `rule(site, operands) -> outputs`: operands and outputs are constants (arrays) or `Dependent`s, whose
reference the walk fills in. `RULES.extended(calls={"my_gate": gate()}, primitives={"erf": tangent})` adds to the table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn
from jax.extend.source_info_util import summarize

from weighbridge.errors import BadArgument, NotLinear
from weighbridge.models.algebras import Algebra, Factor
from weighbridge.models.equations import aval_of
from weighbridge.models.operands import Dependent, Operand, Upstream, at_reference

Keep = Factor | Callable[["Site"], Factor]

RECOGNISED = "<gate>"
"""Name, no function's, of the rule for gates that are spelled out."""


@dataclass(frozen=True)
class Site:
    """One operation of the walked function: what it is, where it stands, and what a rule needs to replace it.

    `name` is the primitive's, the named call's, or `RECOGNISED` for a gate that is known by what it does; `path` leads
    to it through calls and loops, as in ("jit(block)[3]", "relu[0]"). `evaluate` is the operation itself on arrays;
    `slopes` of a recognised gate are the one where it is shut and whether that is exact.
    """

    name: str
    path: tuple[str, ...]
    eqn: JaxprEqn
    algebra: Algebra
    keep: Keep
    operands: Sequence[Operand]
    evaluate: Callable[[Sequence[jax.Array]], list[jax.Array]]
    slopes: tuple[float, bool] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the first output."""
        shape: tuple[int, ...] = aval_of(self.eqn.outvars[0]).shape
        return shape

    @property
    def source(self) -> str:
        """The line that made it; empty where JAX does not know."""
        found: str = summarize(self.eqn.source_info)
        return found.strip()

    @property
    def where(self) -> str:
        """The start of a message about this operation."""
        return f"{self.source}: {'/'.join(self.path)}"

    def kept(self) -> Factor:
        """The share that a gate here lets through. Raises `BadArgument` for an array that does not fit the gate."""
        share = self.keep(self) if callable(self.keep) else self.keep
        if not _fits(jnp.shape(share), self.shape):
            raise BadArgument(
                f"{self.where}: keep has shape {jnp.shape(share)}, the gate {self.shape}; give keep(site)"
            )
        return share

    def references(self) -> list[jax.Array]:
        """The operands at the reference input. Raises `NotLinear` where none was given."""
        found = [at_reference(x) for x in self.operands]
        if any(x is None for x in found):
            raise self.unknown()
        return [x for x in found if x is not None]

    def unknown(self) -> NotLinear:
        """That the operation has neither a rule that applies nor a reference to be frozen at."""
        kind = "primitives" if self.name == self.eqn.primitive.name else "calls"
        return NotLinear(
            f"{self.where}: '{self.name}' is not linear in what depends on the input; give a reference input, "
            f"at=..., to freeze it there, or a rule, rules=RULES.extended({kind}={{'{self.name}': ...}})"
        )


Rule = Callable[[Site, Sequence[Operand]], Sequence[Operand]]


def gate(*, on: float = 1.0, off: float = 0.0, exact: bool = False) -> Rule:
    """x becomes (p · on + (1 - p) · off) · x, p being `keep`: the slopes are those far right and far left of zero.

    `exact` says that the function has these two slopes and no other, as ReLU has; bounds over gates need it.
    """

    def rule(site: Site, operands: Sequence[Operand]) -> list[Operand]:
        x = _elementwise_input(site, operands)
        shut, only_two = site.slopes or (off, exact)
        return [Dependent(site.algebra.gate(x.value, site.kept(), on, shut, only_two), None, gated=True)]

    return rule


def leaky_gate(site: Site, operands: Sequence[Operand]) -> list[Operand]:
    """A gate whose slope where it is shut is read off the call itself, at -1."""
    x = _elementwise_input(site, operands)
    aval = aval_of(site.eqn.outvars[0])
    arrays = [jnp.full(aval.shape, -1, aval.dtype) if isinstance(y, Dependent | Upstream) else y for y in operands]
    off = -site.evaluate(arrays)[0]
    return [Dependent(site.algebra.gate(x.value, site.kept(), 1.0, off, True), None, gated=True)]


def frozen(site: Site, operands: Sequence[Operand]) -> list[Operand]:
    """The output at the reference input, a constant: attention patterns, scales of normalisation."""
    return [*site.evaluate(site.references())]


def tangent(site: Site, operands: Sequence[Operand]) -> list[Operand]:
    """An elementwise f becomes f(r) + f'(r) (x - r) about the reference r; a choice, such as max, is made there."""
    references = site.references()
    out, total = site.evaluate(references)[0], None
    for i, x in enumerate(operands):
        if isinstance(x, Dependent):
            slope = _slope(site, references, i)
            out = out - slope * references[i]
            term = site.algebra.scale(x.value, slope)
            total = term if total is None else site.algebra.add(total, term)
    return [Dependent(site.algebra.add(total, site.algebra.constant(out)), None)]


def maximum(site: Site, operands: Sequence[Operand]) -> list[Operand]:
    """max(x, -inf), as reductions write it, is x; of any other maximum the choice at the reference is kept."""
    floors = [y for y in operands if not isinstance(y, Dependent | Upstream | jax.core.Tracer)]
    nothing = bool(floors) and bool(np.all(np.asarray(floors[0]) == -np.inf))
    return [only_dependent(site, operands)] if nothing else tangent(site, operands)


def product(site: Site, operands: Sequence[Operand]) -> list[Operand]:
    """One factor is frozen at the reference: the one that comes out of a gate where one alone does, else the first."""
    a, b = operands
    second = isinstance(b, Dependent) and b.gated and not (isinstance(a, Dependent) and a.gated)
    which = 1 if second or not isinstance(b, Dependent) else 0
    held = [site.references()[i] if i == which else x for i, x in enumerate(operands)]
    return [Dependent(value, None) for value in site.algebra.linear(site.eqn, held)]


def power(site: Site, operands: Sequence[Operand]) -> list[Operand]:
    """x^n becomes r^(n - 1) · x: all factors but one are frozen at the reference r."""
    x, exponent = only_dependent(site, operands), site.eqn.params.get("y", 2)
    return [Dependent(site.algebra.scale(x.value, site.references()[0] ** (exponent - 1)), None)]


def quotient(site: Site, operands: Sequence[Operand]) -> list[Operand]:
    """The denominator is frozen at the reference."""
    above, _ = operands
    below = site.references()[1]
    if not isinstance(above, Dependent):
        return frozen(site, operands)
    return [Dependent(value, None) for value in site.algebra.linear(site.eqn, [above, below])]


def clip(site: Site, operands: Sequence[Operand]) -> list[Operand]:
    """A clip from 0 upwards, such as ReLU6, is a gate; of any other the choice at the reference is kept."""
    return [*(gate() if _from_zero(site) else tangent)(site, operands)]


def average_pool(site: Site, operands: Sequence[Operand]) -> list[Operand]:
    """The mean over each window of a max pooling, of as many entries as lie in it without the padding."""
    x, window = only_dependent(site, operands), site.eqn.params
    inside = aval_of(site.eqn.invars[0])
    ones = jnp.ones(inside.shape, inside.dtype)
    count = jnp.maximum(_window_sum(ones, window), 1)
    return [Dependent(site.algebra.map(lambda v: _window_sum(v, window) / count, x.value), None)]


def average(site: Site, operands: Sequence[Operand]) -> list[Operand]:
    """The mean over the axes of a maximum: global max pooling."""
    x, axes = only_dependent(site, operands), tuple(int(a) for a in site.eqn.params["axes"])
    return [Dependent(site.algebra.map(lambda v: v.mean(axis=axes), x.value), None)]


def only_dependent(site: Site, operands: Sequence[Operand]) -> Dependent:
    """The one operand that is followed; raises `NotLinear` where there are others beside it."""
    found = [x for x in operands if isinstance(x, Dependent)]
    if len(found) != 1 or any(isinstance(x, Upstream) for x in operands):
        raise site.unknown()
    return found[0]


def _elementwise_input(site: Site, operands: Sequence[Operand]) -> Dependent:
    """The operand of a gate. Raises `NotLinear` where a function of that name is of another shape than its operand."""
    x = only_dependent(site, operands)
    shape = jnp.shape(jax.tree.leaves(x.value)[0])
    if shape != site.shape:
        raise NotLinear(f"{site.where}: '{site.name}' is a gate's name, but sends {shape} to {site.shape}; rename it")
    return x


def _from_zero(site: Site) -> bool:
    """Whether an operation with constant bounds sends -1 to 0 and leaves a small positive number as it is."""
    x = only_dependent(site, site.operands)
    if any(isinstance(y, jax.core.Tracer) for y in site.operands if y is not x):
        return False
    aval = aval_of(site.eqn.outvars[0])

    def at(value: float) -> jax.Array:
        return site.evaluate([jnp.full(aval.shape, value, aval.dtype) if y is x else y for y in site.operands])[0]  # type: ignore[misc]

    with jax.ensure_compile_time_eval():
        return bool((at(-1.0) == 0).all() and (at(2.0**-10) == 2.0**-10).all())


def unwritten(site: Site, operands: Sequence[Operand]) -> list[Operand]:
    """Refuses what is linear, so must not be frozen, but of which no walk knows how."""
    raise NotLinear(
        f"{site.where}: '{site.name}' is linear but has no rule yet; give one, "
        f"rules=RULES.extended(primitives={{'{site.name}': ...}})"
    )


def _fits(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether an array broadcasts to a shape without making it larger."""
    pairs = zip(shape[::-1], whole[::-1], strict=False)
    return len(shape) <= len(whole) and all(n in (1, m) for n, m in pairs)


def _window_sum(x: jax.Array, window: Mapping[str, Any]) -> jax.Array:
    summed: jax.Array = lax.reduce_window_sum_p.bind(x, **window)
    return summed


def _slope(site: Site, arrays: Sequence[jax.Array], i: int) -> jax.Array:
    """Elementwise derivative of an operation in its i-th operand."""

    def of_one(x: jax.Array) -> jax.Array:
        return site.evaluate([*arrays[:i], x, *arrays[i + 1 :]])[0]

    slope: jax.Array = jax.jvp(of_one, (arrays[i],), (jnp.ones_like(arrays[i]),))[1]
    return slope


_SMOOTH_GATES = ("gelu", "silu", "swish", "elu", "celu", "softplus", "mish", "hard_silu", "hard_swish", "squareplus")
_UNWRITTEN = ("fft", "triangular_solve", "custom_linear_solve", "linear_solve", "psum", "all_gather", "ppermute")


@dataclass(frozen=True, eq=False)
class Rules:
    """Rules by the name of a call (a jitted or custom-derivative function) and by primitive; immutable."""

    calls: Mapping[str, Rule] = field(default_factory=dict)
    primitives: Mapping[str, Rule] = field(default_factory=dict)

    def extended(
        self, *, calls: Mapping[str, Rule] | None = None, primitives: Mapping[str, Rule] | None = None
    ) -> "Rules":
        """These rules with others added, or put in their place."""
        return Rules(
            MappingProxyType({**self.calls, **(calls or {})}),
            MappingProxyType({**self.primitives, **(primitives or {})}),
        )


RULES = Rules().extended(
    calls={
        **dict.fromkeys(_SMOOTH_GATES, gate()),
        RECOGNISED: gate(),
        "relu": gate(exact=True),
        "relu6": gate(),
        "selu": gate(on=1.0507009873554805),
        "leaky_relu": leaky_gate,
        "clip": clip,
        "softmax": frozen,
        "_softmax": frozen,
    },
    primitives={
        **dict.fromkeys(("mul", "dot_general", "conv_general_dilated"), product),
        **dict.fromkeys(("tanh", "abs", "min"), tangent),
        **dict.fromkeys(_UNWRITTEN, unwritten),
        "max": maximum,
        "clamp": clip,
        **dict.fromkeys(("square", "integer_pow"), power),
        "div": quotient,
        "reduce_max": average,
        "reduce_window_max": average_pool,
    },
)
"""What holds unless the caller says otherwise. What is not here is frozen at the reference.

A layer norm keeps its centring, which is linear, and has its scale frozen; a softmax is frozen as a whole.
"""
