"""Turns what the operating system says about a disk into what a store says."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from handlers.errors import HoldfastError
from worker.stores.protocol import StoreRefused, StoreUnavailable

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {
    errno.EACCES: "the user that runs holdfast must own the store's directory",
    errno.EPERM: "the user that runs holdfast must own the store's directory; look for immutable attributes",
    errno.EXDEV: "a plan's directory must be on the same file system as the store's directory",
    errno.EFBIG: "the file system or `ulimit -f` does not allow a file of this size",
    errno.ENOLCK: "the file system must support flock; look at its mount options",
    errno.EOPNOTSUPP: "the file system must support flock, rename and fsync",
    errno.ENOTDIR: "a file is where a directory belongs: move it away",
    errno.ELOOP: "a symbolic link is where a directory or a file belongs: move it away",
}


def store_error(error: OSError, store: str, path: Path) -> HoldfastError:
    """The store's word for this error, naming the store, the path, and what to do."""
    what = f"store {store}: {path}: {error.strerror or error}"
    code = error.errno
    if code in _FULL:
        return StoreUnavailable(what, hint="make room: free space or raise the quota, or keep fewer backups")
    if code == errno.EROFS:
        hint = "the file system is read-only, often after a disk error: look in the kernel's log, then remount it"
        return StoreUnavailable(what, hint=hint)
    if code in _REFUSED:
        return StoreRefused(what, hint=_REFUSED[code])
    if code == errno.EIO:
        return StoreUnavailable(what, hint="the disk reports errors: look in the kernel's log, then at its health")
    return StoreUnavailable(what, hint="is the disk there, mounted and healthy?")


@contextmanager
def translated(store: str, path: Path) -> Iterator[None]:
    """Raises the store's errors in place of OSError."""
    try:
        yield
    except OSError as error:
        raise store_error(error, store, path) from error


def require_root(store: str, root: Path) -> None:
    """Raises StoreUnavailable where the store's own directory is missing.

    It is never created here: an unmounted disk must not be replaced by a directory on another one.
    """
    hint = "mount its disk; for a new store create the directory, best below the mount point, not as it"
    try:
        mode = root.stat().st_mode
    except FileNotFoundError as error:
        raise StoreUnavailable(f"store {store}: the directory {root} is missing", hint=hint) from error
    except OSError as error:
        raise store_error(error, store, root) from error
    if not stat.S_ISDIR(mode):
        raise StoreRefused(f"store {store}: {root} is no directory", hint=hint)
