"""Takes events from the outbox to whoever wants them, until somebody took each.

Events were stored before the first attempt to send and keep their id, so a repeat after a crash is recognisable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Protocol

from loguru import logger

from handlers.errors import PermanentError, TemporaryError
from handlers.tools.clock import Clock
from worker.intake.wire import RequestId
from worker.journal.protocol import Announcement, Journal, JournalUnavailable

BATCH = 100
PAUSE = timedelta(seconds=5)
"""Between two attempts while a sink is away."""
LOOK_AGAIN = timedelta(seconds=30)
"""Another process of this host (the command line) may have put something into the outbox."""


class EventSink(Protocol):
    """A place that takes events."""

    @property
    def name(self) -> str:
        """As announcements name it."""

    def send(self, announcement: Announcement) -> None:
        """Hand over one event; on return its taker has made it durable. Sending it twice does no harm.

        Raises TemporaryError (it is sent again later) or PermanentError (it can never be delivered).
        """

    def close(self) -> None:
        """Let go of connections; safe to repeat."""


class Announcer:
    """The one thread that empties the outbox."""

    def __init__(
        self,
        journal: Journal,
        sinks: Mapping[str, EventSink],
        clock: Clock,
        on_sent: Callable[[RequestId], None] = lambda _: None,
    ) -> None:
        """`on_sent` is told of each event that was taken and belongs to a request, after the journal has it."""
        self._journal = journal
        self._on_sent = on_sent
        self._sinks = sinks
        self._clock = clock
        self._wake = threading.Event()
        self._stopping = False
        self._away: set[str] = set()
        self._journal_away = False

    def wake(self) -> None:
        """Something was put into the outbox; any thread."""
        self._wake.set()

    def run(self) -> None:
        """Send until stopped; the thread's root."""
        while not self._stopping:
            self._wake.clear()
            all_sent = self._try_flush()
            self._wake.wait((LOOK_AGAIN if all_sent else PAUSE).total_seconds())

    def stop(self) -> None:
        """Make `run` return after the event it is sending."""
        self._stopping = True
        self._wake.set()

    def flush_once(self) -> bool:
        """Send what can be sent, even after `stop`; says whether the outbox is empty."""
        self._stopping = False
        return self.flush()

    def close(self) -> None:
        """Let go of the sinks."""
        for sink in self._sinks.values():
            sink.close()

    def flush(self) -> bool:
        """Send what can be sent now; says whether the outbox is empty.

        A sink that is away keeps its own events waiting, never those of another.
        """
        away: set[str] = set()
        while True:
            batch = [item for item in self._journal.outbox(limit=BATCH, skip=frozenset(away)) if not self._stopping]
            for announcement in batch:
                if announcement.sink not in away and not self._send(announcement):
                    away.add(announcement.sink)
            if not batch:
                return not away

    def _try_flush(self) -> bool:
        try:
            all_sent = self.flush()
        except JournalUnavailable as error:
            # An event that was taken and could not be crossed out is sent again, with the same id.
            if not self._journal_away:
                logger.error("journal_away", error=str(error), next="events wait; those just sent may be sent again")
            self._journal_away = True
            return False
        self._journal_away = False
        return all_sent

    def _send(self, announcement: Announcement) -> bool:
        sink = self._sinks.get(announcement.sink)
        if sink is None:
            logger.warning("event_dropped", event_id=announcement.event_id, reason=f"no sink {announcement.sink!r}")
        else:
            try:
                sink.send(announcement)
            except TemporaryError as error:
                self._log_away(announcement.sink, error)
                return False
            except PermanentError as error:
                logger.error("event_undeliverable", event_id=announcement.event_id, error=str(error))
        self._away.discard(announcement.sink)
        self._journal.sent(announcement.event_id, announcement.sink, now=self._clock())
        if announcement.request_id is not None:
            self._on_sent(announcement.request_id)
        return True

    def _log_away(self, sink: str, error: TemporaryError) -> None:
        # Once for each time it goes away, not once for each attempt.
        if sink not in self._away:
            self._away.add(sink)
            logger.warning("event_sink_away", sink=sink, error=str(error), next="events wait in the outbox")
