"""The intake that takes requests from a message broker.

One thread, the one that calls `run`, owns the connection. It receives, keeps the heartbeats, and carries out what other
threads decide about deliveries. Each delivery belongs to one connection: when that breaks, the broker delivers the
message again, and what is decided about the first arrival is dropped.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar, Final, Literal

from loguru import logger

from config.settings import Queue
from worker.broker.link import BrokerAway, BrokerRefused
from worker.intake.arrival import Arrival
from worker.intake.delivery import Gate, Settlement
from worker.intake.queue_session import Decision, Later, QueueSession

FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 30.0
"""Between two attempts to reach the broker; the pause doubles from the first to the longest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDelivery:
    """One arrival of one message, on one connection."""

    body: bytes
    message_id: str | None
    reply_to: str | None
    correlation_id: str | None
    redelivered: bool
    intake: str = "queue"
    _decide: Callable[[Settlement | Later, str], None] = field(repr=False)

    def settle(self, settlement: Settlement, reason: str = "") -> None:
        """Say what becomes of it; any thread, returns at once. The first word counts."""
        self._decide(settlement, reason)

    def defer(self, after: timedelta) -> None:
        """Put it off; any thread, returns at once.

        RabbitMQ takes it back and brings it again as a redelivery; from Redis it stays here, with its lease renewed.
        """
        self._decide(Later(after=after), "")


