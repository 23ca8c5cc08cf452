"""Works on a request in this very process, for somebody who waits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

from loguru import logger

from handlers.contract import PlanName
from handlers.errors import Cancelled, HoldfastError, TemporaryError
from handlers.tools.clock import Clock
from handlers.tools.lock import Lock
from worker.app import App
from worker.control import Watcher
from worker.events import EventData, ExitCode
from worker.intake.wire import BackupRequest
from worker.lifecycle import IllegalMove
from worker.scheduler import plan_lock

POLL_SECONDS = 0.2


def run_now(
    app: App,
    request: BackupRequest,
    watcher: Watcher,
    cancelled: threading.Event,
    *,
    on_wait: Callable[[str], None] = lambda _: None,
) -> EventData:
    """Take the request in, work on it until it has an outcome, announce that; returns the outcome.

    Waits while another process works on the plan, and between attempts after a temporary error; `on_wait` is told why.
    A cancellation concludes the request as `failed` with exit code 130: nobody is left who wants it. Raises
    RequestRefused, JournalUnavailable, or Cancelled where the request had not been taken in yet.
    """
    app.pipeline.require_allowed(request)
    # The lock first: a request in the journal that nobody works on is taken by whoever holds the plan next.
    with _hold(app, request, cancelled, on_wait):
        _sweep(app, PlanName(request.data.plan))
        entry = app.pipeline.begin_manual(request)
        while entry.outcome is None and not cancelled.is_set():
            if entry.retry_at is not None:
                what = f"attempt {entry.attempt} failed: " if entry.attempt else ""
                on_wait(f"{what}{entry.last_error}; next try at {entry.retry_at:%H:%M:%S} UTC")
                _wait_until(app.clock, entry.retry_at, cancelled)
            try:
                if not cancelled.is_set():
                    entry = app.pipeline.work(entry.request_id, watcher, cancelled)
                else:
                    entry = app.pipeline.give_up(entry, Cancelled("interrupted"), ExitCode.INTERRUPTED)
            except IllegalMove:
                entry = app.journal.entry(entry.request_id) or entry  # somebody dropped it while we waited
        if entry.outcome is None:
            entry = app.pipeline.give_up(entry, Cancelled("interrupted"), ExitCode.INTERRUPTED)
    app.announcer.flush()
    if entry.outcome is None:
        raise AssertionError("a concluded request has an outcome")
    return EventData.model_validate_json(entry.outcome)


def _hold(app: App, request: BackupRequest, cancelled: threading.Event, on_wait: Callable[[str], None]) -> Lock:
    path = plan_lock(app.settings.state_dir, PlanName(request.data.plan))
    told = False
    while True:
        try:
            lock = Lock.try_hold(path)
        except OSError as error:
            raise TemporaryError(f"lock {path} cannot be opened: {error.strerror}", hint="run as its owner") from error
        if lock is not None:
            return lock
        if cancelled.is_set():
            raise Cancelled("asked to stop while another backup of this plan was running")
        if not told:
            on_wait(f"another process of this host is working on plan {request.data.plan}")
            told = True
        cancelled.wait(POLL_SECONDS)


def _sweep(app: App, plan: PlanName) -> None:
    """Where no worker ever runs, nobody else removes what a killed backup left behind."""
    try:
        app.configured.plans[plan].store.sweep()
    except HoldfastError as error:
        logger.debug("sweep_failed", error=str(error), next="the backup itself says what is wrong with its store")


def _wait_until(clock: Clock, due: datetime, cancelled: threading.Event) -> None:
    while clock() < due and not cancelled.wait(POLL_SECONDS):
        pass
