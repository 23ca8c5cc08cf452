"""Starts work: takes requests from the journal into free slots, one at a time for each plan.

The journal is the queue: whatever is accepted and not concluded is in there, so nothing is kept in memory but what is
running. One writer for each plan on a host: a kernel lock, which the command line takes too. Which plans may begin now,
and in what order, is decided in `worker.turns`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

from loguru import logger

from handlers.contract import PlanName
from handlers.errors import HoldfastError
from handlers.tools.clock import Clock
from handlers.tools.lock import Lock
from worker.control import Watcher
from worker.intake.wire import RequestId
from worker.journal.protocol import Entry, Journal
from worker.lifecycle import IllegalMove, State
from worker.pipeline import Pipeline
from worker.plan import Plan
from worker.store_watch import StoreWatch
from worker.stores.protocol import Store, StoreUnavailable
from worker.turns import Turns

LOCKED_ELSEWHERE = timedelta(seconds=1)
"""When to look again at a plan that another process works on."""
JOURNAL_AWAY = timedelta(seconds=5)
"""When to look again after the journal could not be written."""
LOOK_AGAIN = timedelta(seconds=5)
"""The longest sleep: the command line may have put a request into the journal."""
LOCK_AWAY = timedelta(seconds=30)
"""When to look again at a plan whose lock cannot be opened."""


def plan_lock(state_dir: Path, plan: PlanName) -> Path:
    """The file whose lock makes a process the plan's only writer on this host."""
    return state_dir / "locks" / f"{plan}.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """How much is done at once, and how much is taken in."""

    concurrency: int
    handlers: Mapping[str, int]
    """How many requests of a handler are worked on at once; one that is not named here has all slots."""
    max_accepted: int
    accept_ahead: int
    zone: tzinfo
    """What the plans' hours are told in."""


