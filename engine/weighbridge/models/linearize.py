"""A function made linear: every non-linear operation replaced by a linear one from a table of rules.

Source: Voss et al. 2021, "Visualizing Weights", Distill, doi:10.23915/distill.00024.007, "Expanded Weights".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from weighbridge.errors import BadArgument
from weighbridge.models.algebras import Algebra, Signed
from weighbridge.models.operands import Dependent, Operand, at_reference
from weighbridge.models.rules import RULES, Keep, Rules
from weighbridge.models.walk import Hook, Walk


def linearize(
    function: Callable[..., Any], *, rules: Rules = RULES, keep: Keep = 1.0, at: Any = None
) -> "Linearization":
    """The linear function that stands for a network whose gates all let through the share `keep` of their input.

    `function(x, *rest)` is any function that JAX can trace, a flax nnx module in evaluation mode, or
    `functools.partial(model.apply, variables)` of a linen one; `x`, an array or a tree, is what it is made linear in,
    `rest` is held. Equivalent to writing the function again with every gate (ReLU, GELU, SiLU, ...: a table, and
    whatever behaves like one) as p · x, max pooling as average pooling, and all else that is not linear frozen at the
    reference input `at`, of the same shapes as x: scales of norms, attention patterns, of products of two activations
    one factor. `keep` is p: a number, an array that broadcasts against every gate's input, or a function of the gate's
    `Site`. Without such operations no reference is needed. In the dtypes of the function; NaN spreads as it does there.

    Calls raise `NotLinear` for an operation with neither a rule nor a reference, and for a `while` loop; `BadArgument`
    where `at` has other shapes than x, or x integers.
    """
    return Linearization(function, rules, keep, at)


@dataclass(frozen=True)
class Linearization:
    """A function made linear; see `linearize`. `affine` has its biases, `linear` only its weights."""

    function: Callable[..., Any]
    rules: Rules
    keep: Keep
    at: Any

    def affine(self, x: Any, *rest: Any) -> Any:
        """The output for x, biases included."""
        return followed(self.function, self.walk(), x, self.at, *rest)

    __call__ = affine

    def linear(self, x: Any, *rest: Any) -> Any:
        """The output for x without biases: `affine(x) - affine(0)`, taken as a derivative, so without cancellation."""
        zero = jax.tree.map(jnp.zeros_like, x)
        return jax.jvp(lambda y: self.affine(y, *rest), (zero,), (jax.tree.map(jnp.asarray, x),))[1]

    def walk(self, algebra: Algebra | None = None, hook: Hook | None = None) -> Walk:
        """How the function is carried out, in some arithmetic and seen by some hook."""
        return Walk(self.rules, self.keep, algebra or Signed(), hook, self.at is not None)


def followed(function: Callable[..., Any], walk: Walk, x: Any, at: Any, *rest: Any) -> Any:
    """A function carried out by a walk that follows its first argument."""
    _check(x, at)
    closed, shape = jax.make_jaxpr(function, return_shape=True)(x, *rest)
    leaves = jax.tree.leaves(x)
    references = (
        [None] * len(leaves)
        if at is None
        else [jnp.asarray(r, v.dtype) for r, v in zip(jax.tree.leaves(at), map(jnp.asarray, leaves), strict=True)]
    )
    followed = [Dependent(jnp.asarray(v), r) for v, r in zip(leaves, references, strict=True)]
    outs = walk.run(closed, [*followed, *map(jnp.asarray, jax.tree.leaves(rest))])
    return jax.tree.unflatten(jax.tree.structure(shape), [plain(walk, y) for y in outs])


def plain(walk: Walk, operand: Operand) -> Any:
    """An operand's value in the walk's arithmetic, or the constant it is."""
    if isinstance(operand, Dependent):
        return operand.value
    return walk.algebra.constant(jnp.asarray(at_reference(operand)))


def _check(x: Any, at: Any) -> None:
    shapes = [(jnp.shape(v), jnp.result_type(v)) for v in jax.tree.leaves(x)]
    if not all(jnp.issubdtype(jnp.result_type(v), jnp.inexact) for v in jax.tree.leaves(x)):
        raise BadArgument("linearize: the input holds integers, in which nothing is linear; begin after the embedding")
    found = [(jnp.shape(v), jnp.result_type(v)) for v in jax.tree.leaves(at)]
    if at is not None and found != shapes:
        raise BadArgument(f"linearize: the reference is {_said(found)}, the input {_said(shapes)}; make them alike")


def _said(arrays: list[tuple[tuple[int, ...], Any]]) -> str:
    return ", ".join(f"{dtype}{list(shape)}" for shape, dtype in arrays)
