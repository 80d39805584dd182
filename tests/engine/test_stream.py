"""The stream: every byte once, in order, whatever is slow, fails or is short of memory."""

import _thread
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weighbridge import BadArgument, ReadFailed, Tensor, WeighbridgeError, stream
from weighbridge.checkpoints.dtypes import SAFETENSORS, DType
from weighbridge.stream import BATCH_BYTES, BATCH_PIECES, MIN_MEMORY, PIECE_ENTRIES, Bytes, Fold, Piece, pieces, spans

NOTHING: Callable[..., None] = lambda *_: None  # noqa: E731


@dataclass(eq=False, repr=False)
class Made(Tensor):
    """A tensor of bytes that follow from their place; `reading` is called before each read and may wait or raise."""

    name: str
    shape: tuple[int, ...]
    dtype: DType = SAFETENSORS["U8"]
    file: str = ""
    reading: Callable[[int], None] = NOTHING
    reads: list[tuple[int, int]] = field(default_factory=list)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        self.reads.append((offset, len(buffer)))
        self.reading(offset)
        buffer[:] = self.content(offset, len(buffer)).data

    def content(self, offset: int, size: int) -> np.ndarray:
        return ((np.arange(offset, offset + size) * 31 + len(self.name)) % 251).astype(np.uint8)


class Recorder(Fold[bytes]):
    """Keeps what is absorbed, and checks the turns that a fold is promised."""

    def __init__(
        self, summarizing: Callable[[Piece], None] = NOTHING, absorbing: Callable[[Piece], None] = NOTHING
    ) -> None:
        self.summarizing, self.absorbing = summarizing, absorbing
        self.absorbed: dict[str, bytearray] = {}
        self.failed: dict[str, WeighbridgeError] = {}
        self.buffers: dict[int, Any] = {}
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    def summarize(self, piece: Piece, packed: Bytes) -> bytes:
        base = packed if packed.base is None else packed.base
        with self._lock:
            self.buffers[id(base)] = base
        assert packed.ctypes.data % piece.tensor.dtype.array.itemsize == 0, "entries lie across words"
        before = packed.tobytes()
        self.summarizing(piece)
        assert packed.tobytes() == before, "a buffer was reused while it was out"
        return before

    def absorb(self, piece: Piece, packed: Bytes, state: bytes) -> None:
        name = piece.tensor.name
        with self._lock:
            assert name not in self._busy
            assert name not in self.failed
            self._busy.add(name)
            held = self.absorbed.setdefault(name, bytearray())
        assert len(held) == piece.start * piece.tensor.dtype.bits // 8
        self.absorbing(piece)
        assert packed.tobytes() == state, "a buffer was reused before it was absorbed"
        held += state
        with self._lock:
            assert name not in self.failed
            self._busy.remove(name)

    def fail(self, tensor: Tensor, error: WeighbridgeError) -> None:
        with self._lock:
            assert tensor.name not in self.failed
            assert tensor.name not in self._busy
            self.failed[tensor.name] = error


def in_time(work: Callable[[], Any], seconds: float = 30) -> None:
    """Runs the work in a thread, so that a deadlock is a failure and not a wait; raises what it raises."""
    caught: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it does not end"
    if caught:
        raise caught[0]


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.001)


