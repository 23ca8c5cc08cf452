"""The hours in which an operator allows work, as they are written in the configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES: Final = 24 * 60

_ONLY_DAYS: Final = re.compile(rf"(?:{'|'.join(DAYS)}|[,-])+")
_SHOWN_CHARACTERS: Final = 20

_HOURS: Final = re.compile(r"(?:(?P<days>[a-z,-]+) +)?(?P<start>[0-2][0-9]:[0-5][0-9])-(?P<end>[0-2][0-9]:[0-5][0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """One stretch of allowed time that recurs each week."""

    days: frozenset[int]
    """The days it begins on, Monday is 0."""
    start_minute: int
    """Of the day it begins on, by the clock on the wall; 0 to 1439."""
    end_minute: int
    """The first that is not allowed any more, 0 to 1440; of the next day where it is not after start_minute."""


def parse_hours(text: str) -> Hours:
    """The hours in a text such as `22:00-06:00`, `mon-fri 20:00-07:00`, `sat,sun 00:00-24:00`.

    Days may go round the end of the week, as in `fri-mon`; times over midnight belong to the day they begin on. Letter
    case does not matter. Raises ValueError saying what is wrong with it.
    """
    written = text.strip().lower()
    found = _HOURS.fullmatch(written)
    if found is None:
        if _ONLY_DAYS.fullmatch(written):
            # The usual way to get here: [sat,sun 00:00-24:00] is a list of two texts.
            raise ValueError("names days without a time; quote a text with a comma in it, or YAML cuts it there")
        raise ValueError("is not of the form `22:00-06:00` or `mon-fri 22:00-06:00`")
    start, end = _minute(found["start"]), _minute(found["end"])
    if start == DAY_MINUTES:
        raise ValueError("begins at 24:00, which is 00:00 of the next day")
    if start == end:
        raise ValueError("ends when it begins; `00:00-24:00` is a whole day")
    return Hours(days=_days(found["days"]), start_minute=start, end_minute=end)


def _minute(text: str) -> int:
    hours, minutes = (int(number) for number in text.split(":"))
    if hours * 60 + minutes > DAY_MINUTES:
        raise ValueError(f"{text} is no time of day; they go from 00:00 to 24:00")
    return hours * 60 + minutes


def _days(text: str | None) -> frozenset[int]:
    if text is None:
        return frozenset(range(7))
    found: set[int] = set()
    for stretch in text.split(","):
        first, dash, last = stretch.partition("-")
        for name in (first, last) if dash else (first,):
            if name not in DAYS:
                raise ValueError(f"{name[:_SHOWN_CHARACTERS]!r} is no day; the days are {', '.join(DAYS)}")
        begin = DAYS.index(first)
        length = (DAYS.index(last) - begin) % 7 + 1 if dash else 1
        found |= {(begin + step) % 7 for step in range(length)}
    return frozenset(found)
