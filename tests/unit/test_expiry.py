"""What retention lets go, goes, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, timedelta
from pathlib import Path

import pytest

from config.retention import Retention
from handlers.errors import Cancelled, IntegrityError
from tests.workshop.histories import made
from tests.workshop.stocked import (
    BRIEF,
    HISTORY,
    LATEST,
    NOW,
    PLAN,
    all_restorable,
    catalog_of,
    expired,
    gone,
    named,
    pin,
    stock,
    there,
    watched,
    why,
)
from worker.expiry import BATCH, Expired, judge
from worker.pins import EXPIRING, PINS, SetIsExpiring
from worker.stores.local import LocalStore
from worker.stores.memory import MemoryStore
from worker.stores.protocol import Store, StoreRefused, StoreUnavailable
from worker.verified import VERIFIED, note_verified


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store with the history in it."""
    found: Store = MemoryStore("nas") if request.param == "memory" else LocalStore("nas", tmp_path)
    stock(found, *HISTORY)
    return found


def test_what_no_rule_wants_goes_and_the_notes_on_it_with_it(store: Store) -> None:
    """The rest stays, with its notes; what an expiry noted for itself is gone."""
    for backup_id in ("s1", "s4"):
        note_verified(store, named(backup_id), "checksums", NOW)

    done = expired(store)

    assert gone(done) == ["s3", "s2", "s1"]
    assert why(done, "s4") == ("newest complete set", "newest verified set (on 2026-11-21)", "latest: 1 of 1")
    assert there(store) == {"s4"}
    assert set(store.notes(PLAN, VERIFIED)) == {"s4"}
    assert store.notes(PLAN, EXPIRING) == {}


def test_verified_set_stays(store: Store) -> None:
    """The newest one that somebody has read again, with its chain."""
    note_verified(store, named("s2"), "deep", NOW)

    assert gone(expired(store)) == ["s3"]


def test_judging_changes_nothing(store: Store) -> None:
    """It is what a dry run shows."""
    verdicts = judge(catalog_of(store), store, PLAN, LATEST, now=NOW, zone=UTC)

    assert [verdict.keep for verdict in verdicts] == [True, False, False, False]
    assert there(store) == {"s1", "s2", "s3", "s4"}
    assert list(store.noted_plans()) == []


def test_other_plans_are_left_alone(store: Store) -> None:
    """Also one whose name begins like this one's: nothing is found by a pattern."""
    stock(store, *(each.model_copy(update={"plan": "web.prod"}) for each in HISTORY))

    expired(store)

    assert there(store, "web.prod") == {"s1", "s2", "s3", "s4"}


def test_set_goes_before_what_it_builds_on() -> None:
    """Whenever it ends, what is left can be restored; here somebody stops it wherever that is possible."""
    left = []
    for moment in range(100):
        store = MemoryStore("nas")
        stock(store, *HISTORY)
        moments = iter(range(100))

        def stop_in_time(moments: Iterator[int] = moments, moment: int = moment) -> None:
            if next(moments) == moment:
                raise Cancelled("asked to stop")

        with suppress(Cancelled):
            expired(store, checkpoint=stop_in_time)

        assert all_restorable(store)
        assert store.notes(PLAN, EXPIRING) == {}
        left.append(len(there(store)))
    assert left == sorted(left, reverse=True)
    assert set(left) == {4, 3, 2, 1}


def test_plan_without_a_set_is_no_trouble(tmp_path: Path) -> None:
    """Nothing is there, nothing goes."""
    assert expired(LocalStore("nas", tmp_path)) == Expired(removed=(), kept=())


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    """A date in a name makes no backup set of it, nor do levels without a manifest, nor a link to a set."""
    store = LocalStore("nas", tmp_path)
    stock(store, *HISTORY)
    plan = tmp_path / PLAN
    for name in ("photo-20191231-raw", "project 2018.01.01 notes", "host1234-2020-01-01", "s0"):
        (plan / name).mkdir()
        (plan / name / "data.tar.zst").write_text("x")
    (plan / "2020-01-01").write_text("x")
    (plan / "s7").symlink_to(plan / "s4")

    expired(store)

    names = {"photo-20191231-raw", "project 2018.01.01 notes", "host1234-2020-01-01", "s0", "2020-01-01"}
    assert {path.name for path in plan.iterdir()} == {*names, "s4", "s7"}


