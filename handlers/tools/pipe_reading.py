"""Reads a pipe straight into a buffer, never waiting longer than a caller who may have to stop can bear."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

_PIPE_BYTES = 1 << 20
_SIP_BYTES = _PIPE_BYTES // 4
_NAP_SECONDS = 0.0005
"""What to wait after a small read. tar writes 10 KiB at a time: waking up for each write costs 8 % of all the CPU
time of tar and zstd together. A wide pipe does not fill up so soon."""

PATIENCE_SECONDS = 0.5
"""How long at most the caller's checkpoint, or the error of another thread, waits for a silent producer or sink."""


class RawReadable(Protocol):
    """Where bytes come from when there is no descriptor."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Wait for bytes, put them into the buffer, tell how many; 0 at the end."""


def reading(source: int | RawReadable) -> Callable[[memoryview], int | None]:
    """A function that reads once; None when the source was silent for a while."""
    if isinstance(source, io.FileIO):
        source = source.fileno()
    if isinstance(source, int):
        return _descriptor_reading(source)

    readinto = source.readinto

    def read(room: memoryview) -> int:
        count = readinto(room)
        if count is None:
            raise BlockingIOError(errno.EAGAIN, "the reader does not block; give its descriptor instead")
        return count

    return read


def _descriptor_reading(descriptor: int) -> Callable[[memoryview], int | None]:
    # Refused for what is no pipe, and beyond the user's share of pipe memory: then it stays as it is.
    wide = False
    with suppress(OSError):
        wide = fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES) >= _PIPE_BYTES
    sip = False
    ready = select.poll()
    ready.register(descriptor, select.POLLIN)

    def read(room: memoryview) -> int | None:
        nonlocal sip
        if sip:
            time.sleep(_NAP_SECONDS)
        if not ready.poll(PATIENCE_SECONDS * 1000):
            return None
        try:
            count = os.readv(descriptor, [room])
        except BlockingIOError:
            return None
        sip = wide and 0 < count < min(_SIP_BYTES, len(room))
        return count

    return read
