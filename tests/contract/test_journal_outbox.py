"""What every journal promises of outcomes and of the events that tell them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.workshop.journals import (
    ME,
    NOW,
    SECOND,
    asked,
    begun,
    callers,
    event,
    outbox_ids,
    say,
)
from worker.journal.protocol import Announcement, Caller, Journal
from worker.lifecycle import State


def test_the_outcome_and_its_events_are_fixed_together(journal: Journal) -> None:
    """The bytes come back as they were, in the order given."""
    request_id = begun(journal)
    journal.postpone(request_id, until=NOW + SECOND, error="e", now=NOW)
    events = [event("x", request_id=request_id), event("y", request_id=request_id)]

    entry = journal.conclude(request_id, outcome=b"\x00{}", announcements=say(*events), now=NOW + SECOND)

    assert (entry.state, entry.outcome, entry.retry_at) == (State.CONCLUDED, b"\x00{}", None)
    waiting = journal.outbox(limit=10)
    assert [(item.event_id, item.sink, item.caller, item.body, item.request_id) for item in waiting] == [
        ("x", "queue", ME, b"\x00x", request_id),
        ("y", "queue", ME, b"\x00y", request_id),
    ]
    assert waiting[0].sequence < waiting[1].sequence


def test_an_outcome_that_cannot_be_told_is_not_fixed(journal: Journal) -> None:
    """When making the events fails, nothing has changed, and whoever attached is still known."""
    request_id = begun(journal)
    journal.begin(asked(reply_to="answers", correlation_id="7"), intake="queue", redelivered=False, now=NOW)
    before = journal.entry(request_id)

    def fail(_: Sequence[Caller]) -> Sequence[Announcement]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        journal.conclude(request_id, outcome=b"{}", announcements=fail, now=NOW)

    assert journal.entry(request_id) == before
    assert callers(journal) == [ME]


def test_without_events_a_concluded_request_is_announced(journal: Journal) -> None:
    """There is nobody to tell; events that nothing waits for do not count."""
    request_id = begun(journal)

    entry = journal.conclude(request_id, outcome=b"{}", announcements=say(event("x", request_id=None)), now=NOW)

    assert entry.state is State.ANNOUNCED
    assert outbox_ids(journal) == "x"


def test_a_request_is_announced_when_its_last_event_is_taken(journal: Journal) -> None:
    """Not before; each place counts on its own."""
    request_id = begun(journal)
    events = [event("x", request_id=request_id), event("x", sink="spool", request_id=request_id), event("y")]
    journal.conclude(request_id, outcome=b"{}", announcements=say(*events), now=NOW)

    journal.sent("x", "queue", now=NOW + SECOND)
    between = journal.entry(request_id)
    journal.sent("x", "spool", now=NOW + 2 * SECOND)
    after = journal.entry(request_id)

    assert between is not None
    assert after is not None
    assert (between.state, after.state, after.updated) == (State.CONCLUDED, State.ANNOUNCED, NOW + 2 * SECOND)
    assert outbox_ids(journal) == "y"


def test_what_was_taken_twice_is_taken_once(journal: Journal) -> None:
    """The second confirmation, and one for an unknown event, change nothing."""
    journal.announce([event("x")], now=NOW)

    journal.sent("x", "queue", now=NOW)
    journal.sent("x", "queue", now=NOW)
    journal.sent("never", "queue", now=NOW)

    assert outbox_ids(journal) == ""


def test_an_event_of_a_running_request_does_not_end_it(journal: Journal) -> None:
    """That somebody took `started` says nothing about the outcome."""
    request_id = begun(journal)
    journal.announce([event("x", request_id=request_id)], now=NOW)

    journal.sent("x", "queue", now=NOW)

    entry = journal.entry(request_id)
    assert entry is not None
    assert entry.state is State.ACCEPTED


def test_an_event_that_waits_already_stays_as_it_is(journal: Journal) -> None:
    """A repeat neither doubles nor changes it, nor moves it to the end."""
    journal.announce([event("x"), event("y")], now=NOW)

    journal.announce([Announcement(event_id="x", sink="queue", caller=Caller(), body=b"!", request_id=None)], now=NOW)

    assert [(item.event_id, item.body) for item in journal.outbox(limit=9)] == [("x", b"\x00x"), ("y", b"\x00y")]


def test_the_outbox_comes_in_order_without_the_sinks_that_are_away(journal: Journal) -> None:
    """One dead sink holds up nobody else."""
    sinks = ["queue", "spool", "queue", "reply", "it's"]
    journal.announce([event(name, sink=sink) for name, sink in zip("abcde", sinks, strict=True)], now=NOW)

    assert outbox_ids(journal) == "abcde"
    assert outbox_ids(journal, limit=2) == "ab"
    assert outbox_ids(journal, limit=2, skip=frozenset({"queue"})) == "bd"
    assert outbox_ids(journal, skip=frozenset({"queue", "spool", "reply", "it's"})) == ""
