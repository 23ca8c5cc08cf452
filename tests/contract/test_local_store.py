"""What the local store promises beyond every store: plain files in a directory, private, sharing it with strangers."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from handlers.contract import BackupId, PlanName
from worker.manifest import SUMS, PartRecord, sums
from worker.stores.local import LocalStore
from worker.stores.protocol import SetName, StoreRefused, StoreUnavailable

NAME = SetName(plan=PlanName("photos"), backup_id=BackupId("first"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The store's directory."""
    path = tmp_path / "store"
    path.mkdir()
    return path


@pytest.fixture
def store(root: Path) -> LocalStore:
    """An empty store."""
    return LocalStore("nas", root)


def commit(store: LocalStore, name: SetName = NAME) -> Path:
    """A set of two parts; its directory."""
    draft = store.draft(name)
    parts = []
    for part_name in ["data.tar.zst", "a name with blanks"]:
        part = draft.open_part(part_name)
        part.write(part_name.encode() * 1000)
        parts.append(PartRecord.of(part.close()))
    draft.commit({SUMS: sums(tuple(parts)), "RESTORE.md": b"# how\n"}, b"{}\n")
    return store.path / name.plan / name.backup_id


def everything(root: Path) -> list[str]:
    """Every path below root, sorted."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_a_committed_set_is_a_directory_of_plain_files(store: LocalStore, root: Path) -> None:
    """Nothing of ours is among them but the set itself."""
    commit(store)

    assert everything(root) == [
        ".holdfast",
        ".holdfast/drafts",
        ".holdfast/expired",
        "photos",
        "photos/first",
        "photos/first/RESTORE.md",
        "photos/first/SHA256SUMS",
        "photos/first/a name with blanks",
        "photos/first/data.tar.zst",
        "photos/first/manifest.json",
    ]


def test_sha256sum_accepts_the_set(store: LocalStore) -> None:
    """The real program, in the set's directory."""
    directory = commit(store)

    result = subprocess.run(["sha256sum", "--strict", "-c", SUMS], cwd=directory, capture_output=True, text=True)

    assert (result.returncode, result.stdout) == (0, "data.tar.zst: OK\na name with blanks: OK\n")


def test_a_backup_is_private_and_cannot_be_written_by_accident(store: LocalStore, root: Path) -> None:
    """Whatever the umask says."""
    before = os.umask(0)
    try:
        commit(store)
    finally:
        os.umask(before)

    modes = {oct(path.stat().st_mode & 0o777) for path in root.rglob("*") if path.is_file()}
    directories = {oct(path.stat().st_mode & 0o777) for path in root.rglob("*") if path.is_dir()}
    assert (modes, directories) == ({"0o400"}, {"0o700"})


def test_strangers_files_are_neither_listed_nor_removed(store: LocalStore, root: Path) -> None:
    """Files, directories without a manifest, hidden ones and links are somebody else's."""
    commit(store)
    for path in ["lost+found", "photos/notes", "a\nb/c", ".snapshots/hourly", ".holdfast/drafts/theirs.0011"]:
        (root / path).mkdir(parents=True)
        (root / path / "file").write_text("theirs")
    (root / "README").write_text("theirs")
    (root / "photos" / "todo.txt").write_text("theirs")
    for path in [".snapshots/hourly", "a\nb/c"]:
        (root / path / "manifest.json").write_text("{}")
    (root / "photos" / "latest").symlink_to("first")
    (root / ".holdfast" / "drafts" / "other.owner").write_text("theirs")
    before = everything(root)

    assert list(store.names()) == [NAME]
    assert store.sweep() == 0
    assert everything(root) == before


def test_an_empty_directory_in_the_way_does_no_harm(store: LocalStore, root: Path) -> None:
    """It is replaced by the set."""
    (root / "photos" / "first").mkdir(parents=True)

    commit(store)

    assert store.exists(NAME)


