"""A scan against NumPy on the stored values, in float64 or, for what must hold to many digits, in exact integers."""

import json
import math
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from blake3 import blake3

import weighbridge
from weighbridge import stream
from weighbridge.errors import BadArgument
from weighbridge.report.scan_columns import QUANTILES, SCAN, SPARSITIES
from weighbridge_kernels import variants

NARROW = {
    "BF16": ml_dtypes.bfloat16,
    "F16": np.float16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "F6_E2M3": ml_dtypes.float6_e2m3fn,
    "F6_E3M2": ml_dtypes.float6_e3m2fn,
    "F4": ml_dtypes.float4_e2m1fn,
}
PIECE = 4096
"""Entries of a piece in the tests that cut small tensors."""
MOMENTS = ("mean", "std", "l1", "l2", "skewness", "kurtosis")
SIXTEEN_BITS = 2.0**-16 + 1e-6
"""Relative error of a stored norm: its rounding, and that of float32 sums before."""
WHOLE = ("qerr_int8", "qerr_fp8_e4m3")
BLOCKS = ("qerr_int4_32", "qerr_nf4_64", "qerr_mxfp4_32", "qerr_nvfp4_16")


def exact_moments(values, counts):
    """Moments of finite values that occur so many times, in integer arithmetic, each rounded once at its end."""
    mantissas, exponents = np.frexp(values)
    base = int(exponents.min()) - 53
    shifts = (exponents - 53 - base).tolist()
    whole = [int(m) << e for m, e in zip((mantissas * 2.0**53).astype(np.int64), shifts, strict=True)]
    times = counts.tolist()
    unit = Fraction(2) ** base
    n, s1, s2, s3, s4 = (sum(c * v**k for v, c in zip(whole, times, strict=True)) for k in range(5))
    mean = Fraction(s1, n)
    m2 = s2 - mean * s1
    m3 = s3 - 3 * mean * s2 + 3 * mean**2 * s1 - n * mean**3
    m4 = s4 - 4 * mean * s3 + 6 * mean**2 * s2 - 4 * mean**3 * s1 + n * mean**4
    return {
        "mean": float(mean * unit),
        "std": math.sqrt(m2 / n * unit**2),
        "l1": float(sum(c * abs(v) for v, c in zip(whole, times, strict=True)) * unit),
        "l2": math.sqrt(s2 * unit**2),
        "skewness": math.sqrt(n * m3**2 / m2**3) * (1 if m3 > 0 else -1) if m2 else None,
        "kurtosis": float(n * m4 / m2**2 - 3) if m2 else None,
    }


def assert_moments(row, values, counts, *, rtol, higher):
    """`rtol` for sums; `higher` for skewness and kurtosis, relative to max(1, |v|); the mean relative to mean |x|."""
    if values.size == 0:
        assert [row[name] for name in MOMENTS] == [None] * len(MOMENTS)
        return
    expected = exact_moments(values, counts)
    for name in ("l1", "l2", "std"):
        assert row[name] == pytest.approx(expected[name], rel=rtol, abs=0), name
    assert row["mean"] == pytest.approx(expected["mean"], rel=0, abs=rtol * expected["l1"] / int(counts.sum()))
    for name in ("skewness", "kurtosis"):
        if expected[name] is None:
            assert row[name] is None, name
        else:
            assert row[name] == pytest.approx(expected[name], rel=higher, abs=higher), name


def float64(array):
    """The stored values; a signalling NaN among them is no matter."""
    with np.errstate(invalid="ignore"):
        return array.astype(np.float64)


def finite_multiset(array):
    stored = float64(array)
    return np.unique(stored[np.isfinite(stored)], return_counts=True)


def assert_counts(row, stored):
    assert row["count"] == stored.size
    assert row["nan"] == np.isnan(stored).sum()
    assert row["posinf"] == np.isposinf(stored).sum()
    assert row["neginf"] == np.isneginf(stored).sum()
    assert row["zeros"] == (stored == 0).sum()
    finite = stored[np.isfinite(stored)]
    extremes = (finite.min(), finite.max(), np.abs(finite).max()) if finite.size else (None,) * 3
    assert (row["min"], row["max"], row["absmax"]) == extremes


def shannon(codes):
    p = np.unique(codes, return_counts=True)[1] / codes.size
    return -(p * np.log2(p)).sum()


