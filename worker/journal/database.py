"""Opens the journal's SQLite file so that what is committed stays committed.

WAL with `synchronous=FULL`: every commit is fsynced before it returns, readers never wait for a writer. Other processes
may have the same file open. The file must be on a local disk: WAL needs shared memory.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from handlers.errors import HoldfastError, PermanentError
from handlers.tools.atomic import fsync_directory
from worker.journal.protocol import JournalDamaged, JournalUnavailable
from worker.journal.rows import APPLICATION_ID, SCHEMA, UPGRADES, VERSION

WAL_BYTES = 64 << 20
"""The write-ahead log is cut back to this after a burst."""

_HINTS = {
    sqlite3.SQLITE_FULL: "make room on its disk; what was accepted before is safe",
    sqlite3.SQLITE_BUSY: "another process has held it for too long: look for a stuck holdfast",
    sqlite3.SQLITE_LOCKED: "another process has held it for too long: look for a stuck holdfast",
    sqlite3.SQLITE_READONLY: "the user that runs holdfast must own the file, on a file system mounted read-write",
    sqlite3.SQLITE_PERM: "the user that runs holdfast must own the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "its directory must exist and belong to the user that runs holdfast",
    sqlite3.SQLITE_IOERR: "look at its disk: in the kernel's log, for room, for its health",
}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_MOVE_AWAY = "move it away with its -wal and -shm files: a new one is made, and the stores know every backup"


def journal_error(error: sqlite3.Error, path: Path) -> HoldfastError | None:
    """The journal's word for this error; None where it can only be a bug."""
    # The low byte is the kind, the others tell details. Errors of the Python module itself have no code.
    kind = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if kind in _DAMAGED:
        return JournalDamaged(f"the journal {path} is damaged: {error}", hint=_MOVE_AWAY)
    if kind in _HINTS:
        return JournalUnavailable(f"the journal {path} cannot be used: {error}", hint=_HINTS[kind])
    return None


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raises JournalUnavailable or JournalDamaged in place of SQLite's errors; bugs stay what they are."""
    try:
        yield
    except sqlite3.Error as error:
        known = journal_error(error, path)
        if known is None:
            raise
        raise known from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All changes or none; they are durable on return. Waits for other writers, at most the connection's busy time."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A failed COMMIT may have ended the transaction by itself, and a full disk can make ROLLBACK fail, too: then
        # the connection's next BEGIN does it.
        with suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise


def open_database(path: Path, *, busy_seconds: float) -> sqlite3.Connection:
    """The connection, its tables there and durable; usable from any thread, by one at a time.

    Raises JournalUnavailable, JournalDamaged, or PermanentError for a file that a newer version made.
    """
    try:
        # SQLite gives its -wal and -shm files the mode of this one.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise JournalUnavailable(
            f"the journal {path} cannot be opened: {error.strerror}",
            hint="its directory must exist, with room, and belong to the user that runs holdfast",
        ) from error
    with translated(path):
        connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
        try:
            _use_wal(connection, busy_seconds)
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES}")
            with transaction(connection):
                _make_tables(connection, path)
            fsync_directory(path.parent)
        except BaseException:
            connection.close()
            raise
    return connection


def _use_wal(connection: sqlite3.Connection, busy_seconds: float) -> None:
    # The switch does not wait for others as transactions do: two processes that open a new file at once meet here.
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise JournalUnavailable(
            f"the journal's file system does not allow a write-ahead log (mode {mode})",
            hint="put the journal on a local disk; network file systems lack shared memory",
        )


def _make_tables(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    owner = connection.execute("PRAGMA application_id").fetchone()[0]
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if not empty and owner != APPLICATION_ID:
        raise JournalDamaged(f"{path} is a database, but no journal", hint="name another file for the journal")
    if version > VERSION:
        raise PermanentError(
            f"the journal {path} has version {version}, this holdfast knows versions up to {VERSION}",
            hint="a newer holdfast made it: install that one again, or give this one a journal of its own",
        )
    if empty:
        for statement in SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        version = 1
    for earlier in range(version, VERSION):
        for statement in UPGRADES[earlier]:
            connection.execute(statement)
    if version < VERSION:
        connection.execute(f"PRAGMA user_version={VERSION}")
