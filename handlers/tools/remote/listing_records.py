"""Reads the records that the listing script prints on a peer; believes nothing but their form."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import NamedTuple

from handlers.contents import EntryType
from handlers.errors import PermanentError
from handlers.tools.remote.names import is_below

_MAX_RECORD_BYTES = 16 << 20
"""A batch of names is as long as a command line may be, their sums some times longer."""
_MAX_NUMBER_DIGITS = 19
_FEWER = "split the collect directory between several peers of the plan, or pack the files into archives"
_NANOSECONDS = 10**9

_BY_LETTER = {
    b"f": EntryType.FILE,
    b"d": EntryType.DIRECTORY,
    b"l": EntryType.SYMLINK,
    b"p": EntryType.FIFO,
    b"b": EntryType.BLOCK_DEVICE,
    b"c": EntryType.CHARACTER_DEVICE,
}
_BY_FORMAT = {
    stat.S_IFREG: EntryType.FILE,
    stat.S_IFDIR: EntryType.DIRECTORY,
    stat.S_IFLNK: EntryType.SYMLINK,
    stat.S_IFIFO: EntryType.FIFO,
    stat.S_IFBLK: EntryType.BLOCK_DEVICE,
    stat.S_IFCHR: EntryType.CHARACTER_DEVICE,
}
_PAIR = re.compile(rb"([a-zA-Z?])(?: ([0-7]{1,6}) ([0-9]{1,19}) (-?[0-9]{1,19}(?:\.[0-9]{1,12})?))?")
_STAT = re.compile(rb"([0-9a-fA-F]{1,8}) ([0-9]{1,19}) (-?[0-9]{1,19})")
_SUM = re.compile(rb"(\\?)([0-9a-f]{64})(?:  | \*| )")
_ESCAPED = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}
# GNU before 9.0 escapes the first two only.
_TO_ESCAPE = (re.compile(rb"[\\\n\r]"), re.compile(rb"[\\\n]"))


class RemoteEntry(NamedTuple):
    """One name. None stands for what the peer's programs cannot tell."""

    type: EntryType
    """UNKNOWN for a socket or anything else that no backup takes."""
    size: int | None = None
    """Of a regular file."""
    mtime_ns: int | None = None
    """Perhaps in whole seconds only, see `RemoteListing.exact_times`."""
    mode: int | None = None
    """The permission bits."""
    sha256: str | None = None
    """Of a regular file, hexadecimal; None where it could not be read, or was not asked for."""


