"""Trees in a local store: plain directories of a set, and what becomes of those that were not finished."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.contract import BackupId, PlanName
from tests.workshop.another_user import nobody, open_directory
from worker.stores.local import LocalStore
from worker.stores.local_draft import LocalDraft
from worker.stores.local_leftovers import ABANDONED_SECONDS
from worker.stores.protocol import AlreadyCommitted, SetMissing, SetName

PLAN = PlanName("pool")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store."""
    path = tmp_path / "store"
    path.mkdir()
    return LocalStore("nas", path)


def named(backup_id: str = "first", plan: str = PLAN) -> SetName:
    """The name of a set."""
    return SetName(plan=PlanName(plan), backup_id=BackupId(backup_id))


def attempt(store: LocalStore, *files: str, backup_id: str = "first", tree: str = "peers") -> LocalDraft:
    """A draft with a part, and a tree with these files, each of which says whose it is."""
    draft = store.draft(named(backup_id))
    part = draft.open_part("data")
    part.write(b"data")
    part.close()
    top = draft.open_tree(tree)
    for file in files:
        (top / file).parent.mkdir(parents=True, exist_ok=True)
        (top / file).write_text(f"{file} of {backup_id}")
    return draft


def failed(store: LocalStore, *files: str, backup_id: str = "first", tree: str = "peers") -> None:
    """An attempt that was discarded."""
    attempt(store, *files, backup_id=backup_id, tree=tree).discard()


def below(directory: Path | None) -> list[str]:
    """The files below a directory, sorted."""
    assert directory is not None
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())


def own(store: LocalStore) -> list[str]:
    """What lies in the store's own directory, but for the places themselves."""
    return sorted("/".join(path.parts[-2:]) for path in (store.path / ".holdfast").glob("*/*"))


def leftover_of(store: LocalStore, tree: str = "peers") -> list[str] | None:
    """What the plan's next attempt would find; it is put back."""
    draft = store.draft(named("asking"))
    found = draft.leftover(tree)
    files = None if found is None else below(found)
    draft.discard()
    return files


# --- committed trees


def test_tree_lies_in_the_set_as_it_was_written(store: LocalStore) -> None:
    """With modes, times and links; the set's own files are as private as ever."""
    draft = store.draft(named())
    top = draft.open_tree("peers")
    (top / "web").mkdir()
    (top / "web" / "dump").write_text("rows")
    (top / "web" / "dump").chmod(0o4751)
    os.utime(top / "web" / "dump", ns=(1, 1_234_567_890_123_456_789))
    (top / "web" / "latest").symlink_to("dump")
    (top / "web").chmod(0o1555)

    draft.commit({"RESTORE.md": b"how"}, b"{}")

    found = store.tree(named(), "peers")
    about = (found / "web" / "dump").stat()
    assert found == store.path / "pool" / "first" / "peers"
    assert (about.st_mode & 0o7777, about.st_mtime_ns) == (0o4751, 1_234_567_890_123_456_789)
    assert (found / "web" / "latest").readlink() == Path("dump")
    assert (found / "web").stat().st_mode & 0o7777 == 0o1555
    assert found.stat().st_mode & 0o777 == 0o700
    assert ((store.path / "pool" / "first" / "RESTORE.md").stat().st_mode & 0o777) == 0o400
    assert own(store) == []


def test_name_of_a_tree_is_taken(store: LocalStore) -> None:
    """By another tree, by a part, by a small file of the commit."""
    draft = attempt(store)

    with pytest.raises(ValueError, match="peers"):
        draft.open_tree("peers")
    with pytest.raises(ValueError, match="peers"):
        draft.open_part("peers")
    draft.open_tree("RESTORE.md")
    with pytest.raises(ValueError, match=r"RESTORE\.md|data"):
        draft.commit({"RESTORE.md": b"how"}, b"{}")

    draft.discard()


