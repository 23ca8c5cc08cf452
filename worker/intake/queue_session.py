"""One connection's share of the queue intake: what arrives by it is settled by it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from config.settings import Queue
from worker.broker.leases import Leases
from worker.broker.link import BrokerAway, BrokerRefused, Kind, Link, body_of
from worker.broker.topology import declare_topology, retry_seconds
from worker.intake.arrival import RETURNS_HEADER, Arrival
from worker.intake.copies import Copies
from worker.intake.delivery import Settlement

LONGEST_HOLD: Final = timedelta(days=7)
"""How long RabbitMQ (3.12 and later) may wait for a settlement that is given when the outcome is out."""

_CONSUMER_TIMEOUT_SINCE: Final = (3, 12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """It is not needed before so much time has passed."""

    after: timedelta

    def __str__(self) -> str:
        return f"in {self.after.total_seconds():.0f} s again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What somebody decided about an arrival."""

    session: QueueSession
    arrival: Arrival
    verdict: Settlement | Later
    reason: str = ""


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
        self._deferred: set[Any] = set()
        self._leases: Leases | None = None
        self._consuming = False
        self._link = Link(settings, role=f"intake {node}", heartbeats=True)
        try:
            self.server = self._link.server
            declare_topology(self._link)
            self._channel = self._link.channel()
            if self._link.kind is Kind.AMQP:
                self._channel.callbacks = _OneCallback(self._on_message)
            else:
                self._leases = Leases(self._link, self._channel)
            self._copies = Copies(self._link)
            with self._link.translated("set the prefetch count"):
                self._channel.basic_qos(0, self._prefetch, False)
            if self._leases is not None:
                self._leases.give_up(lost)
        except (BrokerAway, BrokerRefused):
            self._link.abandon()
            raise

    @property
    def address(self) -> str:
        """Where the broker is, for people."""
        return self._link.address

    @property
    def holds(self) -> bool:
        """Whether there are messages that have not been settled, nor put off."""
        return len(self._unsettled) > len(self._deferred)

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
        """Take in what the broker has sent, and keep connection and messages alive; never waits."""
        if self._leases is not None:
            # First: receiving looks for leases that have ended, ours among them.
            self._leases.renew(self._unsettled)
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
        if settlement is Settlement.REJECT and not self._copies.bury(arrival, reason):
            settlement = Settlement.HAND_BACK
        with self._link.translated("settle"):
            if settlement is Settlement.HAND_BACK:
                self._channel.basic_reject(arrival.tag, requeue=True)
            else:
                self._channel.basic_ack(arrival.tag)
        del self._unsettled[arrival.tag]
        if arrival.tag in self._deferred:
            self._deferred.discard(arrival.tag)
            self._make_room()

    def defer(self, arrival: Arrival, after: timedelta) -> bool:
        """Free the place of a message that is not needed before so much time has passed.

        RabbitMQ gets it back and brings it again when it is due, at most an hour from now: True. Redis could not: there
        it stays with us, for whoever settles it later, as it does where RabbitMQ allows no further queue: False.
        """
        if arrival.tag not in self._unsettled or arrival.tag in self._deferred:
            return False
        if self._leases is not None:
            self._deferred.add(arrival.tag)
            self._make_room()
            return False
        if not self._copies.send_round(arrival, retry_seconds(after, rounds=arrival.returns)):
            return False
        self.settle(arrival, Settlement.ACCEPT)
        return True

    def close(self) -> None:
        """Hand back what is unsettled and say goodbye; safe to repeat, also after `abandon`."""
        self._link.close()

    def abandon(self) -> list[str]:
        """Let go of a broken connection; gives what the next session must ask back, because no broker does."""
        self._link.abandon()
        return [str(tag) for tag in self._unsettled] if self._leases is not None else []

    def unsettled(self) -> list[Arrival]:
        """What arrived and has not been settled."""
        return list(self._unsettled.values())

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
            redelivered=bool(message.delivery_info.get("redelivered")) or RETURNS_HEADER in (message.headers or {}),
        )
        self._unsettled[arrival.tag] = arrival
        self._arrived.append(arrival)

    def _make_room(self) -> None:
        # What is put off counts among what Redis has sent ahead: for each, one more may come.
        if self._leases is not None:
            self._leases.make_room(self._prefetch + len(self._deferred))


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
