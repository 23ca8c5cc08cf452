"""Cuts a stream into frames that all cores compress while one thread writes them in order.

The caller's thread reads, worker threads compress as well as hash with libraries that release the interpreter
lock, the outlet thread writes. The result is one valid file of its codec, with a frame table (see `frame_table`)
for random access where that is wanted.
"""

from __future__ import annotations

import errno
import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from handlers.tools.codecs import Buffer, Codec, Compress, compressor
from handlers.tools.cores import default_threads
from handlers.tools.frame_table import MAX_FRAME_BYTES, Frame, end_line, frame_line, header_line
from handlers.tools.pipe_reading import PATIENCE_SECONDS, RawReadable, reading

FRAME_BYTES = 4 << 20
"""Uncompressed bytes of a frame: large enough that cutting costs no ratio, small enough to fetch for one file."""

_SLICE_BYTES = 128 << 10
"""What is handed to `out` at once, so that giving up does not wait until a slow one has taken a whole frame."""

_SPARE_FRAMES = 4
"""Frames beyond those being compressed, so that the reader seldom waits for the disk. Measured on 2 cores: with 2 a
level 0 with zstd takes 6 % longer, with 8 it is 3 % faster for 25 MiB more memory."""


class Writable(Protocol):
    """Where bytes go. Only one thread at a time writes, and it may not be the caller's."""

    def write(self, chunk: bytes | bytearray | memoryview, /) -> int | None:
        """Take the chunk, or the number of its first bytes that is returned; it may be reused afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameStats:
    """What was written."""

    frames: int
    bytes_in: int
    bytes_out: int


class FrameWriter:
    """Compresses what is written to it, frame by frame, into `out`. Used by one thread; close or abort it.

    As a context manager it closes at the end of the block, and aborts when the block raises. The first error of
    `out`, of a callback or of a compressor is raised as it is by the caller's next call, and by every later one;
    nothing is written after it. At most `threads` + 4 frames are in memory, each once as it came and once
    compressed. `out` and `table_out` are neither flushed nor closed.
    """

    def __init__(
        self,
        out: Writable,
        *,
        codec: Codec,
        strength: int | None = None,
        threads: int | None = None,
        frame_bytes: int = FRAME_BYTES,
        on_frame: Callable[[Frame], None] | None = None,
        table_out: Writable | None = None,
    ) -> None:
        """`on_frame` is told of each frame, in order and in the outlet thread, when `out` has taken it.

        Raises ValueError for a strength outside 0..9, no thread, or frames of a size that no reader accepts.
        """
        workers = default_threads() if threads is None else threads
        if workers < 1:
            raise ValueError(f"frames need at least one thread, not {workers}")
        if not 0 < frame_bytes <= MAX_FRAME_BYTES:
            raise ValueError(f"frames must have 1 to {MAX_FRAME_BYTES} bytes, not {frame_bytes}")
        self._codec = codec
        self._frame_bytes = frame_bytes
        self._compress = compressor(codec, strength, frame_bytes)
        self._outlet = _Outlet(out, table_out, on_frame)
        self._outlet.begin(codec, frame_bytes)
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="frame-worker")
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="frame-outlet")
        self._inflight: deque[Future[memoryview]] = deque()
        self._free: list[memoryview] = []
        self._unborn = workers + _SPARE_FRAMES
        self._buffer: memoryview | None = None
        self._filled = 0
        self._frames = 0
        self._error: BaseException | None = None
        self._ended = False
        self._stats: FrameStats | None = None

    def write(self, chunk: Buffer, *, checkpoint: Callable[[], None] | None = None) -> int:
        """Take the whole chunk, of any size; it may be reused afterwards. Blocks while all frames are in use.

        `checkpoint` is called twice a second meanwhile; whatever it raises aborts the writer.
        """
        rest = memoryview(chunk).cast("B")
        taken = len(rest)
        with self._guard():
            self._reap()
            while rest:
                room = self._room(checkpoint)
                count = min(len(room), len(rest))
                room[:count] = rest[:count]
                self._advance(count)
                rest = rest[count:]
        return taken

    def pump(
        self,
        source: int | RawReadable,
        *,
        on_piece: Callable[[memoryview], None] | None = None,
        checkpoint: Callable[[], None] | None = None,
    ) -> int:
        """Take all that the source gives until its end; returns how many bytes that was.

        A descriptor is read without a copy; a pipe is widened to 1 MiB. `on_piece` is shown what was read each time;
        it must not keep that. `checkpoint` is called between reads, twice a second while a descriptor is silent or
        `out` is busy; whatever it raises aborts the writer, as every error does. For an object without descriptor a
        silent source delays it.
        """
        read = reading(source)
        total = 0
        with self._guard():
            while True:
                if checkpoint is not None:
                    checkpoint()
                self._reap()
                room = self._room(checkpoint)
                count = read(room)
                if count is None:
                    continue
                if count == 0:
                    return total
                if on_piece is not None:
                    on_piece(room[:count])
                self._advance(count)
                total += count

    def close(self, *, checkpoint: Callable[[], None] | None = None) -> FrameStats:
        """Finish: on return `out` has taken the last frame and all threads have ended. Harmless when repeated."""
        if self._stats is not None:
            return self._stats
        with self._guard():
            if self._filled or (not self._frames and self._codec is not Codec.NONE):
                self._room(checkpoint)
                self._send()
            while self._inflight:
                self._collect(checkpoint)
            self._stats = self._outlet.finish()
        self._end()
        return self._stats

    def abort(self) -> None:
        """Give up: on return no thread is left, and `out` holds a torn stream. Waits for a write in progress."""
        self._ended = True
        self._outlet.abort()
        self._writing.shutdown(wait=False, cancel_futures=True)
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
        elif not self._ended:
            self.close()

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Whatever is raised within ends the writer for good."""
        if self._error is not None:
            raise self._error
        if self._ended:
            raise ValueError("this frame writer was closed or aborted")
        try:
            yield
        except BaseException as error:
            self._error = error
            self.abort()
            raise

    def _end(self) -> None:
        self._ended = True
        self._workers.shutdown()
        self._writing.shutdown()
        self._inflight.clear()
        self._free.clear()
        self._buffer = None

    def _room(self, checkpoint: Callable[[], None] | None) -> memoryview:
        """The part of the current frame that is still empty: never nothing."""
        if self._buffer is None:
            if not self._free and not self._unborn:
                self._collect(checkpoint)
            if self._free:
                self._buffer = self._free.pop()
            else:
                self._unborn -= 1
                self._buffer = memoryview(bytearray(self._frame_bytes))
        return self._buffer[self._filled :]

    def _advance(self, count: int) -> None:
        self._filled += count
        if self._filled == self._frame_bytes:
            self._send()

    def _send(self) -> None:
        """Hand the current frame over: compressed by any worker, written in the order of sending."""
        buffer = self._buffer
        assert buffer is not None
        packed = self._workers.submit(_pack, self._compress, buffer[: self._filled])
        self._inflight.append(self._writing.submit(self._outlet.emit, packed, buffer, self._filled))
        self._frames += 1
        self._buffer = None
        self._filled = 0

    def _collect(self, checkpoint: Callable[[], None] | None) -> None:
        """Wait until the oldest frame is written, and take its buffer back; raises what kept it from being written."""
        oldest = self._inflight[0]
        while checkpoint is not None and not wait([oldest], PATIENCE_SECONDS).done:
            checkpoint()
        self._free.append(oldest.result())
        self._inflight.popleft()

    def _reap(self) -> None:
        """Take back what is written already, so that an error is raised as soon as it is known."""
        while self._inflight and self._inflight[0].done():
            self._collect(None)


