"""Brokers end, connections break, workers are killed: no request is lost, none is settled for another."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
import redis

from config.settings import Queue
from handlers.errors import PermanentError, TemporaryError
from tests.services.brokers import declared
from tests.services.desk import Desk, at_work, queue_settings
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import RedisServer
from tests.services.server import wait_until
from tests.services.wire import Wire
from worker.broker.publisher import ping, publish_request
from worker.intake.delivery import Settlement

ROOT = Path(__file__).parents[2]


def request(settings: Queue, request_id: str | None = None) -> None:
    """Publish one request whose body is its id."""
    name = request_id or uuid.uuid4().hex
    publish_request(settings, name.encode(), request_id=name, plan="web")


@contextmanager
def holder(settings: Queue) -> Iterator[subprocess.Popen[str]]:
    """A worker in a process of its own, which takes requests in and settles none."""
    given = {**settings.model_dump(exclude={"url", "password"}), "url": settings.url.reveal()}
    command = [sys.executable, "-m", "tests.services.holder", orjson.dumps(given).decode()]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    """The next line that the process prints."""
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 20)[0], "the process says nothing"
    return process.stdout.readline().strip()


@pytest.fixture
def wire(rabbitmq: RabbitMQ) -> Iterator[Wire]:
    """A relay in front of RabbitMQ."""
    relay = Wire(rabbitmq.port)
    yield relay
    relay.close()


def through(wire: Wire, **options: object) -> Queue:
    """Settings that reach the broker through the relay."""
    return queue_settings(f"amqp://guest:guest@127.0.0.1:{wire.port}//", **options)


def test_a_request_survives_the_kill_of_the_worker_that_holds_it(rabbitmq: RabbitMQ) -> None:
    """RabbitMQ delivers it to the next worker at once, marked as redelivered."""
    settings = queue_settings(rabbitmq.url, events_exchange="holdfast.events")
    with holder(settings) as process:
        declared(settings)
        request(settings, "r-1")
        assert said(process) == "r-1"

        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)

    with at_work(settings, accept=True) as desk:
        delivery = desk.take()
        assert (delivery.body, delivery.redelivered) == (b"r-1", True)


def test_redis_gives_back_what_a_killed_worker_held_after_the_visibility_timeout(redis_server: RedisServer) -> None:
    """Not at once: Redis does not notice the death; but it is never lost."""
    settings = queue_settings(redis_server.url, visibility_timeout_seconds=2)
    with holder(settings) as process:
        request(settings, "r-1")
        assert said(process) == "r-1"
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)

    with at_work(settings, accept=True) as desk:
        delivery = desk.take(30)

        assert (delivery.body, delivery.redelivered) == (b"r-1", True)


def test_redis_leaves_a_message_with_a_worker_that_lives_however_long_it_takes(redis_server: RedisServer) -> None:
    """The lease is renewed: nobody else gets it for many visibility timeouts, and soon after the worker's death."""
    settings = queue_settings(redis_server.url, visibility_timeout_seconds=1)
    with holder(settings) as process, at_work(settings, accept=True) as desk:
        desk.room = 0
        request(settings, "r-1")
        assert said(process) == "r-1"
        desk.room = 1

        assert desk.nothing_comes(10)

        os.kill(process.pid, signal.SIGKILL)
        delivery = desk.take(20)
        assert (delivery.body, delivery.redelivered) == (b"r-1", True)


def test_a_lease_that_is_gone_is_not_made_again(redis_server: RedisServer) -> None:
    """Whoever settled or took over the message has the last word: renewing would bring it back from the dead."""
    settings = queue_settings(redis_server.url, visibility_timeout_seconds=1)
    client = redis.Redis.from_url(redis_server.url)
    index = f"{settings.name}.unacked_index"
    with at_work(settings, settle="announced", room=1) as desk:
        request(settings, "r-1")
        held = desk.take()
        (tag,) = client.zrange(index, 0, -1)
        score = client.zscore(index, tag)
        wait_until(lambda: client.zscore(index, tag) > score, what="the lease is renewed")

        client.zrem(index, tag)

        assert desk.nothing_comes(2)
        assert client.zcard(index) == 0
        held.settle(Settlement.ACCEPT)
        wait_until(lambda: client.hlen(f"{settings.name}.unacked") == 0, what="it is settled all the same")
    client.close()


def test_a_worker_killed_while_it_looks_for_lost_messages_keeps_others_from_it_for_seconds_only(
    redis_server: RedisServer,
) -> None:
    """Whoever looks takes a lock that others respect; it ends by itself long before kombu's five minutes."""
    settings = queue_settings(redis_server.url)
    with redis.Redis.from_url(redis_server.url) as client, client.monitor() as monitor, at_work(settings):
        commands = (each["command"].split() for each in monitor.listen())

        lock = next(words for words in commands if words[:2] == ["SET", f"{settings.name}.unacked_mutex"])

        assert int(lock[lock.index("PX") + 1]) <= 5_000


