"""The way of a request; each test names the promise that breaks when a line of the pipeline goes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from handlers.contract import Job, PlanName
from handlers.errors import IntegrityError, PermanentError, TemporaryError
from tests.workshop.handlers import TextHandler, TextOptions
from worker.announcer import Announcer
from worker.catalog import Catalog
from worker.control import NoWatcher
from worker.disposition import RetryPolicy
from worker.events import EventData, Word
from worker.intake.delivery import Settlement
from worker.intake.held import HeldDeliveries
from worker.intake.wire import RequestId
from worker.journal.memory import MemoryJournal
from worker.journal.protocol import Announcement, Entry
from worker.lease import Leases
from worker.lifecycle import State
from worker.outbox import EventWatcher, Outbox
from worker.pipeline import Configured, Pipeline, Rules
from worker.steps import Plan, Surroundings
from worker.store_watch import StoreWatch
from worker.stores.memory import MemoryStore
from worker.stores.protocol import SetName, StoreUnavailable

WEB = PlanName("web")


@dataclass
class Message:
    """A delivery that remembers how it was settled."""

    body: bytes
    intake: str = "spool"
    message_id: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    redelivered: bool = False
    settled: list[tuple[Settlement, str]] = field(default_factory=list)
    deferred: list[timedelta] = field(default_factory=list)

    def settle(self, settlement: Settlement, reason: str = "") -> None:
        """Write it down."""
        self.settled.append((settlement, reason))

    def defer(self, after: timedelta) -> None:
        """Write it down."""
        self.deferred.append(after)


def asked(request_id: str = "r1", **more: object) -> bytes:
    """A request's bytes."""
    return orjson.dumps({"id": request_id, "plan": "web", **more})


class LonelyLeases(MemoryStore):
    """The sets of another store, with leases that nobody else sees, as on a network file system without locks."""

    def __init__(self, shared: MemoryStore) -> None:
        super().__init__(shared.name)
        self._sets = shared._sets


class Taker:
    """An event sink that keeps what it takes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.taken: list[Announcement] = []

    def send(self, announcement: Announcement) -> None:
        """Keep it."""
        self.taken.append(announcement)

    def close(self) -> None:
        """Nothing to let go of."""


class Bench:
    """A worker's inside on memory, at a time that a test sets."""

    def __init__(self, tmp_path: Path, *, announced: bool = False, verify: str = "checksums", node: str = "n1") -> None:
        self.now = datetime(2026, 11, 21, tzinfo=UTC)
        self.ticks = 0.0
        self.journal = MemoryJournal()
        self.store = MemoryStore("disk")
        self.handler = TextHandler()
        self.tmp_path = tmp_path
        self.node = node
        self.verify = verify
        self.options = TextOptions()
        self.held = HeldDeliveries() if announced else None
        self.spool, self.reply = Taker("spool"), Taker("reply")
        self.wire()

    def wire(self) -> None:
        """Put it together, again after a change."""
        around = Surroundings(
            catalog=Catalog({"disk": self.store}),
            node=self.node,
            scratch=self.tmp_path / "scratch",
            config_digest="0" * 64,
            clock=lambda: self.now,
            leases=Leases(node=self.node, state=self.node, lease_seconds=60, monotonic=lambda: self.ticks),
        )
        sinks = {"spool": self.spool, "reply": self.reply}
        self.announcer = Announcer(self.journal, sinks, lambda: self.now)
        self.outbox = Outbox(
            journal=self.journal, sinks=("spool",), node=self.node, clock=lambda: self.now, wake=lambda: None
        )
        plan = Plan(
            name=WEB,
            handler=self.handler,
            options=self.options,
            store=self.store,
            verify=self.verify,  # type: ignore[arg-type]
            max_level=9,
            labels={"team": "a"},
        )
        retry = RetryPolicy(
            attempts=3,
            first_delay=timedelta(seconds=10),
            max_delay=timedelta(hours=1),
            patience=timedelta(hours=1),
        )
        self.watch = StoreWatch(lambda: self.now)
        self.configured = Configured(
            plans={WEB: plan}, rules=Rules(retry=retry, reply_to_allowed=("amq.gen-*",)), around=around
        )
        self.pipeline = Pipeline(
            self.configured,
            journal=self.journal,
            outbox=self.outbox,
            stores=self.watch,
            held=self.held,
        )

    def accept(self, message: Message) -> Entry | None:
        """Bring a delivery."""
        return self.pipeline.accept(message)

    def work(self, request_id: str = "r1", cancelled: threading.Event | None = None) -> Entry:
        """Do the work of a request."""
        watcher = EventWatcher(self.outbox, period_seconds=0)
        return self.pipeline.work(RequestId(request_id), watcher, cancelled or threading.Event())

    def run(self, body: bytes, request_id: str = "r1") -> EventData:
        """Bring a request and work on it to its outcome."""
        self.accept(Message(body))
        return outcome(self.work(request_id))

    def words(self) -> list[str]:
        """What the spool was told, in order."""
        self.announcer.flush()
        return [orjson.loads(letter.body)["data"]["outcome"] for letter in self.spool.taken]


