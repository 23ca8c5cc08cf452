"""The spool while its worker is killed at every instant, and while the disk refuses."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from worker.intake.delivery import Delivery, Gate, Settlement
from worker.intake.spool import SpoolIntake
from worker.intake.spool_dirs import SpoolDirectories
from worker.spool_client import submit

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0

WORKER = '''
"""A worker that notes what it is given; it may kill itself just before its n-th touch of the disk."""
import os, signal, sys, threading
from pathlib import Path
from loguru import logger
from worker.intake import spool as intake_module
from worker.intake.delivery import Gate, Settlement
from worker.intake.spool import SpoolIntake

logger.remove()
intake_module._HAND_BACK_SECONDS = 0.02  # there are many rounds


def waiting(spool):
    found = [entry for entry in os.scandir(spool / "new")]
    for slot in os.scandir(spool / "cur"):
        found += [entry for entry in os.scandir(slot.path) if not entry.name.startswith(".")]
    return found


def work(spool, notes, die_at, settles):
    intake = SpoolIntake(spool, worker=str(os.getpid()), scan_seconds=0.2, keep_done_days=1, max_request_bytes=1000)
    touches = 0
    log = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def deliver(delivery):
        os.write(log, f"{delivery.body.decode()} {delivery.redelivered}\\n".encode())
        if not settles:
            return
        if b"bad" in delivery.body:
            delivery.settle(Settlement.REJECT, "bad")
        elif b"back" in delivery.body and not delivery.redelivered and not (spool / "went").exists():
            (spool / "went").touch()
            delivery.settle(Settlement.HAND_BACK)
        else:
            delivery.settle(Settlement.ACCEPT)

    def before_touch(event, arguments):
        nonlocal touches
        if event in {"open", "os.scandir", "os.mkdir"} and threading.current_thread() is thread:
            touches += 1
            if touches == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    gate = Gate(deliver=deliver, room=lambda: 100)
    thread = threading.Thread(target=intake.run, args=(gate,))
    sys.addaudithook(before_touch)
    thread.start()
    tick = threading.Event()
    while not settles or waiting(spool):
        tick.wait(0.005)
    intake.close()
    thread.join()


def in_child(*arguments):
    child = os.fork()
    if child == 0:
        try:
            work(*arguments)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


if sys.argv[1] == "once":
    work(Path(sys.argv[2]), sys.argv[3], 0, sys.argv[4] == "settles")
elif sys.argv[1] == "each":
    # Every round has a fresh spool; the last is the one that lived to the end of its work.
    room = Path(sys.argv[2])
    for die_at in range(1, 1000):
        spool, notes = room / str(die_at), room / f"{die_at}.notes"
        SpoolIntake(spool, worker="x", scan_seconds=1, keep_done_days=1, max_request_bytes=1000)
        for name in ("a", "bad", "back", "z"):
            (spool / "tmp" / name).write_text(f'"{name}"')
            (spool / "tmp" / name).rename(spool / "new" / name)
        status = in_child(spool, notes, die_at, True)
        if not os.WIFSIGNALED(status):
            sys.exit(os.waitstatus_to_exitcode(status))
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert in_child(spool, notes, 0, True) == 0
'''


def python(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WORKER, *map(str, arguments)], cwd=ROOT)


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir() if not entry.name.startswith("."))


def claimed(spool: Path) -> list[str]:
    return [name for slot in (spool / "cur").iterdir() for name in names(slot)]


def eventually(condition: object) -> None:
    assert callable(condition)
    end, tick = time.monotonic() + PATIENCE, threading.Event()
    while not condition():
        assert time.monotonic() < end, "it never came true"
        tick.wait(0.005)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    directories = SpoolDirectories(tmp_path / "spool")
    directories.prepare()
    return directories.path


@pytest.fixture
def events() -> Iterator[Counter[str]]:
    """How often each event was logged."""
    counted: Counter[str] = Counter()
    sink = logger.add(lambda message: counted.update([message.record["message"]]), level="DEBUG")
    yield counted
    logger.remove(sink)


@pytest.mark.slow
def test_killed_before_any_touch_of_the_disk_nothing_is_lost(tmp_path: Path) -> None:
    """Between claim and delivery, before the settlement, in its middle: the next worker delivers what is open."""
    room = tmp_path / "room"
    room.mkdir()

    driver = python("each", room)

    assert driver.wait(PATIENCE * 3) == 0
    rounds = sorted((path for path in room.iterdir() if path.is_dir()), key=lambda path: int(path.name))
    assert len(rounds) > 20, "the kills did not reach the settlements"
    for spool in rounds:
        told = [line.split()[0].strip('"') for line in (room / f"{spool.name}.notes").read_text().splitlines()]
        assert set(told) == {"a", "bad", "back", "z"}, spool.name
        assert names(spool / "done") == ["a", "back", "z"], spool.name
        assert names(spool / "failed")[0] == "bad", spool.name
        assert (names(spool / "new"), claimed(spool)) == ([], []), spool.name


def test_killed_while_it_holds_requests_all_come_again(spool: Path, tmp_path: Path) -> None:
    """Delivered, never settled, kill -9: each comes again to the next worker, marked as redelivered."""
    notes = tmp_path / "notes"
    for number in range(20):
        submit(spool, f'"r{number}"'.encode(), f"r{number}")
    holder = python("once", spool, notes, "holds")
    try:
        eventually(lambda: notes.exists() and len(notes.read_text().splitlines()) == 20)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait(PATIENCE)
    assert len(claimed(spool)) == 20

    assert python("once", spool, notes, "settles").wait(PATIENCE) == 0

    again = notes.read_text().splitlines()[20:]
    assert sorted(again) == sorted(f'"r{number}" True' for number in range(20))
    assert len(names(spool / "done")) == 20


@pytest.mark.slow
def test_two_workers_killed_at_random_lose_nothing(spool: Path, tmp_path: Path) -> None:
    """Whoever is left adopts; in the end every request was delivered and lies in done/ once."""
    notes, chance = tmp_path / "notes", random.Random(7)
    for number in range(1500):
        submit(spool, f'"r{number}"'.encode(), f"r{number}")
    tick = threading.Event()

    for _ in range(4):
        before = len(names(spool / "done"))
        pair = [python("once", spool, notes, "settles") for _ in range(2)]
        try:
            eventually(lambda before=before: len(names(spool / "done")) > before or not names(spool / "new"))
        finally:
            for worker in pair:
                tick.wait(chance.uniform(0, 0.03))
                worker.send_signal(signal.SIGKILL)
                worker.wait(PATIENCE)
    assert python("once", spool, notes, "settles").wait(PATIENCE) == 0

    told = {line.split()[0].strip('"') for line in notes.read_text().splitlines()}
    assert told == {f"r{number}" for number in range(1500)}
    assert len(names(spool / "done")) == 1500
    assert len({(spool / "done" / name).read_bytes() for name in names(spool / "done")}) == 1500


def test_a_disk_that_refuses_is_said_once_and_survived(
    spool: Path, monkeypatch: pytest.MonkeyPatch, events: Counter[str]
) -> None:
    """While nothing can be read the intake waits; then the requests that waited are delivered."""
    scandir, attempts, taken = os.scandir, threading.Semaphore(0), threading.Semaphore(0)
    broken = threading.Event()
    broken.set()

    def refuse(path: str) -> object:
        if broken.is_set():
            attempts.release()
            raise OSError(errno.EIO, "Input/output error")
        return scandir(path)

    def deliver(delivery: Delivery) -> None:
        delivery.settle(Settlement.ACCEPT)
        taken.release()

    submit(spool, b'"x"', "x")
    intake = SpoolIntake(spool, worker="w", scan_seconds=30, keep_done_days=1, max_request_bytes=100)
    gate = Gate(deliver=deliver, room=lambda: 1)
    thread = threading.Thread(target=intake.run, args=(gate,))
    monkeypatch.setattr(os, "scandir", refuse)
    thread.start()
    try:
        for _ in range(3):
            assert attempts.acquire(timeout=PATIENCE)
            intake.poke()
        broken.clear()
        intake.poke()

        assert taken.acquire(timeout=PATIENCE)
    finally:
        intake.close()
        thread.join(PATIENCE)
    assert (events["spool_trouble"], events["spool_recovered"]) == (1, 1)


def test_a_file_that_cannot_be_read_does_not_hold_up_the_others(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad sector under one request is that request's trouble; it stays claimed and is read again later."""
    real, taken, lock = os.open, [], threading.Condition()
    broken = threading.Event()
    broken.set()

    def refuse(path: object, flags: int, *more: int, **named: int) -> int:
        if broken.is_set() and str(path).endswith("bad") and "cur" in str(path):
            raise OSError(errno.EIO, "Input/output error")
        return real(path, flags, *more, **named)  # type: ignore[arg-type]

    def deliver(delivery: Delivery) -> None:
        delivery.settle(Settlement.ACCEPT)
        with lock:
            taken.append(delivery.message_id)
            lock.notify_all()

    monkeypatch.setattr(os, "open", refuse)
    for name in ("bad", "good"):
        (spool / "tmp" / name).write_bytes(b"{}")
        (spool / "tmp" / name).rename(spool / "new" / name)
    intake = SpoolIntake(spool, worker="w", scan_seconds=0.2, keep_done_days=1, max_request_bytes=100)
    thread = threading.Thread(target=intake.run, args=(Gate(deliver=deliver, room=lambda: 9),))
    thread.start()
    try:
        with lock:
            assert lock.wait_for(lambda: taken == ["good"], PATIENCE)
        broken.clear()
        with lock:
            assert lock.wait_for(lambda: taken == ["good", "bad"], PATIENCE)
    finally:
        intake.close()
        thread.join(PATIENCE)


