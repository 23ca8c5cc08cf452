"""Two workers that share a store: who does the work of one request, and who waits."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import orjson
import pytest

from handlers.contract import BackupId, Job
from handlers.errors import Cancelled, PermanentError
from tests.workshop.bench import WEB, Bench, Message, asked, outcome
from tests.workshop.workers import wait_for
from worker.events import Word
from worker.intake.wire import RequestId
from worker.journal.protocol import Entry
from worker.lease import LeaseLost
from worker.lifecycle import State
from worker.stores.protocol import SetName, StoreUnavailable


class Pair:
    """Two workers, each with a journal of its own, at one store."""

    def __init__(self, tmp_path: Path) -> None:
        self.first, self.second = Bench(tmp_path / "a", node="n1"), Bench(tmp_path / "b", node="n2")
        self.second.store = self.first.store
        self.second.wire()
        for bench in (self.first, self.second):
            bench.accept(Message(asked()))
        self.name = SetName(plan=WEB, backup_id=self.entry(self.first).backup_id)

    def entry(self, bench: Bench) -> Entry:
        """How far the request is with this worker."""
        entry = bench.journal.entry(RequestId("r1"))
        assert entry is not None
        return entry

    def lease(self) -> bytes | None:
        """What the store has."""
        return self.first.store.read_lease(self.name)

    def rob(self) -> None:
        """Another worker takes over the lease, as if its holder had been silent for too long."""
        record = self.lease()
        assert record is not None
        robber = {**orjson.loads(record), "node": "n3", "state": "n3", "hold": "another", "fencing": 2}
        assert self.first.store.swap_lease(self.name, record, orjson.dumps(robber))


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Two workers that were given the same request."""
    return Pair(tmp_path)


def test_one_of_two_workers_reads_the_subject(pair: Pair) -> None:
    """The other waits without a slot, and reports a duplicate when the set is there."""
    waiting: list[Entry] = []
    pair.first.handler.during = lambda job: waiting.append(pair.second.work())

    made = outcome(pair.first.work())

    assert made.outcome is Word.SUCCEEDED
    (entry,) = waiting
    assert (entry.state, entry.attempt, entry.outcome) == (State.ACCEPTED, 0, None)
    assert entry.last_error is not None
    assert "is being made by worker n1" in entry.last_error
    assert entry.retry_at is not None
    assert entry.retry_at >= pair.second.now + timedelta(seconds=15)
    assert outcome(pair.second.work()).outcome is Word.DUPLICATE
    assert pair.second.handler.jobs == []
    assert pair.second.words() == ["duplicate"]


@pytest.mark.parametrize("late", [timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=30)])
def test_neither_deadline_nor_patience_ends_what_is_in_other_hands(tmp_path: Path, late: timedelta) -> None:
    """One request, one outcome: what the other worker began in time is succeeding there."""
    pair = Pair(tmp_path)
    body = asked("r2", not_after=(pair.first.now + timedelta(seconds=30)).isoformat())
    waiting: list[Entry] = []
    for bench in (pair.first, pair.second):
        bench.accept(Message(body))

    def meanwhile(job: Job) -> None:
        pair.second.now += late
        waiting.append(pair.second.work("r2"))

    pair.first.handler.during = meanwhile
    made = outcome(pair.first.work("r2"))

    assert made.outcome is Word.SUCCEEDED
    assert [entry.outcome for entry in waiting] == [None]
    assert outcome(pair.second.work("r2")).outcome is Word.DUPLICATE


def test_what_nobody_began_in_time_is_refused(pair: Pair) -> None:
    """The lease that was taken to find out is given back."""
    body = asked("r2", not_after=(pair.first.now + timedelta(seconds=30)).isoformat())
    pair.first.accept(Message(body))
    pair.first.now += timedelta(minutes=1)

    told = outcome(pair.first.work("r2"))

    assert told.outcome is Word.REFUSED
    assert pair.first.handler.jobs == []
    assert pair.first.store.read_lease(SetName(plan=WEB, backup_id=BackupId(told.backup_id or ""))) is None


def test_lease_is_gone_after_the_commit(pair: Pair) -> None:
    """Nothing is left in the store but the set."""
    pair.first.work()

    assert pair.lease() is None
    assert pair.first.store.sweep() == 0