class Scheduler:
    """The slots of a worker; any thread."""

    def __init__(
        self,
        *,
        journal: Journal,
        pipeline: Pipeline,
        state_dir: Path,
        clock: Clock,
        slots: Slots,
        plans: Mapping[PlanName, Plan],
        stores: StoreWatch,
        watcher: Callable[[Entry], Watcher],
        on_room: Callable[[], None],
        on_bug: Callable[[BaseException], None],
    ) -> None:
        """`on_room` is told when a slot became free; `on_bug` gets what no work thread should ever raise."""
        self._journal = journal
        self._pipeline = pipeline
        self._state_dir = state_dir
        self._clock = clock
        self._slots = slots
        self._plans = plans
        self._stores = stores
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
        self._journal_away = False
        self._full_of = 0
        self._probing: set[str] = set()

    @property
    def journal_away(self) -> bool:
        """Whether the last use of the journal failed."""
        return self._journal_away

    def use(
        self, slots: Slots, plans: Mapping[PlanName, Plan], *, together_with: Callable[[], None] = lambda: None
    ) -> None:
        """Go by these from now on; what runs goes on. Nothing is begun between `together_with` and that."""
        with self._changed:
            together_with()
            self._slots = slots
            self._plans = plans
            self._woken = True
            self._changed.notify_all()

    def room(self) -> int:
        """How many more requests would be taken in now."""
        with self._mutex:
            slots = self._slots
            if self._stopping:
                return 0
            free = slots.concurrency - len(self._running)
            if free <= 0 and not slots.accept_ahead:
                return 0  # the usual case while we are busy: spare the journal the question
            unfinished = self._journal.unfinished()
            wanted = max(free, slots.concurrency + slots.accept_ahead - unfinished)
            self._say_full(unfinished if free > 0 and unfinished >= slots.max_accepted else 0)
            return max(0, min(wanted, slots.max_accepted - unfinished))

    @property
    def full_of(self) -> int:
        """How many accepted requests keep others out although there are free slots; 0 where they do not."""
        return self._full_of

    def _say_full(self, waiting: int) -> None:
        if waiting and not self._full_of:
            logger.warning(
                "worker_full",
                accepted=waiting,
                max_accepted=self._slots.max_accepted,
                next="nothing more is taken in until some of them can begin",
            )
        self._full_of = waiting

    def running(self) -> Mapping[PlanName, RequestId]:
        """What is worked on now."""
        with self._mutex:
            return dict(self._running)

    def fill(self) -> None:
        """Begin what can be begun now."""
        with self._mutex:
            while not self._stopping and len(self._running) < self._slots.concurrency:
                entry = self._next()
                if entry is None:
                    return
                self._begin(entry)

    def _next(self) -> Entry | None:
        """The request to begin now: the oldest of the most urgent plan that may."""
        now = self._clock()
        turns = self._turns(now)
        for passed_over in turns.rounds():
            if found := self._journal.runnable(now, limit=1, busy=passed_over):
                return found[0]
        return None

    def _turns(self, now: datetime) -> Turns:
        moment = time.monotonic()
        self._resting = {plan: until for plan, until in self._resting.items() if until > moment}
        return Turns(
            plans=self._plans,
            running=frozenset(self._running),
            resting=frozenset(self._resting),
            handlers=self._slots.handlers,
            stores=self._stores,
            now=now,
            zone=self._slots.zone,
        )

    def run(self) -> None:
        """Keep the slots filled until `stop`; the thread's root."""
        while True:
            with self._changed:
                if self._stopping:
                    return
                self._woken = False
            try:
                self.fill()
                self._probe()
            except HoldfastError as error:
                self._say_away(error, next="looked at again in a moment")
            else:
                with self._mutex:
                    if not self._running and not self._resting:
                        self._journal_away = False  # nobody needs it to be written, and it can be read
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
            self._resting[entry.plan] = time.monotonic() + LOCK_AWAY.total_seconds()
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
            self._journal_away = False
        except IllegalMove:
            logger.info("request_concluded_elsewhere", request_id=entry.request_id, next="nothing: it has its outcome")
        except HoldfastError as error:
            # The pipeline turns every other error into an outcome; this one could not even be written down.
            self._say_away(error, next="the request is begun again in a moment")
            with self._mutex:
                self._resting[entry.plan] = time.monotonic() + JOURNAL_AWAY.total_seconds()
        except BaseException as error:  # noqa: BLE001 - the root of a thread
            self._on_bug(error)
        finally:
            lock.release()
            with self._changed:
                del self._running[entry.plan]
                self._woken = True
                self._changed.notify_all()
            self._on_room()

    def _say_away(self, error: HoldfastError, *, next: str) -> None:  # noqa: A002 - the log's own word
        # Once for each time it goes away, not once for each attempt.
        if not self._journal_away:
            logger.error("journal_away", error=str(error), next=next)
        self._journal_away = True

    def _probe(self) -> None:
        """Try the stores that are away and that no request tries: else nobody would know that they are back."""
        for name in self._stores.away():
            with self._mutex:
                plans = [plan for plan in self._plans.values() if plan.store.name == name]
                idle = name not in self._probing and not any(plan.name in self._running for plan in plans)
                allowed = self._turns(self._clock()).allowed()
                if not plans or not idle or self._stopping or not self._stores.may_try(name, busy=False):
                    continue
                if self._journal.unfinished_of(frozenset(plan.name for plan in plans) & allowed):
                    continue
                self._probing.add(name)
            # A thread of its own: a store that hangs must not keep the plans of the others.
            threading.Thread(target=self._probe_one, args=(plans[0].store,), name=f"probe-{name}", daemon=True).start()

    def _probe_one(self, store: Store) -> None:
        try:
            store.check()
        except StoreUnavailable as error:
            self._stores.failed(store.name, error)
        except HoldfastError as error:
            self._stores.failed(store.name, StoreUnavailable(error.message, hint=error.hint))
        else:
            self._stores.worked(store.name)
        finally:
            with self._changed:
                self._probing.discard(store.name)
                self._woken = True
                self._changed.notify_all()

    def _sleep(self) -> timedelta:
        """How long nothing can become due by itself."""
        waits = [LOOK_AGAIN]
        with suppress(HoldfastError):
            now = self._clock()
            with self._mutex:
                turns = self._turns(now)
                waits += [timedelta(seconds=until - time.monotonic()) for until in self._resting.values()]
                free = len(self._running) < self._slots.concurrency
            waits += [moment - now for moment in turns.openings()]
            if (trial := self._stores.next_trial()) is not None:
                waits.append(timedelta(seconds=trial))
            due = self._journal.next_retry()
            # What is due already waits for its plan or a slot: the end of that work wakes us.
            if due is not None and due > now and free:
                waits.append(due - now)
        return max(min(waits), timedelta(milliseconds=10))
