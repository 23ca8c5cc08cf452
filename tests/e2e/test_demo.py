"""`holdfast demo`: the promise that a newcomer tries first."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.workshop import PROGRAM, wait_for


@pytest.fixture
def room(tmp_path: Path) -> dict[str, str]:
    """An environment in which temporary files end up where the test can see them."""
    return {**os.environ, "TMPDIR": str(tmp_path), "LC_ALL": "C.UTF-8"}


def test_the_whole_round_holds_and_leaves_nothing(tmp_path: Path, room: dict[str, str]) -> None:
    """Every act is told; afterwards the temporary directory is empty."""
    done = subprocess.run([PROGRAM, "demo"], capture_output=True, text=True, env=room, timeout=120)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 differences" in done.stdout
    assert "duplicate: it was succeeded" in done.stdout
    assert "level 1" in done.stdout
    assert "All of it held." in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_clears_the_stage(tmp_path: Path, room: dict[str, str]) -> None:
    """The worker is ended, the directory is gone, the exit code is 130."""
    running = subprocess.Popen([PROGRAM, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=room)
    wait_for(lambda: list(tmp_path.glob("*/state/spool/events/*started*")))

    running.send_signal(signal.SIGINT)
    _, complaint = running.communicate(timeout=60)

    assert (running.returncode, complaint) == (130, b"")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_in_use_is_not_taken(tmp_path: Path) -> None:
    """`--keep` takes a new one."""
    (tmp_path / "mine").touch()

    done = subprocess.run([PROGRAM, "demo", "--keep", str(tmp_path)], capture_output=True, text=True)

    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
