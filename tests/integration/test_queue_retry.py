"""Requests that failed for a passing reason are put off, and come again from a real RabbitMQ and a real Redis."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import timedelta

import amqp
import pytest
import redis

from config.secrets import Secret
from config.settings import Queue
from tests.services.brokers import declared, raw_channel
from tests.services.desk import at_work, queue_settings
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import RedisServer
from tests.services.server import wait_until
from worker.broker.publisher import ping, publish_request
from worker.broker.topology import RETRY_SECONDS, retry_queue, retry_seconds
from worker.intake.arrival import MOST_RETURNS, RETURNS_HEADER
from worker.intake.delivery import Settlement
from worker.intake.held import HeldDeliveries
from worker.intake.wire import RequestId

SOON = timedelta(seconds=1)
KINDS = ("quorum", "classic")


def request(settings: Queue, request_id: str | None = None) -> None:
    """Publish one request."""
    publish_request(settings, b"{}", request_id=request_id or uuid.uuid4().hex, plan="web")


def waiting(settings: Queue, seconds: int) -> int:
    """How many messages wait in a queue for later; none where it is not there (yet): workers declare it when needed."""
    try:
        with raw_channel(settings) as channel:
            return int(channel.queue_declare(retry_queue(settings, seconds), passive=True).message_count)
    except amqp.exceptions.NotFound:
        return 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_put_off_comes_again_after_its_time_with_all_that_it_had(rabbitmq: RabbitMQ, kind: str) -> None:
    """Same body, properties and headers, not too early, and marked as a redelivery."""
    settings = queue_settings(rabbitmq.url, type=kind)
    properties = {
        "message_id": "r-1",
        "reply_to": "amq.gen-x",
        "correlation_id": "c-1",
        "content_type": "application/json",
        "type": "holdfast.backup.requested",
        "app_id": "shop",
        "priority": 3,
        "expiration": "600000",
        "application_headers": {
            "trace": "00-1",
            "nested": {"a": [1, 2.5, "x", True]},
            "BCC": [f"{settings.name}.dead"],
        },
    }
    with at_work(settings, settle="announced") as desk:
        declared(settings)
        with raw_channel(settings) as channel:
            channel.basic_publish(amqp.Message(b"{}", **properties), settings.exchange, "web")
        first = desk.take()
        put_off = time.monotonic()

        first.defer(SOON)

        moment, again = desk.take_timed()
        assert moment - put_off >= RETRY_SECONDS[0]
        assert (again.body, again.message_id, again.redelivered) == (b"{}", "r-1", True)
        assert (again.reply_to, again.correlation_id) == ("amq.gen-x", "c-1")
        assert ping(settings).dead == 0
    with raw_channel(settings) as channel:
        message = channel.basic_get(settings.name)
        headers = message.headers
    assert {name: message.properties[name] for name in ("content_type", "type", "app_id", "priority")} == {
        name: properties[name] for name in ("content_type", "type", "app_id", "priority")
    }
    assert (headers["trace"], headers["nested"], headers[RETURNS_HEADER]) == ("00-1", {"a": [1, 2.5, "x", True]}, 1)
    assert "expiration" not in message.properties


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_put_off_makes_room_for_others_in_rabbitmq(rabbitmq: RabbitMQ, kind: str) -> None:
    """One message may be held at a time: the next one comes while the first waits for its time."""
    settings = queue_settings(rabbitmq.url, type=kind)
    with at_work(settings, settle="announced", room=1) as desk:
        declared(settings)
        request(settings, "first")
        request(settings, "second")
        first = desk.take()
        assert desk.nothing_comes(0.5)

        first.defer(timedelta(seconds=45))

        assert desk.take().message_id == "second"
        assert waiting(settings, 120) == 1
        first.settle(Settlement.ACCEPT)  # too late: it is with the broker
        assert desk.nothing_comes(0.3)
        assert waiting(settings, 120) == 1


def test_what_is_put_off_makes_room_for_others_in_redis_and_keeps_its_lease(redis_server: RedisServer) -> None:
    """It stays with this worker, which renews its lease and settles it in the end."""
    settings = queue_settings(redis_server.url, visibility_timeout_seconds=1)
    client = redis.Redis.from_url(redis_server.url)
    with at_work(settings, settle="announced", room=1) as desk:
        request(settings, "first")
        request(settings, "second")
        first = desk.take()
        assert desk.nothing_comes(0.5)

        first.defer(SOON)

        second = desk.take()
        assert second.message_id == "second"
        request(settings, "third")
        assert desk.nothing_comes(4), "its place is taken by the second"
        assert client.llen(settings.name) == 1, "the third alone: the first is still this worker's"
        first.settle(Settlement.ACCEPT)
        assert desk.nothing_comes(0.5), "the first had no place any more"
        second.settle(Settlement.ACCEPT)
        desk.take().settle(Settlement.ACCEPT)
        wait_until(lambda: client.hlen(f"{settings.name}.unacked") == 0, what="nothing is unsettled")
    client.close()


def test_redis_gives_what_was_put_off_to_the_next_worker_when_this_one_ends(redis_server: RedisServer) -> None:
    """An orderly end hands it back at once."""
    settings = queue_settings(redis_server.url)
    with at_work(settings, settle="announced", room=1) as desk:
        request(settings, "r-1")
        desk.take().defer(SOON)
        request(settings, "r-2")
        desk.take()

    with at_work(settings, accept=True) as second:
        assert {second.take().message_id for _ in range(2)} == {"r-1", "r-2"}


def test_deliveries_of_a_postponed_request_are_put_off_together(rabbitmq: RabbitMQ) -> None:
    """Whoever keeps deliveries for the outcome puts off all arrivals of one request, and owes no settlement later."""
    settings = queue_settings(rabbitmq.url)
    held, name = HeldDeliveries(), RequestId("r-1")
    with at_work(settings, settle="announced", room=2) as desk:
        declared(settings)
        for _ in range(2):
            request(settings, "r-1")
            held.hold(name, desk.take())

        held.defer(name, SOON)

        wait_until(lambda: waiting(settings, 5) == 2, what="both wait")
        held.settle(name)
        assert held.waiting() == ()
        assert {desk.take().redelivered for _ in range(2)} == {True}
        assert ping(settings).dead == 0


def test_a_long_wait_keeps_no_short_one_waiting(rabbitmq: RabbitMQ) -> None:
    """Each length has a queue of its own."""
    settings = queue_settings(rabbitmq.url)
    with at_work(settings, settle="announced", room=2) as desk:
        declared(settings)
        request(settings, "long")
        desk.take().defer(timedelta(days=1))
        wait_until(lambda: waiting(settings, RETRY_SECONDS[-1]) == 1, what="it waits")

        request(settings, "short")
        desk.take().defer(SOON)

        assert desk.take().message_id == "short"


@pytest.mark.parametrize(
    ("after", "seconds"), [(0, 5), (4.9, 5), (5, 5), (5.1, 30), (31, 120), (500, 600), (601, 3_600), (86_400, 3_600)]
)
def test_the_wait_is_the_shortest_that_is_long_enough(after: float, seconds: int) -> None:
    """Or the longest there is: then it is put off once more."""
    assert retry_seconds(timedelta(seconds=after)) == seconds


def test_each_round_is_longer_than_the_one_before() -> None:
    """Up to ten minutes, unless more is asked for."""
    assert [retry_seconds(timedelta(seconds=1), rounds=rounds) for rounds in range(6)] == [5, 30, 120, 600, 600, 600]
    assert retry_seconds(timedelta(hours=1), rounds=5) == 3_600


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_that_was_dead_once_is_put_off_like_any_other(rabbitmq: RabbitMQ, kind: str) -> None:
    """RabbitMQ drops what goes in a circle by its record of a message's deaths: the copy does not take that along."""
    settings = queue_settings(rabbitmq.url, type=kind)
    deaths = [
        {"queue": settings.name, "reason": "expired", "exchange": "", "routing-keys": [settings.name], "count": 1}
    ]
    with at_work(settings, settle="announced") as desk:
        declared(settings)
        with raw_channel(settings) as channel:
            message = amqp.Message(b"{}", message_id="r-1", application_headers={"x-death": deaths})
            channel.basic_publish(message, settings.exchange, "web")

        desk.take().defer(SOON)

        again = desk.take()
        assert again.message_id == "r-1"
        again.settle(Settlement.ACCEPT)


