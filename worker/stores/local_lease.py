"""Keeps the lease records of a local store, one file for each set that somebody makes.

    <store>/.holdfast/leases/<plan>/<backup_id>    the record; an empty file is none

A change is made under the kernel's lock on the file, which dies with its process. Nothing is fsynced: the power cut
that takes a record takes its holder as well, or the holder finds that it is gone. So the lock is held for microseconds
only, and a process that is stopped (SIGSTOP, a frozen machine) hardly ever keeps others from the file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from handlers.contract import BackupId, PlanName
from handlers.tools.lock import Lock
from worker.stores.disk_errors import require_root, translated
from worker.stores.names import checked_set
from worker.stores.protocol import SetName

ABANDONED_SECONDS = 30 * 86_400
"""The file of a holder that lives is minutes old. Even a clock that is a month wrong costs no more than some work."""
_DIRECTORY_MODE = 0o700
_BUSY_SECONDS = 1.0
"""How long a change waits for another one, which takes no time unless its process is stopped in the middle."""


class LocalLeases:
    """The lease records below a store's directory; any thread, any number of processes."""

    def __init__(self, store: str, root: Path) -> None:
        """Touches nothing."""
        self._store = store
        self._root = root
        self._leases = root / ".holdfast" / "leases"

    def read(self, name: SetName) -> bytes | None:
        """The record, None where there is none; see `Store.read_lease`.

        Reads without the lock: what is seen in the middle of a change is no record that `swap` would take for the old.
        """
        path = self._path(name)
        with translated(self._store, path):
            try:
                return path.read_bytes() or None
            except FileNotFoundError:
                require_root(self._store, self._root)
                return None

    def swap(self, name: SetName, old: bytes | None, new: bytes | None) -> bool:
        """Replace the record where it is exactly `old`; see `Store.swap_lease`."""
        path = self._path(name)
        with translated(self._store, path):
            lock = self._hold(path, make=old is None)
            if lock is None:
                return False
            with lock:
                content = path.read_bytes() or None
                if content == old and new is not None:
                    _write(lock, new, fresh=content is None)
                elif content == old or content is None:
                    # Without a record the file is of no use; it may be there only because we opened it.
                    lock.remove()
                return content == old

    def sweep(self, is_committed: Callable[[SetName], bool]) -> int:
        """Remove the records of committed sets, empty ones, and those that nobody touched for a month.

        Whoever has the lease of a committed set has nothing to gain from it. Says how many.
        """
        removed = 0
        for name in self._names():
            path = self._path(name)
            with translated(self._store, path):
                lock = Lock.try_hold(path)
                if lock is None:
                    continue
                with lock:
                    found = path.stat()
                    if found.st_size == 0 or is_committed(name) or time.time() - found.st_mtime > ABANDONED_SECONDS:
                        lock.remove()
                        removed += 1
        return removed

    def _path(self, name: SetName) -> Path:
        return self._leases / name.plan / name.backup_id

    def _hold(self, path: Path, *, make: bool) -> Lock | None:
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                lock = Lock.try_hold(path)
            except FileNotFoundError:
                require_root(self._store, self._root)
                if not make:
                    return None
                for directory in (self._leases.parent, self._leases, path.parent):
                    directory.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
                continue
            if lock is not None or time.monotonic() >= deadline:
                return lock
            time.sleep(0.005)

    def _names(self) -> Iterator[SetName]:
        with translated(self._store, self._leases):
            for plan in _entries(self._leases):
                for file in _entries(self._leases / plan.name) if plan.is_dir(follow_symlinks=False) else ():
                    name = SetName(plan=PlanName(plan.name), backup_id=BackupId(file.name))
                    if file.is_file(follow_symlinks=False) and _is_harmless(name):
                        yield name


def _write(lock: Lock, record: bytes, *, fresh: bool) -> None:
    # In place, so that a beat needs no room on a full disk; not emptied first, so that no reader takes it for free.
    try:
        with lock.path.open("r+b") as file:
            file.write(record)
            file.truncate()
    except OSError:
        if fresh:
            lock.remove()
        raise


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _is_harmless(name: SetName) -> bool:
    try:
        checked_set(name)
    except ValueError:
        return False
    return True
