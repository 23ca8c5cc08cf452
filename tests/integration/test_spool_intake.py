"""The spool intake against a real directory."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from handlers.errors import PermanentError
from worker.intake import spool_dirs
from worker.intake.delivery import Delivery, Gate, Settlement
from worker.intake.hints import DirectoryHints, is_remote
from worker.intake.spool import SpoolIntake
from worker.intake.spool_dirs import kept_name
from worker.intake.wire import parse
from worker.spool_client import submit

PATIENCE = 20.0


class Desk:
    """The worker's side of an intake: takes deliveries, answers as told, and can be waited for."""

    def __init__(self, answer: Callable[[Delivery], Settlement | None] = lambda _: Settlement.ACCEPT) -> None:
        self.answer = answer
        self.room = 1000
        self.taken: list[Delivery] = []
        self._changed = threading.Condition()

    def gate(self) -> Gate:
        """What the intake is given."""
        return Gate(deliver=self._deliver, room=lambda: self.room)

    def _deliver(self, delivery: Delivery) -> None:
        settlement = self.answer(delivery)
        if settlement is not None:
            delivery.settle(settlement, "because")
        with self._changed:
            self.taken.append(delivery)
            self._changed.notify_all()

    @property
    def ids(self) -> list[str | None]:
        """What came, in order."""
        return [delivery.message_id for delivery in self.taken]

    def wait_for(self, count: int) -> list[Delivery]:
        """The deliveries, once there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.taken) >= count, PATIENCE), f"only {self.ids} came"
        return self.taken


class Running:
    """An intake in its thread."""

    def __init__(
        self, spool: Path, desk: Desk, *, worker: str = "w", scan_seconds: float = 30.0, **more: object
    ) -> None:
        settings: dict[str, object] = {"keep_done_days": 14.0, "max_request_bytes": 1000, **more}
        self.intake = SpoolIntake(spool, worker=worker, scan_seconds=scan_seconds, **settings)  # type: ignore[arg-type]
        self.thread = threading.Thread(target=self.intake.run, args=(desk.gate(),))
        self.thread.start()

    def stop(self) -> None:
        """End it; fails where `run` does not return."""
        self.intake.stop()
        self.intake.close()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "var" / "spool"


@pytest.fixture
def start(spool: Path) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(desk: Desk, **settings: object) -> Running:
        running.append(Running(spool, desk, **settings))  # type: ignore[arg-type]
        return running[-1]

    yield begin
    for one in running:
        one.stop()


def eventually(condition: Callable[[], bool]) -> None:
    end, tick = time.monotonic() + PATIENCE, threading.Event()
    while not condition():
        assert time.monotonic() < end, "it never came true"
        tick.wait(0.01)


def put(spool: Path, name: str | bytes, body: bytes = b'{"plan": "photos"}', *, age_seconds: float = 0) -> None:
    """As the rules ask: written in tmp/, renamed into new/."""
    draft = spool / "tmp" / os.fsdecode(name)
    draft.write_bytes(body)
    when = time.time() - age_seconds
    os.utime(draft, (when, when))
    draft.rename(spool / "new" / os.fsdecode(name))


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir() if not entry.name.startswith("."))


def test_a_renamed_file_is_delivered_and_kept_in_done(spool: Path, start: Callable[..., Running]) -> None:
    """The whole way of one request, with the file's name as the id of a body that has none."""
    desk = Desk()
    start(desk)

    put(spool, "nightly.json")

    delivery = desk.wait_for(1)[0]
    assert (delivery.intake, delivery.message_id, delivery.redelivered) == ("spool", "nightly", False)
    assert parse(delivery.body, message_id=delivery.message_id).request_id == "nightly"
    assert names(spool / "done") == ["nightly.json"]
    assert names(spool / "new") == []


def test_what_was_there_before_the_start_is_delivered(spool: Path, start: Callable[..., Running]) -> None:
    """No event tells of it; the look at the start does, oldest first."""
    SpoolIntake(spool, worker="w", scan_seconds=30, keep_done_days=1, max_request_bytes=100)
    put(spool, "b", age_seconds=100)
    put(spool, "a", age_seconds=50)
    put(spool, "c", age_seconds=200)
    desk = Desk()

    start(desk)

    desk.wait_for(3)
    assert desk.ids == ["c", "b", "a"]