def test_lease_is_released_while_the_set_is_read_again(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the commit on the set itself keeps others away."""
    seen: list[bytes | None] = []
    stream = pair.first.store.stream

    def watched(name: SetName, file: str) -> object:
        seen.append(pair.lease())
        return stream(name, file)

    monkeypatch.setattr(pair.first.store, "stream", watched)

    pair.first.work()

    assert seen == [None]


@pytest.mark.parametrize(
    "error", [PermanentError("no"), Cancelled("stop"), StoreUnavailable("away"), ValueError("bug")]
)
def test_lease_is_released_when_the_work_fails(pair: Pair, error: Exception) -> None:
    """Another worker may try at once."""

    def fail(job: Job) -> None:
        raise error

    pair.first.handler.during = fail
    pair.first.work()

    assert pair.lease() is None
    assert outcome(pair.second.work()).outcome is Word.SUCCEEDED


def test_dead_worker_is_taken_over_without_blocking_a_slot(pair: Pair) -> None:
    """Each look returns at once; lease_seconds after the first one the work begins."""
    dead = pair.first.configured.around.leases.hold(pair.first.store, pair.name)
    for _ in range(3):
        assert pair.second.work().outcome is None
        pair.second.ticks += 20

    assert outcome(pair.second.work()).outcome is Word.SUCCEEDED

    dead.release()
    assert outcome(pair.first.work()).outcome is Word.DUPLICATE


def test_overtaken_worker_does_not_commit(pair: Pair) -> None:
    """It asks the store right before; its attempt does not count."""
    pair.first.handler.during = lambda job: pair.rob()

    entry = pair.first.work()

    assert (entry.state, entry.attempt, entry.outcome) == (State.ACCEPTED, 0, None)
    assert entry.last_error is not None
    assert "worker n3 has taken over" in entry.last_error
    assert not pair.first.store.exists(pair.name)


def test_overtaken_worker_stops_reading(pair: Pair) -> None:
    """At the first checkpoint after its next beat, not only when hours of work are done."""
    pair.first.configured.around.leases.lease_seconds = 0.2
    stopped: list[LeaseLost] = []

    def read_for_ever(job: Job) -> None:
        pair.rob()
        with pytest.raises(LeaseLost) as caught:
            wait_for(lambda: job.control.checkpoint() is not None, what="the loss of the lease")
        stopped.append(caught.value)
        raise caught.value

    pair.first.handler.during = read_for_ever

    entry = pair.first.work()

    assert entry.last_error == str(stopped[0])
    assert entry.attempt == 0


def test_overtaken_worker_leaves_the_lease_of_the_other_alone(pair: Pair) -> None:
    """That one goes on with its work."""
    pair.first.handler.during = lambda job: pair.rob()

    pair.first.work()

    record = pair.lease()
    assert record is not None
    assert orjson.loads(record)["node"] == "n3"


def test_overtaken_worker_reports_a_duplicate_in_the_end(pair: Pair) -> None:
    """The other one's set is as good as its own."""

    def overtaken(job: Job) -> None:
        record = pair.lease()
        assert pair.first.store.swap_lease(pair.name, record, None)
        assert outcome(pair.second.work()).outcome is Word.SUCCEEDED

    pair.first.handler.during = overtaken

    assert pair.first.work().outcome is None
    assert outcome(pair.first.work()).outcome is Word.DUPLICATE
    assert len(pair.first.handler.jobs) == 1
    assert list(pair.first.store.names()) == [pair.name]


def test_set_that_was_committed_between_look_and_lease_is_found(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its maker released the lease a moment ago: the subject is not read again."""
    look = pair.first.store.exists

    def slow_look(name: SetName) -> bool:
        monkeypatch.undo()
        seen = look(name)
        assert outcome(pair.second.work()).outcome is Word.SUCCEEDED
        return seen

    monkeypatch.setattr(pair.first.store, "exists", slow_look)

    assert outcome(pair.first.work()).outcome is Word.DUPLICATE
    assert pair.first.handler.jobs == []
    assert pair.lease() is None


def test_restarted_worker_does_not_wait_for_itself(pair: Pair) -> None:
    """Its former process died with the lease; the plan's lock proves that it is gone."""
    dead = pair.first.configured.around.leases.hold(pair.first.store, pair.name)
    pair.first.wire()

    assert outcome(pair.first.work()).outcome is Word.SUCCEEDED

    dead.release()


def test_verify_request_needs_no_lease(pair: Pair) -> None:
    """It makes no set."""
    pair.first.work()
    pair.first.accept(Message(asked("v1", operation="verify")))
    name = SetName(plan=WEB, backup_id=pair.first.journal.entries(limit=1)[0].backup_id)
    pair.first.store.swap_lease(name, None, b"somebody's")

    assert outcome(pair.first.work("v1")).outcome is Word.SUCCEEDED
    assert pair.first.store.read_lease(name) == b"somebody's"


def test_store_without_an_answer_makes_the_request_wait(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when it is away at any other moment."""

    def away(name: SetName, old: bytes | None, new: bytes | None) -> bool:
        raise StoreUnavailable("store disk is away")

    monkeypatch.setattr(pair.first.store, "swap_lease", away)

    entry = pair.first.work()

    assert (entry.state, entry.attempt, entry.last_error) == (State.ACCEPTED, 0, "store disk is away")
    assert pair.first.handler.jobs == []
