"""The worker's side of a queue intake, for tests: takes deliveries in and says how much room there is."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Literal

from config.secrets import Secret
from config.settings import Queue
from worker.intake.delivery import Delivery, Gate, Settlement
from worker.intake.queue import QueueIntake


def queue_settings(url: str, **options: object) -> Queue:
    """Settings with names that no other test uses."""
    unique = uuid.uuid4().hex[:12]
    names = {
        "name": f"requests-{unique}",
        "exchange": f"exchange-{unique}",
        "events_exchange": f"events-{unique}",
        "dead_letter_exchange": f"dead-{unique}",
    }
    return Queue.model_validate({"url": Secret(url), "connect_timeout_seconds": 5, **names, **options})


class Desk:
    """Runs an intake in a thread of its own; what it delivers is taken with `take`."""

    def __init__(
        self,
        settings: Queue,
        *,
        room: int = 1_000,
        accept: bool = False,
        settle: Literal["journalled", "announced"] = "journalled",
    ) -> None:
        self.room = room
        self.accept = accept
        self.taken: list[Delivery] = []
        self.on_delivery: Callable[[], object] = lambda: None
        self._arrived: queue.SimpleQueue[tuple[float, Delivery]] = queue.SimpleQueue()
        self.intake = QueueIntake(settings, node="desk", settle=settle, concurrency=min(room, 64))
        self.error: BaseException | None = None
        self.gate = Gate(deliver=self._deliver, room=lambda: self.room)
        self.thread = threading.Thread(target=self._run, name="intake")

    def take(self, seconds: float = 20) -> Delivery:
        """The next delivery; fails the test when none comes in time."""
        return self.take_timed(seconds)[1]

    def take_timed(self, seconds: float = 20) -> tuple[float, Delivery]:
        """The next delivery, with the moment of its arrival on the monotonic clock."""
        try:
            return self._arrived.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"no delivery within {seconds:g} s; the intake said {self.error!r}") from None

    def nothing_comes(self, seconds: float) -> bool:
        """Whether nothing is delivered for so long."""
        with contextlib.suppress(queue.Empty):
            self._arrived.get(timeout=seconds)
            return False
        return True

    def finish(self) -> None:
        """Stop the intake and wait for its thread; safe to repeat."""
        self.intake.stop()
        self.intake.close()
        self.thread.join(20)
        assert not self.thread.is_alive(), "the intake does not end"
        if self.error is not None:
            raise self.error

    def _deliver(self, delivery: Delivery) -> None:
        self.taken.append(delivery)
        self.on_delivery()
        self._arrived.put((time.monotonic(), delivery))
        if self.accept:
            delivery.settle(Settlement.ACCEPT)

    def _run(self) -> None:
        try:
            self.intake.run(self.gate)
        except BaseException as error:
            self.error = error
            raise


@contextlib.contextmanager
def at_work(
    settings: Queue,
    *,
    room: int = 1_000,
    accept: bool = False,
    settle: Literal["journalled", "announced"] = "journalled",
) -> Iterator[Desk]:
    """An intake that runs for the length of the block, and has ended after it."""
    desk = Desk(settings, room=room, accept=accept, settle=settle)
    desk.thread.start()
    try:
        yield desk
    finally:
        desk.finish()