def plan_of(tensors: list[Made], entries: int) -> list[stream.Span]:
    cols = [tensor.shape[-1] if len(tensor.shape) > 1 else tensor.count for tensor in tensors]
    return list(spans(pieces(tensor, width, entries) for tensor, width in zip(tensors, cols, strict=True)))


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a test choose the number of buffers with tensors of a few bytes."""
    monkeypatch.setattr(stream, "MIN_MEMORY", 0)


def memory_for(plan: list[stream.Span], buffers: int) -> int:
    """With room for each piece to begin at a word."""
    return 4 * buffers * max(sum(piece.nbytes + 64 for piece in span) for span in plan)


DTYPES = st.sampled_from([SAFETENSORS[name] for name in ("F4", "F6_E2M3", "U8", "BF16", "F32", "C64")])


class TestPieces:
    @given(
        rows=st.integers(0, 70),
        cols=st.integers(0, 50) | st.sampled_from([4095, 4096, 4097, 8191, 9001, 12288]),
        dtype=DTYPES,
        entries=st.integers(1, 200) | st.sampled_from([4096, 5000, 8192, 9000]),
    )
    @example(rows=2, cols=9001, dtype=SAFETENSORS["F4"], entries=4096)
    @example(rows=4, cols=9001, dtype=SAFETENSORS["F6_E2M3"], entries=4096)
    @example(rows=16, cols=3, dtype=SAFETENSORS["F4"], entries=30)
    @example(rows=3, cols=0, dtype=SAFETENSORS["F4"], entries=8)
    def test_they_cover_the_tensor_once(self, rows: int, cols: int, dtype: DType, entries: int) -> None:
        tensor = Made("x", (rows, cols), dtype)
        cut = pieces(tensor, cols, entries)
        assert [piece.index for piece in cut] == list(range(len(cut)))
        assert {piece.last for piece in cut} == {len(cut) - 1}
        assert all(piece.tensor is tensor for piece in cut)
        ends = [piece.start + piece.count for piece in cut]
        assert [piece.start for piece in cut] == [0, *ends[:-1]]
        assert ends[-1] == tensor.count
        assert sum(piece.nbytes for piece in cut) == tensor.nbytes
        assert all(piece.start * dtype.bits % 8 == 0 for piece in cut)
        assert all(piece.count for piece in cut) or tensor.count == 0
        if cols <= entries:
            rows_at_most = max(8, entries // max(cols, 1)) if dtype.bits < 8 else entries // max(cols, 1)
            assert all(piece.start % max(cols, 1) == 0 == piece.count % max(cols, 1) for piece in cut)
            assert all(piece.count <= rows_at_most * cols for piece in cut)
        elif cols * dtype.bits % 8 == 0:
            assert all(piece.start % cols % 4096 == 0 for piece in cut)
            assert all(piece.start % cols + piece.count <= cols for piece in cut)
            assert all(piece.count <= max(entries, 4096) for piece in cut)

    @pytest.mark.parametrize("dtype", ["F4", "F6_E3M2"])
    def test_packed_rows_go_by_eights(self, dtype: str) -> None:
        cut = pieces(Made("x", (40, 3), SAFETENSORS[dtype]), 3, 60)
        assert [piece.count for piece in cut] == [48, 48, 24]

    @pytest.mark.parametrize("cols", [PIECE_ENTRIES - 1, PIECE_ENTRIES, PIECE_ENTRIES + 1])
    def test_a_row_is_cut_where_it_does_not_fit(self, cols: int) -> None:
        cut = pieces(Made("x", (2, cols)), cols)
        row = [cols] if cols <= PIECE_ENTRIES else [PIECE_ENTRIES, 1]
        assert [piece.count for piece in cut] == row * 2

    @pytest.mark.parametrize("dtype", list(SAFETENSORS))
    def test_nothing_is_one_empty_piece(self, dtype: str) -> None:
        for shape in ((0,), (3, 0), (0, 3)):
            tensor = Made("x", shape, SAFETENSORS[dtype])
            assert pieces(tensor, shape[-1]) == [Piece(tensor, 0, 0, 0, 0)]


class TestSpans:
    @given(
        counts=st.lists(
            st.lists(st.sampled_from([0, 1, 7, 1000, BATCH_BYTES // 3, BATCH_BYTES - 1, BATCH_BYTES + 1]), min_size=1),
            max_size=40,
        )
    )
    def test_order_and_limits(self, counts: list[list[int]]) -> None:
        cut = []
        for i, sizes in enumerate(counts):
            tensor = Made(str(i), (sum(sizes),))
            starts = [sum(sizes[:k]) for k in range(len(sizes))]
            cut.append([Piece(tensor, k, len(sizes) - 1, starts[k], sizes[k]) for k in range(len(sizes))])
        batched = list(spans(iter(cut)))
        assert [piece for span in batched for piece in span] == [piece for of_tensor in cut for piece in of_tensor]
        for span in batched:
            assert 1 <= len(span) <= BATCH_PIECES
            assert len(span) == 1 or all(piece.last == 0 for piece in span)
            assert len(span) == 1 or sum(piece.nbytes for piece in span) <= BATCH_BYTES
        for one, other in pairwise(batched):
            both = (*one, *other)
            if all(piece.last == 0 for piece in both) and len(one) < BATCH_PIECES:
                assert sum(piece.nbytes for piece in one) + other[0].nbytes > BATCH_BYTES

    def test_many_small_tensors_share_spans(self) -> None:
        small = [pieces(Made(str(i), (3,)), 3) for i in range(2 * BATCH_PIECES + 1)]
        assert [len(span) for span in spans(small)] == [BATCH_PIECES, BATCH_PIECES, 1]

    def test_of_nothing(self) -> None:
        assert list(spans([])) == []


class TestRun:
    @pytest.mark.parametrize("readers", [1, 3])
    @pytest.mark.parametrize("workers", [1, 2, 5])
    def test_all_is_absorbed_in_order(self, workers: int, readers: int) -> None:
        """In spite of random delays; `Recorder` sees to the order."""
        chance = random.Random(workers * 10 + readers)
        names = ["large", "small", "empty", "F4", "large again", "scalar"]
        shapes = [(40, 100), (3, 5), (0, 4), (16, 30), (1, 9001), ()]
        dtypes = ["F32", "BF16", "U8", "F4", "U8", "F64"]
        tensors = [
            Made(name, shape, SAFETENSORS[dtype]) for name, shape, dtype in zip(names, shapes, dtypes, strict=True)
        ]
        fold = Recorder(lambda piece: time.sleep(chance.random() / 1000))
        told: list[int] = []
        plan = plan_of(tensors, 400)
        in_time(
            lambda: stream.run(plan, fold, memory=MIN_MEMORY, workers=workers, readers=readers, advanced=told.append)
        )
        assert fold.absorbed == {tensor.name: tensor.content(0, tensor.nbytes).tobytes() for tensor in tensors}
        assert fold.failed == {}
        assert sum(told) == sum(tensor.nbytes for tensor in tensors)
        for tensor in tensors:
            ends = [offset + size for offset, size in sorted(tensor.reads)]
            assert [offset for offset, _ in sorted(tensor.reads)] == [0, *ends[:-1]]

    def test_one_reader_reads_in_order(self) -> None:
        tensor = Made("x", (50, 100))
        stream.run(plan_of([tensor], 300), Recorder(), memory=MIN_MEMORY, workers=2)
        assert tensor.reads == sorted(tensor.reads)

    def test_nothing_to_do(self) -> None:
        stream.run([], Recorder(), memory=MIN_MEMORY, workers=2)

    @pytest.mark.parametrize("memory", [0, -1, 1, MIN_MEMORY - 1])
    def test_too_little_memory_is_refused_before_any_work(self, memory: int) -> None:
        tensor = Made("x", (3,))
        with pytest.raises(BadArgument, match=f"expected at least {MIN_MEMORY:,}") as caught:
            stream.run(plan_of([tensor], 10), Recorder(), memory=memory, workers=1)
        assert f"memory is {memory:,} bytes" in str(caught.value)
        assert tensor.reads == []

    def test_no_piece_of_any_dtype_breaks_the_least_memory(self) -> None:
        for dtype in SAFETENSORS.values():
            for cols in (PIECE_ENTRIES, PIECE_ENTRIES - 1, PIECE_ENTRIES // 2 + 1, 1000, 1):
                rows = -(-4 * PIECE_ENTRIES // cols) // 8 * 8
                largest = max(piece.nbytes for piece in pieces(Made("x", (rows, cols), dtype), cols))
                assert 2 * largest <= MIN_MEMORY


@pytest.mark.usefixtures("little_memory")
class TestMemory:
    @pytest.mark.parametrize("readers", [1, 3])
    @pytest.mark.parametrize("buffers", [2, 3, 5])
    def test_buffers_are_bounded_and_reused(self, buffers: int, readers: int) -> None:
        tensors = [Made(f"tensor {i}", (8, 6400)) for i in range(8)]
        plan = plan_of(tensors, 6400)
        fold = Recorder(lambda piece: time.sleep(0.0002))
        in_time(lambda: stream.run(plan, fold, memory=memory_for(plan, buffers), workers=4, readers=readers))
        assert len(plan) == 64
        assert len(fold.buffers) <= buffers
        assert sum(base.nbytes for base in fold.buffers.values()) <= memory_for(plan, buffers) // 4
        assert set(fold.absorbed) == {tensor.name for tensor in tensors}

    def test_no_more_buffers_than_threads_can_use(self) -> None:
        plan = plan_of([Made("x", (300, 100))], 100)
        fold = Recorder(lambda piece: time.sleep(0.0001))
        in_time(lambda: stream.run(plan, fold, memory=1 << 40, workers=2, readers=1))
        assert len(fold.buffers) <= 5

    def test_at_least_two_buffers(self) -> None:
        plan = plan_of([Made("x", (30, 100))], 100)
        fold = Recorder()
        in_time(lambda: stream.run(plan, fold, memory=1, workers=3))
        assert fold.absorbed["x"] == Made("x", ()).content(0, 3000).tobytes()
        assert len(fold.buffers) <= 2

    def test_reading_waits_for_a_slow_fold(self) -> None:
        """What has been read and not absorbed never fills more than the buffers."""
        lock, read, absorbed, ahead = threading.Lock(), [0], [0], [0]

        def reading(offset: int) -> None:
            with lock:
                read[0] += 1
                ahead[0] = max(ahead[0], read[0] - absorbed[0])

        def absorbing(piece: Piece) -> None:
            time.sleep(0.001)
            with lock:
                absorbed[0] += 1

        plan = plan_of([Made("x", (60, 100), reading=reading)], 100)
        fold = Recorder(absorbing=absorbing)
        in_time(lambda: stream.run(plan, fold, memory=memory_for(plan, 3), workers=4, readers=3))
        assert read == absorbed == [60]
        assert ahead[0] <= 4


class File:
    """A thousand bytes that note how they are read; of `lost` ones nothing can be read."""

    name, size, modified_ns = "file", 1000, None

    def __init__(self, lost: range = range(0)) -> None:
        self.lost = lost
        self.reads: list[tuple[int, int]] = []

    def read_into(self, buffer: memoryview, offset: int) -> None:
        self.reads.append((offset, len(buffer)))
        if not set(self.lost).isdisjoint(range(offset, offset + len(buffer))):
            raise ReadFailed(f"lost at {offset}")
        buffer[:] = self.read(offset, len(buffer))

    def read(self, offset: int, size: int) -> bytes:
        return bytes(at % 251 for at in range(offset, offset + size))


class Held(Made):
    """A tensor that lies in a file as it is."""

    def __init__(self, name: str, source: File, begin: int, count: int, dtype: str = "U8") -> None:
        super().__init__(name, (count,), SAFETENSORS[dtype])
        self.source, self.begin = source, begin

    @property
    def extent(self) -> tuple[File, int]:
        return self.source, self.begin

    def read_into(self, buffer: memoryview, offset: int) -> None:
        self.source.read_into(buffer, self.begin + offset)

    def content(self, offset: int, size: int) -> np.ndarray:
        return np.frombuffer(self.source.read(self.begin + offset, size), np.uint8)


class TestNeighbours:
    """Small tensors that follow one another in a file are read at once; that is seen in the reads alone."""

    def absorbed(self, tensors: list[Made]) -> Recorder:
        fold = Recorder()
        in_time(lambda: stream.run(plan_of(tensors, 1000), fold, memory=MIN_MEMORY, workers=2))
        assert set(fold.absorbed) | set(fold.failed) == {tensor.name for tensor in tensors}
        for tensor in tensors:
            if tensor.name not in fold.failed:
                assert fold.absorbed[tensor.name] == tensor.content(0, tensor.nbytes).tobytes()
        return fold

    def test_they_share_a_read(self) -> None:
        file = File()
        self.absorbed([Held(f"{i}", file, 10 * i, 10) for i in range(50)])
        assert file.reads == [(0, 500)]

    def test_empty_ones_are_no_hindrance(self) -> None:
        file = File()
        self.absorbed([Held("a", file, 0, 7), Held("empty", file, 7, 0), Held("b", file, 7, 7)])
        assert file.reads == [(0, 14)]

    def test_a_gap_another_file_or_another_order_ends_a_read(self) -> None:
        file, other = File(), File()
        files, begins = [file, file, other, file, file], [0, 8, 15, 22, 15]
        held = [Held(f"{i}", *where, 7) for i, where in enumerate(zip(files, begins, strict=True))]
        self.absorbed([*held, Made("in memory", (7,))])
        assert file.reads == [(0, 7), (8, 7), (22, 7), (15, 7)]
        assert other.reads == [(15, 7)]

    def test_entries_never_lie_across_words(self) -> None:
        """`Recorder` sees to it; the wide ones behind an odd byte have a read of their own."""
        file = File()
        self.absorbed([Held("a", file, 0, 7), Held("b", file, 7, 9, "F64"), Held("c", file, 79, 9, "U8")])
        assert file.reads == [(0, 7), (7, 81)]

    @pytest.mark.parametrize("lost", [range(1), range(245, 255), range(499, 500)], ids=str)
    def test_a_fault_is_that_of_its_tensor_alone(self, lost: range) -> None:
        file = File(lost)
        fold = self.absorbed([Held(f"{i}", file, 10 * i, 10) for i in range(50)])
        assert set(fold.failed) == {f"{at // 10}" for at in lost}

    @given(
        parts=st.lists(
            st.tuples(st.integers(0, 12), st.sampled_from(["U8", "BF16", "F32", "F64", "F4"]), st.integers(0, 2)),
            max_size=30,
        ),
        lost=st.integers(0, 999),
    )
    def test_any_of_them(self, parts: list[tuple[int, str, int]], lost: int) -> None:
        """Sizes, dtypes and gaps at random: each tensor's bytes or its own failure."""
        file, tensors, at = File(range(lost, lost + 1)), [], 0
        for i, (count, dtype, gap) in enumerate(parts):
            count *= 2 if dtype == "F4" else 1
            tensors.append(Held(f"{i}", file, at, count, dtype))
            at += tensors[-1].nbytes + gap
        fold = self.absorbed(tensors)
        assert set(fold.failed) == {t.name for t in tensors if t.begin <= lost < t.begin + t.nbytes}


