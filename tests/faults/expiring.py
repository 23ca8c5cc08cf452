"""Kills an expiry at each of its system calls in turn.

Run as a program: it forks for each try, so it must have one thread.
"""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from config.retention import Retention
from tests.faults.killing import survives
from tests.workshop.histories import made
from tests.workshop.stocked import PLAN, all_restorable, catalog_of, named, stock, there
from worker.expiry import expire
from worker.pins import EXPIRING
from worker.stores.local import LocalStore
from worker.verified import VERIFIED, note_verified

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def work(store: LocalStore, dead_after: timedelta = timedelta(seconds=60)) -> None:
    """Let the full set and its level go, which are older than the last one."""
    expire(
        catalog_of(store),
        store,
        PLAN,
        Retention(latest=1),
        now=NOW,
        zone=UTC,
        checkpoint=lambda: None,
        dead_after=dead_after,
    )


def check(store: LocalStore, died: bool) -> int:
    """Whatever is left can be restored, and the next expiry ends it; says how many sets were left."""
    left = there(store)
    assert "s3" in left
    assert all_restorable(store)
    if died:
        store.sweep()
        assert there(store) == left
        # What a dead one noted is dropped at once here, where nobody else is at work.
        clean_up(store)
        work(store)
    assert there(store) == {"s3"}
    assert store.notes(PLAN, EXPIRING) == {}
    assert set(store.notes(PLAN, VERIFIED)) == {"s3"}
    assert list((store.path / ".holdfast" / "expired").iterdir()) == []
    return len(left)


def clean_up(store: LocalStore) -> None:
    """An expiry with nothing to do but the notes of the dead."""
    expire(
        catalog_of(store),
        store,
        PLAN,
        Retention(),
        now=NOW,
        zone=UTC,
        checkpoint=lambda: None,
        dead_after=timedelta(),
    )


def main(folder: Path) -> tuple[int, set[int]]:
    """How many deaths there were until the work got through, and how many sets they left."""
    model = LocalStore("nas", folder / "model")
    model.path.mkdir()
    stock(model, made("s1", 0), made("s2", 1, "s1"), made("s3", 0))
    for backup_id in ("s1", "s2", "s3"):
        note_verified(model, named(backup_id), "checksums", NOW)
    left: set[int] = set()
    number = 0
    while True:
        number += 1
        store = LocalStore("nas", folder / "store")
        shutil.copytree(model.path, store.path)
        through = survives(lambda store=store: work(store), number)  # type: ignore[misc]
        left.add(check(store, not through))
        shutil.rmtree(store.path)
        if through:
            return number - 1, left


if __name__ == "__main__":
    deaths, left = main(Path(sys.argv[1]))
    sys.stdout.write(f"{deaths} {sorted(left)}\n")
