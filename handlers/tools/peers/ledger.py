"""The SHA-256 of every staged file, however many they are, as it was when the file's bytes went by."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator

from handlers.tools.sorted_lines import Keyed, SortedLines
from handlers.tools.trees.mtree import order

_RECORD = struct.Struct("<qq32s")


class Ledger:
    """Takes sums from several threads, and gives them back once, in the order of a walk."""

    def __init__(self) -> None:
        self._lines = SortedLines()
        self._lock = threading.Lock()
        self._ahead: Iterator[Keyed] | None = None
        self._next: Keyed | None = None

    def add(self, path: bytes, about: os.stat_result, sha256: bytes) -> None:
        """The file at this path of the tree, as it is on the disk now. What was said of it before is forgotten."""
        record = _RECORD.pack(about.st_size, about.st_mtime_ns, sha256)
        with self._lock:
            self._lines.add(order(path), record)

    def known(self, path: bytes, about: os.stat_result) -> str | None:
        """The sum of a file that is as it was; None for any other. Asked in the order of a walk, once for each."""
        if self._ahead is None:
            self._ahead = iter(self._lines)
            self._next = next(self._ahead, None)
        key, found = order(path), None
        while self._next is not None and self._next[0] <= key:
            if self._next[0] == key:
                found = self._next[1]  # the last one said of it counts
            self._next = next(self._ahead, None)
        if found is None:
            return None
        size, mtime_ns, sha256 = _RECORD.unpack(found)
        return sha256.hex() if (size, mtime_ns) == (about.st_size, about.st_mtime_ns) else None

    def close(self) -> None:
        """Let go of temporary files; safe to repeat."""
        self._lines.close()
