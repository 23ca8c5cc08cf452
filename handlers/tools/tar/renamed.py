"""Tells which directories were renamed between two levels.

GNU tar itself does not say it any more: they are taken out of the snapshot that it gets, see `tar_in_place`. To the
operator it explains why a level is as large as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from handlers.contract import FileProblem, ProblemKind, printable
from handlers.tools.tar.records import Record

MAX_DISPLACED = 100_000
"""Directories out of place that are remembered; of more than that only some are recognised."""

_NAMES = 32
"""So many of its names stand for what is in a directory."""


class _Directory(NamedTuple):
    name: bytes
    mtime: tuple[bytes, bytes]
    names: frozenset[bytes]


class Displaced:
    """Directories that are not where the parent's snapshot has them, and where the new snapshot has them.

    One counts as the same if its inode is, and its time of change, or half of what the smaller has in it: an inode
    alone may have been used again, and GNU tar does not note later times of a directory that it knows.
    """

    def __init__(self) -> None:
        self._old: dict[bytes, _Directory] = {}
        self._renamed: dict[bytes, bytes] = {}

    def __bool__(self) -> bool:
        return bool(self._old)

    def add(self, record: Record) -> None:
        """One that is not where it was."""
        if len(self._old) < MAX_DISPLACED:
            self._old[record.inode] = _Directory(record.name, record.mtime, _some_names(record))

    def find(self, record: Record) -> None:
        """A directory of the new snapshot."""
        old = self._old.get(record.inode)
        if old is None or old.name == record.name:
            return
        names = _some_names(record)
        if old.mtime == record.mtime or 2 * len(old.names & names) > min(len(old.names), len(names)):
            self._renamed[record.name] = old.name

    def problems(self) -> Iterator[FileProblem]:
        """The renamed directories, without those that only moved along with the one they are in."""
        for new, old in sorted(self._renamed.items()):
            above, _, name = new.rpartition(b"/")
            above_old, _, name_old = old.rpartition(b"/")
            if name != name_old or self._renamed.get(above) != above_old:
                yield FileProblem(
                    kind=ProblemKind.RENAMED,
                    path=printable(new.removeprefix(b"./")),
                    detail=f"Directory was {printable(old.removeprefix(b'./'))} before; it is archived whole",
                )


def _some_names(record: Record) -> frozenset[bytes]:
    """The first ones: tar sorts them."""
    return frozenset(name[1:] for name in record.names.split(b"\0", _NAMES)[:_NAMES] if name)
