"""What becomes of the notes of a local store when processes die or stop and disks fill up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from handlers.contract import PlanName
from tests.faults.small_disk import fill, remount, small_disk
from worker.stores import local_notes
from worker.stores.local import LocalStore
from worker.stores.protocol import StoreRefused, StoreUnavailable

WEB = PlanName("web")
PROJECT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PROJECT)}
RACER = """
import sys
from pathlib import Path
from handlers.contract import PlanName
from worker.stores.local import LocalStore

store = LocalStore("nas", Path(sys.argv[1]))
won = 0
for number in range(60):
    won += store.put_note(PlanName("web"), "pins", f"pin{number}", sys.argv[2].encode(), replace=False)
    store.sweep()
print(won)
"""
STOPPED = """
import sys
from pathlib import Path
from handlers.tools.lock import Lock

lock = Lock.try_hold(Path(sys.argv[1]))
(Path(sys.argv[1]).parent / ".fresh.0011").write_bytes(b"unfinis")
print(lock is not None, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A store with one note."""
    tmp_path.joinpath("store").mkdir()
    made = LocalStore("nas", tmp_path / "store")
    made.put_note(WEB, "pins", "first", b"said", replace=False)
    return made


def place(store: LocalStore) -> Path:
    """Where the notes lie."""
    return store.path / ".holdfast" / "notes" / "web" / "pins"


def notes(store: LocalStore) -> dict[str, bytes]:
    """What the store says there is."""
    return dict(store.notes(WEB, "pins"))


def files(store: LocalStore) -> list[str]:
    """What there is in truth, but for the lock."""
    return sorted(path.name for path in place(store).iterdir() if path.name != ".lock")


@pytest.mark.parametrize(("work", "at_least"), [("note", 12), ("note-again", 12), ("note-drop", 3)])
def test_a_death_at_any_system_call_leaves_all_or_nothing(tmp_path: Path, work: str, at_least: int) -> None:
    """There is the old note or the new one, no litter after the sweep, and the work can be done again."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.faults.killing", work, str(tmp_path)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=PROJECT,
    )

    assert result.returncode == 0, result.stderr
    assert int(result.stdout) >= at_least


def test_processes_that_make_the_same_notes_win_each_once(store: LocalStore) -> None:
    """While they sweep at the same time; no note is mixed of two, and nothing is left over."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(store.path), name], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
        for name in ["one", "other", "third"]
    ]
    won = [int(racer.communicate()[0]) for racer in racers]

    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert sum(won) == 60
    assert {name: content for name, content in notes(store).items() if content not in {b"one", b"other", b"third"}} == {
        "first": b"said"
    }
    assert len(files(store)) == 61


def test_process_that_is_stopped_in_a_change_is_named_after_a_while(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others read and drop meanwhile, and the sweep leaves it alone; when it is killed, all goes on."""
    monkeypatch.setattr(local_notes, "BUSY_SECONDS", 0.1)
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(place(store) / ".lock")],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"True\n"
    process.send_signal(signal.SIGSTOP)

    assert notes(store) == {"first": b"said"}
    assert store.sweep() == 0
    with pytest.raises(StoreUnavailable, match=r"another process has been writing below .*\nhint: "):
        store.put_note(WEB, "pins", "second", b"said", replace=False)
    store.drop_note(WEB, "pins", "first")
    assert notes(store) == {}

    process.kill()
    process.communicate()
    assert store.put_note(WEB, "pins", "second", b"said", replace=False)
    assert store.sweep() == 1
    assert files(store) == ["second"]


def test_notes_are_private_and_cannot_be_written_by_accident(tmp_path: Path) -> None:
    """Like the sets, whatever the umask says; a replaced one, too."""
    before = os.umask(0)
    try:
        store = LocalStore("nas", tmp_path)
        store.put_note(WEB, "pins", "first", b"said", replace=False)
        store.put_note(WEB, "pins", "first", b"said anew", replace=True)
    finally:
        os.umask(before)

    above = [place(store), *place(store).parents][:4]
    assert [oct(path.stat().st_mode & 0o777) for path in above] == ["0o700"] * 4
    assert oct((place(store) / "first").stat().st_mode & 0o777) == "0o400"


def test_what_is_not_ours_is_passed_over(store: LocalStore) -> None:
    """Hidden files, directories and links among the notes stay, and stop nobody."""
    (place(store) / ".nfs0001").write_bytes(b"")
    (place(store) / "directory").mkdir()
    (place(store) / "link").symlink_to("first")
    (place(store).parent / "file").write_bytes(b"")
    (place(store).parents[1] / "file").write_bytes(b"")
    (place(store).parents[1] / ".hidden" / "pins").mkdir(parents=True)
    before = files(store)

    assert notes(store) == {"first": b"said"}
    assert list(store.noted_plans()) == [WEB]
    assert store.sweep() == 0
    assert files(store) == before


def test_torn_note_is_given_as_it_is(store: LocalStore) -> None:
    """Whoever knows what it should say decides what that means."""
    (place(store) / "first").chmod(0o600)
    os.truncate(place(store) / "first", 0)

    assert notes(store) == {"first": b""}


def test_note_that_cannot_be_read_is_not_left_out(store: LocalStore) -> None:
    """A file in the way of the notes is no reason to think that there are none."""
    shutil.rmtree(place(store))
    place(store).write_bytes(b"theirs")

    with pytest.raises(StoreRefused, match="a file is where a directory belongs"):
        store.notes(WEB, "pins")


def test_store_that_goes_away_says_so(store: LocalStore) -> None:
    """A missing directory is not the same as no notes, and is not made."""
    shutil.rmtree(store.path)

    with pytest.raises(StoreUnavailable, match="missing"):
        store.notes(WEB, "pins")
    with pytest.raises(StoreUnavailable, match="missing"):
        store.put_note(WEB, "pins", "second", b"said", replace=False)
    assert not store.path.exists()


def test_notes_on_a_full_disk_are_as_they_were_and_can_be_dropped(tmp_path: Path) -> None:
    """Nothing is left half, and what makes room needs none."""
    with small_disk(tmp_path / "disk", kibibytes=256) as disk:
        store = LocalStore("nas", disk)
        store.put_note(WEB, "pins", "first", b"said", replace=False)
        fill(disk)

        with pytest.raises(StoreUnavailable, match="No space left"):
            store.put_note(WEB, "pins", "second", b"said", replace=False)
        with pytest.raises(StoreUnavailable, match="No space left"):
            store.put_note(WEB, "pins", "first", b"said anew", replace=True)
        assert (notes(store), files(store)) == ({"first": b"said"}, ["first"])
        store.drop_note(WEB, "pins", "first")
        assert files(store) == []


def test_read_only_store_says_so(tmp_path: Path) -> None:
    """Nothing is changed, and what is there can be read."""
    with small_disk(tmp_path / "disk", kibibytes=256) as disk:
        store = LocalStore("nas", disk)
        store.put_note(WEB, "pins", "first", b"said", replace=False)
        remount(disk, "ro")

        with pytest.raises(StoreUnavailable, match="Read-only"):
            store.put_note(WEB, "pins", "second", b"said", replace=False)
        with pytest.raises(StoreUnavailable, match="Read-only"):
            store.drop_note(WEB, "pins", "first")
        assert notes(store) == {"first": b"said"}
