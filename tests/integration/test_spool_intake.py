"""The spool intake against a real directory."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from handlers.errors import PermanentError
from tests.workshop.spools import Desk, Running, eventually, names, put
from worker.intake import spool_dirs
from worker.intake.delivery import Delivery, Settlement
from worker.intake.spool import SpoolIntake
from worker.intake.wire import parse
from worker.spool_client import submit


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
