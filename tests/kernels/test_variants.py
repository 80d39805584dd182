"""The forms agree on every kernel, and the right one is chosen."""

from collections.abc import Callable, Iterator
from dataclasses import fields

import jax
import numpy as np
import pytest

from weighbridge_kernels import formats, variants
from weighbridge_kernels.blocks import Blocks
from weighbridge_kernels.states import BlockErrors, Moments
from weighbridge_kernels.variants import DEVICES, DeviceUnavailable, Variant

EPS = float(np.finfo(np.float32).eps)
SHAPES = ((1, 1), (3, 7), (19, 23), (5, 4097), (257, 66))


def same(got: object, expected: object) -> None:
    np.testing.assert_array_equal(np.asarray(got), np.asarray(expected))


def near_moments(got: Moments, expected: Moments) -> None:
    assert (got.count, got.min, got.max) == (expected.count, expected.min, expected.max)
    n, std = max(got.count, 1), max(expected.m2, 0) ** 0.5 / max(got.count, 1) ** 0.5
    floor = 1e-14 * max(abs(got.min), abs(got.max)) if got.count else 0
    assert got.l1 == pytest.approx(expected.l1, rel=1e-12)
    assert got.mean == pytest.approx(expected.mean, rel=1e-12, abs=1e-12 * expected.l1 / n)
    for k in (2, 3, 4):
        ours, theirs = getattr(got, f"m{k}"), getattr(expected, f"m{k}")
        assert ours == pytest.approx(theirs, rel=1e-11, abs=n * (1e-11 * std**k + floor**k)), f"m{k}"


def near_sums(got: np.ndarray, expected: np.ndarray) -> None:
    """Sums in float32 of up to 4,097 entries of magnitude below 2, added in another order."""
    np.testing.assert_allclose(got[1], expected[1], rtol=EPS * np.sqrt(4097), atol=0)
    np.testing.assert_allclose(got[0], expected[0], rtol=0, atol=EPS * 4097 * np.sqrt(expected[1].max(initial=0)))
    same(got[2], expected[2])


def near_errors(got: BlockErrors, expected: BlockErrors) -> None:
    """Weights on a grid lose nothing but the rounding of their scale, at magnitudes below 2."""
    np.testing.assert_allclose(got.squares, expected.squares, rtol=EPS * np.sqrt(257 * 128), atol=(2 * EPS) ** 2)
    same(got.scale_exponents, expected.scale_exponents)


def near_blocks(got: Blocks, expected: Blocks) -> None:
    """Extremes and counts are exact; sums of 64 entries in float64 differ by their order, and are then rounded."""
    for quantity in ("least", "greatest", "zeros", "nan", "inf"):
        ours, theirs = getattr(got, quantity), getattr(expected, quantity)
        assert ours.dtype == theirs.dtype
        same(ours, theirs)
    np.testing.assert_allclose(got.rms, expected.rms, rtol=EPS, atol=0)
    assert (np.abs(got.mean - expected.mean) <= EPS * expected.rms).all()


def near_units(got: np.ndarray, expected: np.ndarray) -> None:
    """Norms in float64, whose sums differ by their order; units rounded to float32."""
    np.testing.assert_allclose(got, expected, rtol=2 * EPS if got.ndim == 2 else 1e-12, atol=0)


def random_codes(shape: tuple[int, int], name: str) -> np.ndarray:
    patterns = formats.values(name).size
    return np.random.default_rng(shape).integers(0, patterns, shape).astype("u1" if patterns <= 256 else "u2")


def random_floats(shape: tuple[int, int], dtype: type) -> np.ndarray:
    """Heavy-tailed, with zeros of both signs, NaN and infinities."""
    rng = np.random.default_rng(shape)
    x = rng.standard_t(3, shape).astype(dtype)
    special = rng.choice([0.0, -0.0, np.nan, np.inf, -np.inf], shape)
    return np.where(rng.random(shape) < 0.05, special, x).astype(dtype)


