"""Looks for what would keep indicators from being seen, or from being answered; changes nothing."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping

from config.indicators import Indicators
from handlers.errors import HoldfastError
from worker.intake.indicator_acts import Acts
from worker.intake.indicator_places import Pattern, Place, all_places
from worker.intake.indicator_tree import WATCH_LIMIT
from worker.intake.spool_dirs import shown

_NAMED = 3


def survey(indicators: Mapping[str, Indicators], plans: Collection[str]) -> Iterator[tuple[str, str, str | None]]:
    """For each name in the configuration: the name, what was seen, and a hint where something is to be done."""
    found = {
        name: list(all_places([Pattern.parse(text) for text in each.directories])) for name, each in indicators.items()
    }
    # The directories that lead there are watched, too; not many, as a rule.
    wanted = sum(len(places) for places in found.values())
    for name, each in indicators.items():
        places = found[name]
        seen = f"{len(places):,} {'directory' if len(places) == 1 else 'directories'}"
        yield name, *(_problem(each, places, plans) or _limit(wanted) or (seen, None))


def _problem(indicators: Indicators, places: list[Place], plans: Collection[str]) -> tuple[str, str] | None:
    if not places:
        return f"no directory is there: {', '.join(indicators.directories)}", "they are found when they are made"
    try:
        acts = [Acts.of(indicators.on_success), Acts.of(indicators.on_failure)]
    except HoldfastError as error:
        return error.message, error.hint or ""
    nameless = [place for place in places if indicators.plan.replace("{directory}", place.name) not in plans]
    if nameless:
        return f"no plan for {_some(nameless)}", f"the plan would be {indicators.plan!r}; their indicators are refused"
    closed = [place for place in places if not os.access(place.path, os.R_OK | os.X_OK)]
    if closed:
        return f"uid {os.geteuid()} may not read {_some(closed)}", "what cannot be read is looked at now and then"
    sealed = [place for place in places if not os.access(place.path, os.W_OK)]
    if sealed and any(each.any for each in acts):
        return f"uid {os.geteuid()} may not write in {_some(sealed)}", "their indicators are not answered"
    return None


def _limit(wanted: int) -> tuple[str, str] | None:
    try:
        limit = int(WATCH_LIMIT.read_text())
    except (OSError, ValueError):
        return None
    if wanted < 0.9 * limit:
        return None
    return (
        f"{wanted:,} directories are to be watched, the kernel allows {limit:,} for all programs of a user",
        f"sysctl -w fs.inotify.max_user_watches={2 * wanted}",
    )


def _some(places: list[Place]) -> str:
    named = ", ".join(shown(place.path) for place in places[:_NAMED])
    return named if len(places) <= _NAMED else f"{named} and {len(places) - _NAMED:,} more"
