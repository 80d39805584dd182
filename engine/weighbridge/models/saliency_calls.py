"""How a network is called: flax nnx modules, flax linen modules and plain functions as one pure function.

Every kind becomes `apply(params, fixed, inputs, *context)`. Only `params` are weights; running statistics and random
states are `fixed`. What was compiled is kept with the network that it is of, since a function may close over what
changes.
"""

import sys
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
from jax.ad_checkpoint import checkpoint_name

from weighbridge.errors import BadArgument

Apply = Callable[..., Any]


class Network(NamedTuple):
    """A pure function `apply(params, fixed, inputs, *context)` and its arrays; `traced` also names layers' outputs.

    Compiled programs are kept in `compiled`, for calls with other inputs or parameters of the same shapes.
    """

    apply: Apply
    traced: Apply
    params: Any
    fixed: Any
    compiled: dict[Any, Any]

    def with_params(self, params: Any) -> "Network":
        """The same network with other weights; what is compiled serves both."""
        return self._replace(params=params)


def network(function: Any, params: Any = None) -> Network:
    """The network of what a caller gives.

    - A flax nnx module, called as it is (put it into evaluation mode first); `params`, if given, replace its `Param`s.
    - A bound linen module (`module.bind(variables)`); `params`, if given, replace its collection "params".
    - A pair `(features, head)` of functions: `head(features(x))`, with the layer "features" between them.
    - A `Network`, for calls that share what they compile; `params`, if given, replace its own.
    - Any function of `inputs`; with `params` a function of `(params, inputs)`, such as linen's `module.apply`.

    Raises `BadArgument` for anything else.
    """
    if isinstance(function, Network):
        return function if params is None else function.with_params(params)
    nnx, linen = sys.modules.get("flax.nnx"), sys.modules.get("flax.linen")
    if nnx is not None and isinstance(function, nnx.Module):
        return _nnx(nnx, function, params)
    if linen is not None and isinstance(function, linen.Module):
        return _linen(function, params)
    if isinstance(function, tuple) and len(function) == 2 and all(map(callable, function)):
        pair = PairCall(*function, params is not None)
        return Network(pair, pair, params, (), {})
    if not callable(function):
        raise BadArgument(f"function is a {type(function).__name__}; expected a flax module or a function of inputs")
    call = _PlainCall(function, params is not None)
    return Network(call, call, params, (), {})


def names(params: Any) -> list[str]:
    """Dotted names of the tensors of a pytree, in its order: `conv1.kernel`.

    Raises `BadArgument` where two tensors have one name, as in `{"a": {"b": x}, "a.b": y}`.
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(params)
    found = [_name(path) for path, _ in paths]
    for name, times in Counter(found).items():
        if times > 1:
            raise BadArgument(f"params: {times} leaves are called {name!r}; rename all but one")
    return found


def _name(path: tuple[Any, ...]) -> str:
    keys = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path]
    wrapped = len(keys) > 1 and isinstance(path[-1], jax.tree_util.GetAttrKey) and keys[-1] == "value"
    return ".".join(keys[:-1] if wrapped else keys)  # an nnx variable holds its array in an attribute


@dataclass(frozen=True, eq=False)
class _PlainCall:
    function: Apply
    with_params: bool

    def __call__(self, params: Any, fixed: Any, inputs: Any, *context: Any) -> Any:
        return self.function(*((params,) if self.with_params else ()), inputs, *context)


@dataclass(frozen=True, eq=False)
class PairCall:
    features: Apply
    head: Apply
    with_params: bool

    def __call__(self, params: Any, fixed: Any, inputs: Any, *context: Any) -> Any:
        first = (params,) if self.with_params else ()
        return self.head(*first, _mark(self.features(*first, inputs, *context), "features"))


@dataclass(frozen=True, eq=False)
class _NnxCall:
    graph: Hashable
    layers: bool = False

    def __call__(self, params: Any, fixed: Any, inputs: Any, *context: Any) -> Any:
        nnx = sys.modules["flax.nnx"]
        own = jax.tree.map(lambda leaf: leaf, (params, fixed))  # variables of this trace, which nnx.remat may change
        module = nnx.merge(self.graph, *own)
        if self.layers:
            for path, part in nnx.iter_modules(module):
                if path and callable(part):
                    kind: Any = type(part)
                    part.__class__ = _named(kind, ".".join(map(str, path)))
        return module(inputs, *context)


def _nnx(nnx: Any, module: Any, params: Any) -> Network:
    graph, own, fixed = nnx.split(module, nnx.Param, ...)
    call = _NnxCall(graph)
    return Network(call, replace(call, layers=True), own if params is None else params, fixed, {})


@cache
def _named(kind: Any, name: str) -> Any:
    """A kind of nnx module whose output bears a name."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _mark(kind.__call__(self, *args, **kwargs), name)

    return type(kind)(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


@dataclass(frozen=True, eq=False)
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
    weights = variables.get("params", {}) if params is None else params
    call = _LinenCall(unbound)
    return Network(call, replace(call, layers=True), weights, fixed, {})


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
