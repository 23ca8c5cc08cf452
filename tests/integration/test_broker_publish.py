"""Events, replies and requests reach a real RabbitMQ and a real Redis, or say why not."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import amqp
import kombu
import orjson
import pytest
import redis

from config.settings import Queue
from handlers.errors import PermanentError, TemporaryError
from tests.services.desk import at_work, queue_settings
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import RedisServer
from tests.services.server import wait_until
from worker.announcer import EventSink
from worker.broker.link import BrokerAway, BrokerRefused, Unroutable
from worker.broker.publisher import BrokerPublisher, QueueEvents, ReplyEvents, ReplyWaiter, ping, publish_request
from worker.intake.delivery import Settlement
from worker.journal.protocol import Announcement, Caller

Server = RabbitMQ | RedisServer


@pytest.fixture(params=["rabbitmq", "redis_server"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each kind of broker in turn."""
    found: Server = request.getfixturevalue(request.param)
    return found


@contextmanager
def sinks(settings: Queue) -> Iterator[tuple[EventSink, EventSink]]:
    """The two sinks of a worker, over one connection."""
    publisher = BrokerPublisher(settings)
    try:
        yield QueueEvents(publisher), ReplyEvents(publisher)
    finally:
        publisher.close()
        publisher.close()


@contextmanager
def raw_channel(server: RabbitMQ) -> Iterator[Any]:
    """A channel of the AMQP library itself."""
    with amqp.Connection(f"127.0.0.1:{server.port}", userid="guest", password="guest") as connection:
        yield connection.channel()


def announcement(word: str = "succeeded", *, plan: str | None = "web", **caller: str) -> Announcement:
    """An event on its way."""
    event: dict[str, object] = {"specversion": "1.0", "type": f"holdfast.backup.{word}", "subject": plan, "data": {}}
    return Announcement(
        event_id=uuid.uuid4().hex, sink="queue", caller=Caller(**caller), body=orjson.dumps(event), request_id=None
    )


def close_connections(server: RabbitMQ) -> None:
    """What an administrator, or a proxy that dislikes idle connections, does."""
    server.control("close_all_connections", "maintenance")


def test_an_event_reaches_whoever_binds_its_plan_or_its_outcome(rabbitmq: RabbitMQ) -> None:
    """The routing key is plan and outcome; the message is persistent and carries the event's id."""
    settings = queue_settings(rabbitmq.url)
    with sinks(settings) as (events, _), raw_channel(rabbitmq) as channel:
        events.send(announcement("started"))
        queues = {}
        for pattern in ("web.*", "#.failed"):
            queues[pattern] = channel.queue_declare("", exclusive=True).queue
            channel.queue_bind(queues[pattern], settings.events_exchange, pattern)

        event = announcement("failed", correlation_id="c-1")
        events.send(event)
        events.send(announcement("succeeded", plan="mail"))

        for queue in queues.values():
            message = channel.basic_get(queue, no_ack=True)
            assert message.body == event.body
            assert message.properties["message_id"] == event.event_id
            assert message.properties["correlation_id"] == "c-1"
            assert message.properties["delivery_mode"] == 2
            assert message.properties["content_type"] == "application/cloudevents+json"
            assert message.delivery_info["routing_key"] == "web.failed"
            assert channel.basic_get(queue) is None


def test_an_event_reaches_a_queue_bound_in_redis(redis_server: RedisServer) -> None:
    """With kombu bindings are kept in Redis: a subscriber that uses it gets the events it asked for."""
    settings = queue_settings(redis_server.url)
    name = f"listener-{uuid.uuid4().hex}"
    library: Any = kombu  # it has no types
    with library.Connection(redis_server.url) as connection, sinks(settings) as (events, _):
        exchange = library.Exchange(settings.events_exchange, type="topic")
        queue = library.Queue(name, exchange, routing_key="web.*")(connection.default_channel)
        queue.declare()

        event = announcement("failed")
        events.send(event)
        events.send(announcement("failed", plan="mail"))

        message = queue.get(accept=["application/cloudevents+json"])
        assert message.body == event.body
        assert queue.get() is None


def test_an_event_that_nobody_waits_for_is_sent_all_the_same(server: Server) -> None:
    """Nobody has to listen to the events."""
    with sinks(queue_settings(server.url)) as (events, _):
        events.send(announcement())
        events.send(announcement(plan=None, correlation_id="c" * 300))


def test_a_reply_reaches_the_queue_that_asked_for_it(server: Server) -> None:
    """The waiter gets the events of its own request, in order, and stops when it has heard enough."""
    settings = queue_settings(server.url)
    with ReplyWaiter(settings) as waiter, sinks(settings) as (_, replies):
        sent = [announcement(word, reply_to=waiter.reply_to, correlation_id="c-1") for word in ("started", "succeeded")]
        for event in sent:
            replies.send(event)

        received = []
        for body in waiter.events(10):
            received.append(body)
            if b"succeeded" in body:
                break

        assert received == [event.body for event in sent]


