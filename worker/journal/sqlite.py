"""Keeps the journal in a SQLite file.

One connection under one lock: SQLite has one writer at a time anyway, and every statement here touches a few rows by
an index. Nothing reads a whole table.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import orjson

from handlers.contract import PlanName
from worker.intake.wire import BackupRequest, RequestId
from worker.journal.database import open_database, transaction, translated
from worker.journal.protocol import Announcement, Attached, Beginning, Begun, Caller, Conflict, Entry, Known, Page
from worker.journal.rows import (
    SELECT_ENTRY,
    SELECT_OUTBOX,
    SELECT_RUNNABLE,
    SELECT_UNSENT,
    EntryRow,
    announcement_of,
    entry_of,
    moment,
    select_page,
    ticks,
)
from worker.journal.standing import EVERY, Standing
from worker.lifecycle import IllegalMove, State, move

PRUNE_ROWS = 1000
"""Forgotten in one transaction, so that a large prune does not keep others waiting."""
_AFTER_ALL = 2**63 - 1


class SqliteJournal:
    """A journal that survives kills, crashes and power cuts; any number of processes may share it."""

    def __init__(self, path: Path, *, busy_seconds: float = 5.0) -> None:
        """Open the file, made where missing (its directory is not).

        Raises JournalUnavailable, JournalDamaged, or PermanentError for a file that a newer version made.
        """
        self._path = path
        self._lock = threading.Lock()
        self._connection = open_database(path, busy_seconds=busy_seconds)

    def begin(self, request: BackupRequest, *, intake: str, redelivered: bool, now: datetime) -> Beginning:
        """Take a request in, or find it there."""
        with self._writing() as db:
            entry = _find(db, RequestId(request.request_id))
            if entry is None:
                return Begun(entry=_take_in(db, request, intake, now))
            if entry.request.content_digest != request.content_digest:
                return Conflict(entry=entry)
            if entry.outcome is not None:
                return Known(entry=entry)
            caller = Caller(reply_to=request.reply_to, correlation_id=request.correlation_id)
            if not (redelivered and _knows(db, entry, caller)):
                db.execute(
                    "INSERT INTO attachments (request_id, reply_to, correlation_id) VALUES (?, ?, ?)",
                    (request.request_id, caller.reply_to, caller.correlation_id),
                )
            return Attached(entry=entry)

    def begin_again(self, request: BackupRequest, *, instead_of: RequestId, intake: str, now: datetime) -> Entry:
        """Take in a request that asks for the same as one that has its outcome, which from then on names this one.

        Raises IllegalMove, with nothing changed, where that one has no outcome, where another request that is still
        known asked again for it, or where this request's id is taken.
        """
        with self._writing() as db:
            before = _get(db, instead_of)
            if before.outcome is None:
                raise IllegalMove(f"request {instead_of} is {before.state}: it has no outcome yet")
            if before.again is not None and _find(db, before.again) is not None:
                raise IllegalMove(f"request {instead_of} was asked again as {before.again}")
            if _find(db, RequestId(request.request_id)) is not None:
                raise IllegalMove(f"there is a request {request.request_id!r} already")
            db.execute("UPDATE requests SET again = ? WHERE request_id = ?", (request.request_id, instead_of))
            return _take_in(db, request, intake, now)

    def entry(self, request_id: RequestId) -> Entry | None:
        """The entry, if the request is known."""
        with self._reading() as db:
            return _find(db, request_id)

    def runnable(self, now: datetime, *, limit: int, busy: frozenset[PlanName] = frozenset()) -> Sequence[Entry]:
        """Unconcluded requests that may be worked on now, oldest first, without those of the plans in `busy`."""
        with self._reading() as db:
            rows = db.execute(SELECT_RUNNABLE, (ticks(now), _json(busy), max(limit, 0)))
            return [entry_of(row) for row in rows]

    def next_retry(self) -> datetime | None:
        """The earliest `retry_at` of an unconcluded request; None where none has one."""
        with self._reading() as db:
            (earliest,) = db.execute(
                "SELECT min(retry_at) FROM requests INDEXED BY waiting WHERE outcome IS NULL AND retry_at IS NOT NULL"
            ).fetchone()
        return None if earliest is None else moment(earliest)

    def unfinished(self) -> int:
        """How many requests are not concluded."""
        with self._reading() as db:
            count: int = db.execute("SELECT count(*) FROM requests WHERE outcome IS NULL").fetchone()[0]
        return count

    def attempt(self, request_id: RequestId, *, now: datetime) -> Entry:
        """Count one more try of the work; clears `retry_at`. Raises IllegalMove once the request is concluded."""
        with self._writing() as db:
            _unconcluded(_get(db, request_id))
            db.execute(
                "UPDATE requests SET attempt = attempt + 1, retry_at = NULL, updated = ? WHERE request_id = ?",
                (ticks(now), request_id),
            )
            return _get(db, request_id)

    def hand_back(self, request_id: RequestId, *, now: datetime) -> Entry:
        """Undo the count of `attempt`, not below 0; the state stays. Raises IllegalMove once it is concluded."""
        with self._writing() as db:
            _unconcluded(_get(db, request_id))
            db.execute(
                "UPDATE requests SET attempt = max(attempt - 1, 0), updated = ? WHERE request_id = ?",
                (ticks(now), request_id),
            )
            return _get(db, request_id)

    def advance(self, request_id: RequestId, to: State, *, now: datetime) -> Entry:
        """Record a new state. Raises IllegalMove where `worker.lifecycle` or only `conclude` allows it."""
        with self._writing() as db:
            state = move(_get(db, request_id).state, to)
            if state in {State.CONCLUDED, State.ANNOUNCED}:
                raise IllegalMove(f"a request gets {state} by its outcome and its events alone")
            _set_state(db, request_id, state, now)
            return _get(db, request_id)

    def postpone(self, request_id: RequestId, *, until: datetime, error: str, now: datetime) -> Entry:
        """Back to ACCEPTED (STORED and later stay), not to be begun before `until`."""
        with self._writing() as db:
            _put_off(db, request_id, until, error, now)
            db.execute("UPDATE requests SET waiting_since = NULL WHERE request_id = ?", (request_id,))
            return _get(db, request_id)

    def wait(self, request_id: RequestId, *, until: datetime, error: str, now: datetime) -> Entry:
        """Like `postpone`, but the attempt does not count; `waiting_since` tells when that happened first in a row."""
        with self._writing() as db:
            _put_off(db, request_id, until, error, now)
            db.execute(
                "UPDATE requests SET attempt = max(attempt - 1, 0), waiting_since = coalesce(waiting_since, ?)"
                " WHERE request_id = ?",
                (ticks(now), request_id),
            )
            return _get(db, request_id)

    def unfinished_of(self, plans: frozenset[PlanName]) -> int:
        """How many requests of these plans are not concluded."""
        with self._reading() as db:
            count: int = db.execute(
                "SELECT count(*) FROM requests INDEXED BY unconcluded"
                " WHERE outcome IS NULL AND plan IN (SELECT value FROM json_each(?))",
                (_json(plans),),
            ).fetchone()[0]
        return count

    def begin_now(self, *, now: datetime) -> None:
        """Let whatever waits for its next try be tried at once."""
        with self._writing() as db:
            db.execute(
                "UPDATE requests SET retry_at = ? WHERE outcome IS NULL AND retry_at > ?", (ticks(now), ticks(now))
            )

    def conclude(
        self,
        request_id: RequestId,
        *,
        outcome: bytes,
        announcements: Callable[[Sequence[Caller]], Sequence[Announcement]],
        now: datetime,
        idle: bool = False,
    ) -> Entry:
        """Fix the outcome and put its events in the outbox, in one step; straight to ANNOUNCED where there are none.

        `announcements` gets whoever attached, in that order; it must not call the journal, and when it raises, nothing
        has changed. With `idle`, raises IllegalMove where somebody may be working on the request.
        """
        with self._writing() as db:
            entry = _get(db, request_id)
            state = move(entry.state, State.CONCLUDED)
            if idle and entry.attempt and entry.retry_at is None:
                raise IllegalMove(f"attempt {entry.attempt} of request {request_id} has begun")
            _put_in_outbox(db, announcements(_attached(db, request_id)))
            db.execute("DELETE FROM attachments WHERE request_id = ?", (request_id,))
            if not _waits_for_events(db, request_id):
                state = move(state, State.ANNOUNCED)
            db.execute(
                "UPDATE requests SET state = ?, outcome = ?, retry_at = NULL, updated = ? WHERE request_id = ?",
                (state.value, outcome, ticks(now), request_id),
            )
            return _get(db, request_id)

    def announce(self, announcements: Sequence[Announcement], *, now: datetime) -> None:
        """Put events in the outbox that no entry's state depends on; one that is there already stays as it is."""
        with self._writing() as db:
            _put_in_outbox(db, announcements)

    def outbox(self, *, limit: int, skip: frozenset[str] = frozenset()) -> Sequence[Announcement]:
        """What is still to be sent, oldest first, leaving out the sinks in `skip`."""
        with self._reading() as db:
            rows = db.execute(SELECT_OUTBOX, (_json(skip), max(limit, 0)))
            return [announcement_of(row) for row in rows]

    def sent(self, event_id: str, sink: str, *, now: datetime) -> None:
        """Somebody took it; safe to repeat. When the last one of a request is taken, the request is ANNOUNCED."""
        with self._writing() as db:
            row = db.execute(
                "SELECT sequence, request_id FROM outbox WHERE event_id = ? AND sink = ?", (event_id, sink)
            ).fetchone()
            if row is None:
                return
            sequence, request_id = row
            db.execute("DELETE FROM outbox WHERE sequence = ?", (sequence,))
            entry = None if request_id is None else _find(db, request_id)
            if entry is not None and entry.state is State.CONCLUDED and not _waits_for_events(db, request_id):
                _set_state(db, request_id, move(entry.state, State.ANNOUNCED), now)

    def entries(self, *, limit: int) -> Sequence[Entry]:
        """The newest entries, newest first, for people."""
        with self._reading() as db:
            rows = db.execute(SELECT_ENTRY + " ORDER BY sequence DESC LIMIT ?", (max(limit, 0),))
            return [entry_of(row) for row in rows]

    def page(
        self,
        standings: frozenset[Standing] = EVERY,
        *,
        limit: int,
        plan: PlanName | None = None,
        before: int | None = None,
    ) -> Page:
        """Requests that stand so, newest first, from where an earlier page says on."""
        if limit <= 0 or not standings:
            return Page(entries=(), older=None)
        with self._reading() as db:
            rows = db.execute(
                select_page(standings),
                {"limit": limit, "plan": plan, "before": _AFTER_ALL if before is None else before},
            ).fetchall()
        older = rows[-1][0] if len(rows) == limit else None
        return Page(entries=[entry_of(row[1:]) for row in rows], older=older)

    def callers(self, request_id: RequestId, *, limit: int) -> Sequence[Caller]:
        """Who attached to an unconcluded request, in that order."""
        with self._reading() as db:
            return _attached(db, request_id, limit=max(limit, 0))

    def unsent(self, request_id: RequestId, *, limit: int) -> Sequence[Announcement]:
        """The events that the request waits for before it is ANNOUNCED, oldest first."""
        with self._reading() as db:
            rows = db.execute(SELECT_UNSENT, (request_id, max(limit, 0)))
            return [announcement_of(row) for row in rows]

    def prune(self, before: datetime) -> int:
        """Forget requests announced before then; says how many. If we die half way, the rest is for the next time."""
        forgotten = 0
        while True:
            with self._writing() as db:
                now_gone = db.execute(
                    "DELETE FROM requests WHERE sequence IN (SELECT sequence FROM requests"
                    " WHERE state = 'announced' AND updated < ? ORDER BY updated LIMIT ?)",
                    (ticks(before), PRUNE_ROWS),
                ).rowcount
            forgotten += now_gone
            if now_gone < PRUNE_ROWS:
                return forgotten

    def close(self) -> None:
        """Let go of the file; later calls are bugs."""
        with self._lock, translated(self._path):
            self._connection.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, translated(self._path), transaction(self._connection):
            yield self._connection

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, translated(self._path):
            yield self._connection


