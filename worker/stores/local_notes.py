"""Keeps the notes of a local store, one file for each.

    <store>/.holdfast/notes/<plan>/<kind>/<name>     a note
    <store>/.holdfast/notes/<plan>/<kind>/.fresh.*   one that is being written, or that a dead writer left

One writer at a time, under the kernel's lock on `.lock` beside them, which dies with its process; readers need no lock,
for a note comes and is replaced by a rename. That asks no more of a file system than a backup set does: a USB disk
without hard links will do.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from handlers.contract import PlanName
from handlers.tools.atomic import fsync_directory, write_durable
from handlers.tools.lock import Lock
from worker.stores.disk_errors import require_root, translated
from worker.stores.names import is_harmless
from worker.stores.protocol import StoreUnavailable

FRESH_PREFIX = ".fresh."
"""No note's name begins with a dot, so nobody takes an unfinished one for a note."""
BUSY_SECONDS = 20.0
"""How long a writer waits for another one, which takes as long as the disk needs to make a few bytes durable."""
_LOCK = ".lock"
_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o400


class LocalNotes:
    """The notes below a store's directory; any thread, any number of processes."""

    def __init__(self, store: str, root: Path) -> None:
        """Touches nothing."""
        self._store = store
        self._root = root
        self._notes = root / ".holdfast" / "notes"

    def read(self, plan: PlanName, kind: str) -> dict[str, bytes]:
        """The notes of a kind; see `Store.notes`. What somebody else put among them is passed over."""
        require_root(self._store, self._root)
        directory = self._notes / plan / kind
        found: dict[str, bytes] = {}
        with translated(self._store, directory):
            for entry in _notes(directory):
                try:
                    found[entry.name] = Path(entry).read_bytes()
                except FileNotFoundError:
                    continue  # dropped in this moment
        return found

    def put(self, plan: PlanName, kind: str, name: str, content: bytes, *, replace: bool) -> bool:
        """Make a note; see `Store.put_note`."""
        require_root(self._store, self._root)
        directory = self._notes / plan / kind
        target = directory / name
        with translated(self._store, target):
            self._make(directory)
            with self._hold(directory):
                if target.exists() and not replace:
                    # Whoever made it may not be so far; our caller is to find it after a power cut, too.
                    fsync_directory(directory)
                    return False
                fresh = directory / f"{FRESH_PREFIX}{secrets.token_hex(8)}"
                try:
                    write_durable(fresh, content, mode=_FILE_MODE)
                    # If we die before this line, sweep removes the fresh file; after it, the note is there whole.
                    fresh.rename(target)
                except OSError:
                    # A full disk leaves half a file, which would keep the room that somebody needs to make.
                    fresh.unlink(missing_ok=True)
                    raise
                fsync_directory(directory)
        return True

    def drop(self, plan: PlanName, kind: str, name: str) -> None:
        """Remove a note; see `Store.drop_note`."""
        require_root(self._store, self._root)
        directory = self._notes / plan / kind
        with translated(self._store, directory / name):
            try:
                (directory / name).unlink(missing_ok=True)
                # Also where it is gone already: whoever removed it may have died before this line.
                fsync_directory(directory)
            except FileNotFoundError:
                return  # no note of this kind was ever made

    def plans(self) -> Iterator[PlanName]:
        """The plans that have a note of any kind."""
        require_root(self._store, self._root)
        with translated(self._store, self._notes):
            for plan in _directories(self._notes):
                if any(any(_notes(Path(kind))) for kind in _directories(Path(plan))):
                    yield PlanName(plan.name)

    def sweep(self) -> int:
        """Remove what dead writers left unfinished; says how many."""
        removed = 0
        with translated(self._store, self._notes):
            for plan in _directories(self._notes):
                for kind in _directories(Path(plan)):
                    removed += _remove_fresh(Path(kind))
        return removed

    def _make(self, directory: Path) -> None:
        for made in (self._notes.parent, self._notes, directory.parent, directory):
            made.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
        # Always, not only when they are new: whoever made them may have died before this line.
        for above in (directory.parent, self._notes, self._notes.parent, self._root):
            fsync_directory(above)

    def _hold(self, directory: Path) -> Lock:
        deadline = time.monotonic() + BUSY_SECONDS
        while (lock := Lock.try_hold(directory / _LOCK)) is None:
            if time.monotonic() >= deadline:
                raise StoreUnavailable(
                    f"store {self._store}: another process has been writing below {directory} for {BUSY_SECONDS:.0f} s",
                    hint="is the disk very slow, or a holdfast process stopped (state T in `ps`)?",
                )
            time.sleep(0.005)
        return lock


def _remove_fresh(directory: Path) -> int:
    fresh = [entry for entry in _entries(directory) if entry.name.startswith(FRESH_PREFIX)]
    lock = Lock.try_hold(directory / _LOCK) if fresh else None
    if lock is None:
        return 0
    with lock:
        # What was listed before we had the lock may be a note by now; what is still here has no living writer.
        for entry in fresh:
            Path(entry).unlink(missing_ok=True)
    return len(fresh)


def _notes(directory: Path) -> Iterator[os.DirEntry[str]]:
    return (entry for entry in _entries(directory) if is_harmless(entry.name) and entry.is_file(follow_symlinks=False))


def _directories(directory: Path) -> Iterator[os.DirEntry[str]]:
    return (entry for entry in _entries(directory) if is_harmless(entry.name) and entry.is_dir(follow_symlinks=False))


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
