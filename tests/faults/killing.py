"""Kills a piece of work at each of its system calls in turn.

Run as a program: it forks for each try, so it must have one thread.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from handlers.contract import BackupId, PlanName
from worker.manifest import MANIFEST
from worker.stores.local import LocalStore
from worker.stores.protocol import AlreadyCommitted, SetName

CALLS = ["open", "write", "mkdir", "rename", "fsync", "unlink", "rmdir", "close"]
NAME = SetName(plan=PlanName("photos"), backup_id=BackupId("first"))
FILES = {"SHA256SUMS": b"sums", "RESTORE.md": b"guide"}
DATA = b"data" * 1000
MANIFEST_BYTES = b'{"format":1}'


def die_at(number: int) -> None:
    """Arrange that this process kills itself just before its nth system call of CALLS."""
    left = number

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **keywords)

        return wrapped

    for name in CALLS:
        setattr(os, name, deadly(getattr(os, name)))


def survives(work: Callable[[], object], number: int) -> bool:
    """Do the work in a process that dies at its nth system call; whether it got through."""
    child = os.fork()
    if child == 0:
        die_at(number)
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status) != 0:
        raise AssertionError(f"the work failed by itself at call {number}")
    return not os.WIFSIGNALED(status)


def make(store: LocalStore) -> None:
    """A set, from the draft to the commit."""
    draft = store.draft(NAME)
    part = draft.open_part("data")
    part.write(DATA)
    part.close()
    draft.commit(FILES, MANIFEST_BYTES)


def whole_or_nothing(store: LocalStore) -> bool:
    """Whether the set is there; if so, it is whole. Without it nothing of it can be seen."""
    there = store.exists(NAME)
    assert list(store.names()) == ([NAME] if there else [])
    if there:
        contents = {file: store.read(NAME, file) for file in [*FILES, "data", MANIFEST]}
        assert contents == {**FILES, "data": DATA, MANIFEST: MANIFEST_BYTES}
        assert len(list((store.path / NAME.plan / NAME.backup_id).iterdir())) == len(contents)
    else:
        assert not (store.path / NAME.plan / NAME.backup_id).exists()
    return there


def nothing_left(store: LocalStore) -> None:
    """Neither drafts, nor their records, nor what was on its way out."""
    own = store.path / ".holdfast"
    assert [str(path) for path in own.glob("*/*")] == []


def try_commit(store: LocalStore, number: int) -> bool:
    """Die while committing."""
    if survives(lambda: make(store), number):
        return True
    there = whole_or_nothing(store)
    store.sweep()
    nothing_left(store)
    assert whole_or_nothing(store) == there
    try:
        make(store)
    except AlreadyCommitted:
        assert there
    assert whole_or_nothing(store)
    return False


def try_expire(store: LocalStore, number: int) -> bool:
    """Die while expiring."""
    make(store)
    if survives(lambda: store.expire(NAME), number):
        assert not whole_or_nothing(store)
        return True
    there = whole_or_nothing(store)
    store.sweep()
    nothing_left(store)
    assert whole_or_nothing(store) == there
    store.expire(NAME)
    assert not whole_or_nothing(store)
    return False


def try_discard(store: LocalStore, number: int) -> bool:
    """Die while discarding."""

    def work() -> None:
        draft = store.draft(NAME)
        draft.open_part("data").write(DATA)
        draft.discard()

    through = survives(work, number)
    store.sweep()
    nothing_left(store)
    assert not whole_or_nothing(store)
    return through


def try_sweep(store: LocalStore, number: int) -> bool:
    """Die while sweeping up after a dead draft and a dead expiry."""
    dead_calls = 12  # the draft has its part by then
    survives(lambda: make(store), dead_calls)
    own = store.path / ".holdfast"
    (own / "expired" / "first.77" / "tree").mkdir(parents=True, exist_ok=True)
    (own / "expired" / "first.77" / "tree" / "file").write_text("x")
    through = survives(store.sweep, number)
    store.sweep()
    nothing_left(store)
    assert not whole_or_nothing(store)
    return through


def try_note(store: LocalStore, number: int) -> bool:
    """Die while making a note beside another one."""
    store.put_note(NAME.plan, "pins", "other", b"there", replace=False)
    through = survives(lambda: store.put_note(NAME.plan, "pins", "mine", b"said", replace=False), number)
    return _noted(store, through, {"other": b"there"}, {"other": b"there", "mine": b"said"})


def try_note_again(store: LocalStore, number: int) -> bool:
    """Die while replacing a note."""
    store.put_note(NAME.plan, "pins", "mine", b"said", replace=False)
    through = survives(lambda: store.put_note(NAME.plan, "pins", "mine", b"said anew", replace=True), number)
    return _noted(store, through, {"mine": b"said"}, {"mine": b"said anew"})


def try_note_drop(store: LocalStore, number: int) -> bool:
    """Die while dropping a note."""
    store.put_note(NAME.plan, "pins", "mine", b"said", replace=False)
    through = survives(lambda: store.drop_note(NAME.plan, "pins", "mine"), number)
    return _noted(store, through, {"mine": b"said"}, {})


def _noted(store: LocalStore, through: bool, before: dict[str, bytes], after: dict[str, bytes]) -> bool:
    """Either all is as before or all is done, nothing is left over, and the work can be done again."""
    found = dict(store.notes(NAME.plan, "pins"))
    assert found == after if through else found in (before, after)
    store.sweep()
    assert dict(store.notes(NAME.plan, "pins")) == found
    place = store.path / ".holdfast" / "notes" / NAME.plan / "pins"
    assert {path.name for path in place.iterdir()} <= {".lock", *found}
    for name in before.keys() | after.keys():
        if name in after:
            store.put_note(NAME.plan, "pins", name, after[name], replace=True)
        else:
            store.drop_note(NAME.plan, "pins", name)
    assert dict(store.notes(NAME.plan, "pins")) == after
    return through


TRIES = {
    "commit": try_commit,
    "expire": try_expire,
    "discard": try_discard,
    "sweep": try_sweep,
    "note": try_note,
    "note-again": try_note_again,
    "note-drop": try_note_drop,
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
