"""What becomes of a request when something goes wrong on its way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from handlers.contract import Job
from handlers.errors import PermanentError, TemporaryError
from tests.workshop.bench import WEB, Bench, LonelyLeases, Message, asked, outcome, raising
from worker.events import Word
from worker.intake.wire import RequestId
from worker.journal.memory import MemoryJournal
from worker.lifecycle import State
from worker.stores.memory import MemoryStore
from worker.stores.protocol import SetName, StoreUnavailable


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


def test_error_that_quotes_odd_bytes_is_an_outcome_all_the_same(bench: Bench) -> None:
    """JSON does not take what is no UTF-8."""
    bench.handler.during = raising(PermanentError("cannot read 'a\udcff'"))

    data = bench.run(asked())

    assert data.error == "cannot read 'a\\udcff'"


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