def test_losing_connections_does_not_use_up_the_deliveries_of_a_running_request(wire: Wire) -> None:
    """The broker counts each as a failed delivery; the worker lives, so the message starts with a clean count again."""
    settings = through(wire, delivery_limit=2)
    with at_work(settings, settle="announced") as desk:
        declared(settings)
        request(settings, "r-1")

        for _ in range(3):
            assert desk.take().message_id == "r-1"
            wire.cut()

        again = desk.take()
        assert (again.message_id, again.redelivered) == ("r-1", True)
        again.settle(Settlement.ACCEPT)
        wait_until(lambda: ping(settings).ready == 0, what="it is settled")
        assert desk.nothing_comes(0.5)
        assert ping(settings).dead == 0


def test_a_settlement_from_before_the_break_is_not_applied_after_it(wire: Wire) -> None:
    """The message comes again; accepting its first arrival settles neither the second nor another message."""
    settings = through(wire)
    with at_work(settings, settle="announced") as desk:
        declared(settings)
        request(settings, "r-1")
        before = desk.take()

        wire.cut()

        again = desk.take()
        assert (again.message_id, again.redelivered) == ("r-1", True)
        before.settle(Settlement.ACCEPT)
        request(settings, "r-2")
        assert desk.take().message_id == "r-2"
        desk.finish()
        assert ping(settings).ready == 2


def test_a_connection_closed_by_the_broker_is_opened_again(rabbitmq: RabbitMQ) -> None:
    """An administrator closes all connections: the worker is back within seconds, with the message it held."""
    settings = queue_settings(rabbitmq.url)
    with at_work(settings) as desk:
        declared(settings)
        request(settings, "r-1")
        before = desk.take()

        rabbitmq.control("close_all_connections", "maintenance")
        before.settle(Settlement.ACCEPT)

        again = desk.take()
        assert (again.message_id, again.redelivered) == ("r-1", True)
        again.settle(Settlement.ACCEPT)
        wait_until(lambda: ping(settings).ready == 0, what="it is settled")


def test_a_broker_that_falls_silent_is_noticed_by_its_heartbeats(wire: Wire) -> None:
    """No packet, no reset: after two heartbeats the connection counts as dead, and a new one is opened."""
    settings = through(wire, heartbeat_seconds=1, connect_timeout_seconds=1)
    with at_work(settings) as desk:
        declared(settings)

        wire.silent.set()
        assert desk.nothing_comes(4)
        wire.silent.clear()
        wire.cut()

        declared(settings)
        request(settings, "r-1")
        assert desk.take().message_id == "r-1"


def test_a_queue_that_is_deleted_is_declared_again(rabbitmq: RabbitMQ) -> None:
    """The broker cancels the consumer; the worker makes the queue anew and goes on."""
    settings = queue_settings(rabbitmq.url)
    with at_work(settings) as desk:
        declared(settings)

        rabbitmq.control("delete_queue", settings.name)

        declared(settings)
        request(settings, "r-1")
        assert desk.take().message_id == "r-1"


def test_dead_letters_survive_the_loss_of_their_queue(rabbitmq: RabbitMQ) -> None:
    """Somebody deleted the dead letters' queue: it is declared again before anything is refused into nowhere."""
    settings = queue_settings(rabbitmq.url)
    with at_work(settings) as desk:
        declared(settings)
        rabbitmq.control("delete_queue", f"{settings.name}.dead")
        request(settings, "r-1")

        desk.take().settle(Settlement.REJECT, "no")

        wait_until(lambda: ping(settings).dead == 1, what="the dead letter is there")


def test_a_message_delivered_too_often_ends_among_the_dead_letters(rabbitmq: RabbitMQ) -> None:
    """A request that takes its worker down each time does not do so for ever."""
    settings = queue_settings(rabbitmq.url, delivery_limit=2)
    with at_work(settings) as desk:
        declared(settings)
        request(settings, "r-1")
        for _ in range(3):
            desk.take().settle(Settlement.HAND_BACK)

        wait_until(lambda: ping(settings).dead == 1, what="it is among the dead letters")
        assert desk.nothing_comes(0.3)


