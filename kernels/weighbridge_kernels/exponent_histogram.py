"""How often each sign and binary exponent occurs among float32 entries, with what those nine bits cannot tell."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

from weighbridge_kernels.bit_histogram import bit_histogram

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int32, UInt32

BINS = 512
"""Bin 256 s + e holds sign bit s and exponent field e: magnitudes in [2^(e-127), 2^(e-126)); 0 zeros and subnormals,
255 infinities and NaN."""


@jax.jit
def exponent_histogram(x: Float[Array, " *shape"]) -> Int32[Array, " 512"]:
    """Counts of the upper nine bits of the entries' float32 words: sign and exponent.

    Equivalent to `np.bincount(x.astype(np.float32).view(np.uint32) >> 23, minlength=512)`. Integers throughout, so that
    zeros, subnormals, NaN and infinities count as they are, each in the bin of its bits; int32, so fewer than 2^31
    entries. float64 is rounded to float32 first. On a CPU entries are added to their bins one by one, elsewhere sorted.
    """
    codes = words(x).reshape(-1) >> 23
    if not codes.size:
        return jnp.zeros(BINS, jnp.int32)
    counts: Array = lax.platform_dependent(
        codes.astype(jnp.uint16),
        cpu=partial(bit_histogram, valid=codes.size, patterns=BINS, method="scatter"),
        default=partial(bit_histogram, valid=codes.size, patterns=BINS, method="sort"),
    )
    return counts


@jax.jit
def classes(x: Float[Array, " *shape"]) -> Int32[Array, " 3"]:
    """How many entries are zero (+0 or -0), NaN and infinite, decided on the bits of their float32 words."""
    magnitude = words(x) & 0x7FFFFFFF
    held = [magnitude == 0, magnitude > 0x7F800000, magnitude == 0x7F800000]
    return jnp.stack([jnp.sum(of, dtype=jnp.int32) for of in held])


def words(x: Float[Array, " *shape"]) -> UInt32[Array, " *shape"]:
    """The float32 words of the entries."""
    return lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
