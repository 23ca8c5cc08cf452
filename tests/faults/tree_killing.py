"""Kills what a store does with trees at each of its system calls in turn.

Run as a program: it forks for each try, so it must have one thread.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from handlers.contract import BackupId, PlanName
from tests.faults.killing import survives
from worker.stores.local import LocalStore
from worker.stores.local_draft import LocalDraft
from worker.stores.protocol import AlreadyCommitted, SetName

NAME = SetName(plan=PlanName("pool"), backup_id=BackupId("first"))
FETCHED = {"web/a", "web/b"}
TREE = "peers"


def fetch(draft: LocalDraft) -> None:
    """Fill the tree with what an earlier attempt left, and with what is missing then."""
    left, top = draft.leftover(TREE), draft.open_tree(TREE)
    for file in sorted(FETCHED):
        (top / file).parent.mkdir(exist_ok=True)
        if left is not None and (left / file).exists():
            (left / file).rename(top / file)
        else:
            (top / file).write_text(file)


def make(store: LocalStore, name: SetName = NAME) -> None:
    """A set with a part and a tree, from the draft to the commit."""
    draft = store.draft(name)
    part = draft.open_part("data")
    part.write(b"data")
    part.close()
    fetch(draft)
    try:
        draft.commit({"RESTORE.md": b"how"}, b"{}")
    finally:
        draft.discard()


def fail(store: LocalStore) -> None:
    """An attempt that has all it wants, and then fails."""
    draft = store.draft(NAME)
    draft.open_part("data").write(b"data")
    fetch(draft)
    draft.discard()


def below(directory: Path) -> set[str]:
    """The files below a directory."""
    found = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    assert all((directory / file).read_text() == file for file in found)
    return found


def left(store: LocalStore) -> set[str]:
    """The leftover, as it lies there after a sweep: nothing else is left over."""
    own = store.path / ".holdfast"
    assert {f"{path.parent.name}/{path.name}" for path in own.glob("*/*")} <= {"unfinished/pool"}
    assert {path.name for path in (own / "unfinished").glob("pool/*")} <= {TREE}
    return below(own / "unfinished" / "pool" / TREE)


def whole_or_nothing(store: LocalStore, name: SetName = NAME) -> bool:
    """Whether the set is there, and then whole."""
    there = store.exists(name)
    if there:
        assert below(store.tree(name, TREE)) == FETCHED
        assert store.read(name, "data") == b"data"
    else:
        assert not (store.path / name.plan / name.backup_id).exists()
    return there


def ends_well(store: LocalStore) -> None:
    """The next attempt makes the set, unless it is there; nothing is left then."""
    try:
        make(store)
    except AlreadyCommitted:
        store.sweep()
    assert whole_or_nothing(store)
    store.sweep()
    assert left(store) == set()


def try_commit(store: LocalStore, number: int) -> bool:
    """Die while making a set out of a leftover: what was fetched is in the set, or left for the next attempt."""
    fail(store)
    through = survives(lambda: make(store), number)
    there = whole_or_nothing(store)
    assert there or not through
    store.sweep()
    assert whole_or_nothing(store) == there
    if not there:
        assert left(store) == FETCHED
        ends_well(store)
    return through


def try_discard(store: LocalStore, number: int) -> bool:
    """Die while failing for the second time: nothing is lost of the first time."""
    fail(store)
    through = survives(lambda: fail(store), number)
    store.sweep()
    assert left(store) == FETCHED
    ends_well(store)
    return through


def try_sweep(store: LocalStore, number: int) -> bool:
    """Die while sweeping up after an attempt that died with a leftover in hand, beside an older leftover."""
    fail(store)
    survives(lambda: make(store), DEAD_WHILE_FETCHING)
    own = store.path / ".holdfast"
    assert len(list(own.glob("drafts/*.taken"))) == 1
    (own / "unfinished" / "pool" / TREE / "older").mkdir(parents=True)
    through = survives(store.sweep, number)
    store.sweep()
    assert left(store) == FETCHED
    ends_well(store)
    return through


def try_loser(store: LocalStore, number: int) -> bool:
    """Die while discarding a draft whose set another worker has made: nothing of it is kept."""
    make(store)
    through = survives(lambda: fail(store), number)
    store.sweep()
    assert left(store) == set()
    assert whole_or_nothing(store)
    return through


def try_expire(store: LocalStore, number: int) -> bool:
    """Die while expiring a set with a tree."""
    make(store)
    through = survives(lambda: store.expire(NAME), number)
    there = whole_or_nothing(store)
    store.sweep()
    assert whole_or_nothing(store) == there
    assert left(store) == set()
    return through


DEAD_WHILE_FETCHING = 20
"""By then it has taken the leftover, and moved some of it."""

TRIES: dict[str, Callable[[LocalStore, int], bool]] = {
    "commit": try_commit,
    "discard": try_discard,
    "sweep": try_sweep,
    "loser": try_loser,
    "expire": try_expire,
}


def main(what: str, folder: Path) -> int:
    """How many deaths there were until the work got through."""
    number = 0
    while True:
        number += 1
        root = folder / str(number)
        root.mkdir()
        if TRIES[what](LocalStore("nas", root), number):
            return number - 1


if __name__ == "__main__":
    sys.stdout.write(f"{main(sys.argv[1], Path(sys.argv[2]))}\n")
