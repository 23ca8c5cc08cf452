"""One connection's share of the queue intake: what arrives by it is settled by it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from loguru import logger

from config.settings import Queue
from worker.broker.link import BrokerAway, BrokerRefused, Kind, Link, Unroutable, body_of
from worker.broker.outlet import MAX_SHORT_STRING, Outgoing, Outlet
from worker.broker.rescue import UNREADABLE_HEADER
from worker.broker.topology import dead_queue, declare_topology
from worker.intake.delivery import Settlement

REASON_HEADER: Final = "x-holdfast-reason"
"""On a dead letter: why it was refused."""

QUEUE_HEADER: Final = "x-holdfast-queue"
"""On a dead letter: the queue it was taken from."""

LONGEST_HOLD: Final = timedelta(days=7)
"""How long RabbitMQ (3.12 and later) may wait for a settlement that is given when the outcome is out."""

_CONSUMER_TIMEOUT_SINCE: Final = (3, 12)
_LONGEST_REASON: Final = 2_000
_LONGEST_HEADERS: Final = 16_000
"""Characters copied of the headers of a refused message. RabbitMQ takes 128 KiB, the longest character has 4 bytes."""
_NOT_COPIED: Final = frozenset({"CC", "BCC", "x-death", "x-delivery-count", UNREADABLE_HEADER})
"""Headers that a copy does without: the first two would send it to further queues, the rest speaks of the original."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrival:
    """A message as it came off the wire."""

    tag: Any
    body: bytes
    headers: Mapping[str, object]
    properties: Mapping[str, object]
    redelivered: bool

    @property
    def message_id(self) -> str | None:
        """The producer's id for the message."""
        return self._text("message_id")

    @property
    def reply_to(self) -> str | None:
        """The queue that wants the outcome."""
        return self._text("reply_to")

    @property
    def correlation_id(self) -> str | None:
        """What the caller wants to hear back with the outcome."""
        return self._text("correlation_id")

    def refusal(self, max_bytes: int) -> str | None:
        """Why this cannot be a request, as far as the transport can tell."""
        if (unreadable := self.headers.get(UNREADABLE_HEADER)) is not None:
            return str(unreadable)
        if len(self.body) > max_bytes:
            return f"the message has {len(self.body)} bytes, queue.max_request_bytes allows {max_bytes}"
        return None

    def dead_letter(self, reason: str, queue: str) -> Outgoing:
        """A copy that tells why it was refused. It does not expire, and goes nowhere but to the dead letters."""
        return Outgoing(
            body=self.body,
            content_type=self._text("content_type"),
            content_encoding=self._text("content_encoding"),
            headers={**self._plain_headers(), REASON_HEADER: reason[:_LONGEST_REASON], QUEUE_HEADER: queue},
            message_id=self.message_id,
            correlation_id=self.correlation_id,
            reply_to=self.reply_to,
        )

    def _plain_headers(self) -> dict[str, object]:
        # Only what can be written again, and no more than fits into one frame together with our own.
        headers: dict[str, object] = {}
        left = _LONGEST_HEADERS
        for name, value in self.headers.items():
            if name in _NOT_COPIED or not isinstance(name, str):
                continue
            plain = value if isinstance(value, str | bool | int | float) else f"({type(value).__name__})"
            left -= len(name) + (len(plain) if isinstance(plain, str) else 9)
            if left < 0:
                break
            headers[name] = plain
        return headers

    def _text(self, name: str) -> str | None:
        # In AMQP these are short strings; in Redis anything that is JSON.
        value = self.properties.get(name)
        if not isinstance(value, str) or not value or len(value.encode("utf-8", "surrogatepass")) > MAX_SHORT_STRING:
            return None
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What somebody decided about an arrival."""

    session: QueueSession
    arrival: Arrival
    settlement: Settlement
    reason: str


class QueueSession:
    """A connection with its consumer; every method belongs to the thread that made it.

    Methods raise BrokerAway or BrokerRefused when the connection is of no more use; then `abandon` it.
    """

    def __init__(
        self, settings: Queue, *, node: str, prefetch: int, held_for_long: bool = False, lost: Sequence[str] = ()
    ) -> None:
        """Connect and declare; the broker sends up to `prefetch` messages ahead of their settlements.

        With `held_for_long` these come only after the work. `lost` is what `abandon` gave for the connection before.
        """
        self._settings = settings
        self._prefetch = prefetch
        self._held_for_long = held_for_long
        self._node = node
        self._consumers = 0
        self._arrived: deque[Arrival] = deque()
        self._unsettled: dict[Any, Arrival] = {}
        self._consuming = False
        self._link = Link(settings, role=f"intake {node}", heartbeats=True)
        try:
            self.server = self._link.server
            declare_topology(self._link)
            self._channel = self._link.channel()
            if self._link.kind is Kind.AMQP:
                self._channel.callbacks = _OneCallback(self._on_message)
            self._outlet = Outlet(self._link)
            with self._link.translated("set the prefetch count"):
                self._channel.basic_qos(0, self._prefetch, False)
            self._take_back(lost)
        except (BrokerAway, BrokerRefused):
            self._link.abandon()
            raise

    @property
    def address(self) -> str:
        """Where the broker is, for people."""
        return self._link.address

    @property
    def holds(self) -> bool:
        """Whether there are messages that have not been settled."""
        return bool(self._unsettled)

    def consume(self) -> None:
        """Let the broker send messages; safe to repeat."""
        if self._consuming:
            return
        self._consumers += 1
        with self._link.translated(f"consume from queue {self._settings.name}"):
            self._channel.basic_consume(
                queue=self._settings.name,
                no_ack=False,
                callback=self._on_message,
                consumer_tag=self._consumer_tag,
                arguments=self._consumer_arguments(),
            )
        self._consuming = True

    def pause(self) -> None:
        """Ask for no more messages; those that are on their way may still come, or be given back. Safe to repeat."""
        if not self._consuming:
            return
        self._consuming = False
        with self._link.translated("stop consuming"):
            if self._link.kind is Kind.AMQP:
                # Without waiting: the broker reads this before any acknowledgement that follows, which is all we need.
                self._channel.basic_cancel(self._consumer_tag, nowait=True)
            else:
                self._channel.basic_cancel(self._consumer_tag)

    def receive(self) -> None:
        """Take in what the broker has sent, and keep the connection alive; never waits."""
        self._link.drain()
        self._link.beat()

    def next_arrival(self) -> Arrival | None:
        """The next message to look at."""
        return self._arrived.popleft() if self._arrived else None

    def wait(self, wake: int) -> None:
        """Sleep until there may be something to do."""
        self._link.wait(wake=wake)

    def settle(self, arrival: Arrival, settlement: Settlement, reason: str = "") -> None:
        """Carry out what was decided; a second decision about the same arrival changes nothing."""
        if arrival.tag not in self._unsettled:
            return
        if settlement is Settlement.REJECT and not self._bury(arrival, reason):
            settlement = Settlement.HAND_BACK
        with self._link.translated("settle"):
            if settlement is Settlement.HAND_BACK:
                self._channel.basic_reject(arrival.tag, requeue=True)
            else:
                self._channel.basic_ack(arrival.tag)
        del self._unsettled[arrival.tag]

    def close(self) -> None:
        """Hand back what is unsettled and say goodbye; safe to repeat, also after `abandon`."""
        self._link.close()

    def abandon(self) -> list[str]:
        """Let go of a broken connection; gives what the next session must ask back, because no broker does."""
        self._link.abandon()
        return [str(tag) for tag in self._unsettled] if self._link.kind is Kind.REDIS else []

    @property
    def _consumer_tag(self) -> str:
        # A name of its own each time: a quorum queue would count what a namesake before it still holds.
        return f"holdfast {self._node} {self._consumers}"

    def _consumer_arguments(self) -> dict[str, object]:
        version = tuple(int(number) for number in re.findall(r"\d+", self.server[1])[:2])
        if not self._held_for_long or self._link.kind is not Kind.AMQP or version < _CONSUMER_TIMEOUT_SINCE:
            return {}
        return {"x-consumer-timeout": int(LONGEST_HOLD.total_seconds() * 1000)}

    def _on_message(self, message: Any) -> None:  # kombu has no types
        arrival = Arrival(
            tag=message.delivery_tag,
            body=body_of(message),
            headers=message.headers or {},
            properties=message.properties,
            redelivered=bool(message.delivery_info.get("redelivered")),
        )
        self._unsettled[arrival.tag] = arrival
        self._arrived.append(arrival)

    def _bury(self, arrival: Arrival, reason: str) -> bool:
        """Put a copy with the reason among the dead letters; says whether one is safe there.

        If we die between this and the acknowledgement the message comes again and is refused again: a second copy,
        never none. The broker's own way to the dead letters could not carry the reason.
        """
        log = logger.bind(queue=self._settings.name, message_id=arrival.message_id, reason=reason[:_LONGEST_REASON])
        for attempt in ("as it is", "declared anew"):
            try:
                self._publish_dead(arrival, reason)
            except Unroutable as error:
                if attempt == "declared anew":
                    log.error("queue_dead_letter_impossible", error=str(error), next="the message stays in the queue")
                    return False
                declare_topology(self._link)
            else:
                break
        log.warning("queue_message_rejected", next=f"look at queue {dead_queue(self._settings)}")
        return True

    def _publish_dead(self, arrival: Arrival, reason: str) -> None:
        settings, amqp = self._settings, self._link.kind is Kind.AMQP
        self._outlet.publish(
            arrival.dead_letter(reason, settings.name),
            exchange=settings.dead_letter_exchange if amqp else "",
            routing_key=settings.name if amqp else dead_queue(settings),
            mandatory=True,
        )

    def _take_back(self, lost: Sequence[str]) -> None:
        if not lost or self._link.kind is not Kind.REDIS:
            return
        # What a broken connection held is nobody's: Redis would keep it until the visibility timeout has passed.
        with self._link.translated("take back"):
            for tag in lost:
                self._channel.qos.restore_by_tag(tag)


class _OneCallback(dict[str, Callable[[Any], None]]):
    """What amqp does with a delivery, whatever consumer it is for.

    A quorum queue's deliveries may overtake the answers to "cancel" and "consume". amqp would give such a message back,
    which counts against the delivery limit; a callback kept for each cancelled consumer would fill the memory.
    """

    def __init__(self, callback: Callable[[Any], None]) -> None:
        super().__init__()
        self._callback = callback

    def __missing__(self, consumer_tag: str) -> Callable[[Any], None]:
        return self._callback

    def __setitem__(self, consumer_tag: str, callback: Callable[[Any], None]) -> None:
        """Nothing is kept."""