def narrow_arrays(dtype) -> Iterator[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    patterns = np.arange(1 << ml_dtypes.finfo(dtype).bits).astype(f"u{np.dtype(dtype).itemsize}")
    values = float64(patterns.view(dtype))
    finite = patterns[np.isfinite(values)]
    yield "every_pattern", rng.permutation(np.repeat(patterns, rng.integers(1, 4, patterns.size))).view(dtype)
    yield "finite", rng.choice(finite, 5003).view(dtype)
    yield "constant", np.full(4097, finite[-1]).view(dtype)
    yield "one", finite[1:2].view(dtype)
    yield "none", finite[:0].view(dtype)
    yield "matrix", rng.choice(patterns, (19, 83)).view(dtype)
    weights = np.abs(rng.normal(size=10_007)) * 0.7
    yield "weights", weights.astype(dtype)
    yield "far_from_zero", (3 + 0.1 * weights).astype(dtype)
    not_finite = patterns[~np.isfinite(values)]
    if not_finite.size:
        yield "not_finite", rng.choice(not_finite, 101).view(dtype)
        yield "nan", np.full(101, patterns[np.isnan(values)][0]).view(dtype)
    zeros = patterns[values == 0]
    if zeros.size:
        yield "zeros", rng.choice(zeros, 101).view(dtype)


@pytest.fixture(scope="module", params=NARROW, ids=str)
def narrow(request, tmp_path_factory):
    """A tree of arrays of one dtype of 16 bits or fewer, and its report."""
    tree = dict(narrow_arrays(NARROW[request.param]))
    return tree, weighbridge.scan(tree, report=tmp_path_factory.mktemp("narrow") / "report", device="cpu")


class TestNarrowFloats:
    """Everything that does not depend on position is exact."""

    def test_counts_and_extremes(self, narrow):
        tree, report = narrow
        for name, array in tree.items():
            stored = float64(array)
            row = report[name].row
            assert_counts(row, stored)
            assert row["distinct"] == np.unique(stored[np.isfinite(stored)] + 0.0).size, name

    def test_quantiles(self, narrow):
        tree, report = narrow
        for name, array in tree.items():
            stored = float64(array)
            finite = stored[np.isfinite(stored)]
            got = [report[name][column] for column in QUANTILES]
            if finite.size == 0:
                assert got == [None] * len(QUANTILES)
            else:
                expected = np.quantile(finite, list(QUANTILES.values()), method="inverted_cdf")
                np.testing.assert_array_equal(got, expected, err_msg=name)

    def test_moments(self, narrow):
        tree, report = narrow
        for name, array in tree.items():
            assert_moments(report[name].row, *finite_multiset(array), rtol=1e-12, higher=1e-9)

    def test_sparsity(self, narrow):
        tree, report = narrow
        for name, array in tree.items():
            stored = float64(array)
            magnitudes = np.abs(stored[np.isfinite(stored)])
            for column, relative in SPARSITIES.items():
                share = (magnitudes <= relative * magnitudes.max()).mean() if magnitudes.size else None
                assert report[name][column] == share, (name, column)

    def test_entropy(self, narrow):
        tree, report = narrow
        for name, array in tree.items():
            if array.size == 0:
                assert report[name]["entropy"] is None
                continue
            codes = array.view(f"u{array.dtype.itemsize}")
            form = ml_dtypes.finfo(array.dtype)
            fields = (codes >> form.nmant) & ((1 << form.nexp) - 1)
            assert report[name]["entropy"] == pytest.approx(shannon(codes), rel=1e-12, abs=1e-12), name
            assert report[name]["exponent_entropy"] == pytest.approx(shannon(fields), rel=1e-12, abs=1e-12), name

    def test_histogram(self, narrow):
        tree, report = narrow
        for name, array in tree.items():
            bins, counts = np.unique(array.view(f"u{array.dtype.itemsize}"), return_counts=True)
            np.testing.assert_array_equal(report[name]["histogram_bins"], bins)
            np.testing.assert_array_equal(report[name]["histogram_counts"], counts)

    def test_content_hash_and_dtype(self, narrow):
        tree, report = narrow
        for name, array in tree.items():
            assert report[name]["content_hash"] == blake3(array.tobytes()).hexdigest()
            assert NARROW[report[name]["dtype"]] is array.dtype.type
            assert report[name]["effective_dtype"] == report[name]["dtype"]

    def test_rounding_error_with_one_scale(self, narrow):
        tree, report = narrow
        for name, array in tree.items():
            stored = float64(array)
            assert_tensor_errors(report[name].row, stored, rel=1e-9)


def tensor_error(x, grid, largest):
    scale = np.abs(x).max() / largest
    return np.linalg.norm(x - grid(x / scale) * scale) / np.linalg.norm(x)


def assert_tensor_errors(row, stored, rel):
    finite = stored[np.isfinite(stored)]
    if not finite.any():
        assert (row["qerr_int8"], row["qerr_fp8_e4m3"]) == (None, None)
        return
    assert row["qerr_int8"] == pytest.approx(tensor_error(finite, np.rint, 127), rel=rel, abs=1e-15)
    fp8 = tensor_error(finite, lambda t: t.astype(ml_dtypes.float8_e4m3fn).astype(np.float64), 448)
    assert row["qerr_fp8_e4m3"] == pytest.approx(fp8, rel=rel, abs=1e-15)


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F6_E3M2"])
def test_entries_narrower_than_a_byte_in_a_file(dtype, tmp_path, scanned):
    codes = np.random.default_rng(1).integers(0, 1 << ml_dtypes.finfo(NARROW[dtype]).bits, (24, 40), np.uint8)
    path = tmp_path / "packed.safetensors"
    width = ml_dtypes.finfo(NARROW[dtype]).bits
    bits = np.unpackbits(codes.reshape(-1, 1), axis=1, bitorder="little")[:, :width]
    write_raw(path, {"packed": (dtype, codes.shape, np.packbits(bits, bitorder="little").tobytes())})
    packed = scanned(path)["packed"].row
    unpacked = scanned({"packed": codes.view(NARROW[dtype])})["packed"].row
    apart = {"nbytes", "file", "content_hash"}
    assert plain(packed, apart) == plain(unpacked, apart)
    assert packed["nbytes"] == codes.size * width // 8


def write_raw(path, tensors):
    """A safetensors file of (dtype, shape, bytes) by name."""
    header, data = {}, b""
    for name, (dtype, shape, packed) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


def plain(row, apart=()):
    """A row without some of its columns, arrays as lists."""
    kept = {key: value for key, value in row.items() if key not in apart}
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in kept.items()}


