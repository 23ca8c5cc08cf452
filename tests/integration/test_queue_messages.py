"""Whatever a message is, it is delivered or kept with the dead letters, and keeps nobody waiting."""

from __future__ import annotations

import amqp
import pytest

from tests.services.brokers import declared, emptied, raw_channel, raw_redis, request
from tests.services.desk import at_work, queue_settings
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import RedisServer
from tests.services.server import wait_until
from worker.broker.publisher import ping
from worker.intake.delivery import Settlement

ODD_PROPERTIES: dict[str, dict[str, object]] = {
    "a content type nobody knows": {"content_type": "application/x-python-serialize", "content_encoding": "binary"},
    "a text encoding that is not the body's": {"content_type": "text/plain", "content_encoding": "utf-16"},
    "a codec that is none": {"content_encoding": "zlib"},
    "a claim to be compressed": {"application_headers": {"compression": "application/x-gzip"}},
    "huge headers": {"application_headers": {f"h{number}": "x" * 1000 for number in range(100)}},
    "headers that would route a copy": {"application_headers": {"BCC": ["elsewhere"], "CC": ["elsewhere"]}},
    "nested headers": {"application_headers": {"a": {"b": [{"c": None}, b"\xff", 1.5]}}},
    "a short life": {"expiration": "60000"},
    "the name of its user": {"user_id": "guest"},
}


@pytest.mark.parametrize("properties", ODD_PROPERTIES.values(), ids=ODD_PROPERTIES.keys())
def test_odd_properties_change_nothing_about_the_body(rabbitmq: RabbitMQ, properties: dict[str, object]) -> None:
    """Whatever a producer claims, the bytes arrive as they are, and can be refused without losing them."""
    settings = queue_settings(rabbitmq.url)
    body = b"\x80\x04\xff\x00 not text"
    with at_work(settings) as desk:
        declared(settings)
        with raw_channel(settings) as channel:
            channel.basic_publish(amqp.Message(body, **properties), settings.exchange, "web")

        delivery = desk.take()
        delivery.settle(Settlement.REJECT, "no request")

        assert delivery.body == body
        emptied(settings, dead=1)
        assert len(desk.taken) == 1


def nested(depth: int) -> object:
    """Lists in lists."""
    return [] if depth == 0 else [nested(depth - 1)]


UNDECODABLE: dict[str, tuple[dict[str, object], str | bytes]] = {
    "an id that is not UTF-8": ({"message_id": b"\xff\xfe"}, "web"),
    "a routing key that is not UTF-8": ({}, b"web\xff"),
    "lists nested deeper than a stack": ({"application_headers": {"a": nested(400)}}, "web"),
}


@pytest.mark.parametrize(("properties", "key"), UNDECODABLE.values(), ids=UNDECODABLE.keys())
def test_a_message_that_breaks_the_library_blocks_nobody(
    rabbitmq: RabbitMQ, properties: dict[str, object], key: str | bytes
) -> None:
    """The AMQP library cannot decode it; it is refused or delivered, and the one behind it arrives."""
    settings = queue_settings(rabbitmq.url)
    with at_work(settings, accept=True) as desk:
        declared(settings)
        with raw_channel(settings) as channel:
            channel.basic_publish(amqp.Message(b"odd", **properties), settings.exchange, key)

        request(settings, b"behind it")

        while desk.take().body != b"behind it":
            pass
        assert len([each for each in desk.taken if each.redelivered]) == 0


REDIS_ITEMS = {
    "plain JSON": b'{"id": "r-1", "plan": "web"}',
    "no JSON": b"\xff\x00 nothing",
    "a list": b"[1, 2]",
    "nothing": b"",
    "a number": b"NaN",
    "kombu's envelope, emptied": b'{"body": null, "properties": {}}',
    "a body that is not base64": b'{"body": "%%%", "properties": {"body_encoding": "base64"}}',
    "properties that are none": b'{"body": "", "properties": []}',
    "headers that are none": b'{"body": "", "headers": 3, "properties": {}}',
    "types out of a hat": b'{"body": "{}", "properties": {"delivery_tag": 7, "delivery_info": 1, "priority": "x"}}',
    "an object of kombu's": b'{"body": {"__type__": "datetime", "__value__": 1}, "properties": {}}',
}


@pytest.mark.parametrize("item", REDIS_ITEMS.values(), ids=REDIS_ITEMS.keys())
def test_nothing_in_a_redis_list_is_lost(redis_server: RedisServer, item: bytes) -> None:
    """What kombu did not write is delivered or put with the dead letters, and the one behind it arrives."""
    settings = queue_settings(redis_server.url)
    with at_work(settings, accept=True) as desk:
        raw_redis(settings).lpush(settings.name, item)

        request(settings, b"behind it")

        while desk.take().body != b"behind it":
            pass
        wait_until(
            lambda: len(desk.taken) - 1 + (ping(settings).dead or 0) == 1, what="the odd one was delivered or refused"
        )
        wait_until(lambda: raw_redis(settings).hlen(f"{settings.name}.unacked") == 0, what="nothing is unsettled")


def test_plain_json_pushed_with_redis_cli_is_a_request(redis_server: RedisServer) -> None:
    """No kombu is needed to ask for a backup, and handing such a message back keeps it."""
    settings = queue_settings(redis_server.url)
    with at_work(settings) as desk:
        raw_redis(settings).lpush(settings.name, b'{"id": "r-1", "plan": "web"}')

        desk.take().settle(Settlement.HAND_BACK)

        again = desk.take()
        assert (again.body, again.redelivered) == (b'{"id": "r-1", "plan": "web"}', True)