def test_file_of_a_tree_is_no_file_of_the_set(store: LocalStore) -> None:
    """Neither by a path, nor is the tree itself one."""
    draft = store.draft(named())
    (draft.open_tree("peers") / "file").write_text("x")
    draft.commit({}, b"{}")

    for name in ["peers/file", "peers/../manifest.json", "../first/peers/file"]:
        with pytest.raises(ValueError, match="name"):
            store.read(named(), name)
    for look in (store.read, store.stream, store.size):
        with pytest.raises(SetMissing):
            look(named(), "peers")


def test_link_is_no_tree(store: LocalStore, tmp_path: Path) -> None:
    """Nothing outside the set is ever taken for a part of it."""
    store.draft(named()).commit({}, b"{}")
    (store.path / "pool" / "first" / "peers").symlink_to(tmp_path)

    with pytest.raises(SetMissing):
        store.tree(named(), "peers")


def test_tree_of_a_directory_that_is_no_set_is_not_given(store: LocalStore) -> None:
    """There is no manifest."""
    (store.path / "pool" / "first" / "peers").mkdir(parents=True)

    with pytest.raises(SetMissing):
        store.tree(named(), "peers")


def test_set_with_a_tree_expires_whole(store: LocalStore) -> None:
    """Whatever modes are below it."""
    draft = attempt(store, "web/a", "db/b")
    top = store.path / ".holdfast" / "drafts"
    next(top.glob("*/peers/web")).chmod(0)
    draft.commit({}, b"{}")

    store.expire(named())

    assert (list(store.names()), own(store)) == ([], [])
    assert not (store.path / "pool" / "first").exists()


# --- leftovers


def test_trees_of_a_failed_attempt_are_left_for_the_next(store: LocalStore) -> None:
    """Without its parts; it is on the file system of the trees, so names can be moved over."""
    failed(store, "web/a", "db/b")

    draft = store.draft(named())
    left = draft.leftover("peers")
    assert left is not None
    assert below(left) == ["db/b", "web/a"]
    assert sorted(path.name for path in left.parent.iterdir()) == ["peers"]
    (left / "web").rename(draft.open_tree("peers") / "web")
    draft.commit({}, b"{}")

    assert below(store.tree(named(), "peers")) == ["web/a"]
    assert own(store) == []


def test_attempt_without_trees_leaves_nothing(store: LocalStore) -> None:
    """Nor does one whose tree is empty."""
    failed(store)

    assert (own(store), leftover_of(store)) == ([], None)


def test_leftover_belongs_to_its_plan(store: LocalStore) -> None:
    """Another plan, even of a similar name, gets nothing; another tree neither."""
    failed(store, "web/a")

    for name, tree in [(named("x", "pool2"), "peers"), (named("x", "poo"), "peers"), (named("x"), "peer")]:
        draft = store.draft(name)
        assert draft.leftover(tree) is None
        draft.discard()

    assert leftover_of(store) == ["web/a"]


def test_one_of_two_drafts_gets_the_leftover(store: LocalStore) -> None:
    """The other begins anew; when both fail, the last one's trees are what is left."""
    failed(store, "old")
    one, other = attempt(store, "one", backup_id="one"), attempt(store, "other", backup_id="other")

    assert below(one.leftover("peers")) == ["old"]
    assert other.leftover("peers") is None
    assert below(one.leftover("peers")) == ["old"]
    one.discard()
    other.discard()

    assert leftover_of(store) == ["other"]
    assert own(store) == ["unfinished/pool"]


def test_leftover_is_put_back_by_an_attempt_that_made_no_tree(store: LocalStore) -> None:
    """It failed before it came to that."""
    failed(store, "web/a")
    draft = store.draft(named("second"))
    draft.leftover("peers")
    draft.open_part("data").write(b"data")

    draft.discard()

    assert leftover_of(store) == ["web/a"]


def test_leftover_of_another_tree_is_put_back(store: LocalStore) -> None:
    """An attempt that made one tree does not lose the other."""
    draft = attempt(store, "a", tree="one")
    (draft.open_tree("other") / "b").write_text("b")
    draft.discard()
    again = attempt(store, "new", tree="one")
    again.leftover("one")

    again.discard()

    assert leftover_of(store, "other") == ["b"]


