"""Counts of bit patterns and of upper halves, against `np.bincount` and NumPy's own classification."""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import numpy as np
import pytest

from weighbridge_kernels.variants import Variant

SIZES = (0, 1, 2, 3, 255, 256, 257, 4099, 65537)
SPECIAL_WORDS = {
    "+0": 0x00000000,
    "-0": 0x80000000,
    "least subnormal": 0x00000001,
    "-least subnormal": 0x80000001,
    "subnormal of bin 0": 0x0000FFFF,
    "greatest subnormal": 0x007FFFFF,
    "least normal": 0x00800000,
    "one": 0x3F800000,
    "greatest": 0x7F7FFFFF,
    "-greatest": 0xFF7FFFFF,
    "+inf": 0x7F800000,
    "-inf": 0xFF800000,
    "NaN in the bin of +inf": 0x7F800001,
    "NaN in the bin of -inf": 0xFF80FFFF,
    "quiet NaN": 0x7FC00000,
    "-quiet NaN": 0xFFC00000,
    "NaN of all ones": 0xFFFFFFFF,
}


@pytest.fixture(params=["jax", "host"])
def form(request: pytest.FixtureRequest) -> ModuleType:
    """The module itself, for what a variant does not offer: codes beyond `valid`."""
    if request.param == "host":
        pytest.importorskip("numba")
        return import_module("weighbridge_kernels.bit_histogram_host")
    return import_module("weighbridge_kernels.bit_histogram")


def uniform(size: int, patterns: int, dtype: type) -> np.ndarray:
    return np.random.default_rng(size).integers(0, patterns, size).astype(dtype)


def one_run(size: int, patterns: int, dtype: type) -> np.ndarray:
    return np.full(size, patterns - 1, dtype)


def ends(size: int, patterns: int, dtype: type) -> np.ndarray:
    return np.where(np.arange(size) % 3, 0, patterns - 1).astype(dtype)


def expected_of_words(words: np.ndarray) -> tuple[np.ndarray, int, list[int]]:
    x = words.view(np.float32)
    zero = x == 0
    classes = [np.isnan(x), np.isposinf(x), np.isneginf(x), zero & ~np.signbit(x), zero & np.signbit(x)]
    low = int(np.bitwise_or.reduce(words & 0xFFFF, initial=0))
    return np.bincount(words >> 16, minlength=65536), low, [int(c.sum()) for c in classes]


def assert_histogram(got: tuple, words: np.ndarray) -> None:
    counts, low, classes = expected_of_words(words)
    np.testing.assert_array_equal(got[0], counts)
    assert int(got[1]) == low
    assert np.asarray(got[2]).tolist() == classes


@pytest.mark.parametrize("content", [uniform, one_run, ends], ids=lambda f: f.__name__)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("dtype", "patterns"),
    [(np.uint8, 16), (np.uint8, 64), (np.uint8, 256), (np.uint16, 65536)],
    ids=["u8-16", "u8-64", "u8-256", "u16"],
)
def test_equals_bincount(variant: Variant, dtype: type, patterns: int, size: int, content: Callable) -> None:
    codes = content(size, patterns, dtype)
    counts = variant.bit_histogram(variant.put(codes), patterns)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, np.bincount(codes, minlength=patterns))


@pytest.mark.parametrize("valid", [0, 1, 2, 511, 512, 1022, 1023])
@pytest.mark.parametrize(("dtype", "patterns"), [(np.uint8, 256), (np.uint16, 65536)], ids=["u8", "u16"])
def test_padding_is_not_counted(form: ModuleType, dtype: type, patterns: int, valid: int) -> None:
    codes = uniform(1023, patterns, dtype)
    counts = np.asarray(form.bit_histogram(codes, valid, patterns=patterns))
    np.testing.assert_array_equal(counts, np.bincount(codes[:valid], minlength=patterns))


@pytest.mark.parametrize("size", SIZES)
def test_high_halves(variant: Variant, size: int) -> None:
    words = np.random.default_rng(size).integers(0, 1 << 32, size, dtype=np.uint32)
    assert_histogram(variant.high_half_histogram(variant.put(words)), words)


