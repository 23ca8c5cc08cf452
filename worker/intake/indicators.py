"""Brings requests that are made by touching a file in a directory, and answers them there.

Described for operators and producers in `docs/indicators.md`. Hints only wake a look at a directory; what lies there is
the truth. The parts: `indicator_tree` finds and watches the directories, `indicator_looks` decides what counts,
`indicator_sighting` makes the request, `indicator_answers` and `indicator_acts` do what is to be done afterwards.
"""

from __future__ import annotations

import heapq
import itertools
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from loguru import logger

from config.indicators import Indicators
from worker.intake.delivery import Gate, Settlement
from worker.intake.indicator_answers import Answers
from worker.intake.indicator_looks import Looks
from worker.intake.indicator_places import Pattern, Place
from worker.intake.indicator_sighting import Sighting
from worker.intake.indicator_tree import Node, Tree
from worker.intake.watches import Heard, Watches
from worker.intake.wire import RequestId
from worker.journal.protocol import Entry

_ROOM_SECONDS: Final = 1.0
"""Between two questions for room, should nobody poke us."""
_TROUBLE_SECONDS: Final = 5.0
"""Between two attempts while nothing can be looked at."""
_HAND_BACK_SECONDS: Final = 1.0
"""How long we leave an indicator alone that was handed back."""
_RESCAN_SECONDS: Final = 1.0
"""Between two scans because of lost hints, or of mounts: some machines mount something all the time."""
_SLICE_SECONDS: Final = 0.02
"""How long a scan goes on before what waits gets its turn."""
_AT_ONCE: Final = 100
"""Deliveries before something else gets its turn."""


