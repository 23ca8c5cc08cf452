"""Starts work: takes requests from the journal into free slots, one at a time for each plan.

The journal is the queue: whatever is accepted and not concluded is in there, so nothing is kept in memory but what is
running. One writer for each plan on a host: a kernel lock, which the command line takes too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from loguru import logger

from handlers.contract import PlanName
from handlers.errors import HoldfastError
from handlers.tools.clock import Clock
from handlers.tools.lock import Lock
from worker.control import Watcher
from worker.intake.wire import RequestId
from worker.journal.protocol import Entry, Journal
from worker.lifecycle import State
from worker.pipeline import Pipeline

LOCKED_ELSEWHERE = timedelta(seconds=1)
"""When to look again at a plan that another process works on."""
JOURNAL_AWAY = timedelta(seconds=5)
"""When to look again after the journal could not be written."""
LOOK_AGAIN = timedelta(seconds=30)
"""The longest sleep: a retry may have become due that nobody told us of."""


def plan_lock(state_dir: Path, plan: PlanName) -> Path:
    """The file whose lock makes a process the plan's only writer on this host."""
    return state_dir / "locks" / f"{plan}.lock"


class Scheduler:
    """The slots of a worker; any thread."""

    def __init__(
        self,
        *,
        journal: Journal,
        pipeline: Pipeline,
        state_dir: Path,
        clock: Clock,
        concurrency: int,
        max_accepted: int,
        watcher: Callable[[Entry], Watcher],
        on_room: Callable[[], None],
        on_bug: Callable[[BaseException], None],
    ) -> None:
        """`on_room` is told when a slot became free; `on_bug` gets what no work thread should ever raise."""
        self._journal = journal
        self._pipeline = pipeline
        self._state_dir = state_dir
        self._clock = clock
        self._concurrency = concurrency
        self._max_accepted = max_accepted
        self._watcher = watcher
        self._on_room = on_room
        self._on_bug = on_bug
        self._mutex = threading.RLock()
        self._changed = threading.Condition(self._mutex)
        self._running: dict[PlanName, RequestId] = {}
        self._resting: dict[PlanName, float] = {}
        self._cancelled = threading.Event()
        self._stopping = False
        self._woken = False

    def room(self) -> int:
        """How many more requests would be begun now."""
        with self._mutex:
            if self._stopping:
                return 0
            free = self._concurrency - len(self._running)
            return max(0, min(free, self._max_accepted - self._journal.unfinished())) if free > 0 else 0

    def running(self) -> Mapping[PlanName, RequestId]:
        """What is worked on now."""
        with self._mutex:
            return dict(self._running)

    def fill(self) -> None:
        """Begin what can be begun now."""
        with self._mutex:
            while not self._stopping and (free := self._concurrency - len(self._running)) > 0:
                now = time.monotonic()
                self._resting = {plan: until for plan, until in self._resting.items() if until > now}
                busy = frozenset(self._running) | frozenset(self._resting)
                entries = self._journal.runnable(self._clock(), limit=free, busy=busy)
                if not entries:
                    return
                for entry in entries:
                    if entry.plan not in self._running and entry.plan not in self._resting:
                        self._begin(entry)

    def run(self) -> None:
        """Keep the slots filled until `stop`; the thread's root."""
        while True:
            with self._changed:
                if self._stopping:
                    return
                self._woken = False
            try:
                self.fill()
            except HoldfastError as error:
                logger.error("journal_away", error=str(error), next="looked at again in a moment")
            with self._changed:
                if not (self._woken or self._stopping):
                    self._changed.wait(self._sleep().total_seconds())

    def stop(self) -> None:
        """Begin nothing new."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Ask what is running to stop; it is handed back."""
        self._cancelled.set()

    def wait_idle(self, seconds: float) -> bool:
        """Wait until nothing is running; says whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, seconds)

    def _begin(self, entry: Entry) -> None:
        try:
            lock = Lock.try_hold(plan_lock(self._state_dir, entry.plan))
        except OSError as error:
            # One plan's trouble must not stop the others; somebody who is root may have made the file, for instance.
            path = plan_lock(self._state_dir, entry.plan)
            logger.error("plan_lock_away", path=str(path), error=str(error), next="looked at again in half a minute")
            self._resting[entry.plan] = time.monotonic() + LOOK_AGAIN.total_seconds()
            return
        if lock is None:
            self._resting[entry.plan] = time.monotonic() + LOCKED_ELSEWHERE.total_seconds()
            return
        self._running[entry.plan] = entry.request_id
        threading.Thread(target=self._work, args=(entry, lock), name=f"work-{entry.plan}").start()

    def _work(self, entry: Entry, lock: Lock) -> None:
        try:
            # Another process may have brought it to its end before we had the lock.
            current = self._journal.entry(entry.request_id)
            if current is not None and current.state not in {State.CONCLUDED, State.ANNOUNCED}:
                self._pipeline.work(entry.request_id, self._watcher(entry), self._cancelled)
        except HoldfastError as error:
            # The pipeline turns every other error into an outcome; this one could not even be written down.
            logger.error("journal_away", error=str(error), next="the request is begun again in a moment")
            with self._mutex:
                self._resting[entry.plan] = time.monotonic() + JOURNAL_AWAY.total_seconds()
        except BaseException as error:
            self._on_bug(error)
            raise
        finally:
            lock.release()
            with self._changed:
                del self._running[entry.plan]
                self._woken = True
                self._changed.notify_all()
            with suppress(HoldfastError):
                self.fill()
            self._on_room()

    def _sleep(self) -> timedelta:
        if self._resting:
            return max(timedelta(seconds=min(self._resting.values()) - time.monotonic()), timedelta(milliseconds=10))
        with suppress(HoldfastError):
            due = self._journal.next_retry()
            now = self._clock()
            # What is due already waits for its plan or a slot: the end of that work wakes us.
            if due is not None and due > now and len(self._running) < self._concurrency:
                return min(max(due - now, timedelta(milliseconds=10)), LOOK_AGAIN)
        return LOOK_AGAIN
