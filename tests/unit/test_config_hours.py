"""When, how eagerly, how gently plans run: what an operator may write, and what is said of mistakes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.hours import DAYS, Hours, parse_hours
from config.load import load
from config.problems import ConfigError, Problem
from config.settings import Limits, Settings

EVERY_DAY = frozenset(range(7))
PLAN = "stores:\n  nas: {kind: local, path: /srv/backups}\nplans:\n  web:\n    handler: tar\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A place for a configuration file, not written yet."""
    return tmp_path / "config.yaml"


def loaded(file: Path, text: str) -> Settings:
    """The settings of a configuration whose last plan goes on with the text."""
    file.write_text(text)
    return load(file, environ={}).settings


def problems_of(file: Path, text: str) -> dict[str, Problem]:
    """The problems of the text by path; it must have some."""
    with pytest.raises(ConfigError) as caught:
        loaded(file, text)
    return {problem.path: problem for problem in caught.value.problems}


# --- hours


@pytest.mark.parametrize(
    ("text", "days", "start", "end"),
    [
        ("22:00-06:00", EVERY_DAY, 1320, 360),
        ("00:00-24:00", EVERY_DAY, 0, 1440),
        ("22:30-00:00", EVERY_DAY, 1350, 0),
        ("00:00-00:01", EVERY_DAY, 0, 1),
        ("mon 01:02-03:04", {0}, 62, 184),
        ("mon-fri 20:00-07:00", {0, 1, 2, 3, 4}, 1200, 420),
        ("sat,sun 00:00-24:00", {5, 6}, 0, 1440),
        ("fri-mon 08:00-09:00", {4, 5, 6, 0}, 480, 540),
        ("mon-wed,fri,sat-sun 08:00-09:00", {0, 1, 2, 4, 5, 6}, 480, 540),
        ("mon-sun 08:00-09:00", EVERY_DAY, 480, 540),
        ("wed-wed 08:00-09:00", {2}, 480, 540),
        ("  Sat,SUN   08:00-09:00 ", {5, 6}, 480, 540),
    ],
)
def test_hours_are_read(text: str, days: frozenset[int], start: int, end: int) -> None:
    """With days, over midnight, round the end of the week, in any letter case."""
    assert parse_hours(text) == Hours(days=frozenset(days), start_minute=start, end_minute=end)


@given(
    days=st.lists(st.sampled_from(DAYS), min_size=1, unique=True),
    start=st.integers(0, 1439),
    end=st.integers(0, 1440),
)
def test_every_time_of_every_day_can_be_written(days: list[str], start: int, end: int) -> None:
    """And is read as it was written."""
    text = f"{','.join(days)} {start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}"

    if start == end:
        with pytest.raises(ValueError, match="ends when it begins"):
            parse_hours(text)
    else:
        found = parse_hours(text)
        assert found.days == {DAYS.index(day) for day in days}
        assert (found.start_minute, found.end_minute) == (start, end)


@given(st.one_of(st.text(), st.text(alphabet="0123456789:-, monfrisat")))
def test_any_text_is_hours_or_has_a_reason(text: str) -> None:
    """Nothing else is raised, and no reason is longer than a line."""
    found, reason = None, ""

    try:
        found = parse_hours(text)
    except ValueError as error:
        reason = str(error)

    if found is None:
        assert 0 < len(reason) < 120
    else:
        assert found.days
        assert 0 <= found.start_minute < 1440
        assert 0 <= found.end_minute <= 1440
        assert found.start_minute != found.end_minute


@pytest.mark.parametrize("text", ["a" * 200_000, "mon," * 50_000, "mon" + " " * 200_000, "mon-" * 50_000 + " 1"])
def test_no_text_takes_long(text: str) -> None:
    """A slip of the editor is no reason to hang."""
    began = time.monotonic()

    with pytest.raises(ValueError, match=r"form|days"):
        parse_hours(text)

    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("22-06", "is not of the form `22:00-06:00` or `mon-fri 22:00-06:00`"),
        ("9:00-17:00", "is not of the form"),
        ("22:00 to 06:00", "is not of the form"),
        ("22:60-06:00", "is not of the form"),
        ("''", "is not of the form"),
        ("mon-fri", "names days without a time; quote a text with a comma in it"),
        ("25:00-26:00", "25:00 is no time of day; they go from 00:00 to 24:00"),
        ("22:00-24:01", "24:01 is no time of day"),
        ("24:00-06:00", "begins at 24:00, which is 00:00 of the next day"),
        ("06:00-06:00", "ends when it begins; `00:00-24:00` is a whole day"),
        ("monday 22:00-06:00", "'monday' is no day; the days are mon, tue, wed, thu, fri, sat, sun"),
        ("mon- 22:00-06:00", "'' is no day"),
        ("'mon,,tue 22:00-06:00'", "'' is no day"),
        ("mon-tue-wed 22:00-06:00", "'tue-wed' is no day"),
    ],
)
def test_what_is_wrong_with_hours_is_told_in_words(file: Path, written: str, message: str) -> None:
    """With the path, the line, what was written, and how it should look."""
    (problem,) = problems_of(file, f"{PLAN}    allowed_hours:\n      - 20:00-21:00\n      - {written}\n").values()

    assert problem.path == "plans.web.allowed_hours[1]"
    assert message in problem.message
    assert problem.value is not None
    assert written.strip("'") in problem.value
    assert problem.hint == "for instance `mon-fri 22:00-06:00`"
    assert problem.where == f"{file}:8"


