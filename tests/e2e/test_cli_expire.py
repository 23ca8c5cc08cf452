"""`holdfast expire`, `list --orphans` and `expire --orphans`: what goes, what stays, and what nobody may touch."""

from __future__ import annotations

import os
import pty
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from handlers.contract import PlanName
from handlers.tools.lock import Lock
from tests.e2e.workshop import Workshop
from tests.workshop.histories import made
from tests.workshop.stocked import named, stock
from worker.manifest import Manifest
from worker.pins import PINS
from worker.stores.local import LocalStore
from worker.verified import DAMAGED, VERIFIED, note_damaged, note_verified

DAY = timedelta(days=1)
GONE = PlanName("gone")


def dated(
    name: str, days: float, level: int = 0, parent: str | None = None, *, plan: str = "photos", host: str = "workshop"
) -> Manifest:
    """A set that was made so many days ago."""
    manifest = made(name, level, parent, finished=datetime.now(UTC) - days * DAY)
    return manifest.model_copy(update={"plan": plan, "host": host})


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A plan that keeps two days, with sets of four; a plan without rules."""
    workshop = Workshop(tmp_path)
    workshop.configure("  photos: {handler: tar, retention: {daily: 2}, options: {root: /srv/photos}}\n")
    stock(store_of(workshop), dated("s1", 5), dated("s2", 4, 1, "s1"), dated("s3", 1), dated("s4", 0, 1, "s3"))
    return workshop


def store_of(workshop: Workshop) -> LocalStore:
    """The store, to look at from here."""
    return LocalStore("main", workshop.store)


def left(workshop: Workshop, plan: str = "photos") -> set[str]:
    """The sets of a plan that are there."""
    return {path.name for path in workshop.sets() if path.parent.name == plan}


def abandon(workshop: Workshop) -> None:
    """What a removed plan leaves: sets of ours and of another host, pins, notes, a lock, scratch."""
    store = store_of(workshop)
    stock(
        store,
        dated("g1", 9, plan=GONE),
        dated("g2", 8, 1, "g1", plan=GONE),
        dated("g3", 7, plan=GONE),
        dated("g4", 6, 1, "g3", plan=GONE, host="other"),
        dated("g5", 5, plan=GONE),
        dated("g6", 4, 1, "g5", plan=GONE),
    )
    for backup_id in ("g2", "g5", "g0"):
        note_verified(store, named(backup_id, GONE), "checksums", datetime.now(UTC))
    for backup_id in ("g1", "g00"):
        note_damaged(store, named(backup_id, GONE), "checksums", datetime.now(UTC), "a part is")
    pin = b'{"backup_id": "%s", "kept": "2026-01-01T00:00:00Z", "by": "ann@here"}'
    store.put_note(GONE, PINS, "mine", pin % b"g5", replace=False)
    store.put_note(GONE, PINS, "old", pin % b"g0", replace=False)
    for path in (workshop.top / "state" / "locks", workshop.top / "state" / "scratch" / GONE / "level-0"):
        path.mkdir(parents=True)
    (workshop.top / "state" / "locks" / "gone.lock").touch()
    (workshop.top / "state" / "scratch" / GONE / "level-0" / "tree.snar").write_text("x")


def test_what_goes_is_shown_with_its_reasons_before_it_goes(workshop: Workshop) -> None:
    """A dry run shows the same and changes nothing."""
    dry = workshop.run("expire", "photos", "--dry-run")
    untouched = left(workshop)
    done = workshop.run("expire", "photos")

    assert dry.returncode == done.returncode == 0, done.stderr
    head, *rows, last = dry.stdout.splitlines()
    assert head.split() == ["set", "level", "when", "size", "outcome", "verdict", "why"]
    assert [row.split()[0] for row in rows] == ["s4", "s3", "s2", "s1"]
    assert "stays    newest complete set; daily: newest of " in rows[0]
    assert "(2 of 2); set s4 builds on it" in rows[1]
    assert rows[3].endswith("is not among the last 2 days")
    assert last == "would go: 2 sets, 2.0 KiB; 2 sets stay"
    assert untouched == {"s1", "s2", "s3", "s4"}
    assert done.stdout.splitlines()[:-1] == dry.stdout.splitlines()[:-1]
    assert done.stdout.splitlines()[-1] == "gone: 2 sets, 2.0 KiB; 2 sets stay"
    assert left(workshop) == {"s3", "s4"}


def test_scripts_get_a_line_for_each_set(workshop: Workshop) -> None:
    """With the verdict, and whether it was carried out."""
    dry = workshop.lines("expire", "photos", "--dry-run")
    done = workshop.lines("expire", "photos")

    assert [(line["backup_id"], line["verdict"], line["removed"]) for line in dry] == [
        ("s4", "stays", False),
        ("s3", "stays", False),
        ("s2", "goes", False),
        ("s1", "goes", False),
    ]
    assert [line["removed"] for line in done] == [False, False, True, True]
    assert done[3].keys() == {
        *("store", "plan", "backup_id", "level", "parent", "host", "finished", "outcome", "bytes"),
        *("verdict", "reasons", "removed"),
    }


def test_kept_set_stays(workshop: Workshop) -> None:
    """With the one it builds on."""
    workshop.lines("keep", "photos/s2", "--as", "before-upgrade")

    reasons = {line["backup_id"]: line["reasons"] for line in workshop.lines("expire", "photos")}

    assert reasons["s2"] == ["pinned as `before-upgrade`"]
    assert reasons["s1"] == ["set s2 builds on it"]
    assert left(workshop) == {"s1", "s2", "s3", "s4"}


def test_damaged_manifest_keeps_everything(workshop: Workshop) -> None:
    """Exit code 6, and the message names the set."""
    manifest = workshop.store / "photos" / "s3" / "manifest.json"
    manifest.chmod(0o600)
    manifest.write_text("{")

    done = workshop.run("expire", "photos")

    assert (done.returncode, done.stdout) == (6, "")
    assert "nobody knows what set photos/s3 builds on" in done.stderr
    assert left(workshop) == {"s1", "s2", "s3", "s4"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("expire",), "error: name a plan"),
        (("expire", "photos", "--yes"), "error: --yes belongs to --orphans"),
        (("expire", "nothing"), "hint: plans: photos, web"),
        (("expire", "gone"), "hint: `holdfast expire --orphans gone` removes what it left"),
        (("expire", "--orphans", "photos"), "error: plan photos is configured, so nothing of it is an orphan"),
        (("expire", "--orphans"), "error: nobody can be asked whether this is meant\nhint: add --yes"),
    ],
)
def test_what_cannot_be_meant_is_refused(workshop: Workshop, arguments: tuple[str, ...], says: str) -> None:
    """With exit code 2, and nothing is removed."""
    stock(store_of(workshop), dated("g1", 9, plan=GONE))

    done = workshop.run(*arguments)

    assert done.returncode == 2
    assert says in done.stderr
    assert len(workshop.sets()) == 5


def test_plan_without_rules_loses_nothing(workshop: Workshop) -> None:
    """And says why."""
    stock(store_of(workshop), *(dated(f"s{number}", number, plan="web") for number in range(4)))

    done = workshop.run("expire", "web")

    assert done.returncode == 0
    assert done.stderr == "plan web has no retention rule: nothing expires\n"
    assert done.stdout.endswith("gone: nothing; 4 sets stay\n")
    assert len(left(workshop, "web")) == 4


# --- orphans


def test_what_removed_plans_left_is_listed(workshop: Workshop) -> None:
    """Sets, notes, lock and scratch; beside them the sets of any plan that lack what they build on."""
    abandon(workshop)
    store_of(workshop).expire(named("s1", "photos"))

    done = workshop.run("list", "--orphans")
    lines = workshop.lines("list", "--orphans")

    assert done.returncode == 0, done.stderr
    assert "7 notes of plan gone in main" in done.stdout
    assert f"lock of plan gone: {workshop.top}/state/locks/gone.lock" in done.stdout
    assert f"scratch of plan gone: {workshop.top}/state/scratch/gone" in done.stdout
    assert "set photos/s2 in main cannot be restored: set s1, which it builds on, is missing" in done.stdout
    sets = {line["backup_id"]: line["verdict"] for line in lines if line["what"] == "set"}
    assert sets == {"g6": "goes", "g5": "stays", "g4": "stays", "g3": "stays", "g2": "goes", "g1": "goes"}
    reasons = {line["backup_id"]: line["reasons"] for line in lines if line["what"] == "set"}
    assert reasons["g5"] == ["pinned as `mine`"]
    assert reasons["g4"] == ["made by other, which may still want it"]
    assert reasons["g3"] == ["set g4 builds on it"]
    assert reasons["g1"] == ["plan gone is configured no more"]
    assert sorted(line["what"] for line in lines if line["what"] != "set") == ["broken", "lock", "notes", "scratch"]


def test_what_removed_plans_left_goes_as_far_as_this_node_made_it(workshop: Workshop) -> None:
    """Sets of another host stay with what they build on, pinned ones too; notes of sets that are gone go with them."""
    abandon(workshop)

    dry = workshop.run("expire", "--orphans", "--dry-run")
    untouched = left(workshop, GONE)
    done = workshop.run("expire", "--orphans", "--yes")

    store = store_of(workshop)
    assert (dry.returncode, done.returncode) == (0, 0), done.stderr
    assert len(untouched) == 6
    assert done.stdout.splitlines()[-3:] == [f"gone: gone/g{number} in main" for number in (6, 2, 1)]
    assert left(workshop, GONE) == {"g3", "g4", "g5"}
    assert left(workshop) == {"s1", "s2", "s3", "s4"}
    assert set(store.notes(GONE, PINS)) == {"mine"}
    assert set(store.notes(GONE, VERIFIED)) == {"g5"}
    assert store.notes(GONE, DAMAGED) == {}
    assert list((workshop.top / "state" / "locks").iterdir()) == []
    assert list((workshop.top / "state" / "scratch").iterdir()) == []


def test_person_at_a_terminal_is_asked(workshop: Workshop) -> None:
    """`no` removes nothing, and ends with 130."""
    stock(store_of(workshop), dated("g1", 9, plan=GONE))
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"n\n")
        done = subprocess.run(
            workshop.command("expire", "--orphans", "gone"),
            stdin=theirs,
            capture_output=True,
            text=True,
            env=workshop.environment(),
            timeout=60,
        )
    finally:
        os.close(ours)
        os.close(theirs)

    assert done.returncode == 130
    assert "remove 1 set (1.0 KiB) with what else is left of these plans, for good?" in done.stderr
    assert left(workshop, GONE) == {"g1"}


def test_plan_that_a_process_still_works_on_is_left_alone(workshop: Workshop) -> None:
    """A worker that runs on the configuration of before may be making a set that builds on one of these."""
    abandon(workshop)
    lock = Lock.try_hold(workshop.top / "state" / "locks" / "gone.lock")
    assert lock is not None

    with lock:
        done = workshop.run("expire", "--orphans", "--yes")

    assert done.returncode == 0
    assert "a process works on plan gone right now: what it left stays" in done.stderr
    assert len(left(workshop, GONE)) == 6
    assert (workshop.top / "state" / "scratch" / GONE).exists()


def test_damaged_manifest_of_a_removed_plan_keeps_its_sets(workshop: Workshop) -> None:
    """Nobody knows whose it is, nor what it builds on; other plans go on."""
    stock(store_of(workshop), dated("g1", 9, plan=GONE), dated("f1", 9, plan="further"))
    store_of(workshop).draft(named("g2", GONE)).commit({}, b"{")

    done = workshop.run("expire", "--orphans", "--yes", "--json")

    assert done.returncode == 6
    assert "nobody knows what set gone/g2 builds on" in done.stderr
    assert (left(workshop, GONE), left(workshop, "further")) == ({"g1", "g2"}, set())


def test_configuration_without_plans_makes_no_orphans_of_everything(workshop: Workshop) -> None:
    """It is more likely the wrong one; a plan that is named goes all the same."""
    text = workshop.config.read_text()
    workshop.config.write_text(text[: text.index("plans:")])

    everything = workshop.run("expire", "--orphans", "--yes")
    one = workshop.run("expire", "--orphans", "photos", "--yes")

    assert everything.returncode == 2
    assert "no plan is configured at all" in everything.stderr
    assert one.returncode == 0, one.stderr
    assert left(workshop) == set()


def test_nothing_left_behind_is_said_so(workshop: Workshop) -> None:
    """By both commands."""
    assert workshop.run("list", "--orphans").stderr == "no orphans\n"
    assert workshop.run("expire", "--orphans").stderr == "no orphans\n"
