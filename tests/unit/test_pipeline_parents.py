"""A level whose parents expire while it is made is made anew, and never left without them."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest

from handlers.contract import BackupId, Job
from tests.workshop.bench import WEB, Bench, Message, asked, outcome
from tests.workshop.stocked import watched
from worker.events import Word
from worker.levels import levels_to_restore
from worker.lifecycle import State
from worker.pins import EXPIRING
from worker.stores.protocol import SetName


def whole(bench: Bench) -> bool:
    """Whether every set that is there can be restored."""
    sets = {stored.backup_id: stored.manifest for stored in bench.configured.around.catalog.sets(bench.store, WEB)}
    return all(levels_to_restore(sets, backup_id) for backup_id in sets)


@pytest.mark.parametrize("how", ["gone", "going"])
def test_a_level_whose_parent_expires_while_it_is_made_is_made_anew(bench: Bench, how: str) -> None:
    """Its next attempt is a full backup; a set without its parent never stays."""
    parent = BackupId(bench.run(asked()).backup_id or "")

    def expire_parent(job: Job) -> None:
        if how == "gone":
            bench.store.expire(SetName(plan=WEB, backup_id=parent))
        else:
            bench.store.put_note(WEB, EXPIRING, parent, b"mark", replace=False)

    bench.handler.during = expire_parent
    bench.accept(Message(asked("r2")))

    waiting = bench.work("r2")

    assert waiting.state is not State.CONCLUDED
    assert "was expired while it was made" in (waiting.last_error or "")
    assert {name.backup_id for name in bench.store.names(WEB)} == ({parent} if how == "going" else set())

    bench.handler.during = lambda job: None
    bench.store.expire(SetName(plan=WEB, backup_id=parent))
    bench.store.drop_note(WEB, EXPIRING, parent)
    made = outcome(bench.work("r2"))

    assert (made.outcome, made.level) == (Word.SUCCEEDED, 0)
    assert whole(bench)


def test_the_note_of_a_dead_expiry_costs_one_full_backup(bench: Bench) -> None:
    """A level on what it marks would be taken back each time, until somebody expires."""
    parent = BackupId(bench.run(asked()).backup_id or "")
    bench.store.put_note(WEB, EXPIRING, parent, b"mark of a dead one", replace=False)

    made = [bench.run(asked(request_id), request_id) for request_id in ("r2", "r3")]

    assert [(each.outcome, each.level) for each in made] == [(Word.SUCCEEDED, 0), (Word.SUCCEEDED, 1)]
    assert made[0].backup_id is not None
    stored = bench.configured.around.catalog.find(made[0].backup_id)
    assert stored.manifest.level_reason == f"set {parent}, to build upon, is being expired"
    assert whole(bench)


class _Killed(BaseException):
    """Ends the worker where it stands."""


def test_who_dies_between_commit_and_look_has_not_looked(bench: Bench) -> None:
    """After the restart the committed set is found without its parent, and made anew."""
    parent = BackupId(bench.run(asked()).backup_id or "")
    store, armed = bench.store, threading.Event()

    def die(call: str) -> None:
        if armed.is_set() and call == "notes":
            raise _Killed

    bench.store = watched(store, die)  # type: ignore[assignment]  # a store all the same
    bench.wire()
    bench.handler.during = lambda job: armed.set()
    bench.accept(Message(asked("r2")))
    with pytest.raises(_Killed):
        bench.work("r2")
    assert len(list(store.names(WEB))) == 2
    store.expire(SetName(plan=WEB, backup_id=parent))
    bench.store, bench.handler.during = store, lambda job: None
    bench.wire()

    waiting = bench.work("r2")

    assert waiting.state is not State.CONCLUDED
    assert list(store.names(WEB)) == []
    made = outcome(bench.work("r2"))
    assert (made.outcome, made.level) == (Word.SUCCEEDED, 0)


def test_a_request_to_verify_looks_for_what_the_set_builds_on(bench: Bench) -> None:
    """As the command does: intact parts alone restore nothing."""
    parent = BackupId(bench.run(asked()).backup_id or "")
    bench.run(asked("r2"), "r2")
    bench.store.expire(SetName(plan=WEB, backup_id=parent))

    told = bench.run(asked("check", operation="verify"), "check")

    assert (told.outcome, told.exit_code) == (Word.FAILED, 6)
    assert parent in (told.error or "")


def test_a_set_that_lost_its_parent_is_no_duplicate(bench: Bench, tmp_path: Path) -> None:
    """Whoever asks again with another worker is not told that all is well."""
    parent = BackupId(bench.run(asked()).backup_id or "")
    bench.run(asked("r2"), "r2")
    bench.store.expire(SetName(plan=WEB, backup_id=parent))
    other = Bench(tmp_path / "other", node="n2")
    other.store = bench.store
    other.wire()

    told = other.run(asked("r2"), "r2")

    assert (told.outcome, told.exit_code) == (Word.FAILED, 6)


def test_the_newest_set_may_expire_while_a_new_one_is_written_up(bench: Bench) -> None:
    """The new one does not name it then, and is as good as any."""
    first = BackupId(bench.run(asked()).backup_id or "")
    store, reads = bench.store, itertools.count()
    armed = threading.Event()

    def expire_before_second_read(call: str) -> None:
        if armed.is_set() and call == "read" and next(reads) == 1:
            store.expire(SetName(plan=WEB, backup_id=first))

    bench.store = watched(store, expire_before_second_read)  # type: ignore[assignment]  # a store all the same
    bench.wire()
    bench.handler.during = lambda job: armed.set()

    made = bench.run(asked("r2", level="full"), "r2")

    assert made.outcome is Word.SUCCEEDED
    assert bench.configured.around.catalog.find(str(made.backup_id)).manifest.previous is None
