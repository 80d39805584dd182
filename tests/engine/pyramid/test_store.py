"""A pyramid on disk: its chunks and bytes, and what opens; damage is seen, at the latest when it is read."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import weighbridge
from weighbridge.matrix import matrix_view
from weighbridge.pyramid import Pyramid, build
from weighbridge.pyramid import store as stores
from weighbridge.pyramid.store import FILE, QUANTITIES, CorruptPyramid, Layout
from weighbridge_kernels import variants

ALL = slice(None)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Layout]:
    """Of 1,003 × 157 float32, in chunks of 16 by 16 blocks."""
    folder = tmp_path_factory.mktemp("pristine") / "pyramid"
    x = np.random.default_rng(0).standard_normal((1003, 157)).astype(np.float32)
    tensor = weighbridge.open({"w": x})["w"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "_CHUNK", 16)
        made = build(tensor, matrix_view("w", x.shape, "other"), folder, variants.host())
    return folder, made.layout


@pytest.fixture
def pyramid(pristine: tuple[Path, Layout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pyramid:
    """A copy, opened."""
    monkeypatch.setattr(stores, "_CHUNK", 16)
    return Pyramid.open(shutil.copytree(pristine[0], tmp_path / "pyramid"), pristine[1])


def chunk(pyramid: Pyramid, level: int = 0, quantity: str = "greatest", at: str = "1/0") -> Path:
    return pyramid.folder / str(level) / quantity / "c" / at


@pytest.mark.parametrize("shape", [(203, 156), (1004,)], ids=str)
@pytest.mark.parametrize("name", ["BOOL", "F4", "BF16", "F32", "I64"])
def test_bytes_are_known_beforehand(name: str, shape: tuple[int, ...], stored: Callable, tmp_path: Path) -> None:
    tensor, _ = stored(name, shape)
    layout = build(tensor, matrix_view("w", shape, "other"), tmp_path / "p", variants.host()).layout
    chunks = list((tmp_path / "p").glob("*/*/c/*/*"))
    assert sum(path.stat().st_size for path in chunks) == layout.nbytes()
    assert {path.parents[3].name for path in chunks} == {str(level) for level in range(layout.levels)}
    assert {path.parents[2].name for path in chunks} == set(QUANTITIES)


def test_chunks_lie_as_the_layout_says(pyramid: Pyramid) -> None:
    """Zarr's own layout: levels, quantities, chunks by row and column, each followed by its CRC."""
    layout = pyramid.layout
    assert [layout.blocks(level) for level in range(layout.levels)] == [
        (126, 20),
        (63, 10),
        (32, 5),
        (16, 3),
        (8, 2),
        (4, 1),
        (2, 1),
        (1, 1),
    ]
    for level in range(layout.levels):
        down, across = (-(-n // k) for n, k in zip(layout.blocks(level), layout.chunks(level), strict=True))
        for quantity in QUANTITIES:
            found = {
                str(path.relative_to(pyramid.folder / str(level) / quantity / "c"))
                for path in (pyramid.folder / str(level) / quantity / "c").glob("*/*")
            }
            assert found == {f"{i}/{j}" for i in range(down) for j in range(across)}
    assert chunk(pyramid).stat().st_size == 16 * 16 * 4 + 4
    assert chunk(pyramid, quantity="nan").stat().st_size == 16 * 16 + 4
    assert chunk(pyramid, level=1, quantity="nan").stat().st_size == 16 * 10 * 2 + 4


def test_chunks_stay_small_however_long_the_matrix() -> None:
    for shape in ((1, 10**9), (10**9, 1), (10**5, 10**5), (16, 10**8)):
        layout = Layout(shape, "F32")
        for level in range(layout.levels):
            chunks, blocks = layout.chunks(level), layout.blocks(level)
            assert 1 <= np.prod(chunks) <= 1 << 18
            assert all(a <= b for a, b in zip(chunks, blocks, strict=True))
            strip = chunks[0] * blocks[1] if shape[0] > 1 else chunks[1]
            assert strip <= max(1 << 21, blocks[1])
        assert layout.blocks(layout.levels - 1) == (1, 1)


def test_a_window_is_a_part_of_the_whole(pyramid: Pyramid) -> None:
    for level in range(pyramid.layout.levels):
        whole = pyramid.blocks(level, ALL, ALL)
        rows, cols = slice(level % 2, min(17, whole.shape[0])), slice(0, max(whole.shape[1] - 1, 1))
        for ours, theirs in zip(pyramid.blocks(level, rows, cols), whole, strict=True):
            np.testing.assert_array_equal(ours, theirs[rows, cols])
        np.testing.assert_array_equal(
            pyramid.layout.entries(level, (rows, cols)), pyramid.layout.entries(level, (ALL, ALL))[rows, cols]
        )
        assert pyramid.layout.entries(level, (ALL, ALL)).sum() == 1003 * 157


def corrupt(pyramid: Pyramid) -> None:
    with pytest.raises(CorruptPyramid) as refused:
        Pyramid.open(pyramid.folder, pyramid.layout)
    assert str(refused.value).startswith(f"{pyramid.folder}: ")
    assert "\n" not in str(refused.value)


def test_a_missing_chunk(pyramid: Pyramid) -> None:
    chunk(pyramid).unlink()
    corrupt(pyramid)


@pytest.mark.parametrize("keep", [0, 1, -1])
def test_a_truncated_chunk(pyramid: Pyramid, keep: int) -> None:
    os.truncate(chunk(pyramid), keep if keep >= 0 else chunk(pyramid).stat().st_size + keep)
    corrupt(pyramid)


def test_a_chunk_too_many(pyramid: Pyramid) -> None:
    shutil.copy(chunk(pyramid), chunk(pyramid, at="1/9"))
    corrupt(pyramid)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "\x00", "[" * 100_000, '{"shape": [1003, 157], "dtype": "F32"}', '"\ud800"'],
    ids=["empty", "cut", "list", "null", "zero", "deep", "no version", "surrogate"],
)
def test_garbage_in_place_of_its_description(pyramid: Pyramid, text: str) -> None:
    (pyramid.folder / FILE).write_bytes(text.encode("utf-8", "surrogatepass"))
    corrupt(pyramid)


