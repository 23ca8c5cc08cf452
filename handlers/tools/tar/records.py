"""Takes GNU tar's snapshot file apart: a head with the time of the backup, and a record of each directory.

Source: GNU tar manual, "Snapshot Files", format 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from handlers.errors import IntegrityError

END = b"\0\0\0"
"""After each record: the end of the last name or field, an empty name, an empty record. No field is empty."""

DIRECTORY = b"D"
"""What the name of a directory in a record begins with; those have records of their own."""

_HEAD = re.compile(rb"(GNU tar-[^\n\0]{1,40}-2\n)(-?[0-9]+)\0([0-9]+)\0")
_LONGEST_HEAD = 200
_FIELDS = 6


class Record(NamedTuple):
    """One directory as it was when the snapshot was made."""

    raw: bytes
    """All of it but END."""
    mtime: tuple[bytes, bytes]
    device: bytes
    inode: bytes
    name: bytes
    """For instance `./dir`, `.` for the top directory."""
    names: bytes
    """What was in it: each a letter and a name, with zero bytes between them."""


class Records:
    """A snapshot file; read once, in order, with bounded memory."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        """Reads the head. Raises IntegrityError for a snapshot of another format than 2."""
        self._chunks = iter(chunks)
        start = b""
        while len(start) < _LONGEST_HEAD and not _HEAD.match(start):
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            start += chunk
        found = _HEAD.match(start)
        if found is None:
            raise IntegrityError(f"snapshot is of an unknown format: {start[:40]!r}")
        self._rest = start[found.end() :]
        self._version = found[1]
        self.time_ns = int(found[2]) * 1_000_000_000 + int(found[3])
        """When the backup began. What was changed since is new to the next level."""

    def head(self, time_ns: int | None = None) -> bytes:
        """The head's bytes, with this time instead of its own where one is given."""
        seconds, nanoseconds = divmod(self.time_ns if time_ns is None else time_ns, 1_000_000_000)
        return b"%s%d\0%d\0" % (self._version, seconds, nanoseconds)

    def __iter__(self) -> Iterator[Record]:
        """Each record. Raises IntegrityError where the snapshot is torn."""
        rest = self._rest
        *whole, rest = rest.split(END)
        yield from map(_record, whole)
        for chunk in self._chunks:
            *whole, rest = (rest + chunk).split(END)
            yield from map(_record, whole)
        if rest:
            raise IntegrityError("snapshot is cut short")


def _record(raw: bytes) -> Record:
    fields = raw.split(b"\0", _FIELDS)
    if len(fields) < _FIELDS:
        raise IntegrityError("snapshot is cut short")
    _nfs, seconds, nanoseconds, device, inode, name, *names = fields
    return Record(raw, (seconds, nanoseconds), device, inode, name, names[0] if names else b"")
