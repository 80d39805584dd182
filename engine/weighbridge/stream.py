"""Tensors to spans to states: reads ahead while others compute, in bounded memory, and merges in order.

The cut into spans depends on the tensors alone, neither on threads nor on memory, so two runs give the same sums. Large
tensors are cut at rows; small ones share a span, so that none costs a hand-over of its own.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from weighbridge.checkpoints.protocol import Tensor
from weighbridge.checkpoints.sources import Source
from weighbridge.errors import BadArgument, WeighbridgeError
from weighbridge_kernels.padding import unpadded_size

PIECE_ENTRIES = 1 << 21
"""Entries of a large tensor read and summarised at a time; a row of up to half of that is never cut."""
BATCH_BYTES = 1 << 22
"""Small tensors are read together up to about this many bytes."""
BATCH_PIECES = 256
MIN_MEMORY = 64 << 20
_ALIGNMENT = 64
"""Bytes; where a piece begins in a buffer, so that its entries are never read across a word."""

Bytes = npt.NDArray[np.uint8]
State = TypeVar("State")


@dataclass(frozen=True, slots=True)
class Piece:
    """Entries [start, start + count) of a tensor, the `index`-th of the `last + 1` that it is cut into."""

    tensor: Tensor
    index: int
    last: int
    start: int
    count: int

    @property
    def nbytes(self) -> int:
        return self.tensor.dtype.nbytes(self.count)

    @property
    def extent(self) -> tuple[Source, int] | None:
        """The file and the byte in it where the piece begins, if it lies in one as it is."""
        extent = self.tensor.extent
        return extent and (extent[0], extent[1] + self.start * self.tensor.dtype.bits // 8)


Span = tuple[Piece, ...]


def pieces(tensor: Tensor, cols: int, entries: int = PIECE_ENTRIES) -> list[Piece]:
    """Cuts a tensor of rows of `cols` entries: whole rows as long as one fits into `entries`, else parts of a row.

    As many rows as devices take without padding, by eights where entries are narrower than a byte; parts of a row by
    multiples of 4,096: so every piece begins at a byte and no block of a quantiser is cut. A row that does not end at
    a byte is never cut. A tensor without entries is one empty piece.
    """
    if cols <= entries or cols * tensor.dtype.bits % 8:
        rows = unpadded_size(entries // max(cols, 1))
        step = max(rows // 8 * 8, 8) * cols if tensor.dtype.bits < 8 else rows * cols
        cuts = range(0, tensor.count, max(step, 1))
        bounds = [(at, min(step, tensor.count - at)) for at in cuts]
    else:
        step = max(entries // 4096, 1) * 4096
        bounds = [
            (row + at, min(step, cols - at)) for row in range(0, tensor.count, cols) for at in range(0, cols, step)
        ]
    bounds = bounds or [(0, 0)]
    return [Piece(tensor, i, len(bounds) - 1, start, count) for i, (start, count) in enumerate(bounds)]


def spans(cut: Iterable[list[Piece]]) -> Iterator[Span]:
    """Batches the pieces of small tensors, in order; a piece of a tensor with several is a span alone."""
    batch: list[Piece] = []
    size = 0
    for of_tensor in cut:
        if len(of_tensor) > 1:
            if batch:
                yield tuple(batch)
                batch, size = [], 0
            yield from ((piece,) for piece in of_tensor)
            continue
        piece = of_tensor[0]
        if batch and (size + piece.nbytes > BATCH_BYTES or len(batch) == BATCH_PIECES):
            yield tuple(batch)
            batch, size = [], 0
        batch.append(piece)
        size += piece.nbytes
    if batch:
        yield tuple(batch)


def check_memory(memory: int) -> None:
    """Raises `BadArgument` for a bound under which two spans do not fit."""
    if memory < MIN_MEMORY:
        raise BadArgument(f"memory is {memory:,} bytes; expected at least {MIN_MEMORY:,}")


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def _runs(span: Span) -> Iterator[list[Piece]]:
    """The span's pieces, those together that follow one another in a file and keep their alignment in the buffer."""
    run: list[Piece] = []
    end: tuple[Source, int] | None = None
    nbytes = 0
    for piece in span:
        extent = piece.extent
        if run and (extent is None or extent != end or nbytes % piece.tensor.dtype.array.itemsize):
            yield run
            run, nbytes = [], 0
        run.append(piece)
        nbytes += piece.nbytes
        end = extent and (extent[0], extent[1] + piece.nbytes)
    yield run