@pytest.mark.parametrize(("kind", "end"), [("quorum", "stop"), ("quorum", "kill"), ("classic", "kill")])
def test_the_intake_outlives_restarts_of_rabbitmq(mortal_rabbitmq: RabbitMQ, kind: str, end: str) -> None:
    """Stopped or killed, and started again, the broker still has every confirmed request, and the worker finds it."""
    settings = queue_settings(mortal_rabbitmq.url, type=kind)
    with at_work(settings) as desk:
        declared(settings)
        request(settings, "r-1")
        request(settings, "r-2")
        before = desk.take()

        if end == "kill":
            mortal_rabbitmq.kill(kind=kind)
        else:
            mortal_rabbitmq.stop()
        assert not mortal_rabbitmq.processes
        before.settle(Settlement.ACCEPT)
        mortal_rabbitmq.start()

        first = desk.take(30)
        first.settle(Settlement.ACCEPT)
        assert {first.message_id, desk.take(30).message_id} == {"r-1", "r-2"}


def test_the_intake_outlives_a_restart_of_redis(mortal_redis: RedisServer) -> None:
    """What was held comes again at once: the worker itself asks it back, Redis would wait for an hour."""
    settings = queue_settings(mortal_redis.url)
    with at_work(settings) as desk:
        request(settings, "r-1")
        before = desk.take()

        mortal_redis.kill()
        before.settle(Settlement.ACCEPT)
        # Started again sooner, it would take the settlement, which then is as good as any.
        wait_until(lambda: desk.intake.trouble is not None, what="the intake to see it")
        mortal_redis.start()

        again = desk.take(30)
        assert (again.message_id, again.redelivered) == ("r-1", True)
        again.settle(Settlement.ACCEPT)
        request(settings, "r-2")
        assert desk.take().message_id == "r-2"


def test_a_broker_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    """The worker may be started before its broker."""
    server = RedisServer(tmp_path / "redis")
    settings = queue_settings(server.url)
    with at_work(settings) as desk:
        assert desk.nothing_comes(0.5)
        server.start()
        try:
            request(settings, "r-1")

            assert desk.take().message_id == "r-1"
        finally:
            desk.finish()
            server.stop()


def test_an_intake_without_a_broker_stops_at_once() -> None:
    """A pause between two attempts does not hold up the end."""
    desk = Desk(queue_settings("amqp://127.0.0.1:1//"))
    desk.thread.start()
    assert desk.nothing_comes(0.5)

    desk.finish()

    assert desk.error is None


def test_a_wrong_password_stops_the_worker_at_its_start_and_is_never_shown(rabbitmq: RabbitMQ) -> None:
    """The configuration is wrong, and says so; the password is in no message."""
    settings = queue_settings(rabbitmq.url.replace("guest:guest", "guest:sesame-open"))
    desk = Desk(settings)

    with pytest.raises(PermanentError, match="ACCESS_REFUSED") as caught:
        desk.intake.run(desk.gate)

    assert "sesame" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"


@pytest.mark.parametrize("url", ["amqp://u:sesame@127.0.0.1:1//", "redis://:sesame@127.0.0.1:1/0"])
def test_a_broker_that_cannot_be_reached_is_a_passing_trouble(url: str) -> None:
    """The message names the address without its password."""
    with pytest.raises(TemporaryError, match=r"127\.0\.0\.1:1") as caught:
        ping(queue_settings(url))

    assert "sesame" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"


def test_a_bug_in_the_worker_is_not_taken_for_trouble_with_the_broker(rabbitmq: RabbitMQ) -> None:
    """What the worker raises while it takes a delivery in ends the intake; the message waits for the next one."""
    settings = queue_settings(rabbitmq.url)
    desk = Desk(settings)

    def broken() -> None:
        raise PermanentError("the journal is damaged")

    def run() -> None:
        with pytest.raises(PermanentError, match="journal"):
            desk.intake.run(desk.gate)

    desk.on_delivery = broken
    worker = threading.Thread(target=run)
    worker.start()
    declared(settings)

    request(settings, "r-1")

    worker.join(20)
    assert not worker.is_alive()
    assert desk.intake.trouble is not None
    assert ping(settings).ready == 1


def test_a_redis_without_room_for_dead_letters_loses_nothing(mortal_redis: RedisServer) -> None:
    """Refusing needs a write: while that is impossible the message stays unsettled, and comes again."""
    settings = queue_settings(mortal_redis.url)
    client = redis.Redis(port=mortal_redis.port)
    with at_work(settings) as desk:
        request(settings, "r-1")
        delivery = desk.take()
        client.config_set("maxmemory", 1)
        delivery.settle(Settlement.REJECT, "no")
        assert desk.nothing_comes(1)
        client.config_set("maxmemory", 0)

        desk.take(30).settle(Settlement.REJECT, "no")

        wait_until(lambda: ping(settings).dead == 1, what="the dead letter is there")
    client.close()
