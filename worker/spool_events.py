"""Writes events into the spool, one file for each.

A file's name is made of the event alone, so sending an event again changes nothing. Described in `docs/spool.md`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import threading
import time
from datetime import UTC, timedelta
from pathlib import Path

from loguru import logger
from pydantic import AwareDatetime, BaseModel, ValidationError

from handlers.errors import PermanentError, TemporaryError
from handlers.tools.atomic import fsync_directory
from handlers.tools.clock import Clock, system_clock
from handlers.tools.lock import Lock
from worker.intake.spool_dirs import SpoolDirectories
from worker.intake.spool_ledger import Ledger
from worker.journal.protocol import Announcement

_BUSY_SECONDS = 0.01
_PATIENCE_SECONDS = 5.0
"""How long to wait for another process that sends the same event: it may be stopped, and our own end must not wait."""
_TIDY_SECONDS = 3600.0


class SpoolEvents:
    """Takes events for the readers of one spool; several workers may share it."""

    def __init__(self, path: Path, *, keep_events_days: float, clock: Clock = system_clock) -> None:
        """`path` is the spool; raises PermanentError where its directories cannot be made."""
        self._directories = SpoolDirectories(path)
        self._directories.prepare()
        self._keep = timedelta(days=keep_events_days)
        self._clock = clock
        self._ledger = Ledger(self._directories.events)
        self._mutex = threading.Lock()
        self._tidy_at = 0.0

    @property
    def name(self) -> str:
        """As announcements name it."""
        return "spool"

    def send(self, announcement: Announcement) -> None:
        """Write the event's file; on return it is durable. An event that is there already stays as it is.

        Raises TemporaryError while the disk refuses, PermanentError for what is no event.
        """
        name = event_file_name(announcement.event_id, announcement.body)
        try:
            with self._mutex:
                self._write(name, announcement.body)
                self._tidy()
        except OSError as error:
            raise TemporaryError(
                f"event {name} cannot be written into {self._directories.events}: {error.strerror or error}",
                hint="make room there, or let the worker's user write there",
            ) from error

    def close(self) -> None:
        """Nothing is held open."""

    def _write(self, name: str, body: bytes) -> None:
        events = self._directories.events
        target = events / name
        if not self._directories.complete:
            self._directories.make()
        if not target.exists():
            # One name for each event, so what a crash left of it is cleared here when it is sent again. Another process
            # of this host may be sending the same one just now: whoever has the lock writes.
            fresh = events / f".{name}.new"
            with self._hold(fresh) as lock:
                if target.exists():
                    lock.remove()
                else:
                    _fill(fresh, body)
                    self._ledger.record(name, fresh.lstat(), now=self._clock())
                    fresh.rename(target)
        fsync_directory(events)

    def _hold(self, fresh: Path) -> Lock:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (lock := Lock.try_hold(fresh)) is None:
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, "another process has been writing it for too long", str(fresh))
            time.sleep(_BUSY_SECONDS)
        return lock

    def _tidy(self) -> None:
        now = time.monotonic()
        if now < self._tidy_at:
            return
        self._tidy_at = now + _TIDY_SECONDS
        removed = self._ledger.tidy(keep=self._keep, now=self._clock())
        if removed:
            logger.info("spool_tidied", directory=str(self._directories.events), removed=removed)


def _fill(fresh: Path, body: bytes) -> None:
    with fresh.open("r+b") as file:
        file.truncate()
        file.write(body)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())


class _Data(BaseModel):
    request_id: str | None = None


class _Event(BaseModel):
    """As much of an event as its file name needs."""

    type: str
    time: AwareDatetime
    subject: str | None = None
    data: _Data = _Data()


def event_file_name(event_id: str, body: bytes) -> str:
    """`<time>-<outcome>-<plan>-<request>-<event>.json`: sorts by time, the same for the same event, safe in a shell.

    The ids are text from outside and enter as parts of their SHA-256. Raises PermanentError for what is no event.
    """
    try:
        event = _Event.model_validate_json(body)
    except ValidationError as error:
        raise PermanentError(f"event {event_id} is no event: {error.error_count()} fields are wrong") from error
    try:
        when = event.time.astimezone(UTC)
    except OverflowError as error:
        raise PermanentError(f"event {event_id} has an impossible time: {event.time}") from error
    request = request_mark(event.data.request_id) if event.data.request_id is not None else "none"
    return "-".join(
        (
            f"{when.year:04}{when:%m%dT%H%M%S.%fZ}",
            _harmless(event.type.rpartition(".")[2]),
            _harmless(event.subject or ""),
            request,
            _digest(event_id)[:32] + ".json",
        )
    )


def request_mark(request_id: str) -> str:
    """What the files of one request's events have in their names."""
    return _digest(request_id)[:16]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _harmless(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "_", text)[:64] or "none"