def test_a_file_that_cannot_be_moved_is_left_alone_and_said_once(
    spool: Path, monkeypatch: pytest.MonkeyPatch, events: Counter[str]
) -> None:
    """Somebody else's directory, a mount point: it stays, and however often we look, the others go on."""
    real, taken = os.stat, threading.Semaphore(0)

    def refuse(path: object, **named: bool) -> os.stat_result:
        if str(path).endswith("theirs"):
            raise OSError(errno.EBUSY, "Device or resource busy")
        return real(path, **named)  # type: ignore[arg-type]

    def deliver(delivery: Delivery) -> None:
        delivery.settle(Settlement.ACCEPT)
        taken.release()

    monkeypatch.setattr(os, "stat", refuse)
    (spool / "new" / "theirs").mkdir()
    intake = SpoolIntake(spool, worker="w", scan_seconds=0.05, keep_done_days=1, max_request_bytes=100)
    gate = Gate(deliver=deliver, room=lambda: 9)
    thread = threading.Thread(target=intake.run, args=(gate,))
    thread.start()
    try:
        for number in range(20):
            submit(spool, b"{}", str(number))
            assert taken.acquire(timeout=PATIENCE)
    finally:
        intake.close()
        thread.join(PATIENCE)
    assert names(spool / "new") == ["theirs"]
    assert (events["spool_file_stuck"], events["spool_trouble"]) == (1, 0)
