"""Knows which stores are away, so that their requests wait instead of failing one by one.

A store that failed is left alone for a while. Then one plan is let through on trial: if that fails the store rests for
longer, if it works all is well again. Of the plans that may be tried, those go first that failed least often: a backup
that is too large for what room is left does not keep smaller ones from being tried. The log has one line when a store
goes away, and one when it is back.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType

from loguru import logger

from handlers.contract import PlanName
from handlers.tools.clock import Clock
from worker.stores.protocol import StoreUnavailable

LONGEST_REST = timedelta(minutes=5)
"""However long requests wait between their attempts: this is how late it may be noticed that a store is back."""
SHORTEST_REST = timedelta(milliseconds=100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Away:
    """A store that cannot be used."""

    since: datetime
    error: str
    """What it said last."""
    rest: timedelta
    until: float
    """When the next trial may be made, on the monotonic clock."""
    failures: Counter[PlanName] = field(default_factory=Counter)
    """How often each plan has failed with it meanwhile."""


class StoreWatch:
    """What the last use of each store told; any thread."""

    def __init__(
        self,
        clock: Clock,
        *,
        first_rest: timedelta = timedelta(seconds=5),
        longest_rest: timedelta = LONGEST_REST,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """A store is left alone for `first_rest` after a failure, twice as long after each further one."""
        self._clock = clock
        self._monotonic = monotonic
        self._mutex = threading.Lock()
        self._away: dict[str, Away] = {}
        self.use(first_rest=first_rest, longest_rest=longest_rest)

    def use(self, *, first_rest: timedelta, longest_rest: timedelta, stores: Collection[str] | None = None) -> None:
        """Rest for so long from now on; forget the stores that nobody uses any more, where `stores` are the others."""
        with self._mutex:
            self._first_rest = min(max(first_rest, SHORTEST_REST), LONGEST_REST)
            self._longest_rest = max(min(longest_rest, LONGEST_REST), self._first_rest)
            for name in [name for name in self._away if stores is not None and name not in stores]:
                del self._away[name]

    def failed(self, store: str, error: StoreUnavailable, plan: PlanName | None = None) -> None:
        """A use of the store ended in this, for this plan."""
        now = self._monotonic()
        with self._mutex:
            before = self._away.get(store)
            failures = before.failures if before else Counter[PlanName]()
            if plan is not None:
                failures[plan] += 1
            if before is not None and before.until > now:
                return  # it was begun before the store was known to be away: that tells nothing new
            rest = self._first_rest if before is None else min(before.rest * 2, self._longest_rest)
            self._away[store] = Away(
                since=self._clock() if before is None else before.since,
                error=error.message,
                rest=rest,
                until=now + rest.total_seconds(),
                failures=failures,
            )
        if before is None:
            logger.error("store_away", store=store, error=str(error), next="its requests wait until it is back")

    def worked(self, store: str) -> None:
        """The store did what it was asked for."""
        with self._mutex:
            before = self._away.pop(store, None)
        if before is not None:
            logger.info("store_back", store=store, away_since=before.since.isoformat())

    def away(self) -> Mapping[str, Away]:
        """The stores that are away, on trial or not."""
        with self._mutex:
            return MappingProxyType(dict(self._away))

    def may_try(self, store: str, *, busy: bool) -> bool:
        """Whether a plan of this store may be begun; `busy` says that another one of the same store is running."""
        with self._mutex:
            found = self._away.get(store)
            return found is None or (not busy and found.until <= self._monotonic())

    def failures(self, store: str, plan: PlanName) -> int:
        """How often the plan has failed with the store since it is away; 0 while it is not."""
        with self._mutex:
            found = self._away.get(store)
            return found.failures[plan] if found else 0

    def next_trial(self) -> float | None:
        """Seconds until a store may be tried that rests now; None where none rests."""
        now = self._monotonic()
        with self._mutex:
            return min((away.until - now for away in self._away.values() if away.until > now), default=None)
