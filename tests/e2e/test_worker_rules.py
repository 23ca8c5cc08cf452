"""A running worker goes by its rules: who may begin, who waits, and what a changed configuration means."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.small_disk import small_disk
from tests.workshop.rules import CLOSED, change, log_of, plans, ready
from tests.workshop.workers import Hire, wait_for


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    """A small tree that does not shrink much: seconds of work at the speed that SLOWLY allows."""
    root = tmp_path / "subject"
    root.mkdir()
    (root / "block").write_bytes(os.urandom(3 << 20))
    return root


SLOWLY = {"limits": {"bandwidth_bytes_per_second": 1 << 20}}


def now_utc() -> datetime:
    """The time of the clock that deadlines are held against."""
    return datetime.now(UTC)


def test_a_changed_configuration_is_taken_over_while_the_worker_runs(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """New plans can be asked for, removed ones are refused; what needs a restart is named."""
    worker = hire(tmp_path / "n1", subject, tmp_path / "store")
    worker.start()

    def alter(document: dict[str, Any]) -> None:
        document["plans"] = plans(subject, db={})
        document["drain_seconds"] = 6

    change(worker, alter)
    wait_for(lambda: bool(log_of(worker, "configuration_reloaded")), what="the reload")
    worker.ask("new", plan="db")
    worker.ask("old", plan="web")

    assert worker.wait_outcome("new")["outcome"] == "succeeded"
    assert worker.wait_outcome("old")["outcome"] == "refused"
    (told,) = log_of(worker, "settings_need_restart")
    assert told["settings"] == ["drain_seconds"]
    (said,) = log_of(worker, "configuration_reloaded")
    assert (said["added"], said["removed"]) == (["db"], ["web"])
    assert worker.stop() == 0


def test_a_configuration_with_a_problem_changes_nothing(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """It is refused with every problem; the old one stays in force."""
    worker = hire(tmp_path / "n1", subject, tmp_path / "store")
    worker.start()

    def alter(document: dict[str, Any]) -> None:
        document["plans"]["db"] = {"handler": "tra", "options": {}}
        document["plans"]["etc"] = {"handler": "tar", "options": {"rot": "/etc"}}

    change(worker, alter)
    wait_for(lambda: bool(log_of(worker, "configuration_refused")), what="the refusal")
    worker.ask("r1")

    assert worker.wait_outcome("r1")["outcome"] == "succeeded"
    (told,) = log_of(worker, "configuration_refused")
    assert "plans.db.handler" in told["error"]
    assert "plans.etc.options.rot" in told["error"]
    worker.config.write_bytes(b"{")
    assert worker.process is not None
    worker.process.send_signal(signal.SIGHUP)
    wait_for(lambda: len(log_of(worker, "configuration_refused")) == 2, what="the second refusal")
    worker.ask("r2")
    assert worker.wait_outcome("r2")["outcome"] == "succeeded"
    assert worker.stop() == 0


def test_outside_its_hours_a_plan_waits(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """Others do not; when the hours are opened, it begins."""
    worker = hire(
        tmp_path / "n1", subject, tmp_path / "store", plans=plans(subject, web={"allowed_hours": [CLOSED]}, db={})
    )
    worker.start()
    worker.ask("early")
    worker.ask("other", plan="db")
    assert worker.wait_outcome("other")["outcome"] == "succeeded"
    assert worker.events("early") == []

    change(worker, lambda document: document["plans"]["web"].update(allowed_hours=["00:00-24:00"]))

    assert worker.wait_outcome("early")["outcome"] == "succeeded"
    assert worker.stop() == 0


def test_a_deadline_that_passes_outside_the_hours_is_honoured(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """What would begin too late is refused, not run."""
    worker = hire(tmp_path / "n1", subject, tmp_path / "store", plans=plans(subject, web={"allowed_hours": [CLOSED]}))
    worker.start()
    now = now_utc()
    worker.ask("r1", not_after=now.replace(microsecond=0).isoformat().replace("+00:00", ".900000+00:00"))
    worker.ask("r2", not_after=(now.replace(year=now.year + 1)).isoformat())
    wait_for(lambda: now_utc().timestamp() > now.timestamp() + 2, what="the deadline")

    change(worker, lambda document: document["plans"]["web"].update(allowed_hours=[]))

    assert worker.wait_outcome("r2")["outcome"] == "succeeded"
    assert worker.wait_outcome("r1")["outcome"] == "refused"
    assert worker.stop() == 0


def test_the_most_urgent_of_the_accepted_requests_comes_first(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """Whatever the order they came in."""
    named = {name: {"priority": priority, "allowed_hours": [CLOSED]} for name, priority in PRIORITIES.items()}
    worker = hire(
        tmp_path / "n1", subject, tmp_path / "store", plans=plans(subject, **named), concurrency=1, accept_ahead=10
    )
    worker.start()
    for name in PRIORITIES:
        worker.ask(name, plan=name)
    wait_for(lambda: len(log_of(worker, "request_accepted")) == len(PRIORITIES), what="the requests")

    def open_hours(document: dict[str, Any]) -> None:
        for plan in document["plans"].values():
            plan["allowed_hours"] = []

    change(worker, open_hours)
    for name in PRIORITIES:
        worker.wait_outcome(name)

    begun = [event["data"]["request_id"] for event in worker.events() if event["data"]["outcome"] == "started"]
    assert begun == ["urgent", "usual", "lazy"]
    assert worker.stop() == 0


PRIORITIES = {"lazy": 1, "usual": 5, "urgent": 8}


def test_a_handler_works_on_no_more_than_it_may(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """However many slots are free."""
    names = ["a", "b", "c"]
    worker = hire(
        tmp_path / "n1",
        subject,
        tmp_path / "store",
        plans=plans(subject, **dict.fromkeys(names, SLOWLY)),
        concurrency=3,
        handler_concurrency={"tar": 1},
    )
    worker.start()
    for name in names:
        worker.ask(name, plan=name)
    for name in names:
        worker.wait_outcome(name)

    words = [event["data"]["outcome"] for event in worker.events()]
    assert words == ["started", "succeeded"] * 3
    assert worker.stop() == 0


def test_requests_wait_for_a_store_that_is_away(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """The log and `status` say so once; the worker is not ready meanwhile; nothing fails, nothing is lost."""
    store = tmp_path / "store"
    worker = hire(
        tmp_path / "n1",
        subject,
        store,
        plans=plans(subject, web={}, db={}),
        retry={"attempts": 1, "first_delay_seconds": 0.1, "max_delay_seconds": 0.5},
    )
    worker.start()
    wait_for(lambda: ready(worker), what="readiness")
    store.rename(tmp_path / "unmounted")
    for number in range(20):
        worker.ask(f"web-{number}")
        worker.ask(f"db-{number}", plan="db")
    wait_for(lambda: not ready(worker), what="the end of readiness")
    told = worker.run("status", "--ready")
    assert (told.returncode, b"store disk is away" in told.stderr) == (7, True)
    assert worker.run("status", "--live").returncode == 0
    assert b"not ready: store disk is away" in worker.run("status").stdout

    (tmp_path / "unmounted").rename(store)

    for number in range(20):
        for plan in ("web", "db"):
            assert worker.wait_outcome(f"{plan}-{number}", seconds=120)["outcome"] == "succeeded"
    wait_for(lambda: ready(worker), what="readiness")
    assert (len(log_of(worker, "store_away")), len(log_of(worker, "store_back"))) == (1, 1)
    assert len(worker.sets()) == 40
    assert worker.stop() == 0


def test_the_work_stands_back_as_its_plan_says(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """Its programs too; the worker itself and the work of other plans do not."""
    (subject / "block").write_bytes(os.urandom(48 << 20))  # more than there is memory for on the way to the store
    speed = {"bandwidth_bytes_per_second": 16 << 20}
    gentle = {"nice": 7, "io_class": "idle", **speed}
    worker = hire(
        tmp_path / "n1",
        subject,
        tmp_path / "store",
        plans=plans(subject, gentle={"limits": gentle}, usual={"limits": speed}),
        concurrency=1,
    )
    worker.start()
    assert worker.process is not None
    process = psutil.Process(worker.process.pid)
    seen: dict[str, set[int]] = {"gentle": set(), "usual": set()}

    for name, found in seen.items():
        worker.ask(name, plan=name)

        def looked(name: str = name, found: set[int] = found) -> bool:
            with suppress(psutil.Error):
                found.update(child.nice() for child in process.children() if "--create" in child.cmdline())
            return bool(worker.outcomes(name))

        wait_for(looked, what="the outcome")

    assert seen == {"gentle": {7}, "usual": {0}}
    assert process.nice() == 0
    assert worker.outcomes() == ["succeeded"] * 2
    assert worker.stop() == 0


def test_a_backup_is_written_no_faster_than_its_plan_allows(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """Three megabytes at one a second take some three seconds."""
    worker = hire(
        tmp_path / "n1",
        subject,
        tmp_path / "store",
        plans=plans(subject, web=SLOWLY),
    )
    worker.start()
    worker.ask("r1")

    done = worker.wait_outcome("r1")

    took = datetime.fromisoformat(done["finished"]) - datetime.fromisoformat(done["started"])
    assert took.total_seconds() > 2
    assert worker.stop() == 0


def test_a_large_backup_does_not_keep_small_ones_from_a_full_store(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """Though it is older, and more urgent."""
    large = tmp_path / "large"
    large.mkdir()
    (large / "block").write_bytes(os.urandom(20 << 20))
    with small_disk(tmp_path / "disk", kibibytes=8 << 10) as disk:
        worker = hire(
            tmp_path / "n1",
            subject,
            disk / "store",
            plans={**plans(large, large={"priority": 9}), **plans(subject, small={})},
            retry={"first_delay_seconds": 0.1, "max_delay_seconds": 0.5},
        )
        worker.start()
        worker.ask("large", plan="large")
        wait_for(lambda: bool(log_of(worker, "store_away")), what="the full disk")
        worker.ask("small", plan="small")

        assert worker.wait_outcome("small", seconds=30)["outcome"] == "succeeded"
        assert worker.outcomes("large") == []
        assert worker.stop() == 0


def test_a_machine_without_a_known_time_zone_refuses_the_change_that_needs_it(
    hire: Hire, tmp_path: Path, subject: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker goes on by what it had."""
    monkeypatch.setenv("TZ", "Nonsense/Nowhere")
    worker = hire(tmp_path / "n1", subject, tmp_path / "store", time_zone="UTC")
    worker.start()

    change(worker, lambda document: document.pop("time_zone"))

    wait_for(lambda: bool(log_of(worker, "configuration_refused")), what="the refusal")
    worker.ask("r1")
    assert worker.wait_outcome("r1")["outcome"] == "succeeded"
    assert worker.stop() == 0
