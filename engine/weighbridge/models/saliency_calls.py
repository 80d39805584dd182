"""How a network is called: flax nnx modules, flax linen modules and plain functions as one pure function.

Every kind becomes `apply(params, fixed, inputs, *context)`, hashable, so that a compilation serves all calls of the
same network, also with other parameters. Only `params` are weights; running statistics and random states are `fixed`.
"""

import sys
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
from jax.ad_checkpoint import checkpoint_name

from weighbridge.errors import BadArgument

Apply = Callable[..., Any]


class Network(NamedTuple):
    """A pure function `apply(params, fixed, inputs, *context)` and its arrays; `traced` also names layers' outputs."""

    apply: Apply
    traced: Apply
    params: Any
    fixed: Any

    def with_params(self, params: Any) -> "Network":
        return self._replace(params=params)


def network(function: Any, params: Any = None) -> Network:
    """The network of what a caller gives.

    - A flax nnx module, called as it is (put it into evaluation mode first); `params`, if given, replace its `Param`s.
    - A bound linen module (`module.bind(variables)`); `params`, if given, replace its collection "params".
    - A pair `(features, head)` of functions: `head(features(x))`, with the layer "features" between them.
    - Any function of `inputs`; with `params` a function of `(params, inputs)`, such as linen's `module.apply`.

    Raises `BadArgument` for anything else.
    """
    nnx, linen = sys.modules.get("flax.nnx"), sys.modules.get("flax.linen")
    if nnx is not None and isinstance(function, nnx.Module):
        return _nnx(nnx, function, params)
    if linen is not None and isinstance(function, linen.Module):
        return _linen(function, params)
    if isinstance(function, tuple) and len(function) == 2 and all(map(callable, function)):
        pair = _PairCall(_hashable(function[0]), _hashable(function[1]), params is not None)
        return Network(pair, pair, params, ())
    if not callable(function):
        raise BadArgument(f"function is a {type(function).__name__}; expected a flax module or a function of inputs")
    call = _PlainCall(_hashable(function), params is not None)
    return Network(call, call, params, ())


def names(params: Any) -> list[str]:
    """Dotted names of the tensors of a pytree, in its order: `conv1.kernel`."""
    paths, _ = jax.tree_util.tree_flatten_with_path(params)
    return [_name(path) for path, _ in paths]


def layer_of(name: str) -> str:
    """The layer that a tensor belongs to: its name without the last part; a tensor at the top is a layer by itself."""
    return name.rpartition(".")[0] or name


def _name(path: tuple[Any, ...]) -> str:
    keys = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path]
    wrapped = len(keys) > 1 and isinstance(path[-1], jax.tree_util.GetAttrKey) and keys[-1] == "value"
    return ".".join(keys[:-1] if wrapped else keys)  # an nnx variable holds its array in an attribute


class _Identity:
    """A function that is no dictionary key, as one that is: equal to itself alone."""

    def __init__(self, function: Apply) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


def _hashable(function: Apply) -> Apply:
    try:
        hash(function)
    except TypeError:
        return _Identity(function)
    return function


@dataclass(frozen=True)
class _PlainCall:
    function: Apply
    with_params: bool

    def __call__(self, params: Any, fixed: Any, inputs: Any, *context: Any) -> Any:
        return self.function(*((params,) if self.with_params else ()), inputs, *context)


@dataclass(frozen=True)
class _PairCall:
    features: Apply
    head: Apply
    with_params: bool

    def __call__(self, params: Any, fixed: Any, inputs: Any, *context: Any) -> Any:
        first = (params,) if self.with_params else ()
        return self.head(*first, _mark(self.features(*first, inputs, *context), "features"))


@dataclass(frozen=True)
class _NnxCall:
    graph: Hashable
    layers: bool = False

    def __call__(self, params: Any, fixed: Any, inputs: Any, *context: Any) -> Any:
        nnx = sys.modules["flax.nnx"]
        module = nnx.merge(self.graph, params, fixed)
        if self.layers:
            for path, part in nnx.iter_modules(module):
                if path and callable(part):
                    kind: Any = type(part)
                    part.__class__ = _named(kind, ".".join(map(str, path)))
        return module(inputs, *context)


def _nnx(nnx: Any, module: Any, params: Any) -> Network:
    graph, own, fixed = nnx.split(module, nnx.Param, ...)
    call = _NnxCall(graph)
    return Network(call, replace(call, layers=True), own if params is None else params, fixed)


@cache
def _named(kind: Any, name: str) -> Any:
    """A kind of nnx module whose output bears a name."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _mark(kind.__call__(self, *args, **kwargs), name)

    return type(kind)(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


@dataclass(frozen=True)
class _LinenCall:
    module: Any
    layers: bool = False

    def __call__(self, params: Any, fixed: Any, inputs: Any, *context: Any) -> Any:
        variables = {**fixed, "params": params}
        if not self.layers:
            return self.module.apply(variables, inputs, *context)
        with sys.modules["flax.linen"].intercept_methods(_name_outputs):
            return self.module.apply(variables, inputs, *context)


def _linen(module: Any, params: Any) -> Network:
    if module.scope is None:
        raise BadArgument(f"{type(module).__name__} has no variables; give module.bind(variables)")
    unbound, variables = module.unbind()
    fixed = {name: values for name, values in variables.items() if name != "params"}
    call = _LinenCall(unbound if _hashable(unbound) is unbound else _Unhashable(unbound))
    return Network(call, replace(call, layers=True), variables.get("params", {}) if params is None else params, fixed)


class _Unhashable:
    """A linen module with a field that is no dictionary key."""

    def __init__(self, module: Any) -> None:
        self.apply = module.apply


def _name_outputs(following: Apply, args: Any, kwargs: Any, context: Any) -> Any:
    found = following(*args, **kwargs)
    path = context.module.path
    return _mark(found, ".".join(path)) if path and context.method_name == "__call__" else found


def _mark(outputs: Any, name: str) -> Any:
    return jax.tree.map(partial(_marked, name), outputs)


def _marked(name: str, leaf: Any) -> Any:
    return checkpoint_name(leaf, name) if isinstance(leaf, jax.Array) else leaf  # type: ignore[no-untyped-call]


def abstract(shape: tuple[int, ...], dtype: Any) -> Any:
    """An array's shape and dtype, to trace with."""
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]
