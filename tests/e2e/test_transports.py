"""Whatever happens to worker, broker or connection in the middle of a request: one set, one success, nothing left.

Real worker processes and real brokers, for every transport and both ways to settle.
"""

from __future__ import annotations

import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from handlers.contract import PlanName
from handlers.tools.lock import Lock
from tests.services.rabbitmq import RabbitMQ
from tests.workshop.slow_tar import SlowTar
from tests.workshop.transports import PATIENCE, AmqpTransport, RedisTransport, SpoolTransport, Transport
from tests.workshop.workers import Hire, Worker, wait_for
from worker.scheduler import plan_lock

QUEUES = ("quorum", "classic", "redis")
SETTLES = ("journalled", "announced")


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlowTar:
    """Keeps requests in the middle of their work."""
    return SlowTar(tmp_path / "gate", monkeypatch)


@pytest.fixture(params=SETTLES)
def settle(request: pytest.FixtureRequest) -> str:
    """Both ways to settle."""
    return str(request.param)


@pytest.fixture
def transport(request: pytest.FixtureRequest, tmp_path: Path) -> Transport:
    """The transport that the test's parameter names, on servers that the tests share."""
    match request.param:
        case "redis":
            return RedisTransport(request.getfixturevalue("redis_server"), visibility_timeout_seconds=1)
        case "spool":
            return SpoolTransport(tmp_path / "spool")
        case kind:
            return AmqpTransport(request.getfixturevalue("rabbitmq"), kind)


every_transport = pytest.mark.parametrize("transport", [*QUEUES, "spool"], indirect=True)
every_queue = pytest.mark.parametrize("transport", QUEUES, indirect=True)


class Crew:
    """The workers of one test, on one store and one transport."""

    def __init__(self, transport: Transport, workers: Sequence[Worker]) -> None:
        self.transport = transport
        self.workers = workers

    def outcomes(self, request_id: str) -> list[str]:
        """The words of all outcomes of a request that differ in their ids."""
        events = {event["id"]: event["data"]["outcome"] for each in self.workers for event in each.events(request_id)}
        return sorted(word for word in events.values() if word not in {"started", "progress"})

    def wait_outcomes(self, request_id: str, count: int = 1) -> None:
        """Until a request has so many outcomes."""
        wait_for(
            lambda: len(self.outcomes(request_id)) >= count,
            what=f"{count} outcomes of {request_id}",
            seconds=PATIENCE,
            told=lambda: [self.outcomes(request_id), *(each.log.read_text() for each in self.workers)],
        )

    def check_one_success(self, request_id: str, *, duplicates: int | None = 0) -> None:
        """One set, one success; the workers take a further request; when they have stopped nothing is left anywhere.

        Without a number, there may be any number of duplicates.
        """
        self.transport.publish("fresh")
        self.wait_outcomes("fresh")
        assert self.outcomes("fresh") == ["succeeded"]
        wait_for(lambda: not self.transport.left(), what="empty queues", seconds=PATIENCE, told=self.transport.left)
        assert [each.stop() for each in self.workers] == [0] * len(self.workers)
        words = self.outcomes(request_id)
        assert words.count("succeeded") == 1
        assert words.count("duplicate") == (len(words) - 1 if duplicates is None else duplicates)
        assert len(words) == 1 + words.count("duplicate")
        assert len(self.workers[0].sets()) == 2, "one of the request, one of the fresh one"
        assert self.workers[0].leftovers() == []
        assert self.transport.left() == {}, "held by a worker until it stopped"


Assemble = Callable[..., Crew]


@pytest.fixture
def assemble(hire: Hire, tmp_path: Path, subject: Path, settle: str) -> Assemble:
    """Makes workers on a transport, started and connected."""

    def make(transport: Transport, count: int = 1) -> Crew:
        workers = []
        for number in range(count):
            settings: dict[str, Any] = {"settle": settle, **transport.settings}
            worker = hire(tmp_path / f"n{number}", subject, tmp_path / "store", **settings)
            if "spool" in settings:
                worker.spool = Path(settings["spool"]["path"])
            worker.start()
            transport.wait_ready(worker)
            workers.append(worker)
        return Crew(transport, workers)

    return make


@every_transport
def test_worker_killed_in_the_middle_goes_on_after_its_restart(
    assemble: Assemble, gate: SlowTar, transport: Transport
) -> None:
    """The request is begun anew, by the worker's own journal or because the transport brings it again."""
    crew = assemble(transport)
    transport.publish("r1")
    gate.wait_begun()

    crew.workers[0].kill()
    crew.workers[0].start()

    gate.wait_begun(2)
    gate.open()
    crew.wait_outcomes("r1")
    crew.check_one_success("r1")