class QueueIntake:
    """Brings requests from the broker, and stays at it however often the connection breaks.

    With `journalled` settlement one message is on its way at a time, and none while there is no room: a message that is
    not wanted yet stays in the queue for another worker. With `announced` settlement up to `concurrency` messages are
    held until their outcomes are out; a new one is sent for each that is settled or put off.
    """

    name: ClassVar[str] = "queue"

    def __init__(
        self,
        settings: Queue,
        *,
        node: str,
        settle: Literal["journalled", "announced"] = "journalled",
        concurrency: int = 1,
    ) -> None:
        self._settings = settings
        self._node = node
        self._held_for_long = settle == "announced"
        self._prefetch = concurrency if self._held_for_long else 1
        self._decisions: queue.SimpleQueue[Decision] = queue.SimpleQueue()
        self._wake = _Wake()
        self._stopping = False
        self._closing = False
        self._lost: list[str] = []
        self._survived: set[bytes] = set()
        self._away = False
        self._connected = self._ever_connected = False

    def run(self, gate: Gate) -> None:
        """Bring deliveries until `stop`; returns after `close`, when every decision was carried out.

        Raises BrokerRefused when the broker's very first answer is no: that is the configuration. After that nothing
        but a bug ends it.
        """
        pause = FIRST_PAUSE_SECONDS
        try:
            while not self._closing:
                if self._stopping:
                    self._wake.wait(LONGEST_PAUSE_SECONDS)  # nothing is held any more, nothing is wanted: await `close`
                    continue
                began = None
                try:
                    with contextlib.closing(self._session()) as session:
                        began = time.monotonic()
                        self._pump(session, gate)
                except (BrokerAway, BrokerRefused) as error:
                    if isinstance(error, BrokerRefused) and not self._ever_connected:
                        raise
                    self._say_away(error)
                    if began is not None and time.monotonic() - began > LONGEST_PAUSE_SECONDS:
                        pause = FIRST_PAUSE_SECONDS  # one that breaks as soon as it stands gets ever longer pauses
                    self._rest(pause * random.uniform(0.5, 1))  # noqa: S311  # many workers, one broker
                    pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        finally:
            self._wake.close()

    def stop(self) -> None:
        """Bring nothing new; what is held can still be settled until `close`. Any thread."""
        self._stopping = True
        self._wake.set()

    def close(self) -> None:
        """No more decisions will come: `run` may return. Any thread."""
        self._stopping = self._closing = True
        self._wake.set()

    def poke(self) -> None:
        """There may be room again: look now rather than within a second. Any thread."""
        self._wake.set()

    @property
    def trouble(self) -> str | None:
        """Why nothing can be brought at this moment. Any thread."""
        return None if self._connected or self._stopping else "the broker is not there"

    def _rest(self, seconds: float) -> None:
        # Whoever settles or pokes meanwhile does not make the broker come back sooner; `stop` is heard.
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            self._wake.wait(left)

    def _session(self) -> QueueSession:
        session = QueueSession(
            self._settings,
            node=self._node,
            prefetch=self._prefetch,
            held_for_long=self._held_for_long,
            lost=self._lost,
        )
        self._lost = []
        self._away = False
        self._connected = self._ever_connected = True
        product, version = session.server
        logger.info(
            "queue_connected", broker=session.address, queue=self._settings.name, product=product, version=version
        )
        return session

    def _pump(self, session: QueueSession, gate: Gate) -> None:
        try:
            while True:
                closing = self._closing  # asked before the decisions are taken out: none can come after `close`
                # Room before decisions: each acknowledgement makes the broker send the next message.
                self._make_way(session, gate)
                busy = self._settle(session)
                if closing:
                    return
                session.receive()
                while (arrival := session.next_arrival()) is not None:
                    self._deliver(session, arrival, gate)
                    busy = True
                if not busy:
                    session.wait(self._wake.descriptor)
                    self._wake.clear()
        except (BrokerAway, BrokerRefused):
            self._lost = session.abandon()
            self._survived.update(arrival.digest for arrival in session.unsettled())
            raise
        finally:
            self._connected = False

    def _deliver(self, session: QueueSession, arrival: Arrival, gate: Gate) -> None:
        if self._stopping:
            session.settle(arrival, Settlement.HAND_BACK)
            return
        if (reason := arrival.refusal(self._settings.max_request_bytes)) is not None:
            session.settle(arrival, Settlement.REJECT, reason)
            return
        if self._is_worn(arrival) and session.defer(arrival, timedelta()):
            return

        def decide(verdict: Settlement | Later, reason: str) -> None:
            self._decisions.put(Decision(session=session, arrival=arrival, verdict=verdict, reason=reason))
            self._wake.set()

        gate.deliver(
            QueueDelivery(
                body=arrival.body,
                message_id=arrival.message_id,
                reply_to=arrival.reply_to,
                correlation_id=arrival.correlation_id,
                redelivered=arrival.redelivered,
                _decide=decide,
            )
        )
        # Before the acknowledgement: it would make the broker send one that nobody has room for, and handing that back
        # counts against the delivery limit.
        self._make_way(session, gate)
        self._settle(session)

    def _is_worn(self, arrival: Arrival) -> bool:
        """Whether it comes again and again, although this very process had it and lives.

        Acknowledgement timeouts and lost connections count against the delivery limit like the deaths of workers. A
        request whose work outlasts many of them would end among the dead letters while it is worked on.
        """
        return arrival.failed_deliveries * 2 > self._settings.delivery_limit and arrival.digest in self._survived

    def _make_way(self, session: QueueSession, gate: Gate) -> None:
        if self._stopping:
            session.pause()
        elif gate.room() > 0:
            session.consume()
        elif not (self._held_for_long and session.holds):
            # What is held for long keeps the broker from sending more. Pausing would not, as the consumer that begins
            # afterwards may have as many again; and a quorum queue counts what it takes back as a failed delivery.
            session.pause()

    def _settle(self, session: QueueSession) -> bool:
        busy = False
        with contextlib.suppress(queue.Empty):
            while True:
                decision = self._decisions.get_nowait()
                busy = True
                self._carry_out(session, decision)
        return busy

    def _carry_out(self, session: QueueSession, decision: Decision) -> None:
        arrival, verdict = decision.arrival, decision.verdict
        if not isinstance(verdict, Later):
            self._survived.discard(arrival.digest)
        if decision.session is not session:
            logger.info(
                "queue_settlement_dropped",
                message_id=arrival.message_id,
                settlement=str(verdict),
                next="the connection it came by is gone: the broker delivers the message again",
            )
        elif isinstance(verdict, Later):
            session.defer(arrival, verdict.after)
        else:
            session.settle(arrival, verdict, decision.reason)

    def _say_away(self, error: BrokerAway | BrokerRefused) -> None:
        # Once for each time it goes away, not once for each attempt.
        if self._away:
            return
        self._away = True
        log = logger.error if isinstance(error, BrokerRefused) else logger.warning
        log("queue_away", queue=self._settings.name, error=str(error), next="the worker keeps trying")


class _Wake:
    """A flag that a thread can sleep on together with a socket."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._mutex = threading.Lock()
        self._open = True

    def set(self) -> None:
        """Wake the sleeper, now or when it next lies down; any thread, also after `close`."""
        with self._mutex:
            if self._open:
                os.eventfd_write(self.descriptor, 1)

    def clear(self) -> None:
        """Forget what came so far."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)

    def wait(self, seconds: float) -> None:
        """Sleep until it is set, then forget that."""
        sleeper = select.poll()
        sleeper.register(self.descriptor, select.POLLIN)
        sleeper.poll(seconds * 1000)
        self.clear()

    def close(self) -> None:
        """Let go of the descriptor; a number that was set free may soon be somebody else's file."""
        with self._mutex:
            self._open = False
            os.close(self.descriptor)
