"""`holdfast requests`: asking again, dropping; beside a running worker, and without one."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import kombu
import orjson
import pytest

from tests.services.rabbitmq import RabbitMQ
from tests.workshop.requests import ONCE, lines, states
from tests.workshop.workers import HOLDFAST, Hire, Worker, wait_for
from worker.intake.wire import BackupRequest, RequestData, RequestId
from worker.journal.sqlite import SqliteJournal
from worker.pipeline import DEATHS

PATIENT = {"attempts": 3, "first_delay_seconds": 600, "max_delay_seconds": 3600}
"""The first temporary error puts a request off for longer than any test takes."""
SLOW = {"codec": "xz", "strength": 6, "threads": 1}


@pytest.fixture
def large_subject(tmp_path: Path) -> Path:
    """A tree that takes a while with a slow codec."""
    root = tmp_path / "large"
    root.mkdir()
    block = os.urandom(1 << 20)
    for number in range(96):
        (root / f"block-{number}").write_bytes(block)
    return root


def take_away(store: Path) -> Path:
    """The store's disk is not mounted."""
    return store.rename(store.with_name("not-mounted"))


def parked(worker: Worker, *names: str, **more: object) -> None:
    """Requests that end while the store is away; it is back on return."""
    gone = take_away(worker.store)
    for name in names:
        worker.ask(name, **more)
        worker.wait_outcome(name)
    gone.rename(worker.store)


def put_off(worker: Worker, name: str) -> None:
    """A request that waits for its store; the worker is stopped on return."""
    worker.start()
    gone = take_away(worker.store)
    worker.ask(name)
    wait_for(lambda: states(worker).get(name) == "waiting for its store", what="the request to be put off")
    worker.stop()
    gone.rename(worker.store)


