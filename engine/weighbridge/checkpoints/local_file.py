"""Reading ranges of a local file, from any thread, without mapping it: a file that shrinks is an error, not a crash."""

import os
import threading
from pathlib import Path

from weighbridge.errors import CorruptCheckpoint, ReadFailed, SourceNotFound


class LocalFile:
    """A file opened at the first read and shared by the tensors in it."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name.encode("utf-8", "backslashreplace").decode()  # a file's name may be no Unicode
        try:
            status = path.stat()
        except OSError as error:
            raise SourceNotFound(f"{name}: cannot be opened: {error.strerror}; check the path") from error
        self.size = status.st_size
        self.modified_ns = status.st_mtime_ns
        self._lock = threading.Lock()
        self._descriptor: int | None = None

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fills `buffer` from byte `offset` on. Raises `ReadFailed` where the file ends before or cannot be read."""
        filled = 0
        while filled < len(buffer):
            try:
                got = os.preadv(self._open(), [buffer[filled:]], offset + filled)
            except OSError as error:
                raise ReadFailed(
                    f"{self.name}: cannot be read at byte {offset + filled:,}: {error.strerror}"
                ) from error
            if got == 0:
                raise ReadFailed(
                    f"{self.name}: ends at byte {offset + filled:,}, expected {self.size:,} bytes; "
                    "it changed while being read, restore it and try again"
                )
            filled += got

    def read(self, offset: int, size: int) -> bytes:
        buffer = bytearray(size)
        self.read_into(memoryview(buffer), offset)
        return bytes(buffer)

    def _open(self) -> int:
        if self._descriptor is None:
            with self._lock:
                if self._descriptor is None:
                    self._descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        return self._descriptor

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            os.close(self._descriptor)  # type: ignore[arg-type]


class LocalFolder:
    """A folder on a disk, out of which no name leads, whether by `..` or by a link.

    Links out are refused but for the hub cache's own: `models--x/snapshots/<revision>/file -> models--x/blobs/<hash>`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        return sorted(entry.name for entry in self.path.iterdir())

    def open(self, name: str) -> LocalFile:
        """See `sources.Folder.open`."""
        if not name or not name.isprintable():
            raise CorruptCheckpoint(f"{name[:60]!r}: is no name of a file; expected printable text")
        root = self.path.resolve()
        try:
            target = (root / name).resolve()
            found = target.is_file()
        except (OSError, RuntimeError):  # a name too long, a loop of links
            target, found = root, False
        within = target.is_relative_to(root) or _hub_blob(root, target)
        if Path(name).is_absolute() or ".." in Path(name).parts or not within:
            raise CorruptCheckpoint(f"{name}: lies outside the checkpoint's folder; only files inside it are read")
        if not found:
            raise SourceNotFound(f"{name}: is missing from {root.name}; download it")
        return LocalFile(target, name)


def _hub_blob(root: Path, target: Path) -> bool:
    return root.parent.name == "snapshots" and target.parent == root.parent.parent / "blobs"