def test_damaged_manifest_stops_expiry(store: Store) -> None:
    """Nobody knows what that set builds on; the message names it, and a restored manifest ends the trouble."""
    store.draft(named("s5")).commit({}, b"{")

    with pytest.raises(IntegrityError, match=r"nothing of plan web is expired.*set web/s5"):
        expired(store)

    assert there(store) == {"s1", "s2", "s3", "s4", "s5"}
    store.expire(named("s5"))
    assert gone(expired(store)) == ["s3", "s2", "s1"]


def test_damaged_pin_stops_expiry(store: Store) -> None:
    """It may be for any of the sets."""
    store.put_note(PLAN, PINS, "mine", b"?", replace=False)

    with pytest.raises(IntegrityError, match="pin mine of plan web"):
        expired(store)

    assert len(there(store)) == 4


def test_store_that_is_away_stops_expiry(tmp_path: Path) -> None:
    """An empty mount point is not an empty store."""
    with pytest.raises(StoreUnavailable):
        expired(LocalStore("nas", tmp_path / "missing"))


def test_store_that_refuses_leaves_no_note_behind(store: Store) -> None:
    """Otherwise nobody could keep the set that is still there."""

    def refuse(call: str) -> None:
        if call == "expire":
            raise StoreRefused("read only")

    with pytest.raises(StoreRefused):
        expired(watched(store, refuse))

    assert len(there(store)) == 4
    assert store.notes(PLAN, EXPIRING) == {}


def test_note_on_what_may_still_go_stays(store: Store) -> None:
    """The store did not answer in time: nobody may keep the set until the next expiry has looked. Others are free."""

    def away(call: str) -> None:
        if call == "expire":
            raise StoreUnavailable("no answer")

    with pytest.raises(StoreUnavailable):
        expired(watched(store, away))

    assert set(store.notes(PLAN, EXPIRING)) == {"s3"}
    with pytest.raises(SetIsExpiring):
        pin(store, "s3")
    assert pin(store, "s2").pin.name == "mine"


def test_long_history_goes_in_batches() -> None:
    """Chains across the edges of the batches; a set that is kept meanwhile stays with its chain, the rest goes."""
    store = MemoryStore("nas")
    stock(store, *(made(f"s{n}", n % 7, f"s{n - 1}" if n % 7 else None) for n in range(3 * BATCH)))
    begun: set[str] = set()

    def keep_one(call: str) -> None:
        if call == "expire" and "kept" not in begun:
            begun.add("kept")
            pin(store, f"s{2 * BATCH}")

    done = expired(watched(store, keep_one))

    assert all_restorable(store)
    assert store.notes(PLAN, EXPIRING) == {}
    chain = {f"s{n}" for n in range(2 * BATCH - 2 * BATCH % 7, 2 * BATCH + 1)}
    newest = {f"s{n}" for n in range(3 * BATCH - 1 - (3 * BATCH - 1) % 7, 3 * BATCH)}
    assert there(store) == chain | newest
    assert len(done.removed) + len(done.kept) == 3 * BATCH


def test_set_that_somebody_else_removed_is_no_trouble(store: Store) -> None:
    """Two hosts may expire at the same time."""
    first = iter([True])

    def removed_elsewhere(call: str) -> None:
        if call == "put_note" and next(first, False):
            store.expire(named("s3"))

    assert gone(expired(watched(store, removed_elsewhere))) == ["s3", "s2", "s1"]
    assert there(store) == {"s4"}


# --- dead and living expiries


