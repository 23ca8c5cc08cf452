"""Looks into stored sets without restoring them."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, islice
from typing import NamedTuple

from handlers import registry
from handlers.contents import Contents, Entry, EntryType
from handlers.contract import printable
from handlers.errors import PermanentError
from worker.catalog import Catalog, StoredSet

TOP = b"."

MAX_HELD = 50_000
"""Changes among which renamed files are looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A set whose contents can be looked into."""

    stored: StoredSet
    contents: Contents

    def look(self, path: bytes) -> tuple[Entry, Iterator[Entry]]:
        """What is at this path, with what is in it. Raises PermanentError where there is nothing."""
        found = self.contents.look(path)
        if found is None:
            raise PermanentError(
                f"{printable(path)!r} is not in set {self.stored.name}",
                hint=f"`holdfast ls {self.stored.backup_id}` shows what is; paths are relative to "
                f"{self.stored.manifest.subject}",
            )
        entry, inside = found
        if entry.missing is not None:
            raise PermanentError(
                f"{printable(path)!r} was there when set {self.stored.name} was made, "
                f"but is not in it: {entry.missing}",
                hint="an older set may have it; `holdfast show --problems` tells more",
            )
        return entry, inside

    def file(self, path: bytes) -> Entry:
        """The regular file at this path. Raises PermanentError where there is none, or something else."""
        entry, _ = self.look(path)
        match entry.type:
            case EntryType.FILE:
                return entry
            case EntryType.SYMLINK:
                hint = f"it points to {printable(entry.target or b'')!r}{self._aim(entry)}"
            case EntryType.DIRECTORY:
                hint = f"`holdfast ls {self.stored.backup_id} {printable(path)}` shows what is in it"
            case _:
                hint = "only regular files have content"
        raise PermanentError(f"{printable(path)!r} is a {entry.type.replace('_', ' ')}, no regular file", hint=hint)

    def _aim(self, link: Entry) -> str:
        """Where a link leads within the subject, in words; what is there is not looked up."""
        target = link.target or b""
        aim = posixpath.normpath(posixpath.join(posixpath.dirname(link.path), target))
        if target.startswith(b"/"):
            return ""
        if aim == b".." or aim.startswith(b"../"):
            return ", outside the subject"
        return f": `holdfast cat {self.stored.backup_id} {printable(aim)}`"


def open_set(catalog: Catalog, stored: StoredSet) -> Opened:
    """The contents of a set. Raises ChainBroken where a set it builds on is missing."""
    contents = registry.load(stored.manifest.handler).contents(catalog.chain(stored), _go_on)
    return Opened(stored=stored, contents=contents)


def path_of(typed: bytes) -> bytes:
    """The path that a person means: `./etc/`, `/etc` and `etc` are the same, nothing is the top directory."""
    return b"/".join(step for step in typed.split(b"/") if step not in {b"", b"."}) or TOP


class ChangeKind(StrEnum):
    """What became of a name from one set to another."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    RENAMED = "renamed"


class Change(NamedTuple):
    """One name that is not the same in two sets."""

    kind: ChangeKind
    older: Entry | None
    newer: Entry | None
    what: tuple[str, ...] = ()
    """What changed: type, size, content, mtime, mode, owner, target, device, or `missing` where only one set has it.

    Of a renamed file what changed besides its name."""

    @property
    def path(self) -> bytes:
        """The name."""
        entry = self.newer or self.older
        assert entry is not None
        return entry.path


def differences(older: Opened, newer: Opened, *, by_content: bool = False) -> Iterator[Change]:
    """What is not the same in two sets, which may be of different plans and stores, sorted as `Contents.walk` sorts.

    A regular file of the same size and time of change is the same, unless the content is compared, too. What changed
    in a directory is told of the names in it, so its own time of change is not. Memory does not grow with the number of
    files.
    """
    ours, theirs = older.contents.walk(TOP), newer.contents.walk(TOP)
    left, right = next(ours, None), next(theirs, None)
    while left is not None or right is not None:
        if right is None or (left is not None and _order(left) < _order(right)):
            yield Change(ChangeKind.REMOVED, left, None)
            left = next(ours, None)
        elif left is None or _order(right) < _order(left):
            yield Change(ChangeKind.ADDED, None, right)
            right = next(theirs, None)
        else:
            what = tuple(_what(left, right))
            if by_content and not same_content(older, left, newer, right):
                what = ("content", *what)
            if what:
                yield Change(ChangeKind.CHANGED, left, right, what)
            left, right = next(ours, None), next(theirs, None)


