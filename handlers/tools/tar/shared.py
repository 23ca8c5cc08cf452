"""Finds what a directory that is new to the snapshot shares, by hard links, with directories that are not.

A directory that was renamed, or moved into the subject, is archived whole; but a file in it has not changed, and so its
names in other directories count as stored. They would come back as another file with the same content. These names
are struck out of the snapshot: GNU tar archives them once more, and as links.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from handlers.tools.deep_tree import ENTER, walk
from handlers.tools.tar.records import DIRECTORY, END, Record, Records

MAX_SHARED = 1_000_000
"""Files of several names that are remembered one by one; when there are more, every file is archived again."""

_GATHERED = 1000
_FILES_BETWEEN_CHECKPOINTS = 1000


class Newcomers:
    """The files of several names in directories that the snapshot does not have as they are now."""

    def __init__(self, root: Path, checkpoint: Callable[[], None], most: int = MAX_SHARED) -> None:
        """`root` is what GNU tar's `--directory` was and will be."""
        self._root = root
        self._checkpoint = checkpoint
        self._most = most
        self._inodes: set[int] = set()
        self._walked: set[bytes] = set()
        self._too_many = False

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._inodes)

    def instead(self, record: Record) -> None:
        """Look at what is where this directory was."""
        self._gather(record.name)

    def within(self, record: Record) -> None:
        """Look at what is new in a directory that was changed since the snapshot was made."""
        known = {name[1:] for name in record.names.split(b"\0") if name[:1] == DIRECTORY}
        for name, is_directory, _ in self._entries(record.name):
            if is_directory and name not in known:
                self._gather(record.name + b"/" + name)

    def without_shared(self, snapshot: Records) -> Iterator[bytes]:
        """The snapshot's bytes without the other names of these files. Reads every directory, but no inode."""
        out = [snapshot.head()]
        for record in snapshot:
            self._checkpoint()
            out += [self._struck(record), END]
            if len(out) >= _GATHERED:
                yield b"".join(out)
                out = []
        yield b"".join(out)

    def _struck(self, record: Record) -> bytes:
        names = record.names.split(b"\0") if record.names else []
        if self._too_many:
            shared = {name[1:] for name in names if name[:1] != DIRECTORY}
        else:
            shared = {name for name, is_directory, inode in self._entries(record.name) if inode in self._inodes}
        kept = [name for name in names if name[:1] == DIRECTORY or name[1:] not in shared]
        if len(kept) == len(names):
            return record.raw
        return b"\0".join([record.raw[: -len(record.names) - 1], *kept])

    def _gather(self, directory: bytes) -> None:
        """Note the files of several names in this directory and below. What cannot be read is not archived either."""
        above = directory
        while above:
            if above in self._walked:
                return
            above = above.rpartition(b"/")[0]
        with suppress(OSError):
            top = self._opened(directory)
            try:
                self._walked.add(directory)
                for number, (at, name, is_directory) in enumerate(walk(top)):
                    if number % _FILES_BETWEEN_CHECKPOINTS == 0:
                        self._checkpoint()
                    if not is_directory:
                        self._note(os.lstat(name, dir_fd=at))
            finally:
                os.close(top)

    def _note(self, found: os.stat_result) -> None:
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            if len(self._inodes) < self._most:
                self._inodes.add(found.st_ino)
            else:
                self._too_many = True

    def _entries(self, directory: bytes) -> Iterator[tuple[bytes, bool, int]]:
        with suppress(OSError):
            opened = self._opened(directory)
            try:
                # The list of a directory has the numbers of inodes: nothing else need be read.
                with os.scandir(opened) as found:
                    for entry in found:
                        yield os.fsencode(entry.name), entry.is_dir(follow_symlinks=False), entry.inode()
            finally:
                os.close(opened)

    def _opened(self, directory: bytes) -> int:
        # By its path relative to the root: together they may be longer than the kernel takes.
        root = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return os.open(directory, ENTER, dir_fd=root)
        finally:
            os.close(root)
