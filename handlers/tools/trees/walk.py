"""Walks a tree in the order of its listing, however deep it is and however many names it has."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from handlers.tools.deep_tree import ENTER, NO_DIRECTORY, Way
from handlers.tools.sorted_lines import SortedLines
from handlers.tools.trees.mtree import TOP

NO_MORE_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What opening says where this process or machine has reached a limit: no file is to blame."""

_MANY_NAMES = 50_000
"""Names of one directory that are sorted in memory; with more of them a temporary file helps."""
_RUN_BYTES = 8 << 20


class Found(NamedTuple):
    """One name as the walk found it."""

    at: int
    """The open directory that it is in, until the walk goes on."""
    name: bytes
    """In that directory; `.` for the top."""
    path: bytes
    """From the top, which is `.`."""
    about: os.stat_result
    error: OSError | None = None
    """Why a directory cannot be listed."""


def open_top(tree: Path) -> int:
    """The top of a tree, which must be a directory itself. Raises OSError."""
    return os.open(tree, ENTER)


def walk(top: int) -> Iterator[Found]:
    """The top, and every name below it: sorted bytewise, a directory before what is in it.

    Nothing is reached through a symbolic link. What is gone by the time that it is looked at is left out. Memory grows
    with the depth and, up to a limit, with the number of names in one directory. Raises OSError, also where a
    directory was moved away while we were in it.
    """
    with closing(Way(top)) as way:
        yield Found(way.here, TOP, TOP, os.fstat(top))
        pending = [_names(way.here)]
        prefixes = [b""]
        while pending:
            name = next(pending[-1], None)
            if name is None:
                pending.pop()
                prefixes.pop()
                if pending:
                    way.leave()
                continue
            found = _found(way.here, name, prefixes[-1] + name)
            if found is None:
                continue
            if not stat.S_ISDIR(found.about.st_mode):
                yield found
                continue
            try:
                names = way.enter(name, _names)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno in NO_MORE_FILES:
                    raise
                if error.errno in NO_DIRECTORY:
                    # Something else has its name now.
                    found = _found(way.here, name, found.path)
                    if found is not None and not stat.S_ISDIR(found.about.st_mode):
                        yield found
                        continue
                if found is not None:
                    yield found._replace(error=error)
                continue
            yield Found(way.here, TOP, found.path, os.fstat(way.here))
            pending.append(names)
            prefixes.append(found.path + b"/")


def _found(at: int, name: bytes, path: bytes) -> Found | None:
    try:
        return Found(at, name, path, os.stat(name, dir_fd=at, follow_symlinks=False))
    except FileNotFoundError:
        return None


def _names(directory: int) -> Iterator[bytes]:
    """What is in an open directory, sorted; it is read before this returns."""
    names: list[bytes] = []
    with os.scandir(directory) as found:
        for entry in found:
            names.append(os.fsencode(entry.name))
            if len(names) > _MANY_NAMES:
                return _sorted_on_disk(chain(names, (os.fsencode(more.name) for more in found)))
    names.sort()
    return iter(names)


def _sorted_on_disk(names: Iterable[bytes]) -> Iterator[bytes]:
    gathered = SortedLines(run_bytes=_RUN_BYTES)
    for name in names:
        gathered.add(name, b"")
    return _drained(gathered)


def _drained(gathered: SortedLines) -> Iterator[bytes]:
    with closing(gathered):
        yield from (name for name, _ in gathered)
