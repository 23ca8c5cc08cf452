"""Tells what was where when the last set of a chain was made, by the indexes and the directories' lists.

A directory's list in the last level says which names there were. What a name was says the newest level that has it. A
file in no level is either excluded (the list says that it is not in the archive) or missing (it should be).

A level 0 that was made without lists (Python's `tarfile`) has in a directory what its index has there. The same goes
for a directory that is no member, because the plan names only something below: nothing tells whether a file that the
plan names is gone, so it is there as the newest level has it, as after a restore.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from heapq import merge
from itertools import chain as joined
from itertools import groupby
from typing import NamedTuple

import orjson

from handlers.contract import Entry, EntryType, ProblemKind, printable
from handlers.errors import PermanentError
from handlers.tools.sorted_lines import SortedLines, by_key
from handlers.tools.tar_content import FileContent
from handlers.tools.tar_dumpdir import DIRECTORY as SUBDIRECTORY
from handlers.tools.tar_dumpdir import UNCHANGED
from handlers.tools.tar_format import Malformed, checked_path
from handlers.tools.tar_index import Member, lines_of, member
from handlers.tools.tar_lookup import TOP, parent_of
from handlers.tools.tar_moves import Moves, moves_between
from handlers.tools.tar_names import DIRECTORY, END, Names, Record, Renaming, Scope
from handlers.tools.tar_set import TarSet

_TYPES = {
    "-": EntryType.FILE,
    "C": EntryType.FILE,
    "d": EntryType.DIRECTORY,
    "l": EntryType.SYMLINK,
    "p": EntryType.FIFO,
    "b": EntryType.BLOCK_DEVICE,
    "c": EntryType.CHARACTER_DEVICE,
}
_REASONS = frozenset({ProblemKind.UNREADABLE, ProblemKind.VANISHED, ProblemKind.SOCKET, ProblemKind.UNKNOWN_TYPE})
_NO_MORE = (b"", "")
_GONE = -1
_MAX_REASONS = 100_000
"""Files of which is remembered why they are missing."""


class TarTree:
    """What a chain of tar sets holds, see `handlers.contract.Contents`."""

    def __init__(self, levels: Sequence[TarSet], checkpoint: Callable[[], None]) -> None:
        self._levels = levels
        self._last = len(levels) - 1
        self._checkpoint = checkpoint
        self._moved: dict[int, Moves] = {}
        self._missing: dict[int, dict[str, ProblemKind]] = {}
        self._content: tuple[Entry, FileContent] | None = None

    @property
    def bytes_read(self) -> int:
        """Stored bytes that were fetched so far."""
        return sum(level.bytes_read for level in self._levels)

    def look(self, path: bytes) -> tuple[Entry, Iterator[Entry]] | None:
        """What is at this path, and in it. Reads the last index, and older ones as long as something is not found.

        Memory grows with the number of names in the directory.
        """
        path = _checked(path)
        parent, name = parent_of(path), path.rpartition(b"/")[2]
        entry = Entry(TOP, EntryType.DIRECTORY) if path == TOP else None
        inside: list[Entry] = []
        with ExitStack() as stack:
            for directory, records in self._directories(self._gathered(Scope(path, recursive=False), stack)):
                if directory.path == path:
                    entry = self._top(directory) if path == TOP else entry
                    inside = list(self._entries(directory, records))
                elif directory.path == parent:
                    entry = next(self._entries(directory, records, only=name), None)
        if entry is None:
            return None
        return entry, iter(inside if entry.type is EntryType.DIRECTORY else ())

    def walk(self, directory: bytes) -> Iterator[Entry]:
        """All below a directory, see `handlers.contract.Contents.walk`; reads every index."""
        scope = Scope(_checked(directory), recursive=True)
        with ExitStack() as stack:
            for found, records in self._directories(self._gathered(scope, stack)):
                if scope.holds(found.path):
                    yield from self._entries(found, records)

    def read(self, entry: Entry, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The content of a regular file; reading one file again, or on, is cheap."""
        if entry.place is None or entry.type is not EntryType.FILE:
            raise ValueError(f"{entry.path!r} has no content")
        if self._content is None or self._content[0] != entry:
            at, block, path = entry.place
            self._content = entry, FileContent(self._levels[at], block, path, entry.size)
        return self._content[1].read(offset, length)

    def _gathered(self, scope: Scope, stack: ExitStack) -> Iterator[Record]:
        """The records of all levels that are needed, the newest first for each name."""
        names = Names(self._levels[self._last], scope, stack, self._checkpoint)
        newest = names.of_last_level()
        gathered = [_numbered(self._last, newest)]
        wanted = None if names.loose or scope.recursive else self._unchanged(scope, newest)
        for at in range(self._last - 1, -1, -1):
            if wanted is not None and not wanted:
                break
            older = Names(self._levels[at], scope, stack, self._checkpoint)
            found = older.of_older_level(self._renaming(at), wanted, directories=names.loose)
            gathered.append(_numbered(at, found))
            if wanted is not None:
                wanted -= {_path(key) for key, _ in found}
        return merge(*gathered, key=by_key)

    def _unchanged(self, scope: Scope, names: SortedLines) -> set[bytes]:
        """The paths that an older level has to tell of: what the directory, or the one above, says is unchanged."""
        wanted: set[bytes] = set()
        for key, line in names:
            directory, _, name = key.partition(END)
            path = directory or TOP
            if name or self._last == 0 or path not in {scope.top, parent_of(scope.top)}:
                continue
            head = member(line)
            only = None if path == scope.top else scope.top.rpartition(b"/")[2]
            for each, state in self._states(_Directory(path, self._last, head), only):
                if state == UNCHANGED:
                    wanted.add(directory + b"/" + each if directory else each)
        return wanted - {_path(key) for key, _ in names}

    def _renaming(self, at: int) -> Renaming | None:
        """What was renamed since this level; None for nothing."""
        for older in range(at, self._last):
            if older not in self._moved:
                self._moved[older] = moves_between(self._levels[older], self._levels[older + 1])
        steps = [self._moved[older] for older in range(at, self._last) if self._moved[older]]

        if not steps:
            return None

        def now(path: bytes) -> bytes | None:
            found: bytes | None = path
            for moves in steps:
                found = moves.after(found) if found is not None else None
            return found

        return now

    def _directories(self, records: Iterator[Record]) -> Iterator[tuple[_Directory, Iterator[Record]]]:
        """Each directory with the records of the names in it."""
        above: list[tuple[bytes, int | None]] = []
        for folder, group in groupby(records, key=_folder):
            head, rest = _headed(folder, group)
            above = [(path, at) for path, at in above if not path or folder < path + b"0"]
            upper = next((at for path, at in reversed(above) if at is not None and _is_above(path, folder)), None)
            at = None if head is None else head[0]
            if upper is not None and (upper == _GONE or (at is not None and at < upper)):
                at = _GONE
            listed = head if at != _GONE else None
            above.append((folder, upper if at is None else at))
            yield _Directory(folder or TOP, upper if at is None else at, listed and member(listed[1])), rest

    def _entries(self, directory: _Directory, records: Iterator[Record], only: bytes | None = None) -> Iterator[Entry]:
        """What was in a directory, sorted by name; or only the one of this name."""
        if directory.at == _GONE:
            return
        prefix = b"" if directory.path == TOP else directory.path + b"/"
        states = self._states(directory, only)
        name, state = next(states, _NO_MORE)
        for key, versions in groupby(records, key=by_key):
            found = key.rpartition(END)[2]
            if only is not None and found != only:
                continue
            while state and name < found:
                yield from self._unheld(directory, prefix + name, state)
                name, state = next(states, _NO_MORE)
            is_listed = bool(state) and name == found
            chosen = self._chosen(directory, versions, state if is_listed else "")
            if chosen is not None:
                yield self._entry(prefix + found, chosen)
            elif is_listed:
                yield from self._unheld(directory, prefix + found, state)
            if is_listed:
                name, state = next(states, _NO_MORE)
        while state:
            yield from self._unheld(directory, prefix + name, state)
            name, state = next(states, _NO_MORE)

    def _states(self, directory: _Directory, only: bytes | None) -> Iterator[tuple[bytes, str]]:
        """The names in the directory's list, sorted. None where nothing depends on it."""
        if directory.at is None or directory.head is None:
            return iter(())
        level = self._levels[directory.at]
        if directory.at == 0 and level.problems() is None:
            return iter(())  # everything is in the archive, or excluded
        listed = level.dumpdir_at(directory.head.block, directory.head.path)
        if listed is None:
            return iter(())
        if only is not None:
            state = listed.state(only)
            return iter(() if state is None else ((only, state),))
        return listed.in_order()

    def _chosen(self, directory: _Directory, versions: Iterator[Record], state: str) -> tuple[int, bytes] | None:
        """The record that tells what a name is; None where no level has it."""
        implied: tuple[int, bytes] | None = None
        for _, at, line in versions:
            if directory.at is None:
                if line:
                    return at, line
                implied = at, line
            elif line and (at >= directory.at or (state == UNCHANGED and not _is_directory(line))):
                return at, line
        return implied

    def _entry(self, path: bytes, chosen: tuple[int, bytes]) -> Entry:
        at, line = chosen
        if not line:
            return Entry(path, EntryType.DIRECTORY)
        own, _, shared = line.partition(END)
        found = member(own)
        content = member(shared) if shared else found
        return Entry(
            path,
            _TYPES[content.type],
            content.size,
            found.mode,
            found.uid,
            found.gid,
            found.mtime_ns,
            content.link,
            content.device,
            self._levels[at].name,
            (at, content.block, content.path),
        )

    def _unheld(self, directory: _Directory, path: bytes, state: str) -> Iterator[Entry]:
        """What the directory had and no level has: nothing where it is excluded."""
        assert directory.at is not None
        known = (self._reasons(at).get(printable(path)) for at in range(directory.at, -1, -1))
        why = next((reason for reason in known if reason is not None), None)
        if why is None and state == UNCHANGED:
            return
        kind = EntryType.DIRECTORY if state == SUBDIRECTORY else EntryType.UNKNOWN
        yield Entry(path, kind, missing=why or ProblemKind.OTHER)

    def _reasons(self, at: int) -> dict[str, ProblemKind]:
        """Why files are not in this level."""
        if at not in self._missing:
            reasons: dict[str, ProblemKind] = {}
            for line in lines_of(self._levels[at].problems() or ()):
                problem = orjson.loads(line)
                kind = ProblemKind(problem["kind"])
                if kind in _REASONS and len(reasons) < _MAX_REASONS:
                    reasons[problem["path"]] = kind
            self._missing[at] = reasons
        return self._missing[at]

    def _top(self, directory: _Directory) -> Entry:
        if directory.at is None or directory.head is None:
            return Entry(TOP, EntryType.DIRECTORY)
        head = directory.head
        return Entry(
            TOP,
            EntryType.DIRECTORY,
            0,
            head.mode,
            head.uid,
            head.gid,
            head.mtime_ns,
            held_by=self._levels[directory.at].name,
        )