@pytest.mark.parametrize("obstacle", ["directory", "file", "plan is a file", "plan is a link"])
def test_an_obstacle_is_named_and_left_alone(store: LocalStore, root: Path, obstacle: str) -> None:
    """A person must look; the draft can be discarded."""
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    plan = root / "photos"
    if obstacle == "plan is a file":
        plan.write_text("theirs")
    elif obstacle == "plan is a link":
        plan.symlink_to(elsewhere)
    else:
        plan.mkdir()
        (plan / "first").write_text("theirs") if obstacle == "file" else (plan / "first" / "theirs").mkdir(parents=True)
    before = everything(root)
    draft = store.draft(NAME)

    with pytest.raises((StoreRefused, StoreUnavailable), match=str(plan)) as refusal:
        draft.commit({}, b"{}")
    draft.discard()

    assert "hint: " in str(refusal.value)
    assert [path for path in everything(root) if not path.startswith(".holdfast")] == before
    assert not any(elsewhere.iterdir())


def test_a_missing_directory_is_never_made(tmp_path: Path) -> None:
    """An unmounted disk is neither empty nor replaced by a directory on another one."""
    store = LocalStore("nas", tmp_path / "away")

    for call in [
        lambda: store.draft(NAME),
        lambda: list(store.names()),
        lambda: list(store.names(PlanName("photos"))),
        lambda: store.exists(NAME),
        lambda: store.read(NAME, "data"),
        lambda: store.expire(NAME),
        lambda: store.notes(NAME.plan, "pins"),
        lambda: store.put_note(NAME.plan, "pins", "mine", b"said", replace=True),
        lambda: store.drop_note(NAME.plan, "pins", "mine"),
        lambda: list(store.noted_plans()),
        store.sweep,
        store.free_bytes,
        store.check,
    ]:
        with pytest.raises(StoreUnavailable, match="hint: mount its disk"):
            call()

    assert not (tmp_path / "away").exists()


def test_a_disk_that_goes_away_meanwhile_is_not_replaced(store: LocalStore, root: Path) -> None:
    """The commit fails as temporary; nothing is made on the other disk."""
    draft = store.draft(NAME)
    part = draft.open_part("data")
    part.write(b"x")
    part.close()
    root.rename(root.with_name("unmounted"))

    with pytest.raises(StoreUnavailable):
        draft.commit({}, b"{}")
    draft.discard()

    assert not root.exists()


def test_a_store_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """No waiting helps."""
    (tmp_path / "file").write_text("x")

    with pytest.raises(StoreRefused, match="no directory"):
        LocalStore("nas", tmp_path / "file").check()


def test_a_half_removed_set_is_removed_by_the_sweep(store: LocalStore, root: Path) -> None:
    """What is on its way out goes out."""
    directory = commit(store)
    (root / ".holdfast" / "expired" / "first.0123").mkdir()
    directory.rename(root / ".holdfast" / "expired" / "first.4567")

    assert store.sweep() == 2
    assert everything(root / ".holdfast" / "expired") == []


def test_a_directory_without_a_manifest_is_not_expired(store: LocalStore, root: Path) -> None:
    """It is no set of ours."""
    (root / "photos" / "first").mkdir(parents=True)
    (root / "photos" / "first" / "theirs").write_text("x")

    store.expire(NAME)

    assert (root / "photos" / "first" / "theirs").exists()


def test_a_part_on_the_disk_has_the_digest_it_told(store: LocalStore) -> None:
    """Read back without us."""
    directory = commit(store)

    for line in (directory / SUMS).read_text().splitlines():
        digest, _, name = line.partition("  ")
        assert hashlib.sha256((directory / name).read_bytes()).hexdigest() == digest


def test_an_expired_set_can_still_be_read_by_who_opened_it(store: LocalStore) -> None:
    """A restore that is under way gets its file to the end, or is told at once."""
    commit(store)
    stream = store.stream(NAME, "data.tar.zst")
    first = next(stream)

    store.expire(NAME)

    assert first + b"".join(stream) == b"data.tar.zst" * 1000
