"""A function carried out equation by equation, each non-linear operation replaced by its rule.

Calls (jit, remat, custom derivatives) are walked through, scans and conditionals rebuilt around their walked bodies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from weighbridge.errors import NotLinear
from weighbridge.models.algebras import PRODUCTS, Algebra
from weighbridge.models.equations import CALLS, aval_of, bind, inner_jaxpr, name_of, names_within
from weighbridge.models.gates import Gate, find_gates
from weighbridge.models.operands import Dependent, Operand, Upstream, at_reference, level
from weighbridge.models.rules import RECOGNISED, Keep, Rule, Rules, Site, frozen

Path = tuple[str, ...]
Hook = Callable[[str, Operand, Site], Operand]
"""Sees every named value, in order, and gives what the walk goes on with."""

_JOINTLY = (
    "add add_any sub neg copy copy_p reshape squeeze expand_dims transpose broadcast_in_dim rev real imag name "
    "reduce_sum reduce_window_sum cumsum concatenate pad slice split convert_element_type device_put pbroadcast "
    "optimization_barrier reduce_precision sharding_constraint"
)
ADDITIVE: dict[str, tuple[int, ...] | None] = {
    **dict.fromkeys(_JOINTLY.split()),
    **dict.fromkeys(("dynamic_slice", "gather"), (0,)),
    "dynamic_update_slice": (0, 1),
    **dict.fromkeys(("scatter", "scatter-add"), (0, 2)),
}
"""Operations linear in some operands together, and which: None for all. A selection is linear in its cases."""


@dataclass(frozen=True, eq=False)
class Walk:
    """How a function is carried out: by which rules, with which gates, in which arithmetic, seen by whom."""

    rules: Rules
    keep: Keep
    algebra: Algebra
    hook: Hook | None = None
    has_reference: bool = False

    def run(self, closed: Any, operands: Sequence[Operand], path: Path = ()) -> list[Operand]:
        """The outputs of a jaxpr, closed or without constants, for some operands."""
        jaxpr, consts = getattr(closed, "jaxpr", closed), getattr(closed, "consts", ())
        values: dict[Var, Operand] = dict(zip(jaxpr.constvars, consts, strict=True))
        values.update(zip(jaxpr.invars, operands, strict=True))
        gates = find_gates(jaxpr, frozenset(self.rules.calls))
        for i in _needed(jaxpr, gates):
            eqn = jaxpr.eqns[i]
            if i in gates:
                outs = self._recognised(eqn, gates[i], values[gates[i].root], (*path, f"{RECOGNISED}[{i}]"))
            else:
                outs = self._equation(eqn, _read(values, eqn.invars), (*path, f"{_label(eqn)}[{i}]"))
            values.update(zip(eqn.outvars, outs, strict=True))
        return _read(values, jaxpr.outvars)

    def _recognised(self, eqn: JaxprEqn, gate: Gate, x: Operand, path: Path) -> list[Operand]:
        if isinstance(x, Upstream):
            return [Upstream(gate.evaluate(x.value))]
        if not isinstance(x, Dependent):
            return [gate.evaluate(x)]

        def evaluate(arrays: Sequence[jax.Array]) -> list[jax.Array]:
            return [gate.evaluate(arrays[0])]

        site = Site(RECOGNISED, path, eqn, self.algebra, self.keep, [x], evaluate, (gate.off, gate.exact))
        return self._by_rule(self.rules.calls[RECOGNISED], site)

    def _equation(self, eqn: JaxprEqn, operands: list[Operand], path: Path) -> list[Operand]:
        site = Site(name_of(eqn), path, eqn, self.algebra, self.keep, operands, partial(bind, eqn))
        if eqn.primitive.name == "name" and self.hook is not None:
            return [self.hook(eqn.params["name"], operands[0], site)]
        top = max(map(level, operands), default=0)
        if eqn.primitive.name in CALLS and ((top < 2 and self._names(eqn)) or (top == 2 and not self._ruled(site))):
            return self._within(site)
        if top == 0:
            return [*bind(eqn, operands)]
        if top == 1:
            arrays = [x.value if isinstance(x, Upstream) else x for x in operands]
            return [Upstream(x) for x in bind(eqn, arrays)]
        return self._dependent(site)

    def _within(self, site: Site) -> list[Operand]:
        """The outputs of a call, walked through; JAX forgets the line of what it traced once for many calls."""
        try:
            return self.run(inner_jaxpr(site.eqn), site.operands, site.path)
        except NotLinear as error:
            raise NotLinear(f"{site.source}{error}") if str(error).startswith(":") else error from None

    def _dependent(self, site: Site) -> list[Operand]:
        """The outputs of an operation, not a call to walk through, on something that is followed."""
        if site.name in LOOPS:
            return LOOPS[site.name](self, site)
        if _is_linear(site.eqn, site.operands):
            return self._with_references(
                site, [Dependent(x, None) for x in self.algebra.linear(site.eqn, site.operands)]
            )
        table = self.rules.calls if site.eqn.primitive.name in CALLS else self.rules.primitives
        return self._by_rule(table.get(site.name, frozen), site)

    def _by_rule(self, rule: Rule, site: Site) -> list[Operand]:
        try:
            return self._with_references(site, rule(site, site.operands))
        except NotLinear as error:
            raise error if site.path[-1] in str(error) else NotLinear(f"{site.where}: {error}") from None

    def _with_references(self, site: Site, outs: Sequence[Operand]) -> list[Operand]:
        if not self.has_reference or not any(isinstance(x, Dependent) for x in outs):
            return [*outs]
        references = site.evaluate(site.references())
        pairs = zip(outs, references, strict=True)
        return [replace(x, reference=at) if isinstance(x, Dependent) else x for x, at in pairs]

    def _ruled(self, site: Site) -> bool:
        return site.name in self.rules.calls

    def _names(self, eqn: JaxprEqn) -> bool:
        return self.hook is not None and names_within(eqn)

    def raised(self, operand: Operand, to: int) -> Operand:
        """The same value as one that depends on more; see `operands.level`."""
        if level(operand) == to:
            return replace(operand, gated=False) if isinstance(operand, Dependent) else operand
        array = jnp.asarray(operand.value if isinstance(operand, Upstream) else operand)
        if to == 1:
            return Upstream(array)
        return Dependent(self.algebra.constant(array), array if self.has_reference else None)


def _scan(walk: Walk, site: Site) -> list[Operand]:
    """A scan around the walked body; a carry that depends on the input after some turn does so from the start."""
    params, operands = site.eqn.params, site.operands
    first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
    consts, carry, xs = operands[:first], operands[first:last], operands[last:]

    def body(carry: list[Operand], x: list[Operand]) -> tuple[list[Operand], list[Operand]]:
        outs = walk.run(params["jaxpr"], [*consts, *carry, *x], site.path)
        return outs[: len(carry)], [walk.raised(y, level(y)) for y in outs[len(carry) :]]

    def raised_body(carry: list[Operand], x: list[Operand]) -> tuple[list[Operand], list[Operand]]:
        outs, ys = body(carry, x)
        return [walk.raised(y, level(c)) for y, c in zip(outs, carry, strict=True)], ys

    one = jax.tree.map(lambda leaf: _shaped(leaf.shape[1:], leaf.dtype), [*xs])
    carry = _settled(walk, lambda c: jax.eval_shape(body, c, one)[0], carry)
    settings = {name: params[name] for name in ("length", "reverse", "unroll")}
    outs, ys = lax.scan(raised_body, carry, [*xs], **settings)
    return [*outs, *ys]


_shaped: Callable[..., Any] = jax.ShapeDtypeStruct


def _settled(walk: Walk, turn: Callable[[list[Operand]], list[Operand]], carry: Sequence[Operand]) -> list[Operand]:
    """A carry raised until no turn raises it further."""
    now = [walk.raised(c, level(c)) for c in carry]
    while True:
        levels = [max(level(c), level(y)) for c, y in zip(now, turn(now), strict=True)]
        if levels == [level(c) for c in now]:
            return now
        now = [walk.raised(c, to) for c, to in zip(now, levels, strict=True)]


def _cond(walk: Walk, site: Site) -> list[Operand]:
    """The walked branches; where the choice depends on the input, the one made at the reference."""
    choice, *operands = site.operands
    index = choice if level(choice) == 0 else at_reference(choice)
    if index is None:
        raise site.unknown()
    held = [walk.raised(x, level(x)) for x in operands]
    branches = [partial(walk.run, branch, path=site.path) for branch in site.eqn.params["branches"]]
    shapes = [jax.eval_shape(branch, held) for branch in branches]
    levels = [max(map(level, outs)) for outs in zip(*shapes, strict=True)]

    def joined(branch: Callable[[list[Operand]], list[Operand]], given: list[Operand]) -> list[Operand]:
        return [walk.raised(x, to) for x, to in zip(branch(given), levels, strict=True)]

    chosen: list[Operand] = lax.switch(index, [partial(joined, branch) for branch in branches], held)
    return chosen


def _while(walk: Walk, site: Site) -> list[Operand]:
    raise NotLinear(f"{site.where}: 'while' runs a number of turns that only the input decides; use a scan")


LOOPS: dict[str, Callable[[Walk, Site], list[Operand]]] = {"scan": _scan, "cond": _cond, "while": _while}


def _read(values: dict[Var, Operand], variables: Sequence[Any]) -> list[Operand]:
    return [v.val if isinstance(v, Literal) else values[v] for v in variables]


def _label(eqn: JaxprEqn) -> str:
    name = eqn.primitive.name
    return f"jit({name_of(eqn)})" if name in ("jit", "pjit") else name_of(eqn)


def _is_linear(eqn: JaxprEqn, operands: Sequence[Operand]) -> bool:
    """Whether an operation is linear in what depends on the input, as it stands."""
    name, moving = eqn.primitive.name, [i for i, x in enumerate(operands) if level(x)]
    if not all(jnp.issubdtype(aval_of(v).dtype, jnp.inexact) for v in eqn.outvars):
        return False
    if name in PRODUCTS:
        return len(moving) == 1 and moving[0] in PRODUCTS[name]
    if name == "select_n":
        return 0 not in moving
    slots = ADDITIVE.get(name, ())
    return slots is None or set(moving) <= set(slots)


def _needed(jaxpr: Jaxpr, gates: dict[int, Gate]) -> list[int]:
    """Indices of the equations to carry out: those that an output needs, and those that name something.

    What only a gate reads is left out, because its rule takes the gate as a whole.
    """
    wanted, found = {v for v in jaxpr.outvars if not isinstance(v, Literal)}, []
    for i in reversed(range(len(jaxpr.eqns))):
        eqn = jaxpr.eqns[i]
        names = eqn.primitive.name == "name" or names_within(eqn)
        if names or not wanted.isdisjoint(eqn.outvars):
            found.append(i)
            read = [gates[i].root] if i in gates else eqn.invars
            wanted.update(v for v in read if not isinstance(v, Literal))
    return found[::-1]