def test_a_waiter_ends_at_its_deadline(server: Server) -> None:
    """Nothing came: the iteration ends."""
    with ReplyWaiter(queue_settings(server.url)) as waiter:
        began = time.monotonic()

        received = list(waiter.events(0.5))

        assert received == []
        assert 0.4 < time.monotonic() - began < 2


def test_a_reply_queue_that_is_gone_is_named_and_given_up(rabbitmq: RabbitMQ) -> None:
    """The caller went away: that is no reason to try for ever, and the next reply goes out."""
    settings = queue_settings(rabbitmq.url)
    with ReplyWaiter(settings) as gone:
        pass
    with sinks(settings) as (_, replies), ReplyWaiter(settings) as waiter:
        with pytest.raises(PermanentError, match=gone.reply_to) as caught:
            replies.send(announcement(reply_to=gone.reply_to))
        replies.send(announcement(reply_to=waiter.reply_to))

        assert not isinstance(caught.value, TemporaryError)
        assert len(next(waiter.events(10))) > 0


def test_a_reply_through_rabbitmqs_direct_reply_to(rabbitmq: RabbitMQ) -> None:
    """A caller without a queue of its own is answered; when it is gone nobody minds."""
    settings = queue_settings(rabbitmq.url)
    with at_work(settings) as desk, sinks(settings) as (_, replies):
        wait_until(lambda: ping(settings).consumers == 1, what="a worker consumes")
        with raw_channel(rabbitmq) as channel:
            answers: list[bytes] = []
            channel.basic_consume(
                "amq.rabbitmq.reply-to", no_ack=True, callback=lambda message: answers.append(message.body)
            )
            question = amqp.Message("{}", reply_to="amq.rabbitmq.reply-to", message_id="r-1")
            channel.basic_publish(question, settings.exchange, "web")
            delivery = desk.take()
            assert delivery.reply_to is not None
            assert delivery.reply_to.startswith("amq.rabbitmq.reply-to.")

            event = announcement(reply_to=delivery.reply_to)
            replies.send(event)

            channel.connection.drain_events(timeout=10)
            assert answers == [event.body]
        delivery.settle(Settlement.ACCEPT)
        replies.send(announcement(reply_to=delivery.reply_to))


@pytest.mark.parametrize("name", ["", "x" * 256, "é" * 200])
def test_a_reply_queue_that_cannot_be_is_given_up(server: Server, name: str) -> None:
    """A name longer than the protocol allows, or none, is a permanent error, not a broken connection."""
    with sinks(queue_settings(server.url)) as (_, replies), pytest.raises(PermanentError):
        replies.send(announcement(reply_to=name))


def test_a_reply_to_a_key_of_redis_that_is_no_list_is_given_up(redis_server: RedisServer) -> None:
    """Somebody names a key that holds something else: nothing is overwritten."""
    client = redis.Redis(port=redis_server.port)
    name = f"precious-{uuid.uuid4().hex}"
    client.set(name, b"value")
    with sinks(queue_settings(redis_server.url)) as (_, replies), pytest.raises(PermanentError, match=name):
        replies.send(announcement(reply_to=name))

    assert client.get(name) == b"value"
    client.close()


def test_a_reply_in_redis_does_not_stay_for_ever(redis_server: RedisServer) -> None:
    """A caller that never fetches its reply leaves nothing behind."""
    client = redis.Redis(port=redis_server.port)
    name = f"holdfast.reply.{uuid.uuid4().hex}"
    with sinks(queue_settings(redis_server.url)) as (_, replies):
        replies.send(announcement(reply_to=name))

    assert 0 < client.ttl(name) <= 3_600
    client.close()


def test_a_connection_lost_while_idle_is_opened_again_unnoticed(rabbitmq: RabbitMQ) -> None:
    """The first event after a quiet night goes out at the first attempt."""
    settings = queue_settings(rabbitmq.url)
    with sinks(settings) as (events, replies), ReplyWaiter(settings):
        events.send(announcement())
        close_connections(rabbitmq)

        events.send(announcement())

        close_connections(rabbitmq)
        with ReplyWaiter(settings) as waiter:
            replies.send(announcement(reply_to=waiter.reply_to))
            assert len(next(waiter.events(10))) > 0


def test_a_broker_that_is_away_is_a_passing_trouble() -> None:
    """The event waits in the outbox."""
    with sinks(queue_settings("amqp://127.0.0.1:1//")) as (events, replies):
        for sink in (events, replies):
            with pytest.raises(TemporaryError, match=r"127\.0\.0\.1:1"):
                sink.send(announcement(reply_to="q"))


def test_an_events_exchange_of_another_type_keeps_events_waiting(rabbitmq: RabbitMQ) -> None:
    """A person must look, but no event is thrown away for it."""
    settings = queue_settings(rabbitmq.url)
    with raw_channel(rabbitmq) as channel:
        channel.exchange_declare(settings.events_exchange, "fanout", durable=True, auto_delete=False)

    with sinks(settings) as (events, _), pytest.raises(TemporaryError, match=settings.events_exchange):
        events.send(announcement())


