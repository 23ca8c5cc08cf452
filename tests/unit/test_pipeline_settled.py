"""What is done with what is stored, and with deliveries that wait for it."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from handlers.contract import Job
from handlers.errors import PermanentError, TemporaryError
from tests.workshop.bench import WEB, Bench, Message, asked, outcome, raising
from tests.workshop.handlers import TextOptions
from worker.control import NoWatcher
from worker.events import Word
from worker.intake.delivery import Settlement
from worker.intake.wire import RequestId
from worker.stores.memory import MemoryStore
from worker.stores.protocol import SetName


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
    again = [bench.run(asked(request_id), request_id) for request_id in ("r4", "r5")]
    assert "as it was when set r3" in again[0].warnings[0]
    assert "as it was when set r4" in again[1].warnings[0]


def test_nobody_needs_to_watch(bench: Bench) -> None:
    """A watcher is a courtesy."""
    bench.accept(Message(asked()))

    entry = bench.pipeline.work(RequestId("r1"), NoWatcher(), threading.Event())

    assert outcome(entry).outcome is Word.SUCCEEDED


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


def test_labels_of_the_plan_stand_against_those_of_a_message(bench: Bench) -> None:
    """The operator's word is used for routing."""
    bench.run(asked(labels={"team": "b"}))

    (stored,) = bench.configured.around.catalog.sets(bench.store, WEB)
    assert stored.manifest.labels == {"team": "a"}
