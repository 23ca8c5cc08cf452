"""Writes the line that GNU tar's listing has for a member, see `tar_index`, which reads it."""

from __future__ import annotations

import re

from handlers.tools.tar.header import Facts

_ESCAPES = {
    0x07: b"\\a",
    0x08: b"\\b",
    0x0C: b"\\f",
    0x0A: b"\\n",
    0x0D: b"\\r",
    0x09: b"\\t",
    0x0B: b"\\v",
    0x5C: b"\\\\",
    0x22: b'\\"',
}
_SPECIAL = re.compile(rb"[^ !#-\[\]-~]")
_BILLION = 1_000_000_000
_DAY_SECONDS = 86_400
_FIRST_WIDTH = 19
"""What owner, group and size take at first. GNU tar widens its columns as it goes."""


class Listing:
    """Makes the lines of one archive, in order."""

    def __init__(self) -> None:
        self._width = _FIRST_WIDTH
        self._time_width = 0
        self._days: dict[int, bytes] = {}

    def line(
        self,
        block: int,
        letter: bytes,
        name: bytes,
        facts: Facts,
        *,
        size: int = 0,
        link: bytes | None = None,
        device: tuple[int, int] | None = None,
    ) -> bytes:
        """The line of the member that starts at this block; `letter` is what `ls -l` prints, `h` for a hard link.

        `size` is that of a file when restored.
        """
        owner = b"%d/%d" % (facts.uid, facts.gid)
        column = b"%d" % size if device is None else b"%d,%d" % device
        self._width = max(self._width, len(owner) + 1 + len(column))
        target = b"" if link is None else (b" link to " if letter == b"h" else b" -> ") + quoted(link)
        return b"block %d: %s%s %s %s %s %s%s\n" % (
            block,
            letter,
            _permissions(facts.mode),
            owner,
            column.rjust(self._width - len(owner) - 1),
            self._time(facts.mtime_ns),
            quoted(name),
            target,
        )

    def _time(self, time_ns: int) -> bytes:
        # As GNU tar has it: of a time before 1970 second and fraction both count away from zero.
        seconds, fraction = divmod(abs(time_ns), _BILLION)
        day, second = divmod(seconds if time_ns >= 0 else -seconds, _DAY_SECONDS)
        date = self._days.get(day)
        if date is None:
            if len(self._days) > 10_000:
                self._days.clear()
            date = self._days[day] = _date(day)
        clock = b"%02d:%02d:%02d" % (second // 3600, second // 60 % 60, second % 60)
        text = b"%s %s.%s" % (date, clock, (b"%09d" % fraction).rstrip(b"0")) if fraction else date + b" " + clock
        self._time_width = max(self._time_width, len(text))
        return text.ljust(self._time_width)


def quoted(name: bytes) -> bytes:
    """A name in GNU tar's quoting style `c` in the C locale, see `tar_quoting`."""
    return b'"' + _SPECIAL.sub(_escaped, name) + b'"'


def _escaped(found: re.Match[bytes]) -> bytes:
    byte = found[0][0]
    return _ESCAPES.get(byte) or b"\\%03o" % byte


_known_permissions: dict[int, bytes] = {}


def _permissions(mode: int) -> bytes:
    known = _known_permissions.get(mode)
    if known is None:
        letters = [letter if mode & 0o400 >> at else "-" for at, letter in enumerate("rwxrwxrwx")]
        for at, bit, with_x, without in ((2, 0o4000, "s", "S"), (5, 0o2000, "s", "S"), (8, 0o1000, "t", "T")):
            if mode & bit:
                letters[at] = without if letters[at] == "-" else with_x
        known = _known_permissions[mode] = "".join(letters).encode()
    return known


def _date(day: int) -> bytes:
    """The date of this day since 1970-01-01, for any year: `datetime` ends at 9999, files do not."""
    era, of_era = divmod(day + 719_468, 146_097)
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * of_year + 2) // 153
    month = month_from_march + (3 if month_from_march < 10 else -9)
    year = year_of_era + era * 400 + (month <= 2)
    return b"%d-%02d-%02d" % (year, month, of_year - (153 * month_from_march + 2) // 5 + 1)
