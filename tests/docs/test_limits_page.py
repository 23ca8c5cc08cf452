"""The page about limits keeps its word."""

from __future__ import annotations

import os
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from config.hours import parse_hours
from config.load import load
from config.settings import Limits, Plan, Settings
from tests.workshop.workers import HOLDFAST
from worker.windows import is_open, opens_at

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")
NEW_SETTINGS = {"time_zone", "handler_concurrency", "accept_ahead"}


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """The configuration of the page, as a file."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def test_sample_is_a_configuration(sample: Path) -> None:
    """`holdfast config check` takes it as it stands."""
    done = subprocess.run([HOLDFAST, "--config", sample, "config", "check"], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


def test_sample_shows_every_limit(sample: Path) -> None:
    """Whoever copies it sees all there is."""
    settings = load(sample, environ={}).settings
    archive = settings.plans["archive"]

    assert NEW_SETTINGS < settings.model_fields_set <= set(Settings.model_fields)
    assert {"priority", "allowed_hours", "limits"} < archive.model_fields_set <= set(Plan.model_fields)
    assert archive.limits.model_fields_set == set(Limits.model_fields)


def test_sample_means_at_night_and_all_weekend(sample: Path) -> None:
    """As the comment beside it says."""
    settings = load(sample, environ={}).settings
    assert settings.time_zone is not None
    zone = ZoneInfo(settings.time_zone)
    hours = tuple(map(parse_hours, settings.plans["archive"].allowed_hours))
    friday = datetime(2026, 11, 20, tzinfo=zone)

    assert [hour for hour in range(24) if is_open(hours, friday.replace(hour=hour), zone)] == [0, 1, 2, 3, 4, 5, 22, 23]
    assert opens_at(hours, friday.replace(hour=7), zone) == friday.replace(hour=22)
    saturday = friday + timedelta(days=1)
    assert all(is_open(hours, saturday + timedelta(hours=hour), zone) for hour in range(48 + 6))


def test_stretches_of_the_page_mean_what_it_says() -> None:
    """Each that stands in the text can be written; the ones with a claim beside them keep it."""
    written = re.findall(r"`((?:[a-z,-]+ )?\d\d:\d\d-\d\d:\d\d)`", PAGE)
    zone = ZoneInfo("Europe/Berlin")
    friday = (parse_hours("fri 22:00-06:00"),)
    skipped = (parse_hours("02:00-03:00"),)
    workdays = (parse_hours("mon-fri 22:00-06:00"),)

    assert {"fri 22:00-06:00", "02:00-03:00", "00:00-24:00", "mon-fri 22:00-06:00"} <= set(written)
    for text in written:
        parse_hours(text)
    for text in re.findall(r"`((?:mon|tue|wed|thu|fri|sat|sun)[a-z,-]*)`", PAGE):
        parse_hours(f"{text} 00:00-24:00")
    assert is_open(friday, datetime(2026, 11, 21, 5, 59, tzinfo=zone), zone)
    assert not is_open(friday, datetime(2026, 11, 21, 6, 0, tzinfo=zone), zone)
    assert not is_open(workdays, datetime(2026, 11, 23, 5, 59, tzinfo=zone), zone)
    assert opens_at(skipped, datetime(2026, 3, 29, tzinfo=UTC), zone) == datetime(2026, 3, 29, 1, tzinfo=UTC)


@pytest.mark.skipif(os.name != "posix", reason="ps of Linux")
def test_ways_to_see_it_exist() -> None:
    """The commands of the table can be typed."""
    shown = subprocess.run(["ps", "-eLo", "pid,tid,ni,comm"], capture_output=True, text=True)

    assert "`ps -eLo pid,tid,ni,comm`" in PAGE
    assert shown.returncode == 0
    assert shown.stdout.split("\n")[0].split() == ["PID", "TID", "NI", "COMMAND"]
