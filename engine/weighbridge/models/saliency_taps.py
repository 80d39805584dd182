"""What lies between a network's inputs and outputs: named activations, and the order in which it uses its weights.

Read off the jaxpr that JAX traces, so it works for any function: an activation is named by
`jax.ad_checkpoint.checkpoint_name(x, "conv2")` in the function itself, or by flax from the modules' paths.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from weighbridge.errors import BadArgument

_INLINED = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2")
"""Calls whose bodies are read as if they stood in the caller; those with a gradient of their own are not."""
_RESHAPING = ("convert_element_type", "reshape", "transpose", "broadcast_in_dim", "squeeze", "copy", "copy_p")


def tapped(function: Callable[..., Any], layer: str) -> Callable[..., Any]:
    """`function` with an opening at a layer: `f(delta, *arguments) -> (outputs, activation + delta)`.

    The gradient in `delta` at zero is that in the activation; `delta=None` leaves it as it is, and a function of the
    activation replaces it. Raises `BadArgument` when it is traced, where no activation has the name, where several
    have it, or one inside a loop, a branch or a custom gradient.
    """

    def opened(delta: Any, *arguments: Any) -> Any:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        _check(closed.jaxpr, layer)
        found: list[Any] = []
        leaves = _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(arguments), layer, delta, found)
        return jax.tree.unflatten(jax.tree.structure(shapes), leaves), found[0]

    return opened


def first_uses(function: Callable[..., Any], leaves: Sequence[Any], *arguments: Any) -> list[int]:
    """Indices of the `leaves` in the order in which `function(leaves, *arguments)` uses them; unused ones last."""
    closed = jax.make_jaxpr(function)(list(leaves), *arguments)
    of = {variable: i for i, variable in enumerate(closed.jaxpr.invars[: len(leaves)])}
    order = dict.fromkeys(_uses(closed.jaxpr, of))
    return [*order, *(i for i in range(len(leaves)) if i not in order)]


def bytes_between(function: Callable[..., Any], *arguments: Any) -> int:
    """Bytes of all that a function computes, as if nothing were freed or fused; a loop's body counts once."""
    return _bytes(jax.make_jaxpr(function)(*arguments).jaxpr)


def _bytes(jaxpr: Any) -> int:
    own = sum(_size(out.aval) for eqn in jaxpr.eqns for out in eqn.outvars)
    return own + sum(_bytes(body) for eqn in jaxpr.eqns for body in _bodies(eqn))


def _size(aval: Any) -> int:
    return int(aval.size) * int(getattr(aval.dtype, "itemsize", 4)) if hasattr(aval, "size") else 0


def _bodies(eqn: Any) -> Iterator[Any]:
    """The jaxprs that an equation holds."""
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def _call(eqn: Any) -> tuple[Any, list[Any]] | None:
    """Body and constants of an equation that is a plain call."""
    if eqn.primitive.name not in _INLINED:
        return None
    found = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
    if isinstance(found, core.ClosedJaxpr):
        return found.jaxpr, list(found.consts)
    return (found, []) if isinstance(found, core.Jaxpr) else None


def _layers(jaxpr: Any, reachable: bool = True) -> Iterator[tuple[str, bool]]:
    """The names in a jaxpr, and whether they stand outside of loops, branches and custom gradients."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "name":
            yield eqn.params["name"], reachable
        for body in _bodies(eqn):
            yield from _layers(body, reachable and _call(eqn) is not None)


def _check(jaxpr: Any, layer: str) -> None:
    known = list(_layers(jaxpr))
    times = sum(name == layer for name, _ in known)
    if not times:
        there = ", ".join(dict.fromkeys(name for name, _ in known)) or "none: name one with checkpoint_name(x, name)"
        raise BadArgument(f"layer {layer!r} is not in the network; its layers are {there}")
    if times > 1:
        raise BadArgument(f"layer {layer!r} has {times} activations in one call; give each a name with checkpoint_name")
    if (layer, True) not in known:
        raise BadArgument(
            f"layer {layer!r} is inside a loop, a branch or a custom gradient; name an activation outside of it"
        )


def _evaluate(jaxpr: Any, consts: Any, inputs: Any, layer: str, delta: Any, found: list[Any]) -> list[Any]:
    """The outputs of a jaxpr, with `delta` added where the layer is; that activation is appended to `found`."""
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))
    for eqn in jaxpr.eqns:
        values = [_value(env, atom) for atom in eqn.invars]
        call = _call(eqn)
        if eqn.primitive.name == "name" and eqn.params["name"] == layer:
            outs = [values[0] if delta is None else delta(values[0]) if callable(delta) else values[0] + delta]
            found.append(outs[0])
        elif call is not None and any(name == layer for name, _ in _layers(call[0])):
            outs = _evaluate(call[0], call[1], values, layer, delta, found)
        else:
            outs = _bound(eqn, values)
        env.update(zip(eqn.outvars, outs, strict=True))
    return [_value(env, atom) for atom in jaxpr.outvars]


def _bound(eqn: Any, values: list[Any]) -> list[Any]:
    """What an equation gives for values, as `jax.core.eval_jaxpr` has it."""
    prepared = eqn.primitive.get_bind_params(eqn.params)
    functions, params = prepared if isinstance(prepared, tuple) else ((), prepared)  # a pair until JAX 0.9
    with eqn.ctx.manager:
        found = eqn.primitive.bind(*functions, *values, **params)
    return list(found) if eqn.primitive.multiple_results else [found]


def _value(env: dict[Any, Any], atom: Any) -> Any:
    return atom.val if isinstance(atom, core.Literal) else env[atom]


def _uses(jaxpr: Any, of: dict[Any, int]) -> Iterator[int]:
    """The leaves that equations compute with, in order; `of` says which variables are leaves and grows."""
    for eqn in jaxpr.eqns:
        held = [(i, of[v]) for i, v in enumerate(eqn.invars) if not isinstance(v, core.Literal) and v in of]
        call = _call(eqn)
        if held and eqn.primitive.name in _RESHAPING:
            of[eqn.outvars[0]] = held[0][1]
        elif held and call is not None:
            yield from _uses(call[0], {call[0].invars[i]: leaf for i, leaf in held})
        else:
            yield from (leaf for _, leaf in held)


def zeros_at(function: Callable[..., Any], layer: str, *arguments: Any) -> Any:
    """Zeros of the shape of a layer's activation; see `tapped` for what it raises."""
    _, activation = jax.eval_shape(tapped(function, layer), None, *arguments)
    return jnp.zeros(activation.shape, activation.dtype)
