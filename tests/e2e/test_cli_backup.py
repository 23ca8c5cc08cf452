"""`holdfast backup`, as an operator and a script see it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
from pathlib import Path

import pytest

from handlers.contract import PlanName
from handlers.tools.lock import Lock
from tests.e2e.workshop import UNPRIVILEGED, Workshop, wait_for
from worker.scheduler import plan_lock


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A place of its own for each test."""
    return Workshop(tmp_path)


def test_a_backup_ends_with_a_summary(workshop: Workshop) -> None:
    """Outcome, set, level and why, sizes, place, verification; nothing on standard error."""
    done = workshop.run("backup", "web")

    (made,) = workshop.sets()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"succeeded: plan web {made.name}\n")
    assert "level     0: the plan has no set yet" in done.stdout
    assert str(made) in done.stdout
    assert "checksums agree" in done.stdout


def test_a_script_reads_the_events(workshop: Workshop) -> None:
    """Each line is an event's data; the last is the outcome with the exit code."""
    lines = workshop.lines("backup", "web", "--reason", "before the update", "--label", "run=7")

    assert [line["outcome"] for line in lines if line["outcome"] != "progress"] == ["started", "succeeded"]
    assert lines[-1]["exit_code"] == 0
    assert lines[-1]["labels"] == {"team": "shop", "run": "7"}
    assert {line["backup_id"] for line in lines} == {workshop.sets()[0].name}


def test_the_next_backup_is_an_increment(workshop: Workshop) -> None:
    """Unless a full one is asked for."""
    workshop.backup()

    increment = workshop.lines("backup", "web")[-1]
    full = workshop.lines("backup", "web", "--level", "full")[-1]

    assert (increment["level"], full["level"]) == (1, 0)


def test_a_level_that_cannot_be_made_is_refused(workshop: Workshop) -> None:
    """There is nothing that level 3 could build on."""
    done = workshop.run("backup", "web", "--level", "3")

    assert done.returncode == 4
    assert "error: level 3 was asked for" in done.stderr
    assert workshop.sets() == []


def test_an_unknown_plan_is_refused(workshop: Workshop) -> None:
    """With the exit code of refusals, for people and scripts."""
    done = workshop.run("backup", "nonsense")
    line = workshop.lines("backup", "nonsense", expect=4)[-1]

    assert (done.returncode, done.stdout) == (4, "")
    assert "no plan 'nonsense'" in done.stderr
    assert (line["outcome"], line["exit_code"]) == ("refused", 4)


def test_a_dry_run_writes_nothing(workshop: Workshop) -> None:
    """Level, reason and the handler's words, and no file more than before."""
    before = sorted(workshop.top.rglob("*"))

    done = workshop.run("backup", "web", "--dry-run")
    line = workshop.lines("backup", "web", "--dry-run")[-1]

    assert done.returncode == 0
    assert "0: the plan has no set yet" in done.stdout
    assert (line["level"], line["store"]) == (0, "main")
    assert sorted(workshop.top.rglob("*")) == before


def test_a_file_that_cannot_be_read_makes_it_partial(workshop: Workshop) -> None:
    """The file is named, the exit code is 3, and the rest is in the set."""
    closed = workshop.subject / "closed"
    closed.write_text("nobody may read this\n")
    closed.chmod(0)

    done = workshop.run("backup", "web", prefix=UNPRIVILEGED)

    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith("partial: plan web")
    assert re.search(r"unreadable: (\./)?closed: ", done.stdout)
    assert len(workshop.sets()) == 1
    assert "is partial" in workshop.run("restore", "web", str(workshop.top / "restored")).stderr


def test_a_subject_that_is_missing_fails(workshop: Workshop) -> None:
    """No set, and the directory is named."""
    workshop.configure("  gone: {handler: tar, options: {root: /nonexistent/subject}}\n")

    done = workshop.run("backup", "gone")

    assert done.returncode == 1
    assert "/nonexistent/subject" in done.stderr
    assert "Traceback" not in done.stderr
    assert workshop.sets() == []


