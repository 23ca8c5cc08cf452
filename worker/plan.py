"""What a request is worked on with: its plan, ready to be run, beside what all requests of a worker share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from config.hours import Hours
from config.levels import Levels
from config.retention import Retention
from config.settings import Limits
from handlers.contract import Handler, PlanName
from handlers.tools.clock import Clock
from worker import manifest
from worker.catalog import Catalog
from worker.lease import Leases
from worker.stores.protocol import Store
from worker.verify import Depth

NO_LIMITS = Limits()
NO_POLICY = Levels()
KEEP_ALL = Retention()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One plan of the configuration, with everything found that it names."""

    name: PlanName
    handler: Handler
    options: BaseModel
    store: Store
    verify: Depth
    max_level: int
    labels: Mapping[str, str]
    levels: Levels = NO_POLICY
    """When the levels begin again."""
    retention: Retention = KEEP_ALL
    on_unreadable: Literal["partial", "fail"] = "partial"
    on_changed: Literal["warn", "partial"] = "warn"
    priority: int = 5
    hours: tuple[Hours, ...] = ()
    """When a worker may begin its requests; empty for always."""
    limits: Limits = NO_LIMITS

    @property
    def scope(self) -> str:
        """The manifest's `scope` of a set that is made now."""
        return manifest.scope_digest(self.handler.name, self.handler.scope(self.options))

    @property
    def highest_level(self) -> int:
        """The deepest level that plan and handler allow."""
        limit = self.handler.max_level(self.options)
        return self.max_level if limit is None else min(limit, self.max_level)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all requests of a worker share."""

    catalog: Catalog
    node: str
    scratch: Path
    config_digest: str
    clock: Clock
    leases: Leases
    zone: tzinfo = UTC
    """Where the days of the plans' retention begin."""
