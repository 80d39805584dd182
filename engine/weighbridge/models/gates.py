"""Gates that a function spells out, such as x · sigmoid(x), recognised by what they do.

JAX inlines some of its activations (gelu) and people write their own. A gate is an elementwise function of one value
which is 0 at 0 and whose slope is 1 far right of it and less than 1, and not negative, far left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from weighbridge.models.equations import aval_of, bind, inner_jaxpr, name_of

FAR = 50.0
"""Where every common gate is within float32's rounding of its asymptote, and its powers do not overflow."""
_CLOSE = 1e-3
_SHUT = 0.9

_JOINS = ("mul", "select_n", "max", "min", "div")
_ARITHMETIC = (
    "abs add cbrt clamp convert_element_type copy cosh div eq erf erfc exp exp2 expm1 ge gt integer_pow is_finite le "
    "log log1p logistic lt max min mul ne neg not or and pow rsqrt select_n sign sinh sqrt square sub tan tanh"
)
_ELEMENTWISE = frozenset(_ARITHMETIC.split())
_CALLS = ("jit", "pjit", "custom_jvp_call")


@dataclass(frozen=True)
class Gate:
    """A gate's input, its slope where it is shut, whether it has these two slopes alone, and the equations it is."""

    root: Var
    off: float
    exact: bool
    eqns: tuple[JaxprEqn, ...]

    def evaluate(self, array: jax.Array) -> jax.Array:
        """The gate itself."""
        return _evaluate(self.eqns, self.root, array)


@lru_cache(maxsize=256)
def find_gates(jaxpr: Jaxpr, named: frozenset[str]) -> dict[int, Gate]:
    """Gates by the index of the equation that ends them. Calls whose name is in `named` have rules of their own."""
    makers = {v: i for i, eqn in enumerate(jaxpr.eqns) for v in eqn.outvars}
    parent = _Dominators(jaxpr, named).parent
    gates: dict[int, Gate] = {}
    for i, eqn in enumerate(jaxpr.eqns):
        root = parent.get(eqn.outvars[0]) if eqn.outvars and _joins(eqn) else None
        between = None if root is None else _between(jaxpr, makers, eqn, root)
        if root is not None and between is not None:
            gate = _behaviour([*(jaxpr.eqns[j] for j in between), eqn], root)
            gates.update({i: gate} if gate else {})
    return gates


class _Dominators:
    """For each value made elementwise from others, the last one that all of it goes through, if there is one."""

    def __init__(self, jaxpr: Jaxpr, named: frozenset[str]) -> None:
        self.parent: dict[Var, Var | None] = dict.fromkeys([*jaxpr.constvars, *jaxpr.invars])
        self.depth = dict.fromkeys(self.parent, 0)
        for eqn in jaxpr.eqns:
            sources = [v for v in eqn.invars if not isinstance(v, Literal) and v in self.parent]
            for v in eqn.outvars if sources else ():
                parent = self._common(sources) if _elementwise(eqn, sources, named) else None
                self.parent[v], self.depth[v] = parent, 0 if parent is None else self.depth[parent] + 1

    def _common(self, sources: Sequence[Var]) -> Var | None:
        first: Var | None = sources[0]
        for other in sources[1:]:
            first = self._meet(first, other)
        return first

    def _meet(self, a: Var | None, b: Var | None) -> Var | None:
        while a is not b:
            if a is None or b is None:
                return None
            if self.depth[a] >= self.depth[b]:
                a = self.parent[a]
            else:
                b = self.parent[b]
        return a


def _joins(eqn: JaxprEqn) -> bool:
    """Whether an equation brings two values together in a way that is not linear."""
    if eqn.primitive.name in _CALLS:
        return any(_joins(inner) for inner in _equations(eqn))
    if eqn.primitive.name in ("mul", "div") and any(isinstance(v, Literal) for v in eqn.invars):
        return False
    return eqn.primitive.name in _JOINS


def _equations(eqn: JaxprEqn) -> list[JaxprEqn]:
    inner = inner_jaxpr(eqn)
    return list(getattr(inner, "jaxpr", inner).eqns)


