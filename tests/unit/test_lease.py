"""Who may make a set, as seen by workers whose clocks a test turns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workshop.leases import NAME, Shop
from tests.workshop.workers import wait_for
from worker.control import PlainControl
from worker.lease import Lease, LeasedControl, LeaseLost, Leases, LeaseTaken
from worker.stores.memory import MemoryStore
from worker.stores.protocol import SetName


def test_lease_is_taken_by_one(shop: Shop) -> None:
    """The other is told who has it, and to look again before it could be dead."""
    shop.hold(shop.worker("n1"))

    error = shop.refused(shop.worker("n2"))

    assert "worker n1" in error.message
    assert error.retry_after == timedelta(seconds=15)
    assert not error.uses_up_attempt


def test_message_stays_the_same_while_the_holder_does(shop: Shop) -> None:
    """The log has it once, not at every look."""
    first, second = shop.hold(shop.worker("n1")), shop.worker("n2")
    before = str(shop.refused(second))
    shop.now += 20

    first.beat()

    assert str(shop.refused(second)) == before


def test_released_lease_is_free_at_once(shop: Shop) -> None:
    """And nothing is left in the store."""
    first = shop.hold(shop.worker("n1"))
    second = shop.worker("n2")
    shop.refused(second)

    first.release()
    first.release()

    assert shop.record() is None
    assert shop.hold(second).fencing == 1


def test_silent_holder_is_taken_over(shop: Shop) -> None:
    """After lease_seconds in which its record did not change, with the next fencing number."""
    shop.hold(shop.worker("n1"))
    second = shop.worker("n2")
    shop.refused(second)
    shop.now += 59.5
    assert shop.refused(second).retry_after == timedelta(seconds=0.5)
    shop.now += 0.5

    assert shop.hold(second).fencing == 2


def test_time_before_the_first_look_does_not_count(shop: Shop) -> None:
    """Nobody knows of a record seen once how old it is."""
    shop.hold(shop.worker("n1"))
    shop.now += 3600

    shop.refused(shop.worker("n2"))


def test_holder_that_beats_is_never_taken_over(shop: Shop) -> None:
    """However long it works."""
    first, second = shop.hold(shop.worker("n1")), shop.worker("n2")

    for _ in range(100):
        shop.now += 30
        first.beat()
        shop.refused(second)
        shop.now += 29
        shop.refused(second)

    first.require()


@given(ahead=st.floats(min_value=-1e6, max_value=1e6))
def test_clocks_of_two_hosts_are_not_compared(ahead: float) -> None:
    """Whatever they show, a takeover comes lease_seconds after the first look."""
    shop = Shop()
    first, second = shop.hold(shop.worker("n1")), shop.worker("n2", ahead=ahead)
    shop.refused(second)
    shop.now += 59
    shop.refused(second)
    shop.now += 1.001

    shop.hold(second)

    for lease in (first, shop.held[-1]):
        lease.release()


@pytest.mark.parametrize(("mine", "theirs"), [(10.0, 60.0), (60.0, 10.0)])
def test_longer_of_two_settings_counts(shop: Shop, mine: float, theirs: float) -> None:
    """A holder that beats more seldom than we would is not dead."""
    shop.hold(shop.worker("n1", seconds=theirs))
    second = shop.worker("n2", seconds=mine)
    shop.refused(second)
    shop.now += 59

    shop.refused(second)

    shop.now += 1
    shop.hold(second)


def test_new_hold_of_the_same_worker_is_another_one(shop: Shop) -> None:
    """It begins to count from there, although no beat came between."""
    first, second = shop.worker("n1"), shop.worker("n2")
    lease = shop.hold(first)
    shop.refused(second)
    shop.now += 50
    lease.release()
    shop.hold(first)
    shop.now += 50

    shop.refused(second)


def test_taken_over_holder_must_not_commit(shop: Shop) -> None:
    """It hears so before, from the store, and at its next checkpoint."""
    first, second = shop.hold(shop.worker("n1")), shop.worker("n2")
    first.check()
    shop.refused(second)
    shop.now += 60
    shop.hold(second)

    with pytest.raises(LeaseLost, match="worker n2 has taken over"):
        first.require()
    with pytest.raises(LeaseLost):
        first.check()
    with pytest.raises(LeaseLost):
        LeasedControl(PlainControl(), first).checkpoint()


def test_holder_that_was_taken_over_and_released_must_not_commit(shop: Shop) -> None:
    """The other one is done: its set, or its reason to give up, is to be looked at first."""
    first, second = shop.hold(shop.worker("n1")), shop.worker("n2")
    shop.refused(second)
    shop.now += 60
    shop.hold(second).release()

    with pytest.raises(LeaseLost) as caught:
        first.require()

    assert not caught.value.uses_up_attempt


def test_lost_lease_is_not_released_under_its_new_holder(shop: Shop) -> None:
    """That one goes on."""
    first, second = shop.hold(shop.worker("n1")), shop.worker("n2")
    shop.refused(second)
    shop.now += 60
    taken = shop.hold(second)

    first.release()

    taken.require()


def test_holder_that_was_stopped_goes_on_where_nobody_took_over(shop: Shop) -> None:
    """A machine that slept for an hour alone has lost nothing: the store proves it."""
    first = shop.hold(shop.worker("n1"))
    shop.now += 3600

    first.require()


def test_former_process_on_the_same_state_is_taken_over_at_once(shop: Shop) -> None:
    """A worker that was killed and started again does not wait for itself."""
    shop.hold(shop.worker("n1"))

    assert shop.hold(shop.worker("n1")).fencing == 2


@pytest.mark.parametrize(("node", "state"), [("n1", "another"), ("n2", "state of n1")])
def test_other_state_or_other_node_waits(shop: Shop, node: str, state: str) -> None:
    """Only both together are proof; two workers of one host have one node."""
    shop.hold(shop.worker("n1"))

    shop.refused(shop.worker(node, state=state))


def test_workers_on_copies_of_one_state_directory_do_not_rob_each_other_for_ever(shop: Shop) -> None:
    """Whoever was robbed by its own double takes nobody for a former process of its own any more."""
    first, double = shop.worker("n1"), shop.worker("n1")
    robbed = shop.hold(first)
    robber = shop.hold(double)

    with pytest.raises(LeaseLost):
        robbed.require()

    shop.refused(first)
    robber.require()


@pytest.mark.parametrize("torn", [b"\0" * 120, b'{"node":"n1","sta', b"{}", b"\xff\xfe", b"[" * 4000])
def test_damaged_record_protects_nobody(shop: Shop, torn: bytes) -> None:
    """The power went while it was written, and its holder with it."""
    shop.store.swap_lease(NAME, None, torn)

    shop.hold(shop.worker("n2")).require()


def test_fields_of_later_versions_are_passed_over(shop: Shop) -> None:
    """Workers of two versions may share a store."""
    shop.hold(shop.worker("n1"))
    record = shop.record()
    assert record is not None
    shop.store.swap_lease(NAME, record, orjson.dumps({**orjson.loads(record), "mood": "good"}))

    shop.refused(shop.worker("n2"))


def test_one_of_two_that_see_the_death_takes_over(shop: Shop) -> None:
    """The other waits for it."""
    shop.hold(shop.worker("n1"))
    second, third = shop.worker("n2"), shop.worker("n3")
    shop.refused(second)
    shop.refused(third)
    shop.now += 60

    shop.hold(second)

    assert "worker n2" in shop.refused(third).message


def test_faster_one_wins_between_look_and_take(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both saw that it is free."""
    second = shop.worker("n2")
    look = shop.store.read_lease

    def slow_look(name: SetName) -> bytes | None:
        monkeypatch.undo()
        seen = look(name)
        shop.hold(shop.worker("n1"))
        return seen

    monkeypatch.setattr(shop.store, "read_lease", slow_look)

    assert "just taken" in shop.refused(second).message