class IndicatorIntake:
    """The directories of one name in the configuration."""

    def __init__(
        self,
        name: str,
        indicators: Indicators,
        *,
        entry: Callable[[RequestId], Entry | None],
        told_by_handler: Callable[[str], bool] = lambda plan: False,
    ) -> None:
        """`entry` asks the journal; `told_by_handler` whether a plan's handler itself tells those whose data is safe.

        Raises PermanentError for an owner that this machine does not know.
        """
        self._name = f"indicators.{name}"
        self._indicators = indicators
        self._watches: Watches[Node] = Watches()
        self._tree = Tree(
            [Pattern.parse(text) for text in indicators.directories],
            self._watches,
            indicator=indicators.name,
            poll_seconds=indicators.poll_seconds,
            on_look=self._on_look,
        )
        self._looks = Looks(self._name, indicators, told_by_handler)
        self._answers = Answers(self._name, indicators, entry=entry, told_by_handler=told_by_handler)
        self._pending: dict[Node, int] = {}
        self._later: list[tuple[float, int, Node]] = []
        self._count = itertools.count()
        self._walk: Iterator[None] | None = None
        self._settled: deque[tuple[Node, Sighting, Place, Settlement]] = deque()
        self._poked = False
        self._stopping = False
        self._closing = False
        self._trouble: str | None = None
        # Moments of the monotonic clock.
        self._scan_at = 0.0
        self._scanned_at = 0.0
        self._poll_at = 0.0
        self._room_at = 0.0

    @property
    def name(self) -> str:
        """For logs and `status`."""
        return self._name

    @property
    def trouble(self) -> str | None:
        """Why nothing can be brought at this moment. Any thread."""
        return self._trouble or self._tree.trouble

    def run(self, gate: Gate) -> None:
        """Bring deliveries until `stop`, answer what comes to its end until `close`."""
        try:
            while not self._closing:
                self._take_turn(gate)
                self._watches.wait(self._pause())
            self._carry_out_settlements()
            self._answers.finish()
        finally:
            self._watches.close()

    def poke(self) -> None:
        """There is room again, because something came to its end; any thread."""
        self._poked = True
        self._watches.wake()

    def stop(self) -> None:
        """Bring nothing new; what comes to its end is still answered. Any thread."""
        self._stopping = True
        self._watches.wake()

    def close(self) -> None:
        """Nothing more will come to its end: `run` returns. Any thread."""
        self._stopping = True
        self._closing = True
        self._watches.wake()

    def settle(self, node: Node, sighting: Sighting, place: Place, settlement: Settlement) -> None:
        """Somebody said what becomes of a delivery; any thread."""
        if settlement is not Settlement.ACCEPT:
            self._settled.append((node, sighting, place, settlement))
            self._watches.wake()

    def _take_turn(self, gate: Gate) -> None:
        heard = self._watches.take()
        self._carry_out_settlements()
        if not self._stopping:
            try:
                self._find(heard)
            except OSError as error:
                self._say_trouble(str(error))
            self._bring(gate)
        if self._poked:
            self._poked = False
            self._room_at = 0.0
            self._answers.look_at_all()
        self._answers.catch_up()

    def _find(self, heard: Heard[Node]) -> None:
        """Come upon what may be there by now."""
        now = time.monotonic()
        if heard.lost:
            self._scan_at = min(self._scan_at, max(now, self._scanned_at + _RESCAN_SECONDS))
        for (node, name), bits in heard.hints.items():
            if node.is_last and name == self._indicators.name:
                self._pending[node] = self._pending.get(node, 0) | bits
            else:
                self._tree.heed(node, name, bits)
        while self._later and self._later[0][0] <= now:
            moment, _, node = heapq.heappop(self._later)
            if moment == node.look_at:
                node.look_at = math.inf
                self._pending.setdefault(node, 0)
        self._go_on_walking(now)

    def _go_on_walking(self, now: float) -> None:
        if self._walk is None:
            if now >= self._scan_at:
                self._scanned_at = now
                self._scan_at = now + self._indicators.scan_seconds
                self._poll_at = now + self._indicators.poll_seconds
                self._walk = self._tree.look_everywhere()
            elif now >= self._poll_at:
                self._poll_at = now + self._indicators.poll_seconds
                self._walk = self._tree.look_where_unheard()
        if self._walk is None:
            return
        for _ in self._walk:
            if time.monotonic() - now > _SLICE_SECONDS or self._watches.any_heard or self._stopping:
                return
        self._walk = None
        self._say_well()

    def _on_look(self, node: Node, descriptor: int) -> None:
        match self._looks.look(node, descriptor, self._pending.get(node, 0)):
            case Sighting():
                self._pending.setdefault(node, 0)
            case float() as seconds:
                self._look_later(node, seconds)

    def _look_later(self, node: Node, seconds: float) -> None:
        moment = time.monotonic() + seconds
        # Not once for each scan that comes upon it; one look too early does no harm, it finds out how long is left.
        if moment < node.look_at:
            node.look_at = moment
            heapq.heappush(self._later, (moment, next(self._count), node))

    def _bring(self, gate: Gate) -> None:
        """Deliver what is ripe, as far as there is room."""
        for _ in range(min(_AT_ONCE, len(self._pending))):
            if self._stopping:
                return
            if gate.room() <= 0:
                self._room_at = time.monotonic() + _ROOM_SECONDS
                return
            node = next(iter(self._pending))
            bits = self._pending.pop(node)
            if not node.dropped:
                self._look_and_deliver(gate, node, bits)

    def _look_and_deliver(self, gate: Gate, node: Node, bits: int) -> None:
        place = node.place
        try:
            descriptor = place.open()
        except OSError:
            return  # gone, or not for us: a scan says so
        try:
            found = self._looks.look(node, descriptor, bits)
        finally:
            os.close(descriptor)
        match found:
            case Sighting() as sighting:
                node.taken = sighting
                self._answers.expect(sighting, place)
                gate.deliver(
                    IndicatorDelivery(intake=self._name, node=node, sighting=sighting, place=place, to=self.settle)
                )
            case float() as seconds:
                self._look_later(node, seconds)

    def _carry_out_settlements(self) -> None:
        while self._settled:
            node, sighting, place, settlement = self._settled.popleft()
            if settlement is Settlement.REJECT:
                self._answers.refuse(sighting, place)
                continue
            self._answers.forget(sighting, place)
            if node.taken == sighting:
                node.taken = None
                self._look_later(node, _HAND_BACK_SECONDS)

    def _pause(self) -> float:
        now = time.monotonic()
        moments = [now + self._answers.pause]
        if not self._stopping:
            moments.append(now if self._walk is not None else self._scan_at)
            if not self._tree.hears_all:
                moments.append(self._poll_at)
            if self._later:
                moments.append(self._later[0][0])
            if self._pending:
                moments.append(self._room_at)
        return 0.0 if self._settled else min(moments) - now

    def _say_trouble(self, error: str) -> None:
        self._walk = None
        self._scan_at = time.monotonic() + _TROUBLE_SECONDS
        if self._trouble is None:
            self._trouble = error
            logger.error(
                "indicators_trouble",
                intake=self._name,
                error=error,
                next=f"looks again every {_TROUBLE_SECONDS:g} seconds; indicators wait where they are",
            )

    def _say_well(self) -> None:
        if self._trouble is not None:
            self._trouble = None
            logger.info("indicators_recovered", intake=self._name)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndicatorDelivery:
    """One indicator that was seen."""

    intake: str
    node: Node = field(repr=False)
    sighting: Sighting
    place: Place
    to: Callable[[Node, Sighting, Place, Settlement], None] = field(repr=False)
    message_id: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    redelivered: bool = True
    """Always: whoever sees the same indicator again, after a restart for instance, asks for nothing new."""

    @property
    def body(self) -> bytes:
        """The request that it stands for."""
        return self.sighting.body

    def settle(self, settlement: Settlement, reason: str = "") -> None:
        """Carried out by the intake's own thread; `reason` is in the log and in the outcome."""
        self.to(self.node, self.sighting, self.place, settlement)

    def defer(self, after: timedelta) -> None:
        """Nothing to do: it lies where it is and is in nobody's way."""
