"""What linear operations do to what a walk carries: signed values, path weights, intervals of derivatives.

An operation is either additive (every input enters with weight one) or a product with a constant factor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn

from weighbridge.errors import NotLinear
from weighbridge.models.equations import bind
from weighbridge.models.operands import Dependent, Operand, Upstream

Factor = jax.Array | float
Weigh = Callable[[jax.Array], jax.Array]

PRODUCTS = {"mul": (0, 1), "dot_general": (0, 1), "conv_general_dilated": (0, 1), "div": (0,)}
"""Operations linear in one operand while the other is constant, and which operand that may be."""


class Algebra(Protocol):
    """Arithmetic of one kind of values; `map` takes a linear function with weights that are not negative."""

    def constant(self, array: jax.Array) -> Any: ...
    def linear(self, eqn: JaxprEqn, operands: Sequence[Operand]) -> list[Any]: ...
    def add(self, a: Any, b: Any) -> Any: ...
    def scale(self, value: Any, factor: Factor) -> Any: ...
    def map(self, function: Callable[[jax.Array], jax.Array], value: Any) -> Any: ...
    def gate(self, value: Any, keep: Factor, on: float, off: Factor, exact: bool) -> Any: ...


class Signed:
    """The linearised network itself: a value is one array, constants are added as they are."""

    def constant(self, array: jax.Array) -> jax.Array:
        return array

    def linear(self, eqn: JaxprEqn, operands: Sequence[Operand]) -> list[jax.Array]:
        return bind(eqn, [x.value if isinstance(x, Dependent | Upstream) else x for x in operands])

    def add(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return a + b

    def scale(self, value: jax.Array, factor: Factor) -> jax.Array:
        return value * jnp.asarray(factor, value.dtype)

    def map(self, function: Callable[[jax.Array], jax.Array], value: jax.Array) -> jax.Array:
        return function(value)

    def gate(self, value: jax.Array, keep: Factor, on: float, off: Factor, exact: bool) -> jax.Array:
        return self.scale(value, keep * on + (1 - keep) * off)


@dataclass(frozen=True)
class Weighed:
    """Path weights: every factor is replaced by `weigh(factor)`, a difference by a sum, an added constant by zero.

    With `jnp.abs` a value is the sum over paths of the product of absolute weights; with `jnp.ones_like` the number of
    paths, whatever the weights are.
    """

    weigh: Weigh

    def constant(self, array: jax.Array) -> jax.Array:
        return jnp.zeros_like(array)

    def linear(self, eqn: JaxprEqn, operands: Sequence[Operand]) -> list[jax.Array]:
        arrays = _homogeneous(eqn, operands, lambda x: x, self.weigh)
        if eqn.primitive.name == "neg":
            return [arrays[0]]
        if eqn.primitive.name == "sub":
            add: Any = lax.add_p
            return [add.bind(*arrays)]
        return bind(eqn, arrays)

    def add(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return a + b

    def scale(self, value: jax.Array, factor: Factor) -> jax.Array:
        return value * self.weigh(jnp.asarray(factor, value.dtype))

    def map(self, function: Callable[[jax.Array], jax.Array], value: jax.Array) -> jax.Array:
        return function(value)

    def gate(self, value: jax.Array, keep: Factor, on: float, off: Factor, exact: bool) -> jax.Array:
        return value * jnp.asarray(keep * abs(on) + (1 - keep) * jnp.abs(off), value.dtype)


@dataclass(frozen=True)
class Intervals:
    """Bounds of a derivative over all states of the gates, as (centre, radius), both rounded to the nearest.

    A linear map sends the centre through its weights and the radius through their magnitudes; a gate widens an interval
    to the hull of what either state gives. Source: Moore, Kearfott and Cloud 2009, doi:10.1137/1.9780898717716.
    """

    def constant(self, array: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.zeros_like(array), jnp.zeros_like(array)

    def linear(self, eqn: JaxprEqn, operands: Sequence[Operand]) -> list[tuple[jax.Array, jax.Array]]:
        centres = bind(eqn, _homogeneous(eqn, operands, lambda pair: pair[0], lambda factor: factor))
        radii = Weighed(jnp.abs).linear(eqn, [_radius(x) for x in operands])
        return list(zip(centres, radii, strict=True))

    def add(self, a: Any, b: Any) -> Any:
        return a[0] + b[0], a[1] + b[1]

    def scale(self, value: Any, factor: Factor) -> Any:
        weight = jnp.asarray(factor, value[0].dtype)
        return value[0] * weight, value[1] * jnp.abs(weight)

    def map(self, function: Callable[[jax.Array], jax.Array], value: Any) -> Any:
        raise NotLinear("max pooling chooses among its inputs, which the bound does not cover; ask below the pooling")

    def gate(self, value: Any, keep: Factor, on: float, off: Factor, exact: bool) -> Any:
        if not exact:
            raise NotLinear("a gate other than ReLU's has slopes beyond its two states, so that no bound is known")
        ends = [(value[0] + sign * value[1]) * slope for sign in (-1, 1) for slope in (on, off)]
        low, high = (jnp.stack(ends).min(axis=0), jnp.stack(ends).max(axis=0))
        return (high + low) / 2, (high - low) / 2


def _radius(operand: Operand) -> Operand:
    return Dependent(operand.value[1], None) if isinstance(operand, Dependent) else operand


def _homogeneous(
    eqn: JaxprEqn, operands: Sequence[Operand], value_of: Callable[[Any], jax.Array], weigh: Weigh
) -> list[jax.Array]:
    """Arrays for an operation without its added constants: zeros for those, `weigh` of a product's other factor."""

    def array(x: Operand) -> jax.Array:
        if isinstance(x, Dependent):
            return value_of(x.value)
        if isinstance(x, Upstream):
            return jnp.zeros_like(x.value)
        if eqn.primitive.name in PRODUCTS:
            return weigh(x)
        return jnp.zeros_like(x) if jnp.issubdtype(jnp.result_type(x), jnp.inexact) else x

    return [array(x) for x in operands]