def test_a_queue_for_later_that_was_deleted_is_declared_again(rabbitmq: RabbitMQ) -> None:
    """The copy must have arrived somewhere before the original is settled."""
    settings = queue_settings(rabbitmq.url)
    with at_work(settings, settle="announced") as desk:
        declared(settings)
        request(settings)
        desk.take().defer(timedelta(seconds=60))
        wait_until(lambda: waiting(settings, 120) == 1, what="it waits")
        rabbitmq.control("delete_queue", retry_queue(settings, 120))

        request(settings)
        desk.take().defer(timedelta(seconds=60))

        wait_until(lambda: ping(settings).ready == 0 and waiting(settings, 120) == 1, what="it waits")


def another_form(server: RabbitMQ, settings: Queue) -> Queue:
    """The queue for later is there already, as somebody else made it."""
    with raw_channel(settings) as channel:
        channel.queue_declare(retry_queue(settings, 5), durable=True, auto_delete=False)
    return settings


def without_the_right(server: RabbitMQ, settings: Queue) -> Queue:
    """The worker's user may declare everything else."""
    name = f"worker-{uuid.uuid4().hex[:8]}"
    server.control("add_user", name, "sesame")
    server.control("set_permissions", name, r"^(?!.*\.retry\.).*$", ".*", ".*")
    url = settings.url.reveal().replace("guest:guest", f"{name}:sesame")
    return settings.model_copy(update={"url": Secret(url)})


