"""The spool intake learns of new files, whatever happens to the directory it watches."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from tests.workshop.spools import Desk, Running, eventually, put
from worker.intake.hints import DirectoryHints, is_remote


def test_a_spool_that_was_removed_is_made_again(spool: Path, start: Callable[..., Running]) -> None:
    """The watch goes with the directory; nobody has to restart the worker."""
    desk = Desk()
    start(desk)
    put(spool, "before")
    desk.wait_for(1)

    shutil.rmtree(spool)

    eventually(lambda: (spool / "cur" / "1" / ".lock").exists() and (spool / "new").is_dir())
    put(spool, "after")
    desk.wait_for(2)
    assert desk.ids == ["before", "after"]


def test_a_directory_exchanged_under_us_is_found_at_the_next_look(spool: Path, start: Callable[..., Running]) -> None:
    """Moved away and made anew: no event tells of that, the period does."""
    desk = Desk()
    start(desk, scan_seconds=0.3)
    put(spool, "before")
    desk.wait_for(1)

    (spool / "new").rename(spool / "old")
    (spool / "new").mkdir()
    put(spool, "after")

    desk.wait_for(2)


def test_lost_hints_only_cost_the_period(spool: Path, start: Callable[..., Running]) -> None:
    """A hard link made elsewhere, an overflow, a remote writer: the look at the directory finds everything."""
    desk = Desk()
    start(desk, scan_seconds=0.3)
    put(spool, "first")
    desk.wait_for(1)
    (spool / "elsewhere").mkdir()
    (spool / "elsewhere" / "x").write_bytes(b'{"plan": "p"}')

    os.link(spool / "elsewhere" / "x", spool / "new" / "linked")

    desk.wait_for(2)


def test_a_full_kernel_queue_wakes_the_reader(tmp_path: Path) -> None:
    """The library only logs it; the log line is the hint."""
    woken = threading.Event()
    hints = DirectoryHints(woken.set, scan_seconds=30)
    try:
        hints.watch(tmp_path)

        logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed")

        assert woken.is_set()
    finally:
        hints.close()


def test_a_directory_made_anew_is_watched_again(tmp_path: Path) -> None:
    """Even where it gets the inode number of the one before, as it often does."""
    woken = threading.Event()
    hints = DirectoryHints(woken.set, scan_seconds=30)
    directory = tmp_path / "new"

    def is_told_of_files() -> bool:
        # Several, since the first wake-up may still be that of the removal.
        told = []
        for turn in range(4):
            hints.watch(directory)
            woken.clear()
            (directory / str(turn)).write_text("x")
            told.append(woken.wait(0.3))
        return all(told)

    try:
        for _ in range(5):
            directory.mkdir()
            eventually(is_told_of_files)
            shutil.rmtree(directory)
    finally:
        hints.close()


def test_a_directory_that_cannot_be_watched_is_polled(tmp_path: Path) -> None:
    """Missing now, watched as soon as it is there."""
    hints = DirectoryHints(lambda: None, scan_seconds=30)
    try:
        hints.watch(tmp_path / "later")
        before = hints.patience
        (tmp_path / "later").mkdir()
        hints.watch(tmp_path / "later")

        assert (before, hints.patience <= 30) == (2.0, True)
    finally:
        hints.close()


def test_remote_file_systems_are_recognised(tmp_path: Path) -> None:
    """By the mount that holds the directory: the longest, and of two at one place the later."""
    root = "1 0 8:1 / / rw - ext4 /dev/sda rw\n"

    def mounted(kind: str, where: Path) -> str:
        return root + f"2 1 0:40 / {str(where).replace(' ', chr(92) + '040')} rw,relatime shared:1 - {kind} x rw\n"

    spaced = tmp_path / "a b"
    spaced.mkdir()

    assert not is_remote(tmp_path, root)
    assert is_remote(tmp_path / "x", mounted("nfs4", tmp_path))
    assert is_remote(spaced, mounted("fuse.sshfs", spaced))
    assert not is_remote(tmp_path, mounted("nfs", tmp_path / "x"))
    assert not is_remote(tmp_path, mounted("nfs", tmp_path) + f"3 2 8:2 / {tmp_path} rw - xfs /dev/sdb rw\n")
