"""The pyramids of a user: built once however many ask, kept in the cache folder, the least recently used given up."""

import contextlib
import shutil
import tempfile
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

from blake3 import blake3

from weighbridge import devices
from weighbridge.checkpoints.protocol import Tensor
from weighbridge.errors import Cancelled, WeighbridgeError
from weighbridge.matrix import Folded, MatrixView
from weighbridge.pyramid.build import build, layout_of
from weighbridge.pyramid.store import FILE, VERSION, CorruptPyramid, Layout, Pyramid
from weighbridge_kernels.variants import Device

DEFAULT_LIMIT = 20 << 30
_WORKERS = 2
_PART = ".part-"
_ABANDONED = 24 * 3600
"""Seconds after which a part is of a process that was killed."""


class Build:
    """A pyramid on its way. It goes on as long as somebody wants it."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.nbytes_done = 0
        self._wanted = 1
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._pyramid: Pyramid | None = None
        self._error: BaseException | None = None

    @property
    def progress(self) -> float:
        """Share of the tensor's bytes that have been reduced."""
        return self.nbytes_done / self.nbytes

    @property
    def done(self) -> bool:
        """Whether there is a result, or an error."""
        return self._done.is_set()

    def result(self, timeout: float | None = None) -> Pyramid:
        """Waits for the pyramid. Raises what building it raised, TimeoutError after `timeout` seconds."""
        if not self._done.wait(timeout):
            raise TimeoutError(f"no pyramid after {timeout} s")
        if self._error is not None:
            raise self._error
        assert self._pyramid is not None
        return self._pyramid

    def want(self) -> bool:
        """One more waits for it; False where it was given up, has failed, or its pyramid is no longer there."""
        with self._lock:
            alive = self.holds() if self.done else self._wanted > 0
            self._wanted += alive
            return alive

    def holds(self, pyramid: Pyramid | None = None) -> bool:
        """Whether its result is still there and, where one is given, is that one."""
        return self._pyramid is not None and pyramid in (None, self._pyramid) and self._pyramid.touch()

    def release(self) -> None:
        """One fewer waits for it; nobody left, it is given up."""
        with self._lock:
            self._wanted -= 1

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._wanted == 0

    def advance(self, nbytes: int) -> None:
        """So many more bytes have been reduced."""
        self.nbytes_done += nbytes

    def finish(self, pyramid: Pyramid | None, error: BaseException | None) -> None:
        """Wakes those who wait."""
        self._pyramid, self._error = pyramid, error
        if pyramid is not None:
            self.nbytes_done = self.nbytes
        self._done.set()


