"""Meets a running tar in the middle of its work."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from handlers.contract import Progress
from tests.workshop.tar_levels import Recorder
from tests.workshop.workers import wait_for


class Interfering(Recorder):
    """A control that does something to the subject as soon as enough bytes of it have gone by."""

    def __init__(self, after_bytes: int, interfere: Callable[[], None]) -> None:
        super().__init__()
        self._after_bytes = after_bytes
        self._interfere: Callable[[], None] | None = interfere

    def report(self, progress: Progress) -> None:
        """Interfere once."""
        super().report(progress)
        if progress.bytes_in >= self._after_bytes and self._interfere is not None:
            interfere, self._interfere = self._interfere, None
            interfere()


class Blocked(Recorder):
    """A control that does something to the subject when tar cannot go on, because nobody reads what it wrote.

    Tar has looked through all directories then. What it writes has to be more than a pipe holds.
    """

    def __init__(self, subject: Path, interfere: Callable[[], object]) -> None:
        super().__init__()
        self._subject = subject
        self._interfere = interfere

    def started(self) -> None:
        """Wait for tar to block, and interfere."""
        super().started()
        wait_for(lambda: is_tar(self._subject) and is_idle(tar_of(self._subject)), what="tar to block")
        self._interfere()


def is_idle(process: psutil.Process) -> bool:
    """Whether it has slept for a while, and done nothing between."""
    before = process.cpu_times()
    for _ in range(5):
        if process.status() != psutil.STATUS_SLEEPING:
            return False
        time.sleep(0.01)
    return process.cpu_times() == before


def is_tar(subject: Path) -> bool:
    """Whether the tar that reads this subject runs already."""
    return any(child.name() == "tar" for child in psutil.Process().children(recursive=True))


def tar_of(subject: Path) -> psutil.Process:
    """The tar that reads this subject."""
    (found,) = [
        child
        for child in psutil.Process().children(recursive=True)
        if f"--directory={subject}" in child.cmdline() and child.name() == "tar"
    ]
    return found


def children() -> list[psutil.Process]:
    """What this process started itself: the servers of the session start and end processes of their own."""
    return psutil.Process().children()
