"""Exact extremes and central moments of a float32 or float64 span, about the span's own mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

from weighbridge_kernels.states import Moments

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Float64, Num


def central_moments(x: Float[Array, " n"]) -> Moments:
    """Count, extremes, L1 and central moments of the finite entries; NaN and ±Inf are passed over.

    Equivalent to `y = x[isfinite(x)].astype(f64); d = y - y.mean(); (y.size, y.min(), y.max(), abs(y).sum(), y.mean(),
    (d ** 2).sum(), (d ** 3).sum(), (d ** 4).sum())`. Accumulates in float64 (in a local `enable_x64`); no finite entry
    gives `Moments.empty()`. A float64 whose powers overflow gives ±inf or NaN there; a subnormal float64 may be
    flushed to zero on devices that do so.
    """
    with jax.enable_x64(True):
        count, *rest = (float(value) for value in moments_of(x))
    return Moments(int(count), *rest) if count else Moments.empty()


@jax.jit
def moments_of(x: Float[Array, " n"]) -> tuple[Float[Array, ""], ...]:
    """The numbers of `central_moments` as the device has them, called under `enable_x64`; NaN for no finite entry."""
    finite = jnp.isfinite(x)
    y = jnp.where(finite, widened(x), 0)
    n = finite.sum(dtype=jnp.float64)
    mean = y.sum() / n
    d = jnp.where(finite, y - mean, 0)
    d2 = d * d
    return (
        n,
        jnp.min(y, initial=jnp.inf, where=finite),
        jnp.max(y, initial=-jnp.inf, where=finite),
        jnp.abs(y).sum(),
        mean + d.sum() / n,
        d2.sum() - d.sum() ** 2 / n,
        (d2 * d).sum(),
        (d2 * d2).sum(),
    )


def widened(x: Num[Array, "*shape"]) -> Float64[Array, "*shape"]:
    """In float64. Subnormals of float32, which devices may flush, by their bits: multiples of 2^-149."""
    if x.dtype != jnp.float32:
        return x.astype(jnp.float64)
    words = lax.bitcast_convert_type(x, jnp.uint32)
    magnitude = words & 0x7FFFFFFF
    subnormal = magnitude.astype(jnp.float64) * jnp.where(words == magnitude, 2.0**-149, -(2.0**-149))
    return jnp.where(magnitude < 0x00800000, subnormal, x.astype(jnp.float64))
