"""An intake of indicators at work, and the desk that its deliveries arrive at."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from config.indicators import Indicators
from worker.intake.delivery import Delivery, Gate, Settlement
from worker.intake.indicators import IndicatorIntake
from worker.intake.wire import RequestId
from worker.journal.protocol import Entry


class Desk:
    """Takes deliveries, and settles them as it is told to."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.space = 1_000_000
        self.settlement: Settlement | None = Settlement.ACCEPT

    @property
    def gate(self) -> Gate:
        """What the intake gets."""
        return Gate(deliver=self._deliver, room=lambda: self.space)

    @property
    def requests(self) -> list[dict[str, Any]]:
        """What was delivered."""
        return [orjson.loads(delivery.body) for delivery in self.deliveries]

    @property
    def ids(self) -> list[str]:
        """The ids of what was delivered."""
        return [request["id"] for request in self.requests]

    def _deliver(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self.space -= 1
        if self.settlement is not None:
            delivery.settle(self.settlement, "as the test wants it")


def nothing_known(_: RequestId) -> Entry | None:
    """A journal that has no outcome for anybody."""
    return None


@contextmanager
def at_work(desk: Desk, *directories: Path | str, **settings: Any) -> Iterator[IndicatorIntake]:
    """An intake that runs in a thread of its own, until the end of the block."""
    indicators = Indicators(**{"directories": [str(path) for path in directories], "plan": "web", **settings})
    intake = IndicatorIntake("pool", indicators, entry=nothing_known)
    thread = threading.Thread(target=intake.run, args=(desk.gate,))
    thread.start()
    try:
        yield intake
    finally:
        intake.stop()
        intake.close()
        thread.join(30)
        assert not thread.is_alive()


def touch(directory: Path, name: str = "cback.collect") -> Path:
    """Make the indicator, or write it again, as any program does."""
    indicator = directory / name
    indicator.open("w").close()
    return indicator
