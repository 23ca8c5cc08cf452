"""What every store promises of the lease records of its sets, held against each of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from handlers.contract import BackupId, PlanName
from worker.stores.local import LocalStore
from worker.stores.memory import MemoryStore
from worker.stores.protocol import SetName, Store


def local(folder: Path) -> Store:
    """A store in a directory."""
    folder.joinpath("store").mkdir()
    return LocalStore("nas", folder / "store")


def memory(_: Path) -> Store:
    """A store in memory."""
    return MemoryStore("nas")


STORES: dict[str, Callable[[Path], Store]] = {"local": local, "memory": memory}
NAME = SetName(plan=PlanName("photos"), backup_id=BackupId("first"))
OTHER = SetName(plan=PlanName("music"), backup_id=BackupId("first"))


@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each store in turn, empty."""
    return STORES[request.param](tmp_path)


def commit(store: Store, name: SetName = NAME) -> None:
    """Make a set of this name exist."""
    store.draft(name).commit({}, b"{}")


def test_nobody_has_a_lease_at_first(store: Store) -> None:
    """Not even of a set that exists."""
    commit(store, OTHER)

    assert store.read_lease(NAME) is None
    assert store.read_lease(OTHER) is None


def test_record_comes_back_as_it_was_put(store: Store) -> None:
    """Byte by byte."""
    assert store.swap_lease(NAME, None, b"\x00 mine \xff\n")

    assert store.read_lease(NAME) == b"\x00 mine \xff\n"


@pytest.mark.parametrize("new", [b"a much longer record", b"x"], ids=["longer", "shorter"])
def test_record_is_replaced_where_it_is_the_old_one(store: Store, new: bytes) -> None:
    """Whole: nothing of the old one is left."""
    store.swap_lease(NAME, None, b"old one")

    assert store.swap_lease(NAME, b"old one", new)

    assert store.read_lease(NAME) == new


@pytest.mark.parametrize("old", [None, b"anoth", b"another on", b"other"])
def test_record_stays_where_it_is_not_the_old_one(store: Store, old: bytes | None) -> None:
    """Whoever was too slow changes nothing, and hears so."""
    store.swap_lease(NAME, None, b"another")

    assert not store.swap_lease(NAME, old, b"mine")
    assert not store.swap_lease(NAME, old, None)

    assert store.read_lease(NAME) == b"another"


def test_record_that_is_gone_is_not_replaced(store: Store) -> None:
    """A holder that was taken over hears so, even when the other one has let go again."""
    store.swap_lease(NAME, None, b"mine")
    store.swap_lease(NAME, b"mine", None)

    assert not store.swap_lease(NAME, b"mine", b"mine, later")

    assert store.read_lease(NAME) is None


def test_removed_record_leaves_room_for_the_next(store: Store) -> None:
    """Of whoever asks first."""
    store.swap_lease(NAME, None, b"first")
    assert store.swap_lease(NAME, b"first", None)

    assert store.read_lease(NAME) is None
    assert store.swap_lease(NAME, None, b"second")


def test_leases_of_two_sets_have_nothing_to_do_with_each_other(store: Store) -> None:
    """Even of one backup id in two plans."""
    store.swap_lease(NAME, None, b"photos")
    store.swap_lease(OTHER, None, b"music")

    store.swap_lease(NAME, b"photos", None)

    assert store.read_lease(OTHER) == b"music"


def test_one_of_many_takes_a_free_lease(store: Store) -> None:
    """However close together they ask."""
    won = race(16, lambda number: store.swap_lease(NAME, None, b"%d" % number))

    assert store.read_lease(NAME) == b"%d" % won


def test_one_of_many_takes_over_a_dead_lease(store: Store) -> None:
    """However close together they see that it is dead."""
    store.swap_lease(NAME, None, b"dead")

    won = race(16, lambda number: store.swap_lease(NAME, b"dead", b"%d" % number))

    assert store.read_lease(NAME) == b"%d" % won


def test_no_change_is_lost_between_many_writers(store: Store) -> None:
    """A counter that eight threads raise a hundred times is at eight hundred."""
    store.swap_lease(NAME, None, b"0")

    def raise_it() -> None:
        done = 0
        while done < 100:
            seen = store.read_lease(NAME)
            assert seen is not None
            done += store.swap_lease(NAME, seen, b"%d" % (int(seen) + 1))

    threads = [threading.Thread(target=raise_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert store.read_lease(NAME) == b"800"


def test_lease_is_no_set(store: Store) -> None:
    """It is listed nowhere, and is in the way of no commit."""
    store.swap_lease(NAME, None, b"mine")

    assert not store.exists(NAME)
    assert list(store.names()) == []
    commit(store)
    assert store.exists(NAME)


def test_sweep_removes_the_leases_of_committed_sets(store: Store) -> None:
    """Their holders died between the commit and the release."""
    store.swap_lease(NAME, None, b"mine")
    commit(store)

    assert store.sweep() == 1

    assert store.read_lease(NAME) is None


def test_sweep_leaves_other_leases_alone(store: Store) -> None:
    """Nobody can tell by one look whether their holders live."""
    store.swap_lease(NAME, None, b"mine")

    assert store.sweep() == 0

    assert store.read_lease(NAME) == b"mine"


@pytest.mark.parametrize("record", [b"", b"x" * 5000], ids=["empty", "large"])
def test_records_are_small_and_not_empty(store: Store, record: bytes) -> None:
    """An empty one could not be told from none."""
    with pytest.raises(ValueError, match="lease record"):
        store.swap_lease(NAME, None, record)


@pytest.mark.parametrize("backup_id", ["", "..", "a/b", ".hidden"])
def test_harmful_names_are_refused(store: Store, backup_id: str) -> None:
    """Nothing is read or written outside the place for leases."""
    name = SetName(plan=PlanName("photos"), backup_id=BackupId(backup_id))

    with pytest.raises(ValueError, match="not a name"):
        store.swap_lease(name, None, b"mine")
    with pytest.raises(ValueError, match="not a name"):
        store.read_lease(name)


def race(count: int, attempt: Callable[[int], bool]) -> int:
    """The number of the only one that succeeded."""
    start = threading.Barrier(count)
    won: list[int] = []

    def run(number: int) -> None:
        start.wait()
        if attempt(number):
            won.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (only,) = won
    return only
