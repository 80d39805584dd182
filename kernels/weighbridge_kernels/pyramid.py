"""The base of a pyramid over a matrix: what every block of entries comes to, from which all levels follow."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from weighbridge_kernels.blocks import BASE, LARGE, SHIFT, SMALL, Blocks
from weighbridge_kernels.central_moments import widened

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Num, UInt32


def block_reductions(
    x: Num[Array, "rows cols"], table: np.ndarray | None = None, *, block: tuple[int, int] = (BASE, BASE)
) -> Blocks:
    """Reductions of the blocks of a matrix, of which it may be a part that begins at a block.

    With `table`, entries are bit patterns and stand for `table[x]`. Equivalent, block by block, to `y = x[isfinite(x)]
    .astype(f64); (y.min(), y.max(), y.mean(), sqrt((y ** 2).mean()), (y == 0).sum(), isnan(x).sum(), isinf(x).sum())`.
    Sums are in float64 (under a local `enable_x64`); extremes and counts are exact, by the bits of float32, so that no
    device's flushing of subnormals shows; a subnormal float64 may be flushed to zero on devices that do so. A block
    without a finite entry has 0 for the first four.
    """
    shape = np.array(x.shape, np.int32)
    by_words = table is not None or x.dtype == np.float32
    padding = [(0, -extent % side) for extent, side in zip(x.shape, block, strict=True)]
    with jax.enable_x64(True):
        padded = jnp.pad(x if table is not None or not by_words else x.view(np.uint32), padding)
        words = None if table is None else table.view(np.uint32)
        least, greatest, mean, rms, *counts = jax.device_get(
            _reduced(padded, shape, words, block=block, by_words=by_words)
        )
    if by_words:
        least, greatest = (_turned(keys).view(np.float32) for keys in (least, greatest))
    mean_dtype = np.float64 if x.dtype == np.float64 else np.float32
    return Blocks(least, greatest, mean.astype(mean_dtype), rms.astype(mean_dtype), *counts)


def _turned(keys: Any) -> Any:
    """The words of float32, as int32, to integers in the floats' order, and back."""
    return keys ^ ((keys >> 31) & 0x7FFFFFFF)


@partial(jax.jit, static_argnames=("block", "by_words"))
def _reduced(
    x: Num[Array, "rows cols"],
    shape: Array,
    table: UInt32[Array, " patterns"] | None,
    *,
    block: tuple[int, int],
    by_words: bool,
) -> tuple[Array, ...]:
    """`by_words`: entries, or what the table gives for them, are the words of float32.

    Words, not floats, come in: a float that is only looked at by its bits may be flushed on the way.
    """
    inside = _first(x.shape[0], shape[0])[:, None] & _first(x.shape[1], shape[1])[None, :]
    keys = x if table is None else table[x.astype(jnp.int32)]
    values = lax.bitcast_convert_type(keys, jnp.float32) if by_words else keys
    floating = jnp.issubdtype(values.dtype, jnp.floating)
    nan = (jnp.isnan(values) if floating else jnp.zeros(x.shape, bool)) & inside
    inf = (jnp.isinf(values) if floating else jnp.zeros(x.shape, bool)) & inside
    zero = (keys & 0x7FFFFFFF) == 0 if by_words else keys == 0
    finite = inside & ~nan & ~inf
    cut = partial(_cut, block=block)
    n = cut(finite).sum((1, 3), dtype=jnp.int32)
    wide = cut(jnp.where(finite, widened(values), 0))
    scale = jnp.ones_like(n, jnp.float64)
    if values.dtype == jnp.float64:
        scale = _scale(jnp.abs(wide).max((1, 3)))
        wide = wide * scale[:, None, :, None]
    share = jnp.maximum(n, 1).astype(jnp.float64)
    ordered = _turned(lax.bitcast_convert_type(keys, jnp.int32)) if by_words else keys
    limits = np.finfo(ordered.dtype) if jnp.issubdtype(ordered.dtype, jnp.floating) else np.iinfo(ordered.dtype)
    lowest, highest = (np.array(limit, ordered.dtype) for limit in (limits.min, limits.max))
    least = cut(jnp.where(finite, ordered, highest)).min((1, 3))
    greatest = cut(jnp.where(finite, ordered, lowest)).max((1, 3))
    return (
        jnp.where(n > 0, least, 0),
        jnp.where(n > 0, greatest, 0),
        wide.sum((1, 3)) / share / scale,
        jnp.sqrt((wide * wide).sum((1, 3)) / share) / scale,
        *(cut(flags).sum((1, 3), dtype=jnp.int32) for flags in (zero & finite, nan, inf)),
    )


def _scale(greatest: Array) -> Array:
    return jnp.where(greatest > LARGE, 1 / SHIFT, jnp.where(greatest < SMALL, SHIFT, 1.0))


def _first(size: int, valid: Array) -> Bool[Array, " size"]:
    return jnp.arange(size, dtype=jnp.int32) < valid


def _cut(x: Array, *, block: tuple[int, int]) -> Array:
    height, width = block
    return x.reshape(x.shape[0] // height, height, x.shape[1] // width, width)
