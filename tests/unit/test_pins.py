"""A pinned set stays: what pins say, who may have which name, and how `keep` meets an expiry."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from config.retention import Retention
from handlers.contract import BackupId, PlanName
from handlers.errors import Cancelled, HoldfastError, IntegrityError
from tests.workshop.histories import made
from tests.workshop.logs import heard_names
from worker import expiry
from worker.catalog import Catalog, SetNotFound
from worker.levels import ChainBroken
from worker.manifest import MANIFEST, Manifest
from worker.pins import (
    EXPIRING,
    PINS,
    DamagedPin,
    Kept,
    Pin,
    PinMissing,
    PinName,
    PinTaken,
    SetIsExpiring,
    all_pins,
    keep,
    pinned,
    pins_of,
    places,
    release,
)
from worker.stores.local import LocalStore
from worker.stores.memory import MemoryStore
from worker.stores.protocol import SetName, Store, StoreUnavailable

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
WEB = PlanName("web")
CHAIN = (made("s1", 0), made("s2", 1, "s1"), made("s3", 2, "s2"))
BRIEF = timedelta(seconds=0.2)


def name_of(backup_id: str) -> SetName:
    """A set of the plan."""
    return SetName(plan=WEB, backup_id=BackupId(backup_id))


def filled(store: Store, *manifests: Manifest) -> Store:
    """The store with these sets."""
    for manifest in manifests or CHAIN:
        store.draft(name_of(manifest.backup_id)).commit({}, manifest.encode())
    return store


def kept(
    store: Store,
    backup_id: str,
    name: str,
    *,
    by: str = "ann@here",
    reason: str = "a test",
    patience: timedelta = BRIEF,
) -> Kept:
    """What `keep` says."""
    catalog = Catalog({store.name: store})
    stored = catalog.read(store, name_of(backup_id))
    return keep(catalog, stored, name, by=by, now=NOW, reason=reason, checkpoint=lambda: None, patience=patience)


@contextmanager
def expiring(store: Store, backup_id: str) -> Iterator[None]:
    """While an expiry says that it takes the set."""
    store.put_note(WEB, EXPIRING, backup_id, b"me", replace=False)
    try:
        yield
    finally:
        store.drop_note(WEB, EXPIRING, backup_id)


def test_pin_says_who_keeps_what_since_when_and_why() -> None:
    """And tells what the set builds on, which stays with it."""
    store = filled(MemoryStore("nas"))

    told = kept(store, "s2", "before-upgrade")

    pin = Pin(plan=WEB, name="before-upgrade", backup_id=BackupId("s2"), kept=NOW, by="ann@here", reason="a test")
    assert (told.pin, told.already) == (pin, False)
    assert [link.backup_id for link in told.chain] == ["s1", "s2"]
    assert list(pins_of(store, WEB)) == [pin]


def test_set_may_be_kept_under_several_names() -> None:
    """Each is released on its own."""
    store = filled(MemoryStore("nas"))
    for name, backup_id in [("b", "s2"), ("a", "s2"), ("c", "s1")]:
        kept(store, backup_id, name)

    assert dict(pinned(store, WEB)) == {"s2": ["a", "b"], "s1": ["c"]}

    release(store, WEB, "a")
    release(store, WEB, "a")
    assert dict(pinned(store, WEB)) == {"s2": ["b"], "s1": ["c"]}


def test_same_name_for_the_same_set_again_changes_nothing() -> None:
    """The first one's word stands."""
    store = filled(MemoryStore("nas"))
    first = kept(store, "s2", "good", by="ann@here")

    again = kept(store, "s2", "good", by="bob@there")

    assert again.already
    assert (again.pin, list(pins_of(store, WEB))) == (first.pin, [first.pin])


def test_name_that_keeps_another_set_is_taken() -> None:
    """The conflict names that set; nothing is changed."""
    store = filled(MemoryStore("nas"))
    first = kept(store, "s2", "good")

    with pytest.raises(PinTaken, match=r"keeps set s2\nhint: .*holdfast release web/good") as refusal:
        kept(store, "s3", "good")

    assert refusal.value.exit_code == 5
    assert list(pins_of(store, WEB)) == [first.pin]


def test_name_that_keeps_what_is_gone_is_taken_and_says_so() -> None:
    """Somebody removed the set by hand; the name is to be released first."""
    store = filled(MemoryStore("nas"))
    kept(store, "s3", "good")
    store.expire(name_of("s3"))

    with pytest.raises(PinTaken, match="keeps set s3, which is gone"):
        kept(store, "s2", "good")


