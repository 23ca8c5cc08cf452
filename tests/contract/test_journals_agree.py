"""The two journals give the same answers, whatever is asked of them in whatever order."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from handlers.contract import PlanName
from worker.intake.wire import BackupRequest, RequestData, RequestId
from worker.journal.memory import MemoryJournal
from worker.journal.protocol import Announcement, Caller, Journal
from worker.journal.sqlite import SqliteJournal
from worker.journal.standing import EVERY, Standing
from worker.lifecycle import IllegalMove, State

START = datetime(2026, 3, 1, tzinfo=UTC)
IDS = st.sampled_from(["a", "b", "c"]).map(RequestId)
PLANS = st.sampled_from(["photos", "photos", "letters"])
REPLIES = st.sampled_from([None, "q", "r"])
DELAYS = st.integers(min_value=-3, max_value=9).map(lambda seconds: timedelta(seconds=seconds))
OUTCOMES = st.one_of(
    st.binary(max_size=3),
    st.sampled_from(
        [b'{"outcome":"succeeded","exit_code":0}', b'{"outcome":"failed","exit_code":7}', b'{"outcome":"refused"}']
    ),
)
STANDINGS = st.one_of(st.just(EVERY), st.frozensets(st.sampled_from(Standing)))
SINKS = st.sampled_from(["queue", "spool"])
EVENTS = st.lists(
    st.builds(
        Announcement,
        event_id=st.sampled_from(["e", "f", "g"]),
        sink=SINKS,
        caller=st.builds(Caller, reply_to=REPLIES, correlation_id=REPLIES),
        body=st.binary(max_size=3),
        request_id=st.one_of(st.none(), IDS),
    ),
    max_size=3,
)


class Agreement(RuleBasedStateMachine):
    """Every call goes to both; the SQLite file is closed and opened again in between."""

    @initialize()
    def start(self) -> None:
        """Both are empty."""
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "journal.db"
        self.sqlite = SqliteJournal(self.path)
        self.memory = MemoryJournal()
        self.now = START

    def teardown(self) -> None:
        """Nothing is left on the disk."""
        if hasattr(self, "sqlite"):
            self.sqlite.close()
            self.folder.cleanup()

    def both(self, call: Callable[[Journal], object]) -> None:
        """The same answer, or the same refusal, from both."""
        assert answer(call, self.sqlite) == answer(call, self.memory)

    @rule()
    def reopen(self) -> None:
        """The process ends, another one starts."""
        self.sqlite.close()
        self.sqlite = SqliteJournal(self.path)

    @rule(delay=DELAYS)
    def clock(self, delay: timedelta) -> None:
        """Time goes on, or back."""
        self.now += delay

    @rule(name=IDS, plan=PLANS, reply=REPLIES, correlation=REPLIES, redelivered=st.booleans())
    def begin(self, name: RequestId, plan: str, reply: str | None, correlation: str | None, redelivered: bool) -> None:
        """A request arrives."""
        request = BackupRequest(
            request_id=name, data=RequestData(plan=plan), reply_to=reply, correlation_id=correlation
        )
        self.both(lambda journal: journal.begin(request, intake="queue", redelivered=redelivered, now=self.now))

    @rule(name=IDS)
    def attempt(self, name: RequestId) -> None:
        """Work is begun."""
        self.both(lambda journal: journal.attempt(name, now=self.now))

    @rule(name=IDS)
    def hand_back(self, name: RequestId) -> None:
        """Work is stopped because somebody asked."""
        self.both(lambda journal: journal.hand_back(name, now=self.now))

    @rule(name=IDS, to=st.sampled_from(State))
    def advance(self, name: RequestId, to: State) -> None:
        """Work goes on."""
        self.both(lambda journal: journal.advance(name, to, now=self.now))

    @rule(name=IDS, delay=DELAYS, error=st.text(st.characters(), max_size=3))
    def postpone(self, name: RequestId, delay: timedelta, error: str) -> None:
        """Work has failed."""
        self.both(lambda journal: journal.postpone(name, until=self.now + delay, error=error, now=self.now))

    @rule(name=IDS, instead_of=IDS, plan=PLANS)
    def begin_again(self, name: RequestId, instead_of: RequestId, plan: str) -> None:
        """Somebody asks once more."""
        request = BackupRequest(request_id=name, data=RequestData(plan=plan))
        self.both(lambda journal: journal.begin_again(request, instead_of=instead_of, intake="manual", now=self.now))

    @rule(name=IDS, outcome=OUTCOMES, events=EVENTS, idle=st.booleans())
    def conclude(self, name: RequestId, outcome: bytes, events: list[Announcement], idle: bool) -> None:
        """Work is done."""

        def conclude(journal: Journal) -> object:
            told: list[Caller] = []

            def remember(attached: Sequence[Caller]) -> Sequence[Announcement]:
                told.extend(attached)
                return events

            entry = journal.conclude(name, outcome=outcome, announcements=remember, now=self.now, idle=idle)
            return entry, told

        self.both(conclude)

    @rule(events=EVENTS)
    def announce(self, events: list[Announcement]) -> None:
        """Something is to be told."""
        self.both(lambda journal: journal.announce(events, now=self.now))

    @rule(event_id=st.sampled_from(["e", "f", "g"]), sink=SINKS)
    def sent(self, event_id: str, sink: str) -> None:
        """Somebody took it."""
        self.both(lambda journal: journal.sent(event_id, sink, now=self.now))

    @rule(delay=DELAYS)
    def prune(self, delay: timedelta) -> None:
        """The past is forgotten."""
        self.both(lambda journal: journal.prune(self.now + delay))

    @rule(limit=st.integers(0, 3), busy=st.frozensets(PLANS.map(PlanName)), sinks=st.frozensets(SINKS))
    def look(self, limit: int, busy: frozenset[PlanName], sinks: frozenset[str]) -> None:
        """A part is asked for."""
        self.both(lambda journal: journal.runnable(self.now, limit=limit, busy=busy))
        self.both(lambda journal: journal.outbox(limit=limit, skip=sinks))
        self.both(lambda journal: journal.entries(limit=limit))

    @rule(limit=st.integers(0, 2), standings=STANDINGS, plan=st.one_of(st.none(), PLANS.map(PlanName)))
    def leaf(self, limit: int, standings: frozenset[Standing], plan: PlanName | None) -> None:
        """Two pages are read."""

        def read(journal: Journal) -> object:
            page = journal.page(standings, limit=limit, plan=plan)
            if page.older is None:
                return page.entries
            return [*page.entries, *journal.page(standings, limit=limit, plan=plan, before=page.older).entries]

        self.both(read)

    @rule(name=IDS, limit=st.integers(0, 2))
    def look_at_one(self, name: RequestId, limit: int) -> None:
        """All about one request."""
        self.both(lambda journal: journal.callers(name, limit=limit))
        self.both(lambda journal: journal.unsent(name, limit=limit))

    @invariant()
    def everything_is_the_same(self) -> None:
        """Whatever can be seen."""
        if not hasattr(self, "sqlite"):
            return
        self.both(lambda journal: journal.entries(limit=9))
        self.both(lambda journal: journal.runnable(self.now, limit=9))
        self.both(lambda journal: journal.outbox(limit=99))
        self.both(lambda journal: (journal.next_retry(), journal.unfinished()))


def answer(call: Callable[[Journal], object], journal: Journal) -> object:
    """What came back; an error by its kind, an event without the number that is each journal's own."""
    try:
        result = call(journal)
    except (IllegalMove, LookupError) as error:
        return type(error)
    if isinstance(result, Sequence):
        return [replace(item, sequence=0) if isinstance(item, Announcement) else item for item in result]
    return result


TestAgreement = Agreement.TestCase
TestAgreement.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
