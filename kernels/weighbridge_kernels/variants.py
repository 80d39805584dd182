"""Which form of the kernels runs: the one place that decides, and whose answer the report records.

`host` forms are compiled by Numba for CPUs; `jax` forms are the definitions and run on every device that JAX has. Both
offer the same functions, which take NumPy arrays or what `put` made of them and give NumPy arrays and states.
"""

import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

from weighbridge_kernels.distribution import finite_table
from weighbridge_kernels.states import NVFP4_EXPONENTS, BlockErrors, Moments

Device = Literal["auto", "cpu", "gpu", "tpu"]
DEVICES: tuple[Device, ...] = ("auto", "cpu", "gpu", "tpu")

Array = Any

_THREADS_A_DEVICE = 3
"""One span on its way, one being worked on, one whose results come back."""
Sums = np.ndarray
"""Sum, sum of squares and greatest magnitude of every channel, a row each."""


class DeviceUnavailable(RuntimeError):
    """The device asked for is not there."""


@dataclass(frozen=True)
class Variant:
    """The kernels in one form, and how much of a span they best work on at a time.

    `tile_cols` is a multiple of every quantiser's block. `workers` is how many threads keep it busy, 0 for one a
    processor.
    """

    name: str
    workers: int
    tile_entries: int
    tile_cols: int
    put: Callable[[Array], Array]
    bit_histogram: Callable[[Array, int], np.ndarray]
    high_half_histogram: Callable[[Array], tuple[np.ndarray, int, np.ndarray]]
    central_moments: Callable[[Array], Moments]
    code_tile: Callable[[Array, str, int, int], Array]
    float_tile: Callable[[Array, int, int], Array]
    channel_sums: Callable[[Array], tuple[Sums, Sums]]
    block_errors: Callable[[Array], BlockErrors]
    groups_with_two_zeros: Callable[[Array], int]


def select(device: Device = "auto") -> Variant:
    """The forms for a device: `auto` is an accelerator where a JAX plugin for one is installed, else the CPU.

    On the CPU the host forms, or the JAX forms where Numba is missing. Raises `DeviceUnavailable`.
    """
    if device == "auto":
        accelerators: tuple[Device, ...] = ("gpu", "tpu") if _accelerator_plugin() else ()
        for accelerator in accelerators:
            with suppress(DeviceUnavailable):
                return select(accelerator)
        return select("cpu")
    if device == "cpu" and find_spec("numba") is not None:
        return host()
    return on_jax(device)


def _accelerator_plugin() -> bool:
    return bool(entry_points(group="jax_plugins")) or find_spec("libtpu") is not None


@cache
def host() -> Variant:
    from weighbridge_kernels import (
        bit_histogram_host,
        block_quantization_host,
        central_moments_host,
        channel_norms_host,
        finite_tile_host,
        semi_structured_sparsity_host,
    )

    def code_tile(codes: Array, format_name: str, exponent: int, padded: int) -> Array:
        if format_name == "BF16":
            return finite_tile_host.bfloat16_tile(codes, 2.0**-exponent, padded=padded)
        return finite_tile_host.decoded_tile(codes, finite_table(format_name, exponent), padded=padded)

    return Variant(
        name="host",
        workers=0,
        tile_entries=1 << 18,
        tile_cols=1 << 12,
        put=lambda array: array,
        bit_histogram=lambda codes, patterns: bit_histogram_host.bit_histogram(codes, codes.size, patterns=patterns),
        high_half_histogram=lambda words: bit_histogram_host.high_half_histogram(words, words.size),
        central_moments=central_moments_host.central_moments,
        code_tile=code_tile,
        float_tile=lambda x, exponent, padded: finite_tile_host.scaled_tile(x, 2.0**-exponent, padded=padded),
        channel_sums=channel_norms_host.channel_sums,
        block_errors=lambda tile: BlockErrors(
            *block_quantization_host.block_errors(tile, exponent_bins=NVFP4_EXPONENTS)
        ),
        groups_with_two_zeros=semi_structured_sparsity_host.groups_with_two_zeros,
    )


@cache
def on_jax(platform: str) -> Variant:
    """The JAX forms on a platform (`cpu`, `gpu`, `tpu`); arrays go to its devices in turn, and results follow them."""
    import jax

    from weighbridge_kernels import (
        bit_histogram,
        block_quantization,
        central_moments,
        channel_norms,
        finite_tile,
        semi_structured_sparsity,
    )

    try:
        local = jax.local_devices(backend=platform)
    except RuntimeError as error:
        raise DeviceUnavailable(f"no {platform} that JAX can use: {str(error).splitlines()[0]}") from error

    turns = itertools.cycle(local)
    method: Literal["scatter", "sort"] = "scatter" if platform == "cpu" else "sort"

    def numpy(array: Array) -> np.ndarray:
        return np.asarray(array)

    def put(array: np.ndarray) -> Array:
        # A copy: on the CPU JAX may keep the very memory, which the stream fills again.
        with jax.enable_x64(array.dtype.itemsize == 8):
            return jax.device_put(array.copy(), next(turns))

    def high_half_histogram(words: Array) -> tuple[np.ndarray, int, np.ndarray]:
        counts, low, classes = bit_histogram.high_half_histogram(words, words.size, method=method)
        return numpy(counts).astype(np.int64), int(low), numpy(classes).astype(np.int64)

    def channel_sums(tile: Array) -> tuple[Sums, Sums]:
        rows, cols = channel_norms.channel_sums(tile)
        return np.stack(rows).astype(np.float64), np.stack(cols).astype(np.float64)

    def block_errors(tile: Array) -> BlockErrors:
        squares, exponents = block_quantization.block_errors(tile, exponent_bins=NVFP4_EXPONENTS)
        return BlockErrors(numpy(squares).astype(np.float64), numpy(exponents).astype(np.int64))

    def code_tile(codes: Array, format_name: str, exponent: int, padded: int) -> Array:
        return finite_tile.decoded_tile(codes, finite_table(format_name, exponent), padded=padded)

    def float_tile(x: Array, exponent: int, padded: int) -> Array:
        with jax.enable_x64(x.dtype.itemsize == 8):
            return finite_tile.scaled_tile(x, x.dtype.type(2.0**-exponent), padded=padded)

    return Variant(
        name=f"jax:{local[0].platform}",
        workers=_THREADS_A_DEVICE * len(local),
        tile_entries=1 << 21,
        tile_cols=1 << 21,
        put=put,
        bit_histogram=lambda codes, patterns: numpy(
            bit_histogram.bit_histogram(codes, codes.size, patterns=patterns, method=method)
        ).astype(np.int64),
        high_half_histogram=high_half_histogram,
        central_moments=central_moments.central_moments,
        code_tile=code_tile,
        float_tile=float_tile,
        channel_sums=channel_sums,
        block_errors=block_errors,
        groups_with_two_zeros=lambda zero: int(semi_structured_sparsity.groups_with_two_zeros(zero)),
    )