class _Outlet:
    """Writes frames in order. `emit` runs in the outlet thread, the rest while that is idle."""

    def __init__(self, out: Writable, table_out: Writable | None, on_frame: Callable[[Frame], None] | None) -> None:
        self._out = out
        self._table_out = table_out
        self._on_frame = on_frame
        self._frames = 0
        self._bytes_in = 0
        self._bytes_out = 0
        self._broken = False
        self._aborted = False

    def abort(self) -> None:
        """Stop in the middle of a frame; any thread."""
        self._aborted = True

    def begin(self, codec: Codec, frame_bytes: int) -> None:
        """Start the table."""
        if self._table_out is not None:
            _write_all(self._table_out, header_line(codec, frame_bytes))

    def emit(self, packed: Future[tuple[Buffer, bytes]], buffer: memoryview, size_bytes: int) -> memoryview:
        """Write one frame as soon as it is compressed; returns its buffer for the next one."""
        if self._broken:
            return buffer
        # Until this frame is out nothing after it may be: a hole in the stream would look like a whole file.
        self._broken = True
        data, sha256 = packed.result()
        with memoryview(data) as view:
            for start in range(0, len(view), _SLICE_BYTES):
                if self._aborted:
                    return buffer
                _write_all(self._out, view[start : start + _SLICE_BYTES])
        frame = Frame(
            number=self._frames,
            offset=self._bytes_out,
            length=len(data),
            size_bytes=size_bytes,
            sha256=sha256,
        )
        if self._table_out is not None:
            _write_all(self._table_out, frame_line(frame))
        if self._on_frame is not None:
            self._on_frame(frame)
        self._frames += 1
        self._bytes_in += size_bytes
        self._bytes_out += len(data)
        self._broken = False
        return buffer

    def finish(self) -> FrameStats:
        """End the table."""
        if self._table_out is not None:
            _write_all(self._table_out, end_line(self._frames, self._bytes_in, self._bytes_out))
        return FrameStats(frames=self._frames, bytes_in=self._bytes_in, bytes_out=self._bytes_out)


def _pack(compress: Compress, frame: memoryview) -> tuple[Buffer, bytes]:
    data = compress(frame)
    return data, hashlib.sha256(data).digest()


def _write_all(out: Writable, data: Buffer) -> None:
    """Write every byte: an unbuffered file may take only the first ones, for instance when the disk is nearly full."""
    written = out.write(data)
    rest = memoryview(data)
    while written is not None and written < len(rest):
        if written <= 0:
            raise OSError(errno.EIO, "the output took no bytes")
        rest = rest[written:]
        written = out.write(rest)