@pytest.mark.parametrize("change", [{"version": stores.VERSION + 1}, {"dtype": "F64"}, {"shape": [157, 1003]}], ids=str)
def test_another_version_or_matrix(pyramid: Pyramid, change: dict) -> None:
    description = json.loads((pyramid.folder / FILE).read_text())
    (pyramid.folder / FILE).write_text(json.dumps(description | change))
    corrupt(pyramid)


def test_no_folder_and_no_description(pyramid: Pyramid) -> None:
    (pyramid.folder / FILE).unlink()
    corrupt(pyramid)
    shutil.rmtree(pyramid.folder)
    corrupt(pyramid)


@pytest.mark.parametrize("at", [0, 517, -1], ids=["first", "middle", "CRC"])
def test_a_flipped_bit_is_seen_when_it_is_read(pyramid: Pyramid, at: int) -> None:
    """Only in that chunk; it opens, since not all is read for that."""
    damaged = bytearray(chunk(pyramid).read_bytes())
    damaged[at] ^= 1
    chunk(pyramid).write_bytes(damaged)
    opened = Pyramid.open(pyramid.folder, pyramid.layout)
    with pytest.raises(CorruptPyramid, match="level 0 cannot be read"):
        opened.blocks(0, slice(20, 21), slice(0, 3))
    assert opened.blocks(0, slice(0, 16), ALL).shape == (16, 20)
    assert set(opened.read(0, ALL, ALL, ("least", "mean"))) == {"least", "mean"}


def test_a_chunk_that_goes_after_it_was_opened_is_no_zeros(pyramid: Pyramid) -> None:
    """Another process may give the pyramid up at any time; zarr takes what is missing for zeros."""
    assert pyramid.blocks(0, slice(16, 17), ALL).greatest.all()
    chunk(pyramid).unlink()
    with pytest.raises(CorruptPyramid, match="level 0 cannot be read"):
        pyramid.blocks(0, slice(16, 17), ALL)
    assert pyramid.blocks(0, slice(0, 16), ALL).greatest.all()
    shutil.rmtree(pyramid.folder)
    with pytest.raises(CorruptPyramid):
        pyramid.blocks(1, ALL, ALL)


def test_opening_marks_it_as_used(pyramid: Pyramid) -> None:
    os.utime(pyramid.folder / FILE, (1, 1))
    Pyramid.open(pyramid.folder, pyramid.layout)
    assert (pyramid.folder / FILE).stat().st_mtime > 1
    (pyramid.folder / FILE).unlink()
    assert not pyramid.touch()


def test_a_cache_of_others_can_be_read(pyramid: Pyramid, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refused)
    assert Pyramid.open(pyramid.folder, pyramid.layout).blocks(6, ALL, ALL).shape == pyramid.layout.blocks(6)
