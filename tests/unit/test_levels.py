"""Which level is next where no rule of the plan says otherwise, which sets a restore needs."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.levels import Levels
from handlers.contract import BackupId
from tests.workshop.histories import BEGAN, DAY, by_id, chosen, made
from worker.levels import ChainBroken, LevelRefused, Wanted, levels_to_restore, live_chain, newest
from worker.manifest import Manifest

CHAIN = (made("s1", 0), made("s2", 1, "s1"), made("s3", 2, "s2"))


def test_first_backup_of_a_plan_is_full() -> None:
    """There is nothing to build upon."""
    choice = chosen("auto", [])

    assert (choice.level, choice.parent, choice.restarts) == (0, None, 0)
    assert choice.reason == "the plan has no set yet"


def test_next_level_builds_on_the_newest_set() -> None:
    """One more than the newest."""
    choice = chosen("auto", CHAIN)

    assert (choice.level, choice.parent, choice.reason) == (3, CHAIN[2], "next after level 2")


def test_highest_level_is_followed_by_a_full_one() -> None:
    """The plan limits how long a chain grows."""
    choice = chosen("auto", CHAIN, max_level=2)

    assert choice.level == 0
    assert choice.reason == "full backup: level 3 would be above level 2, the highest the plan allows"


def test_incremental_goes_up_whatever_the_plan_allows() -> None:
    """It was asked for by name; the rules are for `auto`."""
    rules = Levels(restart_after_level=1, full_after_restarts=0, full_after_days=0.001, full_above_percent=1)

    choice = chosen("incremental", CHAIN, rules, max_level=2)

    assert (choice.level, choice.parent) == (3, CHAIN[2])


@pytest.mark.parametrize("wanted", ["full", 0])
def test_full_is_full_whatever_is_there(wanted: Wanted) -> None:
    """An explicit wish."""
    choice = chosen(wanted, CHAIN)

    assert (choice.level, choice.reason) == (0, "a full backup was asked for")


def test_lower_level_builds_on_its_predecessor_in_the_live_chain() -> None:
    """Level 1 again, on the same full backup."""
    choice = chosen(1, CHAIN)

    assert (choice.level, choice.parent, choice.reason) == (1, CHAIN[0], "level 1 was asked for")


def test_lower_level_drops_the_higher_ones_from_the_live_chain() -> None:
    """They stay in the store; the next level goes on with the new set."""
    again = made("s4", 1, "s1")

    choice = chosen("auto", [*CHAIN, again])

    assert (choice.level, choice.parent) == (2, again)


def test_level_beyond_the_next_is_refused() -> None:
    """It could not be restored."""
    with pytest.raises(LevelRefused, match="level 5 was asked for, but the newest set has level 2") as refused:
        chosen(5, CHAIN)

    assert refused.value.hint == "the highest level possible now is 3"


def test_level_of_an_empty_plan_is_refused() -> None:
    """Only a full backup is possible."""
    with pytest.raises(LevelRefused, match="no set yet"):
        chosen(1, [])


def test_partial_set_is_built_upon() -> None:
    """A file that can never be read must not keep the chain from growing."""
    partial = made("s4", 3, "s3", outcome="partial")

    choice = chosen("auto", [*CHAIN, partial])

    assert (choice.level, choice.parent) == (4, partial)
    assert choice.reason == "next after level 3, which is partial: what it could not read is tried again"


def test_partial_base_is_built_upon() -> None:
    """Even a level 0."""
    base = made("s1", 0, outcome="partial")

    choice = chosen("auto", [base])

    assert (choice.level, choice.parent) == (1, base)


@pytest.mark.parametrize("wanted", ["auto", "incremental", 2])
def test_other_options_mean_a_full_backup(wanted: Wanted) -> None:
    """What was excluded before would not be looked at again."""
    choice = chosen(wanted, CHAIN, scope="1" * 64)

    assert choice.level == 0
    assert choice.reason == "the plan's options have changed since set s3"


@pytest.mark.parametrize("wanted", ["auto", "incremental", 2])
def test_missing_parent_means_a_full_backup(wanted: Wanted) -> None:
    """Never a chain that cannot be restored."""
    choice = chosen(wanted, [CHAIN[0], CHAIN[2]])

    assert (choice.level, choice.parent) == (0, None)
    assert choice.reason == (
        "the chain of the newest set is broken: set s2, which s3 builds on, is missing or has a damaged manifest"
    )


def test_set_from_the_future_is_left_aside() -> None:
    """A clock that was a year ahead for one backup would otherwise stop the chain for a year."""
    ahead = made("s4", 3, "s3", finished=BEGAN + 365 * DAY)
    later = made("s5", 3, "s3")

    first, second = chosen("auto", [*CHAIN, ahead]), chosen("auto", [*CHAIN, ahead, later])

    assert (first.level, first.parent) == (3, CHAIN[2])
    assert (second.level, second.parent) == (4, later)
    assert first.reason == "next after level 2; set s4, dated in the future, is left aside"


def test_clock_that_went_back_starts_nothing_over() -> None:
    """Where all sets are from the future the newest is gone on with, and what builds on it is not left aside."""
    policy = Levels(restart_after_days=1, full_after_days=1)
    back = BEGAN - 30 * DAY
    new = made("s4", 3, "s3", finished=back)

    first = chosen("auto", CHAIN, policy, now=back)
    second = chosen("auto", [*CHAIN, new], policy, now=back + timedelta(hours=1))

    assert (first.level, first.parent, first.reason) == (3, CHAIN[2], "next after level 2")
    assert (second.level, second.parent, second.reason) == (4, new, "next after level 3")


def test_restore_needs_the_chain_oldest_first() -> None:
    """The full one, then each level."""
    assert levels_to_restore(by_id(*CHAIN), BackupId("s3")) == CHAIN


def test_restore_of_an_older_level_stops_there() -> None:
    """Later levels are left out."""
    assert levels_to_restore(by_id(*CHAIN), BackupId("s2")) == CHAIN[:2]


def test_restore_names_the_missing_parent() -> None:
    """A person must know what to look for."""
    with pytest.raises(ChainBroken, match="set s1, which s2 builds on, is missing"):
        levels_to_restore(by_id(*CHAIN[1:]), BackupId("s3"))


@pytest.mark.parametrize(
    "chain", [[made("s1", 0), made("s2", 2, "s1")], [made("s1", 1)], [made("s1", 1, "s1")]], ids=str
)
def test_chain_of_wrong_levels_is_refused(chain: list[Manifest]) -> None:
    """A manifest that names a wrong parent, none, or itself."""
    with pytest.raises(ChainBroken):
        levels_to_restore(by_id(*chain), chain[-1].id)


def few(values: st.SearchStrategy[float] | st.SearchStrategy[int]) -> st.SearchStrategy[float | int | None]:
    """These values, or none at all."""
    return st.none() | values


wishes: st.SearchStrategy[Wanted] = st.one_of(st.sampled_from(["auto", "full", "incremental"]), st.integers(0, 12))
policies = st.builds(
    Levels,
    restart_after_level=few(st.integers(1, 5)),
    restart_after_days=few(st.floats(0.1, 20)),
    restart_below_percent=few(st.floats(1, 200)),
    full_after_restarts=few(st.integers(0, 3)),
    full_after_days=few(st.floats(0.1, 40)),
    full_above_percent=few(st.floats(1, 500)),
)
steps = st.tuples(wishes, st.booleans(), st.integers(-3, 5), st.integers(0, 2000))


@settings(max_examples=60, deadline=None)
@given(
    history=st.lists(steps, max_size=14), lost=st.sets(st.integers(0, 14)), max_level=st.integers(0, 5), rules=policies
)
def test_whatever_happens_the_next_set_can_be_restored(
    history: list[tuple[Wanted, bool, int, int]], lost: set[int], max_level: int, rules: Levels
) -> None:
    """Any rules, wishes, sizes, partial sets, a clock that jumps, sets that vanish: the chain of a new set is whole."""
    sets: list[Manifest] = []
    now = BEGAN
    for number, (wish, partial, days, size) in enumerate(history):
        now += days * DAY
        if number in lost and sets:
            sets.pop(number % len(sets))
        try:
            choice = chosen(wish, sets, rules, max_level=max_level, now=now)
        except LevelRefused:
            continue
        new = made(
            f"s{number}",
            choice.level,
            choice.parent.backup_id if choice.parent else None,
            finished=now,
            outcome="partial" if partial else "succeeded",
            bytes_out=size,
            restarts=choice.restarts,
        )

        assert choice.reason
        assert choice.level == 0 if choice.parent is None else choice.parent in sets
        assert choice.restarts >= (choice.parent.restarts if choice.parent else 0)
        chain = levels_to_restore(by_id(*sets, new), new.id)
        assert [manifest.level for manifest in chain] == list(range(new.level + 1))
        assert wish != "auto" or new.level <= max_level
        sets.append(new)
        if newest(manifest for manifest in sets if manifest.finished <= now) is new:
            assert live_chain(sets, now=now) == chain


@pytest.mark.parametrize("rotten", ["s0", "s1", "s2"])
@pytest.mark.parametrize("wanted", ["auto", "incremental", 1])
def test_nothing_is_built_upon_a_chain_that_was_found_damaged(rotten: str, wanted: Wanted) -> None:
    """Not even below the damage: a disk that rots is no place to save a full backup."""
    chain = [made("s0", 0), made("s1", 1, "s0"), made("s2", 2, "s1")]

    choice = chosen(wanted, chain, damaged={BackupId(rotten): "found damaged on Friday"})

    assert (choice.level, choice.parent) == (0, None)
    assert choice.reason == f"set {rotten}, which the next level would need, was found damaged on Friday"


def test_damage_elsewhere_does_no_harm() -> None:
    """An old chain may rot; the live one goes on."""
    sets = [made("s0", 0), made("s1", 0), made("s2", 1, "s1")]

    assert chosen("auto", sets, damaged={BackupId("s0"): "found damaged"}).level == 2