def fails_at(offset: int) -> Callable[[int], None]:
    def reading(at: int) -> None:
        if at == offset:
            raise ReadFailed(f"lost at {at}")

    return reading


@pytest.mark.usefixtures("little_memory")
class TestFailures:
    @pytest.mark.parametrize("readers", [1, 3])
    @pytest.mark.parametrize("row", [0, 3, 9])
    def test_a_tensor_fails_once_and_alone(self, row: int, readers: int) -> None:
        """With two buffers and three failures by each way, a buffer that is not given back stops the run."""
        tensors = [
            Made(f"{kind} {i}", shape, reading=fails_at(100 * row * (shape != (7,))) if kind == "bad" else NOTHING)
            for i in range(6)
            for kind in ("bad", "good")
            for shape in ((10, 100), (7,))[i % 2 : i % 2 + 1]
        ]
        plan = plan_of(tensors, 100)
        fold = Recorder()
        in_time(lambda: stream.run(plan, fold, memory=memory_for(plan, 2), workers=3, readers=readers))
        assert set(fold.failed) == {tensor.name for tensor in tensors if tensor.name.startswith("bad")}
        for tensor in tensors:
            whole = tensor.content(0, tensor.nbytes).tobytes()
            if tensor.name in fold.failed:
                assert whole.startswith(fold.absorbed.get(tensor.name, b""))
                assert len(fold.absorbed.get(tensor.name, b"")) <= 100 * row
            else:
                assert fold.absorbed[tensor.name] == whole

    def test_a_piece_summarised_after_its_tensor_failed_gives_its_buffer_back(self) -> None:
        fold = Recorder(lambda piece: until(lambda: piece.tensor.name in fold.failed))
        plan = plan_of([Made(f"{i}", (3, 100), reading=fails_at(100)) for i in range(3)], 100)
        in_time(lambda: stream.run(plan, fold, memory=memory_for(plan, 2), workers=1))
        assert set(fold.failed) == {"0", "1", "2"}
        assert fold.absorbed == {}

    def test_pieces_that_wait_when_their_tensor_fails_give_their_buffers_back(self) -> None:
        summarized: set[str] = set()

        def lost_late(name: str) -> Callable[[int], None]:
            def reading(offset: int) -> None:
                if offset == 0:
                    until(lambda: name in summarized)
                    time.sleep(0.02)
                    raise ReadFailed("lost")

            return reading

        fold = Recorder(lambda piece: summarized.add(piece.tensor.name))
        plan = plan_of([Made(f"{i}", (2, 100), reading=lost_late(f"{i}")) for i in range(3)], 100)
        in_time(lambda: stream.run(plan, fold, memory=memory_for(plan, 2), workers=1, readers=2))
        assert set(fold.failed) == {"0", "1", "2"}
        assert fold.absorbed == {}

    def test_every_piece_fails(self) -> None:
        def reading(offset: int) -> None:
            raise ReadFailed(f"lost at {offset}")

        tensors = [Made(f"{i}", (10, 100), reading=reading) for i in range(5)]
        plan = plan_of(tensors, 100)
        fold = Recorder()
        in_time(lambda: stream.run(plan, fold, memory=memory_for(plan, 2), workers=3, readers=3))
        assert set(fold.failed) == {"0", "1", "2", "3", "4"}
        assert fold.absorbed == {}

    def test_the_first_failure_is_the_one_told(self) -> None:
        tensor = Made("x", (10, 100), reading=lambda at: fails_at(at)(at) if at in (300, 500) else None)
        fold = Recorder()
        stream.run(plan_of([tensor], 100), fold, memory=1 << 20, workers=1)
        assert str(fold.failed["x"]) == "lost at 300"
        assert [offset for offset, _ in tensor.reads] == [0, 100, 200, 300]

    def test_a_failure_waits_for_the_piece_being_absorbed(self) -> None:
        """`fail` is the last word on a tensor: it does not come while an earlier piece is still at it."""
        absorbing, failing = threading.Event(), threading.Event()

        def reading(offset: int) -> None:
            if offset == 100:
                assert absorbing.wait(20)
                failing.set()
                raise ReadFailed("lost")

        def slowly(piece: Piece) -> None:
            absorbing.set()
            assert failing.wait(20)
            time.sleep(0.05)

        fold = Recorder(absorbing=slowly)
        plan = plan_of([Made("x", (5, 100), reading=reading), Made("y", (2, 100))], 100)
        in_time(lambda: stream.run(plan, fold, memory=memory_for(plan, 4), workers=2))
        assert list(fold.failed) == ["x"]
        assert len(fold.absorbed["x"]) == 100
        assert len(fold.absorbed["y"]) == 200

    @pytest.mark.parametrize("where", ["summarize", "absorb", "fail", "read", "advanced"])
    @pytest.mark.parametrize("readers", [1, 3])
    def test_other_exceptions_end_the_run(self, where: str, readers: int) -> None:
        def at(place: str) -> Callable[..., None]:
            def raising(*_: Any) -> None:
                if where == place:
                    raise ZeroDivisionError(where)

            return raising

        class Raising(Recorder):
            def fail(self, tensor: Tensor, error: WeighbridgeError) -> None:
                at("fail")()

        before = threading.active_count()
        tensors = [Made(f"{i}", (10, 100)) for i in range(20)]
        tensors[3] = Made("bad", (10, 100), reading=fails_at(300))
        tensors[5] = Made("worse", (10, 100), reading=at("read"))
        plan = plan_of(tensors, 100)
        fold = Raising(at("summarize"), at("absorb"))
        with pytest.raises(ZeroDivisionError, match=where):
            in_time(
                lambda: stream.run(
                    plan, fold, memory=memory_for(plan, 3), workers=3, readers=readers, advanced=at("advanced")
                )
            )
        assert threading.active_count() == before
        assert len(fold.absorbed) < 19

    def test_an_interrupt_ends_the_run(self) -> None:
        before = threading.active_count()

        def summarizing(piece: Piece) -> None:
            if piece.index == 5:
                _thread.interrupt_main()
            time.sleep(0.01)

        plan = plan_of([Made("x", (3000, 100))], 100)
        fold = Recorder(summarizing)
        with pytest.raises(KeyboardInterrupt):
            stream.run(plan, fold, memory=memory_for(plan, 3), workers=2)
        assert threading.active_count() == before
        assert len(fold.absorbed["x"]) < 100 * 1000


