"""What a running worker tells of itself: whether it is ready and alive, and what keeps it from its work."""

from __future__ import annotations

from pathlib import Path

import orjson

from tests.workshop.rules import CLOSED, change, log_of, plans, ready
from tests.workshop.workers import Hire, wait_for


def test_a_worker_that_is_gone_is_neither_ready_nor_alive(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """Whether it ended in good order or not at all."""
    worker = hire(tmp_path / "n1", subject, tmp_path / "store")
    worker.start()
    wait_for(lambda: ready(worker), what="readiness")

    assert worker.stop() == 0

    assert [worker.run("status", probe).returncode for probe in ("--ready", "--live")] == [7, 7]
    assert b"none runs" in worker.run("status").stdout


def test_a_store_that_is_back_is_found_without_a_request(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """Else the worker would say for ever that it is not ready. The same for one that is not configured any more."""
    store = tmp_path / "store"
    worker = hire(tmp_path / "n1", subject, store, retry={"first_delay_seconds": 0.1, "max_delay_seconds": 0.5})
    store.rename(tmp_path / "unmounted")
    worker.start()
    wait_for(lambda: b"store disk is away" in worker.run("status", "--ready").stderr, what="the end of readiness")

    (tmp_path / "unmounted").rename(store)

    wait_for(lambda: ready(worker), what="readiness")
    assert worker.stop() == 0


def test_what_keeps_others_out_is_told(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """Requests that wait for their hours fill what the worker may hold."""
    worker = hire(
        tmp_path / "n1",
        subject,
        tmp_path / "store",
        plans=plans(subject, web={"allowed_hours": [CLOSED]}, db={}),
        max_accepted=3,
    )
    worker.start()
    for number in range(3):
        worker.ask(f"night-{number}")
    wait_for(lambda: len(log_of(worker, "request_accepted")) == 3, what="the requests")
    worker.ask("r1", plan="db")
    wait_for(lambda: not ready(worker), what="the end of readiness")
    assert b"max_accepted" in worker.run("status", "--ready").stderr

    change(worker, lambda document: document.update(max_accepted=10))

    assert worker.wait_outcome("r1")["outcome"] == "succeeded"
    wait_for(lambda: ready(worker), what="readiness")
    assert len(log_of(worker, "worker_full")) == 1
    assert worker.stop() == 0


def test_a_configuration_that_is_broken_later_does_not_fail_the_probes(
    hire: Hire, tmp_path: Path, subject: Path
) -> None:
    """The worker runs well on what it was: an orchestrator that started it again would make an outage of a slip."""
    worker = hire(tmp_path / "n1", subject, tmp_path / "store")
    worker.start()
    wait_for(lambda: ready(worker), what="readiness")

    document = orjson.loads(worker.config.read_bytes())
    worker.config.write_bytes(orjson.dumps({**document, "oops": 1}))

    assert [worker.run("status", probe).returncode for probe in ("--ready", "--live")] == [0, 0]
    assert worker.run("status").returncode == 2
    assert worker.stop() == 0
    assert worker.run("status", "--live").returncode == 7


def test_status_says_why_a_request_waits(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """In the words of `requests list`."""
    worker = hire(tmp_path / "n1", subject, tmp_path / "store", plans=plans(subject, web={"allowed_hours": [CLOSED]}))
    worker.start()
    worker.ask("r1")
    wait_for(lambda: len(log_of(worker, "request_accepted")) == 1, what="the request")

    assert b"waits for its plan's hours" in worker.run("status").stdout
    assert worker.stop() == 0


def test_an_unmounted_subject_is_told_an_unchanged_one_is_not(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """An increment has few members, and that alone says nothing."""
    worker = hire(tmp_path / "n1", subject, tmp_path / "store")
    worker.start()
    told = []
    for number in range(3):
        worker.ask(f"r{number}")
        told.append(worker.wait_outcome(f"r{number}")["warnings"])
        if number == 1:
            (subject / "page").unlink()

    assert told[:2] == [[], []]
    assert "is something not mounted?" in told[2][0]
    assert worker.stop() == 0


def test_a_store_that_no_plan_uses_keeps_nobody_from_being_ready(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """It may be the mount point of an archive that is seldom there."""
    stores = {name: {"kind": "local", "path": str(tmp_path / name)} for name in ("store", "archive")}
    used = {"web": {"handler": "tar", "store": "store", "options": {"root": str(subject)}}}
    worker = hire(tmp_path / "n1", subject, tmp_path / "store", stores=stores, plans=used)
    worker.start()

    wait_for(lambda: ready(worker), what="readiness")

    assert len(log_of(worker, "store_not_swept")) == 1
    assert worker.stop() == 0
