"""Decides which plans' requests may begin now, and which of them first.

Pure: what runs, what rests and the time come in as arguments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Protocol

from handlers.contract import PlanName
from worker.plan import Plan
from worker.windows import is_open, opens_at


class Stores(Protocol):
    """What is known of the stores, see `worker.store_watch`."""

    def may_try(self, store: str, *, busy: bool) -> bool:
        """Whether a plan of this store may be begun; `busy` where another one of it is running."""

    def failures(self, store: str, plan: PlanName) -> int:
        """How often the plan has failed with the store since it is away; 0 while it is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """The plans at one moment."""

    plans: Mapping[PlanName, Plan]
    running: frozenset[PlanName]
    resting: frozenset[PlanName]
    """Left alone for a while, for instance because another process works on them."""
    handlers: Mapping[str, int]
    """How many requests of a handler may run at once, where that is limited."""
    stores: Stores
    now: datetime
    zone: tzinfo

    def rounds(self) -> Iterator[frozenset[PlanName]]:
        """Which plans to pass over: first all but the most urgent, then all but those after them, and so on.

        Those of a store that is away come after the others, the ones that failed least often with it first. A plan that
        is not configured any more is in every round: its requests are brought to an end.
        """
        allowed = self.allowed()
        barred = self.running | self.resting | (frozenset(self.plans) - allowed)
        ranks = {name: self._rank(self.plans[name]) for name in allowed}
        if not ranks:
            yield barred
        for turn in sorted(set(ranks.values())):
            yield barred | {name for name, rank in ranks.items() if rank != turn}

    def _rank(self, plan: Plan) -> tuple[int, int]:
        return self.stores.failures(plan.store.name, plan.name), -plan.priority

    def allowed(self) -> frozenset[PlanName]:
        """The configured plans that may begin."""
        in_use = Counter(self.plans[name].handler.name for name in self.running if name in self.plans)
        stores_in_use = {self.plans[name].store.name for name in self.running if name in self.plans}
        return frozenset(
            name
            for name, plan in self.plans.items()
            if name not in self.running
            and name not in self.resting
            and in_use[plan.handler.name] < self.handlers.get(plan.handler.name, len(self.plans))
            and self.stores.may_try(plan.store.name, busy=plan.store.name in stores_in_use)
            and is_open(plan.hours, self.now, self.zone)
        )

    def openings(self) -> Iterator[datetime]:
        """When the plans may begin whose hours are over."""
        for plan in self.plans.values():
            opening = opens_at(plan.hours, self.now, self.zone) if plan.hours else None
            if opening is not None and opening > self.now:
                yield opening
