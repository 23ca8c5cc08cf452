"""A spool intake at work, and a desk that takes what it delivers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from worker.intake.delivery import Delivery, Gate, Settlement
from worker.intake.spool import SpoolIntake

PATIENCE = 20.0


class Desk:
    """The worker's side of an intake: takes deliveries, answers as told, and can be waited for."""

    def __init__(self, answer: Callable[[Delivery], Settlement | None] = lambda _: Settlement.ACCEPT) -> None:
        self.answer = answer
        self.room = 1000
        self.taken: list[Delivery] = []
        self._changed = threading.Condition()

    def gate(self) -> Gate:
        """What the intake is given."""
        return Gate(deliver=self._deliver, room=lambda: self.room)

    def _deliver(self, delivery: Delivery) -> None:
        settlement = self.answer(delivery)
        if settlement is not None:
            delivery.settle(settlement, "because")
        with self._changed:
            self.taken.append(delivery)
            self._changed.notify_all()

    @property
    def ids(self) -> list[str | None]:
        """What came, in order."""
        return [delivery.message_id for delivery in self.taken]

    def wait_for(self, count: int) -> list[Delivery]:
        """The deliveries, once there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.taken) >= count, PATIENCE), f"only {self.ids} came"
        return self.taken


class Running:
    """An intake in its thread."""

    def __init__(
        self, spool: Path, desk: Desk, *, worker: str = "w", scan_seconds: float = 30.0, **more: object
    ) -> None:
        settings: dict[str, object] = {"keep_done_days": 14.0, "max_request_bytes": 1000, **more}
        self.intake = SpoolIntake(spool, worker=worker, scan_seconds=scan_seconds, **settings)  # type: ignore[arg-type]
        self.thread = threading.Thread(target=self.intake.run, args=(desk.gate(),))
        self.thread.start()

    def stop(self) -> None:
        """End it; fails where `run` does not return."""
        self.intake.stop()
        self.intake.close()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


def eventually(condition: Callable[[], bool]) -> None:
    end, tick = time.monotonic() + PATIENCE, threading.Event()
    while not condition():
        assert time.monotonic() < end, "it never came true"
        tick.wait(0.01)


def put(spool: Path, name: str | bytes, body: bytes = b'{"plan": "photos"}', *, age_seconds: float = 0) -> None:
    """As the rules ask: written in tmp/, renamed into new/."""
    draft = spool / "tmp" / os.fsdecode(name)
    draft.write_bytes(body)
    when = time.time() - age_seconds
    os.utime(draft, (when, when))
    draft.rename(spool / "new" / os.fsdecode(name))


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir() if not entry.name.startswith("."))
