"""Whatever lies in a spool is taken, moved aside or left alone, and nothing outside it is touched."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from handlers.errors import PermanentError
from tests.workshop.spools import Desk, Running, eventually, names, put
from worker.intake.delivery import Settlement
from worker.intake.spool import SpoolIntake
from worker.intake.spool_dirs import kept_name


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
