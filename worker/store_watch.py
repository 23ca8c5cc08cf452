"""Knows which stores are away, so that their requests wait instead of failing one by one.

A store that failed is left alone for a while. Then one plan is let through on trial: if that fails the store rests for
longer, if it works all is well again. The log has one line when a store goes away, and one when it is back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from loguru import logger

from handlers.tools.clock import Clock
from worker.stores.protocol import StoreUnavailable

LONGEST_REST = timedelta(minutes=5)
"""However long requests wait between their attempts: this is how late it may be noticed that a store is back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Away:
    """A store that cannot be used."""

    since: datetime
    error: str
    """What it said last."""
    rest: timedelta
    until: float
    """When the next trial may be made, on the monotonic clock."""


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
        self._first_rest = max(first_rest, timedelta(milliseconds=100))
        self._longest_rest = max(min(longest_rest, LONGEST_REST), self._first_rest)
        self._clock = clock
        self._monotonic = monotonic
        self._mutex = threading.Lock()
        self._away: dict[str, Away] = {}

    def failed(self, store: str, error: StoreUnavailable) -> None:
        """A use of the store ended in this."""
        now = self._monotonic()
        with self._mutex:
            before = self._away.get(store)
            if before is not None and before.until > now:
                return  # it was begun before the store was known to be away: that tells nothing new
            rest = self._first_rest if before is None else min(before.rest * 2, self._longest_rest)
            since = self._clock() if before is None else before.since
            self._away[store] = Away(since=since, error=error.message, rest=rest, until=now + rest.total_seconds())
        if before is None:
            logger.error("store_away", store=store, error=str(error), next="its requests wait until it is back")

    def worked(self, store: str) -> None:
        """Something was stored."""
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

    def next_trial(self) -> float | None:
        """Seconds until a store may be tried that rests now; None where none rests."""
        now = self._monotonic()
        with self._mutex:
            return min((away.until - now for away in self._away.values() if away.until > now), default=None)
