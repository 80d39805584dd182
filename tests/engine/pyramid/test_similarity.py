"""Similarities are those of float64, and every picture of them pools exactly these, whatever way it was had."""

import time
import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import weighbridge
from weighbridge import BadArgument
from weighbridge.errors import Cancelled
from weighbridge.pyramid import Preparation, SimilarityMatrix, matrix_of, mean_rows, product, similarities
from weighbridge.pyramid import similarity as module
from weighbridge.views import window as windows
from weighbridge.views.window import picture, window

SHAPE = 203, 37
PAIR_ERROR, MEAN_ERROR = 4e-6, 1e-5


def weights(shape: tuple[int, int] = SHAPE, dtype: Any = np.float32) -> np.ndarray:
    """Rows and columns of which some are dead, constant, or hold NaN or Inf."""
    x = np.random.default_rng(0).standard_t(3, shape) + 0.3
    for index in (np.s_[17], np.s_[:, 3]):
        x[index] = 0
    x[100:117] = 0
    x[60], x[:, 11] = 0.1, 0.1
    x[17], x[41, 5], x[7, 20] = 0, np.nan, -np.inf
    return x.astype(dtype)


def expected(x: np.ndarray, side: str, kind: str) -> np.ndarray:
    """Of every pair in float64; NaN where a row has no direction."""
    y = (x if side == "rows" else x.T).astype(np.float64)
    y = np.where(np.isfinite(y).all(axis=1, keepdims=True), y, np.nan)
    if kind == "pearson":
        y = np.where((y == y[:, :1]).all(axis=1, keepdims=True), 0, y - y.mean(axis=1, keepdims=True))
    norms = np.linalg.norm(y, axis=1)
    units = y / np.where(norms > 0, norms, np.nan)[:, None]
    return units @ units.T


def ordered(s: np.ndarray, matrix: SimilarityMatrix) -> np.ndarray:
    return s if matrix.order is None else s[np.ix_(matrix.order, matrix.order)]


