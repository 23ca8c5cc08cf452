"""Decides when an operator's hours let work begin.

Pure. The clock on the wall decides, in the time zone that comes in. Where clocks are put back, the repeated time counts
both times; where they are put forward, what is left of the hours counts. Hours that are skipped as a whole would cost a
weekly backup a week: they are open right where they would have been had the clocks gone on, so `02:00-03:00` is open
from 03:00 to 04:00 by the new time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final

from config.hours import Hours

_MINUTE: Final = timedelta(minutes=1)
_DAY: Final = timedelta(days=1)
_SEARCHED_DAYS: Final = 9
"""Hours recur each week; the rest is for clocks put forward or back."""
_LOOK_SECONDS: Final = 12 * 60 * 60
"""No zone has changed its clocks twice within so short a time."""

_Stretch = tuple[datetime, datetime]
"""Begin and end by the clock on the wall, without a zone; end is not in it."""


def is_open(hours: Sequence[Hours], now: datetime, zone: tzinfo) -> bool:
    """Whether work may begin now, an aware datetime; always where there are no hours."""
    if not hours:
        return True
    moment = now.astimezone(UTC)
    wall = moment.astimezone(zone)
    if any(_holds(one, wall) for one in hours):
        return True
    if zone.utcoffset(wall) == zone.utcoffset((moment - _DAY).astimezone(zone)):
        return False
    # Clocks were changed within a day: something may have been skipped as a whole.
    return any(
        _is_skipped(stretch, zone) and timedelta(0) <= moment - _instant(stretch[0], zone) < stretch[1] - stretch[0]
        for stretch in _stretches(hours, wall.date() - _DAY, 2)
    )


def opens_at(hours: Sequence[Hours], now: datetime, zone: tzinfo) -> datetime | None:
    """The first moment from now on, an aware datetime, at which work may begin; now itself where it may.

    Never more than 8 days ahead; None where it never may, because no hours begin on any day.
    """
    if is_open(hours, now, zone):
        return now
    moment = now.astimezone(UTC)
    # Hours can only open where a stretch begins (once, or twice in a repeated hour) and where clocks jump into one.
    possible = set(_clock_changes(moment, zone))
    for begin, _ in _stretches(hours, moment.astimezone(zone).date() - _DAY, _SEARCHED_DAYS + 1):
        possible |= {_instant(begin, zone), _instant(begin.replace(fold=1), zone)}
    return next((at for at in sorted(possible) if at > moment and is_open(hours, at, zone)), None)


def _holds(hours: Hours, wall: datetime) -> bool:
    minute, day = wall.hour * 60 + wall.minute, wall.weekday()
    if hours.start_minute < hours.end_minute:
        return day in hours.days and hours.start_minute <= minute < hours.end_minute
    begun_today = day in hours.days and minute >= hours.start_minute
    begun_yesterday = (day - 1) % 7 in hours.days and minute < hours.end_minute
    return begun_today or begun_yesterday


def _stretches(hours: Sequence[Hours], first: date, days: int) -> Iterator[_Stretch]:
    """The stretches that begin on these days."""
    for number in range(days):
        midnight = datetime.combine(first + number * _DAY, time())
        for one in hours:
            if midnight.weekday() in one.days:
                minutes = one.end_minute - one.start_minute
                begin = midnight + one.start_minute * _MINUTE
                yield begin, begin + minutes * _MINUTE + (_DAY if minutes <= 0 else timedelta(0))


def _is_skipped(stretch: _Stretch, zone: tzinfo) -> bool:
    begin, end = stretch
    return not _exists(begin, zone) and not _exists(end - _MINUTE, zone)


def _exists(wall: datetime, zone: tzinfo) -> bool:
    return _instant(wall, zone).astimezone(zone).replace(tzinfo=None) == wall


def _instant(wall: datetime, zone: tzinfo) -> datetime:
    """When the wall says so; for a time that is skipped (PEP 495, fold=0), when it would have without the jump."""
    return wall.replace(tzinfo=zone).astimezone(UTC)


def _clock_changes(begin: datetime, zone: tzinfo) -> Iterator[datetime]:
    """The first seconds by a new offset, in the days that are searched."""
    earlier = begin.replace(microsecond=0)
    for _ in range(_SEARCHED_DAYS * int(_DAY.total_seconds()) // _LOOK_SECONDS):
        old, low, high = _offset(earlier, zone), 0, _LOOK_SECONDS
        if _offset(earlier + timedelta(seconds=high), zone) != old:
            while high - low > 1:
                middle = (low + high) // 2
                if _offset(earlier + timedelta(seconds=middle), zone) == old:
                    low = middle
                else:
                    high = middle
            yield earlier + timedelta(seconds=high)
        earlier += timedelta(seconds=_LOOK_SECONDS)


def _offset(moment: datetime, zone: tzinfo) -> timedelta | None:
    return moment.astimezone(zone).utcoffset()
