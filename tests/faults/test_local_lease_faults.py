"""What becomes of the lease records of a local store when processes die or stop and disks fill up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from handlers.contract import BackupId, PlanName
from tests.faults.small_disk import fill, remount, small_disk
from worker.stores.local import LocalStore
from worker.stores.protocol import SetName, StoreUnavailable

NAME = SetName(plan=PlanName("photos"), backup_id=BackupId("first"))
PROJECT = Path(__file__).parents[2]
COUNTING = """
import sys
from pathlib import Path
from handlers.contract import BackupId, PlanName
from worker.stores.local import LocalStore
from worker.stores.protocol import SetName

store = LocalStore("nas", Path(sys.argv[1]))
name = SetName(plan=PlanName("photos"), backup_id=BackupId("first"))
done = 0
while done < 300:
    seen = store.read_lease(name)
    done += store.swap_lease(name, seen, b"%d" % (int(seen) + 1))
"""
LOCKING = """
import sys
from pathlib import Path
from handlers.tools.lock import Lock

lock = Lock.try_hold(Path(sys.argv[1]))
print(lock is not None, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store."""
    tmp_path.joinpath("store").mkdir()
    return LocalStore("nas", tmp_path / "store")


def file_of(store: LocalStore) -> Path:
    """Where the record of NAME lies."""
    return store.path / ".holdfast" / "leases" / "photos" / "first"


def python(program: str, path: Path) -> subprocess.Popen[bytes]:
    """Run it in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", program, path],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def test_no_change_is_lost_between_processes(store: LocalStore) -> None:
    """The kernel's lock holds between them."""
    store.swap_lease(NAME, None, b"0")

    processes = [python(COUNTING, store.path) for _ in range(3)]

    assert [process.wait(100) for process in processes] == [0, 0, 0]
    for process in processes:
        process.communicate()
    assert store.read_lease(NAME) == b"900"


def test_process_that_is_stopped_in_a_change_blocks_nobody(store: LocalStore) -> None:
    """Others hear that the change did not go through; when it is killed, the lease is free to be changed."""
    store.swap_lease(NAME, None, b"mine")
    process = python(LOCKING, file_of(store))
    assert process.stdout is not None
    assert process.stdout.readline() == b"True\n"
    process.send_signal(signal.SIGSTOP)

    assert store.read_lease(NAME) == b"mine"
    assert not store.swap_lease(NAME, b"mine", b"later")
    assert store.sweep() == 0

    process.kill()
    process.communicate()
    assert store.swap_lease(NAME, b"mine", b"later")


def test_file_that_was_never_written_is_no_lease(store: LocalStore) -> None:
    """Its holder died between making and filling it; the sweep removes it, and nobody waits for that."""
    store.swap_lease(NAME, None, b"mine")
    os.truncate(file_of(store), 0)

    assert store.read_lease(NAME) is None
    assert store.sweep() == 1
    assert not file_of(store).exists()
    assert store.swap_lease(NAME, None, b"mine")


def test_released_lease_leaves_no_file(store: LocalStore) -> None:
    """They do not pile up, whoever asked in vain."""
    store.swap_lease(NAME, None, b"mine")
    store.swap_lease(NAME, b"mine", None)
    store.swap_lease(NAME, b"mine", b"later")
    store.swap_lease(NAME, b"mine", None)

    assert not file_of(store).exists()


def test_sweep_removes_what_nobody_touched_for_a_month(store: LocalStore) -> None:
    """The set was never made, and never will be."""
    store.swap_lease(NAME, None, b"mine")
    last_year = file_of(store).stat().st_mtime - 365 * 86_400
    os.utime(file_of(store), (last_year, last_year))

    assert store.sweep() == 1

    assert store.read_lease(NAME) is None


def test_sweep_passes_over_what_is_not_ours(store: LocalStore) -> None:
    """Strange names, directories and links among the leases stay, and do not stop it."""
    store.swap_lease(NAME, None, b"mine")
    place = file_of(store).parent
    (place / ".nfs0001").write_bytes(b"")
    (place / "directory").mkdir()
    (place / "link").symlink_to("/nowhere")
    (place.parent / "file").write_bytes(b"")

    assert store.sweep() == 0

    assert len(list(place.iterdir())) == 4


def test_record_is_private(store: LocalStore) -> None:
    """Like everything else in a store."""
    store.swap_lease(NAME, None, b"mine")

    assert file_of(store).stat().st_mode & 0o777 == 0o600
    assert file_of(store).parent.stat().st_mode & 0o777 == 0o700


def test_store_that_is_away_says_so(store: LocalStore) -> None:
    """A missing directory is not the same as no lease, and is not made."""
    store.swap_lease(NAME, None, b"mine")
    shutil.rmtree(store.path)

    with pytest.raises(StoreUnavailable, match="missing"):
        store.read_lease(NAME)
    with pytest.raises(StoreUnavailable, match="missing"):
        store.swap_lease(NAME, None, b"mine")
    with pytest.raises(StoreUnavailable, match="missing"):
        store.swap_lease(NAME, b"mine", b"later")
    assert not store.path.exists()


def test_lease_is_renewed_and_released_on_a_full_disk(tmp_path: Path) -> None:
    """No new one can be had there, and none is left behind half."""
    with small_disk(tmp_path / "disk", kibibytes=256) as disk:
        store = LocalStore("nas", disk)
        other = SetName(plan=PlanName("photos"), backup_id=BackupId("second"))
        store.swap_lease(NAME, None, b"beat 1")
        fill(disk)

        assert store.swap_lease(NAME, b"beat 1", b"beat 2")
        with pytest.raises(StoreUnavailable, match="No space left"):
            store.swap_lease(other, None, b"mine")
        assert store.read_lease(other) is None
        assert store.swap_lease(NAME, b"beat 2", None)
        assert list(file_of(store).parent.iterdir()) == []


def test_read_only_store_says_so(tmp_path: Path) -> None:
    """Nothing is changed, and what is there can be read."""
    with small_disk(tmp_path / "disk", kibibytes=256) as disk:
        store = LocalStore("nas", disk)
        store.swap_lease(NAME, None, b"mine")
        remount(disk, "ro")

        with pytest.raises(StoreUnavailable, match="Read-only"):
            store.swap_lease(NAME, b"mine", b"later")
        assert store.read_lease(NAME) == b"mine"
