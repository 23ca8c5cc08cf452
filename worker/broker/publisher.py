"""Everything that is sent to a message broker: events, replies, requests; and a look at its queue."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, ClassVar, Final, Self

import amqp
import orjson

from config.settings import Queue
from handlers.errors import PermanentError
from worker.broker.link import BrokerAway, BrokerRefused, Kind, Link, Unroutable, body_of, kind_of
from worker.broker.outlet import MAX_SHORT_STRING, Outgoing, Outlet
from worker.broker.topology import dead_queue
from worker.events import CONTENT_TYPE
from worker.journal.protocol import Announcement

REPLY_PREFIX: Final = "holdfast.reply."
"""Reply queues in Redis; RabbitMQ makes up names of its own, `amq.gen-...`."""

DIRECT_REPLY_PREFIX: Final = "amq.rabbitmq.reply-to."
"""No queue, but a way straight to a caller's channel: RabbitMQ calls it unroutable even while it delivers.

Source: RabbitMQ, "Direct Reply-to", caveats. Whether the caller is still there cannot be told.
"""

REPLY_EXPIRES: Final = timedelta(hours=1)
"""How long Redis keeps replies that nobody fetches."""


class BrokerPublisher:
    """A connection for publishing that comes back by itself; used by one thread.

    It keeps no heartbeats: found dead after a quiet hour, it is opened again before anybody hears of it.
    """

    def __init__(self, settings: Queue, *, role: str = "events") -> None:
        self.settings = settings
        self._role = role
        self._link: Link | None = None
        self._outlet: Outlet | None = None

    def publish(
        self,
        message: Outgoing,
        *,
        exchange: str = "",
        routing_key: str,
        mandatory: bool,
        expires: timedelta | None = None,
    ) -> None:
        """Publish as `Outlet.publish` does, connecting first where needed; a named exchange is declared, too.

        Raises Unroutable, or BrokerAway or BrokerRefused; the next call starts from a new connection.
        """
        try_again = self._outlet is not None
        while True:
            try:
                outlet = self._connected()
                if exchange:
                    outlet.declare_exchange(exchange)
                outlet.publish(
                    message, exchange=exchange, routing_key=routing_key, mandatory=mandatory, expires=expires
                )
            except BrokerAway:
                self._drop()
                if not try_again:
                    raise
                # A message that got through before the connection broke is now there twice: its id tells.
                try_again = False
            except BrokerRefused:
                self._drop()
                raise
            else:
                return

    def close(self) -> None:
        """Let go of the connection; safe to repeat."""
        if self._link is not None:
            self._link.close()
        self._link = self._outlet = None

    def _connected(self) -> Outlet:
        if self._outlet is None:
            self._link = Link(self.settings, role=self._role, heartbeats=False)
            self._outlet = Outlet(self._link)
        return self._outlet

    def _drop(self) -> None:
        if self._link is not None:
            self._link.abandon()
        self._link = self._outlet = None


class QueueEvents:
    """The event sink that tells everybody who binds a queue to the events exchange.

    The routing key is the plan and the event's last word, such as `web.succeeded`: bind `web.*`, or `#.failed`.
    """

    name: ClassVar[str] = "queue"

    def __init__(self, publisher: BrokerPublisher) -> None:
        self._publisher = publisher

    def send(self, announcement: Announcement) -> None:
        """Publish the event, persistent; nobody has to be listening. Raises TemporaryError only."""
        try:
            self._publisher.publish(
                _event(announcement),
                exchange=self._publisher.settings.events_exchange,
                routing_key=routing_key(announcement.body),
                mandatory=False,
            )
        except BrokerRefused as error:
            # Whatever the broker has against it is put right by a person; the event has done nothing wrong.
            raise BrokerAway(error.message, hint=error.hint) from error

    def close(self) -> None:
        """Let go of the connection; safe to repeat."""
        self._publisher.close()


class ReplyEvents:
    """The event sink that answers the caller who named a reply queue."""

    name: ClassVar[str] = "reply"

    def __init__(self, publisher: BrokerPublisher) -> None:
        self._publisher = publisher

    def send(self, announcement: Announcement) -> None:
        """Put the event into the caller's own queue.

        Raises PermanentError naming the queue where it is gone, else TemporaryError.
        """
        caller = announcement.caller
        if not caller.reply_to:
            raise PermanentError(f"event {announcement.event_id} has no reply queue to go to")
        if _too_long(caller.reply_to) or _too_long(caller.correlation_id):
            raise PermanentError(
                f"reply {announcement.event_id}: queue or correlation id is longer than {MAX_SHORT_STRING} bytes"
            )
        try:
            self._publisher.publish(
                _event(announcement),
                routing_key=caller.reply_to,
                mandatory=not caller.reply_to.startswith(DIRECT_REPLY_PREFIX),
                expires=REPLY_EXPIRES,
            )
        except Unroutable as error:
            raise PermanentError(f"reply queue {caller.reply_to} is gone: {error.message}") from error
        except BrokerRefused as error:
            raise BrokerAway(error.message, hint=error.hint) from error

    def close(self) -> None:
        """Let go of the connection; safe to repeat."""
        self._publisher.close()


def routing_key(body: bytes) -> str:
    """The key under which an event is published: its plan and the last word of its type."""
    event = orjson.loads(body)
    return f"{event.get('subject') or 'unknown'}.{event['type'].rpartition('.')[2]}"


def publish_request(
    settings: Queue,
    body: bytes,
    *,
    request_id: str,
    plan: str,
    reply_to: str | None = None,
    correlation_id: str | None = None,
    content_type: str = CONTENT_TYPE,
) -> None:
    """Put a request where the workers take theirs from; on return the broker has made it durable.

    Raises Unroutable with a hint when no worker's queue takes it, BrokerAway or BrokerRefused.
    """
    if _too_long(request_id):
        raise PermanentError(f"request id {request_id[:40]}... is longer than {MAX_SHORT_STRING} bytes")
    publisher = BrokerPublisher(settings, role="request")
    message = Outgoing(
        body=body,
        content_type=content_type,
        message_id=request_id,
        correlation_id=correlation_id,
        reply_to=reply_to,
    )
    try:
        if kind_of(settings) is Kind.AMQP:
            publisher.publish(message, exchange=settings.exchange, routing_key=plan, mandatory=True)
        else:
            publisher.publish(message, routing_key=settings.name, mandatory=True)
    except Unroutable as error:
        raise Unroutable(
            f"no queue takes requests for plan {plan}: {error.message}",
            hint="start a worker once so that it declares its queue; compare queue.routing_keys with the plan's name",
        ) from error
    finally:
        publisher.close()


class ReplyWaiter:
    """A reply queue of one's own, gone when it is closed or its owner dies. Used by one thread."""

    def __init__(self, settings: Queue) -> None:
        """Make the queue; raises BrokerAway or BrokerRefused. Only then send the request that names `reply_to`."""
        self._link = Link(settings, role="reply", heartbeats=True)
        self._arrived: deque[bytes] = deque()
        try:
            self._channel = self._link.channel()
            with self._link.translated("make a reply queue"):
                self.reply_to = self._declared()
                self._channel.basic_consume(
                    queue=self.reply_to, no_ack=True, callback=self._on_message, consumer_tag="reply"
                )
        except (BrokerAway, BrokerRefused):
            self._link.abandon()
            raise

    def events(self, seconds: float) -> Iterator[bytes]:
        """The bodies of the events as they come; ends after so many seconds, or when the caller stops asking.

        Raises BrokerAway when the connection breaks: later events are lost to this waiter, the request is not.
        """
        deadline = time.monotonic() + seconds
        while True:
            self._link.drain()
            while self._arrived:
                yield self._arrived.popleft()
            self._link.beat()
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return
            self._link.wait(at_most=remaining)

    def close(self) -> None:
        """Delete the queue and let go of the connection; safe to repeat, raises nothing."""
        if self._link.kind is Kind.REDIS and self._channel.connection is not None:
            # Where the connection is broken, Redis forgets what comes after a while.
            with contextlib.suppress(BrokerAway, BrokerRefused), self._link.translated("delete the reply queue"):
                self._channel.basic_cancel("reply")
                self._channel.queue_purge(self.reply_to)
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _declared(self) -> str:
        if self._link.kind is Kind.AMQP:
            return str(self._channel.queue_declare(queue="", exclusive=True, auto_delete=True).queue)
        return f"{REPLY_PREFIX}{secrets.token_hex(16)}"

    def _on_message(self, message: Any) -> None:  # kombu has no types
        self._arrived.append(body_of(message))


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerStatus:
    """What a look at the broker shows."""

    address: str
    product: str
    version: str
    queue: str
    ready: int | None
    """Messages that wait in the queue; None where there is no such queue yet."""
    consumers: int | None
    """Who takes from it at this moment; None where the broker does not tell."""
    dead: int | None
    """Messages that were refused and wait for a person."""


