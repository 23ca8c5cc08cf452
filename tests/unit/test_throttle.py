"""A plan's bandwidth limit: exact by a clock of the test's own, and with threads and a store for real."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.contract import BackupId, Part, PlanName
from handlers.errors import Cancelled
from handlers.tools.codecs import Codec
from handlers.tools.frames import FrameWriter
from worker.control import PlainControl
from worker.stores.local import LocalStore
from worker.stores.memory import MemoryStore
from worker.stores.protocol import SetName, Store
from worker.throttle import Throttle, throttled

NAME = SetName(plan=PlanName("web"), backup_id=BackupId("b1"))
MIB = 1 << 20


class Timepiece:
    """A clock whose time passes only where somebody sleeps, and whose sleeper may oversleep."""

    def __init__(self, oversleep_seconds: float = 0.0) -> None:
        self.now = 1_000.0
        self.naps: list[float] = []
        self._oversleep = oversleep_seconds

    def monotonic(self) -> float:
        """The time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let it pass."""
        assert seconds > 0
        self.naps.append(seconds)
        self.now += seconds + self._oversleep


def throttle_by(clock: Timepiece, bytes_per_second: int) -> Throttle:
    return Throttle(bytes_per_second, monotonic=clock.monotonic, sleep=clock.sleep)


# --- rates


@settings(deadline=None)
@given(
    rate=st.integers(1_024, 10_000_000),
    chunks=st.lists(st.tuples(st.floats(0, 2), st.floats(0, 1)), min_size=1, max_size=60),
    oversleep=st.sampled_from([0.0, 0.01, 0.3]),
)
def test_in_no_interval_more_passes_than_the_rate_and_a_burst(
    rate: int, chunks: Sequence[tuple[float, float]], oversleep: float
) -> None:
    """However the writer pauses and the sleeper oversleeps."""
    clock = Timepiece(oversleep)
    throttle = throttle_by(clock, rate)
    passed: list[tuple[float, int]] = []

    for pause, share in chunks:
        clock.now += pause
        size = int(throttle.piece_bytes * share)
        throttle.wait(size, lambda: None)
        passed.append((clock.now, size))

    assert throttle.burst_bytes <= rate / 4 + 1
    for first, last in itertools.combinations_with_replacement(range(len(passed)), 2):
        interval = passed[last][0] - passed[first][0]
        assert sum(size for _, size in passed[first : last + 1]) <= rate * interval + throttle.burst_bytes + 0.01


@pytest.mark.parametrize("oversleep", [0.0, 0.001, 0.05])
@pytest.mark.parametrize(
    ("rate", "chunk_bytes"),
    [(1_024, 1), (1_024, 4 * MIB), (100_000, 1_000), (2_000_000, 4 * MIB), (1_000_000_000, 4 * MIB)],
)
def test_in_the_long_run_the_rate_is_the_one_that_was_asked_for(rate: int, chunk_bytes: int, oversleep: float) -> None:
    """Neither a late sleeper nor small chunks cost more than 5 % of it."""
    clock = Timepiece(oversleep)
    throttle = throttle_by(clock, rate)
    began, passed = clock.now, 0
    size = min(chunk_bytes, throttle.piece_bytes)

    while clock.now < began + 60:
        throttle.wait(size, lambda: None)
        passed += size

    assert 0.95 * rate <= passed / (clock.now - began) <= 1.05 * rate


def test_parts_of_a_set_share_its_rate() -> None:
    """Two threads together are no faster than one, and neither has to stand back for the other for ever."""
    throttle = Throttle(4_000_000)
    ends: list[float] = []
    began = time.monotonic()

    def write(size: int) -> None:
        for _ in range(1_000_000 // size):
            throttle.wait(size, lambda: None)
        ends.append(time.monotonic() - began)

    with ThreadPoolExecutor(2) as threads:
        for work in [threads.submit(write, 500_000), threads.submit(write, 1_000)]:
            work.result()

    assert max(ends) >= (2_000_000 - throttle.burst_bytes) / 4_000_000


def test_more_than_a_piece_cannot_pass_at_once() -> None:
    """It would be a burst that nobody allowed; and no rate lets nothing through for ever."""
    throttle = throttle_by(Timepiece(), 8_000)

    with pytest.raises(ValueError, match="only 1000"):
        throttle.wait(1_001, lambda: None)
    with pytest.raises(ValueError, match="at least one byte"):
        throttle_by(Timepiece(), 0)


# --- what is written


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each kind of store."""
    return MemoryStore("nas") if request.param == "memory" else LocalStore("nas", tmp_path)


@settings(deadline=None, max_examples=30)
@given(chunks=st.lists(st.binary(max_size=3_000), max_size=10), rate=st.integers(1, 20_000))
def test_bytes_arrive_as_they_were_written(chunks: list[bytes], rate: int) -> None:
    """In whatever pieces: nothing is lost, repeated or reordered, and each write tells the length of its chunk."""
    plain = MemoryStore("nas")
    draft = throttled(plain.draft(NAME), throttle_by(Timepiece(), rate), PlainControl())
    part = draft.open_part("data")

    counts = [part.write(chunk) for chunk in chunks]
    made = part.close()
    draft.commit({}, b"{}")

    content = b"".join(chunks)
    assert counts == [len(chunk) for chunk in chunks]
    assert (made.name, made.size_bytes, made.sha256) == ("data", len(content), hashlib.sha256(content).hexdigest())
    assert plain.read(NAME, "data") == content