@every_transport
def test_twenty_copies_are_one_backup(assemble: Assemble, gate: SlowTar, transport: Transport) -> None:
    """They come while the first is being worked on, and are answered with `duplicate` each."""
    crew = assemble(transport)
    transport.publish("r1", copies=20)
    gate.wait_begun()

    gate.open()

    crew.wait_outcomes("r1", 20)
    assert len(gate.begun()) == 1
    crew.check_one_success("r1", duplicates=19)


@every_transport
def test_one_of_two_workers_killed_in_the_middle(assemble: Assemble, gate: SlowTar, transport: Transport) -> None:
    """Whether the other takes the request over or the first goes on with it: one set, one success."""
    crew = assemble(transport, 2)
    transport.publish("r1")
    process = gate.wait_begun()
    (victim,) = [each for each in crew.workers if each.process is not None and each.process.pid == process]

    victim.kill()
    victim.start()

    gate.wait_begun(2)
    gate.open()
    crew.wait_outcomes("r1")
    crew.check_one_success("r1", duplicates=None)


@every_transport
def test_twenty_copies_to_two_workers_are_one_backup(assemble: Assemble, gate: SlowTar, transport: Transport) -> None:
    """One `succeeded`, the rest `duplicate`, whoever took which."""
    crew = assemble(transport, 2)

    transport.publish("r1", copies=20)
    gate.wait_begun()
    gate.open()

    crew.wait_outcomes("r1", 20)
    crew.check_one_success("r1", duplicates=19)


@every_queue
def test_connections_closed_by_the_broker_in_the_middle(
    assemble: Assemble, gate: SlowTar, transport: Transport
) -> None:
    """What was held comes again and attaches to the work that goes on."""
    crew = assemble(transport)
    transport.publish("r1")
    gate.wait_begun()

    for times in (2, 3):
        transport.break_connections()
        transport.wait_ready(crew.workers[0], times=times)

    gate.open()
    crew.wait_outcomes("r1")
    assert len(gate.begun()) == 1
    crew.check_one_success("r1")


@pytest.fixture(params=["quorum", "classic"])
def impatient(request: pytest.FixtureRequest, impatient_broker: RabbitMQ) -> Transport:
    """RabbitMQ that waits half a second for acknowledgements, and delivers a message twice at most."""
    return AmqpTransport(impatient_broker, request.param, delivery_limit=1)


