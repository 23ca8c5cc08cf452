"""Sends copies of messages on: to the dead letters, and to the queues that bring them again later.

A copy is confirmed by the broker before the original is settled. If we die between the two, both are there: a second
dead letter, or a second arrival of the same request, which attaches to the first or finds its outcome.
"""

from __future__ import annotations

from loguru import logger

from worker.broker.link import BrokerRefused, Kind, Link, Unroutable
from worker.broker.outlet import Outlet
from worker.broker.topology import dead_queue, declare_retry_queue, declare_topology, retry_queue
from worker.intake.arrival import LONGEST_REASON, MOST_RETURNS, Arrival


class Copies:
    """The copies of one connection's arrivals; every method belongs to the thread of the link.

    Methods raise BrokerAway or BrokerRefused when the connection is of no more use.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._settings = link.settings
        self._outlet = Outlet(link)
        self._declared: set[int] = set()

    def bury(self, arrival: Arrival, reason: str) -> bool:
        """Put a copy with the reason among the dead letters; says whether one is safe there.

        The broker's own way to the dead letters could not carry the reason.
        """
        log = logger.bind(queue=self._settings.name, message_id=arrival.message_id, reason=reason[:LONGEST_REASON])
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

    def send_round(self, arrival: Arrival, seconds: int) -> bool:
        """Put a copy where RabbitMQ keeps it for so long and then brings it again; says whether one is safe there."""
        log = logger.bind(queue=self._settings.name, message_id=arrival.message_id, seconds=seconds)
        if arrival.returns >= MOST_RETURNS:
            log.warning("queue_message_kept", returns=arrival.returns, next="it stays unsettled with this worker")
            return False
        for attempt in ("as it is", "declared anew"):
            if not self._has_queue(seconds):
                return False
            try:
                self._outlet.publish(
                    arrival.once_more(),
                    exchange="",
                    routing_key=retry_queue(self._settings, seconds),
                    mandatory=True,
                )
            except Unroutable as error:
                self._declared.discard(seconds)  # somebody has deleted it
                if attempt == "declared anew":
                    log.error("queue_retry_impossible", error=str(error), next="it stays unsettled with this worker")
                    return False
            else:
                break
        log.debug("queue_message_sent_round", next="the broker brings it again after that time")
        return True

    def _has_queue(self, seconds: int) -> bool:
        if seconds in self._declared:
            return True
        try:
            declare_retry_queue(self._link, seconds)
        except BrokerRefused as error:
            logger.error(
                "queue_retry_impossible",
                error=str(error),
                hint=error.hint,
                next="what is to be tried again stays unsettled with this worker, and keeps others waiting",
            )
            return False
        self._declared.add(seconds)
        return True

    def _publish_dead(self, arrival: Arrival, reason: str) -> None:
        settings, amqp = self._settings, self._link.kind is Kind.AMQP
        self._outlet.publish(
            arrival.dead_letter(reason, settings.name),
            exchange=settings.dead_letter_exchange if amqp else "",
            routing_key=settings.name if amqp else dead_queue(settings),
            mandatory=True,
        )
