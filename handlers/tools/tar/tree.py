"""Tells what was where when the last set of a chain was made, by the indexes and the directories' lists.

A directory's list in the last level says which names there were. What a name was says the newest level that has it. A
file in no level is either excluded (the list says that it is not in the archive) or missing (it should be).

What a level could not read (unreadable, vanished, in a directory that was closed meanwhile) is as an older level has
it, unless a list in between says that it was gone, or something else: so would a restore of the whole chain leave it.

A level 0 that was made without lists (Python's `tarfile`) has in a directory what its index has there. The same goes
for a directory that is no member, because the plan names only something below: nothing tells whether a file that the
plan names is gone, so it is there as the newest level has it, as after a restore.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from heapq import merge
from itertools import chain as joined
from itertools import groupby

from handlers.contents import Entry, EntryType
from handlers.contract import ProblemKind, printable
from handlers.errors import PermanentError
from handlers.tools.sorted_lines import SortedLines, by_key
from handlers.tools.tar.archive_format import Malformed, checked_path
from handlers.tools.tar.content import FileContent
from handlers.tools.tar.directory import NO_MORE, Directory, Reading, states_of
from handlers.tools.tar.dumpdir import DIRECTORY as SUBDIRECTORY
from handlers.tools.tar.dumpdir import UNCHANGED, Dumpdir
from handlers.tools.tar.index import member
from handlers.tools.tar.lookup import KEEPS_DIRECTORY, KEEPS_FILE, TOP, parent_of, uppers
from handlers.tools.tar.moves import Moves, moves_between
from handlers.tools.tar.names import DIRECTORY, END, Names, Record, Renaming, Scope
from handlers.tools.tar.stored_set import TarSet
from handlers.tools.tar.troubles import Troubles

_TYPES = {
    "-": EntryType.FILE,
    "C": EntryType.FILE,
    "d": EntryType.DIRECTORY,
    "l": EntryType.SYMLINK,
    "p": EntryType.FIFO,
    "b": EntryType.BLOCK_DEVICE,
    "c": EntryType.CHARACTER_DEVICE,
}

_DIRECTORY = DIRECTORY.encode()


class TarTree:
    """What a chain of tar sets holds, see `handlers.contract.Contents`."""

    def __init__(self, levels: Sequence[TarSet], checkpoint: Callable[[], None]) -> None:
        self._levels = levels
        self._last = len(levels) - 1
        self._checkpoint = checkpoint
        self._moved: dict[int, Moves] = {}
        self._troubles = [Troubles(level) for level in levels]
        self._troubled = tuple(at for at in range(self._last, 0, -1) if self._troubles[at])
        """Levels with problems that older ones may know more of, the newest first."""
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
        directories = names.loose or bool(self._troubled)
        wanted = None if names.loose or scope.recursive else self._wanted(scope, newest)
        for at in range(self._last - 1, -1, -1):
            if wanted is not None and not wanted:
                break
            older = Names(self._levels[at], scope, stack, self._checkpoint)
            found = older.of_older_level(self._renaming(at), wanted, directories=directories)
            gathered.append(_numbered(at, found))
            if wanted is not None:
                wanted -= {_path(key) for key, _ in found}
            elif not (names.loose or scope.recursive) and any(_is_file(record, scope.top) for record in found):
                break
        return merge(*gathered, key=by_key)

    def _wanted(self, scope: Scope, names: SortedLines) -> set[bytes] | None:
        """The paths that older levels have to tell of, by the lists of the directory and the one above; None for all.

        That is what is unchanged, or all that is no member where the level could not read everything.
        """
        wanted: set[bytes] = set()
        heads: set[bytes] = set()
        for key, line in names:
            directory, _, name = key.partition(END)
            path = directory or TOP
            if name:
                continue
            heads.add(path)
            if self._last == 0 or path not in {scope.top, parent_of(scope.top)}:
                continue
            listed = self._list(Directory(path, {self._last: line}))
            only = None if path == scope.top else scope.top.rpartition(b"/")[2]
            for each, state in states_of(listed, only):
                if state == UNCHANGED or self._troubled:
                    wanted.add(directory + b"/" + each if directory else each)
        wanted -= {_path(key) for key, _ in names}
        above = {TOP} if scope.top == TOP else {*uppers(scope.top)}
        if self._troubled and (scope.top in wanted or above - heads):
            return None
        return wanted

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

    def _directories(self, records: Iterator[Record]) -> Iterator[tuple[Directory, Iterator[Record]]]:
        """Each directory with the records of the names in it."""
        above: list[Directory] = []
        for folder, group in groupby(records, key=_folder):
            heads, rest = _headed(folder, group)
            above = [upper for upper in above if upper.path == TOP or folder < upper.path + b"0"]
            upper = next((upper for upper in reversed(above) if upper.holds(folder)), None)
            directory = Directory(folder or TOP, heads)
            if upper is not None:
                directory.since = self._since(directory, upper)
                directory.reason = upper.reason
            if self._troubled:
                self._look_for_troubles(directory)
            above.append(directory)
            yield directory, rest

    def _since(self, directory: Directory, upper: Directory) -> int:
        """The oldest level whose names in this directory may still be there."""
        if upper.is_gone:
            return self._last + 1
        oldest = min(directory.heads, default=self._last + 1)
        name = directory.below(upper)
        for at in range(self._last, upper.since, -1):
            if at in directory.heads or at not in upper.heads:
                continue
            # Before its first level it was nowhere.
            if at < oldest or self._state(upper, at, name, KEEPS_DIRECTORY) not in KEEPS_DIRECTORY:
                return at
        return upper.since

    def _look_for_troubles(self, directory: Directory) -> None:
        path = directory.path
        directory.troubled = tuple(
            at for at in self._troubled if self._renaming(at) is not None or self._troubles[at].concerns(path)
        )
        newest = directory.at
        if newest is not None and newest < self._last:
            own = (self._troubles[at].reason(path) for at in directory.troubled if at > newest)
            directory.reason = next((reason for reason in own if reason is not None), directory.reason)
        elif newest is not None:
            directory.reason = None

    def _state(self, directory: Directory, at: int, name: bytes, unlisted: Collection[str]) -> str:
        """What a level's list says of a name, empty for nothing; one of `unlisted` where it has no list.

        Cheap for names that are asked in order.
        """
        if at not in directory.lists:
            head = member(directory.heads[at])
            listed = self._levels[at].dumpdir_at(head.block, head.path)
            directory.lists[at] = None if listed is None else Reading(listed)
        reading = directory.lists[at]
        return next(iter(unlisted)) if reading is None else reading.state(name)

    def _entries(self, directory: Directory, records: Iterator[Record], only: bytes | None = None) -> Iterator[Entry]:
        """What was in a directory, sorted by name; or only the one of this name."""
        if directory.is_gone:
            return
        prefix = b"" if directory.path == TOP else directory.path + b"/"
        listed = self._list(directory)
        states = states_of(listed, only)
        name, state = next(states, NO_MORE)
        for key, versions in groupby(records, key=by_key):
            found = key.rpartition(END)[2]
            if only is not None and found != only:
                continue
            while state and name < found:
                yield from self._unheld(directory, prefix + name, state)
                name, state = next(states, NO_MORE)
            is_listed = bool(state) and name == found
            said = None if listed is None else state if is_listed else ""
            chosen = self._chosen(directory, found, versions, said)
            if chosen is not None:
                yield self._entry(prefix + found, chosen, self._outdated(directory, prefix + found, chosen[0], said))
            elif is_listed:
                yield from self._unheld(directory, prefix + found, state)
            if is_listed:
                name, state = next(states, NO_MORE)
        while state:
            yield from self._unheld(directory, prefix + name, state)
            name, state = next(states, NO_MORE)

    def _list(self, directory: Directory) -> Dumpdir | None:
        """The names in the directory by the newest level that has it. None where nothing depends on it."""
        at = directory.at
        if at is None or (at == 0 and not self._troubles[0]):
            return None  # everything is in the archive, or excluded
        head = member(directory.heads[at])
        return self._levels[at].dumpdir_at(head.block, head.path)

    def _chosen(
        self, directory: Directory, name: bytes, versions: Iterator[Record], said: str | None
    ) -> tuple[int, bytes] | None:
        """The record that tells what a name is; None where no level has it, or what had it was deleted."""
        implied: tuple[int, bytes] | None = None
        chosen: tuple[int, bytes] | None = None
        for _, at, line in versions:
            if line:
                chosen = at, line
                break
            implied = implied or (at, line)
        if chosen is None or (implied is not None and not _is_directory(chosen[1])):
            chosen = implied
        if chosen is None or chosen[0] < directory.since or not self._stayed(directory, name, chosen, said):
            return None
        return chosen

    def _stayed(self, directory: Directory, name: bytes, chosen: tuple[int, bytes], said: str | None) -> bool:
        """Whether the lists since then leave it where it is. `said` is what the newest says, None without list."""
        oldest, line = chosen
        is_directory = not line or _is_directory(line)
        keeps = KEEPS_DIRECTORY if is_directory else KEEPS_FILE
        sure = False
        for at in directory.heads:
            if at <= oldest:
                break
            if at == directory.at:
                state = UNCHANGED if said is None else said
            else:
                state = UNCHANGED if sure else self._state(directory, at, name, keeps)
            if state not in keeps:
                return False
            # What is unchanged was there before, unless it only looks so because it could not be looked at.
            sure = (
                not is_directory and state == UNCHANGED and at not in directory.troubled and at - 1 in directory.heads
            )
        return True

    def _outdated(self, directory: Directory, path: bytes, at: int, said: str | None) -> ProblemKind | None:
        """Why a name is as an older level has it, if it may have changed since."""
        if at == self._last:
            return None
        why = directory.reason
        if directory.troubled:
            since = (self._troubles[each].reason(path) for each in directory.troubled if each > at)
            why = next((reason for reason in since if reason is not None), why)
        if why is None and said not in {None, UNCHANGED} and directory.at is not None and at < directory.at:
            return ProblemKind.OTHER
        return why

    def _entry(self, path: bytes, chosen: tuple[int, bytes], outdated: ProblemKind | None) -> Entry:
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
            outdated=outdated,
        )

    def _unheld(self, directory: Directory, path: bytes, state: str) -> Iterator[Entry]:
        """What the directory had and no level has: nothing where it is excluded."""
        assert directory.at is not None
        known = (self._troubles[at].reason(path) for at in range(self._last, -1, -1))
        why = next((reason for reason in known if reason is not None), None)
        if why is None and state == UNCHANGED:
            return
        kind = EntryType.DIRECTORY if state == SUBDIRECTORY else EntryType.UNKNOWN
        yield Entry(path, kind, missing=why or ProblemKind.OTHER)

    def _top(self, directory: Directory) -> Entry:
        if directory.at is None:
            return Entry(TOP, EntryType.DIRECTORY)
        head = member(directory.heads[directory.at])
        return Entry(
            TOP,
            EntryType.DIRECTORY,
            0,
            head.mode,
            head.uid,
            head.gid,
            head.mtime_ns,
            held_by=self._levels[directory.at].name,
            outdated=directory.reason,
        )


def _numbered(at: int, names: SortedLines) -> Iterator[Record]:
    return ((key, at, line) for key, line in names)


def _folder(record: Record) -> bytes:
    return record[0].partition(END)[0]


def _headed(folder: bytes, records: Iterator[Record]) -> tuple[dict[int, bytes], Iterator[Record]]:
    """The records of the directory itself by level, the newest first, and those of what is in it."""
    heads: dict[int, bytes] = {}
    for record in records:
        if len(record[0]) > len(folder) + 1:
            return heads, joined((record,), records)
        heads.setdefault(record[1], record[2])
    return heads, iter(())


def _is_file(record: tuple[bytes, bytes], path: bytes) -> bool:
    key, line = record
    return _path(key) == path and bool(line) and not _is_directory(line)


def _is_directory(line: bytes) -> bool:
    return line[line.index(b": ") + 2 : line.index(b": ") + 3] == _DIRECTORY


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
