"""A level whose parents expire while it is made is made anew, and never left without them."""

from __future__ import annotations

import pytest

from handlers.contract import BackupId, Job
from tests.workshop.bench import WEB, Bench, Message, asked, outcome
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
