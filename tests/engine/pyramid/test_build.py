"""Every level of a pyramid is what its blocks of the original come to, however the tensor is cut into strips."""

import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import weighbridge
from weighbridge import BadArgument, ReadFailed, WeighbridgeError
from weighbridge.checkpoints.dtypes import SAFETENSORS
from weighbridge.errors import Cancelled
from weighbridge.matrix import Folded, matrix_view
from weighbridge.pyramid import Pyramid, build, matrix_of
from weighbridge.pyramid import store as stores
from weighbridge_kernels import variants

builds = import_module("weighbridge.pyramid.build")  # the package's own name for it is the function
DTYPES = [name for name, dtype in SAFETENSORS.items() if dtype.kind != "complex"]
SHAPES = [(1, 1), (1003,), (1003, 1), (1, 1003), (203, 157), (3, 1000), (7, 5, 11), (3, 2, 5, 67), (8, 8), (64, 64)]


@pytest.fixture
def built(tmp_path: Path) -> Callable[..., Pyramid]:
    def built(tensor: weighbridge.Tensor, view: Folded | None = None, variant: str = "host") -> Pyramid:
        folder = tmp_path / "pyramid"
        form = variants.host() if variant == "host" else variants.on_jax("cpu")
        made = build(tensor, view or matrix_view("w", tensor.shape, "other"), folder, form)
        return Pyramid.open(folder, made.layout)

    return built


def flat(x: np.ndarray) -> np.ndarray:
    """As a report sees it: all axes but the last are rows."""
    return x.reshape(-1, x.shape[-1]) if x.ndim > 1 else x.reshape(1, -1)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        *((name, "host") for name in DTYPES),
        *((name, "jax") for name in ("F32", "BF16", "F8_E4M3", "BOOL", "F64", "U64")),
    ],
)
def test_every_dtype(
    name: str, variant: str, stored: Callable, built: Callable, assert_levels: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builds, "STRIP_ENTRIES", 4096)
    tensor, x = stored(name, (77, 92))
    assert_levels(built(tensor, variant=variant), x)


@pytest.mark.parametrize(
    ("shape", "strip"),
    [
        *((shape, 1) for shape in SHAPES),
        *(((203, 157), 4096), ((1003,), 64), ((203, 157), 1 << 22), ((1003,), 1 << 22)),
    ],
    ids=str,
)
def test_every_shape(
    shape: tuple[int, ...],
    strip: int,
    stored: Callable,
    built: Callable,
    assert_levels: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Strips of one row of blocks, of some, and of all; chunks and the parts of upper levels cut small too."""
    monkeypatch.setattr(builds, "STRIP_ENTRIES", strip)
    monkeypatch.setattr(builds, "_COARSEN_BLOCKS", 40)
    monkeypatch.setattr(stores, "_CHUNK", 5)
    tensor, x = stored("F32", shape)
    assert_levels(built(tensor), flat(x))


@pytest.mark.parametrize("shape", [(1004,), (77, 92), (5, 7, 12)], ids=str)
@pytest.mark.parametrize("name", ["F4", "F6_E2M3", "F64"])
def test_strips_of_packed_entries(
    name: str,
    shape: tuple[int, ...],
    stored: Callable,
    built: Callable,
    assert_levels: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(builds, "STRIP_ENTRIES", 1)
    tensor, x = stored(name, shape)
    assert_levels(built(tensor), flat(x))


def test_axes_fold_as_asked(stored: Callable, built: Callable, assert_levels: Callable) -> None:
    tensor, x = stored("BF16", (19, 5, 7))
    assert_levels(built(tensor, Folded(tensor.shape, 1)), x.reshape(19, 35))


def test_blocks_without_a_finite_entry(built: Callable, assert_levels: Callable) -> None:
    x = np.full((40, 33), np.nan, np.float32)
    x[:17, 5] = np.inf
    assert_levels(built(weighbridge.open({"w": x})["w"]), x)


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.zeros((3, 4), np.complex64), "w: is C64, and complex numbers have no order; choose another tensor"),
        (np.zeros((0, 4), np.float32), "w: has no entries; choose another tensor"),
        (np.zeros((4, 0), np.float16), "w: has no entries; choose another tensor"),
    ],
    ids=["complex", "no rows", "no columns"],
)
def test_what_has_no_picture(array: np.ndarray, why: str, built: Callable) -> None:
    tensor = weighbridge.open({"w": array})["w"]
    for attempt in (built, matrix_of):
        with pytest.raises(BadArgument) as refused:
            attempt(tensor)
        assert str(refused.value) == why


def test_rows_too_long_for_memory(tmp_path: Path) -> None:
    tensor = weighbridge.open({"w": np.zeros((8, 1 << 21), np.float32)})["w"]
    with pytest.raises(BadArgument, match="w: 8 rows are 67,108,864 bytes, too many for a picture"):
        build(tensor, matrix_view("w", tensor.shape, "other"), tmp_path / "p", variants.host(), memory=100 << 20)


@pytest.mark.parametrize("error", [ReadFailed("the disk is gone"), Cancelled("nobody waits")], ids=["fails", "ends"])
def test_a_build_that_stops_leaves_nothing_that_opens(
    error: WeighbridgeError, tmp_path: Path, watched: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builds, "STRIP_ENTRIES", 4096)
    passed = threading.Semaphore(3)

    def stop() -> None:
        if not passed.acquire(blocking=False):
            raise error

    tensor = watched(np.ones((300, 100), np.float32), reading=stop)
    view, folder = matrix_view("w", tensor.shape, "other"), tmp_path / "p"
    with pytest.raises(type(error), match=str(error)):
        build(tensor, view, folder, variants.host())
    with pytest.raises(stores.CorruptPyramid):
        Pyramid.open(folder, builds.layout_of(tensor, view))


def test_it_says_how_far_it_is(tmp_path: Path, watched: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte is read once, and told."""
    monkeypatch.setattr(builds, "STRIP_ENTRIES", 4096)
    told: list[int] = []
    tensor = watched(np.ones((301, 101), np.float32))
    build(tensor, matrix_view("w", tensor.shape, "other"), tmp_path / "p", variants.host(), advanced=told.append)
    assert len(told) > 5
    assert sum(told) == tensor.bytes_read == tensor.nbytes


def test_two_builds_are_the_same_to_the_byte(tmp_path: Path, stored: Callable) -> None:
    tensor, _ = stored("F32", (203, 157))
    view = matrix_view("w", tensor.shape, "other")
    for name, workers in (("a", 1), ("b", 4)):
        build(tensor, view, tmp_path / name, variants.host(), workers=workers)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) > 7
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
