"""What goes wrong with AutoArchive 2.1.1 (each was reproduced with the real program) goes right here.

Faults that have their test elsewhere are listed with it in `docs/migrating/autoarchive.md`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.workshop import Workshop

POLICIES = """\
  old:
    handler: tar
    options: {{root: {top}/subject}}
    retention: {{latest: {latest}}}
  again:
    handler: tar
    options: {{root: {top}/subject}}
    levels: {{restart_after_level: 2}}
"""


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A place of its own for each test."""
    return Workshop(tmp_path)


def configure(workshop: Workshop, latest: int = 1) -> None:
    """Plans with retention, with restarts."""
    workshop.configure(POLICIES.format(top=workshop.top, latest=latest))


def change(workshop: Workshop, text: str) -> None:
    """Something for the next level."""
    (workshop.subject / "index.html").write_text(text)


def backup(workshop: Workshop, plan: str, *arguments: str) -> dict[str, Any]:
    """Make a backup; its outcome."""
    return workshop.lines("backup", plan, *arguments)[-1]


def restored(workshop: Workshop, name: str) -> str:
    """What index.html is in this set."""
    target = workshop.top / f"restored-{name.replace('/', '-')}"
    done = workshop.run("restore", name, str(target))
    assert done.returncode == 0, done.stderr
    return (target / "index.html").read_text()


@pytest.mark.parametrize("latest", [1, 2])
def test_old_backups_expire_beside_increments_and_a_new_full_one(workshop: Workshop, latest: int) -> None:
    """AutoArchive renamed the live level 0 away and crashed, or never ended; the next level had no level 0."""
    configure(workshop, latest)
    for number, arguments in enumerate([(), (), ("--level", "full"), ()]):
        change(workshop, f"state {number}")
        backup(workshop, "old", *arguments)

    left = workshop.lines("list", "old")
    assert restored(workshop, "old") == "state 3"
    # The newest two need nothing else; with `latest: 2` they are those two as well.
    assert [item["level"] for item in left] == [0, 1]
    assert workshop.run("verify", "old", "--all").returncode == 0


def test_a_failing_backup_takes_nothing_from_the_old_ones(workshop: Workshop) -> None:
    """AutoArchive moved and deleted the kept ones first; then there was no current archive, and a torn one for ever."""
    configure(workshop)
    kept = backup(workshop, "old")["backup_id"]
    shutil.move(workshop.subject, workshop.top / "away")

    failed = workshop.run("backup", "old")

    assert failed.returncode == 1
    assert [item["backup_id"] for item in workshop.lines("list", "old")] == [kept]
    assert workshop.drafts() == []
    assert restored(workshop, "old") == "<h1>hello</h1>\n"


def test_a_missing_level_is_noticed_by_the_next_backup(workshop: Workshop) -> None:
    """AutoArchive went on as if it were there: the chain could never be restored."""
    for number in range(3):
        change(workshop, f"state {number}")
        workshop.backup()
    (middle,) = (item for item in workshop.lines("list", "web") if item["level"] == 1)
    shutil.rmtree(workshop.store / "web" / middle["backup_id"])
    change(workshop, "state 3")

    outcome = backup(workshop, "web")

    assert outcome["level"] == 0
    assert middle["backup_id"] in outcome["level_reason"]
    assert restored(workshop, "web") == "state 3"


def test_levels_from_before_a_restart_do_not_mix_with_the_new_ones(workshop: Workshop) -> None:
    """AutoArchive left the old higher levels there, to be applied after the new ones; a restart was exit code 1."""
    configure(workshop)
    outcomes = []
    for number in range(5):
        change(workshop, f"state {number}")
        if number == 2:
            (workshop.subject / "only-then").write_text("at level 2 of the old chain")
        if number == 3:
            (workshop.subject / "only-then").unlink()
        outcomes.append(backup(workshop, "again"))

    assert [outcome["level"] for outcome in outcomes] == [0, 1, 2, 1, 2]
    assert [outcome["exit_code"] for outcome in outcomes] == [0] * 5
    (shown,) = workshop.lines("show", "again")
    assert shown["chain"] == [outcomes[at]["backup_id"] for at in (0, 3, 4)]
    target = workshop.top / "restored"
    assert workshop.run("restore", "again", str(target)).returncode == 0
    assert not (target / "only-then").exists()


def test_the_environment_of_gzip_means_nothing(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """AutoArchive set GZIP, which gzip warns of: an unknown error of a file `warning`, at each run."""
    monkeypatch.setenv("GZIP", "-1")
    monkeypatch.setenv("BZIP2", "-1")
    monkeypatch.setenv("XZ_OPT", "-0")
    workshop.configure(
        f"  packed:\n    handler: tar\n    options: {{root: {workshop.subject}, codec: gzip, strength: 9}}\n"
    )

    outcome = backup(workshop, "packed")

    assert outcome["outcome"] == "succeeded"
    assert outcome.get("problem_counts", {}) == {}


def test_excluded_names_are_what_they_look_like(workshop: Workshop) -> None:
    """AutoArchive kept the literal `a[1]` and dropped `a1`; with everything included `foo` matched nothing."""
    for name in ("a[1]", "a1", "foo", "bar"):
        (workshop.subject / name).write_text(name)
    workshop.configure(
        f"  some:\n    handler: tar\n    options: {{root: {workshop.subject}, exclude: ['a\\[1]', foo]}}\n"
    )
    backup(workshop, "some")
    target = workshop.top / "restored"

    assert workshop.run("restore", "some", str(target)).returncode == 0
    assert {path.name for path in target.iterdir()} == {"a1", "bar", "docs", "index.html", "link"}
