"""The page about levels keeps its word."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest

from config.levels import Levels
from config.settings import Plan
from tests.workshop.histories import Diary

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "levels.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (none|`[a-z_]+: .*?) \| ([0-9 ]+) \|$", PAGE, re.MULTILINE)
DEFAULT_MAX_LEVEL = Plan.model_fields["max_level"].default


@pytest.mark.parametrize(("settings", "levels"), ROWS, ids=[settings for settings, _ in ROWS])
def test_levels_of_the_table_are_those_that_are_chosen(settings: str, levels: str) -> None:
    """Each row, day by day."""
    given = {name: orjson.loads(value) for name, value in re.findall(r"`([a-z_]+): ([^`]+)`", settings)}
    max_level = given.pop("max_level", DEFAULT_MAX_LEVEL)
    shown = [int(level) for level in levels.split()]

    plan = Diary(Levels.model_validate(given), max_level=max_level, percent_a_day=4)

    assert plan.levels(len(shown)) == shown


def test_page_tells_of_every_setting() -> None:
    """In its text, and in a sequence of levels."""
    shown = {name for settings, _ in ROWS for name in re.findall(r"`([a-z_]+): ", settings)}

    assert shown == {*Levels.model_fields, "max_level"}
    assert set(re.findall(r"`levels\.([a-z_]+)`", PAGE)) == set(Levels.model_fields)
    assert f"`max_level` ({DEFAULT_MAX_LEVEL})" in PAGE


@pytest.mark.parametrize(("days", "distance"), [("7", 8), ("6.5", 7)])
def test_age_of_a_week_is_what_the_page_says(days: str, distance: int) -> None:
    """One needs half a day less than the distance that one has in mind."""
    assert "`full_after_days: 7` makes every eighth backup a full one, `6.5` every seventh" in " ".join(PAGE.split())

    levels = Diary(Levels(full_after_days=float(days))).levels(distance + 1)

    assert [day for day, level in enumerate(levels) if level == 0] == [0, distance]


def test_low_level_on_request_goes_on_as_the_page_says() -> None:
    """After 0, 1, 2, 3 and a request for level 1."""
    plan = Diary()
    plan.levels(4)

    asked, after = plan.back_up(1), plan.back_up()

    assert (asked.level, after.level, after.parent) == (1, 2, asked.backup_id)