def test_chunks_of_other_shapes_are_counted_in_bytes() -> None:
    """A view of numbers, for instance; and its owner can have it back at once."""
    plain = MemoryStore("nas")
    draft = throttled(plain.draft(NAME), throttle_by(Timepiece(), 1_024), PlainControl())
    part = draft.open_part("data")
    owner = bytearray(range(240))

    assert part.write(memoryview(owner).cast("I")) == 240
    owner.extend(b"resized")
    part.close()
    draft.commit({}, b"{}")

    assert plain.read(NAME, "data") == bytes(range(240))


def test_commit_is_not_delayed_and_a_discarded_draft_leaves_nothing(store: Store) -> None:
    """Small files and a clearing-up go through as they are."""
    clock = Timepiece()
    draft = throttled(store.draft(NAME), throttle_by(clock, 1_024), PlainControl())
    draft.open_part("data").close()
    draft.commit({"SHA256SUMS": b"x" * 10_000}, b"{}")
    other = SetName(plan=NAME.plan, backup_id=BackupId("b2"))
    second = throttled(store.draft(other), throttle_by(clock, 1_024), PlainControl())
    second.open_part("data").write(b"y")
    second.discard()
    second.discard()

    assert clock.naps == []
    assert store.size(NAME, "SHA256SUMS") == 10_000
    assert list(store.names()) == [NAME]


@pytest.mark.slow
def test_a_store_on_disk_takes_two_megabytes_in_a_second(tmp_path: Path) -> None:
    """For real, through the frame writer, whose outlet is a thread of its own."""
    store = LocalStore("nas", tmp_path)
    began = time.monotonic()

    draft = throttled(store.draft(NAME), Throttle(2_000_000), PlainControl())
    part = draft.open_part("data")
    with FrameWriter(part, codec=Codec.NONE, threads=1, frame_bytes=MIB) as writer:
        writer.write(bytes(5_000_000))
    part.close()
    draft.commit({}, b"{}")

    seconds = time.monotonic() - began
    assert store.size(NAME, "data") == 5_000_000
    assert seconds >= 2.2
    assert seconds < 20, "a loaded machine may take long, but not as long as that"


# --- stopping


class Told:
    """A control that is told to stop, and counts who asks."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.asked = threading.Semaphore(0)

    def checkpoint(self) -> None:
        """Note it, then do as told."""
        self.asked.release()
        if self.stop.is_set():
            raise Cancelled("asked to stop")

    def report(self, progress: object) -> None:
        """Nothing to do."""

    def started(self) -> None:
        """Nothing to do."""


def test_a_cancellation_is_heard_in_the_middle_of_a_chunk(store: Store) -> None:
    """A chunk that would take an hour ends at once."""
    control = Told()
    draft = throttled(store.draft(NAME), Throttle(1_024), control)
    part = draft.open_part("data")

    with ThreadPoolExecutor(1) as other:
        writing = other.submit(part.write, bytes(4 * MIB))
        for _ in range(5):
            assert control.asked.acquire(timeout=30)
        control.stop.set()
        with pytest.raises(Cancelled):
            writing.result(30)
    draft.discard()

    assert list(store.names()) == []


def test_a_cancellation_in_the_outlet_thread_reaches_whoever_writes_frames(store: Store) -> None:
    """As itself, and no thread is left behind."""
    control = Told()
    before = threading.active_count()
    draft = throttled(store.draft(NAME), Throttle(1_024), control)
    writer = FrameWriter(draft.open_part("data"), codec=Codec.NONE, threads=2, frame_bytes=MIB)

    writer.write(bytes(3 * MIB))
    assert control.asked.acquire(timeout=30)
    control.stop.set()
    with pytest.raises(Cancelled):
        writer.close()
    draft.discard()

    assert threading.active_count() == before


def test_waiting_asks_at_least_twice_a_second() -> None:
    """However slow the plan is."""
    clock = Timepiece()
    throttle = throttle_by(clock, 1)
    asked: list[float] = []

    for _ in range(3):
        throttle.wait(1, lambda: asked.append(clock.now))

    assert max(later - earlier for earlier, later in itertools.pairwise(asked)) <= 0.5


def test_what_was_cancelled_counts_for_nobody() -> None:
    """The next attempt does not pay for it."""
    clock = Timepiece()
    throttle = throttle_by(clock, 8_000)
    throttle.wait(1_000, lambda: None)

    def stop() -> None:
        if clock.naps:
            raise Cancelled("asked to stop")

    with pytest.raises(Cancelled):
        throttle.wait(1_000, stop)
    clock.now += 0.125

    clock.naps.clear()
    throttle.wait(1_000, lambda: None)
    assert clock.naps == []


# --- memory


class Nowhere:
    """A draft and a part that keep nothing."""

    def open_part(self, name: str) -> Nowhere:
        """Itself."""
        return self

    def write(self, chunk: bytes | bytearray | memoryview, /) -> int:
        """Forget it."""
        return len(chunk)

    def close(self) -> Part:
        """Never called."""
        raise AssertionError

    def commit(self, files: Mapping[str, bytes], manifest: bytes) -> None:
        """Never called."""

    def discard(self) -> None:
        """Never called."""


def test_waiting_keeps_no_copy() -> None:
    """A chunk goes on as views of itself."""
    chunk = bytes(16 * MIB)
    part = throttled(Nowhere(), throttle_by(Timepiece(), 8 * MIB), PlainControl()).open_part("data")

    tracemalloc.start()
    try:
        part.write(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 100_000
