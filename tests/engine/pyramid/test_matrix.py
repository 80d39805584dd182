"""Windows of tensors as matrices: entries and reductions of any window, however they are read and folded."""

from collections.abc import Callable

import numpy as np
import pytest

import weighbridge
from weighbridge import BadArgument, Tensor
from weighbridge.checkpoints.dtypes import SAFETENSORS
from weighbridge.matrix import Folded, MatrixView, matrix_view
from weighbridge.pyramid import Matrix, WeightMatrix, matrix_of
from weighbridge.pyramid import matrix as matrices
from weighbridge.pyramid.matrix import MosaicMatrix

DTYPES = [name for name, dtype in SAFETENSORS.items() if dtype.kind != "complex"]
WINDOWS = [
    (slice(0, 77), slice(0, 92)),
    (slice(3, 4), slice(5, 6)),
    (slice(76, 77), slice(0, 92)),
    (slice(8, 41), slice(33, 92)),
    (slice(0, 77), slice(91, 92)),
]


def weight_matrix(tensor: Tensor) -> WeightMatrix:
    return WeightMatrix(tensor, matrix_view(tensor.name, tensor.shape, "other"))


def of_array(name: str, array: np.ndarray) -> Matrix:
    return matrix_of(weighbridge.open({name: array})[name])


@pytest.mark.parametrize("reading", ["row by row", "a few rows", "at once"])
@pytest.mark.parametrize("name", DTYPES)
def test_entries_are_the_stored_values(
    name: str, reading: str, stored: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrices, "_GAP", 0 if reading == "row by row" else 1 << 14)
    monkeypatch.setattr(matrices, "_WHOLE_ROWS", 300 if reading == "a few rows" else 1 << 22)
    tensor, x = stored(name, (77, 92))
    matrix = weight_matrix(tensor)
    for rows, cols in WINDOWS:
        got = matrix.entries(rows, cols)
        assert got.dtype == (np.float32 if tensor.dtype.bits <= 16 else tensor.dtype.array)
        np.testing.assert_array_equal(got, x[rows, cols].astype(got.dtype))


@pytest.mark.parametrize("name", DTYPES)
def test_reductions_of_a_window(name: str, stored: Callable) -> None:
    tensor, x = stored(name, (77, 92))
    got = weight_matrix(tensor).reduced(slice(9, 40), slice(11, 30), (31, 7))
    for j in range(3):
        part = x[9:40, 11:30][:, 7 * j : 7 * j + 7]
        kept = part[np.isfinite(part)]
        assert (got.least[0, j], got.greatest[0, j]) == (kept.min(), kept.max())
        counts = got.zeros[0, j], got.nan[0, j], got.inf[0, j]
        assert counts == ((part == 0).sum(), np.isnan(part).sum(), np.isinf(part).sum())