class Fold(Protocol[State]):
    """What is done with the pieces; see `run`. All three may be called from several threads at once.

    `summarize` is pure. `absorb` is called for the pieces of a tensor in their order, one at a time, with the bytes
    that were summarised. `fail` is called once for a tensor whose bytes cannot be had, and then nothing more for it.
    """

    def summarize(self, piece: Piece, packed: Bytes) -> State: ...

    def absorb(self, piece: Piece, packed: Bytes, state: State) -> None: ...

    def fail(self, tensor: Tensor, error: WeighbridgeError) -> None: ...


@dataclass
class _Turn(Generic[State]):
    """Whose turn it is among the pieces of one tensor."""

    following: int = 0
    busy: bool = False
    failed: bool = False
    error: WeighbridgeError | None = None
    """To be told by the thread that is busy, when it is done."""
    waiting: dict[int, tuple[Piece, Bytes, State, "_Lease"]] = field(default_factory=dict)


class _Lease:
    """A buffer on loan to a span, given back when the last of its pieces is done with."""

    def __init__(self, buffer: Bytes, holders: int, pool: "queue.Queue[Bytes]") -> None:
        self._buffer, self._holders, self._pool = buffer, holders, pool
        self._lock = threading.Lock()

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                self._pool.put(self._buffer)


def run(
    plan: list[Span],
    fold: Fold[State],
    *,
    memory: int,
    workers: int,
    readers: int = 1,
    advanced: Callable[[int], None] = lambda nbytes: None,
) -> None:
    """Reads every piece of the plan once, summarises pieces in `workers` threads and absorbs them in order.

    `memory` bounds what is read ahead, in bytes; the buffers are reused. `advanced` is told the bytes absorbed.
    Returns when all is absorbed; an exception of `fold` or a KeyboardInterrupt stops all threads and is raised here.
    """
    check_memory(memory)
    if plan:
        _Run(plan, fold, memory, workers, readers, advanced).run()