class Records:
    """Takes the output of the script piece by piece; what it understood is in its attributes.

    Raises PermanentError for what no such script prints, or for more than the limits.
    """

    def __init__(self, token: bytes, *, max_names: int, max_bytes: int, peer: str) -> None:
        self.begun = False
        self.refusal: str | None = None
        """Why there is nothing to list."""
        self.find_code: int | None = None
        """How the peer's `find` ended; None as long as the end was not seen."""
        self.has_sums = False
        self.exact_times = False
        self._entries: dict[bytes, RemoteEntry] = {}
        self._token = token + b" "
        self._max_names = max_names
        self._bytes_left = max_bytes
        self._limit = max_bytes
        self._peer = peer
        self._rest = b""
        self._read: Callable[[bytes], None] = self._nothing
        self._batch: list[bytes] = []

    def take(self, piece: memoryview) -> None:
        """One more piece of output."""
        self._bytes_left -= len(piece)
        if self._bytes_left < 0:
            raise self._wrong(f"lists more than {self._limit} bytes of names", _FEWER)
        *records, self._rest = (self._rest + piece).split(b"\0")
        if len(self._rest) > _MAX_RECORD_BYTES:
            raise self._wrong("sends a record without an end")
        for record in records:
            if record.startswith(self._token):
                self._header(record.removeprefix(self._token))
            elif self.begun:  # before that: what the peer's login scripts print
                self._read(record)

    def finish(self) -> Mapping[bytes, RemoteEntry]:
        """All entries. Raises PermanentError where a name lies below what is no directory."""
        for path in self._entries:
            parent = path.rpartition(b"/")[0]
            if parent and (found := self._entries.get(parent)) and found.type != EntryType.DIRECTORY:
                raise self._wrong(f"lists {path!r}, and {parent!r} is a {found.type}")
        return self._entries

    def _header(self, header: bytes) -> None:
        self._batch = []
        match header.split(b" "):
            case [b"begin"]:
                self.begun = True
            case [b"nodir"]:
                self.refusal = "the directory is not there, or cannot be entered"
            case [b"nofind"]:
                self.refusal = "has no program find"
            case [b"pairs", *exact]:
                self.exact_times, self._read = exact == [b"exact"], self._pair
            case [b"batches"]:
                self._read = self._stat_batch
            case [b"sums"]:
                self.has_sums, self._read = True, self._sum_batch
            case [b"end", code] if code.isdigit() and len(code) <= _MAX_NUMBER_DIGITS:
                self.find_code, self._read = int(code), self._nothing
            case _:
                raise self._wrong(f"sends a record that makes no sense: {header[:100]!r}")

    def _nothing(self, record: bytes) -> None:
        if record and self.begun:
            raise self._wrong(f"sends a record out of place: {record[:100]!r}")

    def _pair(self, record: bytes) -> None:
        self._batch.append(record)
        if len(self._batch) == 2:  # a pair
            (facts, path), self._batch = self._batch, []
            self._add(path, self._from_pair(facts))

    def _from_pair(self, facts: bytes) -> RemoteEntry:
        found = _PAIR.fullmatch(facts)
        if found is None:
            raise self._wrong(f"sends facts that make no sense: {facts[:100]!r}")
        kind = _BY_LETTER.get(found[1], EntryType.UNKNOWN)
        if found[2] is None:
            return RemoteEntry(kind)
        return RemoteEntry(
            kind,
            size=int(found[3]) if kind == EntryType.FILE else None,
            mtime_ns=int(Decimal(found[4].decode()) * _NANOSECONDS),
            mode=int(found[2], 8) & 0o7777,
        )

    def _stat_batch(self, record: bytes) -> None:
        if self._batch_is_whole(record):
            (text, *names), self._batch = self._batch, []
            lines = text.split(b"\n")
            if len(lines) != len(names):
                raise self._wrong(f"tells of {len(lines)} files, and names {len(names)}")
            for line, path in zip(lines, names, strict=True):
                self._add(path, self._from_stat(line))

    def _batch_is_whole(self, record: bytes) -> bool:
        """A batch is a text, then names, then an empty record; the text may be empty, a name is not."""
        if record or not self._batch:
            self._batch.append(record)
            return False
        return True

    def _from_stat(self, line: bytes) -> RemoteEntry:
        found = _STAT.fullmatch(line)
        if found is None:
            raise self._wrong(f"sends facts that make no sense: {line[:100]!r}")
        raw = int(found[1], 16)
        kind = _BY_FORMAT.get(stat.S_IFMT(raw), EntryType.UNKNOWN)
        return RemoteEntry(
            kind,
            size=int(found[2]) if kind == EntryType.FILE else None,
            mtime_ns=int(found[3]) * _NANOSECONDS,
            mode=stat.S_IMODE(raw),
        )

    def _add(self, path: bytes, entry: RemoteEntry) -> None:
        name = path.removeprefix(b"./")
        if not is_below(name):
            raise self._wrong(f"lists a name that cannot be: {path[:200]!r}")
        # Where something is renamed meanwhile, `find` may meet a name twice: the later one is the newer.
        self._entries[name] = entry
        if len(self._entries) > self._max_names:
            raise self._wrong(f"lists more than {self._max_names} names", _FEWER)

    def _sum_batch(self, record: bytes) -> None:
        if self._batch_is_whole(record):
            (text, *names), self._batch = self._batch, []
            for path, digest in _sums(text, names):
                name = path.removeprefix(b"./")
                # A file that came after the names were listed is none of ours.
                if (entry := self._entries.get(name)) and entry.type == EntryType.FILE:
                    self._entries[name] = entry._replace(sha256=digest)

    def _wrong(self, what: str, hint: str | None = None) -> PermanentError:
        return PermanentError(f"{self._peer} {what}", hint=hint)


def _sums(text: bytes, names: list[bytes]) -> Iterator[tuple[bytes, str]]:
    """The sums in the text; it has a line for each name in turn, but for those that could not be read.

    Knowing the names, this reads names with line ends too, whether the program escapes them (GNU) or not (busybox).
    """
    at = 0
    for name in names:
        found = _SUM.match(text, at)
        if found is None:
            return
        spellings = {each.sub(lambda one: _ESCAPED[one[0]], name) for each in _TO_ESCAPE} if found[1] else {name}
        for spelt in spellings:
            line = spelt + b"\n"
            if text.startswith(line, found.end()):
                yield name, found[2].decode()
                at = found.end() + len(line)
                break
