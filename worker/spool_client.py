"""Speaks to a worker through its spool: puts a request in, follows what becomes of it."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

from handlers.errors import PermanentError, TemporaryError
from handlers.tools.atomic import fsync_directory, write_durable
from worker.intake.spool_dirs import SpoolDirectories
from worker.spool_events import request_mark

POLL_SECONDS = 1.0
"""How often to look for events that the kernel does not tell of."""


def submit(spool: Path, body: bytes, request_id: str) -> None:
    """Put a request into the spool; on return it is durable, and a worker will take it.

    Every call is a message of its own: one that waits is never replaced. Raises PermanentError where there is no spool
    or no permission, TemporaryError while the disk refuses; then nothing was submitted.
    """
    directories = SpoolDirectories(spool)
    name = f"{time.time_ns()}-{request_mark(request_id)}-{secrets.token_hex(8)}.json"
    draft, waiting = directories.tmp / name, directories.new / name
    try:
        try:
            write_durable(draft, body)
            # The worker may be another user, whatever our umask says; the spool itself keeps strangers out.
            draft.chmod(0o644)
            draft.rename(waiting)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        fsync_directory(directories.new)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PermanentError(
            f"there is no spool at {spool}: {error.filename} is missing",
            hint="a worker with the spool intake makes it when it starts",
        ) from error
    except PermissionError as error:
        raise PermanentError(
            f"spool {spool} may not be written: {error.filename}",
            hint="join the group that tmp/ and new/ belong to",
        ) from error
    except OSError as error:
        raise TemporaryError(f"spool {spool} cannot be written: {error.strerror or error}") from error


def follow(spool: Path, request_id: str, deadline_seconds: float | None = None) -> Iterator[bytes]:
    """The events of this request, those there are and those to come, each once and in the order of their time.

    Goes on until the caller stops or the deadline is over; None has none. Raises PermanentError where the events may
    not be read.
    """
    # Loads watchdog, which whoever only submits does not need.
    from worker.intake.hints import DirectoryHints

    events = SpoolDirectories(spool).events
    mark = f"-{request_mark(request_id)}-"
    end = None if deadline_seconds is None else time.monotonic() + deadline_seconds
    changed = threading.Event()
    hints = DirectoryHints(changed.set, scan_seconds=POLL_SECONDS)
    seen: set[str] = set()
    try:
        while True:
            changed.clear()
            hints.watch(events)
            for name in _unseen(events, mark, seen):
                seen.add(name)
                body = _read(events / name)
                if body is not None and _concerns(body, request_id):
                    yield body
            left = hints.patience if end is None else min(hints.patience, end - time.monotonic())
            if left <= 0:
                return
            changed.wait(left)
    finally:
        hints.close()


def _unseen(events: Path, mark: str, seen: set[str]) -> list[str]:
    try:
        with os.scandir(events) as entries:
            return sorted(
                entry.name
                for entry in entries
                if mark in entry.name and entry.name not in seen and not entry.name.startswith(".")
            )
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise PermanentError(
            f"events may not be read: {error.filename}", hint="join the group that events/ belongs to"
        ) from error


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None  # old enough to be removed, just now
    except PermissionError as error:
        raise PermanentError(
            f"events may not be read: {error.filename}", hint="join the group that events/ belongs to"
        ) from error


def _concerns(body: bytes, request_id: str) -> bool:
    try:
        event = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    data = event.get("data") if isinstance(event, dict) else None
    return isinstance(data, dict) and data.get("request_id") == request_id
