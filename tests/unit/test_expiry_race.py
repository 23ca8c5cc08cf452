"""Somebody keeps what expiry takes away: whoever comes first, nobody is told a lie."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.errors import HoldfastError
from tests.workshop.stocked import HISTORY, PLAN, all_restorable, expired, gone, pin, stock, there, watched, why
from worker.expiry import Expired
from worker.levels import ChainBroken
from worker.pins import EXPIRING, PINS, Kept
from worker.stores.memory import MemoryStore
from worker.stores.protocol import Store


def test_set_that_is_kept_in_the_last_moment_stays() -> None:
    """The pin comes before the second look: the set stays, and all it builds on."""
    store = MemoryStore("nas")
    stock(store, *HISTORY)
    first = iter([True])

    def keep_it(call: str) -> None:
        if call == "put_note" and next(first, False):
            pin(store, "s2")

    done = expired(watched(store, keep_it))

    assert gone(done) == ["s3"]
    assert why(done, "s2") == ("pinned meanwhile as `mine`",)
    assert why(done, "s1") == ("set s2, which stays, builds on it",)


def outcomes(store: Store, keeping: Callable[[], Kept], expiring: Callable[[], Expired]) -> None:
    """Whoever came first: a set that is kept is there with its chain, and a refused pin is none."""
    done = expiring()
    try:
        held = keeping()
    except HoldfastError:
        assert store.notes(PLAN, PINS) == {}
    else:
        assert {link.backup_id for link in held.chain} <= there(store)
    assert {*gone(done)} & there(store) == set()
    assert all_restorable(store)
    assert store.notes(PLAN, EXPIRING) == {}


@pytest.mark.parametrize("backup_id", ["s1", "s2", "s3"])
def test_keep_at_any_moment_of_an_expiry(backup_id: str) -> None:
    """A whole `keep` between any two calls that an expiry makes of the store."""
    kept = refused = 0
    for moment in range(1000):
        store = MemoryStore("nas")
        stock(store, *HISTORY)
        calls = iter(range(1000))
        held: list[Callable[[], Kept]] = []

        def interrupt(_: str, calls: Any = calls, moment: int = moment, held: Any = held, store: Store = store) -> None:
            if next(calls) == moment:
                held.append(_later(lambda: pin(store, backup_id, timedelta())))

        done = expired(watched(store, interrupt))
        if not held:
            break
        outcomes(store, held[0], lambda done=done: done)  # type: ignore[misc]
        kept += bool(store.notes(PLAN, PINS))
        refused += not store.notes(PLAN, PINS)

    assert kept > 3
    assert refused > 3


@pytest.mark.parametrize("backup_id", ["s1", "s2", "s3"])
def test_expiry_at_any_moment_of_a_keep(backup_id: str) -> None:
    """A whole expiry between any two calls that `keep` makes of the store."""
    kept = refused = 0
    for moment in range(1000):
        store = MemoryStore("nas")
        stock(store, *HISTORY)
        calls = iter(range(1000))
        done: list[Expired] = []

        def interrupt(_: str, calls: Any = calls, moment: int = moment, done: Any = done, store: Store = store) -> None:
            if next(calls) == moment:
                done.append(expired(store))

        held = _later(lambda store=store, interrupt=interrupt: pin(watched(store, interrupt), backup_id))  # type: ignore[misc]
        if not done:
            break
        outcomes(store, held, lambda done=done: done[0])  # type: ignore[misc]
        kept += bool(store.notes(PLAN, PINS))
        refused += not store.notes(PLAN, PINS)

    assert kept
    assert refused


@settings(max_examples=40, deadline=None)
@given(turns=st.lists(st.sampled_from("ke"), max_size=40), backup_id=st.sampled_from(["s1", "s2", "s3"]))
def test_keep_and_expiry_step_by_step(turns: list[str], backup_id: str) -> None:
    """Both at once, in any order of their calls of the store."""
    store = MemoryStore("nas")
    stock(store, *HISTORY)
    table = _Turns(turns)
    results: dict[str, Callable[[], Any]] = {}

    def play(who: str, work: Callable[[Store], Any]) -> None:
        try:
            results[who] = _later(lambda: work(watched(store, lambda _: table.wait_for(who))))
        finally:
            table.leave(who)

    players = [
        threading.Thread(target=play, args=("k", lambda mine: pin(mine, backup_id, timedelta(seconds=0.02)))),
        threading.Thread(target=play, args=("e", expired)),
    ]
    for player in players:
        player.start()
    for player in players:
        player.join()

    outcomes(store, results["k"], results["e"])


def _later(work: Callable[[], Any]) -> Callable[[], Any]:
    """Do it now, and give or raise later what came of it."""
    try:
        result = work()
    except (HoldfastError, ChainBroken) as error:
        caught = error

        def fail() -> Any:
            raise caught

        return fail
    return lambda: result


class _Turns:
    """Lets two players move in a given order; once it ends, or one has left, they move as they like."""

    def __init__(self, order: Sequence[str]) -> None:
        self._order = list(order)
        self._gone: set[str] = set()
        self._changed = threading.Condition()

    def wait_for(self, who: str) -> None:
        """Return when it is this player's turn."""
        with self._changed:
            while self._order and self._order[0] in self._gone:
                self._order.pop(0)
            assert self._changed.wait_for(
                lambda: not self._order or self._order[0] == who or self._order[0] in self._gone, 20
            )
            if self._order:
                self._order.pop(0)
            self._changed.notify_all()

    def leave(self, who: str) -> None:
        """The player has no more moves."""
        with self._changed:
            self._gone.add(who)
            self._changed.notify_all()