def test_submitted_requests_arrive(spool: Path, start: Callable[..., Running]) -> None:
    """What the client puts in comes out, twice where it was put in twice."""
    desk = Desk()
    start(desk)

    submit(spool, b'{"id": "../x y", "plan": "p"}', "../x y")
    submit(spool, b'{"id": "../x y", "plan": "q"}', "../x y")

    assert sorted(one.body for one in desk.wait_for(2)) == [
        b'{"id": "../x y", "plan": "p"}',
        b'{"id": "../x y", "plan": "q"}',
    ]
    assert names(spool / "tmp") == []


def test_submitting_to_nowhere_says_so(spool: Path) -> None:
    """A spool that no worker made is the caller's mistake, not something to try again."""
    with pytest.raises(PermanentError, match="there is no spool"):
        submit(spool, b"{}", "x")


def test_it_arrives_within_milliseconds_although_the_one_before_was_just_claimed(
    spool: Path, start: Callable[..., Running]
) -> None:
    """A claim is a move out of the watched directory; the next arrival does not wait behind it."""
    desk = Desk()
    start(desk)
    put(spool, "first")
    desk.wait_for(1)

    delays = []
    for number in range(2, 22):
        began = time.monotonic()
        put(spool, f"r{number}")
        desk.wait_for(number)
        delays.append(time.monotonic() - began)

    assert sorted(delays)[len(delays) // 2] < 0.1, delays


def test_a_rejected_request_is_kept_with_its_reason(spool: Path, start: Callable[..., Running]) -> None:
    """The dead letters of a spool are files that a person can read."""
    desk = Desk(lambda _: Settlement.REJECT)
    start(desk)

    put(spool, "x.json", b"[]")
    desk.wait_for(1)
    put(spool, "x.json", b"{}")
    desk.wait_for(2)

    assert names(spool / "failed") == ["x.json", "x.json.2", "x.json.2.reason", "x.json.reason"]
    assert (spool / "failed" / "x.json").read_bytes() == b"[]"
    assert (spool / "failed" / "x.json.reason").read_text() == "because\n"


def test_a_request_handed_back_waits_in_new_and_comes_again(spool: Path, start: Callable[..., Running]) -> None:
    """Nothing was done with it, so it is there for whoever comes next, this worker included, without a hot loop."""
    answers = iter([Settlement.HAND_BACK, Settlement.ACCEPT])
    desk = Desk(lambda _: next(answers))
    start(desk)
    began = time.monotonic()

    put(spool, "x")

    assert [one.message_id for one in desk.wait_for(2)] == ["x", "x"]
    assert time.monotonic() - began >= 0.9
    assert names(spool / "done") == ["x"]


def test_a_request_handed_back_never_replaces_one_of_its_name(spool: Path, start: Callable[..., Running]) -> None:
    """The same name came again meanwhile, with another content: both are delivered."""
    desk = Desk(lambda _: None)
    start(desk)
    put(spool, "x", b'{"turn": 1}')
    first = desk.wait_for(1)[0]
    put(spool, "x", b'{"turn": 2}')

    desk.answer = lambda _: Settlement.ACCEPT
    first.settle(Settlement.HAND_BACK)

    assert [one.body for one in desk.wait_for(3)] == [b'{"turn": 1}', b'{"turn": 1}', b'{"turn": 2}']
    assert names(spool / "done") == ["x", "x.2"]


def test_only_the_first_settlement_counts(spool: Path, start: Callable[..., Running]) -> None:
    """Settling is safe to repeat, even when the same file has been delivered again since."""
    desk = Desk(lambda _: None)
    start(desk)
    put(spool, "x")
    first = desk.wait_for(1)[0]
    first.settle(Settlement.HAND_BACK)
    second = desk.wait_for(2)[1]

    first.settle(Settlement.REJECT, "too late")
    second.settle(Settlement.ACCEPT)
    second.settle(Settlement.REJECT, "too late")

    assert (names(spool / "failed"), names(spool / "done")) == ([], ["x"])


def test_nothing_is_claimed_without_room(spool: Path, start: Callable[..., Running]) -> None:
    """What the worker would not begin stays in new/ for others; a poke brings the next."""
    desk = Desk(lambda _: None)
    desk.room = 0
    running = start(desk)
    for number in range(5):
        put(spool, f"r{number}", age_seconds=100 - number)

    def take_one(delivery: Delivery) -> None:
        desk.room = 0

    desk.answer = take_one
    desk.room = 1
    running.intake.poke()

    desk.wait_for(1)
    assert desk.ids == ["r0"]
    assert names(spool / "new") == ["r1", "r2", "r3", "r4"]
    desk.taken[0].settle(Settlement.ACCEPT)
    desk.room = 1
    running.intake.poke()
    desk.wait_for(2)
    assert desk.ids == ["r0", "r1"]


def test_after_stop_nothing_comes_and_settlements_are_still_carried_out(
    spool: Path, start: Callable[..., Running]
) -> None:
    """Draining: what runs is finished, what waits is left; `run` returns at close."""
    desk = Desk(lambda _: None)
    running = start(desk)
    put(spool, "running")
    delivery = desk.wait_for(1)[0]

    running.intake.stop()
    put(spool, "waiting")
    delivery.settle(Settlement.ACCEPT)
    running.stop()

    assert desk.ids == ["running"]
    assert (names(spool / "done"), names(spool / "new")) == (["running"], ["waiting"])


def test_what_a_worker_left_unsettled_is_delivered_again(spool: Path, start: Callable[..., Running]) -> None:
    """Closed without a settlement: the next worker gets it, marked as redelivered, and the old one moves nothing."""
    before, after = Desk(lambda _: None), Desk()
    running = start(before)
    put(spool, "x")
    old = before.wait_for(1)[0]
    running.stop()

    start(after)

    assert [(one.message_id, one.redelivered) for one in after.wait_for(1)] == [("x", True)]
    old.settle(Settlement.REJECT, "too late")
    assert (names(spool / "failed"), names(spool / "done")) == ([], ["x"])


def test_a_living_worker_adopts_what_another_left(spool: Path, start: Callable[..., Running]) -> None:
    """Nobody needs to restart for the requests of a worker that never comes back."""
    gone, living = Desk(lambda _: None), Desk()
    leaving = start(gone, worker="gone")
    put(spool, "x")
    gone.wait_for(1)
    gone.room = 0
    start(living, worker="living", scan_seconds=0.2)
    put(spool, "y")
    living.wait_for(1)
    assert living.ids == ["y"], "a living worker's claim is its own"

    leaving.stop()

    assert [(one.message_id, one.redelivered) for one in living.wait_for(2)][1] == ("x", True)


def test_two_workers_never_hold_one_request(spool: Path, start: Callable[..., Running]) -> None:
    """Every request is delivered to one of them."""
    left, right = Desk(), Desk()
    start(left, worker="left", scan_seconds=0.1)
    start(right, worker="right", scan_seconds=0.1)

    for number in range(400):
        put(spool, f"r{number}")

    eventually(lambda: len(left.taken) + len(right.taken) >= 400)
    assert sorted([*left.ids, *right.ids], key=str) == sorted(f"r{number}" for number in range(400))
    assert not any(one.redelivered for one in (*left.taken, *right.taken))


def test_the_same_name_while_it_is_worked_on_waits_for_its_turn(spool: Path, start: Callable[..., Running]) -> None:
    """A second file of a claimed name neither replaces the first nor is lost."""
    desk = Desk(lambda _: None)
    start(desk)
    put(spool, "x", b'{"turn": 1}')
    first = desk.wait_for(1)[0]
    put(spool, "x", b'{"turn": 2}')
    put(spool, "y")
    desk.wait_for(2)

    first.settle(Settlement.ACCEPT)

    assert [one.body for one in desk.wait_for(3)] == [b'{"turn": 1}', b'{"plan": "photos"}', b'{"turn": 2}']


def test_a_file_written_in_place_is_taken_when_it_is_whole(spool: Path, start: Callable[..., Running]) -> None:
    """A producer that ignores the rule and is slow gets its request through all the same."""
    desk = Desk()
    start(desk)
    body, tick = b'{"plan": "photos", "id": "slow"}', threading.Event()

    with (spool / "new" / "slow.json").open("wb", buffering=0) as file:
        for byte in body:
            file.write(bytes([byte]))
            tick.wait(0.03)

    assert [one.body for one in desk.wait_for(1)] == [body]


def test_a_file_that_never_becomes_json_is_delivered_after_a_while(spool: Path, start: Callable[..., Running]) -> None:
    """It is refused then, where everybody sees it, rather than waiting for ever."""
    desk = Desk(lambda _: Settlement.REJECT)
    start(desk)
    began = time.monotonic()

    put(spool, "half", b'{"plan": "pho')

    desk.wait_for(1)
    assert time.monotonic() - began > 1.5
    assert names(spool / "failed") == ["half", "half.reason"]


def test_odd_things_are_moved_aside_and_never_followed(
    spool: Path, start: Callable[..., Running], tmp_path: Path
) -> None:
    """Links, pipes, directories, sockets and devices get a reason; what a link points to stays untouched."""
    secret = tmp_path / "secret"
    secret.write_bytes(b'{"plan": "photos", "id": "secret"}')
    desk = Desk()
    start(desk)
    new = spool / "new"

    (new / "link").symlink_to(secret)
    (new / "dangling").symlink_to("/nonexistent")
    os.mkfifo(new / "pipe")
    (new / "directory").mkdir()
    (new / "directory" / "inside").write_bytes(b"{}")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(new / "socket"))
    odd = {"link", "dangling", "pipe", "directory", "socket"}
    if os.geteuid() == 0:
        os.mknod(new / "device", 0o20600, os.makedev(1, 5))
        odd.add("device")
    put(spool, "good")

    desk.wait_for(1)
    eventually(lambda: set(names(spool / "failed")) == odd | {f"{name}.reason" for name in odd})
    assert desk.ids == ["good"]
    assert (spool / "failed" / "link.reason").read_text() == "it is a symbolic link, not a regular file\n"
    assert secret.read_bytes() == b'{"plan": "photos", "id": "secret"}'


