"""Reads the configuration again while the worker runs.

What requests meet (plans, stores, retries) and how many run changes at once. What the worker was built with (its
directories, its intakes) stays until the next start, and is named. A configuration with a problem changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from loguru import logger

from config.load import Loaded
from config.problems import ConfigError
from config.settings import Queue, Settings
from handlers.contract import PlanName
from handlers.errors import HoldfastError
from worker.app import App, configured, rests, slots
from worker.journal.protocol import JournalUnavailable
from worker.plan import Plan
from worker.scheduler import Scheduler

LIVE: Final = frozenset(
    {
        "accept_ahead",
        "concurrency",
        "handler_concurrency",
        "max_accepted",
        "plans",
        "retry",
        "stores",
        "time_zone",
    }
)
"""The settings that take effect without a restart."""


class Reload:
    """Takes a changed configuration over; for one thread."""

    def __init__(self, load: Callable[[], Loaded], app: App, scheduler: Scheduler) -> None:
        """`load` reads the configuration as at the start; it raises ConfigError."""
        self._load = load
        self._app = app
        self._scheduler = scheduler
        self._settings = app.settings

    def reload(self) -> bool:
        """Go by the configuration as it is now; says whether it was taken. What runs goes on as it was begun."""
        try:
            loaded = self._load()
            new = configured(loaded, self._app)
            new_slots = slots(loaded.settings)
        except (ConfigError, HoldfastError) as error:
            logger.error("configuration_refused", error=str(error), next="the old one stays in force")
            return False
        settings = loaded.settings
        self._scheduler.use(new_slots, new.plans, together_with=lambda: self._app.pipeline.use(new))
        used = {plan.store.name for plan in new.plans.values()}
        self._app.store_watch.use(**rests(settings), stores=used)
        try:
            # What waits may have waited for just this change.
            self._app.journal.begin_now(now=self._app.clock())
        except JournalUnavailable as error:
            logger.warning("requests_not_hurried", error=str(error), next="they are tried when their time comes")
        logger.info("configuration_reloaded", **_changes(self._settings, settings, new.plans))
        if waiting := needs_restart(self._app.settings, settings):
            logger.warning("settings_need_restart", settings=waiting, next="they take effect at the next start")
        self._settings = settings
        return True


def needs_restart(old: Settings, new: Settings) -> list[str]:
    """The settings that differ and that a running worker cannot take over."""
    return sorted(
        name for name in type(old).model_fields if name not in LIVE and _fixed(old, name) != _fixed(new, name)
    )


def _fixed(settings: Settings, name: str) -> object:
    value = getattr(settings, name)
    return value.model_copy(update={"reply_to_allowed": ()}) if isinstance(value, Queue) else value


def _changes(old: Settings, new: Settings, plans: Mapping[PlanName, Plan]) -> dict[str, list[str]]:
    return {
        "plans": sorted(plans),
        "added": sorted(set(new.plans) - set(old.plans)),
        "removed": sorted(set(old.plans) - set(new.plans)),
        "changed": sorted(name for name in new.plans if name in old.plans and new.plans[name] != old.plans[name]),
        "settings": sorted(name for name in LIVE - {"plans"} if getattr(old, name) != getattr(new, name)),
    }
