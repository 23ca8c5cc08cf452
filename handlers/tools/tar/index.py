"""Reads the listing that GNU tar prints while it writes an archive: one line per member.

The listing is made with `--verbose --verbose --full-time --utc --block-number --quoting-style=c --numeric-owner`:

    block 12: -rw-r--r--  0/0    123 2026-11-21 03:29:00.123456789 "./dir/name"
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from handlers.errors import IntegrityError
from handlers.tools.tar.quoting import unquoted
from handlers.tools.text_lines import text_lines

_LINE = re.compile(
    rb"block (\d+): ([-dlhbcpC])([-r][-w][-xsS][-r][-w][-xsS][-r][-w][-xtT])[ *+.]? *(\d+)/(\d+) +(\d+)(?:,(\d+))? "
    rb'(-?\d+-\d\d-\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))? *"((?:[^"\\]|\\.)*)"'
    rb'(?: (?:->|link to) "((?:[^"\\]|\\.)*)")?'
)
_BRIEF = re.compile(rb'block (\d+): ([-dlhbcpC])[^"]*"((?:[^"\\]|\\.)*)"')
_NEVER_QUOTED = re.compile(rb"[A-Za-z0-9_./@%+=:,-]+")
_MAX_LINE_BYTES = 64 << 10
"""Two names of 4096 bytes, each byte as four characters, and room to spare."""

_BILLION = 1_000_000_000
_MAX_DAYS = 10_000
"""Dates whose number of days is remembered."""


class Member(NamedTuple):
    """One member of an archive as its listing describes it. A plain tuple: there may be millions."""

    block: int
    """Where it starts, in blocks of 512 bytes of the uncompressed archive."""
    type: str
    """As `ls -l` prints it: - d l b c p; and h for a hard link to an earlier member."""
    mode: int
    """The permission bits, with set-id and sticky bits."""
    uid: int
    gid: int
    size: int
    """Bytes of a regular file; 0 for every other type."""
    mtime_ns: int
    """Of a time within a second of 1970-01-01 the sign is not known: GNU tar prints both alike."""
    path: bytes
    """Without `./` before or `/` behind; `.` for the top directory."""
    link: bytes | None
    """A symbolic link's target as it is; of a hard link the path it shares, written like `path`."""
    device: tuple[int, int] | None = None
    """Major and minor number of a device."""


class Place(NamedTuple):
    """Just enough of a member to find it."""

    block: int
    type: str
    path: bytes
    line: bytes
    """The line of the listing, for `member`."""


def lines_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a listing, or of what is written like one. Raises IntegrityError for one that has no end."""
    return text_lines(chunks, what="index", max_bytes=_MAX_LINE_BYTES)


def members(chunks: Iterable[bytes]) -> Iterator[Member]:
    """The members in the order of the archive. Raises IntegrityError naming the first line that is none."""
    for number, line in enumerate(lines_of(chunks), start=1):
        yield member(line, number)


def member(line: bytes, number: int = 0) -> Member:
    """The member that a line describes. Raises IntegrityError, naming the number of the line, where it is none."""
    found = _LINE.fullmatch(line)
    if found is None:
        raise _not_a_member(number, line)
    block, kind, mode, uid, gid, size, minor, date, hours, minutes, seconds, fraction, name, link = found.groups()
    day = _days.get(date)
    if day is None:
        if len(_days) > _MAX_DAYS:
            _days.clear()
        day = _days[date] = _day_number(date, number)
    time = day * 86_400 + int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    nanoseconds = int(fraction.ljust(9, b"0")) if fraction else 0
    return Member(
        int(block),
        kind.decode(),
        _mode_bits(mode),
        int(uid),
        int(gid),
        int(size) if minor is None else 0,
        # GNU tar prints a time before 1970 as second and fraction away from zero.
        time * _BILLION + (nanoseconds if time >= 0 else -nanoseconds),
        _path(name),
        None if link is None else _path(link) if kind == b"h" else _unquoted(link),
        None if minor is None else (int(size), int(minor)),
    )


def places(chunks: Iterable[bytes]) -> Iterator[Place]:
    """Where each member is: several times as fast as `members`."""
    for number, line in enumerate(lines_of(chunks), start=1):
        yield _place(line, number)


def some_places(chunks: Iterable[bytes], words: Sequence[bytes]) -> Iterator[Place]:
    """Where the first member is, and those whose lines have one of these words: many times as fast as `places`."""
    rest = b""
    first = True
    for chunk in chunks:
        text = rest + chunk
        end = text.rfind(b"\n") + 1
        rest = text[end:]
        if len(rest) > _MAX_LINE_BYTES:
            raise IntegrityError(f"index has an endless line: {rest[:60]!r}")
        if not first and not any(word in text for word in words):
            continue
        for line in text[:end].split(b"\n")[:-1]:
            if first or any(word in line for word in words):
                yield _place(line, 0)
                first = False
    if rest:
        raise IntegrityError(f"index is cut short in its last line: {rest[:60]!r}")


def word_in_lines(path: bytes) -> bytes:
    """What the line of this path and of all below it has for certain: the path up to what may be quoted in it."""
    found = _NEVER_QUOTED.match(path)
    return found[0] if found else b""


def _place(line: bytes, number: int) -> Place:
    found = _BRIEF.match(line)
    if found is None:
        raise _not_a_member(number, line)
    return Place(int(found[1]), found[2].decode(), _path(found[3]), line)


def _path(quoted: bytes) -> bytes:
    name = _unquoted(quoted) if b"\\" in quoted else quoted
    if name.startswith(b"./"):
        name = name[2:]
    if name.endswith(b"/"):
        name = name[:-1]
    return name or b"."


def _unquoted(quoted: bytes) -> bytes:
    try:
        return unquoted(quoted)
    except ValueError as error:
        raise IntegrityError(f"index has an {error}") from error


_modes: dict[bytes, int] = {}
_days: dict[bytes, int] = {}


def _mode_bits(text: bytes) -> int:
    known = _modes.get(text)
    if known is None:
        known = 0
        for at, letter in enumerate(text.decode()):
            if letter not in "-ST":
                known |= 0o400 >> at
            if letter in "sStT":
                known |= {2: 0o4000, 5: 0o2000, 8: 0o1000}[at]
        _modes[text] = known
    return known


def _day_number(date: bytes, number: int) -> int:
    """Days since 1970-01-01, for any year: `datetime` ends at 9999, files do not."""
    year, month, day = (int(part) for part in date.rsplit(b"-", 2))
    if not (1 <= month <= 12 and 1 <= day <= 31):
        raise IntegrityError(f"index line {number} has date {date!r}")
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def _not_a_member(number: int, line: bytes) -> IntegrityError:
    where = f"index line {number}" if number else "index line"
    return IntegrityError(f"{where} is no member of an archive: {line[:200]!r}")