class _Run(Generic[State]):
    """One pass. Readers take a buffer, then the next span: the oldest span has a buffer, so none waits for ever."""

    def __init__(
        self,
        plan: list[Span],
        fold: Fold[State],
        memory: int,
        workers: int,
        readers: int,
        advanced: Callable[[int], None],
    ) -> None:
        largest = max(sum(_aligned(piece.nbytes) for piece in span) for span in plan)
        buffers = max(2, min(2 * workers + readers, memory // 4 // max(largest, 1)))
        self._fold = fold
        self._advanced = advanced
        self._plan = iter(plan)
        self._pool: queue.Queue[Bytes] = queue.Queue()
        for _ in range(buffers):
            self._pool.put(np.empty(largest, np.uint8))
        self._read: queue.Queue[list[tuple[Piece, Bytes, _Lease]] | None] = queue.Queue()
        self._turns: dict[int, _Turn[State]] = {}
        self._lock = threading.Lock()
        self._order = threading.Lock()
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._readers = [
            threading.Thread(target=self._guard, args=(self._reader,), daemon=True) for _ in range(readers)
        ]
        self._workers = [
            threading.Thread(target=self._guard, args=(self._worker,), daemon=True) for _ in range(workers)
        ]

    def run(self) -> None:
        threads = self._readers + self._workers
        for thread in threads:
            thread.start()
        try:
            for thread in self._readers:
                self._join(thread)
            for _ in self._workers:
                self._read.put(None)
            for thread in self._workers:
                self._join(thread)
        finally:
            self._halt()
            for thread in threads:
                thread.join()
        if self._error is not None:
            raise self._error

    def _join(self, thread: threading.Thread) -> None:
        while thread.is_alive():
            thread.join(0.2)  # returns to the interpreter, so that an interrupt is seen

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = self._error or error
            self._halt()

    def _halt(self) -> None:
        """Wakes every thread that waits; each sees that it is to stop."""
        self._stop.set()
        for _ in self._readers:
            self._pool.put(np.empty(0, np.uint8))
        for _ in self._workers:
            self._read.put(None)

    def _reader(self) -> None:
        while True:
            with self._order:
                buffer = self._pool.get()
                span = next(self._plan, None)
            if span is None or self._stop.is_set():
                self._pool.put(buffer)
                return
            self._read.put(self._fill(span, buffer))

    def _fill(self, span: Span, buffer: Bytes) -> list[tuple[Piece, Bytes, _Lease]]:
        lease = _Lease(buffer, len(span), self._pool)
        filled = []
        at = 0
        for run in _runs(span):
            nbytes = sum(piece.nbytes for piece in run)
            for piece, packed in self._read_run(run, buffer[at : at + nbytes], lease):
                filled.append((piece, packed, lease))
            at += _aligned(nbytes)
        return filled

    def _read_run(self, run: list[Piece], packed: Bytes, lease: _Lease) -> Iterator[tuple[Piece, Bytes]]:
        """The pieces with their bytes: read at once where they are neighbours, one by one where that fails."""
        extent = run[0].extent
        at_once = (
            len(run) > 1 and extent is not None and self._attempt(lambda: extent[0].read_into(packed.data, extent[1]))
        )
        at = 0
        for piece in run:
            part = packed[at : at + piece.nbytes]
            at += piece.nbytes
            if at_once or self._read_piece(piece, part):
                yield piece, part
            else:
                lease.release()

    def _attempt(self, read: Callable[[], None]) -> bool:
        try:
            read()
        except WeighbridgeError:
            return False
        return True

    def _read_piece(self, piece: Piece, part: Bytes) -> bool:
        """Whether the piece's bytes were read; its tensor fails where they cannot be, and is passed over after that."""
        if self._turn(piece.tensor).failed:
            return False
        try:
            piece.tensor.read_into(part.data, piece.start * piece.tensor.dtype.bits // 8)
        except WeighbridgeError as error:
            self._fail(piece.tensor, error)
            return False
        return True

    def _worker(self) -> None:
        while (batch := self._read.get()) is not None:
            for piece, packed, lease in batch:
                if self._stop.is_set():
                    return
                state = self._fold.summarize(piece, packed)
                self._absorb_in_order(piece, packed, state, lease)

    def _turn(self, tensor: Tensor) -> _Turn[State]:
        with self._lock:
            return self._turns.setdefault(id(tensor), _Turn())

    def _absorb_in_order(self, piece: Piece, packed: Bytes, state: State, lease: _Lease) -> None:
        """Absorbs the piece and those that waited for it, unless one before is still out or another thread is at it."""
        turn = self._turn(piece.tensor)
        with self._lock:
            if turn.failed:
                lease.release()
                return
            turn.waiting[piece.index] = piece, packed, state, lease
            if turn.busy:
                return
            turn.busy = True
        while (following := self._next(piece.tensor, turn)) is not None:
            piece, packed, state, lease = following
            self._fold.absorb(piece, packed, state)
            self._advanced(piece.nbytes)
            lease.release()
            if piece.index == piece.last:
                with self._lock:
                    del self._turns[id(piece.tensor)]

    def _next(self, tensor: Tensor, turn: _Turn[State]) -> tuple[Piece, Bytes, State, _Lease] | None:
        with self._lock:
            following = turn.waiting.pop(turn.following, None)
            if following is not None:
                turn.following += 1
                return following
            turn.busy = False
            error = turn.error
        if error is not None:
            self._fold.fail(tensor, error)
        return None

    def _fail(self, tensor: Tensor, error: WeighbridgeError) -> None:
        turn = self._turn(tensor)
        with self._lock:
            for *_, lease in turn.waiting.values():
                lease.release()
            turn.waiting.clear()
            told, turn.failed = turn.failed, True
            if turn.busy and not told:
                turn.error, told = error, True
        if not told:
            self._fold.fail(tensor, error)
