"""Exact extremes and central moments of a float32 or float64 span, about the span's own mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from weighbridge_kernels.states import Moments

if TYPE_CHECKING:
    from jaxtyping import Array, Float


def central_moments(x: Float[Array, " n"]) -> Moments:
    """Count, extremes, L1 and central moments of the finite entries; NaN and ±Inf are passed over.

    Equivalent to `y = x[isfinite(x)].astype(f64); d = y - y.mean(); (y.size, y.min(), y.max(), abs(y).sum(), y.mean(),
    (d ** 2).sum(), (d ** 3).sum(), (d ** 4).sum())`. Accumulates in float64 (in a local `enable_x64`); no finite entry
    gives `Moments.empty()`. A float64 whose powers overflow gives ±inf or NaN there.
    """
    with jax.enable_x64(True):
        count, *rest = (float(value) for value in _moments(x))
    return Moments(int(count), *rest) if count else Moments.empty()


@jax.jit
def _moments(x: Float[Array, " n"]) -> tuple[Float[Array, ""], ...]:
    finite = jnp.isfinite(x)
    y = jnp.where(finite, x, 0).astype(jnp.float64)
    n = finite.sum(dtype=jnp.float64)
    mean = y.sum() / n
    d = jnp.where(finite, y - mean, 0)
    d2 = d * d
    return (
        n,
        jnp.min(x, initial=jnp.inf, where=finite).astype(jnp.float64),
        jnp.max(x, initial=-jnp.inf, where=finite).astype(jnp.float64),
        jnp.abs(y).sum(),
        mean + d.sum() / n,
        d2.sum() - d.sum() ** 2 / n,
        (d2 * d).sum(),
        (d2 * d2).sum(),
    )