@pytest.fixture(scope="module")
def impatient_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A node of its own."""
    server = RabbitMQ(tmp_path_factory.mktemp("impatient"), acknowledgement_seconds=0.5)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.mark.slow
def test_job_that_outlasts_the_acknowledgement_timeout_of_rabbitmq(
    assemble: Assemble, gate: SlowTar, impatient: Transport, settle: str
) -> None:
    """Ten times as long, and as many timeouts as the broker has deliveries for a message: neither twice nor dead."""
    crew = assemble(impatient)
    impatient.publish("r1")
    gate.wait_begun()
    ends = time.monotonic() + 5

    if settle == "announced":
        impatient.wait_ready(crew.workers[0], times=3)  # the timeout was hit twice
    wait_for(lambda: time.monotonic() > ends, what="ten timeouts")

    gate.open()
    crew.wait_outcomes("r1")
    assert len(gate.begun()) == 1
    crew.check_one_success("r1")


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["redis"], indirect=True)
def test_job_that_outlasts_the_visibility_timeout_of_redis(
    assemble: Assemble, gate: SlowTar, transport: Transport
) -> None:
    """Ten times as long, with another worker waiting: nobody gets it a second time."""
    crew = assemble(transport, 2)
    transport.publish("r1")
    gate.wait_begun()
    ends = time.monotonic() + 10

    wait_for(lambda: time.monotonic() > ends, what="ten timeouts")

    gate.open()
    crew.wait_outcomes("r1")
    assert len(gate.begun()) == 1
    crew.check_one_success("r1")


@pytest.fixture
def mortal(request: pytest.FixtureRequest) -> AmqpTransport | RedisTransport:
    """A transport on a server that may be killed."""
    if request.param == "redis":
        return RedisTransport(request.getfixturevalue("mortal_redis"))
    return AmqpTransport(request.getfixturevalue("mortal_rabbitmq"), request.param)


@pytest.mark.slow
@pytest.mark.parametrize("mortal", QUEUES, indirect=True)
def test_broker_killed_and_started_again_in_the_middle(
    assemble: Assemble, gate: SlowTar, mortal: AmqpTransport | RedisTransport
) -> None:
    """The work goes on meanwhile; its outcome waits for the broker, which has kept what it confirmed."""
    crew = assemble(mortal)
    mortal.publish("r1")
    gate.wait_begun()

    mortal.server.kill(kind=mortal.kind)
    mortal.server.start()
    gate.open()

    crew.wait_outcomes("r1")
    mortal.wait_ready(crew.workers[0], times=2)
    assert len(gate.begun()) == 1
    crew.check_one_success("r1")


@pytest.mark.parametrize("settle", ["announced"], indirect=True)
@pytest.mark.parametrize("transport", ["redis"], indirect=True)
def test_delivery_is_settled_when_the_command_line_has_announced_its_outcome(
    assemble: Assemble, gate: SlowTar, transport: Transport, tmp_path: Path
) -> None:
    """`holdfast backup` empties the outbox that it shares with the worker; the worker finds out by itself."""
    crew = assemble(transport)
    (worker,) = crew.workers
    assert worker.process is not None
    transport.publish("r1")
    gate.wait_begun()
    events = worker.spool / "events"
    events.rename(tmp_path / "events")
    events.touch()  # no directory: nothing can be announced
    gate.open()
    wait_for(lambda: b'"request_concluded"' in worker.log.read_bytes(), what="an outcome that cannot be announced")
    wait_for(lambda: _is_free(plan_lock(worker.place / "state", PlanName("web"))), what="the end of the work")
    # So that it is not the worker who announces it.
    wait_for(lambda: _is_stopped_at_rest(worker), what="an instant when the worker does not write its journal")
    events.unlink()
    (tmp_path / "events").rename(events)

    assert worker.run("backup", "web").returncode == 0

    assert crew.outcomes("r1") == ["succeeded"]
    assert transport.left() != {}
    worker.process.send_signal(signal.SIGCONT)
    wait_for(lambda: not transport.left(), what="the settled delivery", told=transport.left)
    assert worker.stop() == 0


def _is_stopped_at_rest(worker: Worker) -> bool:
    assert worker.process is not None
    worker.process.send_signal(signal.SIGSTOP)
    (journal,) = (worker.place / "state").glob("*.sqlite3")
    with closing(sqlite3.connect(journal, timeout=0.1, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            worker.process.send_signal(signal.SIGCONT)
            return False
        connection.execute("ROLLBACK")
    return True


def _has_failed(worker: Worker) -> bool:
    log = worker.log.read_bytes()
    return b'"request_postponed"' in log or b'"request_waits"' in log


def _is_free(path: Path) -> bool:
    lock = Lock.try_hold(path)
    if lock is not None:
        lock.release()
    return lock is not None


@pytest.mark.parametrize("settle", ["announced"], indirect=True)
@every_queue
def test_postponed_request_is_with_the_broker_and_ends_in_one_success(
    assemble: Assemble, transport: Transport, tmp_path: Path
) -> None:
    """The store is away for a moment: the worker tries again, and stays silent when the message comes again."""
    crew = assemble(transport)
    (tmp_path / "store").rename(tmp_path / "away")
    transport.publish("r1")
    wait_for(lambda: _has_failed(crew.workers[0]), what="a passing error")

    (tmp_path / "away").rename(tmp_path / "store")

    crew.wait_outcomes("r1")
    crew.check_one_success("r1")


@pytest.mark.parametrize("settle", ["announced"], indirect=True)
@every_queue
def test_postponed_request_survives_its_worker_and_the_journal(
    assemble: Assemble, transport: Transport, tmp_path: Path
) -> None:
    """A worker without durable state is gone while the request waits: its successor begins anew."""
    crew = assemble(transport)
    (worker,) = crew.workers
    (tmp_path / "store").rename(tmp_path / "away")
    transport.publish("r1")
    wait_for(lambda: _has_failed(worker), what="a passing error")
    if not isinstance(transport, RedisTransport):
        wait_for(lambda: b'"queue_message_sent_round"' in worker.log.read_bytes(), what="the copy")

    worker.kill()
    shutil.rmtree(worker.place / "state")
    (tmp_path / "away").rename(tmp_path / "store")
    worker.start()

    crew.wait_outcomes("r1")
    crew.check_one_success("r1")
