"""Removes directory trees, whatever their modes or depth, even while others remove them too."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from handlers.tools.deep_tree import ENTER, NO_DIRECTORY, walk

_AT_ONCE = 10_000
"""Names of one directory that are in memory, however many it has."""


def remove_tree(path: Path) -> None:
    """Remove path with everything below it; gone already, or gone half way, is fine. Raises OSError.

    Directories that their owner may not write (a restored tree has such) are made writable first. Never follows a link.
    """
    try:
        parent = os.open(path.parent, ENTER & ~os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        try:
            remove_at(parent, os.fsencode(path.name))
        except PermissionError:
            # The directory it is in may be a restored one, too.
            os.fchmod(parent, stat.S_IMODE(os.fstat(parent).st_mode) | stat.S_IRWXU)
            remove_at(parent, os.fsencode(path.name))
    finally:
        os.close(parent)


def remove_below(directory: Path) -> None:
    """Remove what is in a directory, and leave it there, empty. Raises OSError."""
    for child in list(directory.iterdir()):
        remove_tree(child)


def remove_at(parent: int, name: bytes) -> None:
    """Like `remove_tree`, for a name in an open directory."""
    _let_in(parent, name)
    try:
        top = os.open(name, ENTER, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in NO_DIRECTORY:
            raise
        _remove(parent, name, is_directory=False)
        return
    try:
        for at, below, is_directory in walk(top, _let_in, removed_at_once=_AT_ONCE):
            _remove(at, below, is_directory=is_directory)
    finally:
        os.close(top)
    _remove(parent, name, is_directory=True)


def _remove(parent: int, name: bytes, *, is_directory: bool) -> None:
    with suppress(FileNotFoundError):
        if is_directory:
            os.rmdir(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)


def _let_in(parent: int, name: bytes) -> None:
    """Let the owner list, enter and change a directory. Where that is not allowed, what follows fails and says so."""
    with suppress(OSError):
        found = os.lstat(name, dir_fd=parent)
        if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(name, stat.S_IMODE(found.st_mode) | stat.S_IRWXU, dir_fd=parent)
