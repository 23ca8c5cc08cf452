"""Real worker processes on a real RabbitMQ."""

from __future__ import annotations

import hashlib
import random
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import orjson
import pytest

from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import RedisServer
from tests.workshop.producers import Producer
from tests.workshop.workers import Hire, Worker, wait_for
from worker.events import Word, event_id
from worker.intake.wire import MessageRefused, parse


@pytest.fixture
def producer(rabbitmq: RabbitMQ) -> Iterator[Producer]:
    """A producer on the test's RabbitMQ."""
    made = Producer(rabbitmq.url)
    yield made
    made.connection.release()


def start(worker: Worker, producer: Producer) -> None:
    """Start a worker; it has declared its queue on return."""
    worker.start()
    wait_for(lambda: b"queue_connected" in worker.log.read_bytes(), what="the broker connection")


def test_twenty_copies_to_two_workers_make_one_set(
    hire: Hire, tmp_path: Path, subject: Path, producer: Producer
) -> None:
    """One `succeeded`, the rest `duplicate`."""
    workers = [hire(tmp_path / name, subject, tmp_path / "store", queue=producer.queue) for name in ("n1", "n2")]
    for worker in workers:
        start(worker, producer)
    producer.listen()

    for _ in range(20):
        producer.publish(orjson.dumps({"id": "r1", "plan": "web"}))

    wait_for(lambda: len(producer.outcomes()) >= 20, what="twenty outcomes")
    assert sorted(producer.outcomes()) == ["duplicate"] * 19 + ["succeeded"]
    assert len(workers[0].sets()) == 1
    assert [worker.stop() for worker in workers] == [0, 0]
    assert workers[0].leftovers() == []


def test_caller_hears_back_on_its_reply_queue(hire: Hire, tmp_path: Path, subject: Path, producer: Producer) -> None:
    """reply_to and correlation_id of AMQP are honoured."""
    worker = hire(tmp_path / "n1", subject, tmp_path / "store", queue=producer.queue)
    start(worker, producer)
    producer.listen()
    channel = producer.connection.default_channel
    reply_queue = channel.queue_declare(queue="", exclusive=True).queue

    producer.publish(b'{"plan": "web"}', message_id="m1", reply_to=reply_queue, correlation_id="c1")

    replies: list[Any] = []

    def replied() -> bool:
        message = channel.basic_get(reply_queue, no_ack=True)
        if message is not None:
            replies.append(message)
        return bool(replies)

    wait_for(replied, what="the reply")
    event = orjson.loads(bytes(replies[0].body))
    assert replies[0].properties["correlation_id"] == "c1"
    assert (event["type"], event["data"]["request_id"]) == ("holdfast.backup.succeeded", "m1")
    assert worker.stop() == 0


@pytest.mark.parametrize("settle", ["journalled", "announced"])
def test_worker_killed_in_the_middle_of_a_request_from_the_queue(
    hire: Hire, tmp_path: Path, subject: Path, producer: Producer, settle: str
) -> None:
    """In both settle modes: after the restart one set and one success."""
    (subject / "big").write_bytes(random.Random(1).randbytes(24 << 20))
    options = {"codec": "xz", "strength": 6, "threads": 1}
    worker = hire(tmp_path / "n1", subject, tmp_path / "store", queue=producer.queue, settle=settle, options=options)
    start(worker, producer)
    producer.listen()
    producer.publish(orjson.dumps({"id": "r1", "plan": "web"}))
    wait_for(lambda: any(event["data"]["outcome"] == "started" for event in producer.read()), what="the start")

    worker.kill()
    worker.start()

    wait_for(lambda: "succeeded" in producer.outcomes(), what="the outcome", seconds=120)
    assert producer.outcomes() == ["succeeded"]
    assert len(worker.sets()) == 1
    assert worker.stop() == 0
    assert worker.leftovers() == []
    wait_for(lambda: producer.waiting() == 0, what="the settled delivery")