def float_arrays(dtype) -> Iterator[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(2)
    yield "weights", rng.normal(0, 0.02, 100_003).astype(dtype)
    yield "mean_far_above_std", rng.normal(100, 0.01, 100_003).astype(dtype)
    yield "heavy_tails", rng.standard_t(3, 50_021).astype(dtype)
    yield "skewed", (rng.exponential(size=50_021) ** 3).astype(dtype)
    special = rng.normal(size=10_007).astype(dtype)
    special[rng.integers(0, special.size, 400)] = np.resize([np.nan, np.inf, -np.inf, 0.0, -0.0], 400)
    yield "special", special
    yield "subnormal", np.concatenate([special[:5000], special[:5000] * np.finfo(dtype).tiny]).astype(dtype)
    yield "constant", np.full(4097, dtype(0.1))
    yield "nan", np.full(101, np.nan, dtype)
    yield "zeros", np.array([0.0, -0.0, 0.0], dtype)
    yield "one", np.array([0.1], dtype)
    yield "none", np.zeros(0, dtype)
    yield "huge", (rng.normal(size=1009) * 1e37).astype(dtype)
    yield "tiny", (rng.normal(size=1009) * 1e-37).astype(dtype)


@pytest.fixture(scope="module", params=[np.float32, np.float64], ids=["F32", "F64"])
def wide(request, tmp_path_factory):
    """A tree of float32 or float64 arrays, and its report."""
    tree = dict(float_arrays(request.param))
    return tree, weighbridge.scan(tree, report=tmp_path_factory.mktemp("wide") / "report", device="cpu")


class TestWideFloats:
    """Counts and extremes are exact, sums good to nine digits, quantiles to a bin."""

    def test_counts_and_extremes(self, wide):
        tree, report = wide
        for name, array in tree.items():
            assert_counts(report[name].row, float64(array))
            assert report[name]["content_hash"] == blake3(array.tobytes()).hexdigest()

    def test_moments(self, wide):
        tree, report = wide
        for name, array in tree.items():
            assert_moments(report[name].row, *finite_multiset(array), rtol=1e-9, higher=1e-9)

    def test_quantiles(self, wide):
        tree, report = wide
        smallest_normal = float(np.finfo(np.float32).tiny)
        for name, array in tree.items():
            stored = float64(array)
            finite = stored[np.isfinite(stored)]
            got = [report[name][column] for column in QUANTILES]
            if finite.size == 0:
                assert got == [None] * len(QUANTILES)
                continue
            expected = np.quantile(finite, list(QUANTILES.values()), method="inverted_cdf")
            np.testing.assert_allclose(got, expected, rtol=2.0**-8, atol=smallest_normal * 2.0**-8, err_msg=name)
            assert finite.min() <= min(got)
            assert max(got) <= finite.max()

    def test_sparsity_lies_between_the_bounds_of_its_bin(self, wide):
        tree, report = wide
        for name, array in tree.items():
            magnitudes = np.abs(array[np.isfinite(array)].astype(np.float64))
            if magnitudes.size == 0:
                continue
            for column, relative in SPARSITIES.items():
                threshold = relative * magnitudes.max()
                bin_width = max(threshold * 2.0**-7, 2.0**-133)
                below, above = ((magnitudes <= threshold + side * bin_width).mean() for side in (-1, 1))
                assert below <= report[name][column] <= above, (name, column)

    def test_histogram_of_upper_halves(self, wide):
        """Of finite words but zeros, which are counted apart."""
        tree, report = wide
        for name, array in tree.items():
            rounded = array.astype(np.float32)
            words = rounded[np.isfinite(rounded) & (array != 0)].view(np.uint32)
            bins, counts = np.unique(words >> 16, return_counts=True)
            np.testing.assert_array_equal(report[name]["histogram_bins"], bins, err_msg=name)
            np.testing.assert_array_equal(report[name]["histogram_counts"], counts, err_msg=name)

    def test_exponent_entropy_is_that_of_all_words(self, wide):
        tree, report = wide
        for name, array in tree.items():
            if array.size == 0:
                assert report[name]["exponent_entropy"] is None
                continue
            fields = (array.astype(np.float32).view(np.uint32) >> 23) & 0xFF
            assert report[name]["exponent_entropy"] == pytest.approx(shannon(fields), rel=1e-12, abs=1e-12), name

    def test_rounding_error_with_one_scale(self, wide):
        """Bins stand for their members, so these are good to a few per cent of themselves."""
        tree, report = wide
        for name in ("weights", "heavy_tails", "nan"):
            assert_tensor_errors(report[name].row, tree[name].astype(np.float64), rel=0.02)


@pytest.mark.parametrize("first", [None, 1e4], ids=["no_outlier", "outlier_first"])
@pytest.mark.parametrize("entries", [10**7, pytest.param(10**8, marks=pytest.mark.slow)], ids=["1e7", "1e8"])
def test_a_spread_far_below_the_mean(entries, first, scanned):
    x = np.random.default_rng(3).standard_normal(entries, np.float32)
    x *= np.float32(0.01)
    x += np.float32(100)
    if first is not None:
        x[0] = first
    row = scanned({"x": x})["x"].row
    words, counts = np.unique(x.view(np.uint32), return_counts=True)
    assert words.size < entries // 100
    assert_counts(row, x)
    assert_moments(row, words.view(np.float32).astype(np.float64), counts, rtol=1e-9, higher=1e-9)
    quantiles = np.quantile(x, list(QUANTILES.values()), method="inverted_cdf")
    np.testing.assert_allclose([row[column] for column in QUANTILES], quantiles, rtol=2.0**-8)


def test_float64_beyond_the_range_of_float32(scanned):
    x = np.array([1e300, -2e300, 3e250, 1.0, -2.0, 0.0, 3e-300, 4.0])
    row = scanned({"x": x, "matrix": x.reshape(2, 4)})["x"].row
    assert_counts(row, x)
    assert row["mean"] == pytest.approx(x.mean(), rel=1e-12)
    assert row["l1"] == pytest.approx(np.abs(x).sum(), rel=1e-12)
    largest = np.finfo(np.float32).max
    edges = np.clip(x, -largest, largest)
    quantiles = np.quantile(edges, list(QUANTILES.values()), method="inverted_cdf")
    np.testing.assert_allclose([row[column] for column in QUANTILES], quantiles, rtol=2.0**-8, atol=2.0**-133)
    assert row["reason"] == "3 entries lie beyond float32's range; quantiles take them at its edge"
    assert [row[name] for name in ("qerr_int8", "qerr_fp8_e4m3", *BLOCKS)] == [None] * 6


@pytest.mark.parametrize("scale", [1e150, 1e125, 1e80, 1e-80, 1e-125, 1e-160])
def test_float64_whose_powers_leave_its_range(scale, scanned):
    """Where a power overflows or vanishes the column is null; nothing is wrong and nothing stops the scan."""
    x = np.random.default_rng(4).normal(size=1009) * scale
    row = scanned({"x": x, "fine": np.ones(3)})["x"].row
    expected = exact_moments(*finite_multiset(x))
    assert row["l1"] == pytest.approx(expected["l1"], rel=1e-9)
    for name in ("std", "l2", "skewness", "kurtosis"):
        assert row[name] is None or row[name] == pytest.approx(expected[name], rel=1e-9, abs=0), name


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_integers(dtype, scanned, cut_at):
    cut_at(PIECE)
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(5)
    x = rng.integers(limits.min, limits.max, (100, 83), dtype, endpoint=True)
    x[3, :7] = 0
    x[0, 0], x[99, 82] = limits.max, limits.min
    row = scanned({"x": x, "none": x[:0]})["x"].row
    assert (row["count"], row["nan"], row["posinf"], row["neginf"]) == (x.size, 0, 0, 0)
    assert row["zeros"] == (x == 0).sum()
    assert (row["min"], row["max"]) == (float(limits.min), float(limits.max))
    assert row["absmax"] == float(max(-int(limits.min), int(limits.max)))
    assert row["mean"] == pytest.approx(sum(x.reshape(-1).tolist()) / x.size, rel=1e-12)
    assert row["content_hash"] == blake3(x.tobytes()).hexdigest()
    if x.itemsize <= 2:
        assert row["distinct"] == np.unique(x).size
        quantiles = np.quantile(x, list(QUANTILES.values()), method="inverted_cdf")
        np.testing.assert_array_equal([row[column] for column in QUANTILES], quantiles)
        assert_moments(row, *finite_multiset(x), rtol=1e-12, higher=1e-9)
        np.testing.assert_allclose(row["row_l2"], np.linalg.norm(x.astype(np.float64), axis=1), rtol=SIXTEEN_BITS)
    else:
        assert [row[name] for name in ("distinct", "std", "q50", "row_l2")] == [None] * 4


def test_booleans(scanned):
    x = np.random.default_rng(6).random((19, 23)) < 0.3
    row = scanned({"x": x})["x"].row
    assert (row["count"], row["zeros"], row["distinct"], row["min"], row["max"]) == (x.size, (~x).sum(), 2, 0, 1)
    assert row["mean"] == pytest.approx(x.mean(), rel=1e-12)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128], ids=["C64", "C128"])
