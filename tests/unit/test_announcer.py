"""The thread that empties the outbox outlives a journal that cannot be written."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from tests.workshop.bench import Taker
from tests.workshop.workers import wait_for
from worker.announcer import Announcer
from worker.journal.memory import MemoryJournal
from worker.journal.protocol import Announcement, Caller, JournalUnavailable

NOW = datetime(2026, 11, 21, tzinfo=UTC)


class FullDisk(MemoryJournal):
    """A journal that cannot be written until there is room."""

    room = False

    def sent(self, event_id: str, sink: str, *, now: datetime) -> None:
        """Refuse for as long as there is no room."""
        if not self.room:
            raise JournalUnavailable("disk full")
        super().sent(event_id, sink, now=now)


def test_full_disk_does_not_end_the_announcer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event is sent again, with its id, until it can be crossed out; then the thread ends when asked."""
    monkeypatch.setattr("worker.announcer.PAUSE", NOW - NOW)
    journal, taker = FullDisk(), Taker("spool")
    letter = Announcement(event_id="e1", sink="spool", caller=Caller(), body=b"{}", request_id=None)
    journal.announce([letter], now=NOW)
    announcer = Announcer(journal, {"spool": taker}, lambda: NOW)
    thread = threading.Thread(target=announcer.run)
    thread.start()

    wait_for(lambda: len(taker.taken) >= 2, what="a second attempt", seconds=10)
    journal.room = True
    wait_for(lambda: not journal.outbox(limit=1), what="an empty outbox", seconds=10)
    announcer.stop()
    thread.join(10)

    assert not thread.is_alive()
    assert {sent.event_id for sent in taker.taken} == {"e1"}
