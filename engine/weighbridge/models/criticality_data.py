"""A data set as it comes, in batches of any size, cut anew into chunks of one: so its own cut changes nothing."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument, ReadFailed

WHOLE = "all"
"""The task that all examples are of."""


class DatasetEnded(ReadFailed):
    """A data set broke off; `partial` is what had been computed until then, None where that is nothing."""

    partial: Any = None


@dataclass(frozen=True, eq=False)
class Chunk:
    """Examples along the first axes; the last `len(inputs) - count` repeat an example and do not count."""

    inputs: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    tasks: tuple[str, ...]
    count: int


class Batch(NamedTuple):
    """One batch as it came."""

    inputs: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    tasks: tuple[str, ...]


class Dataset:
    """An iterable of batches (inputs, labels) or (inputs, labels, tasks), its first batch read and checked."""

    def __init__(self, batches: Iterable[Any], tasks: str, *, what: str = "dataset") -> None:
        try:
            self._rest: Iterator[Any] | None = iter(batches)
        except TypeError:
            raise BadArgument(
                f"{what} is a {type(batches).__name__}; expected an iterable of batches (inputs, labels)"
            ) from None
        self._given, self._what, self._tasks = batches, what, tasks
        self.again = self._rest is not batches
        """Whether it can be read more than once."""
        self._first: Batch | None = None
        self._parts = 0
        """How many parts the first batch has: the others have as many."""
        self._at = 0
        """Batches read until the first that has examples, itself among them."""
        while self._first is None:
            batch = self._checked(self._begin(self._rest), self._at)
            self._at += 1
            if len(batch.inputs):
                self._first = batch

    def _begin(self, batches: Iterator[Any]) -> Any:
        """The next batch of a data set that has given no example yet."""
        try:
            return next(batches)
        except StopIteration:
            raise BadArgument(f"{self._what} has no examples; expected batches (inputs, labels)") from None
        except Exception as error:
            raise BadArgument(
                f"{self._what}: batch {self._at} raises {said(error)}; expected (inputs, labels)"
            ) from error

    @property
    def one(self) -> tuple[Any, Any]:
        """The first example with its label, a batch of one."""
        assert self._first is not None
        return self._first.inputs[:1], self._first.labels[:1]

    def chunks(self, size: int) -> Iterator[Chunk]:
        """The examples in order, `size` at a time.

        Raises `DatasetEnded` where the data set raises or gives a batch of another form, after the chunk before it.
        """
        waiting: list[Batch] = []
        held = 0
        ended: list[DatasetEnded] = []
        for batch in _until(self._batches(), ended):
            waiting.append(batch)
            held += len(batch.inputs)
            while held >= size:
                joined = _joined(waiting)
                yield _chunk(joined, size, size)
                waiting, held = [_cut(joined, size)], held - size
        if held:
            yield _chunk(_joined(waiting), held, size)
        if ended:
            raise ended[0]

    def _batches(self) -> Iterator[Batch]:
        if self._first is not None and self._rest is not None:
            first, rest = self._first, self._rest
            self._rest = None
            yield first
            yield from self._read(rest, self._at)
        elif self.again:
            yield from self._read(iter(self._given), 0)
        else:
            raise BadArgument(f"{self._what} can be read once; give a list, or an object that begins anew")

    def _read(self, rest: Iterator[Any], number: int) -> Iterator[Batch]:
        while True:
            try:
                raw = next(rest)
            except StopIteration:
                return
            except Exception as error:
                raise DatasetEnded(self._broke(number, f"raises {said(error)}")) from error
            try:
                yield self._checked(raw, number)
            except BadArgument as error:
                raise DatasetEnded(self._broke(number, f"does not fit: {error}")) from error
            number += 1

    def _broke(self, number: int, why: str) -> str:
        return f"{self._what}: batch {number} {why}; the batches before it are kept, mend it and run again"

    def _checked(self, raw: Any, number: int) -> Batch:
        where = f"{self._what}: batch {number}"
        if not isinstance(raw, tuple | list) or len(raw) not in (2, 3):
            got = f"a {type(raw).__name__}" + (f" of {len(raw)}" if isinstance(raw, tuple | list) else "")
            raise BadArgument(f"{where} is {got}; expected (inputs, labels) or (inputs, labels, tasks)")
        arrays = [np.asarray(part) for part in raw]
        lengths = [array.shape[0] if array.ndim else -1 for array in arrays]
        if len(set(lengths)) > 1 or lengths[0] < 0:
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise BadArgument(f"{where} has shapes {shapes}; expected as many examples in each, first axis")
        self._parts = self._parts or len(raw)
        if len(raw) != self._parts:
            raise BadArgument(f"{where} is of {len(raw)}; expected {self._parts}, as in the batches before")
        inputs, labels = arrays[:2]
        if self._first is not None:
            for of, now, before in (("inputs", inputs, self._first.inputs), ("labels", labels, self._first.labels)):
                if now.shape[1:] != before.shape[1:]:
                    raise BadArgument(f"{of} have shape {now.shape}; expected (examples, {_sides(before)})")
                if not np.can_cast(now.dtype, before.dtype, "same_kind"):
                    raise BadArgument(f"{of} are {now.dtype}; expected {before.dtype}, as in the batches before")
            inputs, labels = inputs.astype(self._first.inputs.dtype), labels.astype(self._first.labels.dtype)
        return Batch(inputs, labels, self._task_names(arrays, where))

    def _task_names(self, arrays: list[npt.NDArray[Any]], where: str) -> tuple[str, ...]:
        if self._tasks == "labels":
            ids = arrays[1]
        elif len(arrays) == 3 and self._tasks == "given":
            ids = arrays[2]
        else:
            return (WHOLE,) * len(arrays[0])
        if ids.ndim != 1 or ids.dtype.kind not in "biuSUO":
            raise BadArgument(
                f"{where}: tasks are {ids.dtype} of shape {ids.shape}; expected a number or name for each example"
            )
        found = tuple(map(str, ids.tolist()))
        for own in {WHOLE, ""} & set(found):
            raise BadArgument(f"{where}: a task is called {own!r}, as all examples together are; give it another name")
        return found


def _until(batches: Iterator[Batch], ended: list[DatasetEnded]) -> Iterator[Batch]:
    """The batches before the data set breaks off, and then in `ended` why it does."""
    try:
        yield from batches
    except DatasetEnded as error:
        ended.append(error)


def said(error: BaseException) -> str:
    """An exception in one line."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{type(error).__name__}: {first}" if str(error).strip() else first


def _sides(array: npt.NDArray[Any]) -> str:
    return ", ".join(map(str, array.shape[1:])) or "nothing more"


def _joined(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    inputs, labels = (np.concatenate([batch[i] for batch in batches]) for i in range(2))
    return Batch(inputs, labels, tuple(task for batch in batches for task in batch.tasks))


def _cut(batch: Batch, first: int) -> Batch:
    return Batch(batch.inputs[first:], batch.labels[first:], batch.tasks[first:])


def _chunk(batch: Batch, count: int, size: int) -> Chunk:
    """The first `count` examples, filled up to `size`."""
    at = np.minimum(np.arange(size), count - 1)
    return Chunk(batch.inputs[at], batch.labels[at], batch.tasks[:count], count)


def device_arrays(chunk: Chunk) -> tuple[Any, Any]:
    """Inputs and labels as JAX arrays."""
    return jax.numpy.asarray(chunk.inputs), jax.numpy.asarray(chunk.labels)
