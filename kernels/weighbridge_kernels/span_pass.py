"""All that a scan wants of a span in one call on a device, and the sums that stay there until a tensor is done.

The host never waits inside a span: what decides a step (the exponent that a tile is scaled by) is found on the device.
Spans come padded to a few sizes (`padding`): codes with 0, floats with NaN. Of a span the sums along its rows come
back; the rest is added to `Totals`, whose memory is donated from span to span, and comes back once a tensor. Arrays
are a device's, or NumPy's once fetched.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from weighbridge_kernels import formats
from weighbridge_kernels.bit_histogram import Method, bit_histogram, high_half_histogram
from weighbridge_kernels.block_quantization import block_errors
from weighbridge_kernels.central_moments import moments_of
from weighbridge_kernels.channel_norms import channel_sums
from weighbridge_kernels.quantizers import BLOCK_MULTIPLE
from weighbridge_kernels.semi_structured_sparsity import groups_with_two_zeros
from weighbridge_kernels.states import MAX_TILE_EXPONENT, NVFP4_EXPONENTS

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Float32, Int32, UInt, UInt32


class CodeTable(NamedTuple):
    """A format's patterns taken apart: value = significand · 2^exponent, so that no table holds a subnormal.

    The significand is in [1, 2) with the value's sign; 0 for zero, NaN and ±Inf.
    """

    significand: Any
    exponent: Any
    finite: Any
    zero: Any

    @classmethod
    @lru_cache(maxsize=32)
    def of(cls, format_name: str) -> CodeTable:
        """The table in NumPy."""
        values = formats.values(format_name)
        finite = np.isfinite(values)
        fraction, exponent = np.frexp(np.where(finite, values, 0.0))
        return cls((2 * fraction).astype(np.float32), (exponent - 1).astype(np.int32), finite, values == 0)


class RowSums(NamedTuple):
    """What of a span comes back at once: its rows' sum, sum of squares and absmax, in units of 2^exponent.

    `missing` counts the entries of each row that are not finite; `moments` are those of `central_moments`, of floats.
    """

    exponent: Any
    sums: Any
    missing: Any
    moments: tuple[Any, ...] | None


class Totals(NamedTuple):
    """What stays on the device; of one span in 32 bits, of a tensor in 64. What a dtype has no use for is missing.

    `tallies` add: `counts` of bins, `classes` (NaN, +Inf, -Inf, +0, -0) of floats, `missing` entries of columns,
    `sparse_groups`, `block_exponents`. `sums`, `squares` and `absmax` are the columns', in units of 2^exponent and its
    square; so are `block_errors`. `flags` are joined by OR: `low_halves` and `beyond_half`, which is not 0 where a
    float is no float16.
    """

    exponent: Any
    tallies: dict[str, Any]
    sums: dict[str, Any]
    squares: dict[str, Any]
    absmax: dict[str, Any]
    flags: dict[str, Any]


@partial(jax.jit, static_argnames=("method", "channels", "columns", "blocks"))
def weigh_codes(
    codes: UInt[Array, "rows cols"],
    shape: Int32[Array, " 2"],
    table: CodeTable,
    *,
    method: Method,
    channels: bool,
    columns: bool,
    blocks: bool,
) -> tuple[RowSums | None, Totals]:
    """A span of a format of 16 bits or fewer, of which `shape` says how many rows and columns are no padding.

    Without `channels` only patterns are counted (booleans); `columns` keeps sums along columns, `blocks` the errors of
    block quantisers.
    """
    rows, cols = shape[0], shape[1]
    counts = bit_histogram(codes, codes.size, patterns=table.zero.size, method=method)
    counts = counts.at[0].add(rows * cols - codes.size)
    if not channels:
        return None, Totals(jnp.int32(0), {"counts": counts}, {}, {}, {}, {})
    present = (counts > 0) & (table.significand != 0)
    exponent = _tile_exponent(jnp.max(jnp.where(present, table.exponent, -MAX_TILE_EXPONENT)))
    scaled = table.significand * _power_of_two(table.exponent - exponent)
    inside = _first(codes.shape[0], rows)[:, None] & _first(codes.shape[1], cols)[None, :]
    at = codes.astype(jnp.int32)
    tile = jnp.where(inside, scaled[at], 0)
    row_sums, totals = _position_bound(
        tile, exponent, table.zero[at] & inside, ~table.finite[at] & inside, cols, columns=columns, blocks=blocks
    )
    return row_sums, totals._replace(tallies=totals.tallies | {"counts": counts})


@partial(jax.jit, static_argnames=("method", "columns"))
def weigh_floats(
    x: Float[Array, "rows cols"],
    words: UInt32[Array, "rows cols"],
    shape: Int32[Array, " 2"],
    *,
    method: Method,
    columns: bool,
) -> tuple[RowSums, Totals]:
    """A span of float32 or float64 with the words of its float32 rounding; padding is NaN.

    Counts and classes are those of the words (`high_half_histogram`), extremes and moments those of `x` in float64, so
    it is called under `enable_x64`. A word is no float16 unless it is NaN, ±Inf or one of its values.
    """
    rows, cols = shape[0], shape[1]
    counts, low, classes = high_half_histogram(words, words.size, method=method)
    padding = x.size - rows * cols
    counts = counts.at[_NAN_BIN].add(-padding)
    classes = classes.at[0].add(-padding)
    finite = jnp.isfinite(x)
    exponent = _tile_exponent(_greatest_exponent(counts))
    beyond = jnp.any(finite & ((words & 0x7FFFFFFF) == 0x7F800000))  # a float64 that float32 rounds to ±Inf
    exponent = jnp.where(beyond, MAX_TILE_EXPONENT, exponent)
    tile = (jnp.where(finite, x, 0) * _power_of_two(-exponent).astype(x.dtype)).astype(jnp.float32)
    inside = _first(x.shape[0], rows)[:, None] & _first(x.shape[1], cols)[None, :]
    row_sums, totals = _position_bound(
        tile, exponent, ((words & 0x7FFFFFFF) == 0) & (x == 0), ~finite & inside, cols, columns=columns, blocks=True
    )
    return row_sums._replace(moments=moments_of(x.reshape(-1))), totals._replace(
        tallies=totals.tallies | {"counts": counts, "classes": classes},
        flags={"low_halves": low, "beyond_half": jnp.any(~_is_float16(words)).astype(jnp.uint32)},
    )


_NAN_BIN = 0x7FC0


def _first(size: int, valid: Int32[Array, ""]) -> Bool[Array, " size"]:
    return jnp.arange(size, dtype=jnp.int32) < valid


def _tile_exponent(exponent: Int32[Array, ""]) -> Int32[Array, ""]:
    return jnp.clip(exponent, -MAX_TILE_EXPONENT, MAX_TILE_EXPONENT).astype(jnp.int32)


def _greatest_exponent(counts: Int32[Array, " 65536"]) -> Int32[Array, ""]:
    """Binary exponent of the greatest finite word, by its bin; -127 for zeros and subnormals."""
    magnitudes = counts[:0x8000] + counts[0x8000:]
    bins = jnp.arange(0x8000, dtype=jnp.int32)
    greatest: Int32[Array, ""] = jnp.max(jnp.where((magnitudes > 0) & (bins < 0x7F80), bins, 0))
    exponent: Int32[Array, ""] = (greatest >> 7) - 127
    return exponent


def _power_of_two(k: Int32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """2^k, for k up to 127; 0 below float32's normal range, where devices differ."""
    words = jnp.maximum(k + 127, 0).astype(jnp.int32) << 23
    return lax.bitcast_convert_type(words, jnp.float32)


