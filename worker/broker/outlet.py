"""Publishes one message at a time, and returns when the broker has made it durable."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from amqp.exceptions import AMQPError
from amqp.serialization import dumps

from worker.broker.link import BrokerAway, Kind, Link, Unroutable

MAX_SHORT_STRING: Final = 255
"""Bytes in a name or a property of AMQP. Source: AMQP 0-9-1, 4.2.5.3 "Strings"."""

_PERSISTENT = 2
_MOST_HEADER_BYTES: Final = 100_000
"""Of the 128 KiB that RabbitMQ takes in one frame; the other properties have to fit in as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message that is to outlive a restart of the broker."""

    body: bytes
    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, object] = field(default_factory=dict)
    message_id: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    priority: int | None = None
    further: Mapping[str, object] = field(default_factory=dict)
    """More properties, by their names in AMQP: type, app_id, timestamp."""


class Outlet:
    """A channel of a link that is used for publishing alone, from the link's own thread."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._channel = link.channel()
        self._returned: str | None = None
        self._declared: set[str] = set()
        if link.kind is Kind.AMQP:
            self._channel.events["basic_return"].add(self._on_return)

    def declare_exchange(self, name: str) -> None:
        """Make sure that there is this durable topic exchange; raises BrokerRefused where it has another type."""
        if name in self._declared:
            return
        with self._link.translated(f"declare exchange {name}"):
            self._channel.exchange_declare(exchange=name, type="topic", durable=True, auto_delete=False)
        self._declared.add(name)

    def publish(
        self, message: Outgoing, *, exchange: str, routing_key: str, mandatory: bool, expires: timedelta | None = None
    ) -> None:
        """Hand the message to the broker; on return it is stored wherever it was routed to.

        With `mandatory`, Unroutable is raised when that is nowhere (RabbitMQ only: in Redis any name is a queue). With
        `expires`, Redis forgets a queue that nobody has emptied for so long. After BrokerAway or BrokerRefused the
        message may or may not be there, and the link is to be given up.
        """
        with self._link.translated(f"publish to {exchange or routing_key}"):
            prepared = self._channel.prepare_message(
                message.body,
                priority=message.priority,
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                headers=dict(message.headers),
                properties=_properties(message),
            )
            if self._link.kind is Kind.AMQP:
                self._publish_confirmed(prepared, exchange, routing_key, mandatory=mandatory)
                return
            if expires is not None:
                milliseconds = int(expires.total_seconds() * 1000)
                self._channel.queue_declare(queue=routing_key, arguments={"x-expires": milliseconds})
            self._channel.basic_publish(prepared, exchange=exchange, routing_key=routing_key)
            if expires is not None:
                self._channel.queue_declare(queue=routing_key)  # kombu remembers each name until it is told otherwise

    def _publish_confirmed(self, prepared: object, exchange: str, routing_key: str, *, mandatory: bool) -> None:
        seconds = self._link.settings.connect_timeout_seconds
        self._returned = None
        try:
            self._channel.basic_publish(
                prepared,
                exchange=exchange,
                routing_key=routing_key,
                mandatory=mandatory,
                timeout=seconds,
                confirm_timeout=seconds,
            )
        except TimeoutError as error:
            raise BrokerAway(
                f"publish to {exchange or routing_key}: {self._link.address} did not confirm within {seconds:g} s",
                hint="the broker blocks publishers while its memory or disk alarm is on",
            ) from error
        if self._returned is not None:
            raise Unroutable(f"no queue for {exchange or 'the default exchange'} / {routing_key}: {self._returned}")

    def _on_return(self, error: Exception, exchange: str, routing_key: str, message: object) -> None:
        self._returned = str(getattr(error, "reply_text", error))


def writable(headers: Mapping[str, object]) -> bool:
    """Whether these headers can be sent: not everything that was read can be written again."""
    try:
        return len(dumps("F", [dict(headers)])) <= _MOST_HEADER_BYTES
    except (AMQPError, ValueError, TypeError, ArithmeticError, AttributeError, struct.error, RecursionError):
        return False


def _properties(message: Outgoing) -> dict[str, Any]:
    given = {
        **message.further,
        "delivery_mode": _PERSISTENT,
        "message_id": message.message_id,
        "correlation_id": message.correlation_id,
        "reply_to": message.reply_to,
    }
    return {name: value for name, value in given.items() if value is not None}