def with_renames(changes: Iterable[Change], *, same: Callable[[Entry, Entry], bool]) -> Iterator[Change]:
    """The changes, with a file that was removed here and added there as one that was renamed.

    That is taken for granted where exactly one file that is gone, and one that is new, have this size (not 0) and this
    time of change, and `same` agrees. Where there are more than MAX_HELD changes nothing is told as renamed: so
    many are in memory.
    """
    rest = iter(changes)
    held = list(islice(rest, MAX_HELD))
    if len(held) == MAX_HELD:
        yield from chain(held, rest)
        return
    removed, added = (
        _alone(each for each in held if each.kind is kind) for kind in (ChangeKind.REMOVED, ChangeKind.ADDED)
    )
    origins: dict[bytes, Entry] = {}
    for key in removed.keys() & added.keys():
        older, newer = removed[key], added[key]
        if same(older, newer):
            origins[newer.path] = older
    left = {entry.path for entry in origins.values()}
    for change in held:
        if change.kind is ChangeKind.REMOVED and change.path in left:
            continue
        if change.kind is ChangeKind.ADDED and change.newer is not None and change.path in origins:
            older = origins[change.path]
            yield Change(ChangeKind.RENAMED, older, change.newer, tuple(_what(older, change.newer)))
        else:
            yield change


def _alone(changes: Iterable[Change]) -> dict[tuple[int, int | None], Entry]:
    """The files of which there is one alone of their size and time of change."""
    found: dict[tuple[int, int | None], list[Entry]] = {}
    for change in changes:
        entry = change.newer or change.older
        if entry is not None and entry.type is EntryType.FILE and entry.size and entry.missing is None:
            found.setdefault((entry.size, entry.mtime_ns), []).append(entry)
    return {key: entries[0] for key, entries in found.items() if len(entries) == 1}


def _go_on() -> None:
    """Ctrl-C ends these commands at any time: they leave nothing behind."""


def _order(entry: Entry) -> tuple[bytes, bytes]:
    directory, _, name = entry.path.rpartition(b"/")
    return directory, name


def _what(older: Entry, newer: Entry) -> Iterator[str]:
    if older.missing is not None or newer.missing is not None:
        if (older.missing is None) != (newer.missing is None):
            yield "missing"
        return
    if older.type is not newer.type:
        yield "type"
        return
    if older.size != newer.size:
        yield "size"
    if older.mtime_ns != newer.mtime_ns and older.type is not EntryType.DIRECTORY:
        yield "mtime"
    if older.mode is None or newer.mode is None:
        return  # a directory that one of the sets only has something below of
    if older.mode != newer.mode and older.type is not EntryType.SYMLINK:
        yield "mode"
    if (older.uid, older.gid) != (newer.uid, newer.gid):
        yield "owner"
    if older.target != newer.target:
        yield "target"
    if older.device != newer.device:
        yield "device"


def same_content(older: Opened, ours: Entry, newer: Opened, theirs: Entry) -> bool:
    """Whether two entries have the same bytes; what is no pair of files of one size has nothing to compare.

    Reads nothing where both have them from the same place of the same set.
    """
    if ours.place is None or theirs.place is None or {ours.type, theirs.type} != {EntryType.FILE}:
        return True
    if ours.size != theirs.size or (ours.held_by, ours.place[1:]) == (theirs.held_by, theirs.place[1:]):
        return True
    left, right = _Stream(older.contents.read(ours)), _Stream(newer.contents.read(theirs))
    while True:
        size = min(left.ready(), right.ready())
        if not size:
            return left.ready() == right.ready()
        if left.take(size) != right.take(size):
            return False


class _Stream:
    """Bytes that come in chunks of any size."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def ready(self) -> int:
        """How many bytes there are to take; 0 at the end."""
        with suppress(StopIteration):
            while not self._rest:
                self._rest = memoryview(next(self._chunks))
        return len(self._rest)

    def take(self, size: int) -> memoryview:
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken
