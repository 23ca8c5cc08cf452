"""Walks a directory tree of any depth, one name at a time.

In Python 3.11 `os.walk`, `os.fwalk` and `shutil.rmtree` end in a RecursionError some thousand directories down; the
latter two keep each directory on the way open, the first does not reach paths longer than PATH_MAX.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How to open a directory itself, never what a symbolic link points to."""

_HELD = 64
"""Directories above that stay open. Below that the way back is `..`, and is checked."""

_LONGEST = 4000
"""Of a path that is taken at once, in bytes. PATH_MAX is 4096."""

NO_DIRECTORY = frozenset({errno.ENOTDIR, errno.ELOOP})
"""What opening says where something else has the name, a symbolic link for instance."""


_Seen = TypeVar("_Seen")


@dataclass(slots=True)
class _Level:
    descriptor: int | None
    identity: tuple[int, int]
    name: bytes = b""
    """In the directory above."""


class Way:
    """The way from an open directory down to one below it, step by step; no step follows a symbolic link."""

    def __init__(self, top: int) -> None:
        """Begins at `top`, which stays the caller's."""
        self._levels = [_Level(os.dup(top), _identity(top))]

    @property
    def here(self) -> int:
        """The open directory where we are, until the next step."""
        descriptor = self._levels[-1].descriptor
        assert descriptor is not None
        return descriptor

    @property
    def steps(self) -> list[bytes]:
        """The names that led here."""
        return [level.name for level in self._levels[1:]]

    def enter(self, name: bytes, look: Callable[[int], _Seen]) -> _Seen:
        """Go into a directory that is here, and return what `look` says of it. Raises OSError, and stays."""
        here = self.here
        below = os.open(name, ENTER, dir_fd=here)
        try:
            seen = look(below)
            level = _Level(below, _identity(below), name)
        except BaseException:
            os.close(below)
            raise
        self._levels.append(level)
        if len(self._levels) > _HELD:
            os.close(here)
            self._levels[-2].descriptor = None
        return seen

    def leave(self) -> bytes:
        """Go back up; returns the name of what was left. Raises OSError where that was moved meanwhile."""
        left, above = self._levels.pop(), self._levels[-1]
        assert left.descriptor is not None
        try:
            if above.descriptor is None:
                above.descriptor = os.open(b"..", ENTER, dir_fd=left.descriptor)
                if _identity(above.descriptor) != above.identity:
                    raise OSError(errno.EBUSY, "directory was moved while it was walked", left.name)
        finally:
            os.close(left.descriptor)
        return left.name

    def close(self) -> None:
        """Let go of all directories."""
        for level in self._levels:
            if level.descriptor is not None:
                os.close(level.descriptor)
        self._levels.clear()


def walk(
    top: int, enter: Callable[[int, bytes], object] | None = None, *, removed_at_once: int | None = None
) -> Iterator[tuple[int, bytes, bool]]:
    """Every name below an open directory: the directory it is in, the name, whether it is a directory itself.

    What is in a directory comes before the directory, which may be empty by then. `enter` is called with the place of
    each directory before that is opened. No symbolic link is followed; a directory that may not be read is told, and
    what has gone in the meantime is not. Raises OSError, also where a directory was moved away while we were in it.
    All names of a directory are in memory meanwhile. A caller who removes each name that is told may give
    `removed_at_once`: after so many the directory is listed anew.
    """
    listed = functools.partial(_listed, at_most=removed_at_once)
    with closing(Way(top)) as way:
        pending = [listed(way.here)]
        while True:
            if not pending[-1] and removed_at_once is not None:
                pending[-1] = listed(way.here)
            if not pending[-1]:
                pending.pop()
                if not pending:
                    return
                left = way.leave()
                yield way.here, left, True
                continue
            name, is_directory = pending[-1].pop()
            if is_directory and enter is not None:
                enter(way.here, name)
            below = _entered(way, name, listed) if is_directory else False
            if isinstance(below, list):
                pending.append(below)
            elif below is not None:
                yield way.here, name, below


@contextmanager
def reached(top: int, path: bytes) -> Iterator[tuple[int, bytes]]:
    """An open directory, and what is left of a path from there on: short enough for the kernel, however long it was.

    No symbolic link is followed on the way there. Raises OSError where there is no such way.
    """
    at = top
    try:
        while len(path) > _LONGEST:
            cut = path.rindex(b"/", 0, _LONGEST)
            below = os.open(path[:cut], ENTER | os.O_PATH, dir_fd=at)
            if at != top:
                os.close(at)
            at, path = below, path[cut + 1 :]
        yield at, path
    finally:
        if at != top:
            os.close(at)


def count_below(directory: Path) -> int:
    """How many files of any type there are below a directory, as far as it may be read. Raises OSError."""
    top = os.open(directory, ENTER)
    try:
        return sum(1 for _ in walk(top))
    finally:
        os.close(top)


def _entered(
    way: Way, name: bytes, listed: Callable[[int], list[tuple[bytes, bool]]]
) -> list[tuple[bytes, bool]] | bool | None:
    """What is in the directory; where it cannot be entered, whether it is one; None where it is gone."""
    try:
        return way.enter(name, listed)
    except FileNotFoundError:
        return None
    except PermissionError:
        return True
    except OSError as error:
        if error.errno in NO_DIRECTORY:
            return False
        raise


def _listed(directory: int, at_most: int | None) -> list[tuple[bytes, bool]]:
    with os.scandir(directory) as found:
        names = itertools.islice(found, at_most)
        return [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in names]


def _identity(directory: int) -> tuple[int, int]:
    about = os.fstat(directory)
    return about.st_dev, about.st_ino