def test_held_lease_beats_by_itself() -> None:
    """With a real clock, until it is released; no thread is left."""
    store = MemoryStore("disk")
    before = threading.active_count()
    lease = Leases(node="n1", state="s", lease_seconds=0.2).hold(store, NAME)

    wait_for(beats(store, 5), what="five beats")
    lease.require()
    lease.release()

    assert store.read_lease(NAME) is None
    assert threading.active_count() == before


def test_dead_holder_is_taken_over_by_real_time() -> None:
    """Somebody who asks again and again gets the lease by itself."""
    store = MemoryStore("disk")
    dead = orjson.dumps({"node": "n1", "state": "s1", "hold": "h", "fencing": 7, "beat": 3, "lease_seconds": 0.3})
    store.swap_lease(NAME, None, dead)
    second = Leases(node="n2", state="s2", lease_seconds=0.3)
    taken: list[Lease] = []

    def try_it() -> bool:
        try:
            taken.append(second.hold(store, NAME))
        except LeaseTaken:
            return False
        return True

    assert not try_it()
    wait_for(try_it, what="the takeover")

    assert taken[0].fencing == 8
    taken[0].release()


def beats(store: MemoryStore, count: int) -> Callable[[], bool]:
    """Whether the record was changed so often."""

    def enough() -> bool:
        record = store.read_lease(NAME)
        return record is not None and int(orjson.loads(record)["beat"]) >= count

    return enough