def outcome(entry: Entry) -> EventData:
    """The outcome in the journal."""
    assert entry.outcome is not None
    return EventData.model_validate_json(entry.outcome)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A worker's inside."""
    return Bench(tmp_path)


def raising(error: Exception) -> Callable[[Job], None]:
    """Makes the handler fail."""

    def during(job: Job) -> None:
        raise error

    return during


def test_request_becomes_one_verified_set(bench: Bench) -> None:
    """From arrival to outcome."""
    data = bench.run(asked(labels={"run": "7"}, reason="nightly"))

    assert (data.outcome, data.exit_code, data.level, data.stores) == (Word.SUCCEEDED, 0, 0, ("disk",))
    assert data.verified == "checksums"
    (stored,) = bench.configured.around.catalog.sets(bench.store, WEB)
    assert stored.manifest.labels == {"team": "a", "run": "7"}
    assert stored.manifest.reason == "nightly"
    assert stored.manifest.request_id == "r1"


def test_delivery_is_settled_once_the_request_is_journalled(bench: Bench) -> None:
    """Not before it is safe, and not only after the work."""
    message = Message(asked())

    entry = bench.accept(message)

    assert message.settled == [(Settlement.ACCEPT, "")]
    assert entry is not None
    assert bench.journal.entry(RequestId("r1")) == entry


def test_started_and_outcome_are_announced_in_order(bench: Bench) -> None:
    """Whoever follows sees the story."""
    bench.run(asked())

    assert bench.words() == ["started", "succeeded"]
    entry = bench.journal.entry(RequestId("r1"))
    assert entry is not None
    assert entry.state is State.ANNOUNCED


def test_same_request_again_is_answered_with_the_old_outcome(bench: Bench) -> None:
    """One request, one backup."""
    bench.run(asked())
    again = Message(asked())

    work = bench.accept(again)

    assert work is None
    assert again.settled == [(Settlement.ACCEPT, "")]
    assert bench.words() == ["started", "succeeded", "duplicate"]
    assert len(list(bench.store.names())) == 1


def test_redelivery_of_an_answered_request_is_silent(bench: Bench) -> None:
    """It is the same delivery, not a second question."""
    bench.run(asked())
    again = Message(asked(), redelivered=True)

    bench.accept(again)

    assert again.settled == [(Settlement.ACCEPT, "")]
    assert bench.words() == ["started", "succeeded"]


def test_caller_who_asks_while_the_work_goes_on_is_told_at_the_end(bench: Bench) -> None:
    """It starts nothing, and nobody is forgotten."""
    bench.accept(Message(asked()))
    bench.accept(Message(asked(), reply_to="amq.gen-2", correlation_id="c2"))

    bench.work()

    assert bench.words() == ["started", "succeeded", "duplicate"]
    (answer,) = bench.reply.taken
    assert (answer.caller.reply_to, answer.caller.correlation_id) == ("amq.gen-2", "c2")
    assert orjson.loads(answer.body)["data"]["original"] == "succeeded"


def test_other_request_of_the_same_id_is_refused(bench: Bench) -> None:
    """The first one stands."""
    bench.run(asked())
    other = Message(asked(level="full"))

    bench.accept(other)

    assert other.settled[0][0] is Settlement.REJECT
    refused = orjson.loads(bench.spool.taken[-1].body)["data"] if bench.words() else {}
    assert (refused["outcome"], refused["exit_code"]) == ("refused", 5)


