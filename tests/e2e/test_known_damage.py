"""What was found damaged is not built upon, counts for nothing, and is told wherever one looks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.workshop import Workshop


@pytest.fixture
def rotten(tmp_path: Path) -> tuple[Workshop, str, str]:
    """A good chain of two sets, and a newer full backup whose archive has rotted, as `verify` has found."""
    workshop = Workshop(tmp_path)
    workshop.backup()
    (workshop.subject / "index.html").write_text("newer")
    good = workshop.backup()
    bad = workshop.backup("--level", "full")
    (archive,) = (workshop.store / "web" / bad).glob("data.tar*")
    archive.chmod(0o600)
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(content)
    done = workshop.run("verify", "web")
    assert done.returncode == 6
    assert "holdfast backup web --level full" in done.stderr
    return workshop, good, bad


def test_nothing_is_built_upon_it(rotten: tuple[Workshop, str, str]) -> None:
    """The next set is a full one, says why, and restores."""
    workshop, _, bad = rotten

    (planned,) = workshop.lines("plan", "web")
    outcome = workshop.lines("backup", "web")[-1]

    assert outcome["level"] == 0
    assert f"{bad}, which the next level would need, was found damaged" in outcome["level_reason"]
    assert planned["level"] == 0
    assert workshop.run("restore", outcome["backup_id"], str(workshop.top / "back")).returncode == 0


def test_it_pushes_no_good_set_out(rotten: tuple[Workshop, str, str]) -> None:
    """The newest complete set is the one that can be restored."""
    workshop, good, bad = rotten
    text = workshop.config.read_text()
    workshop.config.write_text(text.replace("    labels: {team: shop}\n", "    retention: {latest: 1}\n"))

    assert workshop.run("expire", "web").returncode == 0

    left = {item["backup_id"] for item in workshop.lines("list", "web", expect=6 if bad in _sets(workshop) else 0)}
    assert good in left
    assert workshop.run("restore", good, str(workshop.top / "back")).returncode == 0


def test_it_is_told_until_a_verification_finds_it_sound(rotten: tuple[Workshop, str, str]) -> None:
    """By `list`, `show` and `doctor`."""
    workshop, _, bad = rotten

    (shown,) = workshop.lines("show", bad, expect=6)
    listed = {item["backup_id"]: item["damage"] for item in workshop.lines("list", "web", expect=6)}
    checks = {line["check"]: line["verdict"] for line in workshop.lines("doctor", expect=1)}

    assert "found damaged" in shown["chain_error"]
    assert [backup_id for backup_id, damage in listed.items() if damage] == [bad]
    assert checks["damage in main"] == "FAIL"

    (archive,) = (workshop.store / "web" / bad).glob("data.tar*")
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(content)
    assert workshop.run("verify", bad).returncode == 0
    workshop.lines("list", "web")


def _sets(workshop: Workshop) -> set[str]:
    return {place.name for place in workshop.sets()}
