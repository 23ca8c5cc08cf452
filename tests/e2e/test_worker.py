"""A real worker process: what goes in, what comes out, what is left when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson
import psutil
import pytest

from tests.workshop.workers import Hire, Worker, wait_for


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    """A small tree."""
    root = tmp_path / "subject"
    (root / "docs").mkdir(parents=True)
    for number in range(20):
        (root / "docs" / f"page-{number}.txt").write_text(f"page {number}\n" * 50)
    return root


@pytest.fixture
def large_subject(tmp_path: Path) -> Path:
    """A tree that takes a while with a slow codec: long enough to be killed in the middle."""
    root = tmp_path / "large"
    root.mkdir()
    block = os.urandom(1 << 20)
    for number in range(48):
        (root / f"block-{number}").write_bytes(block)
    return root


@pytest.fixture
def worker(hire: Hire, tmp_path: Path, subject: Path) -> Iterator[Worker]:
    """A worker that runs, and is stopped afterwards."""
    made = hire(tmp_path / "n1", subject, tmp_path / "store")
    made.start()
    yield made
    made.stop()


SLOW = {"codec": "xz", "strength": 6, "threads": 1}


def test_request_in_the_spool_becomes_a_set_and_an_event(worker: Worker) -> None:
    """The main job."""
    worker.ask("r1", reason="a test")

    data = worker.wait_outcome("r1")

    assert (data["outcome"], data["level"], data["exit_code"]) == ("succeeded", 0, 0)
    (made,) = worker.sets()
    assert data["backup_id"] == made.name
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=made, capture_output=True).returncode == 0
    assert [event["data"]["outcome"] for event in worker.events("r1")] == ["started", "succeeded"]


def test_levels_follow_each_other(worker: Worker, subject: Path) -> None:
    """Each request takes what changed since the last."""
    worker.ask("r1")
    worker.wait_outcome("r1")
    (subject / "docs" / "new.txt").write_text("new")

    worker.ask("r2")

    data = worker.wait_outcome("r2")
    assert data["level"] == 1
    assert data["parent"] == worker.wait_outcome("r1")["backup_id"]


def test_same_request_twenty_times_is_one_backup(worker: Worker) -> None:
    """One `succeeded`, nineteen `duplicate`."""
    for number in range(20):
        file = worker.spool / "tmp" / f"copy-{number}.json"
        file.write_bytes(orjson.dumps({"id": "r1", "plan": "web"}))
        file.rename(worker.spool / "new" / file.name)

    worker.wait_outcome("r1", count=20)

    assert sorted(worker.outcomes("r1")) == ["duplicate"] * 19 + ["succeeded"]
    assert len(worker.sets()) == 1


def test_worker_killed_in_the_middle_leaves_one_set_and_one_outcome(
    hire: Hire, tmp_path: Path, large_subject: Path
) -> None:
    """SIGKILL while it writes; after the restart as if nothing had been."""
    worker = hire(tmp_path / "n1", large_subject, tmp_path / "store", options=SLOW)
    worker.start()
    worker.ask("r1")
    drafts = worker.store / ".holdfast" / "drafts"
    wait_for(lambda: any(path.stat().st_size > 4 << 20 for path in drafts.rglob("data.tar*")), what="some data")
    assert worker.process is not None
    children = psutil.Process(worker.process.pid).children(recursive=True)

    worker.kill()
    wait_for(lambda: not any(child.is_running() for child in children), what="tar to die with its worker", seconds=10)
    assert worker.sets() == []
    worker.start()
    data = worker.wait_outcome("r1", seconds=120)

    assert (data["outcome"], data["attempt"]) == ("succeeded", 2)
    assert worker.outcomes("r1") == ["succeeded"]
    assert len(worker.sets()) == 1
    assert worker.stop() == 0
    assert worker.leftovers() == []


def test_drain_lets_running_work_end(hire: Hire, tmp_path: Path, large_subject: Path) -> None:
    """SIGTERM: the outcome is out before the process ends with 0."""
    worker = hire(tmp_path / "n1", large_subject, tmp_path / "store", options=SLOW, drain_seconds=120)
    worker.start()
    worker.ask("r1")
    wait_for(lambda: bool(worker.events("r1")), what="the start")

    code = worker.stop()

    assert code == 0
    assert worker.outcomes("r1") == ["succeeded"]


def test_drain_that_takes_too_long_hands_the_request_back(hire: Hire, tmp_path: Path, large_subject: Path) -> None:
    """Nothing is left behind; the next start goes on with it."""
    worker = hire(tmp_path / "n1", large_subject, tmp_path / "store", options=SLOW, drain_seconds=0.2)
    worker.start()
    worker.ask("r1")
    wait_for(lambda: bool(worker.events("r1")), what="the start")

    assert worker.stop() == 0

    assert worker.outcomes("r1") == []
    assert worker.leftovers() == []
    worker.start()
    assert worker.wait_outcome("r1", seconds=120)["outcome"] == "succeeded"
    assert worker.stop() == 0


def test_second_signal_cancels_at_once(hire: Hire, tmp_path: Path, large_subject: Path) -> None:
    """Whoever is in a hurry sends it twice."""
    worker = hire(tmp_path / "n1", large_subject, tmp_path / "store", options=SLOW, drain_seconds=600)
    worker.start()
    worker.ask("r1")
    wait_for(lambda: bool(worker.events("r1")), what="the start")
    assert worker.process is not None

    worker.process.send_signal(signal.SIGTERM)
    wait_for(lambda: b"worker_drains" in worker.log.read_bytes(), what="the drain")
    worker.process.send_signal(signal.SIGTERM)

    assert worker.process.wait(20) == 0
    assert worker.outcomes("r1") == []
    assert worker.leftovers() == []


def test_accepted_request_survives_the_loss_of_everything_but_state_and_store(worker: Worker, subject: Path) -> None:
    """Killed right after it took the request in."""
    worker.ask("r1")
    wait_for(lambda: not list((worker.spool / "new").glob("*.json")), what="the claim")

    worker.kill()
    worker.start()

    worker.wait_outcome("r1")
    assert worker.outcomes("r1").count("succeeded") == 1
    assert len(worker.sets()) == 1


def test_messages_that_are_no_requests_are_answered_and_kept(worker: Worker) -> None:
    """In `failed/`, with the reason beside them."""
    worker.ask("r1", plan="unknown")
    worker.ask("r2", path="/etc/shadow")

    wait_for(lambda: worker.outcomes() == ["refused", "refused"], what="two refusals")

    wait_for(lambda: len(list((worker.spool / "failed").glob("*.reason"))) == 2, what="the reasons")
    assert worker.sets() == []


def test_command_line_and_worker_take_turns(worker: Worker) -> None:
    """One writer for a plan on a host."""
    worker.ask("r1")
    done = worker.run("backup", "web", "--json")
    worker.wait_outcome("r1")

    assert done.returncode == 0, done.stderr
    assert len(worker.sets()) == 2
    levels = sorted(orjson.loads((made / "manifest.json").read_bytes())["level"] for made in worker.sets())
    assert levels == [0, 1]
