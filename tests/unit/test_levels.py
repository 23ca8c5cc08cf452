"""Which level is next, which sets a restore needs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.contract import BackupId
from worker.levels import ChainBroken, LevelRefused, choose, levels_to_restore
from worker.manifest import Counts, Manifest

SCOPE = "0" * 64
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def made(
    name: str, level: int, parent: str | None = None, *, outcome: str = "succeeded", minute: int | None = None
) -> Manifest:
    """A manifest with what levels are chosen by; later names are later in time."""
    when = BEGAN + timedelta(minutes=minute if minute is not None else int(name[1:]))
    return Manifest.model_validate(
        {
            "backup_id": name,
            "request_id": name,
            "request_digest": "0" * 64,
            "plan": "web",
            "handler": "tar",
            "subject": "/srv/web",
            "scope": SCOPE,
            "level": level,
            "parent": parent,
            "level_reason": "a test",
            "host": "here",
            "started": when,
            "finished": when,
            "outcome": outcome,
            "counts": Counts(files=1, bytes_in=1, bytes_out=1),
            "parts": (),
            "config_digest": "0" * 64,
        }
    )


CHAIN = (made("s1", 0), made("s2", 1, "s1"), made("s3", 2, "s2"))


def by_id(*manifests: Manifest) -> dict[BackupId, Manifest]:
    return {manifest.id: manifest for manifest in manifests}


def test_first_backup_of_a_plan_is_full() -> None:
    """There is nothing to build upon."""
    choice = choose("auto", [], scope=SCOPE, max_level=9)

    assert (choice.level, choice.parent) == (0, None)
    assert "no set yet" in choice.reason


def test_next_level_builds_on_the_newest_set() -> None:
    """One more than the newest."""
    choice = choose("auto", CHAIN, scope=SCOPE, max_level=9)

    assert (choice.level, choice.parent) == (3, CHAIN[2])


def test_highest_level_is_followed_by_a_full_one() -> None:
    """The plan limits how long a chain grows."""
    choice = choose("auto", CHAIN, scope=SCOPE, max_level=2)

    assert choice.level == 0
    assert "highest" in choice.reason


def test_full_is_full_whatever_is_there() -> None:
    """An explicit wish."""
    assert choose("full", CHAIN, scope=SCOPE, max_level=9).level == 0
    assert choose(0, CHAIN, scope=SCOPE, max_level=9).level == 0


def test_lower_level_builds_on_its_predecessor_in_the_live_chain() -> None:
    """Level 1 again, on the same full backup."""
    choice = choose(1, CHAIN, scope=SCOPE, max_level=9)

    assert (choice.level, choice.parent) == (1, CHAIN[0])


def test_level_beyond_the_next_is_refused() -> None:
    """It could not be restored."""
    with pytest.raises(LevelRefused, match="level 5 was asked for"):
        choose(5, CHAIN, scope=SCOPE, max_level=9)


def test_level_of_an_empty_plan_is_refused() -> None:
    """Only a full backup is possible."""
    with pytest.raises(LevelRefused, match="no set yet"):
        choose(1, [], scope=SCOPE, max_level=9)


def test_partial_set_is_never_built_upon() -> None:
    """What it could not read would be missing for ever."""
    partial = made("s4", 3, "s3", outcome="partial")

    choice = choose("auto", [*CHAIN, partial], scope=SCOPE, max_level=9)

    assert (choice.level, choice.parent) == (3, CHAIN[2])
    assert "partial" in choice.reason


def test_partial_base_means_a_full_backup() -> None:
    """There is no complete set to build upon."""
    choice = choose("auto", [made("s1", 0, outcome="partial")], scope=SCOPE, max_level=9)

    assert choice.level == 0
    assert "partial" in choice.reason


def test_other_options_mean_a_full_backup() -> None:
    """What was excluded before would not be looked at again."""
    choice = choose("auto", CHAIN, scope="1" * 64, max_level=9)

    assert choice.level == 0
    assert "options have changed" in choice.reason


def test_missing_parent_means_a_full_backup() -> None:
    """Never a chain that cannot be restored."""
    choice = choose("auto", [CHAIN[0], CHAIN[2]], scope=SCOPE, max_level=9)

    assert choice.level == 0
    assert "s2" in choice.reason


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


wishes = st.one_of(st.sampled_from(["auto", "full", "incremental"]), st.integers(0, 12))


@given(
    steps=st.lists(st.tuples(wishes, st.booleans(), st.integers(0, 30)), max_size=12),
    lost=st.sets(st.integers(0, 12), max_size=3),
    max_level=st.integers(0, 5),
)
def test_whatever_happens_the_next_set_can_be_restored(
    steps: list[tuple[str | int, bool, int]], lost: set[int], max_level: int
) -> None:
    """Any wishes, partial sets, a clock that jumps, sets that vanish: the chain of a new set is whole and complete."""
    sets: list[Manifest] = []
    for number, (wish, partial, minute) in enumerate(steps):
        if number in lost and sets:
            sets.pop(number % len(sets))
        try:
            choice = choose(wish, sets, scope=SCOPE, max_level=max_level)  # type: ignore[arg-type]
        except LevelRefused:
            continue
        new = made(
            f"s{number}",
            choice.level,
            choice.parent.backup_id if choice.parent else None,
            outcome="partial" if partial else "succeeded",
            minute=minute,
        )
        sets.append(new)

        chain = levels_to_restore(by_id(*sets), new.id)

        assert [manifest.level for manifest in chain] == list(range(new.level + 1))
        assert all(manifest.outcome == "succeeded" for manifest in chain[:-1])
        assert wish != "auto" or new.level <= max_level