def test_a_queue_that_is_full_refuses_aloud(rabbitmq: RabbitMQ) -> None:
    """A confirm is awaited: what the broker will not keep is not counted as sent."""
    settings = queue_settings(rabbitmq.url)
    with raw_channel(rabbitmq) as channel:
        arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
        channel.queue_declare("full-" + settings.name, arguments=arguments, auto_delete=False)

        with sinks(settings) as (_, replies):
            replies.send(announcement(reply_to="full-" + settings.name))

            for _ in range(2):  # RabbitMQ may take one more than it should
                with contextlib.suppress(TemporaryError):
                    replies.send(announcement(reply_to="full-" + settings.name))

            with pytest.raises(TemporaryError, match="no more messages"):
                replies.send(announcement(reply_to="full-" + settings.name))
        channel.queue_delete("full-" + settings.name)


def test_a_request_that_no_worker_takes_is_refused_with_a_hint(rabbitmq: RabbitMQ) -> None:
    """Before any worker has declared its queue, or for a plan that nobody binds."""
    settings = queue_settings(rabbitmq.url)

    with pytest.raises(Unroutable, match="plan web") as caught:
        publish_request(settings, b"{}", request_id="r-1", plan="web")

    assert "routing_keys" in str(caught.value.hint)


def test_a_request_waits_for_a_worker_to_come(server: Server) -> None:
    """Taken by the broker, it is there for whoever comes next."""
    settings = queue_settings(server.url)
    with at_work(settings):
        wait_until(lambda: (found := ping(settings)).ready == 0 and found.consumers != 0, what="a worker consumes")

    publish_request(settings, b"{}", request_id="r-1", plan="web")

    assert ping(settings).ready == 1


def test_a_look_at_the_broker_tells_what_is_there(server: Server) -> None:
    """Product, version, address without password, and what waits."""
    settings = queue_settings(server.url)
    before = ping(settings)
    with at_work(settings) as desk:
        wait_until(lambda: ping(settings).ready == 0, what="the queue is there")
        publish_request(settings, b"{}", request_id="r-1", plan="web") if not before.consumers else None
        desk.take()
        status = ping(settings)

    assert status.product.lower() in {"rabbitmq", "redis", "valkey"}
    assert status.version[0].isdigit()
    assert "guest" not in status.address
    assert (status.ready, status.dead) == (0, 0)


def test_a_queue_that_is_not_there_yet_is_told_from_an_empty_one(rabbitmq: RabbitMQ) -> None:
    """Looking creates nothing."""
    settings = queue_settings(rabbitmq.url)

    first, second = ping(settings), ping(settings)

    assert (first.ready, first.consumers, first.dead) == (None, None, None)
    assert second == first


def test_the_second_broker_of_a_url_is_tried_when_the_first_is_away(rabbitmq: RabbitMQ) -> None:
    """Several brokers of one cluster are separated by a semicolon."""
    settings = queue_settings(f"amqp://127.0.0.1:1//;{rabbitmq.url}")

    assert str(rabbitmq.port) in ping(settings).address


def test_a_password_with_every_character_is_sent_as_it_is(rabbitmq: RabbitMQ) -> None:
    """The setting `password` needs no percent-encoding."""
    password = "p/#?@:;%41 ü"
    name = f"u{uuid.uuid4().hex[:8]}"
    rabbitmq.control("add_user", name, password)
    rabbitmq.control("set_permissions", name, ".*", ".*", ".*")

    settings = queue_settings(f"amqp://{name}@127.0.0.1:{rabbitmq.port}//", password=password)

    assert ping(settings).product == "RabbitMQ"


@pytest.mark.parametrize(("server", "path"), [("redis_server", "pipes"), ("rabbitmq", "nowhere")], indirect=["server"])
def test_an_address_that_the_broker_does_not_know_is_refused(server: Server, path: str) -> None:
    """A database that is no number, a virtual host that is not there: a person must look."""
    settings = queue_settings(server.url[:-1] + path)

    with pytest.raises(BrokerRefused, match=path):
        ping(settings)


def test_a_scheme_that_nobody_has_tried_is_refused_with_the_known_ones() -> None:
    """Better no intake than one that loses requests."""
    settings = queue_settings("amqp://x").model_copy(update={"url": type(queue_settings("amqp://x").url)("sqs://x")})

    with pytest.raises(BrokerRefused, match="sqs") as caught:
        ping(settings)

    assert "redis://" in str(caught.value.hint)


def test_stopped_servers_leave_no_process_behind(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The tests' own promise to the machine they run on."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    processes = server.processes

    server.stop()

    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    with pytest.raises(BrokerAway):
        ping(queue_settings(server.url))
