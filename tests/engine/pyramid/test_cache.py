"""The pyramids of a user: built once whoever asks, never half, never of other weights, and given up in good order."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import weighbridge
from weighbridge import BadArgument, ReadFailed, Tensor, WeighbridgeError
from weighbridge.errors import Cancelled
from weighbridge.matrix import matrix_view
from weighbridge.pyramid import Build, Pyramid, PyramidCache
from weighbridge.pyramid import cache as caches
from weighbridge.pyramid.store import FILE, CorruptPyramid

ALL = slice(None)
PATIENCE = 60.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> PyramidCache:
    """Which cuts tensors into many strips."""
    monkeypatch.setattr(import_module("weighbridge.pyramid.build"), "STRIP_ENTRIES", 280)
    return PyramidCache(folder, device="cpu")


def weights(seed: int = 0, shape: tuple[int, ...] = (61, 35)) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ask(cache: PyramidCache, tensor: Tensor) -> Build:
    return cache.request(tensor, matrix_view(tensor.name, tensor.shape, "other"))


def get(cache: PyramidCache, tensor: Tensor) -> Pyramid:
    build = ask(cache, tensor)
    try:
        return build.result(PATIENCE)
    finally:
        build.release()


def kept(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if (path / FILE).exists()) if folder.exists() else []


def leftovers(folder: Path) -> list[Path]:
    return list(folder.glob(".part-*"))


def eventually(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


def test_found_again(cache: PyramidCache, watched: type, assert_levels: Callable) -> None:
    """By the same cache, and by another without reading a byte."""
    tensor = watched(weights())
    first = get(cache, tensor)
    assert_levels(first, tensor.array)
    assert tensor.bytes_read == tensor.nbytes
    again = ask(PyramidCache(cache.folder, device="cpu"), tensor)
    assert_levels(again.result(PATIENCE), tensor.array)
    assert again.progress == 1
    get(cache, tensor)
    assert tensor.bytes_read == tensor.nbytes
    assert leftovers(cache.folder) == []


def test_many_ask_at_once_and_it_is_built_once(cache: PyramidCache, watched: type) -> None:
    tensors = [watched(weights(seed), name=str(seed)) for seed in range(3)]
    start = threading.Barrier(24)

    def wait_for(i: int) -> Path:
        start.wait()
        return get(cache, tensors[i % 3]).folder

    with ThreadPoolExecutor(24) as threads:
        folders = list(threads.map(wait_for, range(24)))
    assert len(set(folders)) == 3
    assert [tensor.bytes_read for tensor in tensors] == [tensor.nbytes for tensor in tensors]


def test_progress_reaches_one(cache: PyramidCache, watched: type) -> None:
    step = threading.Semaphore(2)
    tensor = watched(weights(), reading=step.acquire)
    build = ask(cache, tensor)
    assert eventually(lambda: 0 < build.progress < 1)
    assert not build.done
    with pytest.raises(TimeoutError, match=r"no pyramid after 0.01 s"):
        build.result(0.01)
    step.release(1000)
    build.result(PATIENCE)
    assert build.done
    assert build.progress == 1


def test_it_goes_on_while_anybody_waits(cache: PyramidCache, watched: type) -> None:
    step = threading.Semaphore(1)
    tensor = watched(weights(), reading=step.acquire)
    builds = [ask(cache, tensor) for _ in range(3)]
    assert builds[0] is builds[1] is builds[2]
    builds[0].release()
    builds[1].release()
    assert not builds[2].given_up
    step.release(1000)
    builds[2].result(PATIENCE)


def test_given_up_when_nobody_waits(cache: PyramidCache, watched: type) -> None:
    """At the next strip; and who asks after that gets a build of its own, whole."""
    step = threading.Semaphore(1)
    tensor = watched(weights(), reading=step.acquire)
    given_up = ask(cache, tensor)
    given_up.release()
    assert given_up.given_up
    again = ask(cache, tensor)
    assert again is not given_up
    step.release(1000)
    with pytest.raises(Cancelled, match="w: its pyramid is no longer wanted"):
        given_up.result(PATIENCE)
    assert again.result(PATIENCE).folder in kept(cache.folder)
    assert ask(cache, tensor) is again, "the one given up has taken nothing with it"
    assert leftovers(cache.folder) == []


def test_one_that_has_not_begun_is_given_up_without_a_read(cache: PyramidCache, watched: type) -> None:
    step = threading.Semaphore(0)
    slow = [ask(cache, watched(weights(i), name=f"slow {i}", reading=step.acquire)) for i in range(2)]
    tensor = watched(weights(2))
    waiting = ask(cache, tensor)
    waiting.release()
    step.release(1000)
    with pytest.raises(Cancelled):
        waiting.result(PATIENCE)
    assert tensor.bytes_read == 0
    for build in slow:
        build.result(PATIENCE)


def test_an_error_reaches_all_who_wait_and_the_next_tries_again(cache: PyramidCache, watched: type) -> None:
    broken, together = [True], threading.Event()

    def read() -> None:
        together.wait()
        if broken[0]:
            raise ReadFailed("w.bin: cannot be read at byte 0: it is gone")

    tensor = watched(weights(), reading=read)
    builds = [ask(cache, tensor) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(build.result, PATIENCE) for build in builds]
        together.set()
        errors = [future.exception() for future in waiting]
    assert {type(error) for error in errors} == {ReadFailed}, "not as a fault of the cache"
    assert {str(error) for error in errors} == {"w.bin: cannot be read at byte 0: it is gone"}
    assert kept(cache.folder) == leftovers(cache.folder) == []
    broken[0] = False
    assert get(cache, tensor).folder in kept(cache.folder)


def test_what_has_no_picture_is_refused_at_once(cache: PyramidCache) -> None:
    with pytest.raises(BadArgument, match="no order"):
        ask(cache, weighbridge.open({"w": np.zeros((3, 4), np.complex64)})["w"])
    assert not cache.folder.exists()


def test_the_least_recently_used_goes(cache: PyramidCache, watched: type) -> None:
    tensors = [watched(weights(seed), name=str(seed)) for seed in range(4)]
    made = [get(cache, tensor) for tensor in tensors[:3]]
    for pyramid, used in zip(made, (10, 30, 20), strict=True):
        os.utime(pyramid.folder / FILE, (used, used))
    cache.limit = 3 * sum(file.stat().st_size for file in made[0].folder.rglob("*") if file.is_file())
    last = get(cache, tensors[3])
    assert set(kept(cache.folder)) == {made[1].folder, made[2].folder, last.folder}
    with pytest.raises(CorruptPyramid):
        made[0].blocks(0, ALL, ALL)
    os.utime(made[1].folder / FILE, (1, 1))
    get(cache, tensors[1])  # a use, though it is known to be there
    get(cache, tensors[0])
    assert made[1].folder in kept(cache.folder)
    assert made[2].folder not in kept(cache.folder)
    assert leftovers(cache.folder) == []


def test_the_newest_stays_whatever_the_limit(cache: PyramidCache, watched: type) -> None:
    cache.limit = 0
    for seed in range(2):
        made = get(cache, watched(weights(seed), name=str(seed)))
        assert kept(cache.folder) == [made.folder]


def test_what_is_not_a_pyramid_is_left_alone(cache: PyramidCache, watched: type) -> None:
    (cache.folder / "mine").mkdir(parents=True)
    (cache.folder / "mine" / "notes.txt").write_text("keep")
    cache.limit = 0
    get(cache, watched(weights()))
    assert (cache.folder / "mine" / "notes.txt").read_text() == "keep"


@pytest.mark.parametrize("damage", ["chunk", "description", "folder is a file", "empty folder"])
def test_a_corrupt_one_is_built_anew(damage: str, cache: PyramidCache, watched: type, assert_levels: Callable) -> None:
    tensor = watched(weights())
    made = get(cache, tensor)
    if damage == "chunk":
        next(made.folder.glob("0/mean/c/*/*")).unlink()
    elif damage == "description":
        (made.folder / FILE).write_text("{")
    else:
        shutil.rmtree(made.folder)
        made.folder.write_text("what?") if damage == "folder is a file" else made.folder.mkdir()
    assert_levels(get(PyramidCache(cache.folder, device="cpu"), tensor), tensor.array)
    assert tensor.bytes_read == 2 * tensor.nbytes


def test_one_found_damaged_when_read_is_discarded_and_built_anew(
    cache: PyramidCache, watched: type, assert_levels: Callable
) -> None:
    tensor = watched(weights())
    made = get(cache, tensor)
    chunk = next(made.folder.glob("0/mean/c/*/*"))
    damaged = bytearray(chunk.read_bytes())
    damaged[9] ^= 64
    chunk.write_bytes(damaged)
    with pytest.raises(CorruptPyramid):
        made.blocks(0, ALL, ALL)
    cache.discard(made)
    anew = get(cache, tensor)
    assert_levels(anew, tensor.array)
    cache.discard(made)  # by another who saw the damage; the new one stays
    assert_levels(get(cache, tensor), tensor.array)
    assert tensor.bytes_read == 2 * tensor.nbytes


def test_one_that_another_process_gave_up_is_built_anew(
    cache: PyramidCache, watched: type, assert_levels: Callable
) -> None:
    tensor = watched(weights())
    shutil.rmtree(get(cache, tensor).folder)
    assert_levels(get(cache, tensor), tensor.array)


def test_another_process_was_first(cache: PyramidCache, watched: type, assert_levels: Callable) -> None:
    """Its pyramid is kept, and shown."""
    other, step = PyramidCache(cache.folder, device="cpu"), threading.Semaphore(1)
    slow = watched(weights(), reading=step.acquire)
    build = ask(cache, slow)
    assert eventually(lambda: build.progress > 0)
    first = get(other, watched(weights()))
    inode = (first.folder / FILE).stat().st_ino
    step.release(1000)
    assert_levels(build.result(PATIENCE), slow.array)
    assert (first.folder / FILE).stat().st_ino == inode
    assert leftovers(cache.folder) == []


def test_the_key(cache: PyramidCache, watched: type, place: type) -> None:
    """Path, size, modification time, place in the file, name, type and shape: whatever differs, it is another."""
    x = weights()
    tensors = [
        watched(x),
        watched(x, name="v"),
        watched(x.T.copy()),
        *(watched(x, place=place(**{key: value})) for key, value in (("path", "b"), ("size", 2), ("modified_ns", 2))),
    ]
    assert len({get(cache, tensor).folder for tensor in tensors}) == len(tensors)


def test_a_file_that_changed_is_read_again(
    cache: PyramidCache, tmp_path: Path, assert_levels: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one under a relative path is no other."""
    path = tmp_path / "a.safetensors"
    folders = []
    for seed in (1, 2):
        save_file({"w": weights(seed)}, path)
        os.utime(path, ns=(seed, seed))
        pyramid = get(cache, weighbridge.open(path)["w"])
        assert_levels(pyramid, weights(seed))
        folders.append(pyramid.folder)
    assert folders[0] != folders[1]
    monkeypatch.chdir(tmp_path)
    assert get(cache, weighbridge.open("a.safetensors")["w"]).folder == folders[1]


