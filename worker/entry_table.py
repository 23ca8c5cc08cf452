"""Keeps all entries of a set in a temporary file, to be found by their paths."""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from itertools import groupby
from types import MappingProxyType
from typing import IO

import orjson

from handlers.contents import Entry, EntryType
from handlers.contract import BackupId
from handlers.tools.process import disk_error

_KEPT_DIRECTORIES = 256
_EMPTY: Mapping[bytes, Entry] = MappingProxyType({})


class EntryTable:
    """What `Contents.walk` gives. In memory are where each directory's entries are, and those of a few directories.

    Entries that are missing from the set are left out. The file has no name: nothing is left of it, however the process
    ends. Raises TemporaryError when the disk with the directory for temporary files (`TMPDIR`) is full.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._places: dict[bytes, tuple[int, int]] = {}
        self._kept: OrderedDict[bytes, Mapping[bytes, Entry]] = OrderedDict()
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="holdfast-")  # noqa: SIM115 - `close` closes it
        self.count = 0
        self.missing = 0
        try:
            at = 0
            for directory, inside in groupby(entries, key=lambda entry: entry.path.rpartition(b"/")[0]):
                self._file.writelines(self._lines(inside))
                end = self._file.tell()
                self._places[directory or b"."] = at, end - at
                at = end
            self._file.flush()
        except OSError as error:
            self._file.close()
            raise disk_error(error, f"cannot write temporary files in {tempfile.gettempdir()}") from error

    def directory(self, path: bytes) -> Mapping[bytes, Entry]:
        """The entries of a directory by name, sorted; nothing where there is none."""
        found = self._kept.get(path)
        if found is not None:
            self._kept.move_to_end(path)
            return found
        at, length = self._places.get(path, (0, 0))
        if not length:
            return _EMPTY
        entries = map(_entry, os.pread(self._file.fileno(), length, at).splitlines())
        found = {entry.path.rpartition(b"/")[2]: entry for entry in entries}
        self._kept[path] = found
        if len(self._kept) > _KEPT_DIRECTORIES:
            self._kept.popitem(last=False)
        return found

    def entry(self, path: bytes) -> Entry | None:
        """What is at this path."""
        directory, _, name = path.rpartition(b"/")
        return self.directory(directory or b".").get(name)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _lines(self, entries: Iterable[Entry]) -> Iterable[bytes]:
        for entry in entries:
            if entry.missing is not None:
                self.missing += 1
            else:
                self.count += 1
                yield _line(entry)


def _line(entry: Entry) -> bytes:
    # JSON knows no bytes; Latin-1 has a character for each.
    target = None if entry.target is None else entry.target.decode("latin-1")
    place = entry.place and (*entry.place[:2], entry.place[2].decode("latin-1"))
    fields = (entry.path.decode("latin-1"), entry.type, *entry[2:7], target, entry.device, entry.held_by, place)
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def _entry(line: bytes) -> Entry:
    path, kind, size, mode, uid, gid, mtime_ns, target, device, held_by, place = orjson.loads(line)
    return Entry(
        path.encode("latin-1"),
        EntryType(kind),
        size,
        mode,
        uid,
        gid,
        mtime_ns,
        None if target is None else target.encode("latin-1"),
        None if device is None else (device[0], device[1]),
        None if held_by is None else BackupId(held_by),
        None if place is None else (place[0], place[1], place[2].encode("latin-1")),
    )