@pytest.mark.parametrize("name", ["", ".", "a/b", "../x", "-x", "x.", "with blank", "x" * 64, "umläut", "a\n"])
def test_harmful_names_are_refused(name: str) -> None:
    """As those of plans and stores are."""
    with pytest.raises(PinName) as refusal:
        kept(filled(MemoryStore("nas")), "s1", name)

    assert refusal.value.exit_code == 2


def test_long_reason_is_refused() -> None:
    """A pin is a small record."""
    store = filled(MemoryStore("nas"))

    with pytest.raises(PinName, match="1001 characters"):
        kept(store, "s1", "good", reason="ä" * 1001)
    kept(store, "s1", "good", reason="ä" * 1000)


def test_set_that_cannot_be_restored_is_not_kept() -> None:
    """What it builds on is missing: the pin would promise what nobody can hold."""
    store = filled(MemoryStore("nas"), CHAIN[0], CHAIN[2])

    with pytest.raises(ChainBroken):
        kept(store, "s3", "good")

    assert list(all_pins(store)) == []


@pytest.mark.parametrize(
    "content",
    [b"\0", b"{", b"[]", b'{"backup_id": "s1"}', b'{"backup_id": "", "kept": "2026-11-21T12:00:00Z", "by": "x"}'],
)
def test_damaged_pin_may_keep_any_set(content: bytes) -> None:
    """So nobody is told what is pinned, but which pin it is; it can be released."""
    store = filled(MemoryStore("nas"))
    good = kept(store, "s1", "good").pin
    store.put_note(WEB, PINS, "bad", content, replace=False)

    with pytest.raises(IntegrityError, match=r"pin bad of plan web in store nas is damaged.*\nhint: .*release web/bad"):
        pinned(store, WEB)

    found = list(all_pins(store))
    assert good in found
    assert [pin.name for pin in found if isinstance(pin, DamagedPin)] == ["bad"]
    with pytest.raises(IntegrityError, match="pin bad"):
        kept(store, "s1", "bad")
    release(store, WEB, "bad")
    assert dict(pinned(store, WEB)) == {"s1": ["good"]}


def test_what_a_later_version_adds_to_a_pin_does_no_harm() -> None:
    """Fields that nobody knows here are passed over."""
    store = filled(MemoryStore("nas"))
    content = b'{"backup_id":"s1","kept":"2026-11-21T12:00:00Z","by":"ann@here","until":"2027"}'
    store.put_note(WEB, PINS, "good", content, replace=False)

    assert dict(pinned(store, WEB)) == {"s1": ["good"]}


def test_pins_are_found_by_name_in_all_plans_and_stores() -> None:
    """Or in one plan alone."""
    stores = [filled(MemoryStore("nas")), filled(MemoryStore("usb"))]
    for store in stores:
        kept(store, "s1", "good")
    stores[0].put_note(PlanName("web.prod"), PINS, "good", b"damaged", replace=False)
    stores[0].put_note(PlanName("web.prod"), PINS, "other", b"damaged", replace=False)

    everywhere = [(store.name, plan) for store, plan in places(stores, "good")]
    of_one = [(store.name, plan) for store, plan in places(stores, "good", WEB)]

    assert everywhere == [("nas", "web"), ("usb", "web"), ("nas", "web.prod")]
    assert of_one == [("nas", "web"), ("usb", "web")]
    for name, plan in [("none", None), ("other", WEB), ("good", PlanName("../web"))]:
        with pytest.raises(PinMissing):
            places(stores, name, plan)


def test_store_that_is_away_may_have_the_pin(tmp_path: Path) -> None:
    """Unless it was found elsewhere, which is said with a warning."""
    away = LocalStore("usb", tmp_path / "away")
    here = filled(MemoryStore("nas"))

    with pytest.raises(StoreUnavailable):
        places([away, here], "good")

    kept(here, "s1", "good")
    with heard_names() as heard:
        assert [store.name for store, _ in places([away, here], "good")] == ["nas"]
    assert heard == ["store_passed_over"]


@pytest.mark.parametrize("leaving", ["s1", "s2"])
def test_set_that_stays_on_its_way_out_is_not_kept(leaving: str) -> None:
    """Nor one that builds on it: nobody can tell what an expiry that was killed would do. There is no new pin."""
    store = filled(MemoryStore("nas"))

    with (
        expiring(store, leaving),
        pytest.raises(SetIsExpiring, match=f"web/{leaving}.*\nhint: .*expire web") as refusal,
    ):
        kept(store, "s2", "good")

    assert refusal.value.exit_code == 7
    assert dict(pinned(store, WEB)) == {}


def test_pin_that_was_there_stays_when_it_cannot_be_confirmed() -> None:
    """What was promised before is not taken back."""
    store = filled(MemoryStore("nas"))
    kept(store, "s2", "good")

    with expiring(store, "s2"), pytest.raises(SetIsExpiring):
        kept(store, "s2", "good")

    assert dict(pinned(store, WEB)) == {"s2": ["good"]}


