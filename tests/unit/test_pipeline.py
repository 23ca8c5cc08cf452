"""The way of a request; each test names the promise that breaks when a line of the pipeline goes."""

from __future__ import annotations

from datetime import timedelta

import orjson

from handlers.contract import Job
from handlers.errors import IntegrityError
from tests.workshop.bench import WEB, Bench, Message, asked
from tests.workshop.handlers import TextOptions
from worker.events import Word
from worker.intake.delivery import Settlement
from worker.intake.wire import RequestId
from worker.lifecycle import State


def test_request_becomes_one_verified_set(bench: Bench) -> None:
    """From arrival to outcome."""
    data = bench.run(asked(labels={"run": "7"}, reason="nightly"))

    assert (data.outcome, data.exit_code, data.level, data.stores) == (Word.SUCCEEDED, 0, 0, ("disk",))
    assert data.verified == "checksums"
    (stored,) = bench.configured.around.catalog.sets(bench.store, WEB)
    assert stored.manifest.labels == {"team": "a", "run": "7"}
    assert stored.manifest.reason == "nightly"
    assert stored.manifest.request_id == "r1"


def test_delivery_is_settled_once_the_request_is_journalled(bench: Bench) -> None:
    """Not before it is safe, and not only after the work."""
    message = Message(asked())

    entry = bench.accept(message)

    assert message.settled == [(Settlement.ACCEPT, "")]
    assert entry is not None
    assert bench.journal.entry(RequestId("r1")) == entry


def test_started_and_outcome_are_announced_in_order(bench: Bench) -> None:
    """Whoever follows sees the story."""
    bench.run(asked())

    assert bench.words() == ["started", "succeeded"]
    entry = bench.journal.entry(RequestId("r1"))
    assert entry is not None
    assert entry.state is State.ANNOUNCED


def test_same_request_again_is_answered_with_the_old_outcome(bench: Bench) -> None:
    """One request, one backup."""
    bench.run(asked())
    again = Message(asked())

    work = bench.accept(again)

    assert work is None
    assert again.settled == [(Settlement.ACCEPT, "")]
    assert bench.words() == ["started", "succeeded", "duplicate"]
    assert len(list(bench.store.names())) == 1


def test_redelivery_of_an_answered_request_is_silent(bench: Bench) -> None:
    """It is the same delivery, not a second question."""
    bench.run(asked())
    again = Message(asked(), redelivered=True)

    bench.accept(again)

    assert again.settled == [(Settlement.ACCEPT, "")]
    assert bench.words() == ["started", "succeeded"]


def test_caller_who_asks_while_the_work_goes_on_is_told_at_the_end(bench: Bench) -> None:
    """It starts nothing, and nobody is forgotten."""
    bench.accept(Message(asked()))
    bench.accept(Message(asked(), reply_to="amq.gen-2", correlation_id="c2"))

    bench.work()

    assert bench.words() == ["started", "succeeded", "duplicate"]
    (answer,) = bench.reply.taken
    assert (answer.caller.reply_to, answer.caller.correlation_id) == ("amq.gen-2", "c2")
    assert orjson.loads(answer.body)["data"]["original"] == "succeeded"


def test_other_request_of_the_same_id_is_refused(bench: Bench) -> None:
    """The first one stands."""
    bench.run(asked())
    other = Message(asked(level="full"))

    bench.accept(other)

    assert other.settled[0][0] is Settlement.REJECT
    refused = orjson.loads(bench.spool.taken[-1].body)["data"] if bench.words() else {}
    assert (refused["outcome"], refused["exit_code"]) == ("refused", 5)


def test_message_that_is_no_request_goes_to_the_dead_letters_and_is_answered(bench: Bench) -> None:
    """With the reason in both."""
    message = Message(b"hello")

    bench.accept(message)

    assert message.settled == [(Settlement.REJECT, message.settled[0][1])]
    assert "not JSON" in message.settled[0][1]
    assert bench.words() == ["refused"]


def test_unknown_plan_is_refused(bench: Bench) -> None:
    """A message can only name what the operator configured."""
    message = Message(asked(plan="other"))

    bench.accept(message)

    assert message.settled[0][0] is Settlement.REJECT
    assert bench.words() == ["refused"]
    assert bench.journal.entry(RequestId("r1")) is None


def test_refused_request_is_never_answered_to_a_queue_that_is_not_allowed(bench: Bench) -> None:
    """The refusal itself must not be the way to write there."""
    bench.accept(Message(asked(reply_to="orders")))

    assert bench.words() == ["refused"]
    assert bench.reply.taken == []


def test_caller_gets_its_answer(bench: Bench) -> None:
    """On its reply queue, with its correlation id."""
    bench.accept(Message(asked(), reply_to="amq.gen-1", correlation_id="c1"))
    bench.work()
    bench.words()

    (answer,) = bench.reply.taken
    assert (answer.caller.reply_to, answer.caller.correlation_id) == ("amq.gen-1", "c1")


def test_unreadable_file_makes_the_outcome_partial(bench: Bench) -> None:
    """Never reported as success."""
    bench.options = TextOptions(unreadable=True)
    bench.wire()

    data = bench.run(asked())

    assert (data.outcome, data.exit_code, data.problem_counts) == (Word.PARTIAL, 3, {"unreadable": 1})


def test_levels_build_on_each_other(bench: Bench) -> None:
    """The second backup is a level 1 on the first."""
    bench.run(asked("r1"))
    bench.now += timedelta(minutes=1)

    data = bench.run(asked("r2"), "r2")

    assert (data.level, data.parent) == (1, bench.journal.entry(RequestId("r1")).backup_id)  # type: ignore[union-attr]


def test_damaged_parent_means_a_full_backup(bench: Bench) -> None:
    """With the reason; never a broken chain."""

    def damaged(job: Job) -> None:
        if job.level > 0:
            raise IntegrityError("part text is torn")

    bench.run(asked("r1"))
    bench.now += timedelta(minutes=1)
    bench.handler.during = damaged

    data = bench.run(asked("r2"), "r2")

    assert (data.outcome, data.level) == (Word.SUCCEEDED, 0)
    assert "part text is torn" in (data.level_reason or "")
