"""Which form of the kernels runs: the one place that decides, and whose answer the report records.

`host` forms are compiled by Numba for CPUs; `jax` forms are the definitions and run on every device that JAX has. Both
offer the same functions, which take NumPy arrays or what `put` made of them and give NumPy arrays and states.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from weighbridge_kernels.blocks import BASE, Blocks
from weighbridge_kernels.distribution import finite_table
from weighbridge_kernels.similar_pairs import Correlations, Neighbours
from weighbridge_kernels.states import NVFP4_EXPONENTS, BlockErrors, Moments

if TYPE_CHECKING:
    from weighbridge_kernels.device_spans import DeviceSpans

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
    block_reductions: Callable[..., Blocks]
    gram: Callable[[Iterable[Array]], Array]
    gram_product: Callable[[Iterable[Array], np.ndarray], np.ndarray]
    singular_values_of_gram: Callable[[Array], np.ndarray]
    singular_values_direct: Callable[[Array], np.ndarray]
    correlations: Callable[..., Correlations]
    neighbours: Callable[..., Neighbours]
    unit_rows: Callable[[Array], tuple[np.ndarray, np.ndarray]]
    spans: "DeviceSpans | None" = None
    """Whole spans on devices in one call each; where there is none, a span is what the functions above make of it."""

    def module(self, name: str) -> Any:
        """The module of a kernel on whole matrices, such as `pca`, in this form."""
        return import_module(f"weighbridge_kernels.{name}{'_host' if self.name == 'host' else ''}")


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
    """The forms compiled by Numba. Raises ImportError where it is missing."""
    from weighbridge_kernels import (
        bit_histogram_host,
        block_quantization_host,
        central_moments_host,
        channel_norms_host,
        correlation_host,
        finite_tile_host,
        neighbours_host,
        pyramid_host,
        semi_structured_sparsity_host,
        spectrum_host,
        unit_rows_host,
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
        block_reductions=pyramid_host.block_reductions,
        gram=lambda strips: _sum(map(spectrum_host.gram, strips)),
        gram_product=lambda strips, block: _sum(spectrum_host.gram_product(strip, block) for strip in strips),
        singular_values_of_gram=spectrum_host.singular_values_of_gram,
        singular_values_direct=spectrum_host.singular_values_direct,
        correlations=correlation_host.correlations,
        neighbours=neighbours_host.neighbours,
        unit_rows=unit_rows_host.unit_rows,
    )


def _sum(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Their sum, in the memory of the first."""
    each = iter(arrays)
    total = next(each)
    for array in each:
        total += array
    return total


@cache
def on_jax(platform: str) -> Variant:
    """The JAX forms on a platform (`cpu`, `gpu`, `tpu`); arrays go to its devices in turn, and results follow them."""
    import jax

    from weighbridge_kernels.device_spans import DeviceSpans

    try:
        devices = jax.local_devices(backend=platform)
    except RuntimeError as error:
        raise DeviceUnavailable(f"no {platform} that JAX can use: {str(error).splitlines()[0]}") from error
    forms = _JaxForms(itertools.cycle(devices), "scatter" if platform == "cpu" else "sort")
    return Variant(
        name=f"jax:{devices[0].platform}",
        workers=_THREADS_A_DEVICE * len(devices),
        tile_entries=1 << 21,
        tile_cols=1 << 21,
        put=forms.put,
        bit_histogram=forms.bit_histogram,
        high_half_histogram=forms.high_half_histogram,
        central_moments=forms.central_moments,
        code_tile=forms.code_tile,
        float_tile=forms.float_tile,
        channel_sums=forms.channel_sums,
        block_errors=forms.block_errors,
        groups_with_two_zeros=forms.groups_with_two_zeros,
        block_reductions=forms.block_reductions,
        gram=forms.gram,
        gram_product=forms.gram_product,
        singular_values_of_gram=forms.singular_values_of_gram,
        singular_values_direct=forms.singular_values_direct,
        correlations=forms.correlations,
        neighbours=forms.neighbours,
        unit_rows=forms.unit_rows,
        spans=DeviceSpans(devices, forms.method),
    )


