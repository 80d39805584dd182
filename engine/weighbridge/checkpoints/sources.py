"""What a format reads from: files and folders of them, on a disk or far away."""

from typing import Protocol


class Source(Protocol):
    """A file read by ranges, from any thread.

    `modified_ns` changes when the file does: its modification time, or a number made of what a server says of its
    version; None where nothing is known.
    """

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> object:
        """Where it lies, as text in a form of its own."""
        ...

    @property
    def size(self) -> int: ...

    @property
    def modified_ns(self) -> int | None: ...

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fills `buffer` from byte `offset` on. Raises `ReadFailed` where the bytes are not to be had."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """The `size` bytes from byte `offset` on."""
        ...


class Folder(Protocol):
    """A folder of a checkpoint, out of which no name leads."""

    def names(self) -> list[str]:
        """The names of the files in it, sorted."""
        ...

    def open(self, name: str) -> Source:
        """A file by its name. Raises `SourceNotFound`, or `CorruptCheckpoint` for a name that leads out."""
        ...
