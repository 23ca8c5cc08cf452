"""Which plans may begin, and which first."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from config.hours import parse_hours
from handlers.contract import PlanName
from tests.workshop.handlers import TextHandler, TextOptions
from worker.plan import Plan
from worker.store_watch import StoreWatch
from worker.stores.memory import MemoryStore
from worker.stores.protocol import StoreUnavailable
from worker.turns import Turns

WELL = StoreWatch(lambda: NOON)
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
DISK = MemoryStore("disk")


class Other(TextHandler):
    """A handler of another name."""

    name = "other"


def plan(name: str, **more: Any) -> Plan:
    """A plan."""
    given = {"handler": TextHandler(), "store": DISK, **more}
    return Plan(name=PlanName(name), options=TextOptions(), verify="none", max_level=9, labels={}, **given)


def turns(*plans: Plan, **more: Any) -> Turns:
    """The plans at noon, with all stores well."""
    given: dict[str, Any] = {
        "running": frozenset(),
        "resting": frozenset(),
        "handlers": {},
        "stores": WELL,
        "now": NOON,
        "zone": UTC,
        **more,
    }
    return Turns(plans={item.name: item for item in plans}, **given)


def order(found: Turns) -> list[set[str]]:
    """Who has a turn in each round."""
    return [set(found.plans) - passed_over for passed_over in found.rounds()]


def test_the_most_urgent_come_first() -> None:
    """Then the others, by their priority."""
    found = turns(plan("a"), plan("b", priority=9), plan("c"), plan("d", priority=0))

    assert order(found) == [{"b"}, {"a", "c"}, {"d"}]


def test_a_plan_that_runs_or_rests_has_no_turn() -> None:
    """One writer for each plan."""
    found = turns(plan("a"), plan("b"), plan("c"), running=frozenset({"a"}), resting=frozenset({"b"}))

    assert order(found) == [{"c"}]


def test_a_handler_has_no_more_turns_than_allowed() -> None:
    """Other handlers go on."""
    running = frozenset({"a"})
    found = turns(plan("a"), plan("b"), plan("c", handler=Other()), running=running, handlers={"text": 1})

    assert found.allowed() == {"c"}


def test_outside_its_hours_a_plan_has_no_turn() -> None:
    """It is told when it has one again."""
    found = turns(plan("a", hours=(parse_hours("22:00-06:00"),)), plan("b", hours=(parse_hours("11:00-13:00"),)))

    assert found.allowed() == {"b"}
    assert list(found.openings()) == [NOON.replace(hour=22)]


def test_a_store_on_trial_is_tried_by_one_plan() -> None:
    """`busy` tells that one of its plans is running."""
    watch = StoreWatch(lambda: NOON, first_rest=timedelta(seconds=1), monotonic=lambda: seconds[0])
    seconds = [0.0]
    watch.failed("disk", StoreUnavailable("full"))
    seconds[0] = 10
    found = turns(
        plan("a"),
        plan("b"),
        plan("c", store=MemoryStore("tape")),
        running=frozenset({"a"}),
        stores=watch,
    )

    assert found.allowed() == {"c"}


def test_a_plan_that_failed_with_its_store_does_not_take_every_trial() -> None:
    """However urgent it is: a smaller one may fit."""
    seconds = [0.0]
    watch = StoreWatch(lambda: NOON, first_rest=timedelta(seconds=1), monotonic=lambda: seconds[0])
    watch.failed("disk", StoreUnavailable("full"), PlanName("huge"))
    seconds[0] = 10
    found = turns(plan("huge", priority=9), plan("small", priority=1), stores=watch)

    assert order(found) == [{"small"}, {"huge"}]


def test_requests_of_a_plan_that_is_gone_are_in_every_round() -> None:
    """Somebody waits for their outcome."""
    found = turns(plan("a", priority=9), plan("b"))

    assert all("gone" not in passed_over for passed_over in found.rounds())
    assert all("gone" not in passed_over for passed_over in turns().rounds())
    assert len(list(turns().rounds())) == 1


@given(
    priorities=st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9)),
    running=st.frozensets(st.sampled_from("abcdef")),
)
def test_each_allowed_plan_has_exactly_one_round(priorities: Mapping[str, int], running: frozenset[PlanName]) -> None:
    """Nobody is forgotten, nobody comes twice, and never after somebody less urgent."""
    found = turns(*(plan(name, priority=priority) for name, priority in priorities.items()), running=running)
    rounds = [group for group in order(found) if group]

    assert sorted(name for group in rounds for name in group) == sorted(set(priorities) - running)
    urgencies = [{priorities[name] for name in group} for group in rounds]
    assert all(len(urgency) == 1 for urgency in urgencies)
    assert [max(urgency) for urgency in urgencies] == sorted((max(u) for u in urgencies), reverse=True)
