"""Requests, events and callers for the tests of journals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from handlers.contract import PlanName
from worker.intake.wire import BackupRequest, RequestData, RequestId
from worker.journal.protocol import Announcement, Caller, Journal

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ME = Caller(reply_to="answers", correlation_id="7")


def asked(
    name: str = "a", *, plan: str = "photos", reply_to: str | None = None, correlation_id: str | None = None
) -> BackupRequest:
    """A request of this name."""
    return BackupRequest(request_id=name, data=RequestData(plan=plan), reply_to=reply_to, correlation_id=correlation_id)


def begun(journal: Journal, name: str = "a", *, now: datetime = NOW) -> RequestId:
    """A request that the journal has just taken in."""
    journal.begin(asked(name), intake="queue", redelivered=False, now=now)
    return RequestId(name)


def event(name: str, *, sink: str = "queue", request_id: RequestId | None = None) -> Announcement:
    """An event for the outbox."""
    return Announcement(event_id=name, sink=sink, caller=ME, body=b"\x00" + name.encode(), request_id=request_id)


def say(*events: Announcement) -> Callable[[Sequence[Caller]], Sequence[Announcement]]:
    """These events, whoever attached."""
    return lambda _: events


nothing = say()


def callers(journal: Journal, name: str = "a") -> list[Caller]:
    """Whoever attached, as the conclusion tells; the request is concluded by it."""
    told: list[Caller] = []

    def remember(attached: Sequence[Caller]) -> Sequence[Announcement]:
        told.extend(attached)
        return []

    journal.conclude(RequestId(name), outcome=b"{}", announcements=remember, now=NOW)
    return told


def runnable_ids(journal: Journal, *, now: datetime = NOW, limit: int = 100, busy: frozenset[str] = frozenset()) -> str:
    """The ids that may be worked on, joined."""
    entries = journal.runnable(now, limit=limit, busy=frozenset(PlanName(name) for name in busy))
    return "".join(entry.request_id for entry in entries)


def outbox_ids(journal: Journal, *, limit: int = 100, skip: frozenset[str] = frozenset()) -> str:
    """The ids of the events to send, joined."""
    return "".join(item.event_id for item in journal.outbox(limit=limit, skip=skip))
