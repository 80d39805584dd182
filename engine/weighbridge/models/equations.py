"""What a jaxpr's equation holds, whatever JAX calls it: its operation, its avals, the functions within it."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.extend.core import JaxprEqn, jaxprs_in_params

CALLS = (
    *("jit", "pjit", "custom_jvp_call", "custom_vjp_call"),
    *("remat2", "remat", "checkpoint", "closed_call", "core_call"),
)
"""Primitives that do no more than call one function."""


def bind(eqn: JaxprEqn, arrays: Sequence[Any]) -> list[jax.Array]:
    """The equation's own operation on some arrays."""
    primitive: Any = eqn.primitive
    given = primitive.get_bind_params(eqn.params)
    functions, parameters = given if isinstance(given, tuple) else ((), given)  # a pair before JAX 0.10.2
    found = primitive.bind(*functions, *arrays, **parameters)
    return list(found) if primitive.multiple_results else [found]


def aval_of(variable: Any) -> Any:
    """Shape and dtype of a variable or literal."""
    return variable.aval


def inner_jaxpr(eqn: JaxprEqn) -> Any:
    """The function that a call calls; closed for some primitives, open for others."""
    return eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")


def name_of(eqn: JaxprEqn) -> str:
    """The name of the function that a call calls, else of the operation."""
    operation: str = eqn.primitive.name
    if operation not in CALLS:
        return operation
    inner = inner_jaxpr(eqn)
    traced = getattr(getattr(inner, "jaxpr", inner).debug_info, "func_name", operation)
    return str(eqn.params.get("name", traced))


def names_within(eqn: JaxprEqn) -> bool:
    """Whether a call or loop holds a named value, at any depth."""
    inner = [getattr(found, "jaxpr", found) for found in jaxprs_in_params(eqn.params)]
    return any(e.primitive.name == "name" or names_within(e) for jaxpr in inner for e in jaxpr.eqns)