def test_events_that_nobody_took_are_sent_after_a_restart(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """With the ids they had: the broker is not there when the backup is made, nor when the worker stops."""
    server = RabbitMQ(tmp_path / "broker")
    queue = {"url": server.url, "connect_timeout_seconds": 1}
    worker = hire(tmp_path / "n1", subject, tmp_path / "store", queue=queue)
    worker.start()
    worker.ask("r1")
    worker.wait_outcome("r1")
    assert worker.stop() == 0
    assert orjson.loads(worker.run("status", "--json").stdout)["unsent_events"] == 2
    server.start()
    try:
        late = Producer(server.url)
        late.queue["events_exchange"] = "holdfast.events"
        late.listen()

        worker.start()

        wait_for(lambda: len(late.read()) >= 2, what="the events of before")
        assert [event["id"] for event in late.events] == [event["id"] for event in worker.events("r1")]
        assert worker.outcomes("r1") == ["succeeded"]
        assert worker.stop() == 0
        late.connection.release()
    finally:
        server.stop()


NO_SPOOL = {"enabled": False}


def mutations(count: int) -> Iterator[bytes]:
    """Random bytes, and requests with something broken in them; never a request that would be worked on."""
    rng = random.Random(20261121)
    good = orjson.dumps(
        {
            "specversion": "1.0",
            "type": "holdfast.backup.requested",
            "source": "/fuzz",
            "id": "x",
            "data": {"plan": "nobody", "level": "auto", "labels": {"a": "b"}, "reason": "none"},
        }
    )
    for number in range(count):
        match number % 4:
            case 0:
                yield rng.randbytes(rng.randrange(200))
            case 1:
                yield good[: rng.randrange(len(good))]
            case 2:
                body = bytearray(good)
                for _ in range(rng.randrange(1, 6)):
                    body[rng.randrange(len(body))] = rng.randrange(256)
                yield bytes(body)
            case _:
                document = orjson.loads(good)
                place = document if rng.random() < 0.5 else document["data"]
                place[rng.choice([*place, "path", "command"])] = rng.choice(
                    [None, -1, [], {}, "../..", "x" * 5000, True]
                )
                yield orjson.dumps(document)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_thousand_random_messages_are_answered_and_dead_lettered(
    hire: Hire, tmp_path: Path, subject: Path, producer: Producer
) -> None:
    """No crash, nothing lost, and the worker still works afterwards."""
    count = 10_000
    worker = hire(
        tmp_path / "n1", subject, tmp_path / "store", queue=producer.queue, log={"level": "error"}, spool=NO_SPOOL
    )
    worker.start_quietly()
    wait_for(lambda: _declared(producer), what="the queue")
    producer.listen()
    types = ["application/json", "application/cloudevents+json", "application/x-python-serialize", "text/plain", ""]

    producer.publish_all((body, types[number % len(types)]) for number, body in enumerate(mutations(count)))

    expected = {_answer_id(body) for body in mutations(count)}
    answered: set[str] = set()

    def all_answered() -> bool:
        heard = len(producer.events)
        answered.update(event["id"] for event in producer.read()[heard:] if event["data"]["outcome"] == "refused")
        return expected <= answered

    wait_for(all_answered, what="the answers", seconds=400, told=lambda: (len(answered), producer.dead()))
    wait_for(lambda: producer.dead() >= count, what="the dead letters", told=producer.dead)
    assert not worker.ended
    assert producer.waiting() == 0
    producer.publish(orjson.dumps({"id": "still-alive", "plan": "web"}))
    wait_for(lambda: "succeeded" in producer.outcomes(), what="a good request", seconds=120)
    assert len(expected) > 5_000
    assert worker.stop() == 0


def _answer_id(body: bytes) -> str:
    """The id of the event that answers this message: equal messages have equal answers."""
    try:
        request = parse(body)
    except MessageRefused:
        return event_id(hashlib.sha256(body).hexdigest(), Word.REFUSED, node="n1")
    return event_id(request.request_id, Word.REFUSED, node="n1", turn=request.content_digest)


def _declared(producer: Producer) -> bool:
    # With a consumer, not only declared: before it is bound, what is published goes nowhere.
    queue = kombu.Queue(producer.queue["name"], no_declare=True)(producer.connection.default_channel)
    try:
        return int(queue.queue_declare(passive=True).consumer_count) > 0
    except producer.connection.channel_errors:
        producer.connection.default_channel.close()
        producer.connection._default_channel = None
        return False


def test_redis_carries_requests_as_well(hire: Hire, tmp_path: Path, subject: Path, redis_server: RedisServer) -> None:
    """A request through Redis becomes a set; the outcome is in the spool."""
    mark = uuid.uuid4().hex[:8]
    worker = hire(
        tmp_path / "n1", subject, tmp_path / "store", queue={"url": redis_server.url, "name": f"requests-{mark}"}
    )
    worker.start()

    done = worker.run("request", "web", "--id", "r1", "--wait", "--json")

    assert done.returncode == 0, done.stderr
    assert len(worker.sets()) == 1
    assert worker.stop() == 0