def test_weights_in_memory(cache: PyramidCache, assert_levels: Callable) -> None:
    """Each has a pyramid of its own, though one may come to lie where another was; the user's folder stays empty."""
    for seed in range(6):
        tensor = weighbridge.open({"w": weights(seed)})["w"]
        assert_levels(get(cache, tensor), weights(seed))
        assert get(cache, tensor).folder == get(cache, tensor).folder
        del tensor
    assert kept(cache.folder) == []


def test_the_same_weights_in_memory_seen_in_two_ways(cache: PyramidCache) -> None:
    tensor = weighbridge.open({"w": weights(shape=(6, 5, 7))})["w"]
    folded = weighbridge.matrix.Folded(tensor.shape, 1)
    assert get(cache, tensor).layout.shape == (30, 7)
    assert cache.request(tensor, folded).result(PATIENCE).layout.shape == (6, 35)


def test_weights_in_memory_are_not_kept() -> None:
    """Neither they nor what was built of them, once the cache and the pyramid are gone."""
    cache = PyramidCache(Path("nowhere"), device="cpu")
    array = weights()
    there = weakref.ref(array)
    pyramid = get(cache, weighbridge.open({"w": array})["w"])
    del array

    def collected(what: weakref.ref) -> bool:
        gc.collect()
        return what() is None

    assert eventually(lambda: collected(there)), "the cache holds no weights"
    cache_there = weakref.ref(cache)
    del cache
    assert eventually(lambda: collected(cache_there)), "no thread holds the cache"
    assert pyramid.blocks(0, ALL, ALL).shape == (8, 5), "the pyramid holds its folder"
    folder = pyramid.folder
    del pyramid
    gc.collect()
    assert not folder.exists()
    assert not folder.parent.exists()
    assert not Path("nowhere").exists()


