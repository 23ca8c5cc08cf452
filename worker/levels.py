"""Decides which level a backup has, which sets a restore needs.

Pure. All there is to know stands in the plan's manifests; the reason for each choice ends up in the new one.
`docs/levels.md` tells an operator the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from types import MappingProxyType
from typing import Final, Literal

from config.levels import Levels
from handlers.contract import BackupId
from handlers.errors import IntegrityError, PermanentError
from worker.manifest import Manifest

Wanted = Literal["auto", "full", "incremental"] | int

_DAY: Final = timedelta(days=1)


class ChainBroken(IntegrityError):
    """A set that another one builds on is missing."""


class LevelRefused(PermanentError):
    """The level that was asked for cannot be made."""

    exit_code = 4


NOTHING: Mapping[BackupId, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The level to make."""

    level: int
    parent: Manifest | None
    reason: str
    restarts: int = 0
    """For the manifest: how often the plan has begun its levels again since level 0 of the chain."""


def newest(manifests: Iterable[Manifest]) -> Manifest | None:
    """The set that was finished last."""
    return max(manifests, key=lambda manifest: (manifest.finished, manifest.backup_id), default=None)


def levels_to_restore(
    manifests: Mapping[BackupId, Manifest], upto: BackupId, *, gone: str = "is missing"
) -> tuple[Manifest, ...]:
    """The manifests to apply, oldest first, ending with upto.

    Raises ChainBroken when a set's parent is missing or is no parent for it; nothing has been read yet. `gone` is what
    it says of a set that is not among the manifests.
    """
    chain: list[Manifest] = []
    wanted: BackupId | None = upto
    while wanted is not None:
        manifest = manifests.get(wanted)
        if manifest is None:
            needed_by = f", which {chain[-1].backup_id} builds on," if chain else ""
            raise ChainBroken(f"set {wanted}{needed_by} {gone}")
        if chain and manifest.level != chain[-1].level - 1:
            raise ChainBroken(
                f"set {chain[-1].backup_id} of level {chain[-1].level} cannot build on "
                f"{manifest.backup_id} of level {manifest.level}"
            )
        chain.append(manifest)
        wanted = BackupId(manifest.parent) if manifest.parent is not None else None
    if chain[-1].level != 0:
        raise ChainBroken(f"set {chain[-1].backup_id} of level {chain[-1].level} names no parent")
    return tuple(reversed(chain))


def live_chain(manifests: Sequence[Manifest], *, now: datetime) -> tuple[Manifest, ...]:
    """The chain that the next level goes on with, oldest first: that of the newest set. Empty where there is no set.

    A set that is dated in the future was made while a clock was wrong. As the newest it would hide all that is made
    from now on, for years perhaps: it counts only where there is no other. Raises ChainBroken as `levels_to_restore`.
    """
    tip = newest(manifest for manifest in manifests if manifest.finished <= now) or newest(manifests)
    if tip is None:
        return ()
    by_id = {manifest.id: manifest for manifest in manifests}
    # Of a set with a damaged manifest we know as little as of one that is missing.
    return levels_to_restore(by_id, tip.id, gone="is missing or has a damaged manifest")


def choose(
    wanted: Wanted,
    manifests: Sequence[Manifest],
    *,
    scope: str,
    max_level: int,
    policy: Levels,
    now: datetime,
    damaged: Mapping[BackupId, str] = NOTHING,
) -> Choice:
    """The level of the next set of a plan, given the sets the plan has.

    The policy and `max_level` are for `auto` alone; whatever else is asked for is made, as long as it can be restored.
    Where a set of the chain is missing or was found `damaged`, or the newest one has another scope (other excludes, for
    instance: what it left out would not be looked at again), the next set is a full one, whatever number was asked for.
    A partial set is built upon like any other: handlers try again what it could not read.

    Raises LevelRefused for a number that nothing can be built for.
    """
    if wanted in {"full", 0}:
        return _full("a full backup was asked for")
    if not manifests:
        return _nothing_there(wanted)
    try:
        chain = live_chain(manifests, now=now)
    except ChainBroken as error:
        return _full(f"the chain of the newest set is broken: {error.message}")
    rotten = next((link for link in chain if link.id in damaged), None)
    if rotten is not None:
        return _full(f"set {rotten.backup_id}, which the next level would need, was {damaged[rotten.id]}")
    if chain[-1].scope != scope:
        return _full(f"the plan's options have changed since set {chain[-1].backup_id}")
    if isinstance(wanted, int):
        choice = _numbered(wanted, chain)
    elif wanted == "incremental":
        choice = _next(chain)
    else:
        choice = _by_policy(chain, policy, max_level, now)
    ahead = newest(manifests)
    if ahead is not None and ahead.finished > now and ahead not in chain:
        choice = replace(choice, reason=f"{choice.reason}; set {ahead.backup_id}, dated in the future, is left aside")
    return choice