@pytest.mark.parametrize("refusing", [another_form, without_the_right])
def test_where_the_broker_allows_no_queue_for_later_the_message_stays_and_nothing_breaks(
    rabbitmq: RabbitMQ, refusing: Callable[[RabbitMQ, Queue], Queue]
) -> None:
    """The delivery is held as before, on the same connection, and can be settled."""
    settings = queue_settings(rabbitmq.url)
    with at_work(refusing(rabbitmq, settings), settle="announced", room=2) as desk:
        declared(settings)
        request(settings, "r-1")
        first = desk.take()

        first.defer(SOON)

        request(settings, "r-2")
        second = desk.take()
        assert (second.message_id, second.redelivered) == ("r-2", False)
        assert desk.nothing_comes(0.3)
        first.settle(Settlement.ACCEPT)
        second.settle(Settlement.ACCEPT)
    assert ping(settings).ready == 0


def test_a_message_does_not_go_round_for_ever(rabbitmq: RabbitMQ) -> None:
    """After many rounds it stays with the worker: the delivery limit counts again, should that die over it."""
    settings = queue_settings(rabbitmq.url)
    with at_work(settings, settle="announced") as desk:
        declared(settings)
        with raw_channel(settings) as channel:
            for number in (MOST_RETURNS - 1, MOST_RETURNS):
                message = amqp.Message(b"{}", message_id=f"r-{number}", application_headers={RETURNS_HEADER: number})
                channel.basic_publish(message, settings.exchange, "web")

        for _ in range(2):
            desk.take().defer(timedelta(seconds=60))

        wait_until(lambda: waiting(settings, 600) == 1, what="one goes round")
    wait_until(lambda: ping(settings).ready == 1, what="the other is back in its queue")
    assert waiting(settings, 600) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "end"), [("quorum", "stop"), ("quorum", "kill"), ("classic", "kill")])
def test_what_is_put_off_outlives_a_restart_of_rabbitmq(mortal_rabbitmq: RabbitMQ, kind: str, end: str) -> None:
    """It comes again when the broker is back; after a kill the original may come as well."""
    settings = queue_settings(mortal_rabbitmq.url, type=kind)
    with at_work(settings, settle="announced") as desk:
        declared(settings)
        request(settings, "r-1")
        desk.take().defer(SOON)
        wait_until(lambda: waiting(settings, 5) == 1, what="it waits")

        if end == "kill":
            mortal_rabbitmq.kill(kind=kind)
        else:
            mortal_rabbitmq.stop()
        mortal_rabbitmq.start()

        desk.accept = True
        wait_until(lambda: any(each.redelivered for each in desk.taken[1:]), what="it comes again", seconds=90)
        assert {each.message_id for each in desk.taken} == {"r-1"}
        wait_until(lambda: ping(settings).ready == waiting(settings, 5) == 0, what="nothing is left")
