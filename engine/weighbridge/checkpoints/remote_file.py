"""Reading ranges of a remote file through fsspec: bounded, retried, and never the whole file for a part of it."""

import random
import threading
import time
from typing import Any

from blake3 import blake3

from weighbridge.errors import BadArgument, CorruptCheckpoint, ReadFailed, SourceNotFound

CONCURRENCY = 8
"""Ranges on their way at a time."""
ATTEMPTS = 6
BACKOFF = 0.2
"""Seconds before the second attempt; doubled for each further one, with as much again at random."""
STALL = 30.0
"""Seconds without a byte after which a request is given up and made again."""

_VERSIONS = ("ETag", "etag", "Content-MD5", "blob_id", "md5Hash", "Last-Modified", "LastModified", "mtime", "created")
"""What filesystems call the thing that changes with a file's content, the surest first."""

_WINDOW = 1 << 20
"""Bytes of an answer taken at a time; a larger piece than the client's own 64 KiB costs fewer turns of its loop."""
_FINAL = (400, 401, 403, 404, 410)
"""Answers of a server that another attempt does not change."""

_RANGELESS = "does not serve ranges of files; download the checkpoint and scan it locally"


class RemoteFile:
    """A file of an fsspec filesystem, with the interface of `LocalFile`."""

    def __init__(self, filesystem: Any, path: str, name: str) -> None:
        self.name = name
        self.path = path
        self._filesystem = filesystem
        self._per_thread = threading.local()
        info = _attempt(lambda: filesystem.info(path), name)
        if info.get("type") == "directory":
            raise SourceNotFound(f"{name}: is a folder, expected a file")
        if not isinstance(info.get("size"), int):
            raise BadArgument(f"{name}: the server does not tell its size; download the file and scan it locally")
        if info.get("partial") is False:
            raise BadArgument(f"{name}: the server {_RANGELESS}")
        self.size: int = info["size"]
        self.modified_ns = _identity(info)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fills `buffer` from byte `offset` on; what came before a fault is kept and only the rest asked for again.

        Raises `ReadFailed` when the attempts are used up, `BadArgument` where the server does not serve ranges.
        """
        filled = 0
        attempt = 0
        while filled < len(buffer):
            start = offset + filled
            got = _attempt(lambda start=start: self._fetch(start, offset + len(buffer)), self.name)
            attempt = attempt + 1 if not got else 0
            if attempt == ATTEMPTS:
                raise ReadFailed(f"{self.name}: ends at byte {start:,}, expected {self.size:,}; it changed, scan anew")
            taken = min(len(got), len(buffer) - filled)
            buffer[filled : filled + taken] = got[:taken]
            filled += taken

    def read(self, offset: int, size: int) -> bytes:
        buffer = bytearray(size)
        self.read_into(memoryview(buffer), offset)
        return bytes(buffer)

    def _fetch(self, start: int, end: int) -> bytes:
        if not _is_http(self._filesystem):
            return bytes(self._filesystem.cat_file(self.path, start=start, end=end))
        if not hasattr(self._per_thread, "file"):
            self._per_thread.file = self._filesystem.open(self.path, cache_type="none", size=self.size)
        file = self._per_thread.file
        file.seek(start)
        return bytes(file.read(end - start))


class RemoteFolder:
    """A folder of an fsspec filesystem, out of which no name leads."""

    def __init__(self, filesystem: Any, path: str) -> None:
        self._filesystem = filesystem
        self._path = path.rstrip("/")

    def names(self) -> list[str]:
        listed = _attempt(lambda: self._filesystem.ls(self._path, detail=False), self._path)
        return sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in listed)

    def open(self, name: str) -> RemoteFile:
        """See `sources.Folder.open`."""
        plain = name.isprintable() and not set("\\?#%:") & set(name)
        if not plain or name.startswith("/") or not all(part not in ("", ".", "..") for part in name.split("/")):
            raise CorruptCheckpoint(
                f"{name[:60]!r}: lies outside the checkpoint's folder; only files inside it are read"
            )
        return RemoteFile(self._filesystem, f"{self._path}/{name}", name)


def filesystem_of(url: str) -> tuple[Any, str]:
    """The filesystem and the path in it that a URL names.

    Raises `BadArgument` where fsspec, or the package that serves the URL's scheme, is missing.
    """
    try:
        import fsspec
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise BadArgument(f"{url}: remote sources need fsspec; pip install 'weighbridge[remote]'") from error
    options: dict[str, Any] = {}
    if url.startswith(("http://", "https://")):
        try:
            import aiohttp
        except ImportError as error:
            raise BadArgument(f"{url}: http needs aiohttp; pip install 'weighbridge[remote]'") from error
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=STALL, sock_read=STALL)
        options = {"client_kwargs": {"timeout": timeout, "read_bufsize": _WINDOW}}
    try:
        filesystem, path = url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        known = ", ".join(sorted({"http", "https", "hf", "s3", "gs"} & set(fsspec.available_protocols())))
        raise BadArgument(f"{url}: {_line(error)}; expected a path or one of {known}") from error
    return filesystem, str(path)


def _attempt(work: Any, name: str) -> Any:
    """The result of `work`, tried again with growing pauses where the fault may pass."""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(BACKOFF * 2 ** (attempt - 1) * (1 + random.random()))
        try:
            return work()
        except Exception as error:  # the filesystems' clients each have errors of their own
            if "range requests" in str(error):
                raise BadArgument(f"{name}: the server {_RANGELESS}") from error
            last = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
            if isinstance(last, FileNotFoundError | PermissionError) or getattr(last, "status", 0) in _FINAL:
                raise SourceNotFound(f"{name}: cannot be had: {_line(last)}; check the address") from error
    raise ReadFailed(f"{name}: {ATTEMPTS} attempts failed, the last with {_line(last)}; try again later with --resume")


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


def _is_http(filesystem: Any) -> bool:
    protocol = filesystem.protocol
    return "http" in ((protocol,) if isinstance(protocol, str) else protocol)


def _identity(info: dict[str, Any]) -> int | None:
    """What tells one version of a file from another, as a number: its ETag, checksum or time of change."""
    for key in _VERSIONS:
        if info.get(key) is not None:
            return int.from_bytes(blake3(str(info[key]).encode()).digest(7), "little")
    return None
