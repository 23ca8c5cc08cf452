"""What becomes of trees when processes die, disks fill up, and writes are lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from handlers.contract import BackupId, PlanName
from handlers.tools import removal
from tests.faults.small_disk import fill, small_disk
from tests.faults.thin_disk import thin_disk
from worker.stores.local import LocalStore
from worker.stores.protocol import SetName, StoreUnavailable

NAME = SetName(plan=PlanName("pool"), backup_id=BackupId("first"))
PROJECT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PROJECT)}
HOLDER = """
import sys
from pathlib import Path
from handlers.contract import BackupId, PlanName
from worker.stores.local import LocalStore
from worker.stores.protocol import SetName

store = LocalStore("nas", Path(sys.argv[1]))
draft = store.draft(SetName(plan=PlanName("pool"), backup_id=BackupId("first")))
draft.leftover("peers")
(draft.open_tree("peers") / "fetched").write_text("x")
print("writing", flush=True)
sys.stdin.readline()
"""
RACER = """
import random, sys
from pathlib import Path
from handlers.contract import BackupId, PlanName
from worker.stores.local import LocalStore
from worker.stores.protocol import AlreadyCommitted, SetName

store = LocalStore("nas", Path(sys.argv[1]))
chance = random.Random(sys.argv[2])
won = 0
for number in range(40):
    draft = store.draft(SetName(plan=PlanName("pool"), backup_id=BackupId(f"set{number}")))
    left = draft.leftover("peers")
    top = draft.open_tree("peers")
    for name in "abc":
        if left is not None and (left / name).exists():
            (left / name).rename(top / name)
        elif chance.random() < 0.7:
            (top / name).write_text(name)
    if chance.random() < 0.5:
        try:
            draft.commit({}, b"{}")
            won += 1
        except AlreadyCommitted:
            pass
    draft.discard()
    if chance.random() < 0.3:
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
    """Another process in the middle of a draft with a tree."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            yield process
        finally:
            process.kill()


def killed_while_fetching(store: LocalStore) -> None:
    """An attempt in another process, ended by SIGKILL."""
    with holder(store) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()


def failed(store: LocalStore, name: str = "fetched") -> None:
    """An attempt in this process that was discarded."""
    draft = store.draft(NAME)
    (draft.open_tree("peers") / name).write_text("x")
    draft.discard()


def leftover_of(store: LocalStore, name: SetName = NAME) -> list[str] | None:
    """What the next attempt finds; it is put back."""
    draft = store.draft(name)
    found = draft.leftover("peers")
    names = None if found is None else sorted(path.name for path in found.iterdir())
    draft.discard()
    return names


def remains(store: LocalStore) -> list[str]:
    """What lies in the store's own directory."""
    return sorted(f"{path.parent.name}/{path.name}" for path in (store.path / ".holdfast").glob("*/*"))


