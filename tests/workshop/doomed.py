"""Starts `holdfast` so that it dies by SIGKILL at one chosen step of a request.

    HOLDFAST_TEST_DIE_AT=part_fsynced:2 HOLDFAST_TEST_MARK=/tmp/mark python -m tests.workshop.doomed --config F run

Nothing of this is in the product: the function that is the step is wrapped here, before the command line begins. A step
that nobody knows, or whose function was renamed or has other parameters, ends the program at once with an error. When
it dies where it should, the mark file tells so.

Steps that belong to rooms not built yet, to be added with them: `held` and `released` (an application is held while its
data are read), `copied` (a further store has the set).
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import orjson
import psutil

DIE_AT: Final = "HOLDFAST_TEST_DIE_AT"
"""`STEP`, or `STEP:N` for the Nth time that the process comes there."""
MARK: Final = "HOLDFAST_TEST_MARK"
"""The file that gets the last words, as JSON: `step`, and `children` with the ids of the programs still running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Which calls count: those whose argument of this name is as wanted."""

    name: str
    wanted: Callable[[Any], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instant:
    """A function of the product, `module:name` or `module:Class.name`, and the side of it on which to die."""

    where: str
    when: Literal["before", "after"] = "after"
    given: Given | None = None


def _moves_to(state: str) -> Instant:
    return Instant(where="worker.journal.sqlite:SqliteJournal.advance", given=Given(name="to", wanted=_equals(state)))


def _writes(wanted: Callable[[str], bool]) -> Instant:
    return Instant(
        where="worker.stores.local_draft:write_durable",
        given=Given(name="path", wanted=lambda path: wanted(path.name)),
    )


def _equals(text: str) -> Callable[[Any], bool]:
    return lambda value: bool(value == text)


def _is_outcome(event_id: str) -> bool:
    return not event_id.endswith(("-started", "-progress"))


_ACCEPTED = Given(name="settlement", wanted=_equals("accept"))
_OUTCOME = Given(name="announcement", wanted=lambda announcement: _is_outcome(announcement.event_id))

STEPS: Final[Mapping[str, Sequence[Instant]]] = {
    # Taken from the transport, before anything was done with it.
    "delivered": [Instant(where="worker.pipeline:Pipeline.accept", when="before")],
    "parsed": [Instant(where="worker.intake.wire:parse")],
    # The journal has the request, the delivery is not settled.
    "journalled": [Instant(where="worker.journal.sqlite:SqliteJournal.begin")],
    # Somebody said what becomes of the delivery; the transport has not heard of it.
    "settle_decided": [
        Instant(where="worker.intake.spool:SpoolDelivery.settle", when="before", given=_ACCEPTED),
        Instant(where="worker.intake.queue:QueueDelivery.settle", given=_ACCEPTED),
    ],
    "settled": [
        Instant(where="worker.intake.spool_claims:Claims._carry_out", given=_ACCEPTED),
        Instant(where="worker.intake.queue_session:QueueSession.settle", given=_ACCEPTED),
    ],
    "attempt_counted": [Instant(where="worker.journal.sqlite:SqliteJournal.attempt")],
    "lease_taken": [Instant(where="worker.lease:Leases.hold")],
    "draft_begun": [Instant(where="worker.stores.local:LocalStore.draft")],
    # The handler's program runs.
    "producing": [Instant(where="worker.control:WorkControl.started")],
    "part_fsynced": [Instant(where="worker.stores.local_draft:LocalPart.close")],
    "produced": [_moves_to("produced")],
    "small_file_written": [_writes(lambda name: name != "manifest.json")],
    "manifest_written": [_writes(lambda name: name == "manifest.json")],
    # The set is visible, but the directories are not fsynced, and the record of the draft is still there.
    "renamed": [Instant(where="worker.stores.local_draft:LocalDraft._publish")],
    "committed": [Instant(where="worker.stores.local_draft:LocalDraft.commit")],
    "lease_released": [Instant(where="worker.lease:Lease.release")],
    "stored": [_moves_to("stored")],
    # Some of the set was read again.
    "verifying": [
        Instant(
            where="worker.control:WorkControl.report",
            given=Given(name="self", wanted=lambda control: control._step == "verify"),
        )
    ],
    # `verify: deep`: the set was restored into scratch, and is to be compared.
    "restored_on_trial": [Instant(where="worker.verify:restore")],
    "verified": [_moves_to("verified")],
    # Whoever waits for the set knows that it is safe.
    "told": [Instant(where="worker.steps:acknowledge")],
    # A set is to expire, and whoever keeps it now can see that.
    "expiring_noted": [
        Instant(where="worker.stores.local:LocalStore.put_note", given=Given(name="kind", wanted=_equals("expiring")))
    ],
    "set_expired": [Instant(where="worker.stores.local:LocalStore.expire")],
    "outcome_stored": [Instant(where="worker.journal.sqlite:SqliteJournal.conclude")],
    # Somebody took the event; the outbox still has it.
    "outcome_sent": [
        Instant(where="worker.spool_events:SpoolEvents.send", given=_OUTCOME),
        Instant(where="worker.broker.publisher:QueueEvents.send", given=_OUTCOME),
    ],
    "crossed_out": [
        Instant(
            where="worker.journal.sqlite:SqliteJournal.sent",
            given=Given(name="event_id", wanted=_is_outcome),
        )
    ],
    # `settle: announced`: the delivery that was kept for so long is let go.
    "held_settled": [Instant(where="worker.intake.held:HeldDeliveries.settle")],
}


class Hollow(LookupError):
    """The step means nothing (any more): the test that names it would show nothing."""


class _Death:
    """Comes at the nth call that counts."""

    def __init__(self, step: str, number: int, mark: Path) -> None:
        self._step = step
        self._left = number
        self._mark = mark
        self._mutex = threading.Lock()

    def come(self) -> None:
        """Die, if it is time."""
        with self._mutex:
            self._left -= 1
            if self._left == 0:
                children = [child.pid for child in psutil.Process().children(recursive=True)]
                self._mark.write_bytes(orjson.dumps({"step": self._step, "children": children}))
                os.kill(os.getpid(), signal.SIGKILL)


def find(instant: Instant) -> tuple[object, str, Callable[..., Any]]:
    """Where the function is, its name there, the function itself. Raises Hollow where it is not."""
    module_name, _, path = instant.where.partition(":")
    *outer, name = path.split(".")
    try:
        owner: object = importlib.import_module(module_name)
        for part in outer:
            owner = vars(owner)[part]
        function = vars(owner)[name]
    except (ImportError, KeyError) as error:
        raise Hollow(f"there is no {instant.where}: {error!r}") from error
    if not inspect.isfunction(function):
        raise Hollow(f"{instant.where} is no plain function: {function!r}")
    if instant.given is not None and instant.given.name not in inspect.signature(function).parameters:
        raise Hollow(f"{instant.where} has no parameter {instant.given.name}: {inspect.signature(function)}")
    return owner, name, function


def _doom(instant: Instant, come: Callable[[], None]) -> None:
    owner, name, function = find(instant)
    signature = inspect.signature(function)

    @functools.wraps(function)
    def doomed(*arguments: Any, **keywords: Any) -> Any:
        given = instant.given
        counts = given is None or given.wanted(signature.bind(*arguments, **keywords).arguments[given.name])
        if counts and instant.when == "before":
            come()
        result = function(*arguments, **keywords)
        if counts and instant.when == "after":
            come()
        return result

    setattr(owner, name, doomed)


def arrange(wish: str, mark: Path) -> None:
    """Make this process die at the step. Raises Hollow."""
    step, _, count = wish.partition(":")
    if step not in STEPS:
        raise Hollow(f"unknown step {step!r}; known are {', '.join(STEPS)}")
    if count and not (count.isdigit() and int(count)):
        raise Hollow(f"{wish}: the count must be a number from 1 on")
    death = _Death(wish, int(count or 1), mark)
    for instant in STEPS[step]:
        _doom(instant, death.come)


def main() -> None:
    """The program."""
    try:
        arrange(os.environ.pop(DIE_AT), Path(os.environ.pop(MARK)))
    except (Hollow, KeyError) as error:
        sys.exit(f"doomed: {type(error).__name__}: {error}")
    from worker.cli import main as holdfast

    holdfast()


if __name__ == "__main__":
    main()