def test_a_parked_request_is_asked_again_and_succeeds(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """Under an id of its own, beside the running worker; the old outcome stands, and is parked no more."""
    worker = hire(tmp_path / "n1", subject, tmp_path / "store", retry=ONCE)
    worker.start()
    parked(worker, "r1", reason="nightly", labels={"team": "shop"})
    before = lines(worker, "list")

    (asked,) = lines(worker, "requeue", "r1")
    data = worker.wait_outcome("r1~2")

    assert [(line["request_id"], line["state"], line["exit_code"]) for line in before] == [("r1", "parked", 7)]
    assert asked == {"request_id": "r1~2", "asked_again_for": "r1", "plan": "web", "dropped_not_after": None}
    assert (data["outcome"], data["labels"]) == ("succeeded", {"team": "shop"})
    assert orjson.loads((worker.sets()[0] / "manifest.json").read_bytes())["reason"] == "asked again for r1: nightly"
    assert worker.outcomes("r1") == ["failed"]
    assert states(worker) == {}
    assert states(worker, "--state", "all") == {"r1~2": "succeeded", "r1": "failed"}


def test_all_parked_requests_are_asked_again_once(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """Without a worker; the next one does them all. Asking for it twice asks nothing twice."""
    worker = hire(tmp_path / "n1", subject, tmp_path / "store", retry=ONCE)
    worker.start()
    parked(worker, "r1", "r2", "r3")
    worker.stop()

    none = worker.run("requests", "requeue", "--all-parked", "--plan", "other")
    first = [line["request_id"] for line in lines(worker, "requeue", "--all-parked", "--plan", "web")]
    again = worker.run("requests", "requeue", "--all-parked")
    worker.start()

    assert first == ["r3~2", "r2~2", "r1~2"]
    assert (none.returncode, none.stdout, again.returncode, again.stdout) == (0, b"", 0, b"")
    assert [worker.wait_outcome(name)["outcome"] for name in first] == ["succeeded"] * 3


def test_a_request_over_which_workers_died_is_parked(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """Its attempts were begun, and never ended; asked again, it gets new ones."""
    worker = hire(tmp_path / "n1", subject, tmp_path / "store", retry=ONCE)
    (worker.place / "state").mkdir()
    with closing(SqliteJournal(worker.place / "state" / "journal.sqlite3")) as journal:
        now = datetime.now(UTC)
        request = BackupRequest(request_id="r1", data=RequestData(plan="web"))
        journal.begin(request, intake="spool", redelivered=False, now=now)
        for _ in range(DEATHS):
            journal.attempt(RequestId("r1"), now=now)

    worker.start()
    worker.wait_outcome("r1")
    found = states(worker)
    lines(worker, "requeue", "r1")

    assert found == {"r1": "parked"}
    assert worker.wait_outcome("r1~2")["outcome"] == "succeeded"


def test_asking_again_goes_on_from_the_last_time(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """The next number, whichever of them is named; what succeeded or is open is left alone."""
    worker = hire(tmp_path / "n1", subject, tmp_path / "store", retry=ONCE)
    worker.start()
    parked(worker, "r1")
    gone = take_away(worker.store)
    lines(worker, "requeue", "r1")
    worker.wait_outcome("r1~2")
    worker.stop()

    third = lines(worker, "requeue", "r1")
    open_one = worker.run("requests", "requeue", "r1~2")
    gone.rename(worker.store)
    worker.start()
    worker.wait_outcome("r1~3")
    done = worker.run("requests", "requeue", "r1")

    assert [(line["request_id"], line["asked_again_for"]) for line in third] == [("r1~3", "r1~2")]
    assert open_one.returncode == done.returncode == 1
    assert b"request r1~2 was asked again as r1~3, which has no outcome yet" in open_one.stderr
    assert b"request r1 was asked again as r1~3, which has succeeded" in done.stderr
    assert orjson.loads((worker.sets()[0] / "manifest.json").read_bytes())["reason"] == "asked again for r1~2"


def test_what_was_refused_for_its_deadline_is_asked_again_without_one(
    hire: Hire, tmp_path: Path, subject: Path
) -> None:
    """Nobody could meet it any more; that is said. A deadline to come stays."""
    worker = hire(tmp_path / "n1", subject, tmp_path / "store", retry=ONCE)
    worker.start()
    soon = datetime.now(UTC) + timedelta(seconds=3)
    later = datetime.now(UTC) + timedelta(days=1)
    parked(worker, "soon", not_after=soon.isoformat())
    parked(worker, "later", not_after=later.isoformat())
    wait_for(lambda: datetime.now(UTC) > soon, what="the deadline to pass")

    told = worker.run("requests", "requeue", "soon")
    lines(worker, "requeue", "later")

    assert told.returncode == 0
    assert b"has passed: soon~2 is asked without one" in told.stderr
    assert worker.wait_outcome("soon~2")["outcome"] == worker.wait_outcome("later~2")["outcome"] == "succeeded"
    (shown,) = lines(worker, "show", "later~2")
    assert datetime.fromisoformat(shown["request"]["data"]["not_after"]) == later


def test_a_request_for_a_plan_of_the_past_is_not_asked_again(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """Refused with exit code 4; nothing is put into the journal."""
    worker = hire(tmp_path / "n1", subject, tmp_path / "store", retry=ONCE)
    worker.start()
    parked(worker, "r1", "r2")
    worker.stop()
    document = json.loads(worker.config.read_text())
    document["plans"]["web"]["enabled"] = False
    worker.config.write_text(json.dumps(document))

    one = worker.run("requests", "requeue", "r1")
    every = worker.run("requests", "requeue", "--all-parked")

    assert (one.returncode, every.returncode) == (4, 4)
    assert b"no plan 'web'" in one.stderr
    assert every.stderr.count(b"no plan 'web'") == 2
    assert states(worker, "--state", "all") == {"r2": "parked", "r1": "parked"}


def test_a_dropped_request_fails_and_its_caller_hears_it(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """Before a worker comes back to it; a worker that does finds nothing to do, and it can be asked again."""
    worker = hire(tmp_path / "n1", subject, tmp_path / "store", retry=PATIENT)
    put_off(worker, "r1")

    (dropped,) = lines(worker, "drop", "r1", "--yes")
    worker.start()
    worker.run("requests", "requeue", "r1")
    worker.wait_outcome("r1~2")

    assert (dropped["outcome"], dropped["exit_code"]) == ("failed", 130)
    assert dropped["error"].startswith("dropped by ")
    assert dropped["error"].endswith("@n1")
    assert worker.outcomes("r1") == ["failed"]
    assert worker.outcomes("r1~2") == ["succeeded"]
    assert len(worker.sets()) == 1


def test_a_caller_at_the_queue_hears_of_the_drop(hire: Hire, tmp_path: Path, subject: Path, rabbitmq: RabbitMQ) -> None:
    """The reply comes from the command itself; dead letters of both intakes are counted beside."""
    mark = tmp_path.name
    queue = {
        "url": rabbitmq.url,
        "name": f"requests-{mark}",
        "exchange": f"in-{mark}",
        "events_exchange": f"events-{mark}",
        "dead_letter_exchange": f"dead-{mark}",
    }
    worker = hire(tmp_path / "n1", subject, tmp_path / "store", retry=PATIENT, queue=queue)
    worker.start()
    wait_for(lambda: b"queue_connected" in worker.log.read_bytes(), what="the broker connection")
    gone = take_away(worker.store)
    with kombu.Connection(rabbitmq.url) as connection:
        reply = kombu.Queue("", exclusive=True, auto_delete=True)(connection.default_channel)
        reply.queue_declare()
        for body, properties in (
            (b'{"plan": "web"}', {"message_id": "r1", "reply_to": reply.name, "correlation_id": "c1"}),
            (b"no request", {"message_id": "r2"}),
        ):
            connection.Producer().publish(
                body, exchange=queue["exchange"], routing_key="web", content_encoding="binary", **properties
            )
        wait_for(lambda: states(worker).get("r1") == "waiting for its store", what="the request to be put off")
        (shown,) = lines(worker, "show", "r1")
        wait_for(
            lambda: f"in queue {queue['name']}.dead: 1".encode() in worker.run("requests", "list").stderr,
            what="the dead letter",
        )
        worker.stop()
        gone.rename(worker.store)

        lines(worker, "drop", "r1", "--yes")
        message = reply.get(no_ack=True, accept=None)

    assert shown["request"]["reply_to"] == reply.name
    assert message is not None
    told = orjson.loads(bytes(message.body) if isinstance(message.body, memoryview) else message.body)
    assert (told["data"]["outcome"], told["data"]["request_id"]) == ("failed", "r1")
    assert message.properties["correlation_id"] == "c1"
    assert states(worker, "--state", "all") == {"r1": "failed"}


def test_what_is_being_worked_on_is_not_dropped_but_what_waits_behind_it_is(
    hire: Hire, tmp_path: Path, large_subject: Path
) -> None:
    """Exit code 7 for the one; the others are not kept waiting for its end."""
    worker = hire(tmp_path / "n1", large_subject, tmp_path / "store", options=SLOW, accept_ahead=10)
    worker.start()
    worker.ask("r1")
    wait_for(lambda: states(worker) == {"r1": "running"}, what="the work to begin")
    for name in ("r2", "r3", "r4"):
        worker.ask(name)
    wait_for(lambda: len(states(worker, "--state", "waiting")) == 3, what="the others to be accepted")

    running = worker.run("requests", "drop", "r1", "--yes")
    one = worker.run("requests", "drop", "r3", "--yes")
    rest = lines(worker, "drop", "--all-waiting", "--plan", "web", "--yes")

    assert running.returncode == 7
    assert b"request r1 is being worked on" in running.stderr
    assert b"hint: " in running.stderr
    assert (one.returncode, one.stdout) == (0, b"dropped: r3\n")
    assert [line["request_id"] for line in rest] == ["r4", "r2"]
    assert states(worker) == states(worker, "--state", "running") == {"r1": "running"}
    assert [worker.outcomes(name) for name in ("r1", "r2", "r3", "r4")] == [[], ["failed"], ["failed"], ["failed"]]


def test_a_request_whose_worker_was_killed_can_be_dropped(hire: Hire, tmp_path: Path, large_subject: Path) -> None:
    """Its attempt has begun, but nobody works on it; the next worker leaves it alone."""
    worker = hire(tmp_path / "n1", large_subject, tmp_path / "store", options=SLOW)
    worker.start()
    worker.ask("r1")
    wait_for(lambda: states(worker) == {"r1": "running"}, what="the work to begin")
    worker.kill()
    # Programs that the worker started hold its lock until they notice.
    wait_for(lambda: states(worker) == {"r1": "waiting"}, what="the lock to be free")

    done = worker.run("requests", "drop", "r1", "--yes")
    worker.start()
    worker.stop()

    assert done.returncode == 0, done.stderr
    assert worker.outcomes("r1") == ["failed"]
    assert worker.sets() == []


@pytest.mark.parametrize(("answer", "code", "left"), [("n\n", 130, "waiting"), ("y\n", 0, "failed")])
def test_a_person_is_asked_before_anything_is_dropped(
    hire: Hire, tmp_path: Path, subject: Path, answer: str, code: int, left: str
) -> None:
    """At a terminal; where there is none, `--yes` has to say so."""
    worker = hire(tmp_path / "n1", subject, tmp_path / "store", retry=PATIENT)
    put_off(worker, "r1")
    command = [HOLDFAST, "--config", worker.config, "requests", "drop", "r1"]
    master, slave = pty.openpty()

    piped = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    os.write(master, answer.encode())
    asked = subprocess.run(command, stdin=slave, capture_output=True, timeout=60)
    os.close(master)
    os.close(slave)

    assert piped.returncode == 2
    assert b"--yes" in piped.stderr
    assert asked.returncode == code, asked.stderr
    assert b"drop request r1 for plan web?" in asked.stderr
    assert left in states(worker, "--state", "all")["r1"]
