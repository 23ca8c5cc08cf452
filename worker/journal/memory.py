"""Keeps the journal in memory, held to the same contract as the one on disk; tests work with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from handlers.contract import PlanName
from worker.intake.wire import BackupRequest, RequestId
from worker.journal.protocol import Announcement, Attached, Beginning, Begun, Caller, Conflict, Entry, Known, Page
from worker.journal.standing import EVERY, Standing
from worker.lifecycle import IllegalMove, State, move

_CONCLUDED = frozenset({State.CONCLUDED, State.ANNOUNCED})


class MemoryJournal:
    """A journal that lives as long as this object; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[RequestId, Entry] = {}
        """In the order in which they were accepted."""
        self._numbers: dict[RequestId, int] = {}
        self._callers: dict[RequestId, list[Caller]] = {}
        self._outbox: dict[tuple[str, str], Announcement] = {}
        """In the order in which to send."""
        self._sequence = 0
        self._last_number = 0

    def begin(self, request: BackupRequest, *, intake: str, redelivered: bool, now: datetime) -> Beginning:
        """Take a request in, or find it there."""
        with self._lock:
            entry = self._entries.get(RequestId(request.request_id))
            if entry is None:
                return Begun(entry=self._accept(request, intake, now))
            if entry.request.content_digest != request.content_digest:
                return Conflict(entry=entry)
            if entry.state in _CONCLUDED:
                return Known(entry=entry)
            caller = Caller(reply_to=request.reply_to, correlation_id=request.correlation_id)
            attached = self._callers[entry.request_id]
            first = Caller(reply_to=entry.request.reply_to, correlation_id=entry.request.correlation_id)
            if not redelivered or caller not in (first, *attached):
                attached.append(caller)
            return Attached(entry=entry)

    def begin_again(self, request: BackupRequest, *, instead_of: RequestId, intake: str, now: datetime) -> Entry:
        """Take in a request that asks for the same as one that has its outcome, which from then on names this one.

        Raises IllegalMove, with nothing changed, where that one has no outcome, where another request that is still
        known asked again for it, or where this request's id is taken.
        """
        with self._lock:
            before = self._get(instead_of)
            if before.outcome is None:
                raise IllegalMove(f"request {instead_of} is {before.state}: it has no outcome yet")
            if before.again in self._entries:
                raise IllegalMove(f"request {instead_of} was asked again as {before.again}")
            if request.request_id in self._entries:
                raise IllegalMove(f"there is a request {request.request_id!r} already")
            self._put(replace(before, again=RequestId(request.request_id)))
            return self._accept(request, intake, now)

    def entry(self, request_id: RequestId) -> Entry | None:
        """The entry, if the request is known."""
        with self._lock:
            return self._entries.get(request_id)

    def runnable(self, now: datetime, *, limit: int, busy: frozenset[PlanName] = frozenset()) -> Sequence[Entry]:
        """Unconcluded requests that may be worked on now, oldest first, without those of the plans in `busy`."""
        found: list[Entry] = []
        with self._lock:
            for entry in self._entries.values():
                if len(found) >= limit:
                    break
                due = entry.retry_at is None or entry.retry_at <= now
                if due and entry.state not in _CONCLUDED and entry.plan not in busy:
                    found.append(entry)
        return found

    def next_retry(self) -> datetime | None:
        """The earliest `retry_at` of an unconcluded request; None where none has one."""
        with self._lock:
            return min((entry.retry_at for entry in self._entries.values() if entry.retry_at is not None), default=None)

    def unfinished(self) -> int:
        """How many requests are not concluded."""
        with self._lock:
            return sum(entry.state not in _CONCLUDED for entry in self._entries.values())

    def attempt(self, request_id: RequestId, *, now: datetime) -> Entry:
        """Count one more try of the work; clears `retry_at`. Raises IllegalMove once the request is concluded."""
        with self._lock:
            entry = self._unconcluded(request_id)
            return self._put(replace(entry, attempt=entry.attempt + 1, retry_at=None, updated=now))

    def hand_back(self, request_id: RequestId, *, now: datetime) -> Entry:
        """Undo the count of `attempt`, not below 0; the state stays. Raises IllegalMove once it is concluded."""
        with self._lock:
            entry = self._unconcluded(request_id)
            return self._put(replace(entry, attempt=max(entry.attempt - 1, 0), updated=now))

    def advance(self, request_id: RequestId, to: State, *, now: datetime) -> Entry:
        """Record a new state. Raises IllegalMove where `worker.lifecycle` or only `conclude` allows it."""
        with self._lock:
            entry = self._get(request_id)
            state = move(entry.state, to)
            if state in _CONCLUDED:
                raise IllegalMove(f"a request gets {state} by its outcome and its events alone")
            return self._put(replace(entry, state=state, updated=now))

    def postpone(self, request_id: RequestId, *, until: datetime, error: str, now: datetime) -> Entry:
        """Back to ACCEPTED (STORED and later stay), not to be begun before `until`."""
        with self._lock:
            return self._put(replace(self._put_off(request_id, until, error, now), waiting_since=None))

    def wait(self, request_id: RequestId, *, until: datetime, error: str, now: datetime) -> Entry:
        """Like `postpone`, but the attempt does not count; `waiting_since` tells when that happened first in a row."""
        with self._lock:
            entry = self._put_off(request_id, until, error, now)
            since = entry.waiting_since or now
            return self._put(replace(entry, attempt=max(entry.attempt - 1, 0), waiting_since=since))

    def unfinished_of(self, plans: frozenset[PlanName]) -> int:
        """How many requests of these plans are not concluded."""
        with self._lock:
            return sum(entry.outcome is None and entry.plan in plans for entry in self._entries.values())

    def begin_now(self, *, now: datetime) -> None:
        """Let whatever waits for its next try be tried at once."""
        with self._lock:
            for entry in list(self._entries.values()):
                if entry.outcome is None and entry.retry_at is not None and entry.retry_at > now:
                    self._put(replace(entry, retry_at=now))

    def _put_off(self, request_id: RequestId, until: datetime, error: str, now: datetime) -> Entry:
        entry = self._unconcluded(request_id)
        state = move(entry.state, State.ACCEPTED) if entry.state is State.PRODUCED else entry.state
        text = error.encode("utf-8", "backslashreplace").decode()
        return replace(entry, state=state, retry_at=until, last_error=text, updated=now)

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
        with self._lock:
            entry = self._get(request_id)
            state = move(entry.state, State.CONCLUDED)
            if idle and entry.attempt and entry.retry_at is None:
                raise IllegalMove(f"attempt {entry.attempt} of request {request_id} has begun")
            self._put_in_outbox(announcements(tuple(self._callers[request_id])))
            self._callers[request_id].clear()
            if not self._waits_for_events(request_id):
                state = move(state, State.ANNOUNCED)
            return self._put(replace(entry, state=state, outcome=outcome, retry_at=None, updated=now))

    def announce(self, announcements: Sequence[Announcement], *, now: datetime) -> None:
        """Put events in the outbox that no entry's state depends on; one that is there already stays as it is."""
        with self._lock:
            self._put_in_outbox(announcements)

    def outbox(self, *, limit: int, skip: frozenset[str] = frozenset()) -> Sequence[Announcement]:
        """What is still to be sent, oldest first, leaving out the sinks in `skip`."""
        with self._lock:
            return [item for item in self._outbox.values() if item.sink not in skip][: max(limit, 0)]

    def sent(self, event_id: str, sink: str, *, now: datetime) -> None:
        """Somebody took it; safe to repeat. When the last one of a request is taken, the request is ANNOUNCED."""
        with self._lock:
            item = self._outbox.pop((event_id, sink), None)
            entry = None if item is None or item.request_id is None else self._entries.get(item.request_id)
            if entry is not None and entry.state is State.CONCLUDED and not self._waits_for_events(entry.request_id):
                self._put(replace(entry, state=move(entry.state, State.ANNOUNCED), updated=now))

    def entries(self, *, limit: int) -> Sequence[Entry]:
        """The newest entries, newest first, for people."""
        with self._lock:
            return list(reversed(self._entries.values()))[: max(limit, 0)]

    def page(
        self,
        standings: frozenset[Standing] = EVERY,
        *,
        limit: int,
        plan: PlanName | None = None,
        before: int | None = None,
    ) -> Page:
        """Requests that stand so, newest first, from where an earlier page says on."""
        with self._lock:
            found = [
                entry
                for entry in reversed(self._entries.values())
                if entry.standing in standings
                and plan in (None, entry.plan)
                and (before is None or self._numbers[entry.request_id] < before)
            ][: max(limit, 0)]
            full = found and len(found) == limit
            return Page(entries=found, older=self._numbers[found[-1].request_id] if full else None)

    def callers(self, request_id: RequestId, *, limit: int) -> Sequence[Caller]:
        """Who attached to an unconcluded request, in that order."""
        with self._lock:
            return self._callers.get(request_id, [])[: max(limit, 0)]

    def unsent(self, request_id: RequestId, *, limit: int) -> Sequence[Announcement]:
        """The events that the request waits for before it is ANNOUNCED, oldest first."""
        with self._lock:
            return [item for item in self._outbox.values() if item.request_id == request_id][: max(limit, 0)]

    def prune(self, before: datetime) -> int:
        """Forget requests announced before then; says how many."""
        with self._lock:
            old = [
                request_id
                for request_id, entry in self._entries.items()
                if entry.state is State.ANNOUNCED and entry.updated < before
            ]
            for request_id in old:
                del self._entries[request_id], self._callers[request_id], self._numbers[request_id]
            return len(old)

    def close(self) -> None:
        """Nothing is held open."""

    def _accept(self, request: BackupRequest, intake: str, now: datetime) -> Entry:
        entry = Entry(
            request=request,
            backup_id=request.backup_id,
            intake=intake,
            state=State.ACCEPTED,
            attempt=0,
            accepted=now,
            updated=now,
            retry_at=None,
            last_error=None,
            outcome=None,
        )
        self._callers[entry.request_id] = []
        self._last_number += 1
        self._numbers[entry.request_id] = self._last_number
        return self._put(entry)

    def _put(self, entry: Entry) -> Entry:
        self._entries[entry.request_id] = entry
        return entry

    def _get(self, request_id: RequestId) -> Entry:
        entry = self._entries.get(request_id)
        if entry is None:
            raise LookupError(f"the journal knows no request {request_id!r}")
        return entry

    def _unconcluded(self, request_id: RequestId) -> Entry:
        entry = self._get(request_id)
        if entry.state in _CONCLUDED:
            raise IllegalMove(f"request {request_id} is {entry.state}: there is nothing to work on")
        return entry

    def _put_in_outbox(self, announcements: Sequence[Announcement]) -> None:
        for item in announcements:
            key = (item.event_id, item.sink)
            if key not in self._outbox:
                self._sequence += 1
                self._outbox[key] = replace(item, sequence=self._sequence)

    def _waits_for_events(self, request_id: RequestId) -> bool:
        return any(item.request_id == request_id for item in self._outbox.values())
