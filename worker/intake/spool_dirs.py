"""The directories of a spool.

`tmp/` is the producers' own; `new/` waits; `cur/` is being worked on; `done/` and `failed/` are kept for people;
`events/` holds the outcomes. Described for producers in `docs/spool.md`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import os
import secrets
from pathlib import Path

from handlers.errors import PermanentError
from handlers.tools.atomic import fsync_directory

MAX_NAME = 200
"""Bytes of a file name that are kept in `done/` and `failed/`: the rest of the kernel's 255 is for suffixes of ours."""

_MODES = {"tmp": 0o1770, "new": 0o1770, "cur": 0o750, "done": 0o750, "failed": 0o750, "events": 0o750}
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


class SpoolDirectories:
    """Where things are in one spool."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tmp = path / "tmp"
        self.new = path / "new"
        self.cur = path / "cur"
        self.done = path / "done"
        self.failed = path / "failed"
        self.events = path / "events"

    def prepare(self) -> None:
        """Make what is missing, parents too. Raises PermanentError saying what is in the way."""
        try:
            self.make()
        except OSError as error:
            raise PermanentError(
                f"spool {self.path} cannot be made: {error.strerror or error}: {error.filename}",
                hint="give the worker's user a directory of its own, or set another spool path",
            ) from error
        devices = {name: (self.path / name).stat().st_dev for name in ("tmp", "new", "cur", "done", "failed")}
        if len(set(devices.values())) > 1:
            raise PermanentError(
                f"spool {self.path} is spread over several file systems: {devices}",
                hint="mount the spool as a whole: requests move between its directories by rename",
            )

    def make(self) -> None:
        """Make what is missing; raises OSError. Directories that are there keep their permissions."""
        if not self.path.is_dir():
            self.path.mkdir(parents=True, exist_ok=True)
            self.path.chmod(0o750)
            with contextlib.suppress(PermissionError):  # a parent that may be passed through, not read
                fsync_directory(self.path.parent)
        for name, mode in _MODES.items():
            directory = self.path / name
            try:
                directory.mkdir()
            except FileExistsError:
                if directory.is_symlink() or not directory.is_dir():
                    raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(directory)) from None
            else:
                # Not by mkdir's mode, which the umask narrows. Sticky: no producer removes another's request.
                directory.chmod(mode)
        fsync_directory(self.path)

    @property
    def complete(self) -> bool:
        """Whether every directory is there."""
        return all((self.path / name).is_dir() for name in _MODES)


def move(path: Path, target: Path) -> None:
    """Rename, never over anything: raises FileExistsError where the target is there. Follows no link.

    Not durable on return. Where the file system has no such rename (some network file systems), a target made in
    the same instant may still be replaced.
    """
    if _rename_exclusively(path, target):
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    path.rename(target)


def kept_name(name: str, turn: int = 0) -> str:
    """The name for keeping a file: its own, cut to a length that leaves room, counted up where the name is taken."""
    raw = os.fsencode(name)
    if len(raw) > MAX_NAME:
        name = f"{os.fsdecode(raw[: MAX_NAME - 20])}-{hashlib.sha256(raw).hexdigest()[:16]}"
    if turn == 0:
        return name
    # Counting on for ever would cost a look for each of them.
    return f"{name}.{turn + 1}" if turn < 9 else f"{name}.{secrets.token_hex(8)}"


def shown(name: str) -> str:
    """A file name for logs and reasons: printable, whatever bytes it is made of."""
    return ascii(name)[1:-1]


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _rename_exclusively(path: Path, target: Path) -> bool:
    renameat2 = getattr(_libc(), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(path), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(path), None, str(target))
