"""Entries come out of the table as they went in."""

from __future__ import annotations

from contextlib import closing

from handlers.contents import Entry, EntryType
from handlers.contract import BackupId, ProblemKind
from worker.entry_table import EntryTable

ODD = bytes(range(1, 47)) + bytes(range(48, 256))
"""Every byte that a name may have."""

ENTRIES = [
    Entry(b"dir", EntryType.DIRECTORY, 0, 0o755, 0, 0, -1_500_000_000, held_by=BackupId("set"), place=(1, 3, b"dir")),
    Entry(b"lost", EntryType.UNKNOWN, missing=ProblemKind.UNREADABLE),
    Entry(b"dir/" + ODD, EntryType.FILE, 1 << 60, 0o4711, 1, 2**32 - 1, 1 << 62, place=(0, 1 << 50, b"old/" + ODD)),
    Entry(b"dir/link", EntryType.SYMLINK, 0, 0o777, 0, 0, 0, target=ODD),
    Entry(b"dir/device", EntryType.BLOCK_DEVICE, device=(8, 1)),
    Entry(b"dir/implied", EntryType.DIRECTORY),
]


def test_entries_are_found_by_their_paths() -> None:
    """Whatever is in their names and fields; what is missing from the set is counted and left out."""
    with closing(EntryTable(iter(ENTRIES))) as table:
        assert [table.entry(entry.path) for entry in ENTRIES if entry.missing is None] == [
            entry for entry in ENTRIES if entry.missing is None
        ]
        assert (table.count, table.missing) == (5, 1)
        assert table.entry(b"lost") is None
        assert table.entry(b"dir/none") is None


def test_a_directory_has_its_entries_in_order() -> None:
    """None for what is no directory, or has nothing in it."""
    with closing(EntryTable(iter(ENTRIES))) as table:
        assert list(table.directory(b".")) == [b"dir"]
        assert list(table.directory(b"dir")) == [ODD, b"link", b"device", b"implied"]
        assert table.directory(b"dir/implied") == {}