def test_what_an_attempt_had_not_come_to_is_left_for_the_next(store: LocalStore) -> None:
    """It died in the middle of its first peer; what the attempt before it had of the rest is not lost."""
    failed(store, "db/b", "web/a", "web/b")
    draft = store.draft(named("second"))
    left, top = draft.leftover("peers"), draft.open_tree("peers")
    assert left is not None
    (top / "web").mkdir()
    (left / "web" / "a").rename(top / "web" / "a")

    draft.discard()

    assert leftover_of(store) == ["db/b", "web/a", "web/b"]


def test_commit_removes_the_leftover(store: LocalStore) -> None:
    """The one that the draft took, and the one that somebody left meanwhile."""
    failed(store, "web/a")
    draft = store.draft(named("second"))
    draft.leftover("peers")
    failed(store, "web/b", backup_id="third")
    assert len(own(store)) == 4

    draft.commit({}, b"{}")

    assert own(store) == []


def test_loser_of_a_commit_leaves_nothing(store: LocalStore) -> None:
    """The set is there: nobody will try again."""
    winner, loser = attempt(store, "web/a"), attempt(store, "web/a")
    winner.commit({}, b"{}")

    with pytest.raises(AlreadyCommitted):
        loser.commit({}, b"{}")
    loser.discard()

    assert own(store) == []


def test_old_leftover_is_swept(store: LocalStore) -> None:
    """A younger one stays, and so does one that a living draft has taken."""
    failed(store, "web/a")
    left = store.path / ".holdfast" / "unfinished" / "pool"
    nearly, older = time.time() - ABANDONED_SECONDS + 60, time.time() - ABANDONED_SECONDS - 60

    os.utime(left, (nearly, nearly))
    assert store.sweep() == 0
    os.utime(left, (older, older))
    draft = store.draft(named("second"))
    taken = draft.leftover("peers")
    assert store.sweep() == 0
    assert below(taken) == ["web/a"]
    draft.discard()
    os.utime(left, (older, older))

    assert store.sweep() == 1
    assert own(store) == []


def test_strangers_in_the_place_of_leftovers_do_no_harm(store: LocalStore, tmp_path: Path) -> None:
    """A file in the way goes; links are not followed, and what has no plan's name is not touched."""
    place = store.path / ".holdfast" / "unfinished"
    failed(store, "web/a", backup_id="x")
    place.joinpath("pool").rename(tmp_path / "elsewhere")
    place.joinpath("pool").write_text("theirs")
    place.joinpath(".theirs").mkdir()
    place.joinpath("link").symlink_to(tmp_path / "elsewhere")
    for path in (place / ".theirs", place / "link"):
        os.utime(path, (0, 0))

    assert leftover_of(store) is None
    failed(store, "web/b")
    store.sweep()

    assert leftover_of(store) == ["web/b"]
    assert sorted(path.name for path in place.iterdir()) == [".theirs", "link", "pool"]
    assert (tmp_path / "elsewhere" / "peers" / "web" / "a").exists()


@pytest.fixture
def shared() -> Iterator[LocalStore]:
    """A store that a user without rights may write to."""
    if os.geteuid() != 0:
        pytest.skip("root becomes another user here")
    with open_directory() as place, nobody():
        yield LocalStore("nas", place)


def test_modes_that_keep_their_owner_out_do_not_stop_a_retry(shared: LocalStore) -> None:
    """Leftovers with directories that nobody may write are handed on, put by and removed."""
    draft = attempt(shared, "db/b", "web/a")
    for path in (shared.path / ".holdfast" / "drafts").glob("*/peers/*"):
        path.chmod(0o500)
    next((shared.path / ".holdfast" / "drafts").glob("*/peers")).chmod(0o500)
    draft.discard()

    assert leftover_of(shared) == ["db/b", "web/a"]
    again = attempt(shared, "web/new", backup_id="second")
    again.leftover("peers")
    again.discard()
    assert leftover_of(shared) == ["db/b", "web/a", "web/new"]
    failed(shared, "web/newer", backup_id="third")
    assert leftover_of(shared) == ["web/newer"]
    shared.draft(named("third")).commit({}, b"{}")
    assert own(shared) == []