def test_complex_numbers_by_magnitude(dtype, scanned, cut_at):
    cut_at(PIECE)
    rng = np.random.default_rng(7)
    x = (rng.normal(size=10_007) + 1j * rng.normal(size=10_007)).astype(dtype)
    x[:8] = [0, 0, complex(np.nan, 1), complex(0, np.nan), complex(np.inf, 0), complex(1, -np.inf), -0.0, 3 + 4j]
    row = scanned({"x": x})["x"].row
    finite = np.abs(x[np.isfinite(x)].astype(np.complex128))
    assert (row["nan"], row["posinf"], row["neginf"], row["zeros"]) == (2, 2, 0, 3)
    assert row["l1"] == pytest.approx(finite.sum(), rel=1e-12)
    assert row["l2"] == pytest.approx(np.linalg.norm(finite), rel=1e-12)
    assert row["absmax"] == pytest.approx(finite.max(), rel=1e-15)
    assert [row[name] for name in ("min", "max", "mean", "std", "q50")] == [None] * 5


@pytest.mark.parametrize("stored", [np.float32, np.float64], ids=["F32", "F64"])
@pytest.mark.parametrize("held", [ml_dtypes.bfloat16, np.float16, np.float32], ids=["BF16", "F16", "F32"])
def test_effective_dtype(held, stored, scanned):
    x = np.random.default_rng(8).normal(size=(37, 41)).astype(held).astype(stored)
    other = x.copy()
    other[-1, -1] = np.nextafter(stored(1), stored(2))
    report = scanned({"x": x, "other": other})
    of_float32 = {ml_dtypes.bfloat16: "BF16", np.float16: "F16", np.float32: "F32"}[held]
    assert report["x"]["effective_dtype"] == (of_float32 if stored is np.float32 else "F32")
    assert report["other"]["effective_dtype"] == ("F32" if stored is np.float32 else "F64")


