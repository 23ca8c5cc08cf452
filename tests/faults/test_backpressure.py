"""A worker with too much to do, or with no room to do it: memory stays bounded, nothing is lost, the cause is told."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from tests.faults.small_disk import fill, remount, small_disk
from tests.services.rabbitmq import RabbitMQ
from tests.workshop.producers import Producer
from tests.workshop.workers import Hire, Worker, wait_for

MIB = 1 << 20
QUICK: dict[str, Any] = {"attempts": 2, "first_delay_seconds": 0.1, "max_delay_seconds": 0.4}
MOST_MEMORY = 150 * MIB


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    """A tree that no codec makes smaller."""
    root = tmp_path / "subject"
    root.mkdir()
    (root / "block").write_bytes(os.urandom(MIB))
    return root


def count(worker: Worker, name: str) -> int:
    """How often the log has an event."""
    return worker.log.read_bytes().count(b'"event":"%b"' % name.encode())


def ready(worker: Worker) -> bool:
    """What `holdfast status --ready` says."""
    return worker.run("status", "--ready").returncode == 0


def memory(worker: Worker) -> int:
    """Bytes the worker has in memory."""
    assert worker.process is not None
    return int(psutil.Process(worker.process.pid).memory_info().rss)


@pytest.mark.slow
def test_ten_passes_of_a_full_disk(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """Each time the requests wait, each time they are done when there is room; each time it is told once."""
    with small_disk(tmp_path / "disk", kibibytes=64 << 10) as disk:
        worker = hire(tmp_path / "n1", subject, disk / "store", retry=QUICK)
        worker.start()
        for number in range(10):
            ballast = fill(disk)
            worker.ask(f"r{number}")
            wait_for(lambda told=number: count(worker, "store_away") == told + 1, what="the full disk")  # type: ignore[misc]
            assert worker.outcomes(f"r{number}") == []
            ballast.unlink()
            assert worker.wait_outcome(f"r{number}")["outcome"] == "succeeded"

        assert len(worker.sets()) == 10
        assert (count(worker, "store_away"), count(worker, "store_back")) == (10, 10)
        assert worker.leftovers() == []
        assert worker.run("verify", "web", "--all").returncode == 0
        assert worker.stop() == 0


def test_a_disk_without_inodes_left(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """There is room for bytes, and none for files: that is a full disk, too."""
    with small_disk(tmp_path / "disk", kibibytes=64 << 10) as disk:
        worker = hire(tmp_path / "n1", subject, disk / "store", retry=QUICK)
        worker.start()
        remount(disk, "nr_inodes=40")
        ballast = disk / "ballast"
        ballast.mkdir()
        try:
            for number in range(100):
                (ballast / str(number)).touch()
        except OSError:
            pass
        worker.ask("r1")
        wait_for(lambda: count(worker, "store_away") == 1, what="the full disk")

        shutil.rmtree(ballast)

        assert worker.wait_outcome("r1")["outcome"] == "succeeded"
        assert worker.leftovers() == []
        assert worker.stop() == 0


def test_a_disk_that_turns_read_only(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """The kernel does that after an error; when it is remounted the requests are done."""
    with small_disk(tmp_path / "disk", kibibytes=64 << 10) as disk:
        worker = hire(tmp_path / "n1", subject, disk / "store", retry=QUICK)
        worker.start()
        worker.ask("r1")
        assert worker.wait_outcome("r1")["outcome"] == "succeeded"
        remount(disk, "ro")
        worker.ask("r2")
        wait_for(lambda: not ready(worker), what="the end of readiness")
        assert b"Read-only file system" in worker.run("status", "--ready").stderr

        remount(disk, "rw")

        assert worker.wait_outcome("r2")["outcome"] == "succeeded"
        wait_for(lambda: ready(worker), what="readiness")
        assert worker.stop() == 0


def test_a_full_disk_below_the_worker_itself(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """Journal and spool have no room: nothing is promised, the worker lives on and says that it is not ready."""
    with small_disk(tmp_path / "disk", kibibytes=16 << 10) as disk:
        worker = hire(disk / "n1", subject, tmp_path / "store", retry=QUICK, log={"level": "info", "format": "json"})
        worker.log = tmp_path / "log"
        worker.start()
        worker.ask("r1")
        assert worker.wait_outcome("r1")["outcome"] == "succeeded"
        waiting = worker.spool / "tmp" / "r2.json"
        waiting.write_bytes(orjson.dumps({"id": "r2", "plan": "web"}))
        ballast = fill(disk)

        waiting.rename(worker.spool / "new" / "r2.json")

        wait_for(lambda: not ready(worker), what="the end of readiness", told=lambda: worker.log.read_text()[-2000:])
        assert worker.run("status", "--live").returncode == 0
        lines = worker.log.read_bytes().count(b"\n")
        time.sleep(3)  # a stretch in which a worker that cannot be quiet would write hundreds of lines
        assert worker.log.read_bytes().count(b"\n") - lines < 10
        ballast.unlink()
        assert worker.wait_outcome("r2")["outcome"] == "succeeded"
        wait_for(lambda: ready(worker), what="readiness")
        assert worker.stop() == 0


@pytest.mark.slow
def test_a_hundred_thousand_requests_in_the_spool(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """They wait where they are: the worker takes what it can work on, in bounded memory, and loses none."""
    total = 100_000
    worker = hire(
        tmp_path / "n1", subject, tmp_path / "store", log={"level": "warning", "format": "json"}, max_accepted=50
    )
    new = worker.spool / "new"
    for folder in ("tmp", "new"):
        (worker.spool / folder).mkdir(parents=True, exist_ok=True)
    for number in range(total):
        with open(f"{new}/r{number:06}.json", "wb", buffering=0) as file:  # noqa: PTH123 - a third of pathlib's time
            file.write(b'{"id": "r%06d", "plan": "web"}' % number)
    worker.start_quietly()

    wait_for(lambda: len(worker.outcomes()) >= 20, seconds=120, what="twenty outcomes")

    assert memory(worker) < MOST_MEMORY
    assert worker.stop() == 0
    done = set(worker.outcomes())
    held = len(list(new.iterdir())) + len(list((worker.spool / "cur").rglob("*.json")))
    finished = len(list((worker.spool / "done").rglob("*.json")))
    assert done == {"succeeded"}
    assert held + finished == total


@pytest.mark.slow
def test_a_hundred_thousand_requests_in_the_queue(
    hire: Hire, tmp_path: Path, subject: Path, rabbitmq: RabbitMQ
) -> None:
    """They wait at the broker: the worker takes what it can work on, in bounded memory, and loses none."""
    total = 100_000
    producer = Producer(rabbitmq.url)
    worker = hire(
        tmp_path / "n1",
        subject,
        tmp_path / "store",
        queue=producer.queue,
        spool={"enabled": True},
        max_accepted=50,
        log={"level": "info", "format": "json"},
    )
    worker.start()
    wait_for(lambda: count(worker, "queue_connected") == 1, what="the broker")
    assert worker.stop() == 0
    producer.publish_all((b'{"id": "r%06d", "plan": "web"}' % number, "application/json") for number in range(total))
    wait_for(lambda: producer.waiting() == total, seconds=120, what="the messages", told=producer.waiting)

    worker.start()
    wait_for(lambda: len(worker.outcomes()) >= 20, seconds=120, what="twenty outcomes")

    assert memory(worker) < MOST_MEMORY
    assert worker.stop() == 0
    status = orjson.loads(worker.run("status", "--json").stdout)
    settled = total - producer.waiting()
    answered = {event["data"]["request_id"] for event in worker.events() if event["data"].get("exit_code") is not None}
    assert settled == len(answered) + status["unfinished"]
    assert producer.dead() == 0
    producer.connection.release()