class PyramidCache:
    """Pyramids by the fingerprint of their source: its path, size and modification time.

    They lie in `folder`, by default in the user's cache folder, and take at most about `limit` bytes. Weights in
    memory, which nothing identifies, are built anew for each cache, in a folder that goes with it and with the pyramids
    in it.
    """

    def __init__(self, folder: Path | None = None, *, limit: int = DEFAULT_LIMIT, device: Device = "auto") -> None:
        self.folder = folder or _default_folder()
        self.limit = limit
        self._device = device
        self._lock = threading.Lock()
        self._builds: dict[Path, Build] = {}
        self._tasks: deque[Callable[[], None]] = deque()
        self._threads = 0
        self._temporary: _TemporaryFolder | None = None
        self._numbers: weakref.WeakKeyDictionary[Tensor, int] = weakref.WeakKeyDictionary()
        self._counter = count()

    def request(self, tensor: Tensor, view: MatrixView | Folded) -> Build:
        """The pyramid of a tensor, found or on its way; call `release` on it when it is no longer wanted.

        Raises `BadArgument` for a tensor that has none.
        """
        layout = layout_of(tensor, view)
        with self._lock:
            folder = self._folder_of(tensor, layout)
            running = self._builds.get(folder)
            if running is not None and running.want():
                return running
            begun = self._builds[folder] = Build(tensor.nbytes)
            self._tasks.append(partial(self._carry_out, begun, tensor, view, layout, folder))
            if self._threads < _WORKERS:
                self._threads += 1
                threading.Thread(target=self._work, daemon=True, name="pyramids").start()
        return begun

    def discard(self, pyramid: Pyramid) -> None:
        """Forgets a pyramid that has turned out to be damaged, so that the next request builds it anew."""
        with self._lock:
            known = self._builds.get(pyramid.folder)
            if known is None or known.holds(pyramid):  # else it is being built anew, or has been
                self._builds.pop(pyramid.folder, None)
                _remove(pyramid.folder)

    def _folder_of(self, tensor: Tensor, layout: Layout) -> Path:
        key = _key(tensor, layout)
        if key is not None:
            return self.folder / key
        if self._temporary is None:
            self._temporary = _TemporaryFolder()
        if tensor not in self._numbers:
            self._numbers[tensor] = next(self._counter)
        return self._temporary.path / "-".join(map(str, (self._numbers[tensor], *layout.shape)))

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._tasks:
                    self._threads -= 1
                    return
                task = self._tasks.popleft()
            task()
            del task  # which holds the tensor

    def _carry_out(self, build: Build, tensor: Tensor, view: MatrixView | Folded, layout: Layout, folder: Path) -> None:
        try:
            build.finish(self._found(layout, folder) or self._built(build, tensor, view, folder), None)
        except BaseException as error:
            with self._lock:
                if self._builds.get(folder) is build:
                    del self._builds[folder]
            build.finish(None, error)

    def _found(self, layout: Layout, folder: Path) -> Pyramid | None:
        with contextlib.suppress(CorruptPyramid):
            return Pyramid.open(folder, layout, self._holder(folder))
        return None

    def _holder(self, folder: Path) -> object:
        return self._temporary if folder.parent != self.folder else None

    def _built(self, build_: Build, tensor: Tensor, view: MatrixView | Folded, folder: Path) -> Pyramid:
        """Beside its place and then renamed into it, so that another process sees it whole or not at all."""
        if build_.given_up:
            raise Cancelled(f"{tensor.name}: its pyramid is no longer wanted")
        variant = devices.select(self._device)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=_PART, dir=folder.parent))
            try:
                made = build(tensor, view, part, variant, advanced=build_.advance, cancelled=lambda: build_.given_up)
                placed = self._placed(made, folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
            if folder.parent == self.folder:
                self._evict(keep=folder)
        except WeighbridgeError:
            raise
        except OSError as error:
            raise WeighbridgeError(f"{folder.parent}: cannot hold a pyramid: {error.strerror or error}") from error
        return placed

    def _placed(self, made: Pyramid, folder: Path) -> Pyramid:
        """Renamed into its place, unless another process was first; what is there and damaged gives way."""
        try:
            made.folder.rename(folder)
        except OSError:
            if first := self._found(made.layout, folder):
                return first
            _remove(folder)
            made.folder.rename(folder)
        return Pyramid(folder, made.layout, self._holder(folder))

    def _evict(self, keep: Path) -> None:
        """Gives up what was used least recently until the rest is within the limit, and what killed processes left."""
        for part in self.folder.glob(f"{_PART}*"):
            if 0 < _last_use(part, "") < time.time() - _ABANDONED:
                shutil.rmtree(part, ignore_errors=True)
        used = sorted((_last_use(path), path) for path in self.folder.iterdir() if (path / FILE).exists())
        sizes = {path: _size(path) for _, path in used}
        total = sum(sizes.values())
        for _, path in used:
            if total <= self.limit:
                break
            if path != keep:
                _remove(path)
                total -= sizes[path]
                with self._lock:
                    self._builds.pop(path, None)


class _TemporaryFolder:
    """A folder that is removed when nothing holds this, or the interpreter ends."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="weighbridge-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _remove(folder: Path) -> None:
    """At once for those who look for it, then file by file."""
    aside = folder.with_name(f"{_PART}{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _default_folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("weighbridge")) / "pyramids"


def _key(tensor: Tensor, layout: Layout) -> str | None:
    """BLAKE3 over what identifies the tensor's file, its place in it and the layout; None where nothing does."""
    if tensor.extent is None or tensor.extent[0].modified_ns is None:
        return None
    source, offset = tensor.extent
    path = source.path.resolve() if isinstance(source.path, Path) else source.path
    where = (path, source.size, source.modified_ns, offset, tensor.name)
    return blake3("\0".join(map(str, (VERSION, *where, layout.dtype, *layout.shape))).encode()).hexdigest()[:32]


def _last_use(folder: Path, file: str = FILE) -> float:
    """When a file of a folder was touched, 0 where it is no longer there."""
    try:
        return (folder / file).stat().st_mtime
    except OSError:
        return 0.0


def _size(folder: Path) -> int:
    try:
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    except OSError:  # another process has just given it up
        return 0
