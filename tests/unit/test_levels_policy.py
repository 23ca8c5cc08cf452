"""When the levels of a plan begin again: with a restart, with a full backup, and what is said about it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from config.levels import Levels
from tests.workshop.histories import BEGAN, DAY, Diary, chosen, made


def test_restart_after_level() -> None:
    """As AutoArchive with `restart-after-level=2`."""
    plan = Diary(Levels(restart_after_level=2))

    assert plan.levels(8) == [0, 1, 2, 1, 2, 1, 2, 1]
    assert plan.reasons[3] == "restart at level 1: level 3 would be above restart_after_level 2"


def test_full_backup_after_restarts() -> None:
    """As AutoArchive with `restart-after-level=2` and `full-restart-after-count=1`."""
    plan = Diary(Levels(restart_after_level=2, full_after_restarts=1))

    assert plan.levels(9) == [0, 1, 2, 1, 0, 1, 2, 1, 0]
    assert plan.reasons[4] == "full backup: level 0 has had 1 restart, full_after_restarts is 1"


def test_two_restarts_are_two_restarts() -> None:
    """The backup after the second is the full one."""
    plan = Diary(Levels(restart_after_level=2, full_after_restarts=2))

    assert plan.levels(8) == [0, 1, 2, 1, 2, 1, 0, 1]
    assert plan.reasons[6] == "full backup: level 0 has had 2 restarts, full_after_restarts is 2"


def test_without_restarts_a_full_backup_takes_their_place() -> None:
    """0 does not mean that every backup is a full one: `max_level` is for that."""
    plan = Diary(Levels(restart_after_level=2, full_after_restarts=0))

    assert plan.levels(7) == [0, 1, 2, 0, 1, 2, 0]
    assert plan.reasons[3] == (
        "full backup: level 3 would be above restart_after_level 2, and full_after_restarts is 0"
    )


def test_restarts_are_counted_in_the_manifests() -> None:
    """Since level 0; a set that is no restart has the number of the one before it."""
    plan = Diary(Levels(restart_after_level=2, full_after_restarts=2))
    plan.levels(8)

    assert [manifest.restarts for manifest in plan.sets] == [0, 0, 0, 1, 1, 2, 0, 0]


def test_level_that_is_asked_for_is_no_restart() -> None:
    """It drops the higher ones from the chain, but the plan has not begun again by itself."""
    plan = Diary(Levels(restart_after_level=2, full_after_restarts=2))
    plan.levels(4)

    asked = [plan.back_up(wanted) for wanted in (2, 1, "incremental")]

    assert [(manifest.level, manifest.restarts) for manifest in asked] == [(2, 1), (1, 1), (2, 1)]


def test_restart_after_days() -> None:
    """The age of level 1 decides at first, then that of the last restart."""
    plan = Diary(Levels(restart_after_days=2.5))

    assert plan.levels(9) == [0, 1, 2, 3, 1, 2, 3, 1, 2]
    assert plan.reasons[4] == "restart at level 1: level 1 is 3.0 days old, restart_after_days is 2.5"
    assert plan.reasons[7] == "restart at level 1: the last restart is 3.0 days old, restart_after_days is 2.5"


def test_level_1_is_made_however_old_level_0_is() -> None:
    """There is nothing to begin again yet."""
    choice = chosen("auto", [made("s1", 0)], Levels(restart_after_days=1), now=BEGAN + 100 * DAY)

    assert (choice.level, choice.reason) == (1, "next after level 0")


def test_restart_above_level_1_counts_as_one() -> None:
    """Level 1 is 30 days old, but the levels have begun again yesterday, with level 2."""
    sets = [
        made("s1", 0),
        made("s2", 1, "s1", bytes_out=900),
        made("s3", 2, "s2", finished=BEGAN + 29 * DAY, restarts=1),
    ]
    policy = Levels(restart_after_days=7, restart_below_percent=50)

    fresh = chosen("auto", sets, policy, now=BEGAN + 30 * DAY)
    old = chosen("auto", sets, policy, now=BEGAN + 37.2 * DAY)

    assert (fresh.level, fresh.reason) == (3, "next after level 2")
    assert (old.level, old.parent, old.restarts) == (2, sets[1], 2)
    assert old.reason.startswith("restart at level 2: the last restart is 8.2 days old, restart_after_days is 7;")


def test_restart_leaves_a_level_that_has_grown_in_place() -> None:
    """It begins at the lowest one that is small enough."""
    sets = [
        made("s1", 0, bytes_out=1000),
        made("s2", 1, "s1", bytes_out=612),
        made("s3", 2, "s2", bytes_out=500),
        made("s4", 3, "s3", bytes_out=10),
    ]

    choice = chosen("auto", sets, Levels(restart_after_level=3, restart_below_percent=50))

    assert (choice.level, choice.parent, choice.restarts) == (2, sets[1], 1)
    assert choice.reason == (
        "restart at level 2: level 4 would be above restart_after_level 3; "
        "level 1 has 61.2 % of the size of level 0, restart_below_percent is 50"
    )


def test_restart_goes_no_higher_than_the_chain() -> None:
    """Where no level is small enough the highest is made again."""
    sets = [made("s1", 0, bytes_out=100), made("s2", 1, "s1", bytes_out=90), made("s3", 2, "s2", bytes_out=80)]

    choice = chosen("auto", sets, Levels(restart_after_level=2, restart_below_percent=50))

    assert (choice.level, choice.parent) == (2, sets[1])


def test_restart_never_goes_above_the_highest_level_of_the_plan() -> None:
    """`max_level` was lowered, or a higher level was asked for once."""
    sets = [made("s1", 0, bytes_out=100), made("s2", 1, "s1", bytes_out=90), made("s3", 2, "s2", bytes_out=80)]

    choice = chosen("auto", sets, Levels(restart_after_level=2, restart_below_percent=50), max_level=1)

    assert (choice.level, choice.parent) == (0, None)
    assert choice.reason == "full backup: level 2 would be above level 1, the highest the plan allows"


def test_restart_comes_before_the_highest_level() -> None:
    """A plan that restarts after the deepest level it allows never reaches the full backup after it."""
    assert Diary(Levels(restart_after_level=2), max_level=2).levels(6) == [0, 1, 2, 1, 2, 1]


def test_full_backup_after_days() -> None:
    """By the age of level 0, whatever was built upon it."""
    plan = Diary(Levels(restart_after_level=2, full_after_days=4.5))

    assert plan.levels(7) == [0, 1, 2, 1, 2, 0, 1]
    assert plan.reasons[5] == "full backup: level 0 is 5.0 days old, full_after_days is 4.5"


@pytest.mark.parametrize(
    ("later", "shown"),
    [
        (timedelta(days=31.2), "31.2"),
        (timedelta(days=30, minutes=9), "30.01"),
        (timedelta(days=30, minutes=1), "30.001"),
    ],
)
def test_reason_shows_that_the_limit_is_passed(later: timedelta, shown: str) -> None:
    """Never "30.0 days old, full_after_days is 30"."""
    choice = chosen("auto", [made("s0", 0)], Levels(full_after_days=30), now=BEGAN + later)

    assert choice.reason == f"full backup: level 0 is {shown} days old, full_after_days is 30"


def test_age_of_exactly_the_limit_is_not_above_it() -> None:
    """The next moment is."""
    base, policy = made("s0", 0), Levels(full_after_days=30)

    assert chosen("auto", [base], policy, now=BEGAN + 30 * DAY).level == 1
    assert chosen("auto", [base], policy, now=BEGAN + 30 * DAY + timedelta(seconds=1)).level == 0


def test_full_backup_when_the_levels_have_grown_together() -> None:
    """From the very percentage on."""
    sets = [made("s1", 0, bytes_out=1000), made("s2", 1, "s1", bytes_out=400), made("s3", 2, "s2", bytes_out=200)]

    reached = chosen("auto", sets, Levels(full_above_percent=60))
    passed = chosen("auto", sets, Levels(full_above_percent=59.5))

    assert reached.reason == "full backup: the levels above level 0 have 60.0 % of its size, full_above_percent is 60"
    assert passed.reason == "full backup: the levels above level 0 have 60.0 % of its size, full_above_percent is 59.5"
    assert chosen("auto", sets, Levels(full_above_percent=60.1)).level == 3


def test_dropped_levels_do_not_count_for_the_size() -> None:
    """Only what a restore would have to read."""
    sets = [made("s1", 0, bytes_out=1000), made("s2", 1, "s1", bytes_out=900), made("s3", 1, "s1", bytes_out=100)]

    assert chosen("auto", sets, Levels(full_above_percent=50)).level == 2


def test_empty_level_0_divides_nothing_by_zero() -> None:
    """A subject that was empty at first."""
    sets = [made("s1", 0, bytes_out=0), made("s2", 1, "s1", bytes_out=100)]
    policy = Levels(restart_after_level=1, restart_below_percent=50)

    assert chosen("auto", sets, policy).level == 1
    assert chosen("auto", sets, Levels(full_above_percent=1_000)).level == 0
