"""Files that are touched become requests: each once, whatever is seen how often."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.workshop.indicating import Desk, at_work, touch
from tests.workshop.workers import wait_for
from worker.intake.delivery import Settlement

NEVER = 3600
"""Seconds between scans: what a test sees then, the kernel told."""


@pytest.fixture
def collect(tmp_path: Path) -> Path:
    """A directory in which peers have theirs; there is one so far."""
    directory = tmp_path / "collect"
    (directory / "web01").mkdir(parents=True)
    return directory


def settled(desk: Desk, *, beyond: int, seconds: float = 0.6) -> bool:
    """Whether no more than that came although there was time for it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and len(desk.deliveries) <= beyond:
        time.sleep(0.01)
    return len(desk.deliveries) <= beyond


def test_one_that_waits_at_the_start_is_brought(collect: Path) -> None:
    """The request names plan and level, and nothing that could differ at the next look."""
    indicator = touch(collect / "web01")
    found = indicator.stat()
    desk = Desk()

    with at_work(desk, collect / "*", level="full"):
        wait_for(lambda: bool(desk.deliveries))

    (request,) = desk.requests
    assert request.keys() == {"id", "plan", "level"}
    assert (request["plan"], request["level"]) == ("web", "full")
    assert request["id"].endswith(f"-{found.st_ino}-full-{found.st_dev:x}")
    assert desk.deliveries[0].intake == "indicators.pool"


@pytest.mark.parametrize(
    "command", ["touch F", ": > F", "echo x > F", "touch T && mv T F", "touch T && ln T F", "touch T; cp -p T F"]
)
def test_however_it_is_made_it_is_one_request(collect: Path, command: str) -> None:
    """`touch` makes a file and then sets its time: that is no second request."""
    desk = Desk()
    with at_work(desk, collect / "*", scan_seconds=NEVER):
        for round_ in (1, 2, 3):
            line = command.replace("F", "web01/cback.collect").replace("T", f"web01/other-{round_}")
            (collect / "web01" / "cback.collect").unlink(missing_ok=True)
            subprocess.run(["sh", "-c", line], cwd=collect, check=True)
            wait_for(lambda wanted=round_: len(desk.deliveries) >= wanted, told=lambda: desk.ids)

        assert settled(desk, beyond=3)
    assert len(set(desk.ids)) == 3


def test_touching_again_is_a_new_request_and_looking_again_is_none(collect: Path) -> None:
    """A scan every hundredth of a second sees it fifty times, and it is brought once for each touch."""
    desk = Desk()
    with at_work(desk, collect / "*", scan_seconds=0.01):
        touch(collect / "web01")
        wait_for(lambda: bool(desk.deliveries))
        assert settled(desk, beyond=1)

        touch(collect / "web01")
        wait_for(lambda: len(desk.deliveries) == 2)
        assert settled(desk, beyond=2, seconds=0.3)

    assert len(set(desk.ids)) == 2


def test_setting_the_time_is_enough(collect: Path) -> None:
    """As Python's `Path.touch` does it with a file that is there; other attributes are nobody's request."""
    indicator = touch(collect / "web01")
    desk = Desk()
    with at_work(desk, collect / "*", scan_seconds=NEVER):
        wait_for(lambda: bool(desk.deliveries))
        indicator.chmod(0o600)
        assert settled(desk, beyond=1, seconds=0.3)

        os.utime(indicator)

        wait_for(lambda: len(desk.deliveries) == 2)


def test_touched_twice_quickly_is_at_most_two_requests(collect: Path) -> None:
    """And the last touch is never the one that is missed."""
    desk = Desk()
    with at_work(desk, collect / "*", scan_seconds=NEVER):
        touch(collect / "web01")
        last = touch(collect / "web01")
        wait_for(lambda: bool(desk.deliveries))
        settled(desk, beyond=1, seconds=0.3)

    assert len(desk.deliveries) <= 2
    assert f"{last.stat().st_mtime_ns % 10**9:09}Z" in desk.ids[-1]


def test_same_file_after_a_restart_is_the_same_request(collect: Path) -> None:
    """It is brought again, as something that may have come before: the journal knows it."""
    touch(collect / "web01")
    first, second = Desk(), Desk()
    for desk in (first, second):
        with at_work(desk, collect / "*"):
            wait_for(lambda desk=desk: bool(desk.deliveries))

    assert first.ids == second.ids
    assert second.deliveries[0].redelivered
    assert first.deliveries[0].body == second.deliveries[0].body


def test_one_that_is_written_more_than_once_may_settle_first(collect: Path) -> None:
    """With `settle_seconds` it counts when it has been left alone for that long."""
    desk = Desk()
    with at_work(desk, collect / "*", settle_seconds=0.6):
        for _ in range(5):
            last = touch(collect / "web01")
            assert settled(desk, beyond=0, seconds=0.2)
        wait_for(lambda: bool(desk.deliveries))

    assert len(desk.deliveries) == 1
    assert time.time() - last.stat().st_mtime >= 0.6


