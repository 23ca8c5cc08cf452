"""Looks at directories, and at the attributes of files, before somebody else does who would wait for the disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from handlers.tools.cold_files import blocks_read, directory, joined

_MAX_WAITING = 100_000
"""Directories that are known and not looked at yet; more are forgotten."""
_ENTRIES_BETWEEN_LOOKS = 100
_WARM_ENTRIES = 10_000
"""When so many in a row were in memory already, the rest most likely is: to look costs more than it can win."""


def walk_ahead(
    top: int,
    names: Sequence[bytes],
    is_left_out: Callable[[bytes], bool],
    is_over: Callable[[], bool],
    *,
    threads: int,
    warm_entries: int = _WARM_ENTRIES,
) -> None:
    """Look at all that is below the directory `top` in these names, in about the order of a walk by a single thread.

    Returns when that is done, soon after it is over, or when nothing of the last `warm_entries` had to be read. What is
    left out is not looked at, nor what is below another mount point. Errors are passed over.
    """
    walk = _Walk(top, names, is_left_out, lambda: is_over() or walk.warm >= warm_entries)
    with ThreadPoolExecutor(threads, thread_name_prefix="walk-ahead") as pool:
        for _ in range(threads):
            pool.submit(walk.run)


class _Walk:
    """Directories that wait for a thread to look at them; the deepest of them is next."""

    def __init__(
        self, top: int, names: Sequence[bytes], is_left_out: Callable[[bytes], bool], is_over: Callable[[], bool]
    ) -> None:
        self._top = top
        self._is_left_out = is_left_out
        self._is_over = is_over
        self._device = os.fstat(top).st_dev
        self._waiting = list(reversed(names))
        self.warm = 0
        """Entries in a row that were in memory."""
        self._busy = 0
        self._changed = threading.Condition()

    def run(self) -> None:
        """One thread's work."""
        while (path := self._next()) is not None:
            found: list[bytes] = []
            try:
                with suppress(OSError):
                    found = self._look_at(path)
            finally:
                with self._changed:
                    self._busy -= 1
                    self._waiting += sorted(found, reverse=True)[: _MAX_WAITING - len(self._waiting)]
                    self._changed.notify_all()

    def _next(self) -> bytes | None:
        with self._changed:
            while not self._waiting and self._busy and not self._is_over():
                self._changed.wait(0.1)
            if not self._waiting or self._is_over():
                self._changed.notify_all()
                return None
            self._busy += 1
            return self._waiting.pop()

    def _look_at(self, path: bytes) -> list[bytes]:
        """Look at everything in this directory; returns the directories in it."""
        found: list[bytes] = []
        before = blocks_read()
        looked = 0
        with directory(self._top, path) as place:
            if os.fstat(place).st_dev != self._device:
                return found
            with os.scandir(place) as entries:
                for looked, entry in enumerate(entries, start=1):
                    if looked % _ENTRIES_BETWEEN_LOOKS == 0 and self._is_over():
                        return []
                    below = joined(path, os.fsencode(entry.name))
                    if self._is_left_out(below):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        found.append(below)
                    else:
                        with suppress(OSError):
                            entry.stat(follow_symlinks=False)
        self.warm = self.warm + looked if blocks_read() == before else 0
        return found