def test_bfloat16_in_the_disguise_of_float32_is_exact(scanned):
    narrow = (np.random.default_rng(9).normal(size=(101, 103)) * 0.02).astype(ml_dtypes.bfloat16)
    report = scanned({"narrow": narrow, "wide": narrow.astype(np.float32)})
    same = [*QUANTILES, *SPARSITIES, "min", "max", "zeros", "distinct", "entropy", "exponent_entropy"]
    assert [report["wide"][column] for column in same] == [report["narrow"][column] for column in same]
    for column in ("qerr_int8", "qerr_fp8_e4m3", *BLOCKS):
        assert report["wide"][column] == pytest.approx(report["narrow"][column], rel=1e-12), column


def channel_cases(dtype):
    rng = np.random.default_rng(10)

    def draw(*shape):
        return (rng.normal(size=shape) * rng.exponential(size=shape[-1]) + 0.1).astype(dtype)

    yield "mlp.up_proj.weight", draw(19, 83), (0,), (1,)
    yield "experts.w1.weight", draw(5, 7, 11), (0, 1), (2,)
    yield "conv1.weight", draw(6, 5, 3, 2), (0,), (1,)
    yield "conv2.kernel", draw(3, 2, 5, 6), (3,), (2,)
    yield "conv1d.weight", draw(6, 5, 3), (0,), (1,)
    yield "rows.weight", draw(131, 1), (0,), (1,)
    yield "wide.weight", draw(2, 9001), (0,), (1,)


def by_channel(x, kept):
    """Statistics of the finite entries of each channel: those that differ along the axes `kept`."""
    channels = np.moveaxis(x, kept, range(len(kept))).reshape(math.prod(x.shape[axis] for axis in kept), -1)
    finite = np.isfinite(channels)
    channels = np.where(finite, channels, 0.0)
    n = finite.sum(axis=1)
    return np.sqrt((channels**2).sum(1)), np.abs(channels).max(1), channels.sum(1) / n, np.abs(channels).sum(1) / n


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float64], ids=["F32", "BF16", "F64"])
@pytest.mark.parametrize("entries", [1 << 21, 200], ids=["whole", "cut"])
def test_channels(entries, dtype, scanned, cut_at):
    cut_at(entries)
    cases = list(channel_cases(dtype))
    report = scanned({name: x for name, x, _, _ in cases})
    for name, x, rows, cols in cases:
        entry = report[name]
        for side, axes in (("row", rows), ("col", cols)):
            norm, absmax, mean, mean_magnitude = by_channel(x.astype(np.float64), axes)
            np.testing.assert_allclose(entry[f"{side}_l2"], norm, rtol=SIXTEEN_BITS, err_msg=name)
            np.testing.assert_array_equal(entry[f"{side}_absmax"], absmax.astype(np.float32), err_msg=name)
            error = np.abs(entry[f"{side}_mean"] - mean)
            assert (error <= SIXTEEN_BITS * np.abs(mean) + 1e-6 * mean_magnitude).all(), name


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["F32", "BF16"])
def test_dead_outlying_and_unreadable_channels(dtype, scanned):
    """A channel of NaN alone is not dead: nothing is known about it."""
    x = np.random.default_rng(11).normal(size=(40, 30)).astype(np.float32)
    x[[3, 5]] = 0
    x[7] *= 100
    x[11] = np.nan
    x[13, 4], x[14, 4] = np.nan, np.inf
    x[:, 17] = 0
    x[11, 17] = np.nan
    row = scanned({"x": x.astype(dtype)})["x"].row
    stored = x.astype(dtype).astype(np.float64)
    with np.errstate(invalid="ignore"):
        norm, _, mean, _ = by_channel(stored, (0,))
    np.testing.assert_allclose(row["row_l2"], norm, rtol=SIXTEEN_BITS)
    np.testing.assert_allclose(row["row_mean"], mean, rtol=SIXTEEN_BITS, atol=1e-6)
    assert np.isnan(row["row_mean"][11])
    assert (row["dead_rows"], row["dead_cols"]) == (2, 1)
    assert (row["outlier_rows"], row["outlier_cols"]) == (1, 0)