def test_nothing_is_brought_without_room_and_nothing_is_forgotten(collect: Path) -> None:
    """Three wait, one may come; when there is room again, they come, the latest touch of each."""
    for name in ("web02", "web03"):
        (collect / name).mkdir()
    desk = Desk()
    desk.space = 1
    with at_work(desk, collect / "*") as intake:
        for name in ("web01", "web02", "web03"):
            touch(collect / name)
        wait_for(lambda: bool(desk.deliveries))
        assert settled(desk, beyond=1, seconds=0.3)

        desk.space = 10
        intake.poke()

        wait_for(lambda: len(desk.deliveries) == 3)


def test_handed_back_is_brought_again(collect: Path) -> None:
    """The same request, at the next look."""
    desk = Desk()
    desk.settlement = Settlement.HAND_BACK
    with at_work(desk, collect / "*"):
        touch(collect / "web01")
        wait_for(lambda: bool(desk.deliveries))
        desk.settlement = Settlement.ACCEPT
        wait_for(lambda: len(desk.deliveries) == 2)
        assert settled(desk, beyond=2, seconds=0.3)

    assert desk.ids[0] == desk.ids[1]


def test_directory_that_is_made_later_is_found_at_once(collect: Path) -> None:
    """Also where it takes several steps to get there, and where the way itself is made later."""
    desk = Desk()
    with at_work(desk, collect / "*" / "out", collect / "later" / "far" / "*", scan_seconds=NEVER):
        assert settled(desk, beyond=0, seconds=0.2)
        made = collect / "web02" / "out"
        made.mkdir(parents=True)
        touch(made)
        wait_for(lambda: len(desk.deliveries) == 1)

        (collect / "later" / "far" / "away").mkdir(parents=True)
        touch(collect / "later" / "far" / "away")
        wait_for(lambda: len(desk.deliveries) == 2)

        touch(collect / "later" / "far" / "away")
        wait_for(lambda: len(desk.deliveries) == 3)


def test_directory_that_is_removed_and_made_again_is_watched_again(collect: Path) -> None:
    """Its inode number may well be the same; renamed away counts as removed."""
    desk = Desk()
    with at_work(desk, collect / "*", collect.parent / "alone", scan_seconds=NEVER):
        count = 0
        for directory in (collect / "web01", collect.parent / "alone"):
            for away in ("rm -rf HERE", "mv HERE THERE; rm -rf THERE"):
                directory.mkdir(exist_ok=True)
                touch(directory)
                count += 1
                wait_for(lambda: len(desk.deliveries) == count, told=lambda: (desk.ids, directory, away))  # noqa: B023
                subprocess.run(
                    ["sh", "-c", away.replace("THERE", str(collect.parent / "away")).replace("HERE", str(directory))],
                    check=True,
                )


def test_files_that_only_have_the_name_ask_for_nothing(collect: Path, tmp_path: Path) -> None:
    """Links, named pipes, directories: told once, never followed, never waited for."""
    outside = tmp_path / "outside"
    outside.mkdir()
    touch(outside)
    (collect / "web01" / "cback.collect").symlink_to(outside / "cback.collect")
    for name in ("web02", "web03"):
        (collect / name).mkdir()
    os.mkfifo(collect / "web02" / "cback.collect")
    (collect / "web03" / "cback.collect").mkdir()
    (collect / "web04").symlink_to(outside)
    desk = Desk()

    with at_work(desk, collect / "*", scan_seconds=0.05):
        assert settled(desk, beyond=0)
        (collect / "web02" / "cback.collect").unlink()
        touch(collect / "web02")
        wait_for(lambda: bool(desk.deliveries))

    assert len(desk.deliveries) == 1


def test_stray_names_are_no_directories_of_peers(collect: Path) -> None:
    """A wildcard takes directories that are not hidden; what lies beside them is passed over."""
    (collect / "README").write_text("a file")
    (collect / ".hidden").mkdir()
    touch(collect / ".hidden")
    (collect / "b\xff".encode("latin-1").decode("utf-8", "surrogateescape")).mkdir()
    touch(collect / "b\udcff")
    desk = Desk()

    with at_work(desk, collect / "*", plan="{directory}"):
        wait_for(lambda: bool(desk.deliveries))
        assert settled(desk, beyond=1, seconds=0.2)

    assert desk.requests[0]["plan"] == "b\\xff"
    assert desk.ids[0].startswith("b_-")


def test_both_names_of_one_directory_are_one_request(collect: Path) -> None:
    """Patterns may overlap."""
    desk = Desk()
    with at_work(desk, collect / "*", collect / "web0?", scan_seconds=NEVER):
        touch(collect / "web01")
        wait_for(lambda: bool(desk.deliveries))
        settled(desk, beyond=2, seconds=0.3)

    assert len(set(desk.ids)) == 1
