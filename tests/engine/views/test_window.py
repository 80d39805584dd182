"""Each cell that is shown is the reduction of exactly the entries that the window says, whatever way it was had."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import weighbridge
from weighbridge import BadArgument
from weighbridge.matrix import matrix_view
from weighbridge.pyramid import PyramidCache, WeightMatrix, build, matrix_of
from weighbridge.views.window import REDUCTIONS, Picture, Window, picture, window
from weighbridge_kernels import variants

windows = import_module("weighbridge.views.window")
MADE = {
    f"{np.dtype(dtype).name} {shape}": (shape, dtype)
    for shape, dtype in (
        *(((203, 357), dtype) for dtype in (np.float32, ml_dtypes.bfloat16, np.float64, np.int32, np.uint8, np.int64)),
        *((shape, np.float32) for shape in ((1, 1003), (1003, 1), (7, 9))),
    )
}
NAMES = tuple(MADE)


class Shown(NamedTuple):
    matrix: WeightMatrix
    x: np.ndarray


def weights(shape: tuple[int, int], dtype: type) -> np.ndarray:
    """Heavy-tailed, with NaN, infinities, a stretch of zeros and blocks without a finite entry."""
    rng = np.random.default_rng(shape)
    x = rng.standard_t(2, shape)
    if np.dtype(dtype).kind in "iu":
        return (x * 9).clip(0, 255).astype(dtype) if dtype == np.uint8 else (x * 1000).astype(dtype)
    x *= 1e200 if dtype == np.float64 else 1
    x[rng.random(shape) < 0.02] = np.nan
    x[rng.random(shape) < 0.01] = np.inf
    x[100:130, 50:90] = -np.inf
    x[: shape[0] // 3, 7:60] = 0
    return x.astype(dtype)


def shown(x: np.ndarray, folder: Path) -> WeightMatrix:
    tensor = weighbridge.open({"w": x})["w"]
    view = matrix_view("w", x.shape, "other")
    return WeightMatrix(tensor, view, build(tensor, view, folder, variants.host()))


@pytest.fixture(scope="module")
def matrices(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shown]:
    """Of every type, and of every shape, with their pyramids."""
    made = {}
    for name, (shape, dtype) in MADE.items():
        x = weights(shape, dtype)
        made[name] = Shown(shown(x, tmp_path_factory.mktemp("pyramid")), x.astype(np.float64))
    return made


@pytest.fixture
def limits() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def cells_of(shown: Window, x: np.ndarray, by: np.ufunc) -> np.ndarray:
    """A grid of entries reduced to the cells that a window says it has."""
    grid = x[slice(*shown.rows), slice(*shown.cols)]
    for axis, side in enumerate(shown.cell):
        grid = by.reduceat(grid, np.arange(0, grid.shape[axis], side), axis)
    return grid


def assert_picture(got: Picture, x: np.ndarray) -> None:
    """Extremes, the signed absmax and flags exactly, the mean within 1e-6 of the mean magnitude, the rms of itself."""
    finite, at = np.isfinite(x), got.window
    top = float(np.abs(x[finite]).max(initial=0)) or 1.0
    n = cells_of(at, finite.astype(np.int64), np.add)
    some, share, scaled = n > 0, np.maximum(n, 1), np.where(finite, x, 0) / top
    assert got.values.shape == got.nan.shape == got.inf.shape == at.shape == n.shape
    np.testing.assert_array_equal(got.nan, cells_of(at, np.isnan(x), np.logical_or))
    np.testing.assert_array_equal(got.inf, cells_of(at, np.isinf(x), np.logical_or))
    if got.reduction == "zeros":
        zeros, all_ = (cells_of(at, grid.astype(np.int64), np.add) for grid in (x == 0, np.ones(x.shape)))
        np.testing.assert_allclose(got.values, zeros / all_, rtol=1e-14, atol=0)
        return
    np.testing.assert_array_equal(np.isnan(got.values), ~some)
    least = cells_of(at, np.where(finite, x, np.inf), np.minimum)[some]
    greatest = cells_of(at, np.where(finite, x, -np.inf), np.maximum)[some]
    values = got.values[some]
    if got.reduction in ("min", "max", "absmax"):
        absmax = np.where(greatest >= -least, greatest, least)
        np.testing.assert_array_equal(values, {"min": least, "max": greatest, "absmax": absmax}[got.reduction])
    elif got.reduction == "mean":
        mean, magnitude = ((cells_of(at, grid, np.add) / share)[some] for grid in (scaled, np.abs(scaled)))
        assert (np.abs(values / top - mean) <= 1e-6 * magnitude).all()
    else:
        rms = np.sqrt(cells_of(at, np.square(scaled), np.add) / share)[some]
        np.testing.assert_allclose(values / top, rms, rtol=1e-6, atol=0)


def assert_window(at: Window, shape: tuple[int, int], asked: tuple, pixels: tuple[int, int]) -> None:
    """It covers what is asked for and is in the matrix, begins at a cell, and has no more cells than pixels and one."""
    for (start, stop), side, extent, range_ in zip((at.rows, at.cols), at.cell, shape, asked, strict=True):
        assert 0 <= start < stop <= extent
        assert start % side == 0
        assert stop % side == 0 or stop == extent
        if range_ is None or not np.isfinite(range_).all():
            assert (start, stop) == (0, extent)
        else:
            low, high = sorted(range_)
            assert start <= max(low, 0)
            assert stop >= min(high, extent)
            if high >= 0 and low < extent:
                assert start > low - side - 1
                assert stop < high + side + 1
    assert all(cells <= max(count, 1) + 1 for cells, count in zip(at.shape, pixels, strict=True))


numbers = st.one_of(
    st.floats(-60, 1100),
    st.sampled_from([np.nan, np.inf, -np.inf, 1e300, -1e300, 5e-324, -0.0, 7.999999999, 8.0, 356.5]),
)
ranges = st.one_of(st.none(), st.tuples(numbers, numbers), st.integers(0, 350).map(lambda at: (at, at + 1)))
sides = st.sampled_from([0, 1, 2, 3, 17, 40, 600])


@settings(deadline=None, max_examples=250)
@given(
    name=st.sampled_from(NAMES),
    y=ranges,
    x=ranges,
    height=sides,
    width=sides,
    reduction=st.sampled_from(REDUCTIONS),
    direct=st.sampled_from([1 << 25, 500, 0]),
    most_blocks=st.sampled_from([1 << 22, 50]),
)
@example(NAMES[0], None, None, 1, 1, "mean", 0, 50)
@example(NAMES[0], (300.0, 20.0), (-5.0, 5.0), 3, 2, "absmax", 0, 1 << 22)
@example(NAMES[2], None, None, 17, 3, "rms", 0, 1 << 22)
@example(NAMES[6], (0.2, 0.3), (1e6, 1e7), 600, 800, "min", 0, 1 << 22)
def test_each_cell_is_the_reduction_of_its_entries(
    matrices: dict[str, Shown],
    name: str,
    y: tuple[float, float] | None,
    x: tuple[float, float] | None,
    height: int,
    width: int,
    reduction: str,
    direct: int,
    most_blocks: int,
) -> None:
    """By entries, by blocks of the entries, and by every level, in windows of any kind."""
    matrix, values = matrices[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "DIRECT_ENTRIES", direct)
        patch.setattr(windows, "_LEVEL_BLOCKS", most_blocks)
        at = window(matrix, y, x, height, width)
    assert_window(at, matrix.shape, (y, x), (height, width))
    assert_picture(picture(matrix, at, reduction), values)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_the_whole_by_every_way(
    matrices: dict[str, Shown], name: str, reduction: str, limits: pytest.MonkeyPatch
) -> None:
    """The three ways agree, where they come to the same cells, and each is right."""
    matrix, x = matrices[name]
    taken = set()
    for direct, most_blocks in ((1 << 25, 1), (0, 1 << 22), (0, 60), (0, 1)):
        limits.setattr(windows, "DIRECT_ENTRIES", direct)
        limits.setattr(windows, "_LEVEL_BLOCKS", most_blocks)
        at = window(matrix, None, None, 11, 13)
        taken.add(at.level)
        assert_picture(picture(matrix, at, reduction), x)
    assert {-1, 0, matrix.levels - 1} <= taken


def test_without_a_pyramid_it_is_had_from_the_entries(limits: pytest.MonkeyPatch) -> None:
    limits.setattr(windows, "DIRECT_ENTRIES", 0)
    x = weights((20, 30), np.float32)
    matrix = matrix_of(weighbridge.open({"w": x})["w"])
    at = window(matrix, None, None, 3, 4)
    assert at.level == -1
    assert_picture(picture(matrix, at), x.astype(np.float64))


def test_cells_do_not_shimmer(matrices: dict[str, Shown]) -> None:
    """A window that is moved keeps its cells, and what they show."""
    matrix = matrices[NAMES[0]].matrix
    first, moved = (picture(matrix, window(matrix, (k, k + 100), (k, k + 100), 30, 30)) for k in (10.0, 26.6))
    assert first.window.cell == moved.window.cell == (4, 4)
    assert (first.window.rows, moved.window.rows) == ((8, 112), (24, 128))
    np.testing.assert_array_equal(first.values[4:, 4:], moved.values[:-4, :-4])


def test_an_unknown_reduction(matrices: dict[str, Shown]) -> None:
    matrix = matrices[NAMES[0]].matrix
    with pytest.raises(BadArgument, match="reduction 'median'; expected one of absmax, mean, rms, min, max, zeros"):
        picture(matrix, window(matrix, None, None, 3, 3), "median")  # type: ignore[arg-type]


def test_float64_of_any_magnitude(tmp_path: Path, limits: pytest.MonkeyPatch) -> None:
    limits.setattr(windows, "DIRECT_ENTRIES", 0)
    for magnitude in (1e307, 1e-290):
        x = np.random.default_rng(0).uniform(-1, 1, (203, 157)) * magnitude
        matrix = shown(x, tmp_path / str(magnitude))
        for reduction in REDUCTIONS:
            got = picture(matrix, window(matrix, None, None, 7, 5), reduction)
            assert_picture(got, x)


def planted(x: np.ndarray) -> tuple[int, int]:
    """A weight of its own magnitude, at a place of no note."""
    at = x.shape[0] * 3 // 7, x.shape[1] * 5 // 8
    x[at] = -1000
    return at


def assert_seen(matrix: WeightMatrix, at: tuple[int, int]) -> None:
    """In the first picture, in its cell and in no other; and alone once one has looked closer."""
    first = picture(matrix, window(matrix, None, None, 600, 800))
    assert first.window.level >= 0
    (found,) = np.argwhere(first.values == -1000)
    assert tuple(found) == tuple(place // side for place, side in zip(at, first.window.cell, strict=True))
    assert first.limit < 100
    y, x = ((place - 5, place + 6) for place in at)
    close = picture(matrix, window(matrix, y, x, 600, 800))
    assert close.window == Window((at[0] - 5, at[0] + 6), (at[1] - 5, at[1] + 6), (1, 1), -1)
    assert close.values[5, 5] == -1000


def test_an_outlier_is_seen(tmp_path: Path) -> None:
    """Where the whole has one entry in a thousand of a pixel's."""
    x = np.tile(np.random.default_rng(0).standard_normal((131, 8209)).astype(np.float32), (32, 1))[:4099]
    at = planted(x)
    matrix = matrix_of(weighbridge.open({"w": x})["w"])
    assert isinstance(matrix, WeightMatrix)
    assert matrix.needs_pyramid
    matrix.pyramid = build(matrix.tensor, matrix.view, tmp_path / "p", variants.host())
    assert_seen(matrix, at)