def _elementwise(eqn: JaxprEqn, sources: Sequence[Var], named: frozenset[str]) -> bool:
    if len(eqn.outvars) != 1 or any(aval_of(v).shape != aval_of(eqn.outvars[0]).shape for v in sources):
        return False
    if eqn.primitive.name not in _CALLS:
        return eqn.primitive.name in _ELEMENTWISE
    return name_of(eqn) not in named and all(_simple(inner) for inner in _equations(eqn))


def _simple(eqn: JaxprEqn) -> bool:
    """Whether an equation within a call is elementwise: nothing in it but arithmetic and spread constants."""
    if eqn.primitive.name in _CALLS:
        return all(_simple(inner) for inner in _equations(eqn))
    scalar = all(aval_of(v).shape == () for v in eqn.invars)
    return eqn.primitive.name in _ELEMENTWISE or (eqn.primitive.name == "broadcast_in_dim" and scalar)


def _between(jaxpr: Jaxpr, makers: dict[Var, int], last: JaxprEqn, root: Var) -> list[int] | None:
    """Indices of the equations from a root to an equation, without it; None where values from elsewhere come in."""
    found: set[int] = set()
    waiting = [v for v in last.invars if not isinstance(v, Literal)]
    while waiting:
        v = waiting.pop()
        if v is root or makers.get(v) in found:
            continue
        if v not in makers:
            return None
        found.add(makers[v])
        waiting += [u for u in jaxpr.eqns[makers[v]].invars if not isinstance(u, Literal)]
    return sorted(found)


def _behaviour(eqns: Sequence[JaxprEqn], root: Var) -> Gate | None:
    """The gate that some equations make of their root, if they do."""
    aval, out = aval_of(root), aval_of(eqns[-1].outvars[0])
    if not jnp.issubdtype(aval.dtype, jnp.floating) or out.shape != aval.shape or aval.size == 0:
        return None

    def f(at: float) -> Any:
        return np.asarray(_evaluate(eqns, root, jnp.full(aval.shape, at, aval.dtype)), np.float64)

    with jax.ensure_compile_time_eval():
        on, off = (f(2 * FAR) - f(FAR)) / FAR, (f(-FAR) - f(-2 * FAR)) / FAR
        if not (_all_near(on, 1) and np.all(off > -_CLOSE) and np.all(off < _SHUT) and _all_near(off, off.flat[0])):
            return None
        shut = 0.0 if _all_near(off, 0) else float(off.flat[0])
        if not _all_near(f(0.0), 0):
            return None  # a floor elsewhere than at zero, such as max(x, 1)
        exact = _all_near(f(0.5), 0.5, 1e-6) and _all_near(f(-0.5), -0.5 * shut, 1e-6)
    return Gate(root, shut, exact, tuple(eqns))


def _all_near(x: Any, to: float, tolerance: float = _CLOSE) -> bool:
    return bool(np.all(np.abs(x - to) <= tolerance))


def _evaluate(eqns: Sequence[JaxprEqn], root: Var, array: jax.Array) -> jax.Array:
    values = {root: array}
    _carry_out(eqns, values)
    return values[eqns[-1].outvars[0]]


def _carry_out(eqns: Sequence[JaxprEqn], values: dict[Var, Any]) -> None:
    """Adds what equations give to the values; through calls, which compile-time evaluation would not fold."""
    for eqn in eqns:
        arrays = [_read(values, v) for v in eqn.invars]
        outs = _called(eqn, arrays) if eqn.primitive.name in _CALLS else bind(eqn, arrays)
        values.update(zip(eqn.outvars, outs, strict=True))


def _called(eqn: JaxprEqn, arrays: Sequence[Any]) -> list[Any]:
    inner = inner_jaxpr(eqn)
    values = dict(zip(inner.jaxpr.constvars, inner.consts, strict=True))
    values.update(zip(inner.jaxpr.invars, arrays, strict=True))
    _carry_out(inner.jaxpr.eqns, values)
    return [_read(values, v) for v in inner.jaxpr.outvars]


def _read(values: dict[Var, Any], variable: Any) -> Any:
    return variable.val if isinstance(variable, Literal) else values[variable]