def test_too_large_a_file_is_moved_aside_unread(spool: Path, start: Callable[..., Running]) -> None:
    """A sparse terabyte costs nothing."""
    desk = Desk()
    start(desk)

    draft = spool / "tmp" / "huge"
    draft.touch()
    os.truncate(draft, 1 << 40)
    draft.rename(spool / "new" / "huge")

    eventually(lambda: names(spool / "failed") == ["huge", "huge.reason"])
    assert "more than 1000" in (spool / "failed" / "huge.reason").read_text()
    assert desk.taken == []


@pytest.mark.parametrize("name", [b"new\nline.json", b"\xff\xfe.json", b"\x1b[31mred", b"n" * 255, "é ü.json".encode()])
def test_names_of_any_bytes_are_carried(spool: Path, start: Callable[..., Running], name: bytes) -> None:
    """A name is an id only where it is clean text, and nothing breaks where it is not."""
    desk = Desk(lambda one: Settlement.REJECT if one.message_id is None else Settlement.ACCEPT)
    start(desk)

    put(spool, name)

    delivery = desk.wait_for(1)[0]
    clean = os.fsdecode(name).isprintable()
    assert (delivery.message_id is not None) is clean
    kept = kept_name(os.fsdecode(name))
    assert names(spool / ("done" if clean else "failed"))[0] == kept


