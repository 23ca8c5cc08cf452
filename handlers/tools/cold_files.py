"""Tells whether a directory's files are in the kernel's memory already, by looking at a few of them.

Nobody waits for it: the kernel is asked for a byte of a file only if it has it. (It may then begin to read the file.)
"""

from __future__ import annotations

import os
import random
import resource
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

_FILES = 24
_COLD_FILES = 3
_DESCENTS = 3 * _FILES
_MAX_DEPTH = 64
_ENTRIES = 100
"""Entries of a directory among which one is chosen."""

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""With O_NOATIME we leave no trace, or are refused: only root and a file's owner may ask for it."""


class Cold(NamedTuple):
    """What has to come from the disk."""

    files: bool
    """The content of files."""
    directories: bool
    """Names and attributes."""


def blocks_read() -> int:
    """What the calling thread has had to read from disks so far, in blocks."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_inblock


def look(top: int, names: Sequence[bytes], is_left_out: Callable[[bytes], bool], choose: random.Random) -> Cold:
    """Whether what is below the directory `top` in these names is cold. Takes some ten milliseconds, more if it is.

    What is left out is not looked at, nor what is below another mount point. A file that we may not ask about is
    skipped.
    """
    looked = cold = 0
    cold_directories = False
    for _ in range(_DESCENTS):
        before = blocks_read()
        path = _any_file(top, choose.choice(names), is_left_out, choose)
        cold_directories = cold_directories or blocks_read() > before
        in_memory = None if path is None else _in_memory(top, path)
        if in_memory is not None:
            looked += 1
            cold += not in_memory
        if cold >= _COLD_FILES or looked >= _FILES:
            break
    return Cold(files=cold >= min(_COLD_FILES, max(1, looked)), directories=cold_directories)


@contextmanager
def directory(top: int, path: bytes) -> Iterator[int]:
    """A descriptor of this directory below `top`. Raises OSError, also where the path leads through a link."""
    descriptor = os.open(path, DIRECTORY_FLAGS, dir_fd=top)
    try:
        if path != b"." and _place(descriptor) != os.path.join(_place(top), path):  # noqa: PTH118  # bytes
            raise NotADirectoryError(path)
        yield descriptor
    finally:
        os.close(descriptor)


def _any_file(top: int, path: bytes, is_left_out: Callable[[bytes], bool], choose: random.Random) -> bytes | None:
    """A file with content somewhere below path; None where the way down ended without one."""
    try:
        device = os.fstat(top).st_dev
        for _ in range(_MAX_DEPTH):
            found = os.stat(path, dir_fd=top, follow_symlinks=False)
            if found.st_dev != device:
                return None
            if stat.S_ISREG(found.st_mode):
                return path if found.st_blocks else None
            if not stat.S_ISDIR(found.st_mode):
                return None
            with directory(top, path) as descriptor, os.scandir(descriptor) as entries:
                below = [joined(path, os.fsencode(entry.name)) for entry in islice(entries, _ENTRIES)]
            path = choose.choice([name for name in below if not is_left_out(name)])
    except (OSError, IndexError):
        pass
    return None


def _in_memory(top: int, path: bytes) -> bool | None:
    """Whether it is; None for a file that we may not ask about."""
    try:
        descriptor = os.open(path, FILE_FLAGS, dir_fd=top)
    except OSError:
        return None
    before = blocks_read()
    try:
        # A fast disk may have answered before the kernel looks whether it would have to wait.
        return os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT) > 0 and blocks_read() == before
    except OSError:
        # It would have to wait; or the filesystem cannot tell, as many on the network cannot.
        return False
    finally:
        os.close(descriptor)


def joined(path: bytes, name: bytes) -> bytes:
    """The path of what has this name in a directory."""
    return name if path == b"." else path + b"/" + name


def _place(descriptor: int) -> bytes:
    return os.readlink(b"/proc/self/fd/%d" % descriptor)  # noqa: PTH115  # bytes
