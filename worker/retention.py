"""Decides which sets of a plan stay and which go.

Pure. A set stays if any rule wants it; `docs/retention.md` has the rules with a worked example. Numbers count
*complete* sets: those that are not partial, can be restored with their whole chain, are not dated in the future, and
have something in them: a disk that is not mounted must not push out what was on it.
Any other only stands in where a rule finds nothing better: it neither counts nor takes a complete set's place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from itertools import islice
from types import MappingProxyType

from config.retention import Periods, Retention
from handlers.contract import BackupId
from worker.manifest import Manifest
from worker.periods import UNITS, Unit

NOTHING: Mapping[BackupId, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of one set."""

    manifest: Manifest
    keep: bool
    reasons: tuple[str, ...]
    """At least one: of what stays, everything that wants it; of what goes, why each rule does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sets:
    """A history, newest first, sorted out."""

    every: Sequence[Manifest]
    past: Sequence[Manifest]
    """Those that are not dated in the future."""
    broken: Mapping[BackupId, str]
    complete: Mapping[BackupId, Manifest]
    """Those that count, newest first."""
    wall: Mapping[BackupId, datetime]
    """When each was finished, by the clock on the wall."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """One rule, applied to a history."""

    wants: Mapping[BackupId, str]
    turns_down: Callable[[Manifest], str]
    """Why it does not want this set."""


def decide(
    history: Sequence[Manifest],
    rules: Retention,
    *,
    now: datetime,
    zone: tzinfo,
    pins: Mapping[BackupId, Sequence[str]],
    verified: Mapping[BackupId, datetime],
    damaged: Mapping[BackupId, str] = NOTHING,
) -> tuple[Verdict, ...]:
    """The verdict on each set of one plan in one store, newest first.

    `zone` says when days begin, `pins` under which names a set is kept, `verified` when a set was verified last,
    `damaged` what is wrong with a set.
    Nothing that stays loses a set it builds on. Once what goes is gone, the same rules let nothing more go at the same
    moment; larger numbers never let more go.
    """
    sets = _sort_out(history, now, zone, damaged)
    if rules.keeps_all:
        return tuple(
            Verdict(manifest=each, keep=True, reasons=("the plan has no retention rule",)) for each in sets.every
        )
    applied = list(_rules(sets, rules, now=now, zone=zone))
    wanted: dict[BackupId, list[str]] = {}
    for manifest, reason in _whatever_the_rules(sets, rules, pins, verified, zone):
        wanted.setdefault(manifest.id, []).append(reason)
    for rule in applied:
        for backup_id, reason in rule.wants.items():
            wanted.setdefault(backup_id, []).append(reason)

    def unwanted(manifest: Manifest) -> Sequence[str]:
        flaw = sets.broken.get(manifest.id) or _flaw(manifest)
        return [*filter(None, (flaw,)), *(rule.turns_down(manifest) for rule in applied)]

    return with_chains(sets.every, wanted, unwanted, damaged)


def with_chains(
    history: Sequence[Manifest],
    wanted: Mapping[BackupId, Sequence[str]],
    unwanted: Callable[[Manifest], Sequence[str]],
    damaged: Mapping[BackupId, str] = NOTHING,
) -> tuple[Verdict, ...]:
    """The verdicts when these sets are wanted for these reasons: what they build on stays, too. Newest first."""
    stays = built_upon(parents_of(history), wanted)
    broken = broken_sets(history, damaged)
    needed_by: dict[BackupId, list[BackupId]] = {}
    in_order = newest_first(history)
    for manifest in in_order:
        if manifest.id in stays and manifest.parent is not None and manifest.parent != manifest.backup_id:
            needed_by.setdefault(BackupId(manifest.parent), []).append(manifest.id)

    def reasons(backup_id: BackupId) -> Iterator[str]:
        yield from wanted.get(backup_id, ())
        match needed_by.get(backup_id, ()):
            case [one]:
                yield f"set {one} builds on it"
            case [one, *others]:
                yield f"set {one} and {len(others)} more build on it"
        if backup_id in broken:
            yield f"cannot be restored: {broken[backup_id]}"

    return tuple(
        Verdict(manifest=manifest, keep=True, reasons=tuple(reasons(manifest.id)))
        if manifest.id in stays
        else Verdict(manifest=manifest, keep=False, reasons=tuple(unwanted(manifest)))
        for manifest in in_order
    )


def parents_of(history: Sequence[Manifest]) -> dict[BackupId, BackupId | None]:
    """Which set each set builds on, whether that one is there or not."""
    return {each.id: BackupId(each.parent) if each.parent is not None else None for each in history}


def built_upon(parents: Mapping[BackupId, BackupId | None], wanted: Iterable[BackupId]) -> frozenset[BackupId]:
    """Of the sets that have an entry in `parents`: the wanted ones, with everything that they build on."""
    found = {backup_id for backup_id in wanted if backup_id in parents}
    waiting = list(found)
    while waiting:
        parent = parents[waiting.pop()]
        if parent is not None and parent in parents and parent not in found:
            found.add(parent)
            waiting.append(parent)
    return frozenset(found)


def broken_sets(history: Sequence[Manifest], damaged: Mapping[BackupId, str] = NOTHING) -> Mapping[BackupId, str]:
    """The sets that cannot be restored from this history, with the reason."""
    by_id = {manifest.id: manifest for manifest in history}
    broken: dict[BackupId, str] = {}
    # A sound parent is one level lower, and so was looked at before.
    for manifest in sorted(history, key=lambda each: each.level):
        parent = by_id.get(BackupId(manifest.parent)) if manifest.parent is not None else None
        if manifest.id in damaged:
            broken[manifest.id] = damaged[manifest.id]
        elif manifest.parent is None:
            if manifest.level != 0:
                broken[manifest.id] = f"level {manifest.level} that names no set to build on"
        elif parent is None:
            broken[manifest.id] = f"set {manifest.parent}, which it builds on, is missing"
        elif parent.level != manifest.level - 1:
            broken[manifest.id] = f"level {manifest.level} cannot build on set {parent.id} of level {parent.level}"
        elif parent.id in broken:
            broken[manifest.id] = f"set {parent.id}, which it builds on, cannot be restored"
    return broken


def removal_order(verdicts: Sequence[Verdict]) -> tuple[Manifest, ...]:
    """What goes, each set before the one it builds on, chain by chain, the oldest chain first.

    Whoever stops half way leaves only sets that are as restorable as they were.
    """
    going = {verdict.manifest.id: verdict.manifest for verdict in verdicts if not verdict.keep}
    dependants = Counter(BackupId(manifest.parent) for manifest in going.values() if manifest.parent is not None)
    order: dict[BackupId, Manifest] = {}
    for manifest in reversed(newest_first(tuple(going.values()))):
        tip: Manifest | None = manifest if not dependants[manifest.id] else None
        while tip is not None and tip.id not in order:
            order[tip.id] = tip
            below = going.get(BackupId(tip.parent)) if tip.parent is not None else None
            if below is not None:
                dependants[below.id] -= 1
            tip = below if below is not None and not dependants[below.id] else None
    # What is left builds on itself in a circle: nobody can restore any of it.
    return (*order.values(), *(manifest for backup_id, manifest in going.items() if backup_id not in order))


def newest_first(history: Sequence[Manifest]) -> tuple[Manifest, ...]:
    """The sets by the time they were finished."""
    return tuple(sorted(history, key=lambda manifest: (manifest.finished, manifest.backup_id), reverse=True))


def _sort_out(history: Sequence[Manifest], now: datetime, zone: tzinfo, damaged: Mapping[BackupId, str]) -> _Sets:
    every = newest_first(history)
    past = [manifest for manifest in every if manifest.finished <= now]
    broken = broken_sets(every, damaged)
    return _Sets(
        every=every,
        past=past,
        broken=broken,
        complete={each.id: each for each in past if not _flaw(each) and each.id not in broken},
        wall={manifest.id: manifest.finished.astimezone(zone) for manifest in past},
    )


def _flaw(manifest: Manifest) -> str:
    """What keeps a set that can be restored from being complete."""
    if manifest.outcome == "partial":
        return "partial"
    return "the subject was empty" if manifest.has_nothing else ""


def _whatever_the_rules(
    sets: _Sets,
    rules: Retention,
    pins: Mapping[BackupId, Sequence[str]],
    verified: Mapping[BackupId, datetime],
    zone: tzinfo,
) -> Iterator[tuple[Manifest, str]]:
    for manifest in sets.every[: len(sets.every) - len(sets.past)]:
        yield manifest, f"dated in the future ({manifest.finished.astimezone(zone):%Y-%m-%d %H:%M})"
    for manifest in sets.every:
        if manifest.id in pins:
            yield manifest, "pinned as " + ", ".join(f"`{name}`" for name in pins[manifest.id])
    # Always these, not just as many as the rules leave too few: otherwise one more set that a rule keeps would push
    # another one out.
    for at, manifest in enumerate(islice(sets.complete.values(), rules.minimum)):
        yield manifest, f"minimum: {at + 1} of {rules.minimum}" if at else "newest complete set"
    # The next level builds on it, and where nothing was complete for long it may be all there is.
    restorable = [manifest for manifest in sets.past if manifest.id not in sets.broken]
    if restorable and restorable[0].id not in sets.complete:
        yield restorable[0], "newest set that can be restored"
    sound = [each for each in restorable if each.id in verified]
    if sound:
        best = next((each for each in sound if each.id in sets.complete), sound[0])
        yield best, f"newest verified set (on {verified[best.id].astimezone(zone):%Y-%m-%d})"


def _rules(sets: _Sets, rules: Retention, *, now: datetime, zone: tzinfo) -> Iterator[_Rule]:
    if rules.latest:
        yield _latest(sets, rules.latest)
    if rules.within_days:
        yield _within(sets, rules.within_days, now)
    numbers: Mapping[str, Periods] = {
        "hourly": rules.hourly,
        "daily": rules.daily,
        "weekly": rules.weekly,
        "monthly": rules.monthly,
        "yearly": rules.yearly,
    }
    for unit in UNITS:
        if count := numbers[unit.name]:
            yield _periodic(sets, unit, None if count == "always" else count, rules, now.astimezone(zone))


def _latest(sets: _Sets, count: int) -> _Rule:
    wants: dict[BackupId, str] = {}
    counted = stood_in = 0
    for manifest in sets.past:
        if counted == count:
            break
        if manifest.id in sets.complete:
            counted += 1
            wants[manifest.id] = f"latest: {counted} of {count}"
        elif stood_in < count:
            stood_in += 1
            wants[manifest.id] = "latest: newer than what counts, but does not count itself"
    return _Rule(wants=wants, turns_down=lambda _: f"latest: not among the newest {count}")


def _within(sets: _Sets, days: float, now: datetime) -> _Rule:
    since = now - timedelta(days=days)
    wants = {each.id: f"not older than {days:g} days" for each in sets.past if each.finished >= since}
    return _Rule(wants=wants, turns_down=lambda _: f"older than {days:g} days")


def _periodic(sets: _Sets, unit: Unit, count: int | None, rules: Retention, wall: datetime) -> _Rule:
    """One set of each of so many periods; of all where `count` is None."""
    members: dict[int, list[Manifest]] = {}
    for manifest in sets.past:
        members.setdefault(unit.number(sets.wall[manifest.id]), []).append(manifest)
    picks: dict[int, BackupId] = {}
    wants: dict[BackupId, str] = {}
    counted = stood_in = 0
    for number in sorted(members, reverse=True):
        place = counted + 1 if rules.count == "backups" else max(unit.number(wall) - number, 0) // unit.step + 1
        if count is not None and place > count:
            break
        complete = [each for each in members[number] if each.id in sets.complete]
        if complete:
            counted += 1
        elif rules.count == "calendar" or stood_in != count:
            stood_in += 1
        else:
            continue  # else a plan that can never read some file would keep a set of each period for ever
        best = complete or [each for each in members[number] if each.id not in sets.broken] or members[number]
        pick = best[0 if rules.prefer == "newest" else -1]
        picks[number] = pick.id
        label = unit.label(sets.wall[pick.id])
        if complete:
            wants[pick.id] = f"{unit.name}: {rules.prefer} of {label}" + (f" ({place} of {count})" if count else "")
        else:
            wants[pick.id] = f"{unit.name}: stands in for {label}, which has no complete set"

    def turns_down(manifest: Manifest) -> str:
        label = unit.label(sets.wall[manifest.id])
        pick = picks.get(unit.number(sets.wall[manifest.id]))
        if pick is not None:
            return f"{unit.name}: {label} has {pick}"
        window = f"among the last {count} {unit.noun}s" if count != 1 else f"the last {unit.noun}"
        return f"{unit.name}: {label} is not {window}"

    return _Rule(wants=wants, turns_down=turns_down)