def test_dead_channels_do_not_make_the_others_outlying(scanned):
    """The median is that of the live ones."""
    x = np.random.default_rng(20).normal(size=(40, 30)).astype(np.float32)
    x[10:] = 0
    x[7] *= 100
    row = scanned({"x": x})["x"].row
    assert (row["dead_rows"], row["outlier_rows"]) == (30, 1)


@pytest.mark.parametrize("name", ["conv.kernel", "conv.weight", "plain"])
def test_sides_with_too_many_channels_say_so(name, scanned):
    """Beyond 2^20 rows or columns the lists are null and the reason says why."""
    shape = {"conv.kernel": (1024, 1025, 1, 1), "conv.weight": (1, 1, 1024, 1025), "plain": (1024 * 1025, 1)}[name]
    row = scanned({name: np.ones(shape, np.int8)})[name].row
    sides = {side: row[f"{side}_l2"] is not None for side in ("row", "col")}
    assert sorted(sides.values()) == [False, True]
    missing = next(side for side, there in sides.items() if not there)
    assert row["reason"] == f"{missing}s: 1,049,600 channels, kept up to 1,048,576"


def nearest(t, levels):
    return levels[np.abs(t[:, :, None] - levels).argmin(axis=2)]


def four_significant_bits(s):
    mantissa, exponent = np.frexp(s)
    return np.ldexp(np.rint(mantissa * 16) / 16, exponent)


E2M1 = np.unique(np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float64))
NF4 = np.array(  # as bitsandbytes has them
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)
QUANTISERS = {
    "qerr_int4_32": (32, lambda m: m / 7, np.arange(-7.0, 8)),
    "qerr_nf4_64": (64, lambda m: m, NF4),
    "qerr_mxfp4_32": (32, lambda m: np.exp2(np.floor(np.log2(m)) - 2), E2M1),
    "qerr_nvfp4_16": (16, lambda m: four_significant_bits(m / 6), E2M1),
}


def block_error(matrix, size, scale, levels):
    blocks = np.pad(matrix, ((0, 0), (0, -matrix.shape[1] % size))).reshape(-1, size)
    greatest = np.abs(blocks).max(axis=1, keepdims=True)
    s = scale(np.where(greatest > 0, greatest, 1.0))
    return np.linalg.norm(blocks - nearest(blocks / s, levels) * s) / np.linalg.norm(matrix)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16, np.float16], ids=lambda d: d.__name__)
@pytest.mark.parametrize("entries", [1 << 21, 500], ids=["whole", "cut"])
def test_block_quantisers(entries, dtype, scanned, cut_at):
    cut_at(entries)
    rng = np.random.default_rng(12)
    x = (rng.standard_t(4, (37, 83)) * rng.exponential(size=(37, 1))).astype(dtype)
    x[5] = 0
    tree = {"x": x, "conv.weight": x[:36].reshape(6, 6, 83), "long": x.reshape(-1)}
    report = scanned(tree)
    views = {"x": x, "conv.weight": x[:36].reshape(6, -1), "long": x.reshape(1, -1)}
    for name, view in views.items():
        for column, quantiser in QUANTISERS.items():
            expected = block_error(view.astype(np.float64), *quantiser)
            assert report[name][column] == pytest.approx(expected, rel=1e-5), (name, column)


def test_infinities_and_nan_do_not_reach_the_blocks(scanned):
    x = np.random.default_rng(13).normal(size=(7, 96)).astype(np.float32)
    spoilt = x.copy()
    spoilt[2, 5], spoilt[4, 90], spoilt[6, 0] = np.nan, np.inf, -np.inf
    x[spoilt != x] = 0
    report = scanned({"x": x, "spoilt": spoilt})
    for column in QUANTISERS:
        assert report["spoilt"][column] == pytest.approx(report["x"][column], rel=1e-7), column


@pytest.mark.parametrize("unit", [1e-30, 1e-12, 1e12, 1e30])
def test_the_unit_of_the_weights_does_not_matter_to_their_rounding(unit, scanned):
    x = np.random.default_rng(14).normal(size=(19, 128)).astype(np.float32)
    power = np.float32(2.0 ** round(math.log2(unit)))
    report = scanned({"x": x, "scaled": x * power})
    for column in (*QUANTISERS, "qerr_int8", "qerr_fp8_e4m3"):
        assert report["scaled"][column] == pytest.approx(report["x"][column], rel=1e-9), column


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float64, np.int8, ml_dtypes.float8_e4m3fn, ml_dtypes.bfloat16], ids=lambda d: d.__name__
)
def test_two_of_four(dtype, scanned, cut_at):
    cut_at(100)
    rng = np.random.default_rng(15)
    x = rng.integers(1, 8, (37, 23)).astype(dtype)
    x[rng.random(x.shape) < 0.4] = 0
    tree = {"x": x, "conv.weight": x[:36].reshape(6, 6, 23), "short": x[:, :3], "vector": x.reshape(-1)}
    report = scanned(tree)
    assert report["x"]["sparsity_2of4"] == ((x[:, :20] == 0).reshape(37, 5, 4).sum(2) >= 2).mean()
    flat = x[:36].reshape(6, -1)[:, : 138 // 4 * 4]
    assert report["conv.weight"]["sparsity_2of4"] == ((flat == 0).reshape(6, -1, 4).sum(2) >= 2).mean()
    assert report["vector"]["sparsity_2of4"] == ((x.reshape(-1)[:848] == 0).reshape(-1, 4).sum(1) >= 2).mean()
    assert report["short"]["sparsity_2of4"] is None


CUT_DTYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, np.int64, np.complex64)


