"""A span in one call: against NumPy in float64, whatever its padding, and totals that add up over spans."""

import itertools
from typing import Any

import jax
import numpy as np
import pytest

from weighbridge_kernels import formats, variants
from weighbridge_kernels.device_spans import Accumulator, DeviceSpans
from weighbridge_kernels.span_pass import RowSums, Totals
from weighbridge_kernels.variants import DeviceUnavailable, Variant

EPS = float(np.finfo(np.float32).eps)
SHAPES = ((1, 1), (3, 7), (19, 23), (5, 4099), (257, 66), (64, 128))
FORMATS = ("BF16", "F16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "I8", "U16")


@pytest.fixture(scope="module", params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def variant(request: pytest.FixtureRequest) -> Variant:
    try:
        return variants.on_jax(request.param)
    except DeviceUnavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture
def spans(variant: Variant) -> DeviceSpans:
    assert variant.spans is not None
    return variant.spans


def codes_of(shape: tuple[int, int], name: str, *, zeros: float = 0.3) -> np.ndarray:
    patterns = formats.values(name).size
    rng = np.random.default_rng(shape)
    codes = rng.integers(0, patterns, shape).astype("u1" if patterns <= 256 else "u2")
    return np.where(rng.random(shape) < zeros, 0, codes).astype(codes.dtype)


def floats_of(shape: tuple[int, int], dtype: type) -> np.ndarray:
    """Heavy-tailed about 2^-60, with zeros of both signs, NaN, infinities and subnormals."""
    rng = np.random.default_rng(shape)
    x = rng.standard_t(3, shape).astype(dtype) * dtype(2.0**-60)
    special = rng.choice(np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-40], dtype), shape)
    return np.where(rng.random(shape) < 0.1, special, x).astype(dtype)


