"""The pyramids of a user: built once however many ask, kept in the cache folder, the least recently used given up."""

import contextlib
import queue
import shutil
import tempfile
import threading
from collections.abc import Callable
from functools import partial
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
        return self.nbytes_done / max(self.nbytes, 1)

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
        """One more waits for it; False where it has been given up."""
        with self._lock:
            if self._wanted == 0 and not self.done:
                return False
            self._wanted += 1
            return True

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
        self._done.set()


class PyramidCache:
    """Pyramids by the fingerprint of their source: its path, size and modification time.

    They lie in `folder`, by default in the user's cache folder, and take at most about `limit` bytes. Weights in memory, which nothing identifies, are built anew for
    each cache, in a folder that goes with it.
    """

    def __init__(self, folder: Path | None = None, *, limit: int = DEFAULT_LIMIT, device: Device = "auto") -> None:
        self.folder = folder or _default_folder()
        self.limit = limit
        self._device = device
        self._lock = threading.Lock()
        self._builds: dict[str, Build] = {}
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._threads = 0
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def request(self, tensor: Tensor, view: MatrixView | Folded) -> Build:
        """The pyramid of a tensor, found or on its way; call `release` on it when it is no longer wanted.

        Raises `BadArgument` for a tensor that has none.
        """
        layout = layout_of(tensor, view)
        key = _key(tensor, layout)
        folder = (self._memory_folder() if key is None else self.folder) / (key or f"{id(tensor)}")
        with self._lock:
            running = self._builds.get(str(folder))
            if running is not None and not (running.done and running._error) and running.want():
                return running
            begun = self._builds[str(folder)] = Build(tensor.nbytes)
        self._tasks.put(partial(self._carry_out, begun, tensor, view, layout, folder))
        self._start_thread()
        return begun

    def discard(self, pyramid: Pyramid) -> None:
        """Forgets a pyramid that has turned out to be damaged, so that the next request builds it anew."""
        with self._lock:
            self._builds.pop(str(pyramid.folder), None)
        shutil.rmtree(pyramid.folder, ignore_errors=True)

    def _start_thread(self) -> None:
        with self._lock:
            if self._threads < _WORKERS:
                self._threads += 1
                threading.Thread(target=self._work, daemon=True, name="pyramids").start()

    def _work(self) -> None:
        while True:
            self._tasks.get()()

    def _carry_out(self, build: Build, tensor: Tensor, view: MatrixView | Folded, layout: Layout, folder: Path) -> None:
        try:
            build.finish(self._found(layout, folder) or self._built(build, tensor, view, folder), None)
        except BaseException as error:
            with self._lock:
                self._builds.pop(str(folder), None)
            build.finish(None, error)

    def _found(self, layout: Layout, folder: Path) -> Pyramid | None:
        try:
            return Pyramid.open(folder, layout)
        except CorruptPyramid:
            shutil.rmtree(folder, ignore_errors=True)
            return None

    def _built(self, build_: Build, tensor: Tensor, view: MatrixView | Folded, folder: Path) -> Pyramid:
        """Beside its place and then renamed into it, so that another process sees it whole or not at all."""
        if build_.given_up:
            raise Cancelled(f"{tensor.name}: its pyramid is no longer wanted")
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=_PART, dir=folder.parent))
        try:
            variant = devices.select(self._device)
            made = build(tensor, view, part, variant, advanced=build_.advance, cancelled=lambda: build_.given_up)
            with contextlib.suppress(OSError):  # another process was first
                part.rename(folder)
            self._evict(keep=folder)
            return Pyramid(folder, made.layout)
        except OSError as error:
            raise WeighbridgeError(f"{folder.parent}: cannot hold a pyramid: {error.strerror or error}") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _evict(self, keep: Path) -> None:
        """Gives up what was used least recently until the rest is within the limit."""
        used = sorted((_last_use(path), path) for path in self.folder.iterdir() if (path / FILE).exists())
        sizes = {path: _size(path) for _, path in used}
        total = sum(sizes.values())
        for _, path in used:
            if total <= self.limit:
                break
            if path != keep:
                shutil.rmtree(path, ignore_errors=True)
                total -= sizes[path]
                with self._lock:
                    self._builds.pop(str(path), None)

    def _memory_folder(self) -> Path:
        with self._lock:
            if self._temporary is None:
                self._temporary = tempfile.TemporaryDirectory(prefix="weighbridge-", ignore_cleanup_errors=True)
            return Path(self._temporary.name)


def _default_folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("weighbridge")) / "pyramids"


def _key(tensor: Tensor, layout: Layout) -> str | None:
    """BLAKE3 over what identifies the tensor's file, its place in it and the layout; None where nothing does."""
    if tensor.extent is None or tensor.extent[0].modified_ns is None:
        return None
    source, offset = tensor.extent
    where = (source.path, source.size, source.modified_ns, offset, tensor.name)
    return blake3("\0".join(map(str, (VERSION, *where, layout.dtype, *layout.shape))).encode()).hexdigest()[:32]


def _last_use(folder: Path) -> float:
    try:
        return (folder / FILE).stat().st_mtime
    except OSError:
        return 0.0


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
