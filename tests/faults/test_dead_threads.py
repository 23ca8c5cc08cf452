"""Half a worker is worse than none: when one of its threads dies, the process ends and says why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.workshop.workers import Hire, wait_for


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    """A small tree."""
    root = tmp_path / "subject"
    root.mkdir()
    (root / "page").write_text("hello")
    return root


BREAKS = """
import sys
from {module} import {name}
def broken(*arguments, **named):
    raise RuntimeError("this thread dies")
{name}.{method} = broken
from worker.cli import main
sys.argv[0] = "holdfast"
main()
"""


@pytest.mark.parametrize(
    ("thread", "module", "name", "method"),
    [
        ("announcer", "worker.spool_events", "SpoolEvents", "send"),
        ("scheduler", "worker.scheduler", "Scheduler", "_sleep"),
        ("intake-spool", "worker.intake.spool", "SpoolIntake", "_bring"),
        ("work-web", "worker.pipeline", "Pipeline", "_dispose"),
    ],
)
def test_a_thread_that_dies_ends_the_worker_with_a_clear_last_line(
    hire: Hire, tmp_path: Path, subject: Path, thread: str, module: str, name: str, method: str
) -> None:
    """Exit code 1 and the reason; the request is not lost: a worker in good health ends it."""
    worker = hire(tmp_path / "n1", subject, tmp_path / "store")
    worker.start()
    assert worker.stop() == 0
    worker.ask("r1")
    script = BREAKS.format(module=module, name=name, method=method)
    if thread == "work-web":
        subject.rename(tmp_path / "away")  # an error, which is where this thread dies
    dying = [sys.executable, "-c", script, "--config", worker.config, "run"]

    with worker.log.open("ab") as log:
        worker.process = subprocess.Popen(dying, stdout=log, stderr=log)
    wait_for(lambda: worker.ended, what="the end of the worker", told=lambda: worker.log.read_text()[-2000:])

    assert worker.process.returncode == 1
    last = orjson.loads(worker.log.read_bytes().splitlines()[-1])
    assert last["event"] == "worker_broken"
    assert thread in last["reason"]
    assert "this thread dies" in last["reason"]
    if thread == "work-web":
        (tmp_path / "away").rename(subject)
    worker.start()
    assert worker.wait_outcome("r1")["outcome"] == "succeeded"
    assert len(worker.sets()) == 1
    assert worker.leftovers() == []
    assert worker.stop() == 0


def test_an_intake_that_can_never_work_keeps_the_worker_from_starting(
    hire: Hire, tmp_path: Path, subject: Path
) -> None:
    """It says what is in its way."""
    worker = hire(tmp_path / "n1", subject, tmp_path / "store")
    worker.start()
    assert worker.stop() == 0
    spool = worker.spool
    for directory in ("new", "cur"):
        for file in (spool / directory).rglob("*"):
            if file.is_file():
                file.unlink()
    new = spool / "new"
    new.rmdir()
    new.write_text("in the way")

    worker.start_quietly()
    wait_for(lambda: worker.ended, what="the end of the worker", told=lambda: worker.log.read_text()[-2000:])

    assert worker.process is not None
    assert worker.process.returncode != 0
    assert "in the way" not in worker.log.read_text()
    assert str(new) in worker.log.read_text()