def ping(settings: Queue) -> BrokerStatus:
    """Look at the broker and its queue, changing nothing; raises BrokerAway or BrokerRefused."""
    link = Link(settings, role="doctor", heartbeats=False)
    try:
        product, version = link.server
        ready, consumers = _counts(link, settings.name)
        dead, _ = _counts(link, dead_queue(settings))
    finally:
        link.close()
    return BrokerStatus(
        address=link.address,
        product=product,
        version=version,
        queue=settings.name,
        ready=ready,
        consumers=consumers,
        dead=dead,
    )


def _counts(link: Link, queue: str) -> tuple[int | None, int | None]:
    channel = link.channel()
    with link.translated(f"look at queue {queue}"):
        try:
            found = channel.queue_declare(queue=queue, passive=link.kind is Kind.AMQP)
        except amqp.NotFound:
            return None, None
    return found.message_count, found.consumer_count if link.kind is Kind.AMQP else None


def _event(announcement: Announcement) -> Outgoing:
    correlation_id = announcement.caller.correlation_id
    return Outgoing(
        body=announcement.body,
        content_type=CONTENT_TYPE,
        message_id=announcement.event_id,
        correlation_id=None if _too_long(correlation_id) else correlation_id,
    )


def _too_long(text: str | None) -> bool:
    return text is not None and len(text.encode("utf-8", "surrogatepass")) > MAX_SHORT_STRING