def test_message_that_is_no_request_goes_to_the_dead_letters_and_is_answered(bench: Bench) -> None:
    """With the reason in both."""
    message = Message(b"hello")

    bench.accept(message)

    assert message.settled == [(Settlement.REJECT, message.settled[0][1])]
    assert "not JSON" in message.settled[0][1]
    assert bench.words() == ["refused"]


def test_unknown_plan_is_refused(bench: Bench) -> None:
    """A message can only name what the operator configured."""
    message = Message(asked(plan="other"))

    bench.accept(message)

    assert message.settled[0][0] is Settlement.REJECT
    assert bench.words() == ["refused"]
    assert bench.journal.entry(RequestId("r1")) is None


def test_refused_request_is_never_answered_to_a_queue_that_is_not_allowed(bench: Bench) -> None:
    """The refusal itself must not be the way to write there."""
    bench.accept(Message(asked(reply_to="orders")))

    assert bench.words() == ["refused"]
    assert bench.reply.taken == []


def test_caller_gets_its_answer(bench: Bench) -> None:
    """On its reply queue, with its correlation id."""
    bench.accept(Message(asked(), reply_to="amq.gen-1", correlation_id="c1"))
    bench.work()
    bench.words()

    (answer,) = bench.reply.taken
    assert (answer.caller.reply_to, answer.caller.correlation_id) == ("amq.gen-1", "c1")


def test_unreadable_file_makes_the_outcome_partial(bench: Bench) -> None:
    """Never reported as success."""
    bench.options = TextOptions(unreadable=True)
    bench.wire()

    data = bench.run(asked())

    assert (data.outcome, data.exit_code, data.problem_counts) == (Word.PARTIAL, 3, {"unreadable": 1})


def test_levels_build_on_each_other(bench: Bench) -> None:
    """The second backup is a level 1 on the first."""
    bench.run(asked("r1"))
    bench.now += timedelta(minutes=1)

    data = bench.run(asked("r2"), "r2")

    assert (data.level, data.parent) == (1, bench.journal.entry(RequestId("r1")).backup_id)  # type: ignore[union-attr]


def test_damaged_parent_means_a_full_backup(bench: Bench) -> None:
    """With the reason; never a broken chain."""

    def damaged(job: Job) -> None:
        if job.level > 0:
            raise IntegrityError("part text is torn")

    bench.run(asked("r1"))
    bench.now += timedelta(minutes=1)
    bench.handler.during = damaged

    data = bench.run(asked("r2"), "r2")

    assert (data.outcome, data.level) == (Word.SUCCEEDED, 0)
    assert "part text is torn" in (data.level_reason or "")


def test_temporary_error_is_tried_again_later(bench: Bench) -> None:
    """Nothing is left of the failed attempt, nothing is announced yet but the start."""
    bench.handler.during = raising(TemporaryError("disk full"))
    bench.accept(Message(asked()))

    entry = bench.work()

    assert entry.state is State.ACCEPTED
    assert entry.retry_at is not None
    assert entry.last_error == "disk full"
    assert bench.store.sweep() == 0
    assert bench.words() == ["started"]
    assert list(bench.journal.runnable(bench.now, limit=9)) == []


def test_retry_that_works_succeeds(bench: Bench) -> None:
    """The same request, the same set."""
    bench.handler.during = raising(TemporaryError("disk full"))
    bench.accept(Message(asked()))
    bench.work()
    bench.handler.during = lambda job: None

    data = outcome(bench.work())

    assert (data.outcome, data.attempt) == (Word.SUCCEEDED, 2)


def test_attempts_come_to_an_end(bench: Bench) -> None:
    """With the temporary error's exit code."""
    bench.handler.during = raising(TemporaryError("disk full", hint="free some"))
    bench.accept(Message(asked()))
    for _ in range(3):
        entry = bench.work()

    data = outcome(entry)
    assert (data.outcome, data.exit_code, data.error, data.hint) == (Word.FAILED, 7, "disk full", "free some")


def test_permanent_error_fails_at_once(bench: Bench) -> None:
    """No set, no draft, an outcome."""
    bench.handler.during = raising(PermanentError("no such directory"))

    data = bench.run(asked())

    assert (data.outcome, data.exit_code, data.error) == (Word.FAILED, 1, "no such directory")
    assert list(bench.store.names()) == []