@dataclass(frozen=True)
class _JaxForms:
    """The JAX kernels with their results brought to the host; only those, small as they are, come back."""

    turns: Iterator[Any]
    method: Literal["scatter", "sort"]

    def put(self, array: np.ndarray) -> Array:
        """A copy on the next device: on the CPU JAX may keep the very memory, which the stream fills again."""
        import jax

        with jax.enable_x64(array.dtype.itemsize == 8):
            return jax.device_put(array.copy(), next(self.turns))

    def bit_histogram(self, codes: Array, patterns: int) -> np.ndarray:
        from weighbridge_kernels.bit_histogram import bit_histogram

        counts = bit_histogram(codes, codes.size, patterns=patterns, method=self.method)
        return np.asarray(counts).astype(np.int64)

    def high_half_histogram(self, words: Array) -> tuple[np.ndarray, int, np.ndarray]:
        from weighbridge_kernels.bit_histogram import high_half_histogram

        counts, low, classes = high_half_histogram(words, words.size, method=self.method)
        return np.asarray(counts).astype(np.int64), int(low), np.asarray(classes).astype(np.int64)

    def central_moments(self, x: Array) -> Moments:
        from weighbridge_kernels.central_moments import central_moments

        return central_moments(x)

    def code_tile(self, codes: Array, format_name: str, exponent: int, padded: int) -> Array:
        from weighbridge_kernels.finite_tile import decoded_tile

        return decoded_tile(codes, finite_table(format_name, exponent), padded=padded)

    def float_tile(self, x: Array, exponent: int, padded: int) -> Array:
        import jax

        from weighbridge_kernels.finite_tile import scaled_tile

        with jax.enable_x64(x.dtype.itemsize == 8):
            return scaled_tile(x, x.dtype.type(2.0**-exponent), padded=padded)

    def channel_sums(self, tile: Array) -> tuple[Sums, Sums]:
        from weighbridge_kernels.channel_norms import channel_sums

        rows, cols = channel_sums(tile)
        return np.stack(rows).astype(np.float64), np.stack(cols).astype(np.float64)

    def block_errors(self, tile: Array) -> BlockErrors:
        from weighbridge_kernels.block_quantization import block_errors

        squares, exponents = block_errors(tile, exponent_bins=NVFP4_EXPONENTS)
        return BlockErrors(np.asarray(squares).astype(np.float64), np.asarray(exponents).astype(np.int64))

    def groups_with_two_zeros(self, zero: Array) -> int:
        from weighbridge_kernels.semi_structured_sparsity import groups_with_two_zeros

        return int(groups_with_two_zeros(zero))

    def block_reductions(
        self, x: Array, table: np.ndarray | None = None, *, block: tuple[int, int] = (BASE, BASE)
    ) -> Blocks:
        from weighbridge_kernels.pyramid import block_reductions

        return block_reductions(x, table, block=block)

    def gram(self, strips: Iterable[np.ndarray]) -> Array:
        """The sum of the Gram matrices of strips, which stays on one device; the last strip is filled up with zeros."""
        import jax

        from weighbridge_kernels import spectrum

        device = next(self.turns)
        with jax.enable_x64(True):
            each = (jax.device_put(strip, device) for strip in _of_one_length(strips))
            total = spectrum.gram(next(each))
            for strip in each:
                total = spectrum.add_gram(total, strip)
        return total

    def gram_product(self, strips: Iterable[np.ndarray], block: np.ndarray) -> np.ndarray:
        import jax
        import jax.numpy as jnp

        from weighbridge_kernels import spectrum

        device = next(self.turns)
        with jax.enable_x64(True):
            turned = jax.device_put(block, device)
            total = jnp.zeros_like(turned)
            for strip in _of_one_length(strips):
                total = spectrum.add_gram_product(total, jax.device_put(strip, device), turned)
            return np.asarray(total)

    def singular_values_of_gram(self, total: Array) -> np.ndarray:
        """On the device; on the host where the device has no float64 of its own."""
        import jax

        from weighbridge_kernels import spectrum, spectrum_host

        if not _has_float64(next(iter(total.devices()))):
            return spectrum_host.singular_values_of_gram(np.asarray(total))
        with jax.enable_x64(True):
            return np.asarray(spectrum.singular_values_of_gram(total))

    def correlations(self, x: np.ndarray, **options: Any) -> Correlations:
        import jax

        from weighbridge_kernels.correlation import correlations

        with jax.default_device(next(self.turns)):
            return correlations(jax.numpy.asarray(x), **options)

    def unit_rows(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import jax

        from weighbridge_kernels.unit_rows import unit_rows

        with jax.enable_x64(True), jax.default_device(next(self.turns)):
            units, norms = jax.device_get(unit_rows(x))
        return units, norms

    def neighbours(self, queries: np.ndarray, keys: np.ndarray, **options: Any) -> Neighbours:
        import jax

        from weighbridge_kernels.neighbours import neighbours

        with jax.enable_x64(queries.dtype.itemsize == 8), jax.default_device(next(self.turns)):
            return neighbours(jax.numpy.asarray(queries), jax.numpy.asarray(keys), **options)

    def singular_values_direct(self, x: np.ndarray) -> np.ndarray:
        """Where `singular_values_of_gram` has its eigenvalues from."""
        import jax

        from weighbridge_kernels import spectrum, spectrum_host

        device = next(self.turns)
        if not _has_float64(device):
            return spectrum_host.singular_values_direct(x)
        with jax.enable_x64(True):
            return np.asarray(spectrum.singular_values_direct(jax.device_put(x, device)))


def _has_float64(device: Any) -> bool:
    """Whether a device of JAX computes in float64 itself; TPUs emulate it."""
    return str(device.platform) != "tpu"


def _of_one_length(strips: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Strips as they come, shorter ones filled up with rows of zeros to the first, so that one compilation serves."""
    length = 0
    for strip in strips:
        length = length or strip.shape[-2]
        missing = length - strip.shape[-2]
        fill = [(0, 0)] * (strip.ndim - 2) + [(0, missing), (0, 0)]
        yield np.pad(strip, fill) if missing else strip
