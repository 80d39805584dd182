"""How often each bit pattern occurs: the one pass from which all that does not depend on position follows exactly."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
from jax import lax

if TYPE_CHECKING:
    from jaxtyping import Array, Int32, UInt, UInt32


Method = Literal["scatter", "sort"]


@partial(jax.jit, static_argnames=("patterns", "method"))
def bit_histogram(
    codes: UInt[Array, " n"], valid: int | Int32[Array, ""], *, patterns: int, method: Method = "scatter"
) -> Int32[Array, " patterns"]:
    """Counts of the bit patterns 0 ... patterns - 1 among the first `valid` codes.

    Equivalent to `np.bincount(codes[:valid], minlength=patterns)`. Counts in int32, so at most 2^31 - 1 codes at a
    time; entries beyond `valid` are padding. Integers throughout: NaN, -0 and subnormals are patterns like any other.
    `method` says how: adding to the bins one by one, which suits CPUs, or sorting and looking the bins' edges up, which
    suits accelerators, where it is a radix sort and does not slow down when all codes are equal.
    """
    codes = codes.reshape(-1)
    counted = jnp.arange(codes.size) < valid
    if method == "scatter":
        return jnp.zeros(patterns, jnp.int32).at[codes.astype(jnp.int32)].add(counted.astype(jnp.int32), mode="drop")
    keys = lax.sort(jnp.where(counted, codes, 0))  # padding joins bin 0 and is taken off it
    ends = jnp.searchsorted(keys, jnp.arange(patterns, dtype=keys.dtype), side="right").astype(jnp.int32)
    return jnp.diff(ends, prepend=0).at[0].add(valid - codes.size)


@partial(jax.jit, static_argnames="method")
def high_half_histogram(
    words: UInt32[Array, " n"], valid: int | Int32[Array, ""], *, method: Method = "scatter"
) -> tuple[Int32[Array, " 65536"], UInt32[Array, ""], Int32[Array, " 5"]]:
    """A float32 tensor counted by the upper 16 bits of its words, with what those bits cannot tell.

    Returns the counts, the bitwise OR of all lower halves (0: every value is a bfloat16), and how many words are
    NaN, +Inf, -Inf, +0, -0, decided on all 32 bits. Bins are shared: bin 0x7F80 holds +Inf and some NaN, bin 0 holds
    +0 and the smallest subnormals. Integers throughout, counts in int32; `method` as in `bit_histogram`.
    """
    words = words.reshape(-1)
    counted = jnp.arange(words.size) < valid
    counts = bit_histogram((words >> 16).astype(jnp.uint16), valid, patterns=1 << 16, method=method)
    low = lax.reduce(jnp.where(counted, words & 0xFFFF, 0), jnp.uint32(0), lax.bitwise_or, (0,))
    magnitude = words & 0x7FFFFFFF
    neginf, negzero = jnp.uint32(0xFF800000), jnp.uint32(0x80000000)  # beyond int32, which a bare literal would be
    classes = [magnitude > 0x7F800000, words == 0x7F800000, words == neginf, words == 0, words == negzero]
    return counts, low, jnp.stack([jnp.sum(c & counted, dtype=jnp.int32) for c in classes])