@pytest.mark.parametrize("dtype", CUT_DTYPES, ids=lambda d: d.__name__)
def test_any_cut_gives_the_same_counts(dtype, scanned, cut_at):
    rng = np.random.default_rng(16)
    x = np.where(rng.random((61, 331)) < 0.1, 0, rng.normal(0, 3, (61, 331))).astype(dtype)
    kernel = x[:, :330].reshape(61, 11, 30)
    tree = {"matrix": x, "stack": x[:60].reshape(5, 12, 331), "vector": x.reshape(-1), "conv.weight": kernel}
    whole = scanned(tree)
    sums = {*MOMENTS, *BLOCKS, *WHOLE} if np.dtype(dtype).itemsize > 2 else set(BLOCKS)
    for entries in (PIECE, 1000, 331, 330):
        cut_at(entries)
        cut = scanned(tree)
        for name in tree:
            assert_rows_agree(plain(cut[name].row), plain(whole[name].row), sums)


def assert_rows_agree(row, expected, sums, *, rtol=1e-12):
    """Sums to their digits, channels to theirs, everything else to the bit."""
    for column, value in expected.items():
        if column in sums and value is not None:
            digits = 1e-5 if column in BLOCKS else rtol
            assert row[column] == pytest.approx(value, rel=digits, abs=digits), column
        elif column.endswith(("_l2", "_mean")) and value is not None:
            np.testing.assert_allclose(row[column], value, rtol=2.0**-15, atol=1e-6, err_msg=column)
        else:
            assert row[column] == value, column


@pytest.mark.parametrize("size", [0, 1, stream.PIECE_ENTRIES - 1, stream.PIECE_ENTRIES, stream.PIECE_ENTRIES + 1])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["F32", "BF16"])
def test_sizes_about_a_piece(dtype, size, scanned):
    x = (np.random.default_rng(17).standard_normal(size, np.float32) * np.float32(0.02)).astype(dtype)
    report = scanned({"x": x, "column": x[:, None]})
    exact = np.dtype(dtype).itemsize == 2
    for name in report:
        row = report[name].row
        assert_counts(row, x.astype(np.float64))
        assert row["content_hash"] == blake3(x.tobytes()).hexdigest()
        if size and exact:
            assert_moments(row, *finite_multiset(x), rtol=1e-12, higher=1e-9)
        elif size:
            assert row["l2"] == pytest.approx(np.linalg.norm(x.astype(np.float64)), rel=1e-9)
            assert row["std"] == pytest.approx(x.std(dtype=np.float64), rel=1e-9)


def mixed_tree():
    rng = np.random.default_rng(18)
    x = rng.normal(size=(32, 64)).astype(np.float32)
    x[3], x[4, 5], x[6, 7], x[0, :40] = 0, np.nan, np.inf, 0
    return {
        "layers.0.mlp.up_proj.weight": x,
        "bfloat16": x.astype(ml_dtypes.bfloat16),
        "half": x.astype(np.float16),
        "eight": np.nan_to_num(x, posinf=2).astype(ml_dtypes.float8_e4m3fn),
        "double": x.astype(np.float64) / 3,
        "integers": (np.nan_to_num(x, posinf=2) * 1000).astype(np.int32),
        "bytes": (np.nan_to_num(x, posinf=2) * 10).astype(np.int8),
        "flags": x > 0,
        "none": x[:0],
    }


def test_every_column_is_there_and_filled_by_some_tensor(scanned):
    report = scanned(mixed_tree() | {"text": np.array(["no weights"])})
    table = report.table(lists=True)
    assert list(table.columns) == [*(column.name for column in SCAN), "tied_to"]
    filled = {column for column in table.columns if table[column].notna().any()}
    assert set(table.columns) - filled == {"step", "tied_to"}


def test_every_tensor_has_a_row_in_the_order_of_the_checkpoint(scanned):
    tree = mixed_tree() | {"text": np.array(["no weights"])}
    rows = scanned(tree).table()
    assert sorted(rows["name"]) == sorted(tree)
    assert list(rows["order"]) == list(range(len(tree)))
    checkpoint = weighbridge.open(tree)
    assert list(rows["name"]) == [*checkpoint, *(fault.name for fault in checkpoint.faults)]
    failed = rows[rows["status"] != "done"]
    assert list(failed["name"]) == ["text"]
    assert failed["reason"].tolist() == ["text: dtype <U10 holds no weights"]


def test_roles_and_layers_are_told_from_names(scanned):
    row = scanned(mixed_tree())["layers.0.mlp.up_proj.weight"].row
    assert (row["role"], row["layer"], row["part"], row["step"]) == ("mlp_up", 0, "", None)