def test_bug_ends_as_failed_and_says_so(bench: Bench) -> None:
    """A few tries, then an honest outcome."""
    bench.handler.during = raising(KeyError("x"))
    bench.accept(Message(asked()))
    bench.work()

    data = outcome(bench.work())

    assert (data.outcome, data.exit_code) == (Word.FAILED, 1)
    assert "bug" in (data.hint or "")


def test_cancelled_work_is_handed_back_and_goes_on_later(bench: Bench) -> None:
    """A drain is no attempt: however often it happens, the request is not given up."""
    cancelled = threading.Event()
    cancelled.set()
    bench.accept(Message(asked()))
    for _ in range(10):
        entry = bench.work(cancelled=cancelled)

    assert (entry.state, entry.attempt, entry.outcome) == (State.ACCEPTED, 0, None)
    assert outcome(bench.work()).outcome is Word.SUCCEEDED


def test_death_between_commit_and_journal_makes_no_duplicate(bench: Bench) -> None:
    """The set is ours: the outcome is the one that we could not tell any more."""
    bench.run(asked())
    bench.journal = MemoryJournal()
    bench.wire()
    bench.accept(Message(asked()))
    bench.journal.attempt(RequestId("r1"), now=bench.now)  # the attempt that died after its commit

    data = outcome(bench.work())

    assert (data.outcome, data.exit_code) == (Word.SUCCEEDED, 0)
    assert len(bench.handler.jobs) == 1


def test_set_of_another_worker_makes_the_outcome_duplicate(tmp_path: Path) -> None:
    """Two workers, one request, one set, one `succeeded`."""
    first, second = Bench(tmp_path / "a", node="n1"), Bench(tmp_path / "b", node="n2")
    second.store = first.store
    second.wire()
    first.run(asked())

    data = second.run(asked())

    assert (data.outcome, data.original, data.exit_code) == (Word.DUPLICATE, Word.SUCCEEDED, 0)
    assert second.handler.jobs == []


def test_worker_that_loses_the_race_reports_a_duplicate(tmp_path: Path) -> None:
    """Both produced, because their leases do not meet; the first commit wins, the other's parts are thrown away."""
    first, second = Bench(tmp_path / "a", node="n1"), Bench(tmp_path / "b", node="n2")
    second.store = LonelyLeases(first.store)
    second.handler.during = lambda job: None if list(first.store.names()) else first.run(asked()) and None
    second.wire()

    data = second.run(asked())

    assert data.outcome is Word.DUPLICATE
    assert len(list(first.store.names())) == 1
    assert first.store.sweep() == 0


def test_other_worker_refuses_another_request_of_a_used_id(tmp_path: Path) -> None:
    """Although its own journal never saw the first one."""
    first, second = Bench(tmp_path / "a", node="n1"), Bench(tmp_path / "b", node="n2")
    second.store = first.store
    second.wire()
    first.run(asked())

    data = second.run(asked(level="full"))

    assert (data.outcome, data.exit_code) == (Word.REFUSED, 5)


def test_worker_that_died_in_the_middle_starts_over(bench: Bench) -> None:
    """Parts that were written live in a draft that is swept; they are made again."""
    bench.accept(Message(asked()))
    bench.journal.attempt(RequestId("r1"), now=bench.now)
    bench.journal.advance(RequestId("r1"), State.PRODUCED, now=bench.now)

    data = outcome(bench.work())

    assert (data.outcome, data.attempt) == (Word.SUCCEEDED, 2)


def test_request_that_kills_its_worker_is_given_up(bench: Bench) -> None:
    """Not tried for ever."""
    bench.accept(Message(asked()))
    for _ in range(3):
        bench.journal.attempt(RequestId("r1"), now=bench.now)

    data = outcome(bench.work())

    assert data.outcome is Word.FAILED
    assert "given up after 3 attempts" in (data.error or "")
    assert bench.handler.jobs == []


