"""What the common block quantisers would lose: the squared error of rounding every block to its grid.

Blocks run along the rows of the matrix; a row's last block may be shorter. Per block, with m its greatest magnitude:

- `int4_32`: 32 entries, scale m / 7, integers -7 ... 7 (symmetric; -8 is not used).
- `nf4_64`: 64 entries, scale m, the 16 levels of NormalFloat4 (Dettmers et al. 2023, arXiv 2305.14314).
- `mxfp4_32`: 32 entries, scale 2^(floor(log2 m) - 2), E2M1 values to ±6, saturating (OCP Microscaling Formats 1.0).
- `nvfp4_16`: 16 entries, scale m / 6 rounded to E4M3's four significant bits, E2M1 values, saturating. The scale of the
  whole tensor is taken as a power of two, which touches no digit (NVIDIA's recipe takes max|w| / 2688, which needs a
  pass of its own; the root error differs by 0.1 % on Gaussian weights, 1 % on Student's t of 3 degrees, 5 % of 2). A
  block scale below E4M3's normal range, 2^-14 of the largest, is not flushed here but counted
  (`BlockErrors.nvfp4_underflow`).

Everywhere an entry goes to the nearest level; at a tie both levels are equally wrong, so the rule does not show.
Scales are float32. Blocks whose m is below 2^-100 count as zero.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

from weighbridge_kernels.quantizers import BLOCK_QUANTIZERS, E2M1_LEVELS, NF4_LEVELS, SMALLEST_BLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Float32, Int32


@partial(jax.jit, static_argnames="exponent_bins")
def block_errors(
    tile: Float32[Array, "rows cols"], *, exponent_bins: int
) -> tuple[Float32[Array, 4], Int32[Array, " exponent_bins"]]:
    """Squared error of each quantiser of `BLOCK_QUANTIZERS`, and the exponents of the blocks of 16.

    Takes a finite tile of magnitude below 2 (`finite_tile`) whose rows are padded with zeros to a multiple of 64;
    gives the tile's units squared. Bin i of the second result counts the non-zero blocks of 16 whose m has the binary
    exponent i - exponent_bins // 2. Accumulates in float32.
    """
    errors = jnp.stack([_squared_error(tile, name) for name in BLOCK_QUANTIZERS])
    m = _absmax(_blocks(tile, 16))
    exponent = (lax.bitcast_convert_type(m, jnp.int32) >> 23) - 127 + exponent_bins // 2
    counts = jnp.zeros(exponent_bins, jnp.int32).at[exponent].add((m >= SMALLEST_BLOCK).astype(jnp.int32), mode="drop")
    return errors, counts


def _squared_error(tile: Float32[Array, "rows cols"], name: str) -> Float32[Array, ""]:
    blocks = _blocks(tile, BLOCK_QUANTIZERS[name])
    m = _absmax(blocks)
    scale = _SCALES[name](jnp.where(m >= SMALLEST_BLOCK, m, 1.0))[:, None]
    t = blocks / scale
    error = jnp.where(m[:, None] >= SMALLEST_BLOCK, (t - _GRIDS[name](t)) * scale, blocks)
    return jnp.sum(error * error)


def _blocks(tile: Float32[Array, "rows cols"], size: int) -> Float32[Array, "blocks size"]:
    return tile.reshape(tile.size // size, size)


def _absmax(blocks: Float32[Array, "blocks size"]) -> Float32[Array, " blocks"]:
    return jnp.abs(blocks).max(axis=1, initial=0.0)


def _nearest(t: Float32[Array, "*shape"], levels: tuple[float, ...]) -> Float32[Array, "*shape"]:
    grid = jnp.asarray(levels, jnp.float32)
    return grid[jnp.searchsorted((grid[1:] + grid[:-1]) / 2, t)]


def _power_of_two(m: Float32[Array, " blocks"]) -> Float32[Array, " blocks"]:
    """2^floor(log2 m): the mantissa cleared."""
    return lax.bitcast_convert_type(lax.bitcast_convert_type(m, jnp.int32) & 0x7F800000, jnp.float32)


def _four_significant_bits(s: Float32[Array, " blocks"]) -> Float32[Array, " blocks"]:
    """To the nearest number of four significant bits, ties to even: 20 bits of the mantissa rounded away."""
    bits = lax.bitcast_convert_type(s, jnp.int32)
    return lax.bitcast_convert_type((bits + 0x7FFFF + ((bits >> 20) & 1)) & ~0xFFFFF, jnp.float32)


_SCALES: dict[str, Callable[[Array], Array]] = {
    "int4_32": lambda m: m / 7,
    "nf4_64": lambda m: m,
    "mxfp4_32": lambda m: _power_of_two(m) / 4,
    "nvfp4_16": lambda m: _four_significant_bits(m / 6),
}
_GRIDS: dict[str, Callable[[Array], Array]] = {
    "int4_32": lambda t: jnp.clip(jnp.round(t), -7, 7),
    "nf4_64": lambda t: _nearest(t, NF4_LEVELS),
    "mxfp4_32": lambda t: _nearest(t, E2M1_LEVELS),
    "nvfp4_16": lambda t: _nearest(t, E2M1_LEVELS),
}
