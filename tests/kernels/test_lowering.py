"""Every JAX kernel lowers for CPU, CUDA and TPU, whatever is installed here."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

from weighbridge_kernels import (
    bit_histogram,
    block_means,
    block_quantization,
    central_moments,
    channel_norms,
    exponent_histogram,
    finite_tile,
    neighbours,
    nmf,
    pca,
    pyramid,
    random_projection,
    semi_structured_sparsity,
    similar_pairs,
    similar_tiles,
    span_pass,
    spectrum,
    tsne,
    unit_rows,
)

MODULES = (
    bit_histogram,
    block_means,
    block_quantization,
    central_moments,
    channel_norms,
    exponent_histogram,
    finite_tile,
    nmf,
    pca,
    neighbours,
    pyramid,
    random_projection,
    semi_structured_sparsity,
    similar_tiles,
    span_pass,
    spectrum,
    tsne,
    unit_rows,
)
PLATFORMS = ("cpu", "cuda", "tpu")


class Call(NamedTuple):
    kernel: Callable
    arguments: tuple[tuple[tuple[int, ...], type], ...]
    static: dict[str, Any] | None = None


FLAT, MATRIX, NARROW, SCALAR = (4099,), (19, 192), (19, 130), ()
VALID = (SCALAR, jnp.int32)
CALLS = {
    "bit_histogram of 8 bits": Call(bit_histogram.bit_histogram, ((FLAT, jnp.uint8), VALID), {"patterns": 256}),
    "bit_histogram of 16 bits": Call(bit_histogram.bit_histogram, ((FLAT, jnp.uint16), VALID), {"patterns": 65536}),
    "bit_histogram by sorting": Call(
        bit_histogram.bit_histogram, ((FLAT, jnp.uint16), VALID), {"patterns": 65536, "method": "sort"}
    ),
    "high_half_histogram": Call(bit_histogram.high_half_histogram, ((FLAT, jnp.uint32), VALID)),
    "high_half_histogram by sorting": Call(
        bit_histogram.high_half_histogram, ((FLAT, jnp.uint32), VALID), {"method": "sort"}
    ),
    "central_moments of float32": Call(central_moments.moments_of, ((FLAT, jnp.float32),)),
    "central_moments of float64": Call(central_moments.moments_of, ((FLAT, jnp.float64),)),
    "exponent_histogram": Call(exponent_histogram.exponent_histogram, ((NARROW, jnp.float32),)),
    "classes": Call(exponent_histogram.classes, ((NARROW, jnp.float32),)),
    "decoded_tile of 8 bits": Call(
        finite_tile.decoded_tile, ((NARROW, jnp.uint8), ((256,), jnp.float32)), {"padded": 192}
    ),
    "decoded_tile of 16 bits": Call(
        finite_tile.decoded_tile, ((NARROW, jnp.uint16), ((65536,), jnp.float32)), {"padded": 192}
    ),
    "scaled_tile of float32": Call(
        finite_tile.scaled_tile, ((NARROW, jnp.float32), (SCALAR, jnp.float32)), {"padded": 192}
    ),
    "scaled_tile of float64": Call(
        finite_tile.scaled_tile, ((NARROW, jnp.float64), (SCALAR, jnp.float64)), {"padded": 192}
    ),
    "channel_sums": Call(channel_norms.channel_sums, ((MATRIX, jnp.float32),)),
    "block_errors": Call(block_quantization.block_errors, ((MATRIX, jnp.float32),), {"exponent_bins": 512}),
    "groups_with_two_zeros": Call(semi_structured_sparsity.groups_with_two_zeros, ((MATRIX, jnp.bool_),)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_lowers_for_every_platform(call: Call) -> None:
    sixty_four_bits = call.kernel is central_moments.moments_of or any(d is jnp.float64 for _, d in call.arguments)
    with jax.enable_x64(sixty_four_bits):
        arguments = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in call.arguments]
        kernel = jax.jit(partial(call.kernel, **(call.static or {})))
        exported = jax.export.export(kernel, platforms=PLATFORMS)(*arguments)
    assert exported.platforms == PLATFORMS
    assert [aval.shape for aval in exported.in_avals] == [shape for shape, _ in call.arguments]


def similar_rows() -> dict[str, tuple[Callable, tuple[object, ...]]]:
    """Tiles of 7 queries and 11 keys; lists of 3 are a tree."""
    tile, number = jax.ShapeDtypeStruct((7, 11), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    own, at = (jax.ShapeDtypeStruct((size,), jnp.int32) for size in (7, 11))
    lists = tuple(jax.ShapeDtypeStruct((7, 3), dtype) for dtype in (jnp.float32, jnp.int32))
    rows, keys = (jax.ShapeDtypeStruct((size, 23), jnp.float32) for size in (7, 11))
    counts = jax.ShapeDtypeStruct((similar_pairs.BINS,), jnp.int32)
    centre = jax.ShapeDtypeStruct((23,), jnp.float64)
    return {
        "unit_rows": (unit_rows.unit_rows, (rows,)),
        "unit_rows less their means": (partial(unit_rows.unit_rows, kind="pearson"), (rows,)),
        "product": (similar_tiles.product, (rows, keys)),
        "keep": (similar_tiles.keep, (lists, tile, number, number, own, at)),
        "count": (similar_tiles.count, (counts, tile, own, at)),
        "link": (similar_tiles.link, (own, tile, number, number, own, at, at)),
        "mean row": (neighbours._mean_row, (keys,)),
        "centred": (partial(neighbours.centred, last="halves"), (keys, centre)),
        "pooled": (block_means.pooled, (jax.ShapeDtypeStruct((3, 7, 23), "f4"), jax.ShapeDtypeStruct((3,), "f8"))),
        "distances": (neighbours.distances, (rows, keys, lists[1])),
    }


def spans() -> dict[str, tuple[Callable, tuple[object, ...]]]:
    """The calls of `span_pass`, whose arguments are trees, and of `pyramid`, whose table may be none."""
    shape = jax.ShapeDtypeStruct((2,), jnp.int32)
    flags = {"channels": True, "columns": True, "blocks": True}
    calls: dict[str, tuple[Callable, tuple[object, ...]]] = {}
    for name, dtype in (("F8_E4M3", jnp.uint8), ("BF16", jnp.uint16)):
        for method in ("scatter", "sort"):
            weigh = partial(span_pass.weigh_codes, method=method, **flags)
            calls[f"{name} by {method}"] = (
                weigh,
                (
                    jax.ShapeDtypeStruct(NARROW, dtype),
                    shape,
                    span_pass.CodeTable.of(name),
                ),
            )
    words = jax.ShapeDtypeStruct(NARROW, jnp.uint32)
    for dtype in (jnp.float32, jnp.float64):
        for method in ("scatter", "sort"):
            weigh = partial(span_pass.weigh_floats, method=method, columns=True)
            calls[f"{dtype.__name__} by {method}"] = weigh, (jax.ShapeDtypeStruct(NARROW, dtype), words, shape)
    reduced = partial(pyramid._reduced, block=(8, 8), by_words=True)
    matrix = jax.ShapeDtypeStruct((24, 192), jnp.uint32), shape
    calls["blocks of float32"] = reduced, (*matrix, None)
    for dtype, patterns in ((jnp.uint8, 256), (jnp.uint16, 65536)):
        codes = jax.ShapeDtypeStruct((24, 192), dtype)
        calls[f"blocks of {dtype.__name__} codes"] = reduced, (codes, shape, jax.ShapeDtypeStruct((patterns,), "u4"))
    reduced = partial(pyramid._reduced, block=(3, 5), by_words=False)
    for dtype in (jnp.float64, jnp.int64, jnp.uint64):
        calls[f"blocks of {dtype.__name__}"] = reduced, (jax.ShapeDtypeStruct((24, 195), dtype), shape, None)
    for name, dtype in (
        ("gram", jnp.float32),
        ("singular_values_of_gram", jnp.float64),
        ("singular_values_direct", "f4"),
    ):
        calls[name] = getattr(spectrum, name), (jax.ShapeDtypeStruct((19, 19), dtype),)
    total, block, strip = (
        jax.ShapeDtypeStruct(shape, d) for shape, d in (((7, 7), "f8"), ((7, 3), "f8"), ((19, 7), "f4"))
    )
    calls["add_gram"] = spectrum.add_gram, (total, strip)
    calls["add_gram_product"] = spectrum.add_gram_product, (block, strip, block)
    calls |= principal_components() | nonnegative_factors() | random_projections() | embeddings() | similar_rows()
    weigh, arguments = calls["float32 by sort"]
    _, span = jax.eval_shape(weigh, *arguments)
    calls["widened"] = span_pass.widened, (span,)
    calls["accumulate"] = span_pass.accumulate, (jax.eval_shape(span_pass.widened, span), span)
    return calls


def principal_components() -> dict[str, tuple[Callable, tuple[object, ...]]]:
    """The calls of `pca`, all in float64."""
    x, mean = jax.ShapeDtypeStruct((19, 7), jnp.bfloat16), jax.ShapeDtypeStruct((7,), jnp.float64)
    right, left = (jax.ShapeDtypeStruct((side, 3), jnp.float64) for side in (7, 19))
    return {
        "mean_and_scatter": (pca.mean_and_scatter, (x,)),
        "mean_and_squares": (pca.mean_and_squares, (x,)),
        "gram_of_centred_rows": (pca.gram_of_centred_rows, (x, mean)),
        "centred_times": (pca.centred_times, (x, mean, right)),
        "transposed_centred_times": (pca.transposed_centred_times, (x, mean, left)),
        "eigh": (pca.eigh, (jax.ShapeDtypeStruct((19, 19), jnp.float64),)),
    }


def nonnegative_factors() -> dict[str, tuple[Callable, tuple[object, ...]]]:
    """The calls of `nmf`, in the dtypes that it works in."""
    calls: dict[str, tuple[Callable, tuple[object, ...]]] = {}
    limits = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.float64)
    for dtype in (jnp.float32, jnp.float64):
        x, w, a, b = (jax.ShapeDtypeStruct(shape, dtype) for shape in ((19, 7), (19, 3), (3, 19), (3, 7)))
        calls[f"swept_from of {dtype.__name__}"] = nmf.swept_from, (x, a, b, *limits)
        calls[f"squares_left of {dtype.__name__}"] = nmf.squares_left, (x, w, b)
    return calls


def random_projections() -> dict[str, tuple[Callable, tuple[object, ...]]]:
    """The call of `random_projection` by either law."""
    total, x = jax.ShapeDtypeStruct((19, 3), jnp.float32), jax.ShapeDtypeStruct((19, 7), jnp.bfloat16)
    draw = jax.eval_shape(lambda: jax.random.key(0)), jax.ShapeDtypeStruct((), jnp.int32)
    plus = random_projection.plus_block
    return {f"plus_block of {law} lines": (partial(plus, law=law), (total, x, *draw)) for law in ("gaussian", "sparse")}


def embeddings() -> dict[str, tuple[Callable, tuple[object, ...]]]:
    """The calls of `tsne` for 19 points with 40 segments of edges, over all pairs and on a grid."""
    y, tables = jax.ShapeDtypeStruct((2, 19), jnp.float32), (jax.ShapeDtypeStruct((19, 32), jnp.int32),)
    segments, width = (40,), (40, 32)
    edges = tsne.Edges(
        jax.ShapeDtypeStruct(segments, jnp.int32),
        jax.ShapeDtypeStruct(width, jnp.int32),
        jax.ShapeDtypeStruct(width, jnp.float32),
        tables,
    )
    rates = tsne.Rates(*(jax.ShapeDtypeStruct((), jnp.float32) for _ in tsne.Rates._fields))
    calls: dict[str, tuple[Callable, tuple[object, ...]]] = {"attraction": (tsne.attraction, (y, edges))}
    for nodes in (0, tsne.SIDES[0]):
        step = y, tsne.State(y, y, y), jax.ShapeDtypeStruct((), jnp.int32)
        calls[f"repelled by {nodes} nodes"] = partial(tsne.repelled, nodes=nodes), step[:1]
        calls[f"advanced by {nodes} nodes"] = partial(tsne.advanced, nodes=nodes), (step[1], edges, rates, step[2])
    return calls


with jax.enable_x64(True):
    SPANS = spans()


@pytest.mark.parametrize("name", SPANS)
def test_spans_and_blocks_lower_for_every_platform(name: str) -> None:
    kernel, arguments = SPANS[name]
    with jax.enable_x64(True):
        assert jax.export.export(jax.jit(kernel), platforms=PLATFORMS)(*arguments).platforms == PLATFORMS


def test_no_jitted_kernel_is_left_out() -> None:
    jitted = {f for module in MODULES for f in vars(module).values() if isinstance(f, type(jax.jit(abs)))}
    called = {getattr(kernel, "func", kernel) for kernel, _ in SPANS.values()}
    assert jitted == {call.kernel for call in CALLS.values()} | called
