"""What is recorded of one tensor at one step: a handful of figures and a histogram, on the device."""

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from weighbridge_kernels.exponent_histogram import classes, exponent_histogram, words

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int32

NORMS = ("weight_norm", "gradient_norm", "update_norm", "gradient_cosine")
COUNTS = (
    *("gradient_zeros", "gradient_nan", "gradient_inf"),
    *("update_zeros", "update_nan", "update_inf"),
    *("weight_zeros", "weight_nan", "weight_inf"),
)


class Figures(NamedTuple):
    """Of one tensor: `norms` in the order of `NORMS`, `counts` in that of `COUNTS`, the gradient's `histogram`."""

    norms: "Float[Array, ' 4']"
    counts: "Int32[Array, ' 9']"
    histogram: "Int32[Array, ' 512']"


class Scaled(NamedTuple):
    """Finite entries times a power of two that brings the greatest magnitude into [1, 2); the rest are 0."""

    values: "Float[Array, ' n']"
    squares: "Float[Array, '']"
    scale: "Float[Array, '']"

    @property
    def norm(self) -> "Float[Array, '']":
        """Euclidean norm of the finite entries."""
        return jnp.sqrt(self.squares) / self.scale


def scaled(x: "Float[Array, ' *shape']") -> Scaled:
    """Entries as float32 whose squares neither overflow nor vanish; of subnormals, which devices may flush, 0."""
    bits = words(x).reshape(-1)
    magnitude = bits & 0x7FFFFFFF
    finite = magnitude < 0x7F800000
    exponent = jnp.max(jnp.where(finite, magnitude, 0), initial=0) >> 23
    scale = lax.bitcast_convert_type(jnp.clip(254 - exponent, 1, 253) << 23, jnp.float32)
    values = jnp.where(finite, lax.bitcast_convert_type(bits, jnp.float32), 0) * scale
    return Scaled(values, dot(values, values), scale)


def dot(a: "Float[Array, ' n']", b: "Float[Array, ' n']") -> "Float[Array, '']":
    """Inner product in float32, whatever the device's default for products is."""
    return jnp.dot(a, b, precision=lax.Precision.HIGHEST)


def figures(
    weight: "Float[Array, ' *shape'] | None",
    gradient: "Float[Array, ' *shape']",
    update: "Float[Array, ' *shape']",
    previous: "Float[Array, ' n'] | None",
) -> tuple[Figures, "Float[Array, ' n']"]:
    """The figures of a tensor, and its gradient as the next record needs it.

    Norms and the cosine between this and the previous recorded gradient are of the finite entries, others taken as 0;
    in float32, relative error some sqrt(n) 2^-24. The cosine is NaN at the first record, after a gradient of norm 0
    and without `previous`; the weight's norm without weights.
    """
    g, u = scaled(gradient), scaled(update)
    cosine = jnp.float32(jnp.nan)
    if previous is not None:
        before = previous.astype(jnp.float32)
        cosine = dot(g.values, before) / jnp.sqrt(g.squares * dot(before, before))
    absent = jnp.full(3, -1, jnp.int32)
    return Figures(
        jnp.stack([jnp.float32(jnp.nan) if weight is None else scaled(weight).norm, g.norm, u.norm, cosine]),
        jnp.concatenate([classes(gradient), classes(update), absent if weight is None else classes(weight)]),
        exponent_histogram(gradient),
    ), g.values


def stacked(found: list[Figures]) -> Figures:
    """The figures of several tensors, one a row."""
    rows: Figures = jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)
    return rows
