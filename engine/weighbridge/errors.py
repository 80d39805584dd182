"""What can go wrong, said in one line: where, what was got, what was expected, what to do."""


class WeighbridgeError(Exception):
    """Root of all errors that are not our own bugs."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""  # KeyError would quote it


class BadArgument(WeighbridgeError, ValueError):
    """The call cannot be carried out as it was made."""


class SourceNotFound(WeighbridgeError, FileNotFoundError):
    """There is no checkpoint where one was expected."""


class CorruptCheckpoint(WeighbridgeError, ValueError):
    """A file contradicts itself or its format."""


class ReadFailed(WeighbridgeError, OSError):
    """The bytes of a tensor could not be read."""


class TensorNotFound(WeighbridgeError, KeyError):
    """No tensor of that name."""


class ReportError(WeighbridgeError, OSError):
    """A report cannot be opened or written."""


class NotLinear(WeighbridgeError, NotImplementedError):
    """A function holds an operation that has no linear form here."""


class Cancelled(WeighbridgeError):
    """Work was given up because nobody waits for it any more."""