def _by_policy(chain: Sequence[Manifest], policy: Levels, max_level: int, now: datetime) -> Choice:
    full = _full_due(chain, policy, now)
    if full is not None:
        return _full(f"full backup: {full}")
    restart = _restart_due(chain, policy, now)
    if restart is None:
        choice = _next(chain)
    elif policy.full_after_restarts == 0:
        return _full(f"full backup: {restart}, and full_after_restarts is 0")
    else:
        choice = _restart(chain, policy, restart)
    if choice.level > max_level:
        return _full(f"full backup: level {choice.level} would be above level {max_level}, the highest the plan allows")
    return choice


def _full_due(chain: Sequence[Manifest], policy: Levels, now: datetime) -> str | None:
    """Why the next set has to be a full one, if it has to."""
    base, tip = chain[0], chain[-1]
    count, days, percent = policy.full_after_restarts, policy.full_after_days, policy.full_above_percent
    if count and tip.restarts >= count:
        had = "1 restart" if tip.restarts == 1 else f"{tip.restarts} restarts"
        return f"level 0 has had {had}, full_after_restarts is {count}"
    if days is not None and (age := _days_since(base, now)) > days:
        return f"level 0 is {_beyond(age, days)} days old, full_after_days is {_number(days)}"
    above = sum(manifest.counts.bytes_out for manifest in chain[1:])
    if percent is not None and above and _percent(above, base) >= percent:
        shown = _beyond(_percent(above, base), percent)
        return f"the levels above level 0 have {shown} % of its size, full_above_percent is {_number(percent)}"
    return None


def _restart_due(chain: Sequence[Manifest], policy: Levels, now: datetime) -> str | None:
    """Why the levels have to begin again, if they have to."""
    tip = chain[-1]
    if tip.level < 1:
        return None
    if policy.restart_after_level is not None and tip.level >= policy.restart_after_level:
        return f"level {tip.level + 1} would be above restart_after_level {policy.restart_after_level}"
    days = policy.restart_after_days
    last = _last_restart(chain)
    if days is not None and (age := _days_since(last, now)) > days:
        what = "the last restart" if last.restarts else "level 1"
        return f"{what} is {_beyond(age, days)} days old, restart_after_days is {_number(days)}"
    return None


def _last_restart(chain: Sequence[Manifest]) -> Manifest:
    """Where the levels of this chain, which has some, have begun."""
    begun = [child for parent, child in pairwise(chain) if child.level == 1 or child.restarts > parent.restarts]
    return begun[-1]


def _restart(chain: Sequence[Manifest], policy: Levels, why: str) -> Choice:
    """The lowest level that is small enough, or else the highest there is, once more."""
    percent, level = policy.restart_below_percent, 1
    passed_over = []
    while percent is not None and level < chain[-1].level and (size := _percent_of(chain, level)) > percent:
        passed_over.append(f"level {level} has {_beyond(size, percent)} %")
        level += 1
    reason = f"restart at level {level}: {why}"
    if passed_over and percent is not None:
        grown = f"{', '.join(passed_over)} of the size of level 0"
        reason = f"{reason}; {grown}, restart_below_percent is {_number(percent)}"
    return Choice(level=level, parent=chain[level - 1], reason=reason, restarts=chain[-1].restarts + 1)


def _next(chain: Sequence[Manifest]) -> Choice:
    tip = chain[-1]
    reason = f"next after level {tip.level}"
    if tip.outcome == "partial":
        reason = f"{reason}, which is partial: what it could not read is tried again"
    return Choice(level=tip.level + 1, parent=tip, reason=reason, restarts=tip.restarts)


def _numbered(wanted: int, chain: Sequence[Manifest]) -> Choice:
    tip = chain[-1]
    if wanted > len(chain):
        raise LevelRefused(
            f"level {wanted} was asked for, but the newest set has level {tip.level}",
            hint=f"the highest level possible now is {len(chain)}",
        )
    return Choice(level=wanted, parent=chain[wanted - 1], reason=f"level {wanted} was asked for", restarts=tip.restarts)


def _nothing_there(wanted: Wanted) -> Choice:
    if isinstance(wanted, int):
        raise LevelRefused(
            f"level {wanted} was asked for, but the plan has no set yet", hint="ask for level `auto` or 0"
        )
    return _full("the plan has no set yet")


def _full(reason: str) -> Choice:
    return Choice(level=0, parent=None, reason=reason)


def _days_since(manifest: Manifest, now: datetime) -> float:
    """Below 0 for a set that is dated in the future, so that nothing is ever due for its age."""
    return (now - manifest.finished) / _DAY


def _percent_of(chain: Sequence[Manifest], level: int) -> float:
    return _percent(chain[level].counts.bytes_out, chain[0])


def _percent(size_bytes: int, base: Manifest) -> float:
    return 100 * size_bytes / max(1, base.counts.bytes_out)


def _number(value: float) -> str:
    return f"{value:.10g}"


def _beyond(value: float, limit: float) -> str:
    """The value with one digit, or with as many as it takes to see that it is beyond the limit."""
    texts = [f"{value:.{digits}f}" for digits in (1, 2, 3, 4)]
    return next((text for text in texts if float(text) > limit), texts[0])
