"""When the levels of a plan begin again."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from config.section import Percent, Section, SomeDays


class Levels(Section):
    """When `auto` begins the levels again: with a *restart*, a low level on the same level 0, or with a full backup.

    Without any of these a plan goes on to `max_level`, and then begins with a full backup. A level that a request names
    itself is never changed.
    """

    restart_after_level: Annotated[int, Field(ge=1, le=99)] | None = None
    """The highest level before a restart: what would be above it becomes a low level again, by default level 1."""
    restart_after_days: SomeDays | None = None
    """The age of the last restart (or, without one, of the last level 1) after which the next backup restarts."""
    restart_below_percent: Percent | None = None
    """A restart takes the lowest level whose last backup was at most this large, in percent of its level 0: a level 1
    that has grown beyond it is left in place, and the restart begins above it."""
    full_after_restarts: Annotated[int, Field(ge=0, le=1_000)] | None = None
    """How many restarts one level 0 may have: the backup after the last of them is a full one. With 0 a full one takes
    the place of the first restart."""
    full_after_days: SomeDays | None = None
    """The age of level 0 after which the next backup is a full one."""
    full_above_percent: Percent | None = None
    """The size of all levels above level 0 of the chain together, in percent of level 0, from which on a full backup
    is made: the chain would take longer to restore than it saves."""
