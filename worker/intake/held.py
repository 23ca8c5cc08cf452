"""Keeps deliveries unsettled until their outcome is announced.

For workers without durable state (`settle: announced`): should this worker vanish with its disk, the broker still has
every request whose outcome nobody has heard.
"""

from __future__ import annotations

import threading
from datetime import timedelta

from worker.intake.delivery import Delivery, Settlement
from worker.intake.wire import RequestId


class HeldDeliveries:
    """Deliveries by request; any thread."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._held: dict[RequestId, list[Delivery]] = {}

    def hold(self, request_id: RequestId, delivery: Delivery) -> None:
        """Keep one."""
        with self._mutex:
            self._held.setdefault(request_id, []).append(delivery)

    def waiting(self) -> tuple[RequestId, ...]:
        """The requests whose outcome is awaited."""
        with self._mutex:
            return tuple(self._held)

    def settle(self, request_id: RequestId) -> None:
        """The outcome is out: accept whatever is held for it."""
        with self._mutex:
            deliveries = self._held.pop(request_id, [])
        for delivery in deliveries:
            delivery.settle(Settlement.ACCEPT)

    def defer(self, request_id: RequestId, after: timedelta) -> None:
        """The request is not tried again before so much time has passed: its deliveries keep no others from coming.

        They stay held: where the intake could not put one off, its settlement is still owed.
        """
        with self._mutex:
            deliveries = tuple(self._held.get(request_id, ()))
        for delivery in deliveries:
            delivery.defer(after)

    def hand_back(self) -> int:
        """Give everything back to where it came from; says how many."""
        with self._mutex:
            deliveries = [delivery for held in self._held.values() for delivery in held]
            self._held.clear()
        for delivery in deliveries:
            delivery.settle(Settlement.HAND_BACK)
        return len(deliveries)
