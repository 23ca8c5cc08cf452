"""Whoever waits for a set is told when it is safe, and peers do what the plan allows."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from handlers.errors import NothingNew, TemporaryError
from tests.workshop.bench import Bench, Message, asked, outcome, raising
from tests.workshop.handlers import PoolHandler
from worker.events import ExitCode, Word
from worker.intake.delivery import Settlement
from worker.journal.memory import MemoryJournal


@pytest.fixture
def pool(bench: Bench) -> PoolHandler:
    """A handler with peers, on the bench."""
    handler = PoolHandler()
    bench.handler = handler
    bench.wire()
    return handler


def test_peers_are_told_once_the_set_is_verified(bench: Bench, pool: PoolHandler) -> None:
    """Of the very set that was made."""
    done = bench.run(asked())

    assert (done.outcome, done.verified, done.warnings) == (Word.SUCCEEDED, "checksums", ())
    assert pool.told == [done.backup_id]


def test_peers_are_not_told_of_a_set_that_cannot_be_read_back(bench: Bench, pool: PoolHandler) -> None:
    """It is withdrawn; they have to keep their data."""
    stream = bench.store.stream
    bench.store.stream = lambda name, file: iter([b"rotten"])  # type: ignore[method-assign]

    done = bench.run(asked())
    bench.store.stream = stream  # type: ignore[method-assign]

    assert done.outcome is Word.FAILED
    assert pool.told == []


def test_a_peer_that_cannot_be_told_is_a_warning(bench: Bench, pool: PoolHandler) -> None:
    """The set is none the worse."""
    pool.untold = ("peer south could not be told: read-only file system",)

    done = bench.run(asked())

    assert (done.outcome, done.warnings) == (Word.SUCCEEDED, pool.untold)


def test_peers_are_told_after_a_restart_where_the_worker_was_stopped_before_it(bench: Bench, pool: PoolHandler) -> None:
    """The request goes on with just that."""
    cancelled = threading.Event()
    pool.during_acknowledge = cancelled.set
    bench.accept(Message(asked()))
    stopped = bench.work("r1", cancelled)
    pool.during_acknowledge = lambda: None

    done = outcome(bench.work("r1"))

    assert stopped.outcome is None
    assert done.outcome is Word.SUCCEEDED
    assert pool.told == [done.backup_id]
    assert len(pool.jobs) == 1


def test_peers_are_told_again_by_a_worker_that_finds_the_set_made(bench: Bench, pool: PoolHandler) -> None:
    """Its maker may have died before it could tell them."""
    first = bench.run(asked())
    bench.journal = MemoryJournal()
    bench.node = "n2"
    bench.wire()

    again = bench.run(asked())

    assert again.outcome is Word.DUPLICATE
    assert pool.told == [first.backup_id, first.backup_id]


def test_a_request_for_what_is_backed_up_already_succeeds_and_makes_no_set(bench: Bench) -> None:
    """Two who signalled at once are one backup; a second set with nothing in it would hide the first."""
    bench.run(asked())
    bench.handler.during = raising(NothingNew("all peers were staged before"))

    done = bench.run(asked("r2"), "r2")

    assert (done.outcome, done.exit_code, done.manifest_sha256, done.stores) == (Word.SUCCEEDED, 0, None, ())
    assert done.warnings == ("no new set was made: all peers were staged before",)
    assert len(list(bench.store.names())) == 1


def test_nothing_new_is_a_failure_where_the_store_has_nothing(bench: Bench) -> None:
    """A disk that was replaced is empty, whatever was said of the one before."""
    bench.handler.during = raising(NothingNew("all peers were staged before"))

    done = bench.run(asked())

    assert (done.outcome, done.exit_code) == (Word.FAILED, 1)
    assert done.error is not None
    assert "has no set of plan web" in done.error


@pytest.mark.parametrize(
    ("codes", "word", "exit_code"),
    [
        ({"north": 0, "south": 0}, Word.SUCCEEDED, ExitCode.DONE),
        ({"north": 0, "south": 3}, Word.PARTIAL, ExitCode.PARTIAL),
        ({"north": 0, "south": None}, Word.PARTIAL, ExitCode.PARTIAL),
        ({"north": 1, "south": None}, Word.FAILED, ExitCode.FAILED),
    ],
)
def test_an_action_says_what_became_of_each_peer(
    bench: Bench, pool: PoolHandler, codes: dict[str, int | None], word: Word, exit_code: int
) -> None:
    """What some could not do is never a success."""
    pool.exit_codes = codes

    done = bench.run(asked(operation="manage", action="collect", level="full"))

    assert (done.outcome, done.exit_code, done.operation) == (word, exit_code, "manage")
    assert {each.peer: each.exit_code for each in done.actions} == codes
    assert all(each.output == f"{each.peer} was here" for each in done.actions)
    assert pool.asked == [("collect", True)]
    assert pool.told == []


def test_an_action_that_the_plan_does_not_allow_is_refused(bench: Bench, pool: PoolHandler) -> None:
    """With those that it does."""
    done = bench.run(asked(operation="manage", action="reboot"))

    assert (done.outcome, done.exit_code) == (Word.REFUSED, ExitCode.REFUSED)
    assert done.hint == "it allows collect"
    assert pool.asked == []


def test_a_plan_without_peers_allows_no_action(bench: Bench) -> None:
    """Whatever it is called."""
    done = bench.run(asked(operation="manage", action="collect"))

    assert done.outcome is Word.REFUSED


@pytest.mark.parametrize("asking", [{"operation": "manage"}, {"action": "collect"}])
def test_an_action_belongs_to_manage(bench: Bench, asking: dict[str, str]) -> None:
    """And manage to an action: anything else is no request."""
    message = Message(asked(**asking))

    assert bench.accept(message) is None
    assert [settlement for settlement, _ in message.settled] == [Settlement.REJECT]


def test_a_handler_is_told_which_try_is_the_last(bench: Bench) -> None:
    """Before that it may leave to the next one what this one could not have."""
    bench.handler.during = raising(TemporaryError("the peer is away"))
    bench.accept(Message(asked()))

    while outcome_missing(bench):
        bench.now += timedelta(hours=1)

    assert [job.last_try for job in bench.handler.jobs] == [False, False, True]


def outcome_missing(bench: Bench) -> bool:
    """Try once more; whether it is still to be tried again."""
    return bench.work().outcome is None


def test_a_try_before_the_deadline_that_leaves_no_time_for_another_is_the_last(bench: Bench) -> None:
    """Better a partial set in time than none."""
    bench.accept(Message(asked(not_after=(bench.now + timedelta(seconds=5)).isoformat())))
    bench.work()

    assert [job.last_try for job in bench.handler.jobs] == [True]


@pytest.mark.parametrize(("level", "full"), [("auto", False), ("full", True), (0, False)])
def test_a_handler_is_told_whether_a_full_backup_was_asked_for(bench: Bench, level: object, full: bool) -> None:
    """Which is not the same as level 0."""
    bench.run(asked(level=level))

    assert [job.full_asked for job in bench.handler.jobs] == [full]


def test_a_stop_while_peers_act_is_no_outcome(bench: Bench, pool: PoolHandler) -> None:
    """The next start begins the action again."""
    cancelled = threading.Event()
    cancelled.set()
    bench.accept(Message(asked(operation="manage", action="collect")))

    stopped = bench.work("r1", cancelled)

    assert stopped.outcome is None