def test_request_waits_for_a_store_that_is_away(bench: Bench) -> None:
    """It uses up no attempt, and succeeds when the store is back."""

    class Away(MemoryStore):
        def exists(self, name: SetName) -> bool:
            raise StoreUnavailable("store disk: the directory is missing")

    mended, bench.store = bench.store, Away("disk")
    bench.wire()
    bench.accept(Message(asked()))
    for _ in range(10):
        waiting = bench.work()
        assert waiting.outcome is None
        assert waiting.retry_at is not None
        bench.now = waiting.retry_at
    assert set(bench.watch.away()) == {"disk"}
    bench.store = mended
    bench.wire()

    data = outcome(bench.work())

    assert data.outcome is Word.SUCCEEDED
    assert data.attempt == 1
    assert not bench.watch.away()


def test_patience_counts_from_the_first_look_at_the_store(bench: Bench) -> None:
    """A request that waited for its hours, or ran for days, is not given up at the first hiccup."""

    class Away(MemoryStore):
        def exists(self, name: SetName) -> bool:
            raise StoreUnavailable("store disk: the directory is missing")

    bench.store = Away("disk")
    bench.wire()
    bench.accept(Message(asked()))
    bench.now += timedelta(days=5)

    waiting = bench.work()

    assert waiting.outcome is None
    assert waiting.waiting_since == bench.now
    bench.now += timedelta(minutes=30)
    assert bench.work().waiting_since == waiting.waiting_since


def test_the_store_that_failed_is_the_one_that_is_told(bench: Bench) -> None:
    """Also where the plan was moved to another one meanwhile, as one does when a disk is full."""
    other = replace(bench.configured.plans[WEB], store=MemoryStore("other"))

    def during(job: Job) -> None:
        bench.pipeline.use(replace(bench.configured, plans={WEB: other}))
        raise StoreUnavailable("store disk: no space left on device")

    bench.handler.during = during
    bench.accept(Message(asked()))
    bench.work()

    assert set(bench.watch.away()) == {"disk"}


def test_a_try_that_would_begin_after_the_deadline_is_not_made(bench: Bench) -> None:
    """Its plan was busy, or its hours were over, when it was due."""
    bench.handler.during = raising(TemporaryError("busy"))
    bench.accept(Message(asked(not_after="2026-11-21T01:00:00Z")))
    bench.work()
    bench.handler.during = lambda job: None
    bench.now += timedelta(hours=5)

    told = outcome(bench.work())

    assert told.outcome is Word.REFUSED
    assert list(bench.store.names()) == []


def test_request_does_not_wait_for_a_store_for_ever(bench: Bench) -> None:
    """Nor beyond its deadline."""

    class Away(MemoryStore):
        def exists(self, name: SetName) -> bool:
            raise StoreUnavailable("store disk: the directory is missing")

    bench.store = Away("disk")
    bench.wire()
    bench.accept(Message(asked()))
    bench.accept(Message(asked("r2", not_after="2026-11-21T00:00:04Z")))
    bench.work()
    hurried = outcome(bench.work("r2"))
    bench.now += timedelta(hours=1)

    patient = outcome(bench.work())

    assert (hurried.outcome, hurried.exit_code) == (Word.FAILED, 7)
    assert (patient.outcome, patient.exit_code) == (Word.FAILED, 7)
    assert "directory is missing" in (patient.error or "")


def test_set_that_cannot_be_read_back_is_withdrawn(bench: Bench) -> None:
    """It must not be listed, nor built upon."""
    commit_was_seen: list[SetName] = []

    class Rotten(MemoryStore):
        def stream(self, name: SetName, file: str):  # type: ignore[no-untyped-def]
            commit_was_seen.append(name)
            yield b"rot"

    bench.store = Rotten("disk")
    bench.wire()

    data = bench.run(asked())

    assert commit_was_seen
    assert (data.outcome, data.exit_code) == (Word.FAILED, 6)
    assert list(bench.store.names()) == []


def test_removed_plan_ends_what_was_accepted_for_it(bench: Bench) -> None:
    """It ends in an outcome all the same."""
    bench.accept(Message(asked()))
    bench.pipeline.use(replace(bench.configured, plans={}))

    data = outcome(bench.work())

    assert data.outcome is Word.FAILED
    assert "removed" in (data.error or "")


def test_verify_request_reads_the_newest_set(bench: Bench) -> None:
    """Without making one."""
    bench.run(asked("r1"))

    data = bench.run(asked("r2", operation="verify"), "r2")

    assert (data.outcome, data.operation, data.request_id) == (Word.SUCCEEDED, "verify", "r2")
    assert data.backup_id == bench.journal.entry(RequestId("r1")).backup_id  # type: ignore[union-attr]
    assert len(bench.handler.jobs) == 1


