"""Sees to it that what one level could not read is tried again by the next.

GNU tar notes a name in its snapshot file even when it could not read the file, and takes the file for archived ever
after, unless its own times change: one that becomes readable because a directory above it does would be in no
level at all. So names that were lost are struck out; a name that the snapshot does not know is new to the next level.
A file that the plan itself names is in no directory's list: for those the next level goes back in time.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from handlers.contract import FileProblem, unprintable
from handlers.tools.tar.records import DIRECTORY, END, Record, Records

MAX_LOST = 100_000
"""Lost names that are remembered one by one; when there are more, the next level archives every file again."""

_GATHERED = 1000


class Lost:
    """The names that are not in the archive as they should be, as tar knows them (`./dir/file`).

    A bare `file` stands for all files of that name: tar does not always say in which directory.
    """

    def __init__(self, most: int = MAX_LOST) -> None:
        self._names: set[bytes] = set()
        self._whole: set[bytes] = set()
        self._directories: set[bytes] = set()
        self._bare = False
        self._most = most
        self._too_many = False

    def add(self, name: bytes, *, with_its_names: bool) -> None:
        """One more. `with_its_names`: if it is a directory, nothing that tar notes of what is in it can be trusted."""
        if len(self._names) < self._most:
            self._names.add(name)
            directory, slash, _ = name.rpartition(b"/")
            self._directories.add(directory)
            self._bare = self._bare or not (slash or name == b".")
            if with_its_names:
                self._whole.add(name)
        else:
            self._too_many = True

    def __bool__(self) -> bool:
        return bool(self._names) or self._too_many

    def has(self, name: bytes) -> bool:
        """Whether the next level has to take this name for new."""
        return self._too_many or name in self._names or name.rpartition(b"/")[2] in self._names

    def concerns(self, directory: bytes) -> bool:
        """Whether any name in this directory may have been lost."""
        return self._bare or self.has_names_of(directory) or directory in self._directories

    def has_names_of(self, directory: bytes) -> bool:
        """Whether the next level has to take all files of this directory for new."""
        return self._too_many or directory in self._whole


def without_lost(snapshot: Records, lost: Lost) -> Iterator[bytes]:
    """The snapshot's bytes, without the names that were lost. Directories stay: they have records of their own."""
    out = [snapshot.head()]
    for record in snapshot:
        out += [_struck(record, lost), END]
        if len(out) >= _GATHERED:
            yield b"".join(out)
            out = []
    yield b"".join(out)


def _struck(record: Record, lost: Lost) -> bytes:
    if not record.names or not lost.concerns(record.name):
        return record.raw
    every = lost.has_names_of(record.name)
    names = record.names.split(b"\0")
    kept = [name for name in names if name[:1] == DIRECTORY or not (every or lost.has(record.name + b"/" + name[1:]))]
    if len(kept) == len(names):
        return record.raw
    fields = record.raw[: -len(record.names) - 1]
    return b"\0".join([fields, *kept])


def time_to_go_back_to(time_ns: int, problems: Iterable[FileProblem], wanted: Iterable[bytes], root: Path) -> int:
    """The time since which the next level archives the files that the plan itself names.

    That is the parent's own, time_ns, unless one of `wanted` is among the parent's problems and can be read now: then
    early enough for it. What lies in directories and was changed since then is archived again as well. A parent from
    the future, when the clock was ahead, says nothing: then everything is archived again.
    """
    if time_ns > time.time_ns():
        return 0
    names = {name.removeprefix(b"./") for name in wanted}
    for problem in problems if names != {b"."} else ():
        if problem.kind.is_tried_again:
            name = unprintable(problem.path)
            if name in names:
                time_ns = min(time_ns, _newest_time(root, name, time_ns))
    return time_ns


def _newest_time(root: Path, name: bytes, otherwise: int) -> int:
    """When a file was last changed, by its own times; `otherwise` for what is no file that can be read."""
    path = os.fsencode(root) + b"/" + name
    try:
        found = os.lstat(path)
    except OSError:
        return otherwise
    if stat.S_ISDIR(found.st_mode) or not (stat.S_ISLNK(found.st_mode) or _may_read(path)):
        return otherwise
    return max(found.st_mtime_ns, found.st_ctime_ns)


def _may_read(path: bytes) -> bool:
    return os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids)
