"""Tars that end early, stores that are full, parents that are damaged."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from handlers.contract import Progress
from handlers.errors import Cancelled, IntegrityError, PermanentError, TemporaryError
from handlers.tar_level import TarHandler
from tests.workshop.interfering import Interfering, children, tar_of
from tests.workshop.tar_levels import Plan, Recorder, listed


def test_a_tar_that_is_killed_is_a_temporary_error(plan: Plan, subject: Path, big: Path) -> None:
    """A torn archive is not a backup, even when tar had complained about files before."""
    plan.control = Interfering(16 << 20, lambda: tar_of(subject).send_signal(signal.SIGKILL))
    before = children()

    with pytest.raises(TemporaryError, match="SIGKILL"):
        plan.back_up()

    assert children() == before
    assert plan.sets == []


def test_a_tar_that_crashes_on_a_later_level_leaves_the_parent_alone(plan: Plan, subject: Path, big: Path) -> None:
    """Trying again gives the level that would have been."""
    plan.back_up(exclude=("big",))
    parent = (plan.sets[0].directory / "tree.snar.zst").read_bytes()
    (subject / "bigger").touch()
    os.truncate(subject / "bigger", 1 << 30)
    plan.control = Interfering(16 << 20, lambda: tar_of(subject).send_signal(signal.SIGSEGV))
    with pytest.raises(TemporaryError, match="SIGSEGV"):
        plan.back_up()
    assert (plan.sets[0].directory / "tree.snar.zst").read_bytes() == parent

    shutil.rmtree(plan.place / "set-1")
    plan.control = Recorder()
    plan.back_up(exclude=("big",))

    assert listed(plan) == ["bigger"]


class Stopping(Recorder):
    """A control that asks to stop once the work has begun and this many checkpoints have gone by."""

    def __init__(self, checkpoints: int) -> None:
        super().__init__()
        self._left = checkpoints

    def checkpoint(self) -> None:
        """Count down."""
        super().checkpoint()
        if self.calls:
            self._left -= 1
            if self._left < 0:
                raise Cancelled("stop")


class Freezing(Stopping):
    """A control that suspends tar, and asks to stop some checkpoints later."""

    def __init__(self, subject: Path) -> None:
        super().__init__(1_000_000)
        self._subject = subject
        self._frozen = False

    def report(self, progress: Progress) -> None:
        """Suspend tar once."""
        super().report(progress)
        if progress.bytes_in >= 16 << 20 and not self._frozen:
            self._frozen = True
            tar_of(self._subject).suspend()
            self.checkpoints.clear()
            self._left = 12


@pytest.mark.parametrize("checkpoints", [0, 1, 50])
def test_cancelling_ends_tar(plan: Plan, big: Path, checkpoints: int) -> None:
    """Whenever it comes: nothing runs on, no thread is left."""
    plan.control = Stopping(checkpoints)
    before, threads = children(), threading.active_count()

    with pytest.raises(Cancelled):
        plan.back_up()

    assert children() == before
    assert threading.active_count() == threads


def test_a_tar_that_says_nothing_can_be_cancelled(plan: Plan, subject: Path, big: Path) -> None:
    """Checkpoints go on at least once a second while tar is silent."""
    plan.control = Freezing(subject)
    before = children()

    with pytest.raises(Cancelled):
        plan.back_up()

    times = plan.control.checkpoints
    assert max(later - earlier for earlier, later in pairwise(times)) < 1
    assert children() == before


class FullSink:
    """A sink whose disk is full after some bytes of one part."""

    def __init__(self, part: str, room_bytes: int) -> None:
        self._part = part
        self._room_bytes = room_bytes

    def open_part(self, name: str) -> FullPart:
        """A part; only one of them is refused."""
        return FullPart(self._room_bytes if name == self._part else 1 << 60)


class FullPart:
    """A part that takes only so much."""

    def __init__(self, room_bytes: int) -> None:
        self._room_bytes = room_bytes

    def write(self, chunk: bytes | bytearray | memoryview, /) -> int:
        """Take it, or not."""
        self._room_bytes -= len(chunk)
        if self._room_bytes < 0:
            raise TemporaryError("no space left on the store")
        return len(chunk)

    def close(self) -> object:
        """Not reached by the part that matters."""
        raise TemporaryError("no space left on the store")


@pytest.mark.parametrize("part", ["data.tar", "data.frames", "index.zst", "problems.zst"])
def test_a_full_store_ends_the_backup_as_a_temporary_error(
    plan: Plan, subject: Path, big: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Whichever part does not fit, tar ends, and the error is the store's own."""
    monkeypatch.chdir(subject)
    before, threads = children(), threading.active_count()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("sock")
        os.truncate(big, 64 << 20)
        prepared = plan.handler.prepare(plan.job(codec="none"))

        with pytest.raises(TemporaryError, match="no space left on the store"):
            prepared.produce(FullSink(part, 100 if part != "data.tar" else 20 << 20))  # type: ignore[arg-type]  # its parts never close

    assert children() == before
    assert threading.active_count() == threads


def test_a_parent_without_a_snapshot_is_an_integrity_error(plan: Plan) -> None:
    """An empty snapshot would make tar write a level 0 under another name."""
    plan.back_up()
    path = plan.sets[0].directory / "tree.snar.zst"
    subprocess.run(["zstd", "-q", "-f", "-o", path], input=b"", check=True)
    content = path.read_bytes()
    part = plan.sets[0].parts["tree.snar.zst"]
    forged = replace(part, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    plan.sets[0].parts = {**plan.sets[0].parts, "tree.snar.zst": forged}

    with pytest.raises(IntegrityError, match="snapshot"):
        plan.back_up()


def test_another_tar_is_not_taken_for_gnu_tar(
    plan: Plan, subject: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tar of another make, or too old, is refused with a hint."""
    tools = tmp_path / "bin"
    tools.mkdir()
    fake = tools / "tar"
    fake.write_text("#!/bin/sh\necho 'bsdtar 3.6.2 - libarchive 3.6.2'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")

    assert plan.handler.check(TarHandler.Options(root=subject, engine="gnu")) == [f"{fake} is not GNU tar"]
    with pytest.raises(PermanentError, match="not GNU tar"):
        plan.back_up(engine="gnu")