def test_hidden_files_are_left_alone(spool: Path, start: Callable[..., Running]) -> None:
    """They belong to tools that write beside the name they want, such as rsync."""
    desk = Desk()
    start(desk)

    (spool / "new" / ".half.json.Xy12").write_bytes(b"{}")
    put(spool, "x")

    desk.wait_for(1)
    assert desk.ids == ["x"]
    assert (spool / "new" / ".half.json.Xy12").exists()


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


@pytest.mark.parametrize(
    ("settlement", "target"),
    [(Settlement.ACCEPT, "done"), (Settlement.REJECT, "failed"), (Settlement.HAND_BACK, "new")],
)
def test_a_settlement_is_durable_on_return(
    spool: Path,
    start: Callable[..., Running],
    monkeypatch: pytest.MonkeyPatch,
    settlement: Settlement,
    target: str,
) -> None:
    """The directory it went to was flushed after it went there."""
    flushed: list[tuple[str, list[str]]] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        flushed.append((path.name, names(path) if path.is_dir() else []))
        fsync(descriptor)

    desk = Desk(lambda _: None)
    running = start(desk)
    put(spool, "x")
    delivery = desk.wait_for(1)[0]
    running.intake.stop()

    monkeypatch.setattr(os, "fsync", note)
    delivery.settle(settlement, "because")

    assert (target, ["x"]) in flushed


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


