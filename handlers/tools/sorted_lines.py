"""Sorts any number of lines by a key, in bounded memory: what is too much lies in a temporary file meanwhile."""

from __future__ import annotations

import heapq
import os
import struct
import tempfile
from collections.abc import Iterator
from operator import itemgetter
from typing import IO

from handlers.tools.process import disk_error

RUN_BYTES = 24 << 20
"""About what is in memory before it is sorted into the file."""

_LINE_BYTES = 200
"""What Python adds to a key and its line."""
_READ_BYTES = 1 << 16
_HEAD = struct.Struct("<II")

Keyed = tuple[bytes, bytes]
"""A key, and its line."""

by_key = itemgetter(0)


class SortedLines:
    """Takes lines in any order and gives them sorted, as often as asked, until it is closed.

    The file has no name: nothing is left of it, however the process ends. Raises TemporaryError when the disk with the
    directory for temporary files (`TMPDIR`) is full.
    """

    def __init__(self, *, run_bytes: int = RUN_BYTES) -> None:
        self._run_bytes = run_bytes
        self._lines: list[Keyed] = []
        self._bytes = 0
        self._sorted = True
        self._file: IO[bytes] | None = None
        self._runs: list[tuple[int, int]] = []
        """Where each sorted run begins and ends in the file."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, key: bytes, line: bytes) -> None:
        """One more; of those with the same key, the one that was added first comes first."""
        self._lines.append((key, line))
        self._count += 1
        self._sorted = False
        self._bytes += len(key) + len(line) + _LINE_BYTES
        if self._bytes >= self._run_bytes:
            self._spill()

    def __iter__(self) -> Iterator[Keyed]:
        """All of them, sorted. Nothing may be added while this is read."""
        if not self._sorted:
            self._lines.sort(key=by_key)
            self._sorted = True
        return heapq.merge(*(self._run(start, end) for start, end in self._runs), iter(self._lines), key=by_key)

    def close(self) -> None:
        """Let go of the file; safe to repeat."""
        self._lines.clear()
        self._runs.clear()
        if self._file is not None:
            self._file.close()

    def _spill(self) -> None:
        self._lines.sort(key=by_key)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="holdfast-")  # noqa: SIM115 - `close` closes it
            start = self._file.tell()
            for key, line in self._lines:
                self._file.write(_HEAD.pack(len(key), len(line)) + key + line)
            self._file.flush()
            self._runs.append((start, self._file.tell()))
        except OSError as error:
            raise disk_error(error, f"cannot write temporary files in {tempfile.gettempdir()}") from error
        self._lines.clear()
        self._bytes = 0
        self._sorted = True

    def _run(self, at: int, end: int) -> Iterator[Keyed]:
        assert self._file is not None
        file = self._file.fileno()
        buffer = b""
        here = 0
        while at < end or here < len(buffer):
            head_end = here + _HEAD.size
            if head_end <= len(buffer):
                key_bytes, line_bytes = _HEAD.unpack_from(buffer, here)
                key_end = head_end + key_bytes
                line_end = key_end + line_bytes
                if line_end <= len(buffer):
                    yield buffer[head_end:key_end], buffer[key_end:line_end]
                    here = line_end
                    continue
            more = os.pread(file, min(_READ_BYTES, end - at), at)
            at += len(more)
            buffer = buffer[here:] + more
            here = 0