def test_include_and_exclude(scanned):
    tree = {name: np.ones(3, np.float32) for name in ("a.weight", "a.bias", "b.weight", "b.bias")}
    assert list(scanned(tree, include=["a.*", "*.bias"])) == ["a.bias", "a.weight", "b.bias"]
    assert list(scanned(tree, include=["a.*"], exclude=["*.bias"])) == ["a.weight"]
    with pytest.raises(BadArgument, match="leave none of 4 tensors"):
        scanned(tree, include=["A.*"])


def test_the_forms_of_the_kernels_agree(scanned, monkeypatch):
    """NumPy and Numba against JAX, on one tree: counts to the bit, sums to their stated digits."""
    tree = mixed_tree()
    host = scanned(tree)
    monkeypatch.setattr(variants, "select", lambda device: variants.on_jax("cpu"))
    on_jax = scanned(tree)
    assert set(host.table()["variant"]) == {"host"}
    assert set(on_jax.table()["variant"]) == {"jax:cpu"}
    for name in tree:
        expected, got = plain(host[name].row, {"variant"}), plain(on_jax[name].row, {"variant"})
        assert_rows_agree(got, expected, {*MOMENTS, *BLOCKS, *WHOLE}, rtol=1e-9)


_ON_DEVICES = """
import sys, ml_dtypes, numpy as np, jax, weighbridge
from weighbridge import devices, stream
from weighbridge_kernels import variants
assert len(jax.devices()) == int(sys.argv[2])
stream.PIECE_ENTRIES, stream.pieces.__defaults__ = 4096, (4096,)
devices.select = lambda device: variants.on_jax("cpu")
rng = np.random.default_rng(19)
tree = {f"layers.{i}.weight": rng.normal(i, 1, (140 + i, 500)).astype(np.float32) for i in range(4)}
tree |= {f"layers.{i}.bias": rng.normal(i, 1, 40 + i).astype(ml_dtypes.bfloat16) for i in range(4)}
weighbridge.scan(tree, report=sys.argv[1])
"""


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_devices_share_a_scan(count, tmp_path):
    """Two or three virtual devices give what one gives: counts to the bit, sums to their stated digits."""
    reports = []
    for n in (1, count):
        flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={n}", "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", _ON_DEVICES, str(tmp_path / str(n)), str(n)]
        subprocess.run(command, check=True, env=os.environ | flags, capture_output=True, text=True)
        reports.append(weighbridge.Report(tmp_path / str(n)))
    alone, shared = reports
    assert list(alone) == list(shared)
    for name in alone:
        assert_rows_agree(plain(shared[name].row), plain(alone[name].row), {*MOMENTS, *BLOCKS, *WHOLE}, rtol=1e-9)


@pytest.mark.parametrize(("memory", "threads"), [(stream.MIN_MEMORY, 1), (1 << 30, 2), (1 << 26, 7)])
def test_neither_memory_nor_threads_change_the_table(memory, threads, scanned, cut_at, monkeypatch):
    cut_at(PIECE)
    rng = np.random.default_rng(19)
    tree = {f"layers.{i}.weight": rng.normal(i, 1, (40 + i, 500)).astype(np.float32) for i in range(20)}
    tree |= {f"layers.{i}.bias": rng.normal(i, 1, 40 + i).astype(ml_dtypes.bfloat16) for i in range(20)}
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    expected = list(scanned(tree).rows(lists=True))
    monkeypatch.setattr(os, "cpu_count", lambda: threads)
    assert list(scanned(tree, memory=memory).rows(lists=True)) == expected


@pytest.mark.parametrize("memory", [-1, 0, stream.MIN_MEMORY - 1])
def test_too_little_memory_is_refused_before_anything_is_written(memory, tmp_path):
    with pytest.raises(BadArgument, match=r"memory is .* expected at least 67,108,864"):
        weighbridge.scan({"x": np.ones(3)}, report=tmp_path / "report", memory=memory)
    assert not (tmp_path / "report").exists()


def test_progress_counts_bytes_and_tensors(scanned, cut_at):
    cut_at(PIECE)
    tree = {"a": np.ones((50, 500), np.float32), "b": np.ones(7, np.int8), "c": np.ones(0, np.int8)}
    told = []
    scanned(tree, progress=told.append)
    assert told == sorted(told, key=lambda now: (now.bytes_done, now.tensors_done))
    assert {(now.bytes_total, now.tensors_total) for now in told} == {(100_007, 3)}
    assert told[-1][:4] == (100_007, 100_007, 3, 3)


def test_a_real_network(digits, scanned):
    """Trained weights, against NumPy on what safetensors reads."""
    load_file = pytest.importorskip("safetensors.numpy").load_file
    report = scanned(digits)
    for name, array in load_file(digits).items():
        row = report[name].row
        assert row["shape"].tolist() == list(array.shape)
        assert_counts(row, float64(array))
        assert_moments(row, *finite_multiset(array), rtol=1e-9, higher=1e-9)
        assert row["content_hash"] == blake3(array.tobytes()).hexdigest()


def test_one_pattern_may_be_given_by_itself(scanned):
    report = scanned({"a.weight": np.ones(3, np.float32), "b.weight": np.ones(3, np.float32)}, include="a*")
    assert list(report) == ["a.weight"]