def tile(variant: Variant, shape: tuple[int, int]) -> object:
    x = random_floats(shape, np.float32)
    exponent = int(np.frexp(np.abs(x[np.isfinite(x)]).max(initial=0))[1]) - 1
    return variant.float_tile(variant.put(x), exponent, -(-shape[1] // 64) * 64)


def put(v: Variant, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    yield from (v.put(random_floats(shape, dtype)) for dtype in (np.float32, np.float64))
    yield from (v.put(random_codes(shape, name)) for name in ("BF16", "F8_E4M3"))


def bit_histogram(v: Variant, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    for name in ("BF16", "F8_E4M3", "F4"):
        yield v.bit_histogram(v.put(random_codes(shape, name).reshape(-1)), formats.values(name).size)


def high_half_histogram(v: Variant, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    yield from v.high_half_histogram(v.put(random_floats(shape, np.float32).reshape(-1).view(np.uint32)))


def central_moments(v: Variant, shape: tuple[int, int]) -> Iterator[Moments]:
    for dtype in (np.float32, np.float64):
        yield v.central_moments(v.put(random_floats(shape, dtype).reshape(-1)))


def code_tile(v: Variant, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    for name in ("BF16", "F16", "F8_E4M3", "F8_E5M2FNUZ", "I8"):
        yield v.code_tile(v.put(random_codes(shape, name)), name, 2, shape[1] + 64)


def float_tile(v: Variant, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    for dtype in (np.float32, np.float64):
        yield v.float_tile(v.put(random_floats(shape, dtype)), 2, shape[1] + 64)


def channel_sums(v: Variant, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    yield from v.channel_sums(tile(v, shape))


def block_errors(v: Variant, shape: tuple[int, int]) -> Iterator[BlockErrors]:
    yield v.block_errors(tile(v, shape))


def groups_with_two_zeros(v: Variant, shape: tuple[int, int]) -> Iterator[int]:
    yield v.groups_with_two_zeros(v.put(np.random.default_rng(shape).random(shape) < 0.4))


def block_reductions(v: Variant, shape: tuple[int, int]) -> Iterator[Blocks]:
    for dtype in (np.float32, np.float64):
        yield v.block_reductions(v.put(random_floats(shape, dtype)))
    yield v.block_reductions(v.put(np.random.default_rng(shape).integers(-9, 9, shape)), block=(3, 5))
    for name in ("BF16", "F8_E4M3"):
        yield v.block_reductions(v.put(random_codes(shape, name)), formats.values(name).astype(np.float32))


def unit_rows(v: Variant, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    for dtype in (np.float32, np.float64):
        yield from v.unit_rows(random_floats(shape, dtype))


# What a kernel gives for weights of a shape, and how alike two forms' results must be.
KERNELS = {
    put: same,
    bit_histogram: same,
    high_half_histogram: same,
    central_moments: near_moments,
    code_tile: same,
    float_tile: same,
    channel_sums: near_sums,
    block_errors: near_errors,
    groups_with_two_zeros: same,
    block_reductions: near_blocks,
    unit_rows: near_units,
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda f: f.__name__)
def test_forms_agree(variant: Variant, kernel: Callable, shape: tuple[int, int]) -> None:
    """Every form against the JAX form on the CPU, which is the definition."""
    if variant.name == "jax:cpu":
        pytest.skip("the definition itself")
    for ours, definition in zip(kernel(variant, shape), kernel(variants.on_jax("cpu"), shape), strict=True):
        KERNELS[kernel](ours, definition)


def test_every_kernel_is_compared() -> None:
    assert {kernel.__name__ for kernel in KERNELS} == {field.name for field in fields(Variant)} - {
        "name",
        "workers",
        "tile_entries",
        "tile_cols",
        "spans",  # the others together: test_span_pass
        *("gram", "gram_product", "singular_values_of_gram", "singular_values_direct"),  # test_spectrum
        *("correlations", "neighbours"),  # test_correlation, test_neighbours
    }


def test_what_was_put_on_a_device_outlives_the_buffer() -> None:
    """The stream fills its buffers again while a kernel may still read."""
    variant = variants.on_jax("cpu")
    for dtype in (np.uint8, np.uint16, np.float32, np.float64):
        buffer = np.ones(1000, dtype)
        put = variant.put(buffer)
        buffer[:] = 7
        assert (np.asarray(put) == 1).all()
        assert put.dtype == dtype


def test_tiles_do_not_cut_blocks(variant: Variant) -> None:
    assert variant.tile_cols % 64 == 0
    assert variant.tile_entries >= variant.tile_cols


def test_a_variant_says_its_name(variant: Variant) -> None:
    assert variant.name in ("host", "jax:cpu", "jax:gpu", "jax:cuda")


def test_the_cpu_takes_the_host_forms() -> None:
    pytest.importorskip("numba")
    assert variants.select("cpu") is variants.host()


def test_without_numba_the_cpu_takes_the_jax_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "find_spec", lambda name: None)
    assert variants.select("cpu") is variants.on_jax("cpu")


@pytest.mark.parametrize("device", [device for device in DEVICES if device not in ("auto", "cpu")])
def test_a_device_that_is_not_there(device: str) -> None:
    try:
        jax.devices(device)
    except RuntimeError:
        with pytest.raises(DeviceUnavailable, match=f"no {device} that JAX can use: "):
            variants.select(device)
        with pytest.raises(RuntimeError):
            variants.select(device)
    else:
        assert variants.select(device).name.startswith("jax:")


@pytest.mark.parametrize("plugin", [False, True], ids=["no plugin", "a plugin"])
def test_auto_is_the_cpu_where_no_accelerator_answers(monkeypatch: pytest.MonkeyPatch, plugin: bool) -> None:
    def none_there(platform: str) -> Variant:
        if platform != "cpu":
            raise DeviceUnavailable(platform)
        return on_jax(platform)

    on_jax = variants.on_jax
    monkeypatch.setattr(variants, "_accelerator_plugin", lambda: plugin)
    monkeypatch.setattr(variants, "on_jax", none_there)
    assert variants.select("auto") is variants.select("cpu")


@pytest.mark.parametrize("there", ["gpu", "tpu"])
def test_auto_is_the_accelerator_that_answers(monkeypatch: pytest.MonkeyPatch, there: str) -> None:
    def one_there(platform: str) -> str:
        if platform != there:
            raise DeviceUnavailable(platform)
        return platform

    monkeypatch.setattr(variants, "_accelerator_plugin", lambda: True)
    monkeypatch.setattr(variants, "on_jax", one_there)
    assert variants.select() == there