class _Directory(NamedTuple):
    """A directory whose names are being told."""

    path: bytes
    at: int | None
    """The level whose list counts; None where it is a member of none; _GONE where it is not there any more."""
    head: Member | None


def _numbered(at: int, names: SortedLines) -> Iterator[Record]:
    return ((key, at, line) for key, line in names)


def _folder(record: Record) -> bytes:
    return record[0].partition(END)[0]


def _headed(folder: bytes, records: Iterator[Record]) -> tuple[tuple[int, bytes] | None, Iterator[Record]]:
    """The newest record of the directory itself, and the records of what is in it."""
    head: tuple[int, bytes] | None = None
    for record in records:
        if len(record[0]) > len(folder) + 1:
            return head, joined((record,), records)
        head = head or record[1:]
    return head, iter(())


def _is_above(upper: bytes, folder: bytes) -> bool:
    return (not upper and bool(folder)) or folder.startswith(upper + b"/")


def _is_directory(line: bytes) -> bool:
    return member(line.partition(END)[0]).type == DIRECTORY


def _path(key: bytes) -> bytes:
    directory, _, name = key.partition(END)
    return directory + b"/" + name if directory else name


def _checked(path: bytes) -> bytes:
    try:
        return checked_path(path) or TOP
    except Malformed as error:
        raise PermanentError(
            f"{printable(path)!r} can be in no set: {error}", hint="give the path relative to the subject"
        ) from error
