"""Makes everything that was written to a file system durable, in one call."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path


def open_for_sync(directory: Path) -> int:
    """A descriptor for `sync_file_system`, to be closed by the caller.

    Since Linux 5.8 a sync tells of every failed write-back since its descriptor was opened, so this comes before
    whatever is to be made durable is written. Source: syncfs(2).
    """
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def sync_file_system(descriptor: int) -> None:
    """Wait until all that was written to the file system of an open directory, by anybody, is on its disk.

    Raises OSError where some of it may not be. That is told once: a second try would find all well.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def is_nearly_full(directory: Path, least_bytes: int) -> bool:
    """Whether less than a twentieth of the file system is free, and less than `least_bytes`; or of its inodes."""
    room = os.statvfs(directory)
    wanted = min(room.f_blocks // 20, least_bytes // room.f_frsize)
    # Where a file system makes inodes as it needs them, it counts none.
    return room.f_bavail < wanted or room.f_favail < room.f_files // 100
