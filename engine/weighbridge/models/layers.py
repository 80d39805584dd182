"""Layers by name: values that a function marks with `tap`, and the outputs of flax modules, marked by themselves."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
from jax import ad_checkpoint
from jax.extend import core
from jax.extend.core import Jaxpr, jaxprs_in_params

from weighbridge.errors import BadArgument
from weighbridge.models.equations import aval_of

INPUT, OUTPUT = "input", "output"
"""Names of what a function takes and gives."""
_LOOPS = ("scan", "while", "cond")
_mark: Callable[[Any, str], Any] = ad_checkpoint.checkpoint_name
_trace: Callable[[], Any] = partial(core.get_opaque_trace_state, convention="flax")


def tap(name: str, value: Any) -> Any:
    """The same value, marked as the layer `name`; with more than one array in it, as `name.0`, `name.1`, ...

    It costs nothing: the marker is that of `jax.ad_checkpoint.checkpoint_name`, which serves as well.
    """
    leaves, tree = jax.tree.flatten(value)
    names = [name] if len(leaves) == 1 else [f"{name}.{i}" for i in range(len(leaves))]
    return jax.tree.unflatten(tree, [_mark(x, n) for x, n in zip(leaves, names, strict=True)])


def layers(model: Callable[..., Any], inputs: Any, *, until: str | None = None) -> dict[str, tuple[int, ...]]:
    """Shape of every named layer of a model, in the order they are computed, for inputs of some shape.

    `model` is a function, a flax nnx module, or `functools.partial(module.apply, variables)` of a linen one; modules
    give their outputs the names of their paths, `block1.conv2`, and a second call of one module `block1.conv2:1`.
    `inputs` is an array, or a `jax.ShapeDtypeStruct`. What stands in a scan or conditional has no single value and is
    left out. With `until`, those up to that layer, which may be all that fits such inputs.
    """
    traced = jax.make_jaxpr(named(model, until=until))(inputs)
    return {name: shape for name, shape, inside in _found(traced.jaxpr) if not inside}


def find(model: Callable[..., Any], inputs: Any, *wanted: str, until: str) -> list[tuple[int, ...]]:
    """Shapes of some layers; raises `BadArgument` for one that is not there, not alone, or inside of a loop."""
    found = [*_found(jax.make_jaxpr(named(model, until=until))(inputs).jaxpr)]
    count, shapes = Counter(name for name, _, _ in found), {name: shape for name, shape, _ in found}
    looped = {name for name, _, inside in found if inside}
    for name in wanted:
        if name not in shapes:
            raise BadArgument(f"no layer '{name}' before the target; there are {_listed(shapes)}")
        if name in looped:
            raise BadArgument(f"layer '{name}' stands inside of a scan or conditional; unroll it to look at one turn")
        if count[name] > 1:
            raise BadArgument(f"{count[name]} layers are called '{name}'; give each a name of its own")
    return [shapes[name] for name in wanted]


def named(model: Callable[..., Any], *, until: str | None = None) -> Callable[..., Any]:
    """A model as a function whose layers are marked.

    Where nothing but Python stands between, it ends at the layer `until`, so that the layers after need not fit.
    """

    def function(x: Any, *rest: Any) -> Any:
        mark = _Marks(until)
        try:
            return mark(OUTPUT, _marked(model, mark)(tap(INPUT, x), *rest))
        except _Reached as end:
            return end.args[0]

    return function


def traced(model: Callable[..., Any], inputs: Any, *, until: str) -> Any:
    """The jaxpr of a model with its layers marked, up to one of them.

    Products for which the model leaves the precision open are of the highest, because weights are read off them.
    """
    with jax.default_matmul_precision("highest"):
        return jax.make_jaxpr(named(model, until=until))(inputs)


class _Reached(Exception):
    """The layer that was wanted has been computed."""


class _Marks:
    """Marks layers with names of their own, and ends the trace at the wanted one."""

    def __init__(self, until: str | None) -> None:
        self.until, self.calls, self.trace = until, Counter[str](), _trace()

    def __call__(self, name: str, value: Any) -> Any:
        again, self.calls[name] = self.calls[name], self.calls[name] + 1
        unique = f"{name}:{again}" if again else name
        marked = tap(unique, value)
        if unique == self.until and _trace() == self.trace:
            raise _Reached(marked)
        return marked


def _marked(model: Callable[..., Any], mark: _Marks) -> Callable[..., Any]:
    nnx, linen = sys.modules.get("flax.nnx"), sys.modules.get("flax.linen")
    if nnx is not None and isinstance(model, nnx.Module):
        return _marked_nnx(nnx, model, mark)
    return _marked_linen(linen, model, mark) if linen is not None else model


def _marked_linen(linen: Any, function: Callable[..., Any], mark: _Marks) -> Callable[..., Any]:
    def interceptor(call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
        found = call(*arguments, **keywords)
        layer = context.method_name == "__call__" and context.module.path
        return mark(".".join(context.module.path), found) if layer else found

    def intercepted(*arguments: Any) -> Any:
        with linen.intercept_methods(interceptor):
            return function(*arguments)

    return intercepted


def _marked_nnx(nnx: Any, model: Any, mark: _Marks) -> Callable[..., Any]:
    """A copy whose submodules are of classes made for it, because Python looks `__call__` up in the class."""
    copy = nnx.clone(model)
    for path, module in nnx.iter_modules(copy):
        if path and callable(module):
            object.__setattr__(module, "__class__", _marking(type(module), ".".join(map(str, path)), mark))
    called: Callable[..., Any] = copy
    return called


def _marking(kind: type, name: str, mark: _Marks) -> type:
    def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
        return mark(name, kind.__call__(self, *arguments, **keywords))

    return type(kind)(kind.__name__, (kind,), {"__call__": call})


def _found(jaxpr: Jaxpr, inside: bool = False) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """Name, shape, and whether it stands in a loop, of every marked value."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "name":
            yield eqn.params["name"], aval_of(eqn.outvars[0]).shape, inside
        for inner in jaxprs_in_params(eqn.params):
            yield from _found(getattr(inner, "jaxpr", inner), inside or eqn.primitive.name in _LOOPS)


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(f"'{name}'" for name in [*names][:20]) + (", ..." if len(names) > 20 else "")