def test_verify_request_never_removes_what_it_finds_damaged(bench: Bench) -> None:
    """Only the request that made a set may withdraw it."""
    bench.run(asked("r1"))
    kept = list(bench.store.names())
    bench.store.stream = lambda name, file: iter([b"rot"])  # type: ignore[method-assign]

    data = bench.run(asked("r2", operation="verify"), "r2")

    assert (data.outcome, data.exit_code) == (Word.FAILED, 6)
    assert list(bench.store.names()) == kept


def test_verify_request_of_an_empty_plan_fails(bench: Bench) -> None:
    """There is nothing to verify."""
    data = bench.run(asked(operation="verify"))

    assert data.outcome is Word.FAILED
    assert "no set to verify" in (data.error or "")


def test_held_delivery_is_settled_when_the_outcome_is_out(tmp_path: Path) -> None:
    """`settle: announced` keeps it with the broker until then."""
    bench = Bench(tmp_path, announced=True)
    assert bench.held is not None
    message, late = Message(asked()), Message(asked())
    bench.accept(message)
    bench.work()

    assert message.settled == []
    bench.words()
    bench.held.settle(RequestId("r1"))
    bench.accept(late)

    assert message.settled == [(Settlement.ACCEPT, "")]
    assert late.settled == [(Settlement.ACCEPT, "")]


def test_held_delivery_is_put_off_while_its_request_waits_for_another_try(tmp_path: Path) -> None:
    """It keeps no other from coming, and is settled when the outcome is out."""
    bench = Bench(tmp_path, announced=True)
    assert bench.held is not None
    bench.handler.during = raising(TemporaryError("busy"))
    message = Message(asked())
    bench.accept(message)

    waiting = bench.work()

    assert waiting.retry_at is not None
    assert message.deferred == [waiting.retry_at - bench.now]
    assert message.settled == []
    repeated = Message(asked(), redelivered=True)
    bench.accept(repeated)
    assert repeated.deferred == [waiting.retry_at - bench.now]


def test_scratch_is_empty_afterwards(bench: Bench) -> None:
    """Also after a failure."""

    def litter(job: Job) -> None:
        (job.scratch / "big").write_bytes(b"x")
        raise PermanentError("no")

    bench.handler.during = litter
    bench.run(asked())

    assert [path for path in (bench.tmp_path / "scratch").rglob("*") if path.is_file()] == []


def test_empty_subject_after_a_full_one_is_a_warning(bench: Bench) -> None:
    """Is something not mounted?"""
    bench.options = TextOptions(files=5)
    bench.wire()
    bench.run(asked("r1"))
    bench.options = TextOptions(files=1)
    bench.wire()
    unchanged = bench.run(asked("r2"), "r2")
    bench.options = TextOptions(files=0)
    bench.wire()

    data = bench.run(asked("r3"), "r3")

    assert unchanged.warnings == ()
    assert len(data.warnings) == 1
    assert "not mounted" in data.warnings[0]
    assert bench.run(asked("r4"), "r4").warnings == ()


def test_nobody_needs_to_watch(bench: Bench) -> None:
    """A watcher is a courtesy."""
    bench.accept(Message(asked()))

    entry = bench.pipeline.work(RequestId("r1"), NoWatcher(), threading.Event())

    assert outcome(entry).outcome is Word.SUCCEEDED


def test_redelivery_after_the_deadline_attaches(bench: Bench) -> None:
    """It was allowed once: no second, contradicting outcome."""
    body = asked(not_after=(bench.now + timedelta(minutes=1)).isoformat())
    bench.accept(Message(body))
    bench.now += timedelta(minutes=2)
    bench.accept(Message(body, redelivered=True))
    bench.journal.attempt(RequestId("r1"), now=bench.now)  # it had begun in time

    data = outcome(bench.work())

    assert data.outcome is Word.SUCCEEDED
    assert bench.words() == ["started", "succeeded"]


def test_request_that_waited_beyond_its_deadline_is_refused(bench: Bench) -> None:
    """Too old a request is refused, not run, also where it was taken in in time."""
    bench.accept(Message(asked(not_after=(bench.now + timedelta(minutes=1)).isoformat())))
    bench.now += timedelta(minutes=2)

    data = outcome(bench.work())

    assert (data.outcome, data.exit_code) == (Word.REFUSED, 4)
    assert bench.handler.jobs == []