@pytest.mark.slow
def test_an_outlier_is_seen_among_a_billion(tmp_path: Path, minilm: Path) -> None:
    """32,768 × 32,768 bfloat16, tiled from a trained transformer's weights."""
    source = weighbridge.open(minilm)
    tensor = max((t for t in source.values() if len(t.shape) == 2), key=lambda t: t.count)
    flat = tensor.read().reshape(-1)[: 32_768 * 256].astype(ml_dtypes.bfloat16)
    x = np.tile(flat.reshape(256, 32_768), (128, 1))
    at = planted(x)
    save_file({"w": x}, tmp_path / "large.safetensors")
    del x
    matrix = matrix_of(weighbridge.open(tmp_path / "large.safetensors")["w"])
    assert isinstance(matrix, WeightMatrix)
    matrix.pyramid = PyramidCache(tmp_path / "cache", device="cpu").request(matrix.tensor, matrix.view).result()
    assert_seen(matrix, at)


def of_values(values: np.ndarray) -> Picture:
    flags = np.zeros(values.shape, bool)
    return Picture(Window((0, values.shape[0]), (0, values.shape[1]), (1, 1), -1), "absmax", values, flags, flags)


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(st.floats(-(2.0**100), 2.0**100, width=32), st.sampled_from([0.0, np.nan])), min_size=1, max_size=700
    ),
    st.sampled_from([np.float32, np.float64]),
)
def test_all_but_one_in_two_hundred_cells_are_within_the_limit(values: list[float], dtype: type) -> None:
    x = np.array([values], dtype)
    limit = of_values(x).limit
    assert 0 < limit < np.inf
    finite = np.abs(x[np.isfinite(x)])
    assert (finite > limit).sum() <= 0.005 * finite.size
    assert limit in finite or (limit == 1 and not finite.any())


def test_the_limit_of_nothing_and_of_nothing_but_zeros() -> None:
    assert of_values(np.full((3, 4), np.nan)).limit == 1
    assert of_values(np.zeros((3, 4))).limit == 1
    few = np.zeros((100, 100))
    few[3, 4], few[5, 6] = -7, 2
    assert of_values(few).limit == 7


def test_the_limit_follows_the_window_and_the_reduction() -> None:
    x = np.random.default_rng(0).standard_normal((400, 400)).astype(np.float32)
    x[:, :200] /= 100
    matrix = matrix_of(weighbridge.open({"w": x})["w"])
    whole, small = (picture(matrix, window(matrix, None, range_, 40, 40)) for range_ in (None, (0, 200)))
    assert whole.limit > 50 * small.limit
    mean = picture(matrix, whole.window, "mean")
    assert mean.limit < whole.limit / 2
