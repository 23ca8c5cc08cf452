"""Looks ahead: what the next backup of each plan would be. Reads the stores, touches nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from config.load import Loaded
from handlers.contract import PlanName
from handlers.errors import HoldfastError
from handlers.tools.clock import system_clock
from worker import plans
from worker.app import open_stores, zone_of
from worker.catalog import Catalog, Damaged, StoredSet
from worker.levels import ChainBroken, Choice, choose, live_chain
from worker.manifest import Manifest
from worker.parents import nothing_on_expiring
from worker.plan import Plan
from worker.verified import damaged
from worker.windows import opens_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Disabled:
    """A plan whose requests are refused."""

    name: PlanName
    handler: str
    store: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAway:
    """A plan whose store cannot be looked at now."""

    plan: Plan
    error: HoldfastError


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What an enabled plan does next."""

    plan: Plan
    choice: Choice
    """What `auto` makes of it now."""
    chain: Sequence[Manifest]
    """The live chain, oldest first; empty where there is none that could be gone on with."""
    damaged: Sequence[Damaged]
    """Sets of the plan whose manifest cannot be read: nothing is built upon them."""
    opens: datetime | None
    """When its hours let a worker begin: in the past for right away, None for never."""

    @property
    def highest_possible(self) -> int:
        """The highest level that a request may name."""
        if not self.chain or self.chain[-1].scope != self.plan.scope:
            return 0
        limit = self.plan.handler.max_level(self.plan.options)
        return len(self.chain) if limit is None else min(limit, len(self.chain))


def look_ahead(loaded: Loaded, wanted: PlanName | None = None) -> Iterator[Outlook | StoreAway | Disabled]:
    """The configured plans in their order, or this one; one whose store is away does not hide the others.

    Raises ConfigError like `plans.build`.
    """
    settings = loaded.settings
    stores = open_stores(settings)
    enabled = plans.build(loaded, stores)
    catalog = Catalog(stores)
    for text, configured in settings.plans.items():
        name = PlanName(text)
        if wanted not in {None, name}:
            continue
        if name not in enabled:
            yield Disabled(name=name, handler=configured.handler, store=settings.store_of(name)[0])
            continue
        plan = enabled[name]
        now = system_clock()
        opens = opens_at(plan.hours, now, zone_of(settings)) if plan.hours else now
        try:
            outlook = _outlook(plan, list(catalog.look(plan.store, name)), now, opens)
        except HoldfastError as error:
            yield StoreAway(plan=plan, error=error)
            continue
        yield outlook


def _outlook(plan: Plan, found: Sequence[StoredSet | Damaged], now: datetime, opens: datetime | None) -> Outlook:
    made = [item.manifest for item in found if isinstance(item, StoredSet)]
    try:
        chain = live_chain(made, now=now)
    except ChainBroken:
        chain = ()  # the choice says what is wrong with it
    choice = choose(
        "auto",
        made,
        scope=plan.scope,
        max_level=plan.highest_level,
        policy=plan.levels,
        now=now,
        damaged=damaged(plan.store, plan.name),
    )
    return Outlook(
        plan=plan,
        choice=nothing_on_expiring(choice, made, plan.store, plan.name),
        chain=chain,
        damaged=[item for item in found if isinstance(item, Damaged)],
        opens=opens,
    )
