"""Gets a message through that would make a client library stumble.

Whoever may publish decides what is in a message. kombu and amqp raise in the middle of reading when a property is not
UTF-8, when a date is out of range, or when a Redis list holds something that kombu did not write. On RabbitMQ such a
message then comes again and again and nothing behind it is ever reached; on Redis it is lost, for it was popped before
it was looked at. Here it is mended just enough to arrive, so that the worker can refuse it by name.
"""

from __future__ import annotations

import base64
import binascii
import struct
import uuid
from collections.abc import Callable
from typing import Any, Final

import orjson
from amqp.exceptions import AMQPError
from amqp.method_framing import frame_handler
from amqp.serialization import decode_properties_basic, dumps, loads
from amqp.spec import Basic
from kombu.transport import redis as kombu_redis
from redis import Redis

UNREADABLE_HEADER: Final = "x-holdfast-unreadable"
"""On a mended message: what was wrong with it."""

_METHOD_FRAME, _HEADER_FRAME = 1, 2
_HEADER_PREFIX = struct.Struct(">HHQH")
"""Class, weight, size of the body, property flags. Source: AMQP 0-9-1, 4.2.6.1 "The Content Header"."""
_HEADERS_FLAG = 0x2000
_UNDECODABLE: Final = (ValueError, ArithmeticError, OSError, struct.error, IndexError, RecursionError, AMQPError)
"""What amqp's readers raise for odd bytes: OSError and ArithmeticError for dates, RecursionError for nested tables."""

Frame = tuple[int, int, bytes]


def tolerant_frame_handler(connection: object, callback: Callable[..., object]) -> Callable[[Frame], bool]:
    """The frame reader of amqp, for messages whose properties or routing key cannot be decoded too."""
    read: Callable[[Frame], bool] = frame_handler(connection, callback)

    def on_frame(frame: Frame) -> bool:
        kind, channel, payload = frame
        if kind == _HEADER_FRAME:
            payload = decodable_header(payload)
        elif kind == _METHOD_FRAME and struct.unpack_from(">HH", payload) == Basic.Deliver:
            payload = decodable_delivery(payload)
        return read((kind, channel, payload))

    return on_frame


def decodable_header(payload: bytes) -> bytes:
    """The payload of a content header; without its properties, but for a header that tells why, if they are no good."""
    try:
        decode_properties_basic(payload, 12)
    except _UNDECODABLE as error:
        message_class, weight, body_size, _ = _HEADER_PREFIX.unpack_from(payload)
        table: bytes = dumps("F", [{UNREADABLE_HEADER: f"its properties cannot be decoded: {error}"}])
        return _HEADER_PREFIX.pack(message_class, weight, body_size, _HEADERS_FLAG) + table
    return payload


def decodable_delivery(payload: bytes) -> bytes:
    """The payload of a `basic.deliver`, with question marks for what is not text in its names."""
    try:
        loads("sLbss", payload, 4)
    except UnicodeDecodeError:
        tag, rest = _short_string(payload, 4)
        exchange, after = _short_string(payload, rest + 9)
        routing_key, _ = _short_string(payload, after)
        fixed = payload[rest : rest + 9]
        return payload[:4] + _packed(tag) + fixed + _packed(exchange) + _packed(routing_key)
    return payload


def _short_string(payload: bytes, offset: int) -> tuple[str, int]:
    end = offset + 1 + payload[offset]
    return payload[offset + 1 : end].decode("ascii", "replace").replace("\ufffd", "?"), end


def _packed(text: str) -> bytes:
    content = text.encode("ascii")
    return bytes([len(content)]) + content


class _ListReader(Redis):
    """A Redis client whose BRPOP gives nothing but envelopes that kombu can read."""

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:  # redis-py's own signature
        response: Any = super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]
        if command_name == "BRPOP" and response:
            key, item = response
            return key, readable_envelope(item, queue=key.decode().partition(kombu_redis.Channel.sep)[0])
        return response


class _Channel(kombu_redis.Channel):
    """kombu's Redis channel with the careful reader."""

    def _get_client(self) -> type[Redis]:
        super()._get_client()  # type: ignore[no-untyped-call]  # checks redis-py's version
        return _ListReader


class RedisTransport(kombu_redis.Transport):
    """kombu's Redis transport, which loses no message that kombu did not write."""

    Channel = _Channel


def readable_envelope(item: bytes, *, queue: str) -> bytes:
    """The item of the queue's Redis list as an envelope of kombu's, addressed to that queue.

    What is no such envelope becomes the body of one: `redis-cli LPUSH` with a request in plain JSON is as good as a
    message from kombu. Bodies are never decompressed: a small message could become a large one.
    """
    try:
        envelope = orjson.loads(item)
    except orjson.JSONDecodeError:
        return _envelope(item, queue=queue)
    if not (isinstance(envelope, dict) and {"body", "properties"} <= envelope.keys()):
        return _envelope(item, queue=queue)
    properties, headers = envelope["properties"], envelope.get("headers") or {}
    if not (isinstance(properties, dict) and isinstance(headers, dict)):
        return _envelope(item, queue=queue, headers={UNREADABLE_HEADER: "its properties are not a JSON object"})
    body = _body(envelope["body"], properties.get("body_encoding"))
    if body is None:
        reason = "its body is not encoded as its properties say"
        return _envelope(item, queue=queue, headers={UNREADABLE_HEADER: reason})
    headers.pop("compression", None)
    return _envelope(body, queue=queue, headers=headers, properties=properties)


def _body(body: object, encoding: object) -> bytes | None:
    if not isinstance(body, str):
        return None
    if encoding != "base64":
        return body.encode()
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        return None


def _envelope(
    body: bytes,
    *,
    queue: str,
    headers: dict[str, object] | None = None,
    properties: dict[str, object] | None = None,
) -> bytes:
    given = properties or {}
    info, tag, priority = given.get("delivery_info"), given.get("delivery_tag"), given.get("priority")
    return orjson.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-type": None,
            "content-encoding": None,
            "headers": headers or {},
            "properties": {
                **{name: given[name] for name in ("message_id", "reply_to", "correlation_id") if name in given},
                "body_encoding": "base64",
                "delivery_mode": 2,
                "priority": priority if isinstance(priority, int) else 0,
                # The tag names the message while it is unsettled, so it stays the same when it comes again.
                "delivery_tag": tag if isinstance(tag, str) and tag else str(uuid.uuid4()),
                "delivery_info": {
                    # Handed back, it returns to this queue. By the producer's own exchange kombu would look its queue
                    # up again, and drop it silently where nothing is found.
                    "exchange": "",
                    "routing_key": queue,
                    "redelivered": isinstance(info, dict) and bool(info.get("redelivered")),
                },
            },
        }
    )