def test_expiry_of_what_the_set_does_not_need_is_no_hindrance() -> None:
    """A level above it may go."""
    store = filled(MemoryStore("nas"))

    with expiring(store, "s3"):
        kept(store, "s2", "good")

    assert dict(pinned(store, WEB)) == {"s2": ["good"]}


def test_keep_waits_for_an_expiry_that_lets_the_set_be() -> None:
    """It saw the pin in time."""
    store = filled(MemoryStore("nas"))
    store.put_note(WEB, EXPIRING, "s2", b"me", replace=False)

    def let_be() -> None:
        while not store.notes(WEB, PINS):
            pass
        store.drop_note(WEB, EXPIRING, "s2")

    expirer = threading.Thread(target=let_be, daemon=True)
    expirer.start()
    told = kept(store, "s2", "good", patience=timedelta(seconds=30))
    expirer.join()

    assert not told.already
    assert dict(pinned(store, WEB)) == {"s2": ["good"]}


@pytest.mark.parametrize("gone", ["s1", "s2"])
def test_set_that_goes_in_this_moment_is_named(gone: str) -> None:
    """Also one that the set builds on; there is no pin then."""
    store = filled(MemoryStore("nas"))
    store.put_note(WEB, EXPIRING, "s2", b"me", replace=False)

    def take_away() -> None:
        while not store.notes(WEB, PINS):
            pass
        store.expire(name_of(gone))
        store.drop_note(WEB, EXPIRING, "s2")

    expirer = threading.Thread(target=take_away, daemon=True)
    expirer.start()
    with pytest.raises(SetNotFound, match=f"set web/{gone} was expired") as refusal:
        kept(store, "s2", "good", patience=timedelta(seconds=30))
    expirer.join()

    assert refusal.value.exit_code == 2
    assert dict(pinned(store, WEB)) == {}


def test_stopped_keep_leaves_no_pin() -> None:
    """Ctrl-C while it waits."""
    store = filled(MemoryStore("nas"))
    catalog = Catalog({"nas": store})

    def stop() -> None:
        raise Cancelled("somebody asked to stop")

    with expiring(store, "s2"), pytest.raises(Cancelled):
        keep(catalog, catalog.read(store, name_of("s2")), "good", by="ann@here", now=NOW, checkpoint=stop)

    assert dict(pinned(store, WEB)) == {}


def test_store_that_fails_half_way_has_no_pin_of_somebody_who_heard_of_an_error() -> None:
    """The pin was made although the store could not tell."""

    class Shaky(MemoryStore):
        def put_note(self, plan: PlanName, kind: str, name: str, content: bytes, *, replace: bool) -> bool:
            super().put_note(plan, kind, name, content, replace=replace)
            raise StoreUnavailable("store nas: the disk reports errors")

    store = filled(Shaky("nas"))

    with pytest.raises(StoreUnavailable):
        kept(store, "s2", "good")

    assert dict(pinned(store, WEB)) == {}


@pytest.mark.parametrize("seed", range(6))
def test_what_was_kept_is_there_whoever_expires_at_once(tmp_path: Path, seed: int) -> None:
    """Either `keep` holds the whole chain, or it says that a set is gone and there is no pin: whoever was first."""
    store = filled(LocalStore("nas", tmp_path), *CHAIN, made("s4", 0))
    catalog = Catalog({"nas": store})
    start = threading.Barrier(3)
    told: list[Kept | HoldfastError] = []

    def keeper() -> None:
        start.wait()
        threading.Event().wait(Random(seed).random() * 0.03)
        try:
            told.append(kept(store, "s2", "good", patience=timedelta(seconds=30)))
        except HoldfastError as error:
            told.append(error)

    def expirer() -> None:
        start.wait()
        expiry.expire(
            catalog, store, WEB, Retention(latest=1), now=NOW, zone=UTC, checkpoint=lambda: None, dead_after=BRIEF * 100
        )

    threads = [threading.Thread(target=work) for work in (keeper, expirer)]
    for thread in threads:
        thread.start()
    start.wait()
    for thread in threads:
        thread.join()

    left = {str(name.backup_id) for name in store.names(WEB)}
    (word,) = told
    if isinstance(word, Kept):
        assert {"s1", "s2", "s4"} <= left
        assert dict(pinned(store, WEB)) == {"s2": ["good"]}
    else:
        assert isinstance(word, HoldfastError)
        assert "s2" not in left
        assert dict(pinned(store, WEB)) == {}
    assert dict(store.notes(WEB, EXPIRING)) == {}
    assert all(store.read(name, MANIFEST) for name in store.names(WEB))