def two_zeros(values: np.ndarray) -> int:
    rows, cols = values.shape
    groups = (values[:, : cols // 4 * 4] == 0).reshape(rows, cols // 4, 4)
    return int((groups.sum(axis=2) >= 2).sum())


def assert_sums(got: np.ndarray, exponent: Any, x: np.ndarray, axis: int) -> None:
    """`got` are sum, sum of squares and absmax of the finite x along the axis, in units of 2^exponent, in float32.

    A square below float32's range in those units is lost.
    """
    scale = 2.0 ** int(exponent)
    total, squares, absmax = np.asarray(got, np.float64)
    n = x.shape[axis]
    tolerance = 4 * EPS * np.sqrt(n)
    np.testing.assert_allclose(total * scale, x.sum(axis), rtol=0, atol=tolerance * np.abs(x).sum(axis).max())
    np.testing.assert_allclose(squares * scale**2, (x * x).sum(axis), rtol=tolerance, atol=n * 2.0**-126 * scale**2)
    np.testing.assert_allclose(absmax * scale, np.abs(x).max(axis), rtol=EPS, atol=2.0**-126 * scale)


def one(accumulator: Accumulator) -> Totals:
    (totals,) = accumulator.fetch()
    return totals


@pytest.mark.parametrize(
    ("shape", "name"),
    [  # a compilation each: every format in one shape, every shape of one format
        pytest.param(shape, name, marks=[pytest.mark.slow] * (shape != SHAPES[2] and name != "BF16"))
        for shape in SHAPES
        for name in FORMATS
    ],
    ids=str,
)
def test_codes(spans: DeviceSpans, shape: tuple[int, int], name: str) -> None:
    codes = codes_of(shape, name)
    values = formats.values(name)[codes]
    finite = np.isfinite(values)
    total = Accumulator()
    rows = total.add(spans.weigh_codes(codes, name, 0, channels=True, columns=True, blocks=True))
    assert rows is not None
    totals = one(total)
    counts = np.bincount(codes.reshape(-1), minlength=formats.values(name).size)
    np.testing.assert_array_equal(totals.tallies["counts"], counts)
    assert totals.tallies["counts"].dtype == np.int64
    assert totals.tallies["sparse_groups"] == two_zeros(values)
    np.testing.assert_array_equal(rows.missing, (~finite).sum(1))
    np.testing.assert_array_equal(totals.tallies["missing"][: shape[1]], (~finite).sum(0))
    x = np.where(finite, values, 0.0)
    assert_sums(rows.sums, rows.exponent, x, 1)
    columns = np.stack([part["cols"][: shape[1]] for part in (totals.sums, totals.squares, totals.absmax)])
    assert_sums(columns, totals.exponent, x, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_floats(spans: DeviceSpans, shape: tuple[int, int], dtype: type) -> None:
    x = floats_of(shape, dtype)
    words = x.astype(np.float32).view(np.uint32)
    total = Accumulator()
    rows = total.add(spans.weigh_floats(x, words, 0, columns=True))
    assert rows is not None
    assert rows.moments is not None
    totals = one(total)
    finite = np.isfinite(x)
    np.testing.assert_array_equal(
        totals.tallies["counts"][:0x7F80], np.bincount(words.reshape(-1) >> 16, minlength=1 << 16)[:0x7F80]
    )
    classes = [np.isnan(x), x == np.inf, x == -np.inf, words == 0, words == 1 << 31]
    np.testing.assert_array_equal(totals.tallies["classes"], [c.sum() for c in classes])
    assert totals.flags["low_halves"] == np.bitwise_or.reduce((words & 0xFFFF).reshape(-1))
    assert totals.tallies["sparse_groups"] == two_zeros(x)
    np.testing.assert_array_equal(rows.missing, (~finite).sum(1))
    y = np.where(finite & (np.abs(x) > 1e-37), x, 0).astype(np.float64)  # a device may flush subnormals
    if y.any():
        assert_sums(rows.sums, rows.exponent, y, 1)
    assert rows.moments[0] == finite.sum()


@pytest.mark.parametrize(
    ("x", "fits"),
    [
        (np.float16([1.5, -65504, 6e-8, 6.1e-5, 0, -0.0, np.inf, np.nan]).astype(np.float32), True),
        (np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32), True),
        (np.float32([65520]), False),
        (np.float32([1e5]), False),
        (np.float32([2.0**-25]), False),
        (np.float32([3 * 2.0**-25]), False),
        (np.float32([1e-40]), False),
        (np.float32([1 + 2.0**-11]), False),
    ],
    ids=["chosen", "all", "overflow", "large", "below", "between", "subnormal", "fine"],
)
def test_what_is_float16(spans: DeviceSpans, x: np.ndarray, fits: bool) -> None:
    total = Accumulator()
    with np.errstate(over="ignore", under="ignore"):
        assert np.array_equal(x.astype(np.float16).astype(np.float32), x, equal_nan=True) == fits
    total.add(spans.weigh_floats(x[None], x[None].view(np.uint32), 0, columns=False))
    assert (one(total).flags["beyond_half"] == 0) == fits


@pytest.mark.parametrize("cuts", [(0, 300), (0, 1, 299, 300), (0, 64, 200, 300)], ids=str)
def test_spans_add_up(spans: DeviceSpans, cuts: tuple[int, ...]) -> None:
    """Of magnitudes from 2^-40 to 2^40, the order of which is not the spans'."""
    rng = np.random.default_rng(5)
    x = (rng.standard_normal((300, 41)) * 2.0 ** rng.integers(-40, 40, (300, 1))).astype(np.float32)
    x[3] = 0
    total = Accumulator()
    for low, high in itertools.pairwise(cuts):
        part = x[low:high]
        total.add(spans.weigh_floats(part, part.view(np.uint32), 0, columns=True))
    totals = one(total)
    np.testing.assert_array_equal(
        totals.tallies["counts"], np.bincount(x.view(np.uint32).reshape(-1) >> 16, minlength=1 << 16)
    )
    columns = np.stack([part["cols"][:41] for part in (totals.sums, totals.squares, totals.absmax)])
    assert_sums(columns, totals.exponent, x.astype(np.float64), 0)
    assert int(totals.tallies["block_exponents"].sum()) == 299 * 3


def test_totals_stay_in_their_memory(spans: DeviceSpans) -> None:
    """The counts of the second span are added where those of the first lie, and nothing of them is left behind."""
    codes = codes_of((64, 128), "BF16")
    total = Accumulator()
    for turn in range(2):
        total.add(spans.weigh_codes(codes, "BF16", 0, channels=True, columns=True, blocks=True))
        if turn == 0:
            (first,) = total._totals.values()
            counts = first.tallies["counts"]
            address = counts.unsafe_buffer_pointer()
    (second,) = total._totals.values()
    assert counts.is_deleted()
    assert second.tallies["counts"].unsafe_buffer_pointer() == address
    np.testing.assert_array_equal(one(total).tallies["counts"], 2 * np.bincount(codes.reshape(-1), minlength=1 << 16))
    assert total.fetch() == []


def test_only_rows_come_back_from_a_span(spans: DeviceSpans) -> None:
    span = spans.weigh_codes(codes_of((64, 128), "BF16"), "BF16", 0, channels=True, columns=True, blocks=True)
    rows: RowSums | None = span.rows
    assert sum(part.nbytes for part in jax.tree.leaves(rows)) <= 16 * 64 + 4


def test_booleans_are_counted_alone(spans: DeviceSpans) -> None:
    codes = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)
    total = Accumulator()
    assert total.add(spans.weigh_codes(codes, "BOOL", 0, channels=False, columns=False, blocks=False)) is None
    np.testing.assert_array_equal(one(total).tallies["counts"][:2], [3, 3])
