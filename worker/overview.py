"""What runs and what waits, as the journal, the locks and the stores tell it; nothing is changed."""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from config.settings import Settings
from handlers.contract import PlanName
from handlers.errors import HoldfastError
from handlers.tools.clock import system_clock
from worker import health
from worker.app import open_catalog, open_journal, open_stores
from worker.catalog import StoredSet
from worker.health import Health
from worker.journal.protocol import Entry
from worker.scheduler import plan_lock

LOOKED_AT = 1000
"""Entries of the journal that are looked at, the newest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOverview:
    """One plan."""

    name: str
    enabled: bool
    running: bool
    """Whether a process of this host works on it."""
    newest: StoredSet | None
    sets: int
    error: str | None
    """Why its store could not be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """A worker at one moment."""

    worker: Health | None
    """What the worker says of itself; None where none runs."""
    silent: timedelta
    """How long ago it said that."""
    journal: bool
    """Whether there is a journal yet."""
    states: Mapping[str, int]
    """How many of the newest requests are in which state."""
    unfinished: int
    waiting: Sequence[Entry]
    """Requests without an outcome, newest first."""
    unsent: int
    """Events that nobody has taken yet, at most LOOKED_AT."""
    plans: Sequence[PlanOverview]


def look(settings: Settings) -> Overview:
    """Look around; works beside a running worker, and without one. Raises what opening the journal raises."""
    entries: Sequence[Entry] = ()
    unfinished = unsent = 0
    journal = open_journal(settings)
    if journal is not None:
        try:
            entries = journal.entries(limit=LOOKED_AT)
            unfinished = journal.unfinished()
            unsent = len(journal.outbox(limit=LOOKED_AT))
        finally:
            journal.close()
    worker, silent = health.look(settings.state_dir, now=system_clock()) or (None, timedelta())
    return Overview(
        worker=worker,
        silent=silent,
        journal=journal is not None,
        states=Counter(entry.state.value for entry in entries),
        unfinished=unfinished,
        waiting=[entry for entry in entries if entry.outcome is None],
        unsent=unsent,
        plans=[_plan(settings, name) for name in settings.plans],
    )


def running(state_dir: Path, plans: Iterable[str]) -> list[str]:
    """The plans that a process of this host works on."""
    return [name for name in plans if is_held(plan_lock(state_dir, PlanName(name)))]


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock in this file; neither makes the file nor keeps anybody waiting."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _plan(settings: Settings, name: str) -> PlanOverview:
    plan = PlanName(name)
    store_name, _ = settings.store_of(name)
    sets: Sequence[StoredSet] = ()
    error: str | None = None
    try:
        sets = open_catalog(settings).sets(open_stores(settings)[store_name], plan)
    except HoldfastError as problem:
        error = problem.message
    return PlanOverview(
        name=name,
        enabled=settings.plans[name].enabled,
        running=is_held(plan_lock(settings.state_dir, plan)),
        newest=sets[-1] if sets else None,
        sets=len(sets),
        error=error,
    )
