"""Reads ahead of GNU tar, so that it finds in the kernel's memory what it would have to wait for.

With a snapshot file GNU tar works in two passes. It looks at all directories and the attributes of all files; then it
writes the directories, each with the list of what is in it, and at last the files that are marked in these lists, in
their order. Threads of ours look at the same directories ahead of the first pass. For the second they take the lists
out of the archive itself, so that only what GNU tar is going to read is asked for: nothing that is excluded, nothing
that has not changed since the level before. Where all is in memory already, none of this happens.

Whatever goes wrong here, the backup does not notice.
"""

from __future__ import annotations

import errno
import os
import random
import stat
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import NamedTuple, Self

from handlers.errors import HoldfastError
from handlers.tools import cold_files
from handlers.tools.cold_files import DIRECTORY_FLAGS, FILE_FLAGS, directory
from handlers.tools.tar import dumpdir as tar_dumpdir
from handlers.tools.tar.archive_format import Window, next_member
from handlers.tools.tar.index import places
from handlers.tools.tar.match import Excluded
from handlers.tools.walk_ahead import walk_ahead

THREADS = 8
AHEAD_FILES = 1024
"""How many files at most are asked for before GNU tar has come to the first of them."""
ASKED_BYTES = 256 << 10
"""What is asked for of one file; once a large one is being read the kernel reads ahead by itself."""

_BATCH = 32
_LOOK_SECONDS = 0.01
_MAX_LIST_BYTES = 32 << 20
"""Lists that are kept, those of some million files. What comes behind them is not read ahead."""
_JOIN_SECONDS = 5.0


class _Batch(NamedTuple):
    """Some files of one directory."""

    first: int
    """The number of the first one among all files of the archive."""
    path: bytes
    names: list[bytes]