def test_a_store_that_is_away_is_tried_again(workshop: Workshop) -> None:
    """It says that it waits, goes on when the store is back, and ends well."""
    away = workshop.top / "away"
    workshop.store.rename(away)
    running = workshop.start("backup", "web", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stderr is not None
    waiting = running.stderr.readline()

    away.rename(workshop.store)
    told, _ = running.communicate(timeout=30)

    assert b"next try" in waiting
    assert (running.returncode, told[:9]) == (0, b"succeeded")


def test_ctrl_c_leaves_nothing_behind(workshop: Workshop) -> None:
    """In the middle of the reading: no set, no draft, exit code 130; a second Ctrl-C is harmless."""
    workshop.configure(f"  big: {{handler: tar, options: {{root: {workshop.top}/big, codec: xz}}}}\n")
    (workshop.top / "big").mkdir()
    with (workshop.top / "big" / "noise").open("wb") as stream:
        for _ in range(96):
            stream.write(os.urandom(1 << 20))
    running = workshop.start("backup", "big", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: any(path.stat().st_size for path in workshop.store.glob(".holdfast/drafts/*/data*")))

    running.send_signal(signal.SIGINT)
    running.send_signal(signal.SIGINT)
    told, complaint = running.communicate(timeout=20)

    assert running.returncode == 130, complaint
    assert b"interrupted" in complaint
    assert b"Traceback" not in complaint
    assert told == b""
    assert (workshop.sets(), workshop.drafts()) == ([], [])


def test_the_next_backup_removes_what_a_killed_one_left(workshop: Workshop) -> None:
    """Also where no worker ever runs."""
    (workshop.subject / "noise").write_bytes(os.urandom(32 << 20))
    killed = workshop.start("backup", "web", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: any(path.stat().st_size for path in workshop.store.glob(".holdfast/drafts/*/data*")))
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait(20)
    assert workshop.drafts()

    workshop.backup()

    assert workshop.drafts() == []
    assert len(workshop.sets()) == 1


def test_ctrl_c_while_another_process_works_on_the_plan(workshop: Workshop) -> None:
    """It says what it waits for, and stops waiting."""
    workshop.backup()
    lock = Lock.try_hold(plan_lock(workshop.top / "state", PlanName("web")))
    assert lock is not None
    with lock:
        running = workshop.start("backup", "web", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert running.stderr is not None
        waiting = running.stderr.readline()

        running.send_signal(signal.SIGINT)
        running.communicate(timeout=20)

    assert b"another process" in waiting
    assert running.returncode == 130
    assert len(workshop.sets()) == 1


def test_a_terminal_shows_progress(workshop: Workshop) -> None:
    """A line that moves, with what is made; the summary stays."""
    ours, theirs = pty.openpty()
    running = workshop.start("backup", "web", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)

    seen = _all_of(ours)
    running.wait(20)

    assert running.returncode == 0, seen
    assert b"web level 0" in seen
    assert b"\x1b[?25l" in seen  # the cursor is hidden while the line moves
    assert b"\x1b[?25h" in seen
    assert b"succeeded" in seen


def test_without_a_terminal_only_the_summary_is_told(workshop: Workshop) -> None:
    """No escape sequences, no moving lines."""
    done = workshop.run("backup", "web")

    assert "\x1b" not in done.stdout + done.stderr
    assert done.stderr == ""


def test_a_reader_that_went_away_does_not_break_a_backup(workshop: Workshop) -> None:
    """`holdfast backup web --json | head -1` still makes the backup."""
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(workshop.command("backup", "web", "--json"), stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)

    assert (done.returncode, done.stderr) == (0, b"")
    assert len(workshop.sets()) == 1


def test_a_damaged_journal_is_told_with_its_exit_code(workshop: Workshop) -> None:
    """Integrity: a person must look."""
    (workshop.top / "state").mkdir()
    (workshop.top / "state" / "journal.sqlite3").write_bytes(b"this is no journal\n" * 1000)

    done = workshop.run("backup", "web")

    assert done.returncode == 6
    assert "error: the journal" in done.stderr
    assert "hint: " in done.stderr


def _all_of(terminal: int) -> bytes:
    """Everything until the other side is closed."""
    seen = b""
    while True:
        ready, _, _ = select.select([terminal], [], [], 20)
        assert ready, seen
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            piece = b""
        if not piece:
            os.close(terminal)
            return seen
        seen += piece
