"""Which sets stay and which go: in examples, through a year, and whatever the history."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from config.retention import Retention
from handlers.contract import BackupId
from tests.workshop.histories import by_id, made
from tests.workshop.retained import read_case
from worker.levels import ChainBroken, levels_to_restore
from worker.manifest import Manifest
from worker.retention import Verdict, broken_sets, decide, removal_order

SAMPLES = Path(__file__).parent / "samples" / "retention"
BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def judged(history: Sequence[Manifest], now: datetime = NOW, zone: Any = UTC, **rules: Any) -> Sequence[Verdict]:
    """The verdicts of these rules, where nothing is pinned or verified."""
    return decide(history, Retention(**rules), now=now, zone=zone, pins={}, verified={})


def kept(verdicts: Sequence[Verdict]) -> set[str]:
    """The names of what stays."""
    return {verdict.manifest.backup_id for verdict in verdicts if verdict.keep}


def every(step: timedelta, count: int, until: datetime = NOW) -> list[Manifest]:
    """Full sets, the newest first; s0 is the newest."""
    return [made(f"s{number}", 0, finished=until - number * step) for number in range(count)]


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.txt")), ids=lambda path: path.stem)
def test_samples_are_decided_as_they_say(sample: Path) -> None:
    """Each is a history with the verdicts that a person found right."""
    text = sample.read_text()

    assert read_case(text).text() == text


# --- single rules


def test_without_rules_everything_stays() -> None:
    """Nobody asked for anything to go; `minimum` alone is no rule."""
    verdicts = judged(every(DAY, 30), minimum=2, count="calendar")

    assert len(kept(verdicts)) == 30
    assert {verdict.reasons for verdict in verdicts} == {("the plan has no retention rule",)}


@pytest.mark.parametrize("count", ["backups", "calendar"])
def test_count_of_zero_is_no_rule(count: str) -> None:
    """It keeps none: not the newest as a rule, and not everything (rotate-backups does either, by its mode)."""
    assert kept(judged(every(DAY, 10), daily=2, hourly=0, weekly=0, yearly=0, latest=0, count=count)) == {"s0", "s1"}


@pytest.mark.parametrize("count", [-1, 1.5, "21 * 2", "None", None, [1]])
def test_senseless_count_is_refused(count: object) -> None:
    """Where it is read, not when it is too late (rotate-backups takes -1 and 1.5)."""
    with pytest.raises(ValidationError):
        Retention.model_validate({"daily": count})


def test_always_is_every_period_there_ever_was() -> None:
    """However long ago."""
    assert len(kept(judged(every(DAY * 366, 50), yearly="always"))) == 50


def test_no_history_has_no_verdicts() -> None:
    """A plan without a set is nothing special."""
    assert judged([], daily=1) == ()


def test_what_stays_for_several_reasons_tells_them_all() -> None:
    """Whoever wonders why a set is still there must not guess."""
    (verdict,) = decide(
        every(DAY, 1),
        Retention(latest=1, within_days=1.5, yearly=1),
        now=NOW,
        zone=UTC,
        pins={BackupId("s0"): ["before-upgrade"]},
        verified={BackupId("s0"): NOW},
    )

    assert verdict.reasons == (
        "pinned as `before-upgrade`",
        "newest complete set",
        "newest verified set (on 2026-11-21)",
        "latest: 1 of 1",
        "not older than 1.5 days",
        "yearly: newest of 2026 (1 of 1)",
    )


def test_newest_verified_set_is_a_complete_one_where_there_is_one() -> None:
    """A partial set that was verified is no replacement for a complete one."""
    history = [
        made("s1", 0, finished=NOW - 3 * DAY),
        made("s2", 0, finished=NOW - 2 * DAY, outcome="partial"),
        made("s3", 0, finished=NOW - DAY),
    ]
    marks = {BackupId("s1"): NOW, BackupId("s2"): NOW}

    verdicts = decide(history, Retention(latest=1), now=NOW, zone=UTC, pins={}, verified=marks)

    assert kept(verdicts) == {"s1", "s3"}


def test_pins_and_verifications_of_sets_that_are_gone_are_passed_over() -> None:
    """Notes outlive their sets."""
    gone = BackupId("gone")

    verdicts = decide(every(DAY, 2), Retention(latest=1), now=NOW, zone=UTC, pins={gone: ["a"]}, verified={gone: NOW})

    assert kept(verdicts) == {"s0"}


def test_rules_of_one_plan_do_not_leak_into_the_next() -> None:
    """Deciding has no memory (rotate-backups keeps the scheme of the plan before)."""
    history = every(DAY, 10)
    before = judged(history, daily=3)

    judged(history, yearly="always", prefer="oldest")

    assert judged(history, daily=3) == before


# --- time


def test_hours_are_counted_as_they_pass() -> None:
    """Over a change of the clocks, in either direction: 24 hours are 24 hours."""
    for changed in (datetime(2026, 3, 29, 15, 40, tzinfo=UTC), datetime(2026, 10, 25, 15, 40, tzinfo=UTC)):
        for count in ("backups", "calendar"):
            history = every(timedelta(minutes=20), 150, until=changed)

            verdicts = judged(history, changed, BERLIN, hourly=24, count=count)

            newest = {each.finished.replace(minute=0): each for each in reversed(history)}
            expected = sorted(newest)[-24:]
            assert kept(verdicts) == {newest[hour].backup_id for hour in expected}


def test_days_have_the_hours_that_they_have() -> None:
    """The day on which the clocks change has 23 or 25 hours, and one set stays of it."""
    for noon in (datetime(2026, 3, 30, 12, tzinfo=BERLIN), datetime(2026, 10, 26, 12, tzinfo=BERLIN)):
        history = every(HOUR, 24 * 4, until=noon.astimezone(UTC))

        verdicts = judged(history, noon, BERLIN, daily=3)

        stays = [each.finished.astimezone(BERLIN) for each in history if each.backup_id in kept(verdicts)]
        assert [f"{wall:%d %H}" for wall in stays] == [f"{noon - n * DAY:%d} {12 if n == 0 else 23}" for n in range(3)]


def test_half_an_hour_of_summer_time_is_no_trouble() -> None:
    """Lord Howe Island puts its clocks back by half an hour; nothing is lost, each hour has its set."""
    zone = ZoneInfo("Australia/Lord_Howe")
    until = datetime(2026, 4, 5, 6, 0, tzinfo=zone).astimezone(UTC)
    history = every(timedelta(minutes=10), 60, until=until)

    verdicts = judged(history, until, zone, hourly="always")

    labels = [f"{each.finished.astimezone(zone):%H%z}" for each in history]
    assert len(kept(verdicts)) == len(set(labels))
    assert len(kept(judged(history, until, zone, hourly=4, count="calendar"))) >= 4


def test_year_of_backups_leaves_the_sets_that_the_rules_name() -> None:
    """Two sets a day through 2028 in Berlin, chains of five, expiry after each: the same as one look at the end."""
    rules = Retention(latest=3, daily=7, weekly=4, monthly=12, yearly=2)
    wall = datetime(2027, 12, 1, 2, 30, tzinfo=BERLIN)  # an hour that is skipped in March and comes twice in October
    full: list[Manifest] = []
    rolling: Sequence[Manifest] = ()
    most = 0
    while wall < datetime(2029, 1, 10, tzinfo=BERLIN):
        now = wall.astimezone(UTC)
        level = len(full) % 5
        new = made(f"s{len(full)}", level, full[-1].backup_id if level else None, finished=now - HOUR / 4)
        full.append(new)
        verdicts = decide([*rolling, new], rules, now=now, zone=BERLIN, pins={}, verified={})
        rolling = [verdict.manifest for verdict in verdicts if verdict.keep]
        most = max(most, len(rolling))
        wall += timedelta(hours=12)

    at_once = decide(full, rules, now=now, zone=BERLIN, pins={}, verified={})
    assert kept(at_once) == {manifest.backup_id for manifest in rolling}
    wanted = [verdict for verdict in at_once if any("newest of" in reason for reason in verdict.reasons)]
    named = {reason.split(" (")[0] for verdict in wanted for reason in verdict.reasons if "newest of" in reason}
    months = [f"2028-{month:02}" for month in range(2, 13)] + ["2029-01"]
    assert named == {
        *(f"daily: newest of 2029-01-0{day}" for day in range(3, 10)),
        *(f"weekly: newest of {week}" for week in ("2028-W51", "2028-W52", "2029-W01", "2029-W02")),
        *(f"monthly: newest of {month}" for month in months),
        "yearly: newest of 2028",
        "yearly: newest of 2029",
    }
    ends = [f"{verdict.manifest.finished.astimezone(BERLIN):%m-%d %H:%M}" for verdict in wanted]
    assert {"02-29 14:15", "03-31 14:15", "10-31 14:15", "12-31 14:15"} <= set(ends)
    assert most < 5 * (12 + 7 + 4 + 2)


# --- whatever the history

names = st.integers(0, 11).map(lambda number: BackupId(f"s{number}"))
numbers = st.sampled_from([0, 0, 1, 2, 5])
periods = st.one_of(numbers, st.just("always"))
rule_sets = st.fixed_dictionaries(
    {
        "latest": numbers,
        "within_days": st.sampled_from([0, 0.5, 3]),
        "hourly": periods,
        "daily": periods,
        "weekly": periods,
        "monthly": periods,
        "yearly": periods,
        "minimum": st.sampled_from([1, 2, 4]),
        "prefer": st.sampled_from(["newest", "oldest"]),
        "count": st.sampled_from(["backups", "calendar"]),
    }
)
gaps = st.sampled_from([timedelta(), -2 * DAY, HOUR / 3, 5 * HOUR, DAY, 9 * DAY, 100 * DAY])


@st.composite
def histories(draw: st.DrawFn) -> list[Manifest]:
    """Levels on levels, partial ones, empty ones, lost ones, impossible ones, wrong clocks, a few in the future."""
    sets: list[Manifest] = []
    when = NOW + draw(st.sampled_from([timedelta(), 10 * DAY]))
    flaws = st.sampled_from(["", "", "partial", "empty"])
    steps = draw(st.lists(st.tuples(gaps, st.integers(0, 3), flaws, st.booleans()), max_size=12))
    for number, (gap, below, flaw, strange) in enumerate(steps):
        parent = sets[-below] if 0 < below <= len(sets) else None
        level = parent.level + 1 if parent else 0
        outcome = "partial" if flaw == "partial" else "succeeded"
        strangely = 7 if strange and gap > DAY else level
        on = parent.backup_id if parent else None
        sets.append(made(f"s{number}", strangely, on, finished=NOW, outcome=outcome, empty=flaw == "empty"))
        when -= gap
    moments = [when := when + gap for gap, *_ in steps]
    sets = [each.model_copy(update={"finished": moment}) for each, moment in zip(sets, moments, strict=True)]
    lost = draw(st.sets(names, max_size=2))
    return draw(st.permutations([each for each in sets if each.id not in lost]))


marks = st.fixed_dictionaries(
    {
        "pins": st.dictionaries(names, st.just(["a"]), max_size=2),
        "verified": st.dictionaries(names, st.just(NOW), max_size=2),
    }
)


def decided(history: Sequence[Manifest], rules: Mapping[str, Any], marked: Mapping[str, Any]) -> Sequence[Verdict]:
    """The verdicts in Berlin."""
    return decide(history, Retention(**rules), now=NOW, zone=BERLIN, **marked)


@settings(max_examples=80, deadline=None)
@given(history=histories(), rules=rule_sets, marked=marks)
def test_whatever_the_rules_what_must_stay_stays(
    history: list[Manifest], rules: dict[str, Any], marked: dict[str, Any]
) -> None:
    """No kept set loses a parent; the newest complete set, pinned and future ones stay; each verdict has a reason."""
    verdicts = decided(history, rules, marked)

    stays = kept(verdicts)
    there = {manifest.backup_id for manifest in history}
    broken = broken_sets(history)
    assert [verdict.manifest for verdict in verdicts] == sorted(
        history, key=lambda each: (each.finished, each.backup_id), reverse=True
    )
    assert all(verdict.reasons and all(verdict.reasons) for verdict in verdicts)
    assert all(each.parent in stays for each in history if each.backup_id in stays and each.parent in there)
    assert {each.backup_id for each in history if each.finished > NOW or each.id in marked["pins"]} <= stays
    past = [verdict.manifest for verdict in verdicts if verdict.manifest.finished <= NOW]
    restorable = [each for each in past if each.id not in broken]
    complete = [each.backup_id for each in restorable if each.outcome == "succeeded" and not each.has_nothing]
    assert set(complete[: rules["minimum"]]) <= stays
    assert {each.backup_id for each in restorable[:1]} <= stays
    sound = [each.backup_id for each in restorable if each.id in marked["verified"]]
    assert not sound or stays & set(sound)


@settings(max_examples=80, deadline=None)
@given(history=histories(), rules=rule_sets, marked=marks)
def test_deciding_again_lets_nothing_more_go(
    history: list[Manifest], rules: dict[str, Any], marked: dict[str, Any]
) -> None:
    """Once what goes is gone, what stays stays."""
    stays = [verdict.manifest for verdict in decided(history, rules, marked) if verdict.keep]

    assert all(verdict.keep for verdict in decided(stays, rules, marked))


@settings(max_examples=80, deadline=None)
@given(
    history=histories(),
    rules=rule_sets,
    marked=marks,
    rule=st.sampled_from(["latest", "within_days", "hourly", "daily", "weekly", "monthly", "yearly", "minimum"]),
    more=st.integers(1, 3),
)
def test_larger_number_never_lets_more_go(
    history: list[Manifest], rules: dict[str, Any], marked: dict[str, Any], rule: str, more: int
) -> None:
    """Whoever makes a rule more generous loses nothing by it. (No rule at all is the most generous there is.)"""
    before = decided(history, rules, marked)
    generous = {**rules, rule: "always" if rules[rule] == "always" else rules[rule] + more}

    if not Retention(**rules).keeps_all:
        assert kept(before) <= kept(decided(history, generous, marked))


@settings(max_examples=80, deadline=None)
@given(history=histories(), rules=rule_sets, marked=marks)
def test_removal_may_stop_anywhere(history: list[Manifest], rules: dict[str, Any], marked: dict[str, Any]) -> None:
    """After each removal every set that is left has all that it had to build on."""
    verdicts = decided(history, rules, marked)
    left = by_id(*history)

    for manifest in removal_order(verdicts):
        del left[manifest.id]
        assert all(each.parent != manifest.backup_id for each in left.values())

    assert left.keys() == kept(verdicts)


@settings(max_examples=80, deadline=None)
@given(history=histories())
def test_broken_sets_are_those_that_a_restore_refuses(history: list[Manifest]) -> None:
    """Both have the same opinion of a chain."""
    found = set()
    for manifest in history:
        try:
            levels_to_restore(by_id(*history), manifest.id)
        except ChainBroken:
            found.add(manifest.id)

    assert broken_sets(history).keys() == found


def test_chains_go_one_after_the_other() -> None:
    """The oldest first, each from its tip down, also where a clock that was put back made a base look newer."""
    history = [
        made("s1", 0, finished=NOW - 5 * DAY),
        made("s2", 1, "s1", finished=NOW - 8 * DAY),
        made("s3", 2, "s2", finished=NOW - 4 * DAY),
        made("s4", 0, finished=NOW - 7 * DAY),
        made("s5", 1, "s4", finished=NOW - 6 * DAY),
        made("s6", 0, finished=NOW),
    ]

    order = removal_order(judged(history, latest=1))

    assert [manifest.backup_id for manifest in order] == ["s5", "s4", "s3", "s2", "s1"]


def test_sets_that_build_on_each_other_in_a_circle_can_go() -> None:
    """Such manifests are damaged or forged; they do not hold up anything."""
    history = [made("s1", 1, "s2", finished=NOW - 9 * DAY), made("s2", 2, "s1", finished=NOW - 8 * DAY)]
    verdicts = judged([*history, *every(DAY, 1)], daily=1)

    assert {manifest.backup_id for manifest in removal_order(verdicts)} == {"s1", "s2"}


@pytest.mark.slow
def test_ten_thousand_sets_are_decided_at_once() -> None:
    """Hourly sets of more than a year, in chains of a week: time grows with the number of sets, not with its square."""
    history = [
        made(f"s{n}", n % 168, f"s{n - 1}" if n % 168 else None, finished=NOW - (10_000 - n) * HOUR)
        for n in range(10_000)
    ]
    begun = time.process_time()

    verdicts = judged(history, hourly=48, daily=14, weekly=8, monthly="always")
    order = removal_order(verdicts)

    assert time.process_time() - begun < 5
    assert len(order) == len(verdicts) - len(kept(verdicts))


def test_what_was_found_damaged_pushes_no_good_set_out() -> None:
    """Neither it nor what builds on it counts; the newest complete set is the one that can be restored."""
    history = [made("s0", 0), made("s1", 0), made("s2", 1, "s1")]

    verdicts = decide(
        history,
        Retention(latest=1),
        now=NOW,
        zone=UTC,
        pins={},
        verified={BackupId("s2"): NOW},
        damaged={BackupId("s1"): "found damaged"},
    )

    stays = {verdict.manifest.backup_id: verdict.reasons for verdict in verdicts if verdict.keep}
    assert "newest complete set" in stays["s0"]
    assert not any("newest verified set" in reason for reasons in stays.values() for reason in reasons)