@pytest.mark.parametrize("where", ["folder", "parent"])
def test_a_folder_that_cannot_be_written(where: str, tmp_path: Path, watched: type) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "below" if where == "parent" else tmp_path / "file"
    tensor = watched(weights())
    with pytest.raises(WeighbridgeError) as refused:
        get(PyramidCache(folder, device="cpu"), tensor)
    assert str(refused.value) in (
        f"{folder}: cannot hold a pyramid: Not a directory",
        f"{folder}: cannot hold a pyramid: File exists",
    )
    assert tensor.bytes_read == 0


def test_a_full_disk(cache: PyramidCache, watched: type, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(import_module("weighbridge.pyramid.store").PyramidWriter, "_write", full)
    with pytest.raises(WeighbridgeError, match=r"cache: cannot hold a pyramid: No space left on device$"):
        get(cache, watched(weights()))
    assert leftovers(cache.folder) == []


KILLED = """
import sys, time
from pathlib import Path
import weighbridge
from weighbridge.checkpoints.local_file import LocalFile
from weighbridge.matrix import matrix_view
from weighbridge.pyramid import PyramidCache
build = sys.modules["weighbridge.pyramid.build"]
build.STRIP_ENTRIES = 280
read_into, reads = LocalFile.read_into, []

def slow(self, buffer, offset):
    if len(buffer) > 1000 and {slow}:
        reads.append(offset)
        if len(reads) == 5:
            print("in the middle", flush=True)
            time.sleep(600)
    read_into(self, buffer, offset)

LocalFile.read_into = slow
tensor = weighbridge.open({path!r})["w"]
cache = PyramidCache(Path({folder!r}), device="cpu")
print(cache.request(tensor, matrix_view("w", tensor.shape, "other")).result().folder)
"""


def process(path: Path, folder: Path, slow: bool) -> subprocess.Popen[str]:
    code = KILLED.format(path=str(path), folder=str(folder), slow=slow)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.safetensors"
    save_file({"w": weights()}, path)
    return path


def test_killed_in_the_middle(cache: PyramidCache, file: Path, assert_levels: Callable) -> None:
    """Nothing opens, the next builds it, and what was left goes once it is old."""
    with process(file, cache.folder, slow=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "in the middle\n"
        running.send_signal(signal.SIGKILL)
    (part,) = leftovers(cache.folder)
    assert list(part.iterdir()) != []
    assert kept(cache.folder) == []
    assert_levels(get(cache, weighbridge.open(file)["w"]), weights())
    assert leftovers(cache.folder) == [part], "it might be another process's at work"
    old = time.time() - caches._ABANDONED - 60
    os.utime(part, (old, old))
    os.utime(file)
    get(cache, weighbridge.open(file)["w"])
    assert leftovers(cache.folder) == []


def test_two_processes_at_once(folder: Path, file: Path, assert_levels: Callable) -> None:
    running = [process(file, folder, slow=False) for _ in range(2)]
    found = {each.communicate(timeout=PATIENCE)[0] for each in running}
    assert [each.returncode for each in running] == [0, 0]
    assert len(found) == 1
    (made,) = kept(folder)
    assert found == {f"{made}\n"}
    tensor = weighbridge.open(file)["w"]
    assert_levels(get(PyramidCache(folder, device="cpu"), tensor), weights())
    assert leftovers(folder) == []


def test_asking_giving_up_and_giving_way_at_random(cache: PyramidCache, watched: type) -> None:
    """Whatever the order, who waits gets a whole pyramid of its own tensor, and threads and parts are gone."""
    cache.limit = 50_000  # two of them
    tensors = [watched(np.full((67, 35), seed, np.float32), name=str(seed)) for seed in range(4)]

    def user(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(6):
            which = int(rng.integers(len(tensors)))
            build = ask(cache, tensors[which])
            if rng.random() < 0.3:
                build.release()
                continue
            pyramid = build.result(PATIENCE)
            try:
                assert (pyramid.blocks(0, ALL, ALL).greatest == which).all()
            except CorruptPyramid:  # given up meanwhile
                cache.discard(pyramid)
            build.release()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(user, range(6)))
    assert eventually(lambda: cache._threads == 0)
    assert leftovers(cache.folder) == []
    assert 1 <= len(kept(cache.folder)) < len(tensors)
