"""`holdfast plan`: what the next backup would be, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.workshop import UNPRIVILEGED, Workshop

RULES = (
    "    levels: {restart_after_level: 1, full_after_restarts: 2, full_after_days: 30, restart_below_percent: 100000}\n"
)


class Grown(Workshop):
    """A plan with rules and three sets, the last of them a restart."""

    def __init__(self, top: Path) -> None:
        super().__init__(top)
        options = f"options: {{root: {self.subject}}}"
        off = f"  off: {{handler: tar, enabled: false, {options}}}\n"
        night = f"  night: {{handler: tar, allowed_hours: [mon 03:00-03:01, thu 03:00-03:01], {options}}}\n"
        self.configure(f"{RULES}{off}{night}")
        self.told: list[dict[str, Any]] = []
        self.made: list[dict[str, Any]] = []
        for _ in range(3):
            self.told += self.lines("plan", "web")
            self.made += self.lines("backup", "web")[-1:]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    """Beside its plan one that is disabled, and one that may hardly ever begin; for tests that only read."""
    return Grown(tmp_path_factory.mktemp("grown"))


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A place of its own for each test that makes or damages something."""
    return Workshop(tmp_path)


def test_the_backup_is_what_was_told(grown: Grown) -> None:
    """Level, reason and parent, through a restart."""
    facts = ("level", "level_reason", "parent")

    assert [[line.get(fact) for fact in facts] for line in grown.told] == [
        [line.get(fact) for fact in facts] for line in grown.made
    ]
    assert [line["level"] for line in grown.told] == [0, 1, 1]


def test_the_next_level_is_told_with_its_reason(grown: Grown) -> None:
    """Beside what it builds upon, the rules, and the sets of the live chain."""
    full, _, restarted = (line["backup_id"] for line in grown.made)

    done = grown.run("plan", "web")

    assert (done.returncode, done.stderr) == (0, "")
    head, *facts = done.stdout.splitlines()
    assert head == "web: next is level 1"
    assert dict(line.strip().split(maxsplit=1) for line in facts[:6]) == {
        "why": "restart at level 1: level 2 would be above restart_after_level 1",
        "parent": full,
        "subject": str(grown.subject),
        "handler": "tar",
        "store": "main",
        "levels": "max_level 9, restart_after_level 1, restart_below_percent 100000, "
        "full_after_restarts 2, full_after_days 30",
    }
    assert facts[6].split() == ["on", "request", "levels", "0", "to", "2"]
    assert [line.split()[:2] for line in facts[-2:]] == [["0", full], ["1", restarted]]


def test_every_plan_is_told_of(grown: Grown) -> None:
    """Also one that is disabled, and one that has no backup yet."""
    web, off, night = grown.lines("plan")

    assert [web["plan"], off["plan"], night["plan"]] == ["web", "off", "night"]
    assert (web["level"], web["restarts"], web["highest_possible"], web["max_level"]) == (1, 2, 2, 9)
    assert [each["level"] for each in web["chain"]] == [0, 1]
    assert web["parent"] == web["chain"][0]["backup_id"]
    assert web["levels"]["full_after_days"] == 30
    assert (off["enabled"], "level" in off) == (False, False)
    assert (night["level"], night["level_reason"], night["chain"]) == (0, "the plan has no set yet", [])
    assert night["opens_at"] > web["opens_at"]
    shown = grown.run("plan").stdout
    assert "off: disabled, requests for it are refused" in shown
    assert "begins      not before " in shown


def test_nothing_is_written(grown: Grown) -> None:
    """Neither to the store nor to the state directory."""
    before = sorted((path, path.stat().st_mtime_ns) for path in grown.top.rglob("*"))

    grown.run("plan")

    assert sorted((path, path.stat().st_mtime_ns) for path in grown.top.rglob("*")) == before


def test_a_file_that_can_never_be_read_does_not_keep_the_chain_from_growing(workshop: Workshop) -> None:
    """Each level is partial, small, and built upon; the next one says that it tries again."""
    closed = workshop.subject / "closed"
    closed.write_text("nobody may read this\n")
    closed.chmod(0)

    for _ in range(2):
        assert workshop.run("backup", "web", prefix=UNPRIVILEGED).returncode == 3
    (line,) = workshop.lines("plan")

    assert [(each["level"], each["outcome"]) for each in line["chain"]] == [(0, "partial"), (1, "partial")]
    assert line["level_reason"] == "next after level 1, which is partial: what it could not read is tried again"


def test_a_file_that_becomes_readable_is_in_the_next_level(workshop: Workshop, tmp_path: Path) -> None:
    """The chain is whole again: its newest set succeeded, and a restore has the file."""
    secret = workshop.subject / "d" / "secret"
    secret.parent.mkdir()
    secret.write_text("behind a closed door\n")
    secret.parent.chmod(0o600)
    first = workshop.run("backup", "web", prefix=UNPRIVILEGED)
    secret.parent.chmod(0o755)

    second = workshop.lines("backup", "web")[-1]
    restored = workshop.run("restore", "web", str(tmp_path / "back"))

    assert (first.returncode, restored.returncode) == (3, 0)
    assert (second["level"], second["outcome"]) == (1, "succeeded")
    assert (tmp_path / "back" / "d" / "secret").read_text() == "behind a closed door\n"


def test_a_store_that_is_away_hides_no_other_plan(workshop: Workshop) -> None:
    """It is told with what may help; the exit code says that later it may work."""
    away = workshop.top / "away"
    more = f"  far: {{handler: tar, store: far, options: {{root: {workshop.subject}}}}}\n"
    text = workshop.config.read_text().replace("\nplans:", f"\n  far: {{kind: local, path: {away}}}\nplans:")
    workshop.config.write_text(text.replace("handler: tar\n", "handler: tar\n    store: main\n") + more)

    done = workshop.run("plan")
    web, far = workshop.lines("plan", expect=7)

    assert done.returncode == 7
    assert "web: next is level 0" in done.stdout
    assert "far: unknown, its store cannot be looked at" in done.stdout
    assert str(away) in done.stderr
    assert (web["level"], "level" in far) == (0, False)
    assert str(away) in far["error"]


def test_a_damaged_manifest_is_told_and_not_built_upon(workshop: Workshop) -> None:
    """A full backup comes next, and the exit code is that of `list`."""
    full, _ = workshop.backup(), workshop.backup()
    manifest = workshop.store / "web" / full / "manifest.json"
    manifest.chmod(0o600)
    manifest.write_text("{")

    done = workshop.run("plan", "--json")
    line = json.loads(done.stdout)

    assert done.returncode == 6
    assert f"error: manifest.json of set web/{full}" in done.stderr
    assert (line["level"], line["damaged"], line["chain"], line["highest_possible"]) == (0, [full], [], 0)
    assert line["level_reason"].endswith("builds on, is missing or has a damaged manifest")


def test_other_options_leave_level_0_alone_to_ask_for(workshop: Workshop) -> None:
    """The old chain is shown, but nothing of the same scope can be built upon it."""
    workshop.backup()
    workshop.config.write_text(workshop.config.read_text().replace("/subject}", "/subject, exclude: [docs]}"))

    (line,) = workshop.lines("plan")

    assert (line["level"], line["highest_possible"], len(line["chain"])) == (0, 0, 1)
    assert "options have changed" in line["level_reason"]


def test_an_unknown_plan_is_wrong_usage(workshop: Workshop) -> None:
    """With those that there are."""
    done = workshop.run("plan", "wbe")

    assert done.returncode == 2
    assert done.stderr == "error: there is no plan 'wbe'\nhint: plans: web\n"