def test_a_comma_that_cuts_a_list_is_explained(file: Path) -> None:
    """`sat,sun ...` in brackets without quotes are two texts, of which the first is no hours."""
    problems = problems_of(file, f"{PLAN}    allowed_hours: [sat,sun 00:00-24:00]\n")

    assert list(problems) == ["plans.web.allowed_hours[0]"]
    assert "quote a text with a comma" in problems["plans.web.allowed_hours[0]"].message


def test_a_problem_with_endless_days_stays_one_line(file: Path) -> None:
    """What was given is shortened in the message, too."""
    (problem,) = problems_of(file, f"{PLAN}    allowed_hours: [{'x' * 5_000} 00:00-24:00]\n").values()

    assert len(str(problem)) < 800


# --- the settings around them


def test_settings_are_taken(file: Path) -> None:
    """All of them together, quoted or not."""
    text = f"""\
time_zone: America/New_York
handler_concurrency: {{tar: 1}}
accept_ahead: 20
{PLAN}    priority: 9
    allowed_hours: ['sat,sun 00:00-24:00', 22:00-06:00]
    limits: {{nice: 19, io_class: idle, bandwidth_bytes_per_second: 2000000}}
"""

    settings = loaded(file, text)

    plan = settings.plans["web"]
    assert settings.time_zone == "America/New_York"
    assert (settings.handler_concurrency, settings.accept_ahead) == ({"tar": 1}, 20)
    assert plan.priority == 9
    assert plan.allowed_hours == ("sat,sun 00:00-24:00", "22:00-06:00")
    assert plan.limits == Limits(nice=19, io_class="idle", bandwidth_bytes_per_second=2_000_000)


def test_nothing_is_limited_by_default(file: Path) -> None:
    """A plan runs at any hour, at full speed, as urgent as any other."""
    settings = loaded(file, PLAN)

    plan = settings.plans["web"]
    assert settings.time_zone is None
    assert (plan.priority, plan.allowed_hours) == (5, ())
    assert plan.limits == Limits(nice=0, io_class="normal", bandwidth_bytes_per_second=None)


@pytest.mark.parametrize(
    "zone", ["Mars/Olympus", "Europe", "../etc/passwd", "/etc/localtime", "''", "CET-1CEST", "x" * 900]
)
def test_time_zones_that_are_not_known_are_told(file: Path, zone: str) -> None:
    """A name is looked up, never a path."""
    (problem,) = problems_of(file, f"time_zone: {zone}\n").values()

    assert problem.path == "time_zone"
    assert "no time zone" in problem.message
    assert problem.value is not None
    assert problem.hint is not None
    assert "Europe/Berlin" in problem.hint
    assert problem.where == f"{file}:1"
    assert len(str(problem)) < 800


@pytest.mark.parametrize(
    ("setting", "path", "message"),
    [
        ("allowed_hours: 22:00-06:00", "allowed_hours", "must be a list"),
        ("allowed_hours: [22]", "allowed_hours[0]", "must be text"),
        ("priority: 10", "priority", "at most 9"),
        ("priority: -1", "priority", "at least 0"),
        ("priority: high", "priority", "whole number"),
        ("limits: {nice: 20}", "limits.nice", "at most 19"),
        ("limits: {nice: -1}", "limits.nice", "at least 0"),
        ("limits: {io_class: slow}", "limits.io_class", "'normal', 'low' or 'idle'"),
        ("limits: {bandwidth_bytes_per_second: 1023}", "limits.bandwidth_bytes_per_second", "at least 1024"),
        ("limits: {bandwidth_bytes_per_second: 2MB}", "limits.bandwidth_bytes_per_second", "whole number"),
        ("limits: {bandwith: 5000}", "limits.bandwith", "unknown"),
        ("limits: 5", "limits", "mapping"),
    ],
)
def test_limits_that_make_no_sense_are_told(file: Path, setting: str, path: str, message: str) -> None:
    """Each with its path, its line, its value and what would do."""
    (problem,) = problems_of(file, f"{PLAN}    {setting}\n").values()

    assert problem.path == f"plans.web.{path}"
    assert message in problem.message
    assert problem.value is not None
    assert problem.where == f"{file}:6"


def test_concurrency_of_a_handler_is_at_least_one(file: Path) -> None:
    """None at all would leave its requests waiting for ever; `enabled: false` refuses them."""
    (problem,) = problems_of(file, "handler_concurrency: {tar: 0}\n").values()

    assert problem.path == "handler_concurrency.tar"
    assert "at least 1" in problem.message