def _take_in(db: sqlite3.Connection, request: BackupRequest, intake: str, now: datetime) -> Entry:
    db.execute(
        "INSERT INTO requests (request_id, plan, backup_id, request, intake, state, accepted, updated)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            request.request_id,
            request.data.plan,
            request.backup_id,
            request.model_dump_json(),
            intake,
            State.ACCEPTED.value,
            ticks(now),
            ticks(now),
        ),
    )
    return _get(db, RequestId(request.request_id))


def _find(db: sqlite3.Connection, request_id: RequestId) -> Entry | None:
    row: EntryRow | None = db.execute(SELECT_ENTRY + " WHERE request_id = ?", (request_id,)).fetchone()
    return None if row is None else entry_of(row)


def _get(db: sqlite3.Connection, request_id: RequestId) -> Entry:
    entry = _find(db, request_id)
    if entry is None:
        raise LookupError(f"the journal knows no request {request_id!r}")
    return entry


def _unconcluded(entry: Entry) -> Entry:
    if entry.outcome is not None:
        raise IllegalMove(f"request {entry.request_id} is {entry.state}: there is nothing to work on")
    return entry


def _put_off(db: sqlite3.Connection, request_id: RequestId, until: datetime, error: str, now: datetime) -> None:
    entry = _unconcluded(_get(db, request_id))
    if entry.state is State.PRODUCED:
        _set_state(db, request_id, move(entry.state, State.ACCEPTED), now)
    # File names in messages may be no UTF-8, which SQLite does not take.
    text = error.encode("utf-8", "backslashreplace").decode()
    db.execute(
        "UPDATE requests SET retry_at = ?, last_error = ?, updated = ? WHERE request_id = ?",
        (ticks(until), text, ticks(now), request_id),
    )


