"""What GNU tar may open while it archives: the subject, and what the operator's own links lead to."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from handlers.tools import confine
from handlers.tools.tar import reach as tar_reach
from tests.workshop.tar_levels import Plan, listed

pytestmark = pytest.mark.skipif(not confine.is_possible(), reason="needs Landlock")


def run_within(subject: Path, scratch: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """A tar command that may read this subject."""
    return subprocess.run(tar_reach.within(["tar", *argv], subject, ["."], scratch), capture_output=True, text=True)


def test_what_is_outside_cannot_be_opened(subject: Path, tmp_path: Path) -> None:
    """Whatever path leads there; the subject and the files of the job can be."""
    (tmp_path / "secret").write_text("x")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (subject / "out").symlink_to(tmp_path)

    inside = run_within(subject, scratch, "-cf", f"{scratch}/a.tar", f"-g{scratch}/snar", "-C", str(subject), ".")
    outside = run_within(subject, scratch, "-cf", f"{scratch}/a.tar", "-C", str(subject), "out/secret", "plain")

    assert (inside.returncode, inside.stderr) == (0, "")
    assert "out/secret: Cannot open: Permission denied" in outside.stderr
    assert "plain" not in outside.stderr


def test_links_on_the_way_to_a_name_of_the_plan_are_followed(plan: Plan, subject: Path, tmp_path: Path) -> None:
    """The operator named what is behind them; what is beside it stays closed."""
    (tmp_path / "releases/5/data").mkdir(parents=True)
    (tmp_path / "releases/5/data/f").write_text("x")
    (subject / "current").symlink_to(tmp_path / "releases/5")

    produced = plan.back_up(include=("current/data", "plain"))

    assert listed(plan) == ["current/data/f", "plain"]
    assert produced.problems == ()


def test_a_subject_by_a_link_is_read(plan: Plan, subject: Path, tmp_path: Path) -> None:
    """Its root may be a symbolic link itself."""
    (tmp_path / "link").symlink_to(subject)

    assert plan.back_up(root=tmp_path / "link").problems == ()


@pytest.mark.parametrize("kind", ["script", "set-user-id"])
def test_a_tar_that_needs_more_is_left_alone(
    subject: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Nobody knows what a script runs; and rights of its own would be lost."""
    real = shutil.which("tar")
    assert real is not None
    own = tmp_path / "bin/tar"
    own.parent.mkdir()
    if kind == "script":
        own.write_text(f'#!/bin/sh\nexec {real} "$@"\n')
        own.chmod(0o755)
    else:
        shutil.copy(real, own)
        own.chmod(0o4755)
    monkeypatch.setenv("PATH", os.fspath(own.parent), prepend=os.pathsep)

    assert tar_reach.within(["tar", "--create"], subject, ["."], tmp_path) == ["tar", "--create"]
