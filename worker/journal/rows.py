"""How a journal entry lies in its table.

Pure. Times are whole microseconds since 1970, UTC; the request is the JSON of `BackupRequest`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from handlers.contract import BackupId
from worker.intake.wire import BackupRequest, RequestId
from worker.journal.protocol import Announcement, Caller, Entry, JournalDamaged
from worker.journal.standing import ENDED_SQL, EVERY, Standing
from worker.lifecycle import State

VERSION = 2
"""Of the tables, kept in the file as `PRAGMA user_version`."""
APPLICATION_ID = 0x48464A4C
"""Marks the file as ours ("HFJL"), kept in the file as `PRAGMA application_id`."""

# The tables of version 1; UPGRADES brings them, and every file that an older version made, to the present one.
# Whether two requests are the same is asked of the requests, not of a stored digest: a digest made by another version,
# which knew other fields, would turn a redelivery into a conflict.
SCHEMA = """
CREATE TABLE requests (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id TEXT NOT NULL UNIQUE,
    plan TEXT NOT NULL,
    backup_id TEXT NOT NULL,
    request TEXT NOT NULL,
    intake TEXT NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    accepted INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    retry_at INTEGER,
    last_error TEXT,
    outcome BLOB
);
CREATE INDEX unconcluded ON requests (sequence, retry_at, plan) WHERE outcome IS NULL;
CREATE INDEX waiting ON requests (retry_at) WHERE outcome IS NULL AND retry_at IS NOT NULL;
CREATE INDEX announced ON requests (updated) WHERE state = 'announced';
CREATE TABLE attachments (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id TEXT NOT NULL REFERENCES requests (request_id) ON DELETE CASCADE,
    reply_to TEXT,
    correlation_id TEXT
);
CREATE INDEX attachments_of ON attachments (request_id);
CREATE TABLE outbox (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL,
    sink TEXT NOT NULL,
    reply_to TEXT,
    correlation_id TEXT,
    request_id TEXT,
    body BLOB NOT NULL,
    UNIQUE (event_id, sink)
);
CREATE INDEX outbox_of ON outbox (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX outbox_order ON outbox (sequence, sink);
"""

UPGRADES = {
    # The index holds only what went wrong: it costs nothing while all is well, and listing that is what people do.
    1: (
        "ALTER TABLE requests ADD COLUMN again TEXT",
        "ALTER TABLE requests ADD COLUMN waiting_since INTEGER",
        f"""CREATE INDEX ended_badly ON requests ({ENDED_SQL}, sequence, plan)
            WHERE outcome IS NOT NULL AND {ENDED_SQL} <> 'done'""",
    ),
}
"""What makes the next version of each, one statement after the other."""

_COLUMNS = (
    "backup_id, request, intake, state, attempt, accepted, updated, retry_at, last_error, outcome, again,"
    " waiting_since, request_id"
)
SELECT_ENTRY = f"SELECT {_COLUMNS} FROM requests"  # noqa: S608 - constants alone
# The inner queries run on an index alone: what waits for its time, its plan or its sink is passed over unread.
SELECT_RUNNABLE = f"""
    SELECT {_COLUMNS} FROM requests WHERE sequence IN (
        SELECT sequence FROM requests INDEXED BY unconcluded
        WHERE outcome IS NULL AND (retry_at IS NULL OR retry_at <= ?)
        AND plan NOT IN (SELECT value FROM json_each(?)) ORDER BY sequence LIMIT ?
    ) ORDER BY sequence
"""  # noqa: S608 - constants alone
EntryRow = tuple[str, str, str, str, int, int, int, int | None, str | None, bytes | None, str | None, int | None, str]

_PART = "sequence < :before AND (:plan IS NULL OR plan = :plan) ORDER BY sequence DESC LIMIT :limit"
_ENDED_BADLY = f"""
    SELECT sequence FROM requests INDEXED BY ended_badly WHERE outcome IS NOT NULL AND {ENDED_SQL} <> 'done'
"""  # noqa: S608 - constants alone
_PAGE_OF = {
    Standing.UNFINISHED: f"""
        SELECT sequence FROM requests INDEXED BY unconcluded WHERE outcome IS NULL AND {_PART}
    """,  # noqa: S608
    # Most are of this kind: the newest are soon found without an index.
    Standing.DONE: f"""
        SELECT sequence FROM requests WHERE outcome IS NOT NULL AND {ENDED_SQL} = 'done' AND {_PART}
    """,  # noqa: S608
    Standing.FAILED: f"{_ENDED_BADLY} AND {ENDED_SQL} = 'failed' AND {_PART}",
    Standing.PARKED: f"{_ENDED_BADLY} AND {ENDED_SQL} = 'parked' AND {_PART}",
}


def select_page(standings: frozenset[Standing]) -> str:
    """The query for a page: at most `limit` of each standing are looked up, then the newest of them are read.

    Its rows are a number to go on before, then those of SELECT_ENTRY.
    """
    if standings == EVERY:
        numbers = f"SELECT sequence FROM requests WHERE {_PART}"  # noqa: S608 - constants alone
    else:
        parts = (f"SELECT sequence FROM ({_PAGE_OF[one]})" for one in Standing if one in standings)  # noqa: S608
        numbers = " UNION ALL ".join(parts) + " ORDER BY sequence DESC LIMIT :limit"
    return f"SELECT sequence, {_COLUMNS} FROM requests WHERE sequence IN ({numbers}) ORDER BY sequence DESC"  # noqa: S608


SELECT_OUTBOX = """
    SELECT event_id, sink, reply_to, correlation_id, body, request_id, sequence FROM outbox WHERE sequence IN (
        SELECT sequence FROM outbox INDEXED BY outbox_order
        WHERE sink NOT IN (SELECT value FROM json_each(?)) ORDER BY sequence LIMIT ?
    ) ORDER BY sequence
"""
SELECT_UNSENT = """
    SELECT event_id, sink, reply_to, correlation_id, body, request_id, sequence FROM outbox
    WHERE request_id = ? ORDER BY sequence LIMIT ?
"""
OutboxRow = tuple[str, str, str | None, str | None, bytes, str | None, int]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)


def ticks(moment: datetime) -> int:
    """An aware moment as whole microseconds since 1970."""
    return (moment - _EPOCH) // _TICK


def moment(count: int) -> datetime:
    """The moment that `ticks` counted, in UTC."""
    return _EPOCH + count * _TICK


def entry_of(row: EntryRow) -> Entry:
    """The entry in a row of SELECT_ENTRY. Raises JournalDamaged."""
    backup_id, request, intake, state, attempt, accepted, updated, retry_at, last_error, outcome = row[:10]
    again, waiting_since, name = row[10:]
    try:
        return Entry(
            request=BackupRequest.model_validate_json(request),
            backup_id=BackupId(backup_id),
            intake=intake,
            state=State(state),
            attempt=attempt,
            accepted=moment(accepted),
            updated=moment(updated),
            retry_at=None if retry_at is None else moment(retry_at),
            last_error=last_error,
            outcome=outcome,
            again=None if again is None else RequestId(again),
            waiting_since=None if waiting_since is None else moment(waiting_since),
        )
    except (ValidationError, ValueError) as error:
        raise JournalDamaged(
            f"the journal's entry for request {name} cannot be read",
            hint="a newer holdfast may have written it; otherwise move the journal away: the stores know every backup",
        ) from error


def announcement_of(row: OutboxRow) -> Announcement:
    """The announcement in a row of SELECT_OUTBOX."""
    event_id, sink, reply_to, correlation_id, body, request_id, sequence = row
    return Announcement(
        event_id=event_id,
        sink=sink,
        caller=Caller(reply_to=reply_to, correlation_id=correlation_id),
        body=body,
        request_id=None if request_id is None else RequestId(request_id),
        sequence=sequence,
    )
