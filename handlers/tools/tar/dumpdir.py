"""Reads what GNU tar notes with each directory of an incremental archive: the names in it at the time.

Source: GNU tar manual, "Dumpdir". `Y` a name that is in this archive, `N` one that is not (unchanged since the last
level, or excluded), `D` a directory. `R` with `T` tells of a renamed directory, `X` of a place for a temporary one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from handlers.tools.tar.archive_format import Malformed

IN_ARCHIVE = "Y"
UNCHANGED = "N"
DIRECTORY = "D"

_ENTRIES = re.compile(rb"(?:[YND](?!\.{1,2}\0)[^/\0]++\0)*+")


class Dumpdir(NamedTuple):
    """One directory's list, not taken apart yet."""

    entries: bytes
    renames: bytes
    """The records that follow the names, empty in most archives."""

    def names(self) -> dict[bytes, str]:
        """What became of each name: IN_ARCHIVE, UNCHANGED or DIRECTORY."""
        return {entry[1:]: chr(entry[0]) for entry in self.entries.split(b"\0")[:-1]}

    def state(self, name: bytes) -> str | None:
        """What became of one name; None where the directory does not have it."""
        for state in (IN_ARCHIVE, UNCHANGED, DIRECTORY):
            entry = state.encode() + name + b"\0"
            if self.entries.startswith(entry) or b"\0" + entry in self.entries:
                return state
        return None

    def in_order(self) -> Iterator[tuple[bytes, str]]:
        """Each name with what became of it, sorted by name. A directory may have millions: nothing is copied."""
        last = b""
        for name, _ in self._each():
            if name < last:  # not by GNU tar, which sorts
                return iter(sorted(self._each()))
            last = name
        return self._each()

    def _each(self) -> Iterator[tuple[bytes, str]]:
        entries, at = self.entries, 0
        while at < len(entries):
            end = entries.index(b"\0", at)
            yield entries[at + 1 : end], chr(entries[at])
            at = end + 1


def parse(value: bytes) -> Dumpdir:
    """The list as it stands in an archive. Raises Malformed for what GNU tar does not write."""
    if value == b"\0\0":
        value = b"\0"
    if value[-1:] != b"\0":
        raise Malformed("a list of names without end")
    found = _ENTRIES.match(value)
    assert found is not None
    renames = value[found.end() : -1]
    if renames and (renames[:1] not in b"RX" or renames[-1:] != b"\0" or b"\0\0" in renames):
        raise Malformed(f"a list of names with {renames[:60]!r}")
    return Dumpdir(found[0], renames)
