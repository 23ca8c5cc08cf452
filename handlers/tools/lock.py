"""A lock between processes that the kernel frees when its holder dies.

`flock` on a file of our own: never stale, needs no manual unlock. Only its holder may remove the file (`remove`); who
had opened the old inode notices and locks the new one, so two processes never hold "the same" lock on two inodes.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType


class Lock:
    """An exclusive lock held by this object until `release`, `remove` or the end of the process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def try_hold(cls, path: Path) -> Lock | None:
        """The lock, or None while another holder (thread or process) has it. Creates the file where missing."""
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                current = _is_file_at(path, descriptor)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except OSError:
                os.close(descriptor)
                raise
            if current:
                return cls(path, descriptor)
            # Its last holder removed the file between our open and our flock.
            os.close(descriptor)

    def release(self) -> None:
        """Let go; the file stays. Safe to repeat."""
        if self._descriptor is not None:
            # Closing is not enough: a program that another thread starts just now has a copy until its exec is through.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None

    def remove(self) -> None:
        """Take the file away, then let go; does nothing once released."""
        if self._descriptor is not None:
            self.path.unlink(missing_ok=True)
            self.release()

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _is_file_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
