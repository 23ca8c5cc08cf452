"""Two real workers at one store: one does the work, the other steps in when the first does not live any more."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from tests.workshop.workers import Hire, Worker, wait_for

SLOW = {"codec": "xz", "strength": 6, "threads": 1}


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    """A tree whose backup takes seconds."""
    root = tmp_path / "subject"
    root.mkdir()
    block = os.urandom(1 << 20)
    for number in range(24):
        (root / f"block-{number}").write_bytes(block)
    return root


@pytest.fixture
def hire_at_store(hire: Hire, tmp_path: Path, subject: Path) -> Hire:
    """Makes workers that share the store, each with a spool and a state directory of its own."""

    def make(*place: Path, **settings: Any) -> Worker:
        made = hire(tmp_path / place[0], subject, tmp_path / "store", options=SLOW, **settings)
        made.start()
        return made

    return make


def wait_reading(worker: Worker) -> None:
    """Until it is in the middle of the subject."""
    drafts = worker.store / ".holdfast" / "drafts"
    wait_for(
        lambda: any(path.stat().st_size > 1 << 20 for path in drafts.rglob("data.tar*")),
        what="some data",
        told=worker.log.read_text,
    )


def said(worker: Worker, event: str, **facts: object) -> bool:
    """Whether its log has this event with these facts."""
    lines = [orjson.loads(line) for line in worker.log.read_bytes().splitlines() if line.endswith(b"}")]
    return any(line.get("event") == event and facts.items() <= line.items() for line in lines)


def leases(worker: Worker) -> list[Path]:
    """The lease records in the store."""
    return [path for path in (worker.store / ".holdfast" / "leases").rglob("*") if path.is_file()]


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """SIGSTOP, and SIGCONT in the end, whatever happens."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def test_twenty_copies_to_two_workers_are_read_once(hire_at_store: Hire) -> None:
    """One `started`, one set, one `succeeded`; the rest are duplicates."""
    workers = [hire_at_store(Path("n1")), hire_at_store(Path("n2"))]

    for number in range(20):
        spool = workers[number % 2].spool
        file = spool / "tmp" / f"copy-{number}.json"
        file.write_bytes(orjson.dumps({"id": "r1", "plan": "web"}))
        file.rename(spool / "new" / file.name)
    for worker in workers:
        worker.wait_outcome("r1", count=10, seconds=120)

    events = [event["data"]["outcome"] for worker in workers for event in worker.events("r1")]
    assert sorted(word for word in events if word != "progress") == ["duplicate"] * 19 + ["started", "succeeded"]
    assert len(workers[0].sets()) == 1
    assert [worker.stop() for worker in workers] == [0, 0]
    assert [path for worker in workers for path in (*worker.leftovers(), *leases(worker))] == []


def test_worker_that_never_comes_back_is_taken_over(hire_at_store: Hire) -> None:
    """Killed with the lease; the other one does the work without anybody's help."""
    first, second = hire_at_store(Path("n1")), hire_at_store(Path("n2"))
    first.ask("r1")
    wait_reading(first)
    second.ask("r1")
    wait_for(lambda: said(second, "request_waits"), what="the second to wait", told=second.log.read_text)

    first.kill()
    data = second.wait_outcome("r1", seconds=120)

    assert (data["outcome"], data["attempt"]) == ("succeeded", 1)
    assert said(second, "lease_taken_over", of="n1", fencing=2)
    assert len(second.sets()) == 1
    assert second.outcomes("r1") == ["succeeded"]
    assert first.outcomes("r1") == []
    assert leases(second) == []


def test_worker_that_was_stopped_for_too_long_reports_a_duplicate(hire_at_store: Hire) -> None:
    """SIGSTOP past the lease, then SIGCONT: the set of the other one stands, and nothing else is left."""
    first, second = hire_at_store(Path("n1")), hire_at_store(Path("n2"))
    assert first.process is not None
    first.ask("r1")
    wait_reading(first)

    with stopped(psutil.Process(first.process.pid)):
        second.ask("r1")
        made = second.wait_outcome("r1", seconds=120)
        before = second.sets()
    late = first.wait_outcome("r1", seconds=120)

    assert (made["outcome"], late["outcome"]) == ("succeeded", "duplicate")
    assert (made["manifest_sha256"], made["backup_id"]) == (late["manifest_sha256"], late["backup_id"])
    assert first.outcomes("r1") == ["duplicate"]
    assert first.sets() == before
    assert len(before) == 1
    assert said(first, "lease_lost")
    assert [first.stop(), second.stop()] == [0, 0]
    assert [*first.leftovers(), *second.leftovers(), *leases(first)] == []


def test_restarted_worker_does_not_wait_for_its_own_lease(hire_at_store: Hire) -> None:
    """It knows its former process by the state directory; an hour's lease would outlast this test."""
    worker = hire_at_store(Path("n1"), lease_seconds=3600)
    worker.ask("r1")
    wait_reading(worker)
    worker.kill()
    assert len(leases(worker)) == 1

    worker.start()
    data = worker.wait_outcome("r1", seconds=120)

    assert (data["outcome"], data["attempt"]) == ("succeeded", 2)
    assert said(worker, "lease_taken_over", of="n1", fencing=2)
    assert not said(worker, "request_waits")
    assert leases(worker) == []


def test_worker_that_hands_back_lets_the_other_go_on_at_once(hire_at_store: Hire) -> None:
    """A drained worker releases its leases: nobody waits for the hour they would have lasted."""
    first = hire_at_store(Path("n1"), lease_seconds=3600, drain_seconds=0.2)
    second = hire_at_store(Path("n2"))
    first.ask("r1")
    wait_reading(first)

    assert first.stop() == 0
    second.ask("r1")
    data = second.wait_outcome("r1", seconds=120)

    assert data["outcome"] == "succeeded"
    assert not said(second, "lease_taken_over")
    assert len(second.sets()) == 1
