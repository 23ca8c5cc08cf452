"""What every journal promises to those who look over many requests, ask again, or drop one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.contract import PlanName
from worker.intake.wire import BackupRequest, RequestData, RequestId
from worker.journal.memory import MemoryJournal
from worker.journal.protocol import Announcement, Caller, Entry, Journal
from worker.journal.rows import APPLICATION_ID, VERSION, select_page
from worker.journal.sqlite import SqliteJournal
from worker.journal.standing import ENDED_SQL, EVERY, Standing, standing
from worker.lifecycle import IllegalMove, State

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
OPEN = frozenset({Standing.UNFINISHED, Standing.PARKED})
GOOD = orjson.dumps({"outcome": "succeeded", "exit_code": 0})
PARTIAL = orjson.dumps({"outcome": "partial", "exit_code": 3})
BAD = orjson.dumps({"outcome": "failed", "exit_code": 1})
REFUSED = orjson.dumps({"outcome": "refused", "exit_code": 4})
GIVEN_UP = orjson.dumps({"outcome": "failed", "exit_code": 7})

# The tables as version 1 made them, never to be changed here.
VERSION_1 = """
CREATE TABLE requests (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, request_id TEXT NOT NULL UNIQUE, plan TEXT NOT NULL,
    backup_id TEXT NOT NULL, request TEXT NOT NULL, intake TEXT NOT NULL, state TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0, accepted INTEGER NOT NULL, updated INTEGER NOT NULL, retry_at INTEGER,
    last_error TEXT, outcome BLOB
);
CREATE INDEX unconcluded ON requests (sequence, retry_at, plan) WHERE outcome IS NULL;
CREATE INDEX waiting ON requests (retry_at) WHERE outcome IS NULL AND retry_at IS NOT NULL;
CREATE INDEX announced ON requests (updated) WHERE state = 'announced';
CREATE TABLE attachments (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id TEXT NOT NULL REFERENCES requests (request_id) ON DELETE CASCADE,
    reply_to TEXT, correlation_id TEXT
);
CREATE INDEX attachments_of ON attachments (request_id);
CREATE TABLE outbox (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL, sink TEXT NOT NULL, reply_to TEXT,
    correlation_id TEXT, request_id TEXT, body BLOB NOT NULL, UNIQUE (event_id, sink)
);
CREATE INDEX outbox_of ON outbox (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX outbox_order ON outbox (sequence, sink);
PRAGMA user_version=1;
"""


@pytest.fixture(params=["sqlite", "memory"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    """Each journal in turn."""
    makers: dict[str, Callable[[], Journal]] = {
        "sqlite": lambda: SqliteJournal(tmp_path / "journal.db"),
        "memory": MemoryJournal,
    }
    made = makers[request.param]()
    yield made
    made.close()


def asked(name: str, plan: str = "photos") -> BackupRequest:
    """A request of this name."""
    return BackupRequest(request_id=name, data=RequestData(plan=plan))


def begun(journal: Journal, name: str, plan: str = "photos") -> RequestId:
    """A request that was just taken in."""
    journal.begin(asked(name, plan), intake="spool", redelivered=False, now=NOW)
    return RequestId(name)


def ended(journal: Journal, name: str, outcome: bytes, plan: str = "photos") -> RequestId:
    """A request with this outcome."""
    request_id = begun(journal, name, plan)
    journal.conclude(request_id, outcome=outcome, announcements=lambda _: (), now=NOW)
    return request_id


def again(journal: Journal, name: str, instead_of: str) -> Entry:
    """A request that asks for the same as another one."""
    return journal.begin_again(asked(name), instead_of=RequestId(instead_of), intake="manual", now=NOW)


def listed(journal: Journal, standings: frozenset[Standing] = EVERY, *, plan: str | None = None, limit: int = 2) -> str:
    """The ids of all that stand so, page by page, joined."""
    names: list[str] = []
    before: int | None = None
    while True:
        page = journal.page(standings, limit=limit, plan=PlanName(plan) if plan else None, before=before)
        assert len(page.entries) <= limit
        names += [entry.request_id for entry in page.entries]
        if page.older is None:
            return "".join(names)
        before = page.older


def one_of_each(journal: Journal) -> None:
    """Requests in every standing, of two plans."""
    ended(journal, "a", GOOD)
    ended(journal, "b", GIVEN_UP, "letters")
    begun(journal, "c")
    ended(journal, "d", BAD)
    ended(journal, "e", PARTIAL)
    ended(journal, "f", REFUSED)
    ended(journal, "g", GIVEN_UP)
    begun(journal, "h", "letters")


@pytest.mark.parametrize(
    ("standings", "expected"),
    [
        (EVERY, "hgfedcba"),
        (frozenset({Standing.UNFINISHED}), "hc"),
        (frozenset({Standing.DONE}), "ea"),
        (frozenset({Standing.FAILED}), "fd"),
        (frozenset({Standing.PARKED}), "gb"),
        (OPEN, "hgcb"),
        (frozenset({Standing.DONE, Standing.FAILED}), "feda"),
        (frozenset(), ""),
    ],
)
def test_requests_are_listed_by_how_they_stand(journal: Journal, standings: frozenset[Standing], expected: str) -> None:
    """Newest first, whatever is listed together, on pages of any size."""
    one_of_each(journal)

    assert [listed(journal, standings, limit=limit) for limit in (1, 2, 3, 100)] == [expected] * 4


def test_requests_of_one_plan_are_listed(journal: Journal) -> None:
    """In each standing."""
    one_of_each(journal)

    assert listed(journal, plan="letters") == "hb"
    assert listed(journal, OPEN, plan="letters", limit=1) == "hb"
    assert listed(journal, frozenset({Standing.DONE}), plan="letters") == ""
    assert listed(journal, frozenset({Standing.PARKED}), plan="photos") == "g"


def test_a_page_for_nothing_is_empty(journal: Journal) -> None:
    """No limit means no entry, not all of them."""
    begun(journal, "a")

    page = journal.page(limit=0)

    assert list(page.entries) == []
    assert page.older is None


def test_pages_go_on_where_they_were_although_much_happens_meanwhile(journal: Journal) -> None:
    """New requests do not come in between, forgotten ones do no harm."""
    for name in "abcde":
        ended(journal, name, GOOD)
    first = journal.page(limit=2)
    begun(journal, "f")
    journal.prune(NOW + SECOND)
    begun(journal, "g")

    second = journal.page(limit=2, before=first.older)

    assert [entry.request_id for entry in first.entries] == ["e", "d"]
    assert [*second.entries] == []


def test_a_request_that_is_asked_again_is_new_and_known_by_the_old_one(journal: Journal) -> None:
    """It is worked on like any other; the old one keeps its outcome, and is parked no more."""
    ended(journal, "a", GIVEN_UP)

    made = again(journal, "a~2", "a")

    old = journal.entry(RequestId("a"))
    assert old is not None
    assert (old.again, old.outcome, old.standing) == ("a~2", GIVEN_UP, Standing.FAILED)
    assert (made.state, made.intake, made.attempt) == (State.ACCEPTED, "manual", 0)
    assert [entry.request_id for entry in journal.runnable(NOW, limit=9)] == ["a~2"]
    assert listed(journal, OPEN) == "a~2"


@pytest.mark.parametrize(("name", "instead_of"), [("x", "open"), ("x", "again"), ("taken", "free")])
def test_what_cannot_be_asked_again_changes_nothing(journal: Journal, name: str, instead_of: str) -> None:
    """One without an outcome, one that was asked again, or under an id that is taken."""
    begun(journal, "open")
    ended(journal, "again", BAD)
    again(journal, "again~2", "again")
    ended(journal, "free", BAD)
    begun(journal, "taken")
    before = journal.entries(limit=9)

    with pytest.raises(IllegalMove):
        again(journal, name, instead_of)

    assert journal.entries(limit=9) == before


def test_an_unknown_request_cannot_be_asked_again(journal: Journal) -> None:
    """A bug, as for every change of an unknown request."""
    with pytest.raises(LookupError):
        again(journal, "a~2", "a")


def test_a_request_whose_successor_is_forgotten_can_be_asked_again(journal: Journal) -> None:
    """Nobody can say any more what became of that one."""
    ended(journal, "a", BAD)
    again(journal, "a~2", "a")
    journal.conclude(RequestId("a~2"), outcome=BAD, announcements=lambda _: (), now=NOW - SECOND)
    journal.prune(NOW)

    made = again(journal, "a~3", "a")

    assert made.request_id == "a~3"
    assert [entry.again for entry in journal.entries(limit=9)] == [None, "a~3"]


def test_idle_requests_can_be_concluded_beside_their_worker(journal: Journal) -> None:
    """Those that were never begun, were put off, or were handed back."""
    fresh, put_off, back = (begun(journal, name) for name in "abc")
    journal.attempt(put_off, now=NOW)
    journal.postpone(put_off, until=NOW, error="later", now=NOW)
    journal.attempt(back, now=NOW)
    journal.hand_back(back, now=NOW)

    for request_id in (fresh, put_off, back):
        entry = journal.conclude(request_id, outcome=BAD, announcements=lambda _: (), now=NOW, idle=True)

        assert entry.outcome == BAD


def test_a_request_that_may_be_worked_on_is_no_idle_one(journal: Journal) -> None:
    """Nothing has changed; without the condition it is concluded."""
    request_id = begun(journal, "a")
    before = journal.attempt(request_id, now=NOW)

    with pytest.raises(IllegalMove, match="attempt 1"):
        journal.conclude(request_id, outcome=BAD, announcements=lambda _: (), now=NOW, idle=True)

    assert journal.entry(request_id) == before
    assert journal.conclude(request_id, outcome=BAD, announcements=lambda _: (), now=NOW).outcome == BAD


def test_a_request_tells_who_waits_for_it(journal: Journal) -> None:
    """In the order in which they attached; nobody after its end."""
    request_id = begun(journal, "a")
    callers = [Caller(reply_to=name, correlation_id=name) for name in "xyz"]
    for caller in callers:
        request = BackupRequest(
            request_id="a",
            data=RequestData(plan="photos"),
            reply_to=caller.reply_to,
            correlation_id=caller.correlation_id,
        )
        journal.begin(request, intake="queue", redelivered=False, now=NOW)

    assert journal.callers(request_id, limit=9) == callers
    assert journal.callers(request_id, limit=2) == callers[:2]
    assert list(journal.callers(RequestId("nobody"), limit=9)) == []

    journal.conclude(request_id, outcome=GOOD, announcements=lambda _: (), now=NOW)
    assert list(journal.callers(request_id, limit=9)) == []


def test_a_request_tells_which_of_its_events_nobody_took(journal: Journal) -> None:
    """Its own, oldest first."""
    request_id = begun(journal, "a")
    events = [
        Announcement(event_id=name, sink="queue", caller=Caller(), body=b"{}", request_id=request_id) for name in "xy"
    ]
    other = Announcement(event_id="z", sink="queue", caller=Caller(), body=b"{}", request_id=None)
    journal.announce([other], now=NOW)
    journal.conclude(request_id, outcome=GOOD, announcements=lambda _: events, now=NOW)

    assert [item.event_id for item in journal.unsent(request_id, limit=9)] == ["x", "y"]
    assert [item.event_id for item in journal.unsent(request_id, limit=1)] == ["x"]

    journal.sent("x", "queue", now=NOW)
    assert [item.event_id for item in journal.unsent(request_id, limit=9)] == ["y"]


OUTCOMES = st.one_of(
    st.binary(max_size=5),
    st.builds(
        lambda word, code, more: orjson.dumps({"outcome": word, "exit_code": code, "error": more}),
        st.sampled_from(["succeeded", "partial", "duplicate", "failed", "refused", "", None, 7]),
        st.sampled_from([0, 1, 4, 6, 7, 130, None, "7"]),
        st.text(st.characters(codec="utf-8"), max_size=5),
    ),
    st.sampled_from([b"", b"[]", b"7", b"null", b'"failed"', b"{}", b"\xff", b"{}\x00"]),
)


@given(outcome=OUTCOMES, again=st.sampled_from([None, "a~2"]))
def test_both_rules_of_standing_agree(outcome: bytes, again: str | None) -> None:
    """That for an entry, and that for SQLite's index."""
    with closing(sqlite3.connect(":memory:")) as database:
        ((by_sql,),) = database.execute(
            f"SELECT {ENDED_SQL} FROM (SELECT ? AS outcome, ? AS again)", (outcome, again)
        ).fetchall()

    assert by_sql == standing(outcome, asked_again=again is not None)


def test_a_journal_of_version_1_is_read_and_goes_on(tmp_path: Path) -> None:
    """Its requests are all there, those that failed in the new index too; a second opening changes nothing."""
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(VERSION_1 + f"PRAGMA application_id={APPLICATION_ID};")
        for number, (name, outcome) in enumerate({"a": GOOD, "b": GIVEN_UP, "c": None, "d": BAD}.items(), start=1):
            request = asked(name)
            state = "accepted" if outcome is None else "announced"
            database.execute(
                "INSERT INTO requests VALUES (?, ?, 'photos', ?, ?, 'spool', ?, 0, 1, 1, NULL, NULL, ?)",
                (number, name, request.backup_id, request.model_dump_json(), state, outcome),
            )
        database.commit()

    for _ in range(2):
        with closing(SqliteJournal(path)) as journal:
            assert listed(journal) == "dcba"
            assert listed(journal, OPEN) == "cb"
            assert listed(journal, frozenset({Standing.FAILED})) == "d"
    with closing(SqliteJournal(path)) as journal:
        again(journal, "b~2", "b")
        assert listed(journal, OPEN) == "b~2c"
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_a_worker_of_version_1_that_still_runs_does_not_mislead_us(tmp_path: Path) -> None:
    """It knows neither column nor index, and its requests are listed right all the same."""
    path = tmp_path / "journal.db"
    with closing(SqliteJournal(path)) as journal, closing(sqlite3.connect(path)) as old:
        begun(journal, "a")
        old.execute("UPDATE requests SET state = 'announced', outcome = ? WHERE request_id = 'a'", (GIVEN_UP,))
        old.commit()

        assert listed(journal, OPEN) == "a"


@pytest.mark.parametrize("standings", [frozenset({one}) for one in Standing if one is not Standing.DONE] + [OPEN])
def test_what_people_look_for_is_found_by_an_index(tmp_path: Path, standings: frozenset[Standing]) -> None:
    """The table itself is only read by the numbers that the index gave."""
    with closing(SqliteJournal(tmp_path / "journal.db")), closing(sqlite3.connect(tmp_path / "journal.db")) as database:
        plan = database.execute(
            "EXPLAIN QUERY PLAN " + select_page(standings), {"limit": 9, "plan": None, "before": 99}
        ).fetchall()

    steps = [row[3] for row in plan]
    assert [step for step in steps if step.startswith("SCAN requests") and "INDEX" not in step] == []
    assert any("USING COVERING INDEX" in step or "USING INDEX" in step for step in steps), steps
