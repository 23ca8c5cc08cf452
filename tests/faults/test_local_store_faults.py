"""What the local store keeps when processes die and disks fill up."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from handlers.contract import BackupId, PlanName
from tests.faults.small_disk import fill, remount, small_disk
from worker.stores.disk_errors import store_error
from worker.stores.local import LocalStore
from worker.stores.protocol import AlreadyCommitted, SetName, StoreRefused, StoreUnavailable

NAME = SetName(plan=PlanName("photos"), backup_id=BackupId("first"))
PROJECT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PROJECT)}
HOLDER = """
import sys
from pathlib import Path
from handlers.contract import BackupId, PlanName
from worker.stores.local import LocalStore
from worker.stores.protocol import SetName

store = LocalStore("nas", Path(sys.argv[1]))
draft = store.draft(SetName(plan=PlanName("photos"), backup_id=BackupId("first")))
part = draft.open_part("data")
part.write(b"data")
print("writing", flush=True)
sys.stdin.readline()
part.close()
draft.commit({}, b"{}")
"""
RACER = """
import sys
from pathlib import Path
from handlers.contract import BackupId, PlanName
from worker.stores.local import LocalStore
from worker.stores.protocol import AlreadyCommitted, SetName

store = LocalStore("nas", Path(sys.argv[1]))
won = 0
for number in range(100):
    draft = store.draft(SetName(plan=PlanName("photos"), backup_id=BackupId(f"set{number}")))
    part = draft.open_part("data")
    part.write(sys.argv[2].encode())
    part.close()
    try:
        draft.commit({}, sys.argv[2].encode())
        won += 1
    except AlreadyCommitted:
        pass
    draft.discard()
    store.sweep()
print(won)
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store."""
    path = tmp_path / "store"
    path.mkdir()
    return LocalStore("nas", path)


@contextmanager
def holder(store: LocalStore) -> Iterator[subprocess.Popen[str]]:
    """Another process in the middle of a draft; a line on its input makes it commit."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    try:
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            yield process
            process.kill()
    finally:
        process.kill()


def remains(store: LocalStore) -> list[str]:
    """What lies in the store's own directory."""
    return sorted(path.name for path in (store.path / ".holdfast").glob("*/*"))


def write_until_it_fails(store: LocalStore) -> None:
    """A part that grows until the disk is full."""
    draft = store.draft(NAME)
    try:
        part = draft.open_part("data")
        for _ in range(10_000):
            part.write(os.urandom(1 << 16))
    finally:
        draft.discard()


def test_a_sweep_leaves_the_draft_of_another_process(store: LocalStore) -> None:
    """It is alive, and commits afterwards."""
    with holder(store) as process:
        swept = store.sweep()
        process.communicate("commit\n")

    assert (swept, process.returncode) == (0, 0)
    assert store.read(NAME, "data") == b"data"


def test_a_sweep_removes_the_draft_of_a_killed_process(store: LocalStore) -> None:
    """The lock went with its owner; nothing is left."""
    with holder(store) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        left = remains(store)

        swept = store.sweep()

    assert [name.split(".")[0] for name in left] == ["first", "first"]
    assert (swept, remains(store)) == (1, [])
    assert not store.exists(NAME)


@pytest.mark.parametrize(("work", "at_least"), [("commit", 20), ("expire", 6), ("discard", 6), ("sweep", 6)])
def test_a_death_at_any_system_call_leaves_all_or_nothing(tmp_path: Path, work: str, at_least: int) -> None:
    """After the sweep there is the whole set or none, no litter, and the work can be done again."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.faults.killing", work, str(tmp_path)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=PROJECT,
    )

    assert result.returncode == 0, result.stderr
    assert int(result.stdout) >= at_least


def test_processes_that_commit_the_same_sets_win_each_once(store: LocalStore) -> None:
    """While they sweep at the same time; no set is mixed of two."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(store.path), name], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
        for name in ["one", "other", "third"]
    ]
    won = [int(racer.communicate()[0]) for racer in racers]

    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert sum(won) == 100
    names = list(store.names())
    assert len(names) == 100
    assert all(store.read(name, "data") == store.read(name, "manifest.json") for name in names)
    assert remains(store) == []


