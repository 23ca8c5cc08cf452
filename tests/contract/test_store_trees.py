"""What every store promises of trees: it holds them, or refuses them with a clear word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from handlers.contract import BackupId, PlanName
from worker.manifest import MANIFEST
from worker.stores.local import LocalStore
from worker.stores.memory import MemoryStore
from worker.stores.protocol import Draft, SetMissing, SetName, Store, StoreRefused

NAME = SetName(plan=PlanName("photos"), backup_id=BackupId("first"))


def local(folder: Path) -> Store:
    """A store in a directory."""
    folder.joinpath("store").mkdir()
    return LocalStore("nas", folder / "store")


def memory(_: Path) -> Store:
    """A store in memory."""
    return MemoryStore("nas")


STORES: dict[str, Callable[[Path], Store]] = {"local": local, "memory": memory}
HOLDS_TREES = {"local"}


@pytest.fixture(params=list(STORES))
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of store in turn."""
    return str(request.param)


@pytest.fixture
def store(kind: str, tmp_path: Path) -> Store:
    """An empty one."""
    return STORES[kind](tmp_path)


def committed(draft: Draft) -> None:
    """A set with one part beside what else the draft has."""
    part = draft.open_part("data")
    part.write(b"data")
    part.close()
    draft.commit({"RESTORE.md": b"how"}, b"{}")


def test_tree_is_given_back_or_refused(store: Store, kind: str) -> None:
    """A store that refuses says which set, and where it would work; the draft is none the worse."""
    draft = store.draft(NAME)

    if kind in HOLDS_TREES:
        (draft.open_tree("peers") / "file").write_text("content")
        committed(draft)
        assert (store.tree(NAME, "peers") / "file").read_text() == "content"
    else:
        with pytest.raises(StoreRefused, match="store nas holds single files only") as refusal:
            draft.open_tree("peers")
        assert "peers of set photos/first" in str(refusal.value)
        assert "hint: " in str(refusal.value)
        committed(draft)

    assert list(store.names()) == [NAME]
    assert store.read(NAME, "data") == b"data"


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "/etc", ".hidden", "a\x00b", "a\nb", MANIFEST])
def test_harmful_name_of_a_tree_is_refused(store: Store, name: str) -> None:
    """Nothing can be made outside the set, nor in place of its manifest."""
    draft = store.draft(NAME)

    with pytest.raises(ValueError, match=r"name|manifest"):
        draft.open_tree(name)
    if name != MANIFEST:
        with pytest.raises(ValueError, match="name"):
            draft.leftover(name)
        with pytest.raises(ValueError, match="name"):
            store.tree(NAME, name)
    draft.discard()


def test_part_and_tree_do_not_share_a_name(store: Store) -> None:
    """Whichever was first."""
    draft = store.draft(NAME)
    draft.open_part("data").close()

    with pytest.raises(ValueError, match="data"):
        draft.open_tree("data")

    committed_names = list(store.names())
    draft.discard()
    assert committed_names == []


def test_there_is_no_leftover_at_first(store: Store) -> None:
    """Not for any tree."""
    draft = store.draft(NAME)

    assert draft.leftover("peers") is None

    draft.discard()
    assert store.sweep() == 0


def test_set_without_trees_has_none(store: Store) -> None:
    """Nor is a part one, nor has a set that does not exist any."""
    committed(store.draft(NAME))

    for name, tree in [
        (NAME, "peers"),
        (NAME, "data"),
        (NAME, MANIFEST),
        (SetName(plan=NAME.plan, backup_id=BackupId("other")), "peers"),
    ]:
        with pytest.raises(SetMissing):
            store.tree(name, tree)


def test_finished_draft_gives_no_more_trees(store: Store) -> None:
    """A committed set never changes."""
    draft = store.draft(NAME)
    draft.commit({}, b"{}")

    with pytest.raises(ValueError, match="committed or discarded"):
        draft.open_tree("late")
    with pytest.raises(ValueError, match="committed or discarded"):
        draft.leftover("late")
