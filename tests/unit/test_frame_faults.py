"""The frame writer when something fails or somebody asks to stop: it says so, and leaves no thread behind."""

from __future__ import annotations

import errno
import io
import os
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.errors import Cancelled
from handlers.tools.codecs import Codec
from handlers.tools.frame_table import Frame
from handlers.tools.frames import FrameWriter

TEXT = b"".join(b"line %d of a text that compresses\n" % number for number in range(20_000))


def frame_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("frame-")]


class FullDisk:
    """Takes a number of bytes, then has no more room."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken = b""

    def write(self, chunk: bytes | bytearray | memoryview, /) -> int:
        """All or nothing."""
        if len(chunk) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(chunk)
        self.taken += chunk
        return len(chunk)


class Hiccup:
    """Fails to take its second chunk, and takes all others."""

    def __init__(self) -> None:
        self.asked = 0
        self.taken = b""

    def write(self, chunk: bytes | bytearray | memoryview, /) -> int:
        """Take it, unless it is the second."""
        self.asked += 1
        if self.asked == 2:
            raise TimeoutError("the store did not answer")
        self.taken += chunk
        return len(chunk)


class Blocked:
    """Takes nothing before it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.taken = 0

    def write(self, chunk: bytes | bytearray | memoryview, /) -> None:
        """Wait, then take all."""
        assert self.released.wait(60)
        self.taken += len(chunk)


class Counting(io.RawIOBase):
    """A reader without descriptor that knows how much was taken from it."""

    def __init__(self, content: bytes) -> None:
        self.rest = memoryview(content)
        self.given = 0

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # narrower than io says
        """As much as there is room for."""
        count = min(len(buffer), len(self.rest))
        buffer[:count] = self.rest[:count]
        self.rest = self.rest[count:]
        self.given += count
        return count


@settings(deadline=None, max_examples=30)
@given(room=st.integers(0, 50_000), chunk=st.integers(1, 30_000), threads=st.integers(1, 3))
def test_a_full_disk_is_told_and_leaves_no_thread(room: int, chunk: int, threads: int) -> None:
    """The very error of the output reaches the caller; what was written is a clean beginning."""
    out = FullDisk(room)

    def write_text() -> None:
        with FrameWriter(out, codec=Codec.NONE, threads=threads, frame_bytes=1000) as frames:
            for at in range(0, len(TEXT), chunk):
                frames.write(TEXT[at : at + chunk])

    with pytest.raises(OSError, match="No space left") as caught:
        write_text()

    assert caught.value.errno == errno.ENOSPC
    assert out.taken == TEXT[: len(out.taken)]
    assert len(out.taken) == room // 1000 * 1000
    assert frame_threads() == []


def test_a_really_full_device_is_told_while_pumping() -> None:
    """ENOSPC of the kernel stops the pump although the producer would never end."""
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        Path("/dev/zero").open("rb", buffering=0) as zero,
        FrameWriter(full, codec=Codec.ZSTD, frame_bytes=1 << 16) as frames,
    ):
        with pytest.raises(OSError, match="No space left"):
            frames.pump(zero.fileno())

        assert frame_threads() == []


def test_a_failed_writer_keeps_failing() -> None:
    """After an error every call raises the same one: nobody takes the file for whole."""
    frames = FrameWriter(FullDisk(0), codec=Codec.NONE, frame_bytes=10)
    with pytest.raises(OSError, match="No space left") as first:
        frames.write(bytes(1000))

    with pytest.raises(OSError, match="No space left") as written:
        frames.write(b"")
    with pytest.raises(OSError, match="No space left") as closed:
        frames.close()

    assert first.value is written.value is closed.value


def test_nothing_is_written_after_a_hole() -> None:
    """An output that fails once and then recovers does not get the frames behind the lost one."""
    out = Hiccup()
    frames = FrameWriter(out, codec=Codec.NONE, threads=3, frame_bytes=10)

    with pytest.raises(TimeoutError):
        frames.write(TEXT[:1000])

    assert out.taken == TEXT[:10]


