"""Old backups go when a new one is there, and when somebody asks for it; a backup never fails over that."""

from __future__ import annotations

from datetime import timedelta

from config.retention import Retention
from handlers.contract import BackupId
from handlers.errors import PermanentError
from tests.workshop.bench import WEB, Bench, asked, raising
from tests.workshop.handlers import TextOptions
from worker.events import EventData, Word
from worker.manifest import MANIFEST
from worker.pins import PINS
from worker.stores.protocol import SetName
from worker.verified import verified


def full(bench: Bench, number: int) -> EventData:
    """Another full backup, an hour later."""
    bench.now += timedelta(hours=1)
    return bench.run(asked(f"r{number}", level="full"), f"r{number}")


def stored(bench: Bench) -> set[BackupId]:
    """What is there."""
    return {name.backup_id for name in bench.store.names(WEB)}


def test_old_backups_go_once_the_new_one_is_verified(bench: Bench) -> None:
    """The outcome names them."""
    bench.retention = Retention(latest=2)
    bench.wire()
    ids = [full(bench, number).backup_id for number in range(3)]

    outcome = full(bench, 3)

    assert outcome.outcome is Word.SUCCEEDED
    assert outcome.expired == (ids[1],)
    assert outcome.expired_count == 1
    assert stored(bench) == {ids[2], outcome.backup_id}


def test_without_a_rule_nothing_goes(bench: Bench) -> None:
    """And nothing is said of it."""
    for number in range(3):
        outcome = full(bench, number)

    assert outcome.expired == ()
    assert outcome.expired_count is None
    assert len(stored(bench)) == 3


def test_a_backup_succeeds_though_old_ones_cannot_be_expired(bench: Bench) -> None:
    """It is as good as any; what failed is a warning, and everything stays."""
    bench.retention = Retention(latest=1)
    bench.wire()
    first = full(bench, 0)
    bench.store.put_note(WEB, PINS, "torn", b"{", replace=False)

    outcome = full(bench, 1)

    assert outcome.outcome is Word.SUCCEEDED
    assert any("could not be expired" in warning for warning in outcome.warnings)
    assert stored(bench) == {first.backup_id, outcome.backup_id}


def test_a_backup_that_fails_takes_nothing_with_it(bench: Bench) -> None:
    """Only after a new backup may an old one go."""
    bench.retention = Retention(latest=1)
    bench.wire()
    first = full(bench, 0)
    bench.handler.during = raising(PermanentError("no"))

    failed = full(bench, 1)

    assert failed.outcome is Word.FAILED
    assert stored(bench) == {first.backup_id}


def test_expiry_can_be_asked_for(bench: Bench) -> None:
    """By anybody who may ask for a backup: a request names the plan, the operator's rules decide."""
    ids = [full(bench, number).backup_id for number in range(3)]
    bench.retention = Retention(latest=1)
    bench.wire()

    outcome = bench.run(asked("tidy", operation="expire"), "tidy")

    assert outcome.outcome is Word.SUCCEEDED
    assert outcome.operation == "expire"
    assert set(outcome.expired) == set(ids[:2])
    assert outcome.backup_id is None
    assert stored(bench) == {ids[2]}


def test_expiry_of_a_plan_with_a_damaged_manifest_fails(bench: Bench) -> None:
    """Nobody knows what that set builds on."""
    ids = [full(bench, number).backup_id for number in range(3)]
    bench.store._sets[SetName(plan=WEB, backup_id=BackupId(ids[0] or ""))][MANIFEST] = b"{"
    bench.retention = Retention(latest=1)
    bench.wire()

    outcome = bench.run(asked("tidy", operation="expire"), "tidy")

    assert outcome.outcome is Word.FAILED
    assert outcome.exit_code == 6
    assert len(stored(bench)) == 3


def test_a_verified_set_is_noted_in_its_store(bench: Bench) -> None:
    """So that the last verified one is never removed, whoever looks."""
    outcome = full(bench, 0)

    assert verified(bench.store, WEB) == {outcome.backup_id: bench.now}


def test_a_disk_that_is_not_mounted_pushes_nothing_out(bench: Bench) -> None:
    """However many backups of nothing there are, those with something in them stay, as many as the rules want."""
    bench.retention = Retention(latest=2)
    bench.wire()
    ids = {full(bench, number).backup_id for number in range(2)}
    bench.options = TextOptions(files=0)
    bench.wire()

    empty = [full(bench, number).backup_id for number in range(2, 7)]

    assert stored(bench) == ids | set(empty[-2:])
