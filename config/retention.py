"""Which backups of a plan are kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from config.section import Days, Section

Count = Annotated[int, Field(ge=0, le=100_000)]
Periods = Count | Literal["always"]


class Retention(Section):
    """Which backups are kept when others expire: a backup stays if any of these rules wants it.

    With no rule at all nothing expires. Whatever the rules, these stay: what another backup that stays is built upon,
    what is pinned with `holdfast keep`, the newest complete backup, the newest one that can be restored, the newest
    verified one, and what is dated in the future. Backups expire after each backup of the plan, once the new one is
    verified, and with `holdfast expire`.
    """

    latest: Count = 0
    """Keep this many of the newest backups."""
    within_days: Days = 0
    """Keep every backup that is not older than this."""
    hourly: Periods = 0
    """Keep one backup of each of so many hours; `always`: of every hour there ever was."""
    daily: Periods = 0
    """Keep one backup of each of so many days."""
    weekly: Periods = 0
    """Keep one backup of each of so many weeks; weeks begin on Monday (ISO 8601)."""
    monthly: Periods = 0
    """Keep one backup of each of so many months."""
    yearly: Periods = 0
    """Keep one backup of each of so many years."""
    minimum: Annotated[int, Field(ge=1, le=100_000)] = 1
    """The newest complete backups, so many, always stay, whatever the other rules say."""
    prefer: Literal["newest", "oldest"] = "newest"
    """Which backup of an hour, day, week, month or year is the one that is kept."""
    count: Literal["backups", "calendar"] = "backups"
    """What the numbers count: periods that have a backup, or periods of the calendar back from now, with or without."""

    @property
    def keeps_all(self) -> bool:
        """Whether no rule is set, so that nothing expires."""
        rules = (self.latest, self.within_days, self.hourly, self.daily, self.weekly, self.monthly, self.yearly)
        return not any(rules)