def test_an_error_is_told_by_the_next_write_however_small() -> None:
    """A caller who writes little by little learns at once, not when the memory is full."""
    frames = FrameWriter(FullDisk(0), codec=Codec.NONE, frame_bytes=10)
    frames.write(bytes(10))
    deadline = time.monotonic() + 30

    def write_nothing_until_told() -> None:
        while time.monotonic() < deadline:
            frames.write(b"")

    with pytest.raises(OSError, match="No space left"):
        write_nothing_until_told()


def test_an_error_of_the_last_frame_is_raised_by_close() -> None:
    """What was not full when the caller stopped is written by close, which says how that went."""
    frames = FrameWriter(FullDisk(0), codec=Codec.GZIP)
    frames.write(b"a little")

    with pytest.raises(OSError, match="No space left"):
        frames.close()

    assert frame_threads() == []


def test_a_silent_producer_does_not_hide_an_error() -> None:
    """The disk is full while the producer says nothing more: the pump ends all the same."""
    reading, writing = os.pipe()
    os.write(writing, bytes(20))

    with (
        pytest.raises(OSError, match="No space left"),
        FrameWriter(FullDisk(0), codec=Codec.NONE, frame_bytes=10) as frames,
    ):
        frames.pump(reading)

    os.close(reading)
    os.close(writing)


def test_an_error_of_a_callback_is_the_callers() -> None:
    """What `on_frame` raises ends the stream like any other error."""

    def refuse(frame: Frame) -> None:
        raise KeyError(frame.number)

    with pytest.raises(KeyError), FrameWriter(io.BytesIO(), codec=Codec.XZ, frame_bytes=100, on_frame=refuse) as frames:
        frames.write(TEXT)

    assert frame_threads() == []


def test_a_checkpoint_stops_the_pump() -> None:
    """What the checkpoint raises reaches the caller, and all threads are gone by then."""
    asked = 0

    def checkpoint() -> None:
        nonlocal asked
        asked += 1
        if asked == 20:
            raise Cancelled("asked to stop")

    with Path("/dev/zero").open("rb", buffering=0) as zero, FrameWriter(io.BytesIO(), codec=Codec.ZSTD) as frames:
        with pytest.raises(Cancelled):
            frames.pump(zero.fileno(), checkpoint=checkpoint)

        assert frame_threads() == []
        with pytest.raises(Cancelled):
            frames.close()


def test_a_checkpoint_is_asked_while_the_producer_is_silent() -> None:
    """A producer that hangs cannot keep the worker from being stopped."""
    reading, writing = os.pipe()
    asked = 0

    def checkpoint() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise Cancelled("asked to stop")

    with pytest.raises(Cancelled), FrameWriter(io.BytesIO(), codec=Codec.ZSTD) as frames:
        frames.pump(reading, checkpoint=checkpoint)

    os.close(reading)
    os.close(writing)
    assert frame_threads() == []


def test_a_busy_output_bounds_what_is_read_ahead() -> None:
    """No more than threads + 4 frames are taken from the producer while nothing is written; the checkpoint is asked."""
    source, out = Counting(bytes(100_000)), Blocked()
    ahead: list[int] = []

    def checkpoint() -> None:
        if ahead and ahead[-1] == source.given:
            out.released.set()
        ahead.append(source.given)

    with FrameWriter(out, codec=Codec.NONE, threads=2, frame_bytes=1000) as frames:
        frames.pump(source, checkpoint=checkpoint)
        frames.close()

    stalled = next(left for left, right in pairwise(ahead) if left == right)
    assert stalled == 6 * 1000
    assert out.taken == 100_000


def test_an_exception_in_the_block_leaves_no_thread() -> None:
    """The context manager aborts; it neither hangs nor finishes the file as if it were whole."""
    out = io.BytesIO()

    def stop_half_way(frames: FrameWriter) -> None:
        with frames:
            frames.write(b"half of it")
            raise KeyboardInterrupt

    frames = FrameWriter(out, codec=Codec.ZSTD, frame_bytes=100)
    with pytest.raises(KeyboardInterrupt):
        stop_half_way(frames)

    assert frame_threads() == []
    assert out.getvalue() == b""
    with pytest.raises(ValueError, match="closed or aborted"):
        frames.write(b"the other half")
