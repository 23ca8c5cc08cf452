"""Stores that are away are left alone, tried, and taken back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from handlers.contract import PlanName
from tests.workshop.logs import heard_names
from worker.store_watch import LONGEST_REST, StoreWatch
from worker.stores.protocol import StoreUnavailable

FIRST_REST = timedelta(seconds=5)
FULL = StoreUnavailable("store disk: no space left on device")


class Watched:
    """A watch at a time that a test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.watch = StoreWatch(
            lambda: datetime(2026, 11, 21, tzinfo=UTC), first_rest=FIRST_REST, monotonic=lambda: self.seconds
        )


@pytest.fixture
def watched() -> Watched:
    """A new watch."""
    return Watched()


def test_a_store_that_works_may_be_tried(watched: Watched) -> None:
    """By as many plans as like."""
    assert watched.watch.may_try("disk", busy=True)
    assert not watched.watch.away()
    assert watched.watch.next_trial() is None


def test_a_store_that_failed_is_left_alone_for_a_while(watched: Watched) -> None:
    """Others are not."""
    watched.watch.failed("disk", FULL)

    assert not watched.watch.may_try("disk", busy=False)
    assert watched.watch.may_try("other", busy=False)
    assert watched.watch.next_trial() == FIRST_REST.total_seconds()


def test_one_plan_at_a_time_is_let_through_on_trial(watched: Watched) -> None:
    """The others would only fail with it."""
    watched.watch.failed("disk", FULL)
    watched.seconds = FIRST_REST.total_seconds()

    assert watched.watch.may_try("disk", busy=False)
    assert not watched.watch.may_try("disk", busy=True)


def test_the_rest_gets_longer_up_to_the_longest(watched: Watched) -> None:
    """A trial of a full disk costs time."""
    rests = []
    for _ in range(12):
        watched.watch.failed("disk", FULL)
        rests.append(watched.watch.next_trial() or 0.0)
        watched.seconds += rests[-1]

    assert rests == sorted(rests)
    assert rests[0] == FIRST_REST.total_seconds()
    assert rests[-1] == LONGEST_REST.total_seconds()


def test_late_failures_of_the_same_trouble_tell_nothing_new(watched: Watched) -> None:
    """Plans that ran side by side fail one after the other: the rest does not grow by that."""
    for _ in range(5):
        watched.watch.failed("disk", FULL)

    assert watched.watch.next_trial() == FIRST_REST.total_seconds()


def test_success_ends_it(watched: Watched) -> None:
    """At once, for everybody."""
    watched.watch.failed("disk", FULL)
    watched.watch.worked("disk")

    assert watched.watch.may_try("disk", busy=True)
    assert not watched.watch.away()


def test_the_log_tells_it_once(watched: Watched) -> None:
    """When it goes, and when it is back; not for every trial."""
    with heard_names() as names:
        for _ in range(5):
            watched.watch.failed("disk", FULL)
            watched.seconds += LONGEST_REST.total_seconds()
        watched.watch.worked("disk")
        watched.watch.worked("disk")

    assert names == ["store_away", "store_back"]


def test_a_store_that_nobody_uses_any_more_is_forgotten(watched: Watched) -> None:
    """It would keep the worker from being ready for ever."""
    watched.watch.failed("old", FULL)
    watched.watch.failed("disk", FULL)

    watched.watch.use(first_rest=FIRST_REST, longest_rest=LONGEST_REST, stores={"disk", "new"})

    assert set(watched.watch.away()) == {"disk"}


def test_the_plan_that_failed_is_remembered_until_the_store_works(watched: Watched) -> None:
    """Others go first meanwhile."""
    watched.watch.failed("disk", FULL, PlanName("huge"))
    watched.watch.failed("disk", FULL, PlanName("huge"))

    assert watched.watch.failures("disk", PlanName("huge")) == 2
    assert watched.watch.failures("disk", PlanName("small")) == 0
    watched.watch.worked("disk")
    assert watched.watch.failures("disk", PlanName("huge")) == 0


def test_no_rest_is_longer_than_told(watched: Watched) -> None:
    """However long requests wait between their attempts."""
    watched.watch.use(first_rest=timedelta(hours=1), longest_rest=timedelta(hours=9))
    watched.watch.failed("disk", FULL)

    assert watched.watch.next_trial() == LONGEST_REST.total_seconds()
