"""What every journal promises: a request once begun is never forgotten, and has one outcome.

`tests/contract/test_journal.py` holds every journal to this. All methods are safe from any thread; every change is
durable on return.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from handlers.contract import BackupId, PlanName
from handlers.errors import PermanentError, TemporaryError
from worker.intake.wire import BackupRequest, RequestId
from worker.journal.standing import EVERY, Standing, standing
from worker.lifecycle import State


class JournalUnavailable(TemporaryError):
    """The journal cannot be written (disk full, locked for too long): nothing was promised."""


class JournalDamaged(PermanentError):
    """The journal cannot be read; the stores hold the truth, and it can be rebuilt from them."""

    exit_code = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody who waits for the outcome of a request."""

    reply_to: str | None = None
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One request and how far it is."""

    request: BackupRequest
    backup_id: BackupId
    intake: str
    state: State
    attempt: int
    """How often its work was begun, 0 before the first time."""
    accepted: datetime
    updated: datetime
    retry_at: datetime | None
    """Not to be begun before."""
    last_error: str | None
    outcome: bytes | None
    """The `data` of the outcome event as JSON, once concluded."""
    waiting_since: datetime | None = None
    """When it began to wait for what it has no share in, such as a store that is away."""
    again: RequestId | None = None
    """The request that asks for the same once more, where somebody did after this one had its outcome."""

    @property
    def request_id(self) -> RequestId:
        """The request's name, typed."""
        return RequestId(self.request.request_id)

    @property
    def plan(self) -> PlanName:
        """The plan's name, typed."""
        return PlanName(self.request.data.plan)

    @property
    def standing(self) -> Standing:
        """Where it stands, in few words."""
        return standing(self.outcome, asked_again=self.again is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """The request is new: it is ours now."""

    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """The same request is being worked on; this caller will be told when it is done."""

    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The same request has had its outcome before."""

    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Another request has this id; that one stands."""

    entry: Entry


Beginning = Begun | Attached | Known | Conflict


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A part of a long list, newest first."""

    entries: Sequence[Entry]
    older: int | None
    """Where the next page begins; None where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """One event on its way to one place."""

    event_id: str
    sink: str
    """Where to: `queue`, `spool`, or `reply`."""
    caller: Caller
    body: bytes
    request_id: RequestId | None
    """The request that stays unannounced until this one is taken; None where none waits for it."""
    sequence: int = 0
    """Given by the journal: the order in which to send."""


class Journal(Protocol):
    """What we promised and how far we got."""

    def begin(self, request: BackupRequest, *, intake: str, redelivered: bool, now: datetime) -> Beginning:
        """Take a request in, or find it there.

        Attached remembers the caller unless that caller is known already and `redelivered` is set: then it is the
        same delivery again, to be answered once.
        """

    def begin_again(self, request: BackupRequest, *, instead_of: RequestId, intake: str, now: datetime) -> Entry:
        """Take in a request that asks for the same as one that has its outcome, which from then on names this one.

        Raises IllegalMove, with nothing changed, where that one has no outcome, where another request that is still
        known asked again for it, or where this request's id is taken.
        """

    def entry(self, request_id: RequestId) -> Entry | None:
        """The entry, if the request is known."""

    def runnable(self, now: datetime, *, limit: int, busy: frozenset[PlanName] = frozenset()) -> Sequence[Entry]:
        """Unconcluded requests that may be worked on now, oldest first, without those of the plans in `busy`."""

    def next_retry(self) -> datetime | None:
        """The earliest `retry_at` of an unconcluded request; None where none has one."""

    def unfinished(self) -> int:
        """How many requests are not concluded."""

    def attempt(self, request_id: RequestId, *, now: datetime) -> Entry:
        """Count one more try of the work; clears `retry_at`."""

    def hand_back(self, request_id: RequestId, *, now: datetime) -> Entry:
        """Undo the count of `attempt`: the work was stopped because somebody asked, not because it failed."""

    def advance(self, request_id: RequestId, to: State, *, now: datetime) -> Entry:
        """Record a new state. Raises IllegalMove where `worker.lifecycle` does not allow it."""

    def postpone(self, request_id: RequestId, *, until: datetime, error: str, now: datetime) -> Entry:
        """Back to ACCEPTED (STORED and later stay), not to be begun before `until`."""

    def wait(self, request_id: RequestId, *, until: datetime, error: str, now: datetime) -> Entry:
        """Like `postpone`, but the attempt does not count; `waiting_since` tells when that happened first in a row."""

    def unfinished_of(self, plans: frozenset[PlanName]) -> int:
        """How many requests of these plans are not concluded."""

    def begin_now(self, *, now: datetime) -> None:
        """Let whatever waits for its next try be tried at once: what it waited for has changed."""

    def conclude(
        self,
        request_id: RequestId,
        *,
        outcome: bytes,
        announcements: Callable[[Sequence[Caller]], Sequence[Announcement]],
        now: datetime,
        idle: bool = False,
    ) -> Entry:
        """Fix the outcome and put its events in the outbox, in one step.

        `announcements` is called inside that step with whoever attached since the request began, so that no caller
        slips in between; straight to ANNOUNCED where it gives none. With `idle`, raises IllegalMove where somebody
        may be working on the request: an attempt has begun, and was not put off since.
        """

    def announce(self, announcements: Sequence[Announcement], *, now: datetime) -> None:
        """Put events in the outbox that no entry's state depends on; one that is there already stays as it is."""

    def outbox(self, *, limit: int, skip: frozenset[str] = frozenset()) -> Sequence[Announcement]:
        """What is still to be sent, oldest first, leaving out the sinks in `skip`."""

    def sent(self, event_id: str, sink: str, *, now: datetime) -> None:
        """Somebody took it. When the last one of a request is taken, the request is ANNOUNCED."""

    def entries(self, *, limit: int) -> Sequence[Entry]:
        """The newest entries, newest first, for people."""

    def page(
        self,
        standings: frozenset[Standing] = EVERY,
        *,
        limit: int,
        plan: PlanName | None = None,
        before: int | None = None,
    ) -> Page:
        """Requests that stand so, newest first, from where an earlier page says on."""

    def callers(self, request_id: RequestId, *, limit: int) -> Sequence[Caller]:
        """Who attached to an unconcluded request, in that order."""

    def unsent(self, request_id: RequestId, *, limit: int) -> Sequence[Announcement]:
        """The events that the request waits for before it is ANNOUNCED, oldest first."""

    def prune(self, before: datetime) -> int:
        """Forget requests announced before then; says how many. The stores still know what they made."""

    def close(self) -> None:
        """Let go of what is held open; later calls are bugs."""
