"""Stores with sets that have a manifest and nothing else, and onlookers who see each call of a store."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from config.retention import Retention
from handlers.contract import BackupId, PlanName
from tests.workshop.histories import made
from worker.catalog import Catalog
from worker.expiry import Expired, expire
from worker.manifest import Manifest
from worker.pins import Kept, keep
from worker.stores.protocol import SetName, Store

PLAN = PlanName("web")
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATEST = Retention(latest=1)
HISTORY = (made("s1", 0), made("s2", 1, "s1"), made("s3", 2, "s2"), made("s4", 0))
"""With `latest: 1` the chain of three goes."""
BRIEF = timedelta(seconds=0.2)


def named(backup_id: str, plan: str = PLAN) -> SetName:
    """The name of a set."""
    return SetName(plan=PlanName(plan), backup_id=BackupId(backup_id))


def stock(store: Store, *manifests: Manifest) -> None:
    """Commit a set for each manifest."""
    for manifest in manifests:
        store.draft(named(manifest.backup_id, manifest.plan)).commit({}, manifest.encode())


def catalog_of(store: Store) -> Catalog:
    """A catalog of this one store."""
    return Catalog({store.name: store}, {PLAN: store.name})


def there(store: Store, plan: str = PLAN) -> set[str]:
    """The sets of a plan."""
    return {name.backup_id for name in store.names(PlanName(plan))}


def all_restorable(store: Store) -> bool:
    """Whether every set has its whole chain."""
    catalog = catalog_of(store)
    return all(len(catalog.chain(stored)) == stored.level + 1 for stored in catalog.sets(store, PLAN))


class _Watched:
    def __init__(self, store: Store, before: Callable[[str], None]) -> None:
        self._store = store
        self._before = before

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if not callable(value):
            return value

        @functools.wraps(value)
        def call(*arguments: Any, **keywords: Any) -> Any:
            self._before(name)
            return value(*arguments, **keywords)

        return call


def watched(store: Store, before: Callable[[str], None]) -> Store:
    """The store, with a call of `before` just before each call of it."""
    return cast("Store", _Watched(store, before))


def expired(store: Store, rules: Retention = LATEST, **others: Any) -> Expired:
    """What an expiry of the plan does."""
    wishes: dict[str, Any] = {"now": NOW, "zone": UTC, "checkpoint": lambda: None, **others}
    return expire(catalog_of(store), store, PLAN, rules, **wishes)


def pin(store: Store, backup_id: str, patience: timedelta = BRIEF) -> Kept:
    """Somebody keeps a set."""
    catalog = catalog_of(store)
    stored = catalog.read(store, named(backup_id))
    return keep(catalog, stored, "mine", by="me@here", now=NOW, checkpoint=lambda: None, patience=patience)


def gone(done: Expired) -> list[str]:
    """What went, newest first."""
    return [verdict.manifest.backup_id for verdict in done.removed]


def why(done: Expired, backup_id: str) -> Sequence[str]:
    """Why the set stayed."""
    return next(verdict.reasons for verdict in done.kept if verdict.manifest.backup_id == backup_id)
