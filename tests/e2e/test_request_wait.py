"""`holdfast request --wait`, by every way a request can go."""

from __future__ import annotations

import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.services.rabbitmq import RabbitMQ
from tests.workshop.workers import HOLDFAST, Hire, Worker, wait_for


@pytest.fixture(params=["spool", "rabbitmq", "redis"])
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of a worker that takes its requests from there."""
    if request.param == "spool":
        return {}
    server = request.getfixturevalue("rabbitmq" if request.param == "rabbitmq" else "redis_server")
    return {"queue": queue(server.url)}


def queue(url: str, **more: object) -> dict[str, object]:
    """Settings with names that no other test uses."""
    mark = uuid.uuid4().hex[:8]
    names = {"name": f"requests-{mark}", "exchange": f"in-{mark}", "events_exchange": f"events-{mark}"}
    return {"url": url, "dead_letter_exchange": f"dead-{mark}", **names, **more}


@pytest.fixture
def worker(hire: Hire, tmp_path: Path, way: dict[str, Any]) -> Worker:
    """One with a plan that works and a plan that cannot; not started."""
    return plant(hire, tmp_path, **way)


def plant(hire: Hire, tmp_path: Path, **settings: Any) -> Worker:
    subject = tmp_path / "subject"
    subject.mkdir()
    (subject / "page").write_text("hello")
    plans = {
        "web": {"handler": "tar", "options": {"root": str(subject)}},
        "gone": {"handler": "tar", "options": {"root": str(tmp_path / "gone")}},
    }
    return hire(tmp_path / "n1", subject, tmp_path / "store", plans=plans, **settings)


def start(worker: Worker) -> None:
    """It has declared its queue on return, if it has one."""
    worker.start()
    if b'"queue"' in worker.config.read_bytes():
        wait_for(lambda: b'"queue_connected"' in worker.log.read_bytes(), what="the broker connection")


def ask(worker: Worker, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the outcome that was printed."""
    done = worker.run("request", *arguments, "--wait", "--timeout", "60", "--json")
    lines = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert lines, done.stderr
    return done.returncode, lines[-1]


def test_exit_code_is_that_of_the_outcome(worker: Worker) -> None:
    """Done, the same again, another with that id, not allowed, impossible."""
    start(worker)

    answers = [
        ask(worker, "web", "--id", "one"),
        ask(worker, "web", "--id", "one"),
        ask(worker, "web", "--id", "one", "--level", "full"),
        ask(worker, "nonsense"),
        ask(worker, "gone"),
        ask(worker, "web", "--operation", "verify"),
    ]

    assert [(code, told["outcome"]) for code, told in answers] == [
        (0, "succeeded"),
        (0, "duplicate"),
        (5, "refused"),
        (4, "refused"),
        (1, "failed"),
        (0, "succeeded"),
    ]
    assert [told["exit_code"] for _, told in answers] == [code for code, _ in answers]
    assert len(worker.sets()) == 1
    assert worker.stop() == 0


def test_waiting_ends_in_time_and_the_request_goes_on(worker: Worker) -> None:
    """Exit code 7 without a worker; the one that comes later does it, and whoever asks again hears of it."""
    start(worker)
    assert worker.stop() == 0

    done = worker.run("request", "web", "--id", "late", "--wait", "--timeout", "0.5")
    start(worker)
    wait_for(lambda: len(worker.sets()) == 1, what="the set")
    code, told = ask(worker, "web", "--id", "late")

    assert done.returncode == 7
    assert b"error: no outcome within 0.5 s" in done.stderr
    assert (code, told["outcome"], told["original"]) == (0, "duplicate", "succeeded")
    assert worker.stop() == 0


def test_two_who_wait_for_one_request_hear_the_same(worker: Worker) -> None:
    """Both before the worker comes: one backup, both end with 0."""
    start(worker)
    assert worker.stop() == 0

    with asking(worker, "--id", "both") as first, asking(worker, "--id", "both") as second:
        start(worker)
        ends = [process.communicate(timeout=60) for process in (first, second)]

    assert (first.returncode, second.returncode) == (0, 0)
    (made,) = worker.sets()
    assert all(made.name in told.decode() for told, _ in ends)
    assert worker.stop() == 0


@contextmanager
def asking(worker: Worker, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`holdfast request --wait` that has sent its request and waits."""
    argv = [HOLDFAST, "--config", worker.config, "--log-level", "debug", "request", "web", "--wait", *arguments]
    process = subprocess.Popen([*argv, "--timeout", "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert b"/cli " in process.stdout.readline()
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_ctrl_c_ends_the_waiting_alone(worker: Worker) -> None:
    """Exit code 130; the request is done by the worker that comes."""
    start(worker)
    assert worker.stop() == 0

    with asking(worker, "--id", "left") as process:
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=20)
    start(worker)

    assert process.returncode == 130
    assert b"Traceback" not in complaint
    wait_for(lambda: len(worker.sets()) == 1, what="the set")
    assert worker.stop() == 0


def test_reply_that_is_not_allowed_is_told_before_anything_is_sent(
    hire: Hire, tmp_path: Path, rabbitmq: RabbitMQ
) -> None:
    """Else it would be refused in silence, and the waiting have no end."""
    worker = plant(hire, tmp_path, queue=queue(rabbitmq.url, reply_to_allowed=[]))
    start(worker)

    done = worker.run("request", "web", "--id", "mute", "--wait")
    asked = worker.run("request", "web", "--id", "mute")

    assert done.returncode == 1
    assert b"queue.reply_to_allowed" in done.stderr
    assert asked.returncode == 0
    wait_for(lambda: worker.outcomes() == ["succeeded"], what="the outcome", told=worker.events)
    assert worker.stop() == 0


@pytest.mark.parametrize("broker", ["mortal_rabbitmq", "mortal_redis"])
def test_broker_that_dies_while_somebody_waits_is_temporary(
    hire: Hire, tmp_path: Path, request: pytest.FixtureRequest, broker: str
) -> None:
    """Exit code 7 and a hint how to ask again; the request is still in the queue, and is done."""
    server = request.getfixturevalue(broker)
    # Killed just after a publish, RabbitMQ 3.10 was seen to confirm nothing on its quorum queue after the restart:
    # another matter than what somebody who waits is told.
    worker = plant(hire, tmp_path, queue=queue(server.url, type="classic"))
    start(worker)
    assert worker.stop() == 0

    with asking(worker, "--id", "cut") as process:
        server.kill(kind="classic")
        _, complaint = process.communicate(timeout=60)
    server.start()
    start(worker)
    code, told = ask(worker, "web", "--id", "cut")

    assert process.returncode == 7, complaint
    assert b"--id cut" in complaint
    assert (code, told["backup_id"]) == (0, worker.sets()[0].name)
    assert len(worker.sets()) == 1
    assert worker.stop() == 0
