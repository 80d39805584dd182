"""A model seen between two of its layers: what reaches the target when something is put in place of the source."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from weighbridge.errors import BadArgument
from weighbridge.models.algebras import Algebra, Signed
from weighbridge.models.layers import find, traced
from weighbridge.models.operands import Dependent, Operand, Upstream, at_reference
from weighbridge.models.rules import Keep, Rules, Site
from weighbridge.models.walk import Walk

Shape = tuple[int, ...]


class _Arrived(Exception):
    """The target has been computed; what comes after it is of no interest."""


@dataclass(frozen=True)
class Section:
    """A model between two layers, its rules and gates, and what it is fed: a reference, or a shape alone."""

    model: Callable[..., Any]
    rules: Rules
    keep: Keep
    fed: jax.Array | jax.ShapeDtypeStruct
    source: str
    target: str

    @property
    def has_reference(self) -> bool:
        """Whether activations are known, not only their shapes."""
        return not isinstance(self.fed, jax.ShapeDtypeStruct)

    def shapes(self) -> tuple[Shape, Shape]:
        """Of the source and of the target. Raises `BadArgument` where the model has no such layers."""
        source, target = find(self.model, self.fed, self.source, self.target, until=self.target)
        return source, target

    def linear(self, start: Any, *, algebra: Algebra | None = None, keep: Keep | None = None) -> Any:
        """The target, linearised, for a value of the source in the arithmetic of `algebra`.

        Signed values are affine: constants that bypass the source are placeholders without a reference.
        """
        arithmetic = algebra or Signed()
        walk = Walk(self.rules, self.keep if keep is None else keep, arithmetic, None, self.has_reference)

        def begin(operand: Operand) -> Operand:
            return Dependent(start, at_reference(operand))

        found = self._arrive(walk, begin)
        return found.value if isinstance(found, Dependent) else walk.algebra.constant(_array(found))

    def exact(self, change: jax.Array) -> jax.Array:
        """The target of the model itself, at what it is fed, with `change` added to the source."""
        found = self._arrive(Walk(self.rules, self.keep, Signed()), lambda operand: _array(operand) + change)
        return _array(found)

    def _arrive(self, walk: Walk, begin: Callable[[Operand], Operand]) -> Operand:
        def hook(name: str, operand: Operand, site: Site) -> Operand:
            if name == self.source:
                return begin(operand)
            if name == self.target:
                raise _Arrived(operand)
            return operand

        closed = traced(self.model, self.fed, until=self.target)
        try:
            replace(walk, hook=hook).run(closed, [self._start()])
        except _Arrived as end:
            found: Operand = end.args[0]
            return found
        raise BadArgument(f"layer '{self.target}' is not computed from the input")

    def _start(self) -> Operand:
        if isinstance(self.fed, jax.ShapeDtypeStruct):
            return Upstream(jnp.zeros(self.fed.shape, self.fed.dtype))
        return self.fed


def feed(shape: Shape | None, at: Any) -> jax.Array | jax.ShapeDtypeStruct:
    """What a model is fed, given the one or the other."""
    if (shape is None) == (at is None):
        raise BadArgument("give either at=, a reference input, or shape=, an input's, where no reference is needed")
    return jax.ShapeDtypeStruct(shape, jnp.float32) if at is None else jnp.asarray(at)  # type: ignore[no-untyped-call]


def _array(operand: Operand) -> jax.Array:
    return operand.value if isinstance(operand, Upstream | Dependent) else operand
