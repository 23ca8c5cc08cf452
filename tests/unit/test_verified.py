"""What is remembered of verifications."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from handlers.contract import BackupId, PlanName
from tests.workshop.logs import heard_names
from worker.stores.memory import MemoryStore
from worker.stores.protocol import SetName
from worker.verified import (
    DAMAGED,
    VERIFIED,
    Depth,
    Verification,
    damaged,
    forget_verified,
    note_damaged,
    note_verified,
    verifications,
    verified,
)

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
WEB = PlanName("web")
FIRST, SECOND = (SetName(plan=WEB, backup_id=BackupId(name)) for name in ("s1", "s2"))


@pytest.fixture
def store() -> MemoryStore:
    """A store in which the first set was verified."""
    store = MemoryStore("nas")
    note_verified(store, FIRST, "checksums", NOW)
    return store


def test_last_verification_counts(store: MemoryStore) -> None:
    """With its depth, whichever that was; of each set on its own."""
    later = NOW + timedelta(days=1)
    note_verified(store, FIRST, "deep", later)
    note_verified(store, SECOND, "deep", NOW.astimezone(timezone(timedelta(hours=2))))

    assert dict(verifications(store, WEB)) == {
        "s1": Verification(depth="deep", at=later),
        "s2": Verification(depth="deep", at=NOW),
    }
    assert dict(verified(store, WEB)) == {"s1": later, "s2": NOW}


def test_what_was_not_verified_is_not_noted(store: MemoryStore) -> None:
    """A plan may ask for no verification."""
    note_verified(store, SECOND, "none", NOW)

    assert verified(store, WEB).keys() == {"s1"}


def test_verification_that_proved_wrong_is_forgotten(store: MemoryStore) -> None:
    """So is what was never noted."""
    forget_verified(store, FIRST)
    forget_verified(store, SECOND)

    assert dict(verified(store, WEB)) == {}


@pytest.mark.parametrize(
    "content",
    [
        b"\0",
        b"{}",
        b'{"depth":"none","at":"2026-11-21T12:00:00Z"}',
        b'{"depth":"deep"}',
        b'{"depth":"deep","at":"0001-01-01T00:00:00Z"}',
    ],
)
def test_damaged_note_counts_as_none(store: MemoryStore, content: bytes) -> None:
    """Which is said once, however many there are; the next verification mends it."""
    for name in ["s2", "s3"]:
        store.put_note(WEB, VERIFIED, name, content, replace=False)

    with heard_names() as heard:
        found = verified(store, WEB)

    assert found.keys() == {"s1"}
    assert heard == ["verified_notes_damaged"]
    note_verified(store, SECOND, "deep", NOW)
    assert verified(store, WEB).keys() == {"s1", "s2"}


def test_damage_takes_the_place_of_a_verification(store: MemoryStore) -> None:
    """When it was found, and what is wrong; also where the system's words are no UTF-8."""
    note_damaged(store, FIRST, "checksums", NOW, "part data.tar.zst: bad \udcff byte")

    found = damaged(store, WEB)

    assert list(found) == [FIRST.backup_id]
    assert "bad \\udcff byte" in found[FIRST.backup_id]
    assert verified(store, WEB) == {}


@pytest.mark.parametrize(
    ("found", "looked", "gone"),
    [
        ("checksums", "checksums", True),
        ("checksums", "deep", True),
        ("deep", "deep", True),
        ("deep", "checksums", False),
        ("checksums", "none", False),
    ],
)
def test_damage_is_over_when_somebody_looked_as_deep(
    store: MemoryStore, found: Depth, looked: Depth, gone: bool
) -> None:
    """Parts that are intact say nothing of a restore that differed."""
    note_damaged(store, SECOND, found, NOW, "it is")

    note_verified(store, SECOND, looked, NOW)

    assert (damaged(store, WEB) == {}) == gone


def test_damaged_note_of_a_damage_counts_until_a_deep_look(store: MemoryStore) -> None:
    """In doubt nothing is built upon it."""
    store.put_note(WEB, DAMAGED, SECOND.backup_id, b"{", replace=False)

    note_verified(store, SECOND, "checksums", NOW)
    assert list(damaged(store, WEB)) == [SECOND.backup_id]

    note_verified(store, SECOND, "deep", NOW)
    assert damaged(store, WEB) == {}


def test_nothing_is_remembered_of_a_set_that_is_gone(store: MemoryStore) -> None:
    """Neither good nor bad."""
    note_damaged(store, SECOND, "deep", NOW, "it is")

    forget_verified(store, FIRST)
    forget_verified(store, SECOND)

    assert (verified(store, WEB), damaged(store, WEB)) == ({}, {})