def test_held_redelivery_is_not_settled_before_the_outcome_is_out(tmp_path: Path) -> None:
    """Concluded is not announced: should the disk go now, the broker is the only one who knows of it."""
    bench = Bench(tmp_path, announced=True)
    bench.accept(Message(asked()))
    bench.work()
    again = Message(asked(), redelivered=True)

    bench.accept(again)

    assert again.settled == []
    bench.words()
    assert bench.held is not None
    bench.held.settle(RequestId("r1"))
    assert again.settled == [(Settlement.ACCEPT, "")]


def test_changed_options_mean_a_full_backup(bench: Bench) -> None:
    """A level on top would miss what was left out before."""
    bench.run(asked("r1"))
    bench.options = TextOptions(scope="more")
    bench.wire()
    bench.now += timedelta(minutes=1)

    data = bench.run(asked("r2"), "r2")

    assert data.level == 0
    assert "options have changed" in (data.level_reason or "")


def test_duplicate_of_a_rotten_set_is_no_success(tmp_path: Path) -> None:
    """Its maker may have died before it looked; the caller of this one gets no other answer."""
    first, second = Bench(tmp_path / "a", node="n1"), Bench(tmp_path / "b", node="n2")
    second.store = first.store
    second.wire()
    first.run(asked())
    first.store.stream = lambda name, file: iter([b"rot"])  # type: ignore[method-assign]

    data = second.run(asked())

    assert (data.outcome, data.exit_code) == (Word.FAILED, 6)
    assert len(list(first.store.names())) == 1


def test_failure_after_the_commit_says_where_the_set_is(bench: Bench) -> None:
    """It is listed, so nobody must be told that there is nothing."""
    bench.store.stream = lambda name, file: _away()  # type: ignore[method-assign]
    bench.accept(Message(asked()))
    for _ in range(3):
        entry = bench.work()

    data = outcome(entry)
    assert (data.outcome, data.exit_code, data.error) == (Word.FAILED, 7, "the store is away")
    assert (data.stores, data.level, data.verified) == (("disk",), 0, "none")


def _away() -> Iterator[bytes]:
    raise TemporaryError("the store is away")
    yield b""


def test_verify_request_of_a_plan_with_a_damaged_manifest_fails(bench: Bench) -> None:
    """It may be the newest: an older one being fine says nothing."""
    bench.run(asked("r1"))
    bench.now += timedelta(minutes=1)
    bench.run(asked("r2"), "r2")
    read = bench.store.read
    newest = bench.journal.entry(RequestId("r2"))
    assert newest is not None
    bench.store.read = lambda name, file: b"{" if name.backup_id == newest.backup_id else read(name, file)  # type: ignore[method-assign]

    data = bench.run(asked("r3", operation="verify"), "r3")

    assert (data.outcome, data.exit_code) == (Word.FAILED, 6)


def test_error_that_quotes_odd_bytes_is_an_outcome_all_the_same(bench: Bench) -> None:
    """JSON does not take what is no UTF-8."""
    bench.handler.during = raising(PermanentError("cannot read 'a\udcff'"))

    data = bench.run(asked())

    assert data.error == "cannot read 'a\\udcff'"


def test_labels_of_the_plan_stand_against_those_of_a_message(bench: Bench) -> None:
    """The operator's word is used for routing."""
    bench.run(asked(labels={"team": "b"}))

    (stored,) = bench.configured.around.catalog.sets(bench.store, WEB)
    assert stored.manifest.labels == {"team": "a"}


def test_draft_that_cannot_be_discarded_does_not_hide_the_error(bench: Bench) -> None:
    """The sweep removes it; the caller hears what went wrong first."""
    draft = bench.store.draft

    def disk_gone() -> None:
        raise TemporaryError("disk gone")

    def stubborn(name: SetName) -> object:
        made = draft(name)
        made.discard = disk_gone  # type: ignore[method-assign]
        return made

    bench.store.draft = stubborn  # type: ignore[method-assign,assignment]
    bench.handler.during = raising(PermanentError("no such directory"))

    data = bench.run(asked())

    assert data.error == "no such directory"