class ReadAhead:
    """Works in threads of its own from `with` on; they inherit the niceness of the caller's."""

    def __init__(
        self,
        root: Path,
        names: Sequence[bytes],
        *,
        exclude: Sequence[str] = (),
        wanted: bool = True,
        ahead_files: int = AHEAD_FILES,
    ) -> None:
        """`names` are what GNU tar is told to archive below root, as it is told; `exclude` the plan's patterns.

        Where it is not wanted nothing happens.
        """
        self._root = root
        self._names = [name.removeprefix(b"./") for name in names]
        self._exclude = exclude
        self._wanted = wanted
        self._ahead_files = ahead_files
        self._stop = threading.Event()
        self._begun = threading.Event()
        self._taken: SimpleQueue[bytes] = SimpleQueue()
        self._waiting_bytes = 0
        self._listening = wanted
        self._listed = 0
        self._last_lines = b""
        self._before = 0
        """Members that precede the first file."""
        self._batches: deque[_Batch] = deque()
        self._done = 0
        self._thread = threading.Thread(target=self._work, name="read-ahead", daemon=True)
        self._counting = threading.Lock()
        self.asked = 0
        """Files that the kernel was asked for."""

    def __enter__(self) -> Self:
        if self._wanted:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop. A thread that hangs in the kernel is left behind: it cannot do anything any more."""
        self._stop.set()
        self._begun.set()
        self._taken.put(b"")
        if self._wanted:
            self._thread.join(_JOIN_SECONDS)

    def is_busy(self) -> bool:
        """Whether there is still something to ask for."""
        return self._thread.is_alive()

    def took(self, piece: memoryview) -> None:
        """A piece of the archive; never waits."""
        self._begun.set()
        if self._listening:
            self._waiting_bytes += len(piece)
            self._listening = self._waiting_bytes <= _MAX_LIST_BYTES
            self._taken.put(bytes(piece) if self._listening else b"")

    def listed(self, members: int, lines: bytes) -> None:
        """How many members the listing has by now, with the last lines of it; never waits."""
        self._listed = members
        self._last_lines = lines

    def _work(self) -> None:
        # The files change while we look, and GNU tar tells what matters of that.
        with suppress(OSError, HoldfastError):
            top = os.open(self._root, DIRECTORY_FLAGS)
            try:
                self._read_ahead(top)
            finally:
                os.close(top)
        self._listen_no_more()

    def _read_ahead(self, top: int) -> None:
        excluded = Excluded(self._exclude)

        def is_left_out(path: bytes) -> bool:
            return excluded(b"./" + path)

        cold = cold_files.look(top, self._names, is_left_out, random.Random())  # noqa: S311  # a sample, no secret
        if cold.directories:
            walk_ahead(top, self._names, is_left_out, self._begun.is_set, threads=THREADS)
        if cold.files:
            self._ask(top, self._lists())

    def _lists(self) -> list[tuple[bytes, bytes]]:
        """Each directory with the names of the files that GNU tar will read there, zero bytes between them."""
        lists = []
        size = 0
        for path, value in self._directories():
            # Nothing marked, as in most directories of most levels: to take a million names apart is not free.
            if value[:1] != b"Y" and b"\0Y" not in value:
                continue
            entries = tar_dumpdir.parse(value).entries.split(b"\0")
            marked = b"\0".join(entry[1:] for entry in entries if entry[:1] == b"Y")
            if marked:
                lists.append((path, marked))
                size += len(path) + len(marked)
            if size > _MAX_LIST_BYTES or self._stop.is_set():
                break
        self._listen_no_more()
        return lists

    def _listen_no_more(self) -> None:
        self._listening = False
        with suppress(Empty):
            while True:
                self._taken.get_nowait()

    def _directories(self) -> Iterator[tuple[bytes, bytes]]:
        window = Window(self._pieces())
        while (header := next_member(window)) is not None:
            if header.type == "5":
                if header.dumpdir is not None:
                    yield header.path or b".", header.dumpdir
            elif header.path in self._names:  # archived where the directories are, because the plan names it
                for _ in window.pass_by(header.stored_bytes):
                    pass
            else:
                return
            window.take()
            self._before += 1

    def _pieces(self) -> Iterator[bytes]:
        while piece := self._taken.get():
            self._waiting_bytes -= len(piece)
            yield piece

    def _ask(self, top: int, lists: Sequence[tuple[bytes, bytes]]) -> None:
        first = 0
        with ThreadPoolExecutor(THREADS, thread_name_prefix="read-ahead") as threads:
            for path, marked in lists:
                names = marked.split(b"\0")
                for start in range(0, len(names), _BATCH):
                    batch = _Batch(first, path, names[start : start + _BATCH])
                    if not self._wait_for_room(first):
                        return
                    first += len(batch.names)
                    if first > self._done:
                        self._batches.append(batch)
                        threads.submit(self._ask_for, top, batch)

    def _wait_for_room(self, first: int) -> bool:
        """Return as soon as GNU tar is near enough; False when there is no more to do."""
        while not self._stop.is_set():
            self._follow()
            if first - self._done < self._ahead_files:
                return True
            self._stop.wait(_LOOK_SECONDS)
        return False

    def _follow(self) -> None:
        """Find out how many files GNU tar has passed: it lists no file that it could not read."""
        counted = self._listed - self._before
        line = self._last_lines.rpartition(b"\n")[0].rpartition(b"\n")[2]
        with suppress(HoldfastError, ValueError):
            for place in places([line + b"\n"] if line else []):
                head, _, name = place.path.rpartition(b"/")
                batch = next((batch for batch in self._batches if batch.path == (head or b".")), None)
                if batch is not None:
                    counted = max(counted, batch.first + batch.names.index(name))
        self._done = max(self._done, counted)
        while self._batches and self._batches[0].first + len(self._batches[0].names) <= self._done:
            self._batches.popleft()

    def _ask_for(self, top: int, batch: _Batch) -> None:
        with suppress(OSError), directory(top, batch.path) as place:
            for name in batch.names:
                if self._stop.is_set():
                    return
                with suppress(OSError):
                    _ask_for_file(place, name)
                    with self._counting:
                        self.asked += 1


def _ask_for_file(place: int, name: bytes) -> None:
    """Raises OSError for what is no file, or has nothing in it."""
    found = os.stat(name, dir_fd=place, follow_symlinks=False)
    # Opening a pipe or a device can do things.
    if not stat.S_ISREG(found.st_mode) or not found.st_blocks:
        raise OSError(errno.EINVAL, "nothing to read")
    descriptor = os.open(name, FILE_FLAGS, dir_fd=place)
    try:
        os.posix_fadvise(descriptor, 0, ASKED_BYTES, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(descriptor)