def pooled(s: np.ndarray, side: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Means of the blocks' pairs that have a similarity, 0 of none, and how many have not."""

    def summed(grid: np.ndarray) -> np.ndarray:
        for axis in (0, 1):
            grid = np.add.reduceat(grid, np.arange(0, grid.shape[axis], side[axis]), axis)
        return grid

    n = summed(np.isfinite(s).astype(np.int64))
    return summed(np.nan_to_num(s)) / np.maximum(n, 1), summed(np.isnan(s).astype(np.int64))


def made(x: np.ndarray, **choices: Any) -> SimilarityMatrix:
    return similarities(weighbridge.open({"w": x})["w"], **choices)


@pytest.fixture(params=["held", "read", "in files"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Unit rows held; read as they are looked at, by strips of few rows; with everything else in temporary files."""
    if request.param != "held":
        monkeypatch.setattr(module, "DIRECT_ENTRIES", 100)
        monkeypatch.setattr(mean_rows, "_TILE_ENTRIES", 1000)
    if request.param == "in files":
        monkeypatch.setattr(mean_rows, "_MEMORY_BYTES", 100)
    return str(request.param)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float64, np.int8], ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize("order", module.ORDERS)
@pytest.mark.parametrize("kind", module.KINDS)
@pytest.mark.parametrize("side", module.SIDES)
def test_entries_are_those_of_float64(way: str, side: Any, kind: Any, order: Any, dtype: Any) -> None:
    x = weights() if dtype != np.int8 else np.nan_to_num(weights() * 9, posinf=0, neginf=0)
    x = x.astype(dtype)
    matrix = made(x, side=side, kind=kind, order=order)
    s = ordered(expected(x, side, kind), matrix)
    assert matrix.shape == s.shape
    n = len(s)
    for rows, cols in ((slice(0, n), slice(0, n)), (slice(3, 4), slice(n - 7, n)), (slice(5, 30), slice(11, 12))):
        np.testing.assert_allclose(matrix.entries(rows, cols), s[rows, cols], rtol=0, atol=PAIR_ERROR)
    assert np.nanmax(np.abs(matrix.read())) <= 1
    if order == "seriated":
        assert sorted(matrix.order) == list(range(n))


@pytest.mark.parametrize("rows", [203, 8, 9, 1, 1031])
@pytest.mark.parametrize("order", module.ORDERS)
@pytest.mark.parametrize("side", module.SIDES)
def test_every_level_pools_the_pairs(way: str, side: Any, order: Any, rows: int) -> None:
    """All levels of all sizes, with rows that have no direction."""
    x = weights((max(rows, 121), 37))[:rows]
    matrix = made(x if side == "rows" else np.ascontiguousarray(x.T), side=side, order=order)
    s = ordered(expected(x, "rows", "cosine"), matrix)
    for level in range(matrix.levels):
        every = slice(0, -(-rows // (8 << level)))
        blocks = matrix.level(level, every, every)
        means, nan = pooled(s, (8 << level, 8 << level))
        np.testing.assert_array_equal(blocks.nan, nan)
        np.testing.assert_allclose(blocks.mean, means, rtol=0, atol=MEAN_ERROR)
        part = slice(every.stop // 2, every.stop)
        np.testing.assert_allclose(matrix.level(level, part, every).mean, blocks.mean[part], rtol=0, atol=1e-6)
    assert blocks.shape == (1, 1)


@pytest.mark.parametrize("full", [True, False], ids=["pairs", "means"])
@pytest.mark.parametrize("block", [(1, 1), (7, 3), (16, 24), (300, 8)], ids=str)
def test_windows_pool_the_pairs(way: str, block: tuple[int, int], full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of the pairs, or of mean rows, those of the base where blocks are whole ones of it."""
    if not full:
        monkeypatch.setattr(product, "FULL_ENTRIES", 0)
    x = weights()
    matrix = made(x, order="seriated")
    s = ordered(expected(x, "rows", "cosine"), matrix)
    top, left = 48 // block[0] * block[0], 24 // block[1] * block[1]
    part = slice(top, 203), slice(left, 200)
    blocks = matrix.reduced(*part, block)
    means, nan = pooled(s[part], block)
    np.testing.assert_array_equal(blocks.nan, nan)
    np.testing.assert_allclose(blocks.mean, means, rtol=0, atol=MEAN_ERROR)
    if full:
        low = np.minimum.reduceat(np.nan_to_num(s[part], nan=9), np.arange(0, 203 - top, block[0]), 0)
        low = np.minimum.reduceat(low, np.arange(0, 200 - left, block[1]), 1)
        np.testing.assert_allclose(blocks.least, np.where(low == 9, 0, low), rtol=0, atol=PAIR_ERROR)
    else:
        assert np.isnan(blocks.least).all()


def test_pictures_of_large_windows_are_of_means_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "FULL_ENTRIES", 2000)
    matrix = made(weights())
    near, far = window(matrix, (10, 40), (10, 40), 20, 20), window(matrix, None, None, 20, 20)
    assert picture(matrix, near, "min").values.shape == near.shape
    with pytest.raises(BadArgument, match="w: cosine of rows: no minimum is known of so large a window; zoom in"):
        picture(matrix, far, "min")
    monkeypatch.setattr(windows, "DIRECT_ENTRIES", 0)
    by_level = window(matrix, (10, 40), (10, 40), 20, 20)
    assert by_level.level == 0
    assert windows.known(matrix, by_level, "max") == "mean"
    assert windows.known(matrix_of(weighbridge.open({"w": weights()})["w"]), by_level, "max") == "max"


def test_it_is_read_like_a_tensor() -> None:
    x = weights()
    matrix, s = made(x), expected(x, "rows", "cosine")
    assert (matrix.name, matrix.shape) == ("w: cosine of rows", (203, 203))
    for at in (
        (),
        3,
        (3, 4),
        (slice(2, 9), 5),
        slice(200, 1, -7),
        (slice(9, 1, -2), slice(None, None, 3)),
        slice(5, 5),
    ):
        np.testing.assert_allclose(matrix.read(at), s[at], rtol=0, atol=PAIR_ERROR)
    with pytest.raises(IndexError):
        matrix.read(203)


@pytest.mark.parametrize("side", module.SIDES)
def test_groups_planted_and_shuffled_become_squares(way: str, side: Any) -> None:
    """Pairs next to each other in the order are of one group, and their blocks stand out from the others."""
    rng = np.random.default_rng(1)
    group = rng.integers(0, 6, 391)
    x = rng.standard_normal((6, 53))[group] + 0.7 * rng.standard_normal((391, 53))
    matrix = made((x if side == "rows" else x.T).astype(np.float32), side=side, order="seriated")
    assert np.count_nonzero(np.diff(group[matrix.order])) == 5
    means = matrix.level(0, slice(0, 48), slice(0, 48)).mean
    of_blocks = group[matrix.order][:384].reshape(48, 8)
    pure = (of_blocks == of_blocks[:, :1]).all(axis=1)
    same = of_blocks[:, :1] == of_blocks[:, 0]
    both = np.outer(pure, pure)
    assert means[both & same].min() > means[both & ~same].max() + 0.2
    stored = made((x if side == "rows" else x.T).astype(np.float32), side=side)
    assert np.abs(stored.level(0, slice(0, 48), slice(0, 48)).mean - np.eye(48) / 8).max() < means[both & same].min()


def test_what_has_no_similarities() -> None:
    tensors = weighbridge.open({"b": np.ones(9, np.float32), "c": np.ones((4, 5), np.complex64), "w": weights()})
    for name, choices, said in (
        ("b", {}, "b: has 1 axes; similarities are of the rows of two or more"),
        ("c", {}, "complex numbers have no order"),
        ("w", {"side": "row"}, "side 'row'; expected one of rows, cols"),
        ("w", {"kind": "dot"}, "kind 'dot'; expected one of cosine, pearson"),
        ("w", {"order": "sorted"}, "order 'sorted'; expected one of stored, seriated"),
    ):
        with pytest.raises(BadArgument, match=said):
            similarities(tensors[name], **choices)


def test_too_much_to_put_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SERIATED_ENTRIES", 7000)
    with pytest.raises(BadArgument, match=r"w: has 7,511 entries, and rows of up to 7,000 are put in order; look"):
        made(weights(), order="seriated")


def test_progress_and_an_end_before_it(way: str) -> None:
    tensor, shares = weighbridge.open({"w": weights()})["w"], []
    for side in module.SIDES:
        shares.clear()
        similarities(tensor, side=side, order="seriated", advanced=shares.append)
        assert shares == sorted(shares)
        assert shares[-1] == 1
    with pytest.raises(Cancelled, match="w: its similarities are no longer wanted"):
        similarities(tensor, cancelled=lambda: True)


def test_in_the_background() -> None:
    x = weights()
    tensors = weighbridge.open({"w": x, "b": x[0]})
    choices: dict[str, Any] = {"side": "cols", "kind": "pearson", "order": "stored"}
    preparation = Preparation(tensors["w"], **choices)
    found = preparation.result(60).read((6, 8))
    assert preparation.done
    assert preparation.progress == 1
    assert found == pytest.approx(expected(x, "cols", "pearson")[6, 8], abs=PAIR_ERROR)
    with pytest.raises(BadArgument, match="b: has 1 axes"):
        Preparation(tensors["b"], **choices).result(60)


def opened(folder: Path, rows: int, cols: int) -> tuple[SimilarityMatrix, float, int]:
    """A picture of a stored matrix with planted groups: the matrix, seconds, bytes that NumPy took at most."""
    rng = np.random.default_rng(0)
    x = np.empty((rows, cols), ml_dtypes.bfloat16)
    for start in range(0, rows, 4096):
        part = x[start : start + 4096]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32) + (start // 4096 % 2)
    save_file({"w": x}, folder / "large.safetensors")
    del x
    tensor = weighbridge.open(folder / "large.safetensors")["w"]
    tracemalloc.start()
    begun = time.perf_counter()
    matrix = similarities(tensor)
    first = picture(matrix, window(matrix, None, None, 600, 800), "mean")
    seconds, peak = time.perf_counter() - begun, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert first.window.level > 0
    cells = first.values
    assert cells[-1, -1] > cells.mean() or rows // 4096 % 2 == 0
    high = window(matrix, (4096, 8192), (4096, 8192), 600, 800)
    assert picture(matrix, high, "mean").values.mean() == pytest.approx(0.5, abs=0.01)
    return matrix, seconds, peak


@pytest.mark.slow
def test_twenty_thousand_rows_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4e8 pairs of rows that are not held: 1.3 GB as a matrix, 82 MB as unit rows."""
    monkeypatch.setattr(module, "DIRECT_ENTRIES", 1 << 22)
    _, seconds, peak = opened(tmp_path, 20_011, 1024)
    assert seconds < 60
    assert peak < 140 << 20


@pytest.mark.slow
def test_a_vocabulary_of_128256_rows_opens(tmp_path: Path) -> None:
    """1.6e10 pairs, of which 65 GB would be a matrix."""
    _, seconds, peak = opened(tmp_path, 128_256, 1024)
    assert seconds < 240
    assert peak < 512 << 20
