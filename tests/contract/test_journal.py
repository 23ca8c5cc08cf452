"""What every journal promises, held against each of them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from tests.workshop.journals import (
    ME,
    NOW,
    SECOND,
    asked,
    begun,
    callers,
    event,
    nothing,
    outbox_ids,
    runnable_ids,
    say,
)
from worker.intake.wire import BackupRequest, RequestData, RequestId
from worker.journal.protocol import Attached, Begun, Caller, Conflict, Entry, Journal, Known
from worker.lifecycle import IllegalMove, State


def test_a_new_request_is_begun(journal: Journal) -> None:
    """Everything about it is there, in the answer as in the journal."""
    request = asked(reply_to="answers", correlation_id="7")

    beginning = journal.begin(request, intake="spool", redelivered=True, now=NOW)

    expected = Entry(
        request=request,
        backup_id=request.backup_id,
        intake="spool",
        state=State.ACCEPTED,
        attempt=0,
        accepted=NOW,
        updated=NOW,
        retry_at=None,
        last_error=None,
        outcome=None,
    )
    assert beginning == Begun(entry=expected)
    assert journal.entry(RequestId("a")) == expected


def test_a_request_with_every_field_comes_back_as_it_was(journal: Journal) -> None:
    """Labels, deadlines in other time zones and non-ASCII text survive."""
    data = RequestData(
        plan="photos",
        level=3,
        reason="vor dem Umzug \N{SNOWMAN}",
        labels={"who": "Zoë\x00"},
        not_after=datetime(2026, 1, 1, 3, tzinfo=timezone(timedelta(hours=2))),
        reply_to="q",
    )
    request = BackupRequest(request_id="/svc/é 7", data=data, reply_to="q", correlation_id="c")

    journal.begin(request, intake="queue", redelivered=False, now=NOW)

    entry = journal.entry(RequestId("/svc/é 7"))
    assert entry is not None
    assert entry.request == request
    assert entry.request.content_digest == request.content_digest


def test_an_unknown_request_has_no_entry(journal: Journal) -> None:
    """Asking changes nothing."""
    assert journal.entry(RequestId("nobody")) is None
    assert journal.unfinished() == 0


def test_the_same_request_attaches_while_it_is_being_worked_on(journal: Journal) -> None:
    """Nothing new is begun; the new caller is remembered."""
    request_id = begun(journal)
    journal.advance(request_id, State.STORED, now=NOW)

    beginning = journal.begin(
        asked(reply_to="answers", correlation_id="7"), intake="spool", redelivered=False, now=NOW + SECOND
    )

    assert isinstance(beginning, Attached)
    assert beginning.entry.state is State.STORED
    assert beginning.entry.intake == "queue"
    assert journal.unfinished() == 1
    assert callers(journal) == [ME]


@pytest.mark.parametrize("delivery", ["of the first caller", "of one who attached"])
def test_a_redelivery_of_a_known_caller_is_not_remembered_twice(journal: Journal, delivery: str) -> None:
    """It is the same delivery again, and is answered once."""
    first = asked(reply_to="first", correlation_id="1")
    second = asked(reply_to="second", correlation_id=None)
    journal.begin(first, intake="queue", redelivered=False, now=NOW)
    journal.begin(second, intake="queue", redelivered=False, now=NOW)

    again = first if delivery == "of the first caller" else second
    beginning = journal.begin(again, intake="queue", redelivered=True, now=NOW)

    assert isinstance(beginning, Attached)
    assert callers(journal) == [Caller(reply_to="second")]


def test_a_redelivery_of_an_unknown_caller_is_remembered(journal: Journal) -> None:
    """Its first delivery may have died before it was written down."""
    begun(journal)

    journal.begin(asked(reply_to="answers", correlation_id="7"), intake="queue", redelivered=True, now=NOW)

    assert callers(journal) == [ME]


def test_a_caller_who_asks_twice_is_answered_twice(journal: Journal) -> None:
    """Two deliveries that are no redeliveries are two callers, even of the same name."""
    begun(journal)

    for _ in range(2):
        journal.begin(asked(reply_to="answers", correlation_id="7"), intake="queue", redelivered=False, now=NOW)

    assert callers(journal) == [ME, ME]


@pytest.mark.parametrize("announced", [False, True])
def test_a_request_with_an_outcome_is_known(journal: Journal, announced: bool) -> None:
    """Nothing is stored: no caller, no new state."""
    request_id = begun(journal)
    events = [] if announced else [event("x", request_id=request_id)]
    entry = journal.conclude(request_id, outcome=b"{}", announcements=say(*events), now=NOW)

    beginning = journal.begin(asked(reply_to="late"), intake="queue", redelivered=False, now=NOW + SECOND)

    assert beginning == Known(entry=entry)
    assert journal.entry(request_id) == entry


@pytest.mark.parametrize("concluded", [False, True])
def test_another_request_of_the_same_id_is_a_conflict(journal: Journal, concluded: bool) -> None:
    """The first one stands, unchanged."""
    request_id = begun(journal)
    if concluded:
        journal.conclude(request_id, outcome=b"{}", announcements=nothing, now=NOW)
    before = journal.entry(request_id)

    beginning = journal.begin(asked(plan="letters"), intake="spool", redelivered=True, now=NOW + SECOND)

    assert isinstance(beginning, Conflict)
    assert beginning.entry == before
    assert journal.entry(request_id) == before
    if not concluded:
        assert callers(journal) == []


def test_where_the_answer_goes_is_no_conflict(journal: Journal) -> None:
    """Two callers may ask for the same thing."""
    begun(journal)
    data = RequestData(plan="photos", reply_to="elsewhere")

    beginning = journal.begin(
        BackupRequest(request_id="a", data=data, reply_to="elsewhere"), intake="queue", redelivered=False, now=NOW
    )

    assert isinstance(beginning, Attached)


def test_runnable_requests_come_in_the_order_of_their_acceptance(journal: Journal) -> None:
    """Also when the clock went back between them."""
    for number, name in enumerate("cabd"):
        begun(journal, name, now=NOW - number * SECOND)

    assert runnable_ids(journal) == "cabd"
    assert runnable_ids(journal, limit=2) == "ca"
    assert runnable_ids(journal, limit=0) == ""


def test_requests_of_busy_plans_wait(journal: Journal) -> None:
    """A long queue of one plan holds up no other plan."""
    for name, plan in zip("abcd", ["photos", "photos", "letters", "music"], strict=True):
        journal.begin(asked(name, plan=plan), intake="queue", redelivered=False, now=NOW)

    assert runnable_ids(journal, limit=1, busy=frozenset({"photos"})) == "c"
    assert runnable_ids(journal, busy=frozenset({"letters", "music"})) == "ab"


@pytest.mark.parametrize("state", [State.ACCEPTED, State.PRODUCED, State.STORED, State.VERIFIED])
def test_whatever_is_not_concluded_can_be_worked_on(journal: Journal, state: State) -> None:
    """A request in any state before its outcome goes on after a restart."""
    request_id = begun(journal)
    if state is not State.ACCEPTED:
        journal.advance(request_id, state, now=NOW)

    assert runnable_ids(journal) == "a"
    assert journal.unfinished() == 1


def test_a_concluded_request_is_not_worked_on(journal: Journal) -> None:
    """Neither while its events wait, nor after."""
    for name in "ab":
        begun(journal, name)
    journal.conclude(RequestId("a"), outcome=b"1", announcements=say(event("x", request_id=RequestId("a"))), now=NOW)
    journal.conclude(RequestId("b"), outcome=b"2", announcements=nothing, now=NOW)

    assert runnable_ids(journal) == ""
    assert journal.unfinished() == 0


def test_an_attempt_is_counted(journal: Journal) -> None:
    """Twice begun, two attempts; the time is noted."""
    request_id = begun(journal)

    journal.attempt(request_id, now=NOW)
    entry = journal.attempt(request_id, now=NOW + SECOND)

    assert (entry.attempt, entry.updated, entry.accepted) == (2, NOW + SECOND, NOW)
    assert journal.entry(request_id) == entry


def test_a_request_that_was_handed_back_was_not_tried(journal: Journal) -> None:
    """The count goes back by one, never below none; the state stays."""
    request_id = begun(journal)
    journal.attempt(request_id, now=NOW)
    journal.attempt(request_id, now=NOW)
    journal.advance(request_id, State.STORED, now=NOW)

    counts = [journal.hand_back(request_id, now=NOW + SECOND).attempt for _ in range(3)]

    entry = journal.entry(request_id)
    assert entry is not None
    assert counts == [1, 0, 0]
    assert (entry.state, entry.updated) == (State.STORED, NOW + SECOND)


def test_a_postponed_request_waits_until_its_time(journal: Journal) -> None:
    """Not runnable before, runnable from that instant on; the reason is kept."""
    request_id = begun(journal)

    entry = journal.postpone(request_id, until=NOW + SECOND, error="store full", now=NOW)

    assert (entry.retry_at, entry.last_error, entry.state) == (NOW + SECOND, "store full", State.ACCEPTED)
    assert runnable_ids(journal, now=NOW + SECOND - timedelta(microseconds=1)) == ""
    assert runnable_ids(journal, now=NOW + SECOND) == "a"
    assert journal.next_retry() == NOW + SECOND


def test_an_attempt_ends_the_waiting(journal: Journal) -> None:
    """The error stays for people to read, the date goes."""
    request_id = begun(journal)
    journal.postpone(request_id, until=NOW + SECOND, error="store full", now=NOW)

    entry = journal.attempt(request_id, now=NOW + SECOND)

    assert (entry.retry_at, entry.last_error) == (None, "store full")
    assert journal.next_retry() is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (State.PRODUCED, State.ACCEPTED),
        (State.STORED, State.STORED),
        (State.VERIFIED, State.VERIFIED),
    ],
)
def test_postponing_keeps_what_is_stored(journal: Journal, before: State, after: State) -> None:
    """A draft is lost, a committed set is not."""
    request_id = begun(journal)
    journal.advance(request_id, before, now=NOW)

    entry = journal.postpone(request_id, until=NOW + SECOND, error="e", now=NOW)

    assert (entry.state, entry.retry_at) == (after, NOW + SECOND)


def test_an_error_that_is_no_text_is_kept_readable(journal: Journal) -> None:
    """A file name that is no UTF-8 in a message does not lose the message."""
    request_id = begun(journal)

    entry = journal.postpone(request_id, until=NOW, error="cannot read \udcff", now=NOW)

    assert entry.last_error == "cannot read \\udcff"


def test_the_earliest_retry_is_told(journal: Journal) -> None:
    """Of those that are not concluded."""
    for number, name in enumerate("abc"):
        journal.postpone(begun(journal, name), until=NOW + (3 - number) * SECOND, error="e", now=NOW)

    assert journal.next_retry() == NOW + SECOND
    journal.conclude(RequestId("c"), outcome=b"{}", announcements=nothing, now=NOW)
    assert journal.next_retry() == NOW + 2 * SECOND


def test_an_illegal_move_is_refused(journal: Journal) -> None:
    """The entry stays as it was."""
    request_id = begun(journal)
    before = journal.advance(request_id, State.STORED, now=NOW)

    with pytest.raises(IllegalMove):
        journal.advance(request_id, State.ACCEPTED, now=NOW + SECOND)

    assert journal.entry(request_id) == before


@pytest.mark.parametrize("to", [State.CONCLUDED, State.ANNOUNCED])
def test_only_an_outcome_concludes(journal: Journal, to: State) -> None:
    """No request gets there without its outcome."""
    request_id = begun(journal)

    with pytest.raises(IllegalMove):
        journal.advance(request_id, to, now=NOW)


def test_after_the_outcome_nothing_more_is_done(journal: Journal) -> None:
    """No attempt, no postponing, no second outcome."""
    request_id = begun(journal)
    entry = journal.conclude(request_id, outcome=b"1", announcements=nothing, now=NOW)

    with pytest.raises(IllegalMove):
        journal.attempt(request_id, now=NOW)
    with pytest.raises(IllegalMove):
        journal.hand_back(request_id, now=NOW)
    with pytest.raises(IllegalMove):
        journal.postpone(request_id, until=NOW, error="e", now=NOW)
    with pytest.raises(IllegalMove):
        journal.conclude(request_id, outcome=b"2", announcements=say(event("x")), now=NOW)

    assert journal.entry(request_id) == entry
    assert outbox_ids(journal) == ""


def test_changing_an_unknown_request_is_a_bug(journal: Journal) -> None:
    """It is not silently made."""
    with pytest.raises(LookupError):
        journal.attempt(RequestId("nobody"), now=NOW)
    with pytest.raises(LookupError):
        journal.conclude(RequestId("nobody"), outcome=b"", announcements=say(event("x")), now=NOW)

    assert outbox_ids(journal) == ""


def test_entries_are_listed_newest_first(journal: Journal) -> None:
    """As many as asked for."""
    for name in "abc":
        begun(journal, name)

    assert [entry.request_id for entry in journal.entries(limit=2)] == ["c", "b"]


def test_pruning_forgets_only_what_was_announced_before(journal: Journal) -> None:
    """What runs, what still has events to send, and what is younger stays."""
    for name in "abcd":
        begun(journal, name)
    journal.conclude(RequestId("a"), outcome=b"{}", announcements=nothing, now=NOW)
    journal.conclude(RequestId("b"), outcome=b"{}", announcements=nothing, now=NOW + SECOND)
    journal.conclude(RequestId("c"), outcome=b"{}", announcements=say(event("x", request_id=RequestId("c"))), now=NOW)

    forgotten = journal.prune(NOW + SECOND)

    assert forgotten == 1
    assert [entry.request_id for entry in journal.entries(limit=9)] == ["d", "c", "b"]
    assert outbox_ids(journal) == "x"


def test_a_forgotten_request_can_be_begun_again(journal: Journal) -> None:
    """It is new then, and goes to the end of the queue; the store still knows its backup."""
    journal.conclude(begun(journal, "a"), outcome=b"{}", announcements=nothing, now=NOW)
    begun(journal, "b")
    journal.prune(NOW + SECOND)

    beginning = journal.begin(asked("a"), intake="queue", redelivered=False, now=NOW + SECOND)

    assert isinstance(beginning, Begun)
    assert runnable_ids(journal) == "ba"


def test_a_large_past_is_forgotten_whole(journal: Journal) -> None:
    """However it is cut into pieces."""
    for number in range(2300):
        journal.conclude(begun(journal, f"r{number}"), outcome=b"{}", announcements=nothing, now=NOW)

    assert journal.prune(NOW + SECOND) == 2300
    assert journal.entries(limit=1) == []
