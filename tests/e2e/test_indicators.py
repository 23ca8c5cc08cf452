"""A worker that is asked by touching files, and answers in the same directories."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.workshop import UNPRIVILEGED
from tests.workshop import doomed_indicators
from tests.workshop.another_user import needs_another_user
from tests.workshop.doomed import DIE_AT, MARK
from tests.workshop.indicating import touch
from tests.workshop.workers import HOLDFAST, Hire, Worker, wait_for

PLAIN = {"scan_seconds": 1, "on_failure": {"write": "cback.failed"}}


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    root = tmp_path / "subject"
    root.mkdir()
    (root / "file").write_text("hello")
    return root


@pytest.fixture
def web(tmp_path: Path) -> Path:
    """The collect directory of a peer."""
    directory = tmp_path / "collect" / "web"
    directory.mkdir(parents=True)
    return directory


@pytest.fixture
def make(hire: Hire, tmp_path: Path, subject: Path, web: Path) -> Iterator[Any]:
    """A worker whose indicators are those in the collect directories."""
    made: list[Worker] = []

    def worker(settings: dict[str, Any] = PLAIN, **more: Any) -> Worker:
        pool = {"directories": [f"{web.parent}/*"], "plan": "web", **settings}
        made.append(hire(tmp_path / "n1", subject, tmp_path / "store", indicators={"pool": pool}, **more))
        return made[-1]

    yield worker
    for worker_ in made:
        if not worker_.ended:
            assert worker_.stop() == 0


def request_of(answer: Path) -> str:
    """The request that an answer names, once it is there."""
    wait_for(answer.exists, what=str(answer))
    return dict(word.split("=", 1) for word in answer.read_text().split())["request"]


def wait_idle(worker: Worker) -> None:
    wait_for(lambda: json.loads(worker.run("status", "--json").stdout)["unfinished"] == 0)


def test_touch_becomes_one_set_and_an_answer(make: Any, web: Path) -> None:
    """However often it is looked at; the outcome is announced as for any other request."""
    worker = make()
    worker.start()
    touch(web)

    request = request_of(web / "cback.stage")

    data = worker.wait_outcome(request)
    (made,) = worker.sets()
    assert (web / "cback.stage").read_text() == f"request={request} backup={made.name} outcome=succeeded\n"
    assert (data["outcome"], data["backup_id"]) == ("succeeded", made.name)
    assert worker.outcomes() == ["succeeded"]


def test_each_touch_is_answered_with_its_own_request(make: Any, web: Path) -> None:
    """The second one while the first is worked on: the first is not answered any more, the second is."""
    worker = make()
    worker.start()
    touch(web)
    first = request_of(web / "cback.stage")
    touch(web)
    last = touch(web)
    wanted = f"{last.stat().st_mtime_ns % 10**9:09}Z"

    wait_for(lambda: wanted in request_of(web / "cback.stage"))

    wait_idle(worker)
    assert first != request_of(web / "cback.stage")
    assert set(worker.outcomes()) == {"succeeded"}


def test_left_indicator_asks_for_nothing_more(make: Any, web: Path) -> None:
    """After a restart; after a restart without the journal, which only the answer beside it tells of."""
    worker = make()
    worker.start()
    touch(web)
    request_of(web / "cback.stage")
    before = (web / "cback.stage").stat()
    worker.stop()
    worker.start()
    (web.parent / "db").mkdir()
    touch(web.parent / "db")
    request_of(web.parent / "db" / "cback.stage")
    worker.stop()
    for file in (worker.place / "state").glob("journal.sqlite3*"):
        file.unlink()

    worker.start()
    touch(web.parent / "db")
    wait_for(lambda: worker.log.read_bytes().count(b'"indicator_answered"') == 3)

    assert len(worker.sets()) == 3
    assert (web / "cback.stage").stat() == before


@pytest.mark.parametrize("step", doomed_indicators.STEPS)
def test_killed_anywhere_it_is_one_set_and_one_answer(make: Any, web: Path, tmp_path: Path, step: str) -> None:
    """And the indicator is where it belongs, with nothing of ours beside it."""
    worker = make({"scan_seconds": 1, "on_success": {"write": "cback.stage", "indicator": "move"}})
    mark = tmp_path / "mark"
    touch(web)
    program = [sys.executable, "-m", "tests.workshop.doomed_indicators", "--config", str(worker.config), "run"]
    with worker.log.open("ab") as log:
        worker.process = subprocess.Popen(
            program, stdout=log, stderr=log, env={**os.environ, DIE_AT: step, MARK: str(mark)}
        )
    assert worker.process.wait(60) == -9, worker.log.read_text()
    assert mark.exists()

    worker.start()

    request = request_of(web / "cback.stage")
    wait_for((web / "done" / "cback.collect").exists)
    worker.wait_outcome(request)
    assert len(worker.sets()) == 1
    assert {path.name for path in web.iterdir()} == {"cback.stage", "done"}
    assert [path.name for path in (web / "done").iterdir()] == ["cback.collect"]


def test_directory_may_name_its_plan(make: Any, web: Path) -> None:
    """One that is called like no plan is refused, and told so."""
    for name in ("nobody", "no plan's name"):
        (web.parent / name).mkdir()
        touch(web.parent / name)
    touch(web)
    worker = make({**PLAIN, "plan": "{directory}"})
    worker.start()

    request_of(web / "cback.stage")
    for name in ("nobody", "no plan's name"):
        answer = web.parent / name / "cback.failed"
        wait_for(answer.exists)
        assert answer.read_text().endswith("backup=- outcome=refused\n")
        assert not (web.parent / name / "cback.stage").exists()
    assert len(worker.sets()) == 1


def test_failure_is_told_apart(make: Any, web: Path, subject: Path) -> None:
    """The indicator goes where the configuration says; no success is claimed."""
    worker = make({"on_failure": {"write": "cback.failed", "indicator": "move", "move_to": "failed"}})
    worker.start()
    subject.rename(subject.with_name("away"))
    touch(web)

    request = request_of(web / "cback.failed")

    wait_for((web / "failed" / "cback.collect").exists)
    assert worker.wait_outcome(request)["outcome"] == "failed"
    assert not (web / "cback.stage").exists()


@pytest.mark.parametrize("counts", ["success", "failure"])
def test_partial_counts_as_configured(make: Any, web: Path, subject: Path, counts: str) -> None:
    """A set that lacks files is a failure unless the operator says otherwise."""
    (subject / "unreadable").touch(mode=0)
    worker = make({**PLAIN, "on_partial": counts})
    with worker.log.open("ab") as log:
        command = [*UNPRIVILEGED, str(HOLDFAST), "--config", str(worker.config), "run"]
        worker.process = subprocess.Popen(command, stdout=log, stderr=log)
    touch(web)

    request = request_of(web / {"success": "cback.stage", "failure": "cback.failed"}[counts])

    assert worker.wait_outcome(request)["outcome"] == "partial"
    assert len(list(web.iterdir())) == 2


def test_commands_know_where_a_request_came_from(make: Any, web: Path) -> None:
    """`requests` and `status` name the intake."""
    worker = make()
    worker.start()
    touch(web)
    request = request_of(web / "cback.stage")

    shown = worker.run("requests", "show", request).stdout.decode()

    assert "indicators.pool" in shown


@needs_another_user
def test_directory_that_cannot_be_written_is_told_and_answered_later(make: Any, web: Path) -> None:
    """The outcome is announced, nobody else waits; when the directory can be written again, the answer comes."""
    subprocess.run(["mount", "-t", "tmpfs", "none", str(web)], check=True)
    try:
        worker = make()
        touch(web)
        subprocess.run(["mount", "-o", "remount,ro", str(web)], check=True)
        other = web.parent / "db"
        other.mkdir()
        worker.start()
        wait_for(lambda: b'"indicator_unanswered"' in worker.log.read_bytes())
        touch(other)
        request_of(other / "cback.stage")
        wait_for(lambda: json.loads(worker.run("status", "--json").stdout)["unsent_events"] == 0)
        assert worker.log.read_bytes().count(b'"indicator_unanswered"') == 1

        subprocess.run(["mount", "-o", "remount,rw", str(web)], check=True)

        request_of(web / "cback.stage")
    finally:
        subprocess.run(["umount", "-l", str(web)], check=True)


def test_delivery_may_stay_open_until_the_outcome_is_out(make: Any, web: Path) -> None:
    """With `settle: announced`; the answer is the same."""
    worker = make(settle="announced")
    worker.start()
    touch(web)

    request_of(web / "cback.stage")

    wait_idle(worker)
    assert worker.outcomes() == ["succeeded"]


def test_doctor_tells_what_will_not_work(make: Any, web: Path) -> None:
    """Directories without a plan, patterns without a directory; all is well where each has one."""

    def checked(worker: Worker) -> tuple[str, str]:
        checks = [json.loads(line) for line in worker.run("doctor", "--json").stdout.splitlines()]
        (found,) = [check for check in checks if check["check"] == "indicators pool"]
        return found["verdict"], found["message"]

    assert checked(make({"plan": "{directory}"})) == ("OK", "1 directory")

    (web.parent / "stranger").mkdir()
    assert checked(make({"plan": "{directory}"})) == ("WARN", f"no plan for {web.parent}/stranger")

    assert checked(make({"directories": ["/no/where/*"]})) == ("WARN", "no directory is there: /no/where/*")
