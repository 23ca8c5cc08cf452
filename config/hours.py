"""The hours in which an operator allows work, as they are written in the configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES: Final = 24 * 60

_HOURS = re.compile(r"(?:(?P<days>[a-z,-]+) +)?(?P<start>[0-2][0-9]:[0-5][0-9])-(?P<end>[0-2][0-9]:[0-5][0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """One stretch of allowed time that recurs each week."""

    days: frozenset[int]
    """The days it begins on, Monday is 0."""
    start_minute: int
    """Of the day, by the clock on the wall."""
    end_minute: int
    """Not allowed any more; of the next day where it is not after start_minute."""


def parse_hours(text: str) -> Hours:
    """The hours in a text such as `22:00-06:00`, `mon-fri 20:00-07:00`, `sat,sun 00:00-24:00`.

    Raises ValueError saying what is wrong with it.
    """
    found = _HOURS.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError("is not of the form `22:00-06:00` or `mon-fri 22:00-06:00`")
    start, end = _minute(found["start"]), _minute(found["end"])
    if start in (DAY_MINUTES, end):
        raise ValueError("ends when it begins; `00:00-24:00` is a whole day")
    return Hours(days=_days(found["days"]), start_minute=start, end_minute=end)


def _minute(text: str) -> int:
    hours, minutes = (int(number) for number in text.split(":"))
    if hours * 60 + minutes > DAY_MINUTES:
        raise ValueError(f"{text} is no time of day")
    return hours * 60 + minutes


def _days(text: str | None) -> frozenset[int]:
    if text is None:
        return frozenset(range(7))
    found: set[int] = set()
    for stretch in text.split(","):
        first, dash, last = stretch.partition("-")
        for name in (first, last) if dash else (first,):
            if name not in DAYS:
                raise ValueError(f"{name!r} is no day; the days are {', '.join(DAYS)}")
        begin = DAYS.index(first)
        length = (DAYS.index(last) - begin) % 7 + 1 if dash else 1
        found |= {(begin + step) % 7 for step in range(length)}
    return frozenset(found)