def _is_float16(words: UInt32[Array, "rows cols"]) -> Bool[Array, "rows cols"]:
    """Whether a float32 is a float16 too, NaN and ±Inf included; by its bits, since devices may flush subnormals."""
    magnitude = (words & 0x7FFFFFFF).astype(jnp.int32)
    exponent = magnitude >> 23
    lost = jnp.where(exponent >= 113, 13, jnp.clip(126 - exponent, 13, 23))  # bits below float16's last
    whole = (magnitude & ((jnp.int32(1) << lost) - 1)) == 0
    in_range = (exponent >= 103) & (exponent <= 142)
    return jnp.logical_or((magnitude == 0) | (exponent == 255), in_range & whole)


def _position_bound(
    tile: Float32[Array, "rows cols"],
    exponent: Int32[Array, ""],
    zero: Bool[Array, "rows cols"],
    missing: Bool[Array, "rows cols"],
    cols: Int32[Array, ""],
    *,
    columns: bool,
    blocks: bool,
) -> tuple[RowSums, Totals]:
    """What depends on where an entry stands, of a tile in units of 2^exponent that is 0 in its padding."""
    of_rows, of_cols = channel_sums(tile)
    row_sums = RowSums(exponent, jnp.stack(of_rows), missing.sum(axis=1, dtype=jnp.int32), None)
    grouped = zero & _first(zero.shape[1], cols // 4 * 4)[None, :]
    totals = Totals(exponent, {"sparse_groups": groups_with_two_zeros(grouped)}, {}, {}, {}, {})
    if columns:
        totals.tallies["missing"] = missing.sum(axis=0, dtype=jnp.int32)
        totals.sums["cols"], totals.squares["cols"], totals.absmax["cols"] = of_cols
    if blocks:
        whole_blocks = jnp.pad(tile, ((0, 0), (0, -tile.shape[1] % BLOCK_MULTIPLE)))
        totals.squares["block_errors"], exponents = block_errors(whole_blocks, exponent_bins=NVFP4_EXPONENTS)
        totals.tallies["block_exponents"] = jnp.roll(exponents, exponent)
    return row_sums, totals


@jax.jit
def widened(totals: Totals) -> Totals:
    """The sums of a tensor's first span in 64 bits, to which the others are added; called under `enable_x64`."""
    return Totals(
        totals.exponent,
        *jax.tree.map(lambda x: x.astype(_WIDE[jnp.dtype(x.dtype).kind]), totals[1:]),
    )


_WIDE = {"i": jnp.int64, "f": jnp.float64, "u": jnp.uint32}


@partial(jax.jit, donate_argnums=0)
def accumulate(totals: Totals, span: Totals) -> Totals:
    """The totals with one more span, in the memory that `totals` held; called under `enable_x64`.

    Both are brought to the units of the greater exponent, which loses what is 2^-126 of the rest and no digit else.
    """
    span = widened(span)
    exponent = jnp.maximum(totals.exponent, span.exponent)
    ours, theirs = (_power_of_two(part.exponent - exponent).astype(jnp.float64) for part in (totals, span))
    return Totals(
        exponent,
        jax.tree.map(jnp.add, totals.tallies, span.tallies),
        jax.tree.map(lambda a, b: a * ours + b * theirs, totals.sums, span.sums),
        jax.tree.map(lambda a, b: a * (ours * ours) + b * (theirs * theirs), totals.squares, span.squares),
        jax.tree.map(lambda a, b: jnp.maximum(a * ours, b * theirs), totals.absmax, span.absmax),
        jax.tree.map(jnp.bitwise_or, totals.flags, span.flags),
    )
