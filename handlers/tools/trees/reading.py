"""Reads many files, hashing them; the large ones in several threads, all of them in the order that was asked for."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from handlers.tools.cores import default_threads

LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""How to open what should be a regular file, without waiting should it be a pipe by now."""

PIECE_BYTES = 1 << 20

_SMALL_BYTES = 256 << 10
"""To hand a file of this size over to a thread takes about as long as to hash it. Measured with 50 000 files of 2 KiB:
1.2 s in one thread, 2.1 s in two, whatever number of files is handed over at once."""
_AHEAD = 64
"""Files that are open and that the kernel knows will be read, so that a slow disk has something to choose from."""
_PULSE_SECONDS = 0.1
_LOOKS = 3
"""How often a file is read that changes while it is read."""

_Told = TypeVar("_Told")


class Asked(NamedTuple, Generic[_Told]):
    """One file to read, or something that only keeps its place in the order."""

    told: _Told
    """Comes out again as it is."""
    about: os.stat_result
    """What is known of the file."""
    descriptor: int | None
    """The open file, which is closed when it was read; None for nothing to read."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a file had in it."""

    sha256: str
    about: os.stat_result
    """As the file was when it had been read."""
    changed: bool
    """Whether it was not the file that was asked for, or changed whenever it was read."""


class Pulse:
    """Lets the worker know ten times a second that there is somebody, and how many more bytes were read."""

    def __init__(self, checkpoint: Callable[[], None], report: Callable[[int], None]) -> None:
        self._checkpoint = checkpoint
        self._report = report
        self._last = time.monotonic()
        self._lock = threading.Lock()
        self._read = 0

    def count(self, size_bytes: int) -> None:
        """So many more bytes were read; any thread."""
        with self._lock:
            self._read += size_bytes

    def beat(self, *, now: bool = False) -> None:
        """Call it as often as you like. Raises what the checkpoint raises."""
        if now or time.monotonic() - self._last >= _PULSE_SECONDS:
            self._last = time.monotonic()
            self._checkpoint()
            with self._lock:
                read, self._read = self._read, 0
            if read:
                self._report(read)


def read_in_order(
    asked: Iterable[Asked[_Told]], pulse: Pulse
) -> Generator[tuple[_Told, Content | OSError | None], None, None]:
    """What was asked for, with what was read of it, or why it could not be.

    Some 64 files are open at once. Close the iterator: when it ends, however it ends, so have all threads, and every
    file that it was given is closed. Raises what the pulse raises.
    """
    waiting: deque[tuple[Asked[_Told], Future[Content | OSError] | None]] = deque()
    stop = threading.Event()
    pool = ThreadPoolExecutor(default_threads(), thread_name_prefix="tree-reader")
    try:
        for one in asked:
            future = None
            if one.descriptor is not None:
                if one.about.st_size > _SMALL_BYTES:
                    future = pool.submit(_read, one.descriptor, one.about, pulse, stop)
                elif one.about.st_size:
                    with suppress(OSError):  # it may be a pipe by now
                        os.posix_fadvise(one.descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
            waiting.append((one, future))
            if len(waiting) > _AHEAD:
                yield _next(waiting, pulse, stop)
        while waiting:
            yield _next(waiting, pulse, stop)
        pulse.beat(now=True)
    finally:
        stop.set()
        for one, future in waiting:
            if one.descriptor is not None and (future is None or future.cancel()):
                os.close(one.descriptor)
        pool.shutdown()


def _next(
    waiting: deque[tuple[Asked[_Told], Future[Content | OSError] | None]], pulse: Pulse, stop: threading.Event
) -> tuple[_Told, Content | OSError | None]:
    one, future = waiting[0]
    while future is not None and not wait([future], _PULSE_SECONDS).done:
        pulse.beat()
    pulse.beat()
    waiting.popleft()
    if future is not None:
        return one.told, future.result()
    if one.descriptor is None:
        return one.told, None
    return one.told, _read(one.descriptor, one.about, pulse, stop)


def _read(descriptor: int, about: os.stat_result, pulse: Pulse, stop: threading.Event) -> Content | OSError:
    try:
        content = None
        for _ in range(_LOOKS):
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode) or not os.path.samestat(before, about):
                return Content("", before, changed=True)
            sha256, size = _hashed(descriptor, before.st_size, pulse, stop)
            after = os.fstat(descriptor)
            changed = size != after.st_size or not after.st_nlink or _version(before) != _version(after)
            content = Content(sha256, after, changed)
            if not changed:
                break
        assert content is not None
        return content
    except OSError as error:
        return error
    finally:
        os.close(descriptor)


def _hashed(descriptor: int, expected: int, pulse: Pulse, stop: threading.Event) -> tuple[str, int]:
    """The SHA-256 of an open file from its beginning on, and how many bytes that were.

    Of a file that grows meanwhile one byte more is read than expected, and no further: it could grow for ever.
    """
    if expected <= _SMALL_BYTES:
        piece = os.pread(descriptor, expected + 1, 0)
        if len(piece) == expected:
            pulse.count(expected)
            return hashlib.sha256(piece).hexdigest(), expected
    digest = hashlib.sha256()
    size = 0
    while size <= expected and not stop.is_set():
        wanted = min(expected + 1 - size, PIECE_BYTES)
        piece = os.pread(descriptor, wanted, size)
        digest.update(piece)
        size += len(piece)
        pulse.count(len(piece))
        if not piece or (size == expected and len(piece) < wanted):
            break
    return digest.hexdigest(), size


def _version(about: os.stat_result) -> tuple[int, int]:
    return about.st_size, about.st_mtime_ns