@pytest.mark.parametrize(
    ("work", "at_least"), [("commit", 40), ("discard", 40), ("sweep", 30), ("loser", 25), ("expire", 20)]
)
def test_death_at_any_system_call_loses_nothing_that_was_fetched(tmp_path: Path, work: str, at_least: int) -> None:
    """After the sweep it is in the set, or left for the next attempt, which succeeds; there is no litter."""
    memory = Path("/dev/shm")  # what a kill leaves is the same there, and each try waits for the disk many times
    place = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else tmp_path))
    result = subprocess.run(
        [sys.executable, "-m", "tests.faults.tree_killing", work, str(place)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=PROJECT,
    )
    removal.remove_tree(place)

    assert result.returncode == 0, result.stderr
    assert int(result.stdout) >= at_least


def test_leftover_of_a_killed_process_goes_to_the_next_attempt(store: LocalStore) -> None:
    """At once, without a sweep: another worker may have got the request."""
    killed_while_fetching(store)

    assert leftover_of(store) == ["fetched"]
    assert remains(store) == ["unfinished/pool"]


def test_tree_of_a_living_process_is_nobodys_leftover(store: LocalStore) -> None:
    """Neither an attempt beside it nor a sweep takes it away."""
    with holder(store) as process:
        assert leftover_of(store) is None
        assert store.sweep() == 0
        assert len(remains(store)) == 2
        assert process.poll() is None


def test_leftover_of_a_set_that_another_worker_made_is_removed(store: LocalStore) -> None:
    """Nobody tries again; the set stays as it is."""
    killed_while_fetching(store)
    draft = store.draft(NAME)
    (draft.open_tree("peers") / "theirs").write_text("x")
    draft.commit({}, b"{}")

    assert store.sweep() == 1
    assert remains(store) == []
    assert [path.name for path in store.tree(NAME, "peers").iterdir()] == ["theirs"]


def test_dead_draft_of_the_command_line_and_its_successor_share_nothing(store: LocalStore) -> None:
    """Of two dead attempts of a plan one is left, whole."""
    killed_while_fetching(store)
    killed_while_fetching(store)

    store.sweep()

    assert remains(store) == ["unfinished/pool"]
    assert leftover_of(store) == ["fetched"]


@pytest.mark.parametrize("record", [b"", b'{"holdfast_draft":NAME', b'{"holdfast_draft":NAME,"set":"../../away/x"}'])
def test_dead_draft_with_a_damaged_record_leaves_nothing(store: LocalStore, tmp_path: Path, record: bytes) -> None:
    """Nobody knows whose it was; nothing is made outside the store."""
    killed_while_fetching(store)
    (owner,) = (store.path / ".holdfast" / "drafts").glob("*.owner")
    owner.write_bytes(record.replace(b"NAME", b'"' + os.fsencode(owner.name.removesuffix(".owner")) + b'"'))

    assert store.sweep() == 1

    assert remains(store) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_processes_that_fail_and_commit_at_once_leave_no_litter(store: LocalStore) -> None:
    """While they sweep at the same time, and take each other's leftovers."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(store.path), name], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
        for name in ["one", "other", "third"]
    ]
    won = [int(racer.communicate()[0] or -1) for racer in racers]
    store.sweep()

    assert [racer.returncode for racer in racers] == [0, 0, 0]
    names = list(store.names())
    assert len(names) == sum(won)
    for name in names:
        assert all(path.read_text() == path.name for path in store.tree(name, "peers").iterdir())
    assert set(remains(store)) <= {"unfinished/pool"}


def test_full_disk_gets_its_room_back(tmp_path: Path) -> None:
    """What is kept to save a plan some work would keep all others from their backups."""
    with small_disk(tmp_path / "disk", kibibytes=4096) as disk:
        store = LocalStore("nas", disk)
        store.check()
        room = store.free_bytes()
        draft = store.draft(NAME)
        fill(draft.open_tree("peers"))

        with pytest.raises(StoreUnavailable, match="make room"):
            draft.commit({"RESTORE.md": b"x" * 9000}, b"{}")
        draft.discard()

        assert (leftover_of(store), remains(store)) == (None, [])
        assert store.free_bytes() == room
        store.check()


def test_disk_that_became_full_gets_the_room_of_leftovers_at_the_sweep(tmp_path: Path) -> None:
    """Even of young ones; one that a living draft holds stays."""
    with small_disk(tmp_path / "disk", kibibytes=4096) as disk:
        store = LocalStore("nas", disk)
        failed(store)
        draft = store.draft(NAME)
        taken = draft.leftover("peers")
        fill(disk)

        assert store.sweep() == 0
        assert taken is not None
        assert (taken / "fetched").exists()
        (disk / "ballast").unlink()
        draft.discard()
        assert store.sweep() == 0
        fill(disk)
        assert store.sweep() == 1
        assert remains(store) == []


def test_tree_that_the_disk_lost_is_neither_committed_nor_left(tmp_path: Path) -> None:
    """Memory still has the files as they should be, and the disk tells of a failed write once only."""
    with thin_disk(tmp_path, mebibytes=6, promised_mebibytes=64) as disk:
        store = LocalStore("nas", disk)
        draft = store.draft(NAME)
        (draft.open_tree("peers") / "large").write_bytes(os.urandom(16 << 20))

        with pytest.raises(StoreUnavailable, match="disk reports errors"):
            draft.commit({}, b"{}")
        with pytest.raises(ValueError, match="the disk did not take all that was written to peers"):
            draft.commit({}, b"{}")
        draft.discard()

        assert not store.exists(NAME)
        assert remains(store) == []


def test_failed_attempt_on_a_disk_that_loses_writes_leaves_nothing(tmp_path: Path) -> None:
    """It never came to a commit: its end asks the disk, too."""
    with thin_disk(tmp_path, mebibytes=6, promised_mebibytes=64) as disk:
        store = LocalStore("nas", disk)
        draft = store.draft(NAME)
        (draft.open_tree("peers") / "large").write_bytes(os.urandom(16 << 20))

        draft.discard()

        assert remains(store) == []


def test_removal_lists_large_directories_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many names a directory has, a few of them are in memory."""
    monkeypatch.setattr(removal, "_AT_ONCE", 3)
    for folder in [".", "a", "a/b", "a/c", "d"]:
        (tmp_path / "tree" / folder).mkdir(parents=True, exist_ok=True)
        for number in range(7):
            (tmp_path / "tree" / folder / f"file{number}").write_text("x")
            (tmp_path / "tree" / folder / f"folder{number}").mkdir()

    removal.remove_tree(tmp_path / "tree")

    assert list(tmp_path.iterdir()) == []
