"""When work may begin: by the clock on the wall, through every change of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.hours import Hours, parse_hours
from worker.windows import is_open, opens_at

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
BERLIN = ZoneInfo("Europe/Berlin")

FORTNIGHTS = {
    ("Europe/Berlin", "forward"): date(2026, 3, 22),
    ("Europe/Berlin", "back"): date(2026, 10, 18),
    ("America/New_York", "forward"): date(2026, 3, 1),
    ("America/New_York", "back"): date(2026, 10, 25),
    ("Australia/Lord_Howe", "forward, by half an hour"): date(2026, 9, 27),
    ("Australia/Lord_Howe", "back, by half an hour"): date(2026, 3, 29),
    ("America/Santiago", "forward, at midnight"): date(2026, 8, 30),
    ("America/Santiago", "back, at midnight"): date(2026, 3, 29),
    ("Pacific/Apia", "forward, by a whole day"): date(2011, 12, 24),
    ("Asia/Kathmandu", "never"): date(2026, 3, 22),
}
"""The first day of two weeks with a change of the clocks in their middle."""


def hours(*texts: str) -> tuple[Hours, ...]:
    return tuple(parse_hours(text) for text in texts)


def local(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold)


def opening(allowed: Sequence[Hours], now: datetime, zone: ZoneInfo = BERLIN) -> str:
    """When work may begin, as the wall there has it."""
    found = opens_at(allowed, now, zone)
    assert found is not None
    return f"{found.astimezone(zone):%a %d %H:%M:%S%z}"


# --- days and hours


def test_no_hours_are_all_hours() -> None:
    """The default of a plan."""
    now = local("2026-11-21 12:34:56.789")

    assert is_open((), now, BERLIN)
    assert opens_at((), now, BERLIN) is now


def test_while_open_the_opening_is_now() -> None:
    """To the microsecond, in whatever zone it came in."""
    now = local("2026-11-21 12:34:56.789")

    assert opens_at(hours("12:00-13:00"), now, BERLIN) is now


@pytest.mark.parametrize(
    ("text", "now", "opens"),
    [
        ("22:00-23:00", "2026-11-21 21:59:59.999999", "Sat 21 22:00:00+0100"),
        ("22:00-23:00", "2026-11-21 23:00", "Sun 22 22:00:00+0100"),
        ("22:00-06:00", "2026-11-21 06:00", "Sat 21 22:00:00+0100"),
        ("22:00-00:00", "2026-11-21 00:00", "Sat 21 22:00:00+0100"),
        ("00:00-24:00", "2026-11-21 00:00", "Sat 21 00:00:00+0100"),
        ("mon 00:00-24:00", "2026-11-21 12:00", "Mon 23 00:00:00+0100"),
        ("fri 22:00-06:00", "2026-11-21 05:59", "Sat 21 05:59:00+0100"),
        ("fri 22:00-06:00", "2026-11-21 06:00", "Fri 27 22:00:00+0100"),
        ("sun 22:00-06:00", "2026-11-23 05:59", "Mon 23 05:59:00+0100"),
        ("sun 22:00-06:00", "2026-11-22 05:00", "Sun 22 22:00:00+0100"),
        ("fri-mon 08:00-09:00", "2026-11-24 08:30", "Fri 27 08:00:00+0100"),
    ],
)
def test_hours_of_a_week(text: str, now: str, opens: str) -> None:
    """The end is not in it; a stretch over midnight belongs to the day it begins on."""
    assert opening(hours(text), local(now)) == opens


def test_the_nearest_of_several_stretches_opens() -> None:
    """In whatever order they are written."""
    allowed = hours("mon-fri 22:00-06:00", "sat,sun 00:00-24:00", "12:00-12:30")

    assert opening(allowed, local("2026-11-20 07:00")) == "Fri 20 12:00:00+0100"
    assert opening(allowed, local("2026-11-20 12:30")) == "Fri 20 22:00:00+0100"
    assert opening(allowed, local("2026-11-21 17:00")) == "Sat 21 17:00:00+0100"


def test_hours_without_a_day_never_open() -> None:
    """Nothing that is written in a configuration is like this."""
    never = (Hours(days=frozenset(), start_minute=0, end_minute=60),)

    assert opens_at(never, local("2026-11-21 00:30"), BERLIN) is None


# --- clocks put forward: Berlin, Sunday 2026-03-29, 02:00 -> 03:00


@pytest.mark.parametrize(
    ("text", "opens"),
    [
        ("02:00-03:00", "Sun 29 03:00:00+0200"),
        ("sun 02:15-02:45", "Sun 29 03:15:00+0200"),
        ("02:30-04:00", "Sun 29 03:00:00+0200"),
        ("01:30-02:30", "Sun 29 01:30:00+0100"),
        ("03:00-03:30", "Sun 29 03:00:00+0200"),
        ("sat 23:00-02:30", "Sun 29 00:00:00+0100"),
    ],
)
def test_openings_in_the_night_in_which_an_hour_is_skipped(text: str, opens: str) -> None:
    """What is left of the hours is used; hours that are skipped as a whole come as if the clocks had gone on."""
    assert opening(hours(text), local("2026-03-29 00:00")) == opens


def test_skipped_hours_end_after_their_length() -> None:
    """And come at their time the day after."""
    allowed = hours("02:15-02:45")

    assert is_open(allowed, local("2026-03-29 03:44:59"), BERLIN)
    assert opening(allowed, local("2026-03-29 03:45")) == "Mon 30 02:15:00+0200"


def test_hours_of_which_a_part_is_left_are_not_made_longer() -> None:
    """Who wrote `-02:30` has other plans for later."""
    allowed = hours("20:00-02:30")

    assert is_open(allowed, local("2026-03-29 01:59:59"), BERLIN)
    assert opening(allowed, local("2026-03-29 03:00")) == "Sun 29 20:00:00+0200"


# --- clocks put back: Berlin, Sunday 2026-10-25, 03:00 -> 02:00


def test_a_repeated_hour_is_open_both_times() -> None:
    """The wall says the same twice."""
    allowed = hours("02:00-02:30")

    assert is_open(allowed, local("2026-10-25 02:15"), BERLIN)
    assert not is_open(allowed, local("2026-10-25 02:45"), BERLIN)
    assert opening(allowed, local("2026-10-25 02:45")) == "Sun 25 02:00:00+0100"
    assert is_open(allowed, local("2026-10-25 02:15", fold=1), BERLIN)
    assert opening(allowed, local("2026-10-25 02:30", fold=1)) == "Mon 26 02:00:00+0100"


def test_clocks_may_be_put_back_into_open_hours() -> None:
    """They open at the change, not at a time that anybody wrote."""
    allowed = hours("01:00-02:30")

    assert opening(allowed, local("2026-10-25 02:40")) == "Sun 25 02:00:00+0100"
    assert opening(hours("02:15-02:45"), local("2026-10-25 02:50")) == "Sun 25 02:15:00+0100"


# --- properties


@st.composite
def allowed_hours(draw: st.DrawFn) -> tuple[Hours, ...]:
    """As the configuration may have them; often near midnight and 02:00, where clocks are changed."""
    minutes = st.one_of(st.integers(0, 240), st.sampled_from([0, 90, 105, 120, 135, 150, 180, 1380, 1410]))
    minute = st.one_of(minutes, st.integers(0, 1439))
    stretches = []
    for _ in range(draw(st.integers(1, 3))):
        start = draw(minute)
        end = draw(st.one_of(st.just(1440), minute).filter(start.__ne__))
        days = draw(st.frozensets(st.integers(0, 6), min_size=1))
        stretches.append(Hours(days=days, start_minute=start, end_minute=end))
    return tuple(stretches)


@cache
def walls(zone: str, first: date) -> tuple[tuple[datetime, datetime, datetime], ...]:
    """Each minute of the UTC line, what the wall says then, and what it would say had nothing changed for a day."""
    line = []
    moment = datetime.combine(first, time(), tzinfo=UTC)
    for _ in range(16 * 24 * 60):
        wall = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        before = (moment - DAY).astimezone(ZoneInfo(zone)).replace(tzinfo=None) + DAY
        line.append((moment, wall, before))
        moment += MINUTE
    return tuple(line)


def walked(allowed: Sequence[Hours], zone: str, first: date) -> list[datetime]:
    """The minutes that are open, found by walking: what a person with a calendar and a clock would do."""
    line = walls(zone, first)
    found: set[datetime] = set()
    for number in range(-3, 20):
        midnight = datetime.combine(first + number * DAY, time())
        for one in allowed:
            if midnight.weekday() not in one.days:
                continue
            begin = midnight + one.start_minute * MINUTE
            end = midnight + one.end_minute * MINUTE + (DAY if one.end_minute <= one.start_minute else 0 * DAY)
            near = range(max(0, (number - 1) * 1440), max(0, min(len(line), (number + 3) * 1440)))
            open_then = {line[at][0] for at in near if begin <= line[at][1] < end}
            if not open_then:
                open_then = {line[at][0] for at in near if begin <= line[at][2] < end}
            found |= open_then
    return sorted(found)


@pytest.mark.parametrize(("zone", "change"), FORTNIGHTS, ids=" ".join)
@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(allowed=allowed_hours(), at=st.floats(0, 1))
def test_openings_are_those_that_a_walk_through_a_fortnight_finds(
    zone: str, change: str, allowed: tuple[Hours, ...], at: float
) -> None:
    """Minute by minute, in both directions of every kind of change."""
    first = FORTNIGHTS[zone, change]
    open_minutes = walked(allowed, zone, first)
    inside = set(open_minutes)
    line = [moment for moment, _, _ in walls(zone, first)][1440:]
    there = ZoneInfo(zone)

    for moment in line[:: 7 * 60 + 13]:
        assert is_open(allowed, moment, there) == (moment in inside)
    now = line[int(at * 6 * 1440)]
    assert opens_at(allowed, now, there) == next((moment for moment in open_minutes if moment >= now), None)


@pytest.mark.slow
@settings(deadline=None)
@given(
    allowed=allowed_hours(),
    zone=st.sampled_from([ZoneInfo(zone) for zone, _ in FORTNIGHTS]),
    minutes=st.floats(0, 40 * 366 * 24 * 60),
    part=st.floats(0, 1, exclude_max=True),
)
def test_nothing_opens_before_its_opening(
    allowed: tuple[Hours, ...], zone: ZoneInfo, minutes: float, part: float
) -> None:
    """It is open then, closed until then, and never more than 8 days away."""
    now = datetime(2000, 1, 1, tzinfo=UTC) + minutes * MINUTE

    found = opens_at(allowed, now, zone)

    assert found is not None
    assert is_open(allowed, found, zone)
    assert now <= found <= now + 8 * DAY
    assert found == now or not is_open(allowed, now + part * (found - now), zone)
