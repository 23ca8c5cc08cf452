"""What the threads that stage have in common: whether to go on, how far they are, how fast they may be."""

from __future__ import annotations

import threading
import time

from handlers.errors import Cancelled, TemporaryError

_NAP_SECONDS = 0.2
_BURST_SECONDS = 0.25


class OurDisk(TemporaryError):
    """The set itself cannot be written; it is no fault of any peer."""


class Pace:
    """Lets no more bytes through in a second than allowed, all threads together."""

    def __init__(self, bytes_per_second: int | None) -> None:
        self._rate = bytes_per_second
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    @property
    def is_set(self) -> bool:
        """Whether there is any limit."""
        return self._rate is not None

    def seconds_for(self, size_bytes: int) -> float:
        """How long to wait after so many more bytes."""
        if self._rate is None:
            return 0.0
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - _BURST_SECONDS) + size_bytes / self._rate
            return max(0.0, self._free_at - now)


class Tally:
    """How far all peers together have come."""

    def __init__(self, bytes_per_second: int | None = None) -> None:
        self.stop = threading.Event()
        """Set when nobody wants the result any more."""
        self.pace = Pace(bytes_per_second)
        self._lock = threading.Lock()
        self._files = 0
        self._bytes = 0

    @property
    def so_far(self) -> tuple[int, int]:
        """Names and bytes."""
        with self._lock:
            return self._files, self._bytes

    def add(self, files: int, size_bytes: int) -> None:
        """So many more; any thread."""
        with self._lock:
            self._files += files
            self._bytes += size_bytes


class Pulse:
    """One peer's share: its deadline, its bytes."""

    def __init__(self, tally: Tally, deadline_seconds: float) -> None:
        self.tally = tally
        self._end = time.monotonic() + deadline_seconds
        self._seconds = deadline_seconds
        self._given_up = threading.Event()

    def beat(self) -> None:
        """Raises Cancelled when nobody wants the result any more, TemporaryError beyond the deadline. Any thread."""
        if self.tally.stop.is_set() or self._given_up.is_set():
            raise Cancelled("asked to stop")
        if time.monotonic() > self._end:
            raise TemporaryError(f"it took longer than {self._seconds:g} s", hint="deadline_seconds of the peer")

    @property
    def left_seconds(self) -> float:
        """Until the deadline."""
        return max(0.001, self._end - time.monotonic())

    def went_by(self, size_bytes: int) -> None:
        """So many more bytes were read; waits where that was too fast. Raises like `beat`."""
        self.tally.add(0, size_bytes)
        self.beat()
        if not self.tally.pace.is_set:
            return
        until = time.monotonic() + self.tally.pace.seconds_for(size_bytes)
        while (left := until - time.monotonic()) > 0:
            self.beat()
            time.sleep(min(left, _NAP_SECONDS))

    def give_up(self) -> None:
        """End the threads of this peer."""
        self._given_up.set()