def test_note_of_a_dead_expiry_is_cleaned_up(store: Store) -> None:
    """It stays the same for longer than any living one needs. Of sets that are gone all notes go at once."""
    store.put_note(PLAN, EXPIRING, "s4", b"dead", replace=False)
    store.put_note(PLAN, EXPIRING, "s0", b"dead", replace=False)
    note_verified(store, named("s0"), "checksums", NOW)

    expired(store, Retention(), dead_after=BRIEF)

    assert store.notes(PLAN, EXPIRING) == {}
    assert store.notes(PLAN, VERIFIED) == {}
    assert pin(store, "s4").pin.name == "mine"


def test_note_that_changes_is_that_of_a_living_expiry(store: Store) -> None:
    """It came and went, and came again: somebody is at work there."""
    store.put_note(PLAN, EXPIRING, "s4", b"first", replace=False)
    looks = iter(range(1000))

    def alive(call: str) -> None:
        if call == "notes" and next(looks) == 4:  # after pins, verdicts (two kinds), a first look
            store.put_note(PLAN, EXPIRING, "s4", b"second", replace=True)

    expired(watched(store, alive), Retention(), dead_after=2 * BRIEF)

    assert store.notes(PLAN, EXPIRING) == {"s4": b"second"}


def test_what_another_expiry_is_at_is_left_to_it(store: Store) -> None:
    """Its note came after our look around, so it lives; ours must not be taken for its, nor its for ours."""
    first = iter([True])

    def another(call: str) -> None:
        if call == "put_note" and next(first, False):
            store.put_note(PLAN, EXPIRING, "s2", b"another", replace=False)

    done = expired(watched(store, another))

    assert gone(done) == ["s3"]
    assert why(done, "s2") == ("another expiry is at it",)
    assert why(done, "s1") == ("set s2, which stays, builds on it",)
    assert store.notes(PLAN, EXPIRING) == {"s2": b"another"}


def test_new_set_that_builds_on_a_leaving_one_saves_it(store: Store) -> None:
    """A backup on another host that began long ago is committed in the last moment."""
    first = iter([True])

    def commit(call: str) -> None:
        if call == "put_note" and next(first, False):
            stock(store, made("s9", 2, "s2"))

    done = expired(watched(store, commit))

    assert gone(done) == ["s3"]
    assert why(done, "s2") == ("a set that was made or pinned meanwhile builds on it",)
    assert there(store) == {"s1", "s2", "s4", "s9"}
    assert all_restorable(store)


def test_too_slow_a_store_removes_nothing(store: Store) -> None:
    """After so long somebody else may take our note for that of a dead expiry, and keep the set."""
    done = expired(store, dead_after=timedelta())

    assert gone(done) == []
    assert "too slow" in why(done, "s3")[0]
    assert store.notes(PLAN, EXPIRING) == {}


@pytest.mark.slow
def test_slow_store_removes_fewer_at_once(store: Store) -> None:
    """What is too slow for a batch may do for a few sets: an old disk must not fill up for that."""
    stock(store, *(made(f"t{n}", 0, finished=HISTORY[0].finished - timedelta(days=n + 1)) for n in range(26)))

    def slow(call: str) -> None:
        if call == "put_note":
            time.sleep(0.03)

    done = expired(watched(store, slow), dead_after=timedelta(seconds=1))

    assert len(gone(done)) == 29
    assert there(store) == {"s4"}


def test_whoever_keeps_a_set_in_time_does_not_wait_for_the_others(store: Store) -> None:
    """The note on a set that stays goes before the rest of the batch is removed."""
    seen: list[set[str]] = []
    first = iter([True])

    def look(call: str) -> None:
        if call == "put_note" and next(first, False):
            stock(store, made("s9", 1, "s1"))
        if call == "expire":
            seen.append(set(store.notes(PLAN, EXPIRING)))

    expired(watched(store, look))

    assert seen == [{"s2", "s3"}, {"s2"}]
