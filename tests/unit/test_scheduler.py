"""The slots: who gets one, how much is taken in, and that waiting costs nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from handlers.contract import Job, PlanName
from handlers.tools.lock import Lock
from tests.workshop.bench import WEB, Bench, Message, asked
from tests.workshop.workers import wait_for
from worker.control import NoWatcher
from worker.intake.wire import RequestId
from worker.journal.memory import MemoryJournal
from worker.journal.protocol import Entry
from worker.scheduler import Scheduler, Slots, plan_lock

SLOTS = Slots(concurrency=2, handlers={}, max_accepted=100, accept_ahead=0, zone=UTC)


class CountingJournal(MemoryJournal):
    """Knows how often it was asked for work."""

    asked_for_work = 0

    def runnable(self, *arguments, **named):  # type: ignore[no-untyped-def]
        """Count it."""
        self.asked_for_work += 1
        return super().runnable(*arguments, **named)


class Shop:
    """A scheduler over a pipeline on memory."""

    def __init__(self, tmp_path: Path, slots: Slots = SLOTS) -> None:
        self.bench = Bench(tmp_path)
        self.journal = self.bench.journal = CountingJournal()
        self.bench.wire()
        (tmp_path / "locks").mkdir()
        self.state_dir = tmp_path
        self.bugs: list[BaseException] = []
        self.scheduler = Scheduler(
            journal=self.journal,
            pipeline=self.bench.pipeline,
            state_dir=tmp_path,
            clock=lambda: self.bench.now,
            slots=slots,
            plans=self.bench.configured.plans,
            stores=self.bench.watch,
            watcher=lambda entry: NoWatcher(),
            on_room=lambda: None,
            on_bug=self.bugs.append,
        )

    def ask(self, request_id: str) -> None:
        """Bring a request."""
        self.bench.accept(Message(asked(request_id)))

    def entry(self, request_id: str) -> Entry:
        """How far a request is."""
        found = self.journal.entry(RequestId(request_id))
        assert found is not None
        return found

    @contextmanager
    def open(self) -> Iterator[None]:
        """The scheduler's own thread runs in the block."""
        thread = threading.Thread(target=self.scheduler.run)
        thread.start()
        try:
            yield
        finally:
            self.scheduler.stop()
            thread.join(20)
            assert not thread.is_alive()
            assert self.scheduler.wait_idle(20)
            assert self.bugs == []


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A new one."""
    return Shop(tmp_path)


def questions(shop: Shop, seconds: float) -> int:
    """How often the journal is asked for work in this stretch of time."""
    before = shop.journal.asked_for_work
    threading.Event().wait(seconds)
    return shop.journal.asked_for_work - before


def test_a_plan_that_another_process_works_on_is_waited_for(shop: Shop) -> None:
    """Without asking for it all the time."""
    lock = Lock.try_hold(plan_lock(shop.state_dir, WEB))
    assert lock is not None
    shop.ask("r1")
    with lock, shop.open():
        wait_for(lambda: shop.journal.asked_for_work > 0, what="the first look")
        assert questions(shop, 0.6) <= 5
        assert shop.entry("r1").outcome is None

        lock.release()

        wait_for(lambda: shop.entry("r1").outcome is not None, seconds=10, what="the outcome")


def test_a_due_retry_whose_plan_is_busy_waits_quietly(shop: Shop) -> None:
    """The end of the work before it wakes the scheduler: it neither spins nor sleeps on."""
    working, go_on = threading.Event(), threading.Event()

    def during(job: Job) -> None:
        working.set()
        assert go_on.wait(20)

    shop.bench.handler.during = during
    shop.ask("r1")
    shop.ask("r2")
    now = shop.bench.now
    shop.journal.postpone(RequestId("r2"), until=now - timedelta(seconds=1), error="busy", now=now)
    with shop.open():
        assert working.wait(20)
        assert questions(shop, 0.6) <= 2
        assert shop.entry("r2").outcome is None

        go_on.set()

        wait_for(lambda: shop.entry("r2").outcome is not None, seconds=4, what="the outcome")
    assert shop.entry("r1").outcome is not None


def test_what_is_asked_of_a_disabled_plan_ends_all_the_same(shop: Shop) -> None:
    """Though it has no turn among the plans."""
    shop.ask("r1")
    shop.bench.pipeline.use(replace(shop.bench.configured, plans={}))
    shop.scheduler.use(SLOTS, {})

    with shop.open():
        wait_for(lambda: shop.entry("r1").outcome is not None, seconds=10, what="the outcome")


def test_only_as_much_is_taken_in_as_can_begin(shop: Shop) -> None:
    """What waits with the broker may be done by another worker."""
    assert shop.scheduler.room() == 2


@pytest.mark.parametrize(("unfinished", "room"), [(0, 5), (2, 3), (5, 2), (98, 2), (99, 1), (100, 0), (120, 0)])
def test_more_is_taken_in_where_that_is_wanted(tmp_path: Path, unfinished: int, room: int) -> None:
    """Up to what one worker may hold; a free slot is always worth a request."""
    shop = Shop(tmp_path, replace(SLOTS, accept_ahead=3))
    for number in range(unfinished):
        shop.ask(f"r{number}")

    assert shop.scheduler.room() == room


def test_changed_slots_hold_from_now_on(shop: Shop) -> None:
    """Without a restart."""
    shop.scheduler.use(replace(SLOTS, concurrency=7), {PlanName("web"): shop.bench.configured.plans[WEB]})

    assert shop.scheduler.room() == 7


def test_a_scheduler_that_stops_takes_nothing_more(shop: Shop) -> None:
    """What is in the journal stays for the next start."""
    shop.scheduler.stop()
    shop.ask("r1")
    shop.scheduler.fill()

    assert shop.scheduler.room() == 0
    assert shop.entry("r1").attempt == 0


def test_a_request_that_was_dropped_before_its_work_began_is_no_trouble(shop: Shop) -> None:
    """The journal is there: nothing else waits for it to come back."""

    class Dropping(MemoryJournal):
        def attempt(self, request_id: RequestId, *, now: datetime) -> Entry:
            self.conclude(request_id, outcome=b"{}", announcements=lambda callers: [], now=now)
            return super().attempt(request_id, now=now)

    shop.bench.journal = Dropping()
    shop.bench.wire()
    shop.scheduler._journal = shop.bench.journal
    shop.scheduler._pipeline = shop.bench.pipeline
    shop.ask("r1")

    with shop.open():
        wait_for(lambda: shop.bench.journal.unfinished() == 0, seconds=10, what="the drop")

    assert not shop.scheduler.journal_away
