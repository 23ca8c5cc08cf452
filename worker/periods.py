"""Knows which hour, day, week, month and year a moment belongs to, by the clock on the wall.

Pure. Where clocks are put back, the hour that comes twice is two hours; weeks are those of ISO 8601: they begin on
Monday, and belong to the year that has most of their days.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

Name = Literal["hourly", "daily", "weekly", "monthly", "yearly"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One kind of period. All functions take a moment as the wall has it: an aware datetime in the zone that counts."""

    name: Name
    noun: str
    number: Callable[[datetime], int]
    """The period's number: the same within a period, larger in later ones."""
    step: int
    """By how much the numbers of two neighbours differ."""
    label: Callable[[datetime], str]
    """What a person calls the period."""


def _hour(wall: datetime) -> int:
    # In seconds, and with the moment's own offset: the second hour of two with the same name has another one. In zones
    # that are put forward or back by half an hour, two hours of that day are half an hour apart.
    begin = wall.replace(minute=0, second=0, microsecond=0, tzinfo=UTC)
    offset = wall.utcoffset()
    return int((begin - offset if offset else begin).timestamp())


def _hour_label(wall: datetime) -> str:
    twice = wall.replace(fold=0).utcoffset() != wall.replace(fold=1).utcoffset()
    return f"{wall:%Y-%m-%d %H:00}{f'{wall:%z}' if twice else ''}"


def _week_label(wall: datetime) -> str:
    year, week, _ = wall.isocalendar()
    return f"{year}-W{week:02}"


UNITS: Final[Sequence[Unit]] = (
    Unit(name="hourly", noun="hour", number=_hour, step=3600, label=_hour_label),
    Unit(name="daily", noun="day", number=datetime.toordinal, step=1, label=lambda wall: f"{wall:%Y-%m-%d}"),
    # Day 1 was a Monday.
    Unit(name="weekly", noun="week", number=lambda wall: (wall.toordinal() - 1) // 7, step=1, label=_week_label),
    Unit(
        name="monthly",
        noun="month",
        number=lambda wall: wall.year * 12 + wall.month,
        step=1,
        label=lambda wall: f"{wall:%Y-%m}",
    ),
    Unit(name="yearly", noun="year", number=lambda wall: wall.year, step=1, label=lambda wall: f"{wall:%Y}"),
)
