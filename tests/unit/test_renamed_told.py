"""A file that is gone and one that is new are told as one that was renamed, where that is sure enough."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from handlers.contents import Entry, EntryType
from worker import browse
from worker.browse import Change, ChangeKind, with_renames


def file(path: bytes, size: int = 5, mtime_ns: int = 7, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(path, EntryType.FILE, size, mode, 0, 0, mtime_ns, place=(0, 0, path))


def gone(entry: Entry) -> Change:
    """Only the older set has it."""
    return Change(ChangeKind.REMOVED, entry, None)


def new(entry: Entry) -> Change:
    """Only the newer set has it."""
    return Change(ChangeKind.ADDED, None, entry)


def kinds(changes: Sequence[Change], *, same: bool = True) -> list[str]:
    """What is told, in order."""
    return [f"{change.kind} {change.path.decode()}" for change in with_renames(changes, same=lambda ours, theirs: same)]


def test_a_file_with_the_same_size_and_time_was_renamed() -> None:
    """With what else changed; the order of the rest stays."""
    changes = [gone(file(b"a")), new(file(b"b", mode=0o600)), new(file(b"c", size=6))]

    told = list(with_renames(changes, same=lambda ours, theirs: True))

    assert told == [Change(ChangeKind.RENAMED, file(b"a"), file(b"b", mode=0o600), ("mode",)), changes[2]]


@pytest.mark.parametrize(
    "changes",
    [
        [gone(file(b"a")), new(file(b"b")), new(file(b"c"))],
        [gone(file(b"a")), gone(file(b"b")), new(file(b"c"))],
        [gone(file(b"a", size=0)), new(file(b"b", size=0))],
        [gone(file(b"a", mtime_ns=1)), new(file(b"b", mtime_ns=2))],
        [gone(Entry(b"a", EntryType.DIRECTORY)), new(Entry(b"b", EntryType.DIRECTORY))],
    ],
    ids=["two new", "two gone", "empty", "another time", "directories"],
)
def test_what_is_not_sure_is_left_as_it_is(changes: list[Change]) -> None:
    """Rather one removed and one added."""
    assert list(with_renames(changes, same=lambda ours, theirs: True)) == changes


def test_other_bytes_are_another_file() -> None:
    """Where the content is compared."""
    assert kinds([gone(file(b"a")), new(file(b"b"))], same=False) == ["removed a", "added b"]


def test_too_many_changes_are_told_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded."""
    monkeypatch.setattr(browse, "MAX_HELD", 2)

    assert kinds([gone(file(b"a")), new(file(b"b")), gone(file(b"c"))]) == ["removed a", "added b", "removed c"]