def test_done_is_tidied_by_our_own_lists_alone(spool: Path, start: Callable[..., Running]) -> None:
    """Only what we put there, and only while it still is that file, goes when it is old."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    desk = Desk()
    first = start(desk, clock=lambda: now)
    for name in ("ours", "replaced"):
        put(spool, name)
    desk.wait_for(2)
    first.stop()
    (spool / "done" / "replaced").unlink()
    for name in ("replaced", "foreign"):
        (spool / "done" / name).write_text("a person's")
        os.utime(spool / "done" / name, (0, 0))

    early = start(desk, clock=lambda: now + timedelta(days=14))
    put(spool, "x")
    desk.wait_for(3)
    early.stop()
    assert "ours" in names(spool / "done")
    late = start(desk, clock=lambda: now + timedelta(days=16))
    put(spool, "y")
    desk.wait_for(4)
    late.stop()

    assert names(spool / "done") == ["foreign", "replaced", "x", "y"]


def test_a_list_cannot_name_a_file_elsewhere(spool: Path, start: Callable[..., Running], tmp_path: Path) -> None:
    """Whatever stands in a list, nothing outside the directory goes."""
    SpoolIntake(spool, worker="w", scan_seconds=30, keep_done_days=1, max_request_bytes=100)
    victim = tmp_path / "victim"
    victim.write_text("x")
    found = victim.stat()
    lists = spool / "done" / ".kept"
    lists.mkdir()
    lines = [
        [str(victim), found.st_ino, found.st_mtime_ns],
        ["../../../victim", found.st_ino, found.st_mtime_ns],
        [1],
        7,
    ]
    (lists / "2020-01-01").write_bytes(b"\n".join(orjson.dumps(line) for line in lines) + b'\n["half')
    desk = Desk()

    start(desk)
    put(spool, "x")
    desk.wait_for(1)

    assert victim.exists()
    assert not (lists / "2020-01-01").exists()


def test_an_impossible_place_is_said_clearly(tmp_path: Path) -> None:
    """A file in the way stops the start with a hint."""
    (tmp_path / "file").write_text("")

    with pytest.raises(PermanentError, match="cannot be made") as caught:
        SpoolIntake(tmp_path / "file", worker="w", scan_seconds=30, keep_done_days=1, max_request_bytes=100)

    assert caught.value.hint is not None


def test_a_link_in_place_of_a_directory_is_refused(spool: Path, tmp_path: Path) -> None:
    """Requests move between directories of one spool, never out of it."""
    spool.mkdir(parents=True)
    (spool / "done").symlink_to(tmp_path)

    with pytest.raises(PermanentError, match="not a directory"):
        SpoolIntake(spool, worker="w", scan_seconds=30, keep_done_days=1, max_request_bytes=100)


def test_new_directories_let_the_group_in_and_strangers_stay_out(spool: Path) -> None:
    """Producers of the group may add and not remove each other's; existing permissions stay as they are."""
    spool.mkdir(parents=True)
    (spool / "new").mkdir(mode=0o700)

    SpoolIntake(spool, worker="w", scan_seconds=30, keep_done_days=1, max_request_bytes=100)

    modes = {name: (spool / name).stat().st_mode & 0o7777 for name in ("tmp", "new", "cur", "events")}
    assert modes == {"tmp": 0o1770, "new": 0o700, "cur": 0o750, "events": 0o750}


@pytest.mark.slow
def test_ten_thousand_waiting_requests_are_all_delivered_in_order(spool: Path, start: Callable[..., Running]) -> None:
    """More than one batch, and each look costs what it should."""
    SpoolIntake(spool, worker="w", scan_seconds=30, keep_done_days=1, max_request_bytes=100)
    for number in range(10_000):
        put(spool, f"r{number:05}", age_seconds=20_000 - number)
    desk = Desk(lambda _: None)
    desk.room = 20_000

    start(desk)

    desk.wait_for(10_000)
    assert desk.ids == [f"r{number:05}" for number in range(10_000)]


def test_where_the_kernel_cannot_rename_exclusively_nothing_is_replaced_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems and C libraries lack it."""
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    spool_dirs._libc.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())

    with pytest.raises(FileExistsError):
        spool_dirs.move(tmp_path / "a", tmp_path / "b")
    spool_dirs.move(tmp_path / "a", tmp_path / "c")

    spool_dirs._libc.cache_clear()
    assert ((tmp_path / "b").read_text(), (tmp_path / "c").read_text()) == ("b", "a")


def test_a_disk_that_is_full_delays_the_settlement_and_loses_nothing(
    spool: Path, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While done/ cannot take it, it stays claimed; then it is carried out."""
    desk = Desk(lambda _: None)
    running = start(desk)
    put(spool, "x")
    delivery = desk.wait_for(1)[0]
    fsync = os.fsync
    full = threading.Event()
    full.set()

    def fail_while_full(descriptor: int) -> None:
        if full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    (spool / "done").rename(spool / "done.away")
    monkeypatch.setattr(os, "fsync", fail_while_full)
    delivery.settle(Settlement.ACCEPT)
    assert names(spool / "cur" / "1") == ["x"]
    (spool / "done.away").rename(spool / "done")
    full.clear()
    running.intake.poke()

    eventually(lambda: names(spool / "done") == ["x"])
    assert names(spool / "cur" / "1") == []