@pytest.mark.usefixtures("little_memory")
def test_random_schedules_end() -> None:
    """Two hundred runs of random sizes, threads, delays and failures."""

    def one(seed: int) -> None:
        chance = random.Random(seed)
        rows = [chance.choice([0, 1, 2, 5, 12]) for _ in range(chance.randint(1, 8))]
        broken = {i for i in range(len(rows)) if chance.random() < 0.25}

        def delay(*_: Any) -> None:
            if chance.random() < 0.5:
                time.sleep(chance.random() * 0.0006)

        def reading(i: int) -> Callable[[int], None]:
            lost = 10 * chance.randrange(max(rows[i], 1))

            def read(offset: int) -> None:
                delay()
                if i in broken and offset == lost:
                    raise ReadFailed("lost")

            return read

        tensors = [Made(f"{i}", (n, 10), reading=reading(i)) for i, n in enumerate(rows)]
        plan = plan_of(tensors, chance.choice([10, 20, 50]))
        fold = Recorder(delay, delay)
        memory = memory_for(plan, chance.randint(2, 5))
        stream.run(plan, fold, memory=memory, workers=chance.randint(1, 5), readers=chance.randint(1, 4))
        assert set(fold.failed) <= {f"{i}" for i in broken}
        for tensor in tensors:
            if tensor.name not in fold.failed:
                assert fold.absorbed[tensor.name] == tensor.content(0, tensor.nbytes).tobytes()

    for seed in range(200):
        in_time(lambda seed=seed: one(seed))