def test_two_sweeps_share_the_work(store: LocalStore) -> None:
    """Neither stumbles over what the other has removed already."""
    expired = store.path / ".holdfast" / "expired"
    for number in range(30):
        for name in "abc":
            (expired / str(number) / name).mkdir(parents=True)
    swept: list[int] = []

    threads = [threading.Thread(target=lambda: swept.append(store.sweep())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(swept) == 4
    assert remains(store) == []


def test_a_full_disk_makes_the_store_unavailable(tmp_path: Path) -> None:
    """The message names store and place and says what to do; after the discard the room is there again."""
    with small_disk(tmp_path / "disk", kibibytes=4096) as disk:
        store = LocalStore("nas", disk)
        store.check()
        room = store.free_bytes()

        with pytest.raises(StoreUnavailable) as refusal:
            write_until_it_fails(store)

        assert "store nas" in str(refusal.value)
        assert str(disk) in str(refusal.value)
        assert "hint: make room" in str(refusal.value)
        assert (store.free_bytes(), remains(store)) == (room, [])
        store.check()


def test_a_disk_that_is_full_at_the_commit_loses_nothing_else(tmp_path: Path) -> None:
    """The set does not exist, the others do, and the same work succeeds when there is room."""
    with small_disk(tmp_path / "disk", kibibytes=4096) as disk:
        store = LocalStore("nas", disk)
        draft = store.draft(NAME)
        part = draft.open_part("data")
        part.write(b"data")
        part.close()
        ballast = fill(disk)

        with pytest.raises(StoreUnavailable, match="make room"):
            draft.commit({"RESTORE.md": b"x" * 9000}, b"{}")
        draft.discard()
        with pytest.raises(StoreUnavailable, match="make room"):
            store.check()

        assert (list(store.names()), remains(store)) == ([], [])
        ballast.unlink()
        again = store.draft(NAME)
        again.commit({"RESTORE.md": b"x" * 9000}, b"{}")
        assert store.exists(NAME)


def test_a_half_written_chunk_is_never_committed(tmp_path: Path) -> None:
    """Not even when the one who wrote it carries on: the digest would be of bytes that are not there."""
    with small_disk(tmp_path / "disk", kibibytes=2048) as disk:
        store = LocalStore("nas", disk)
        draft = store.draft(NAME)
        part = draft.open_part("data")

        with pytest.raises(StoreUnavailable):
            part.write(bytes(4 << 20))
        with pytest.raises(ValueError, match="closed"):
            part.write(b"more")
        with pytest.raises(ValueError, match="closed"):
            part.close()
        with pytest.raises(ValueError, match="failed: data"):
            draft.commit({}, b"{}")

        draft.discard()
        assert remains(store) == []


def test_a_disk_that_turned_read_only_is_away(tmp_path: Path) -> None:
    """Requests can wait until somebody has remounted it; reading still works."""
    with small_disk(tmp_path / "disk", kibibytes=4096) as disk:
        store = LocalStore("nas", disk)
        store.draft(NAME).commit({}, b"{}")
        remount(disk, "ro")

        with pytest.raises(StoreUnavailable, match="hint: the file system is read-only"):
            store.check()
        with pytest.raises(StoreUnavailable, match="read-only"):
            store.expire(NAME)

        assert store.read(NAME, "manifest.json") == b"{}"


def test_a_part_that_the_disk_did_not_take_is_never_told(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fsync at the end reports what went wrong on the way; the part cannot be closed a second time."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    draft = store.draft(NAME)
    part = draft.open_part("data")
    part.write(b"data")
    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(StoreUnavailable, match="disk reports errors"):
        part.close()
    monkeypatch.undo()
    with pytest.raises(ValueError, match="closed"):
        part.close()
    with pytest.raises(ValueError, match="failed: data"):
        draft.commit({}, b"{}")
    draft.discard()

    assert remains(store) == []
    assert not store.exists(NAME)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOENT])
def test_what_may_pass_is_unavailable(code: int) -> None:
    """Full, away, or ill for the moment."""
    error = store_error(OSError(code, os.strerror(code)), "nas", Path("/backup"))

    assert isinstance(error, StoreUnavailable)
    assert f"store nas: /backup: {os.strerror(code)}\nhint: " in str(error)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EXDEV, errno.ENOTDIR, errno.ELOOP])
def test_what_a_person_must_change_is_refused(code: int) -> None:
    """Trying again would not help."""
    error = store_error(OSError(code, os.strerror(code)), "nas", Path("/backup"))

    assert isinstance(error, StoreRefused)
    assert "\nhint: " in str(error)


def test_a_commit_that_lost_can_be_discarded(store: LocalStore) -> None:
    """Its parts and its record go; the set that won stays."""
    winner, loser = store.draft(NAME), store.draft(NAME)
    winner.commit({}, b"{}")

    with pytest.raises(AlreadyCommitted):
        loser.commit({}, b"[]")
    loser.discard()

    assert remains(store) == []
    assert store.read(NAME, "manifest.json") == b"{}"