def _set_state(db: sqlite3.Connection, request_id: RequestId, state: State, now: datetime) -> None:
    db.execute("UPDATE requests SET state = ?, updated = ? WHERE request_id = ?", (state.value, ticks(now), request_id))


def _knows(db: sqlite3.Connection, entry: Entry, caller: Caller) -> bool:
    first = Caller(reply_to=entry.request.reply_to, correlation_id=entry.request.correlation_id)
    return caller == first or caller in _attached(db, entry.request_id)


def _attached(db: sqlite3.Connection, request_id: RequestId, *, limit: int = -1) -> list[Caller]:
    rows = db.execute(
        "SELECT reply_to, correlation_id FROM attachments WHERE request_id = ? ORDER BY sequence LIMIT ?",
        (request_id, limit),
    )
    return [Caller(reply_to=reply_to, correlation_id=correlation_id) for reply_to, correlation_id in rows]


def _json(names: Iterable[str]) -> str:
    return orjson.dumps(list(names)).decode()


def _put_in_outbox(db: sqlite3.Connection, announcements: Sequence[Announcement]) -> None:
    db.executemany(
        "INSERT INTO outbox (event_id, sink, reply_to, correlation_id, request_id, body) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (event_id, sink) DO NOTHING",
        [
            (item.event_id, item.sink, item.caller.reply_to, item.caller.correlation_id, item.request_id, item.body)
            for item in announcements
        ],
    )


def _waits_for_events(db: sqlite3.Connection, request_id: RequestId) -> bool:
    row = db.execute("SELECT 1 FROM outbox WHERE request_id = ? LIMIT 1", (request_id,)).fetchone()
    return row is not None
