"""Walks a directory tree of any depth, one name at a time.

In Python 3.11 `os.walk`, `os.fwalk` and `shutil.rmtree` end in a RecursionError some thousand directories down; the
latter two keep each directory on the way open, the first does not reach paths longer than PATH_MAX.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How to open a directory itself, never what a symbolic link points to."""

_HELD = 64
"""Directories above that stay open. Below that the way back is `..`, and is checked."""

_LONGEST = 4000
"""Of a path that is taken at once, in bytes. PATH_MAX is 4096."""

NO_DIRECTORY = frozenset({errno.ENOTDIR, errno.ELOOP})
"""What opening says where something else has the name, a symbolic link for instance."""


@dataclass(slots=True)
class _Level:
    descriptor: int | None
    identity: tuple[int, int]
    pending: list[tuple[bytes, bool]]
    name: bytes = b""
    """In the directory above."""


def walk(top: int, enter: Callable[[int, bytes], object] | None = None) -> Iterator[tuple[int, bytes, bool]]:
    """Every name below an open directory: the directory it is in, the name, whether it is a directory itself.

    What is in a directory comes before the directory, which may be empty by then. `enter` is called with the place of
    each directory before that is opened. No symbolic link is followed; a directory that may not be read is told, and
    what has gone in the meantime is not. Raises OSError, also where a directory was moved away while we were in it.
    """
    levels = [_level(os.dup(top))]
    try:
        while True:
            here = levels[-1]
            at = here.descriptor
            assert at is not None
            if not here.pending:
                if len(levels) == 1:
                    return
                _leave(levels)
                above = levels[-1].descriptor
                assert above is not None
                yield above, here.name, True
                continue
            name, is_directory = here.pending.pop()
            if is_directory and enter is not None:
                enter(at, name)
            below = _opened(at, name) if is_directory else False
            if isinstance(below, _Level):
                levels.append(below)
                if len(levels) > _HELD:
                    os.close(at)
                    here.descriptor = None
            elif below is not None:
                yield at, name, below
    finally:
        for level in levels:
            if level.descriptor is not None:
                os.close(level.descriptor)


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


def _opened(at: int, name: bytes) -> _Level | bool | None:
    """The directory; where it cannot be opened, whether it is one; None where it is gone."""
    try:
        return _level(os.open(name, ENTER, dir_fd=at), name)
    except FileNotFoundError:
        return None
    except PermissionError:
        return True
    except OSError as error:
        if error.errno in NO_DIRECTORY:
            return False
        raise


def _level(descriptor: int, name: bytes = b"") -> _Level:
    try:
        about = os.fstat(descriptor)
        with os.scandir(descriptor) as found:
            pending = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in found]
    except OSError:
        os.close(descriptor)
        raise
    return _Level(descriptor, (about.st_dev, about.st_ino), pending, name)


def _leave(levels: list[_Level]) -> None:
    """Go back to the directory above."""
    left, above = levels.pop(), levels[-1]
    assert left.descriptor is not None
    try:
        if above.descriptor is None:
            above.descriptor = os.open(b"..", ENTER, dir_fd=left.descriptor)
            about = os.fstat(above.descriptor)
            if (about.st_dev, about.st_ino) != above.identity:
                raise OSError(errno.EBUSY, "directory was moved while it was walked", left.name)
    finally:
        os.close(left.descriptor)
