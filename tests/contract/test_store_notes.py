"""What every store promises of the notes about a plan's sets, held against each of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from handlers.contract import BackupId, PlanName
from worker.stores.local import LocalStore
from worker.stores.memory import MemoryStore
from worker.stores.protocol import SetName, Store

WEB = PlanName("web")
NEIGHBOURS = [PlanName("web.prod"), PlanName("web-1"), PlanName("we"), PlanName("WEB"), PlanName("web_")]


def local(folder: Path) -> Store:
    """A store in a directory."""
    folder.joinpath("store").mkdir()
    return LocalStore("nas", folder / "store")


def memory(_: Path) -> Store:
    """A store in memory."""
    return MemoryStore("nas")


STORES: dict[str, Callable[[Path], Store]] = {"local": local, "memory": memory}


@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each store in turn, empty."""
    return STORES[request.param](tmp_path)


def put(store: Store, name: str, content: bytes = b"said", *, plan: PlanName = WEB, replace: bool = False) -> bool:
    """Make a note of one kind."""
    return store.put_note(plan, "pins", name, content, replace=replace)


def test_there_are_no_notes_at_first(store: Store) -> None:
    """Of no plan and no kind."""
    assert dict(store.notes(WEB, "pins")) == {}
    assert list(store.noted_plans()) == []


def test_notes_come_back_as_they_were_put(store: Store) -> None:
    """All of the kind, byte by byte."""
    assert put(store, "first", b"\x00 one \xff\n")
    assert put(store, "second", b"two")

    assert dict(store.notes(WEB, "pins")) == {"first": b"\x00 one \xff\n", "second": b"two"}


def test_note_that_is_there_stays_unless_it_is_to_be_replaced(store: Store) -> None:
    """Whoever came second hears so."""
    put(store, "first", b"one")

    assert not put(store, "first", b"other")
    assert dict(store.notes(WEB, "pins")) == {"first": b"one"}
    assert put(store, "first", b"another, and longer", replace=True)
    assert put(store, "first", b"x", replace=True)
    assert dict(store.notes(WEB, "pins")) == {"first": b"x"}


def test_note_that_nobody_made_can_be_replaced(store: Store) -> None:
    """It is made then."""
    assert put(store, "first", replace=True)

    assert "first" in store.notes(WEB, "pins")


def test_dropped_note_leaves_room_for_the_next(store: Store) -> None:
    """The others stay."""
    put(store, "first", b"one")
    put(store, "second", b"two")

    store.drop_note(WEB, "pins", "first")

    assert dict(store.notes(WEB, "pins")) == {"second": b"two"}
    assert put(store, "first", b"three")


def test_note_that_is_gone_can_be_dropped(store: Store) -> None:
    """It is fine, also where there never was any."""
    store.drop_note(WEB, "pins", "first")
    put(store, "first")
    store.drop_note(WEB, "pins", "first")
    store.drop_note(WEB, "pins", "first")

    assert dict(store.notes(WEB, "pins")) == {}


def test_kinds_have_nothing_to_do_with_each_other(store: Store) -> None:
    """Notes of one name are several, one of each kind."""
    for kind in ["pins", "pin", "pins.old"]:
        store.put_note(WEB, kind, "first", kind.encode(), replace=False)

    store.drop_note(WEB, "pin", "first")

    assert dict(store.notes(WEB, "pins")) == {"first": b"pins"}
    assert dict(store.notes(WEB, "pin")) == {}
    assert dict(store.notes(WEB, "pins.old")) == {"first": b"pins.old"}


def test_plans_of_similar_names_do_not_touch_each_other(store: Store) -> None:
    """Neither the beginning nor the case of a name makes it another plan's."""
    for plan in [WEB, *NEIGHBOURS]:
        assert put(store, "first", plan.encode(), plan=plan)

    store.drop_note(WEB, "pins", "first")

    assert dict(store.notes(WEB, "pins")) == {}
    assert all(dict(store.notes(plan, "pins")) == {"first": plan.encode()} for plan in NEIGHBOURS)
    assert sorted(store.noted_plans()) == sorted(NEIGHBOURS)


def test_plan_is_named_once_however_many_notes_it_has(store: Store) -> None:
    """Whether it has a set or not; and no more once its last note is gone."""
    for kind in ["pins", "verified"]:
        for name in ["first", "second"]:
            store.put_note(WEB, kind, name, b"said", replace=False)

    assert list(store.noted_plans()) == [WEB]

    for kind in ["pins", "verified"]:
        for name in ["first", "second"]:
            store.drop_note(WEB, kind, name)
    assert list(store.noted_plans()) == []


def test_one_of_many_makes_a_note(store: Store) -> None:
    """However close together they come; it is the note of the one that heard so."""
    start = threading.Barrier(12)
    won: list[int] = []

    def run(number: int) -> None:
        start.wait()
        if put(store, "first", b"%d" % number):
            won.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (only,) = won
    assert dict(store.notes(WEB, "pins")) == {"first": b"%d" % only}


def test_readers_never_miss_or_tear_a_note_that_is_replaced(store: Store) -> None:
    """They see the old one or the new one, whole."""
    contents = [b"a" * 10, b"b" * 5000]
    put(store, "first", contents[0])
    put(store, "second", contents[0])
    done = threading.Event()

    def replace() -> None:
        for number in range(40):
            put(store, "first", contents[number % 2], replace=True)
        done.set()

    writer = threading.Thread(target=replace)
    writer.start()
    seen = [dict(store.notes(WEB, "pins"))]
    while not done.is_set():
        seen.append(dict(store.notes(WEB, "pins")))
    writer.join()

    assert all(notes.keys() == {"first", "second"} and notes["first"] in contents for notes in seen)


def test_notes_outlive_their_set(store: Store) -> None:
    """Whether one may go is for those to decide who know what it says."""
    name = SetName(plan=WEB, backup_id=BackupId("first"))
    store.draft(name).commit({}, b"{}")
    put(store, "first")

    store.expire(name)

    assert store.sweep() == 0
    assert "first" in store.notes(WEB, "pins")


def test_note_is_no_set(store: Store) -> None:
    """It is listed nowhere else, and is in the way of no commit."""
    name = SetName(plan=WEB, backup_id=BackupId("first"))
    put(store, "first")

    assert not store.exists(name)
    assert list(store.names()) == []
    store.draft(name).commit({}, b"{}")
    assert list(store.names()) == [name]


@pytest.mark.parametrize("content", [b"", b"x" * 20_000], ids=["empty", "large"])
def test_notes_are_small_and_not_empty(store: Store, content: bytes) -> None:
    """An empty one could not be told from one that was lost in a power cut."""
    with pytest.raises(ValueError, match="a note has"):
        put(store, "first", content)


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a\nb"])
def test_harmful_names_are_refused(store: Store, name: str) -> None:
    """Wherever they stand: nothing is read, written or removed outside the place for notes."""
    for plan, kind, note in [(name, "pins", "first"), ("web", name, "first"), ("web", "pins", name)]:
        with pytest.raises(ValueError, match="not a name"):
            store.put_note(PlanName(plan), kind, note, b"said", replace=True)
        with pytest.raises(ValueError, match="not a name"):
            store.drop_note(PlanName(plan), kind, note)
    with pytest.raises(ValueError, match="not a name"):
        store.notes(PlanName(name), "pins")
    with pytest.raises(ValueError, match="not a name"):
        store.notes(WEB, name)