@pytest.mark.parametrize("word", SPECIAL_WORDS.values(), ids=list(SPECIAL_WORDS))
def test_a_special_word_among_ordinary_ones(variant: Variant, word: int) -> None:
    """First, in the middle and, the count being odd, last: the entry that stands outside every pair."""
    words = np.random.default_rng(0).normal(size=513).astype(np.float32).view(np.uint32)
    words[[0, 256, 512]] = word
    assert_histogram(variant.high_half_histogram(variant.put(words)), words)


def test_all_special_words_together(variant: Variant) -> None:
    words = np.repeat(np.array([*SPECIAL_WORDS.values()], np.uint32), np.arange(len(SPECIAL_WORDS)) + 1)
    assert_histogram(variant.high_half_histogram(variant.put(words)), words)


@pytest.mark.parametrize("at", [0, 1, 299, 300])
@pytest.mark.parametrize("bit", [0, 7, 15])
def test_one_low_bit_of_one_word_is_seen(variant: Variant, bit: int, at: int) -> None:
    words = np.full(301, 0x3F800000, np.uint32)
    words[at] |= 1 << bit
    assert variant.high_half_histogram(variant.put(words))[1] == 1 << bit


def test_bfloat16_in_float32_has_no_low_half(variant: Variant) -> None:
    words = np.arange(65536, dtype=np.uint32) << 16
    counts, low, classes = variant.high_half_histogram(variant.put(words))
    assert low == 0
    assert (counts == 1).all()
    assert classes.tolist() == [2 * 127, 1, 1, 1, 1]


@pytest.mark.parametrize("valid", [0, 1, 2, 511, 1022, 1023])
def test_padding_words_are_not_counted(form: ModuleType, valid: int) -> None:
    """Padding that would show in every result: NaN with a low half."""
    words = np.random.default_rng(1).integers(0, 1 << 16, 1023, dtype=np.uint32) << 16
    words[valid:] = 0x7F80FFFF
    assert_histogram(form.high_half_histogram(words, valid), words[:valid])


@pytest.mark.parametrize("cuts", [(0,), (1,), (4098,), (4099,), (1, 2, 3), (100, 100, 2001, 4000)], ids=str)
def test_parts_add_up(variant: Variant, cuts: tuple[int, ...]) -> None:
    words = np.random.default_rng(2).integers(0, 1 << 32, 4099, dtype=np.uint32)
    words[::7] = 0
    parts = [variant.high_half_histogram(variant.put(part)) for part in np.split(words, cuts)]
    counts, low, classes = zip(*parts, strict=True)
    assert_histogram((sum(counts), np.bitwise_or.reduce(low), sum(classes)), words)
    codes = (words >> 16).astype(np.uint16)
    added = sum(variant.bit_histogram(variant.put(part), 65536) for part in np.split(codes, cuts))
    np.testing.assert_array_equal(added, np.bincount(codes, minlength=65536))


@pytest.mark.parametrize("valid", [0, 1, 999, 1000])
@pytest.mark.parametrize(("dtype", "patterns"), [(np.uint8, 16), (np.uint8, 256), (np.uint16, 65536)])
@pytest.mark.parametrize("codes_of", [uniform, one_run, ends])
def test_sorting_counts_the_same(codes_of: Callable, dtype: type, patterns: int, valid: int) -> None:
    from weighbridge_kernels.bit_histogram import bit_histogram

    codes = codes_of(1000, patterns, dtype)
    counts = bit_histogram(codes, valid, patterns=patterns, method="sort")
    np.testing.assert_array_equal(counts, np.bincount(codes[:valid], minlength=patterns))


def test_sorting_words_counts_the_same() -> None:
    from weighbridge_kernels.bit_histogram import high_half_histogram

    words = np.array(list(SPECIAL_WORDS.values()) * 3, np.uint32)
    for scattered, by_sorting in zip(
        high_half_histogram(words, 40), high_half_histogram(words, 40, method="sort"), strict=True
    ):
        np.testing.assert_array_equal(scattered, by_sorting)
