"""Puts events into the outbox, from where the announcer takes them.

An event is stored before anybody is told of it, under an id that a repeat after a crash gets again.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from loguru import logger

from handlers.contract import Progress
from handlers.tools.clock import Clock
from worker import events
from worker.events import Event, EventData, ExitCode, Word
from worker.intake.wire import BackupRequest, MessageRefused, RequestId
from worker.journal.protocol import Announcement, Caller, Entry, Journal, JournalUnavailable
from worker.levels import Choice
from worker.lifecycle import Step
from worker.manifest import Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbox:
    """Addresses events to every sink there is, and answers to whoever asked for one."""

    journal: Journal
    sinks: Sequence[str]
    """Names of the sinks that take every event."""
    node: str
    clock: Clock
    wake: Callable[[], None]
    """Tells the announcer that there is something to send."""

    def conclude(self, entry: Entry, data: EventData, *, idle: bool = False) -> Entry:
        """Fix the request's outcome and tell everybody who asked, in one durable step.

        With `idle`, raises IllegalMove where somebody may be working on the request.
        """
        now = self.clock()

        def addressed(attached: Sequence[Caller]) -> list[Announcement]:
            first = _caller(entry.request)
            letters = self._letters(data, entry.request, first, turn="", now=now, awaited=True)
            for number, caller in enumerate(attached):
                again = events.duplicate(data)
                letters += self._letters(again, entry.request, caller, turn=f"caller {number}", now=now, awaited=True)
            return letters

        concluded = self.journal.conclude(
            entry.request_id, outcome=data.encode(), announcements=addressed, now=now, idle=idle
        )
        self.wake()
        return concluded

    def answer_again(self, request: BackupRequest, entry: Entry, *, redelivered: bool) -> None:
        """Tell a caller the outcome that the request had before; silent where the caller was told already."""
        if entry.outcome is None or (redelivered and _caller(request) == _caller(entry.request)):
            return
        data = events.duplicate(EventData.model_validate_json(entry.outcome))
        self._put(self._letters(data, request, _caller(request), turn=str(uuid.uuid4()), now=self.clock()))

    def refuse(self, request: BackupRequest, reason: str, *, hint: str | None, exit_code: int, answer: bool) -> None:
        """Tell that a request is refused; whoever asked gets an answer only where that is allowed.

        The request has no entry in the journal: its delivery is settled afterwards.
        """
        data = EventData(
            outcome=Word.REFUSED,
            exit_code=exit_code,
            request_id=request.request_id,
            plan=request.data.plan,
            operation=request.data.operation,
            error=reason,
            hint=hint,
            labels=request.data.labels,
        )
        caller = _caller(request) if answer else Caller(correlation_id=request.correlation_id)
        self._put(self._letters(data, request, caller, turn=request.content_digest, now=self.clock()))

    def refuse_message(self, body: bytes, error: MessageRefused) -> None:
        """Tell that a message is no request."""
        data = EventData(
            outcome=Word.REFUSED,
            exit_code=ExitCode.REFUSED,
            request_id=error.request_id,
            error=error.message,
            hint=error.hint,
        )
        now = self.clock()
        fingerprint = hashlib.sha256(body).hexdigest()
        letter = events.event(
            data, event_id=events.event_id(fingerprint, Word.REFUSED, node=self.node), node=self.node, now=now
        )
        self._put(self._copies(letter, Caller(), awaited_by=None))

    def started(self, entry: Entry, choice: Choice) -> None:
        """Tell that the subject is being read."""
        data = _running(entry, Word.STARTED).model_copy(
            update={
                "level": choice.level,
                "level_reason": choice.reason,
                "parent": choice.parent.backup_id if choice.parent else None,
            }
        )
        self._put(self._letters(data, entry.request, Caller(), turn=str(entry.attempt), now=self.clock()))

    def progress(self, entry: Entry, progress: Progress, number: int) -> None:
        """Tell how far the work is; `number` counts within the attempt."""
        counts = Counts(files=progress.files, bytes_in=progress.bytes_in, bytes_out=progress.bytes_out)
        data = _running(entry, Word.PROGRESS).model_copy(update={"counts": counts})
        turn = f"{entry.attempt}.{number}"
        self._put(self._letters(data, entry.request, Caller(), turn=turn, now=self.clock()))

    def _letters(
        self,
        data: EventData,
        request: BackupRequest,
        caller: Caller,
        *,
        turn: str,
        now: datetime,
        awaited: bool = False,
    ) -> list[Announcement]:
        event_id = events.event_id(request.request_id, data.outcome, node=self.node, turn=turn)
        letter = events.event(data, event_id=event_id, node=self.node, now=now)
        return self._copies(letter, caller, awaited_by=request if awaited else None)

    def _copies(self, letter: Event, caller: Caller, *, awaited_by: BackupRequest | None) -> list[Announcement]:
        sinks = [*self.sinks, *(["reply"] if caller.reply_to else [])]
        return [
            Announcement(
                event_id=letter.id,
                sink=sink,
                caller=caller,
                body=letter.encode(),
                request_id=RequestId(awaited_by.request_id) if awaited_by else None,
            )
            for sink in sinks
        ]

    def _put(self, letters: Sequence[Announcement]) -> None:
        self.journal.announce(letters, now=self.clock())
        self.wake()


class EventWatcher:
    """Turns what happens to one request into `started` and `progress` events."""

    def __init__(
        self, outbox: Outbox, *, period_seconds: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """A `progress` event at most every `period_seconds`; none at all where that is 0."""
        self._outbox = outbox
        self._period = period_seconds
        self._monotonic = monotonic
        self._choice: Choice | None = None
        self._number = 0
        self._last = monotonic()

    def prepared(self, entry: Entry, choice: Choice, expected: Counts | None) -> None:
        """Remember the level for the event."""
        self._choice = choice

    def started(self, entry: Entry) -> None:
        """Tell it."""
        if self._choice is not None:
            with _not_worth_failing():
                self._outbox.started(entry, self._choice)

    def progress(self, entry: Entry, step: Step, progress: Progress) -> None:
        """Tell it, if the last one is long enough ago."""
        now = self._monotonic()
        if self._period and step is Step.PRODUCE and now - self._last >= self._period:
            self._last = now
            self._number += 1
            with _not_worth_failing():
                self._outbox.progress(entry, progress, self._number)


@contextmanager
def _not_worth_failing() -> Iterator[None]:
    """A backup of ten hours does not die of a line about it that cannot be stored."""
    try:
        yield
    except JournalUnavailable as error:
        logger.warning("event_not_stored", error=str(error), next="the work goes on without it")


def _caller(request: BackupRequest) -> Caller:
    return Caller(reply_to=request.reply_to, correlation_id=request.correlation_id)


def _running(entry: Entry, word: Word) -> EventData:
    return EventData(
        outcome=word,
        request_id=entry.request_id,
        backup_id=entry.backup_id,
        plan=entry.plan,
        operation=entry.request.data.operation,
        attempt=entry.attempt,
        labels=entry.request.data.labels,
    )