def test_a_window_of_few_columns_reads_no_more(watched: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """And never a large matrix at once for a column of it."""
    tensor = watched(np.zeros((1000, 500), np.float32))
    most = [0]
    read_into = type(tensor).read_into

    def counted(self: Tensor, buffer: memoryview, offset: int) -> None:
        most[0] = max(most[0], len(buffer))
        read_into(self, buffer, offset)

    monkeypatch.setattr(type(tensor), "read_into", counted)
    monkeypatch.setattr(matrices, "_WHOLE_ROWS", 5000)
    weight_matrix(tensor).entries(slice(0, 1000), slice(7, 8))
    assert most[0] == 5000 * 4
    monkeypatch.setattr(matrices, "_GAP", 1000)
    tensor.bytes_read = 0
    weight_matrix(tensor).entries(slice(10, 20), slice(7, 9))
    assert tensor.bytes_read == 10 * 2 * 4


def test_without_a_pyramid_there_are_no_levels(watched: type, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = weight_matrix(watched(np.zeros((20, 30), np.float32)))
    assert matrix.levels == 0
    assert not matrix.needs_pyramid
    with pytest.raises(BadArgument, match="w: its pyramid is not there yet; build it first"):
        matrix.level(0, slice(0, 1), slice(0, 1))
    monkeypatch.setattr(matrices, "DIRECT_ENTRIES", 599)
    assert matrix.needs_pyramid
    monkeypatch.setattr(matrices, "DIRECT_ENTRIES", 600)
    assert not matrix.needs_pyramid


@pytest.mark.parametrize("shape", [(6, 5, 3, 4), (6, 5, 7), (6, 5, 2, 3, 4), (1, 1, 1, 1)], ids=str)
def test_a_convolution_stored_outputs_first(shape: tuple[int, ...]) -> None:
    """Filter (o, i) lies at its outputs' rows and its inputs' columns; three axes of space have two folded down."""
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    matrix = of_array("conv1.weight", x)
    assert isinstance(matrix, MosaicMatrix)
    down, across = matrix.shape[0] // shape[0], matrix.shape[1] // shape[1]
    assert matrix.axes == ((shape[0], down), (shape[1], across))
    whole = matrix.entries(slice(0, matrix.shape[0]), slice(0, matrix.shape[1]))
    for (o, i, *space), value in np.ndenumerate(x):
        place = np.ravel_multi_index(space, shape[2:])
        assert whole[o * down + place // across, i * across + place % across] == value


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (7, 5, 6), (2, 3, 4, 5, 6)], ids=str)
def test_a_convolution_stored_space_first(shape: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    matrix = of_array("params.Conv_0.kernel", x)
    assert isinstance(matrix, MosaicMatrix)
    inputs, outputs = shape[-2:]
    down, across = matrix.shape[0] // outputs, matrix.shape[1] // inputs
    assert matrix.axes == ((outputs, down), (inputs, across))
    whole = matrix.entries(slice(0, matrix.shape[0]), slice(0, matrix.shape[1]))
    for (*space, i, o), value in np.ndenumerate(x):
        place = np.ravel_multi_index(space, shape[:-2])
        assert whole[o * down + place // across, i * across + place % across] == value


@pytest.mark.parametrize("name", ["BF16", "F8_E4M3", "F4", "BOOL", "U64", "F64"])
def test_a_mosaic_of_any_type(name: str, stored: Callable) -> None:
    tensor, x = stored(name, (4, 3, 2, 5))
    mosaic = MosaicMatrix(tensor, MatrixView(tensor.shape, "out_in_space"))
    expected = x.transpose(0, 2, 1, 3).reshape(8, 15)
    np.testing.assert_array_equal(mosaic.entries(slice(1, 7), slice(2, 14)), expected[1:7, 2:14])
    got, kept = mosaic.reduced(slice(0, 8), slice(0, 15), (8, 15)), expected[np.isfinite(expected)]
    assert (got.least[0, 0], got.greatest[0, 0]) == (kept.min(), kept.max())


def test_a_mosaic_has_no_levels() -> None:
    matrix = of_array("conv1.weight", np.zeros((4, 3, 3, 3), np.float32))
    assert matrix.levels == 0
    for asked in (matrix.level, matrix.counts):
        with pytest.raises(BadArgument, match=r"conv1.weight: a mosaic has no levels"):
            asked(0, slice(0, 1), slice(0, 1))


def test_a_convolution_too_large_for_a_mosaic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrices, "DIRECT_ENTRIES", 100)
    matrix = of_array("conv1.weight", np.zeros((6, 5, 3, 4), np.float32))
    assert isinstance(matrix, WeightMatrix)
    assert (matrix.shape, matrix.axes) == ((6, 60), ((6,), (5, 3, 4)))


@pytest.mark.parametrize("part", ["query", "key", "value"])
def test_heads_lie_across(part: str) -> None:
    """Of flax's [hidden, heads, dim], so that a head is a band of columns."""
    x = np.arange(16 * 4 * 8, dtype=np.float32).reshape(16, 4, 8)
    matrix = of_array(f"encoder.attention.{part}.kernel", x)
    assert (matrix.shape, matrix.axes) == ((16, 32), ((16,), (4, 8)))
    np.testing.assert_array_equal(matrix.entries(slice(0, 16), slice(8, 16)), x[:, 1])


def test_other_tensors_are_seen_as_in_a_report() -> None:
    for shape, expected in (((), (1, 1)), ((5,), (1, 5)), ((5, 7), (5, 7)), ((4, 8, 16), (32, 16))):
        assert of_array("w", np.zeros(shape, np.float32)).shape == expected


@pytest.mark.parametrize(("dtype", "digits"), [("BF16", 9), ("F32", 9), ("F64", 17), ("U64", 17), ("I32", 10)])
def test_digits_tell_any_two_entries_apart(dtype: str, digits: int, stored: Callable) -> None:
    assert weight_matrix(stored(dtype, (3, 4))[0]).digits >= digits


def test_a_folded_view_names_its_axes() -> None:
    view = Folded((16, 4, 8), 1)
    assert (view.rows, view.cols, view.axes) == (16, 32, ((16,), (4, 8)))
