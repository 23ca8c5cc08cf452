"""What a running handler and its onlookers have of each other."""

from __future__ import annotations

import threading
from typing import Protocol

from handlers.contract import Progress
from handlers.errors import Cancelled
from worker.journal.protocol import Entry
from worker.levels import Choice
from worker.lifecycle import Step
from worker.manifest import Counts


class Watcher(Protocol):
    """Somebody who looks on while a request is worked on; called in the thread that works."""

    def prepared(self, entry: Entry, choice: Choice, expected: Counts | None) -> None:
        """The level is chosen; `expected` are the counts of the last set of this level, where there is one."""

    def started(self, entry: Entry) -> None:
        """The subject is now being read."""

    def progress(self, entry: Entry, step: Step, progress: Progress) -> None:
        """So far; up to a few times a second."""


class NoWatcher:
    """Nobody looks on."""

    def prepared(self, entry: Entry, choice: Choice, expected: Counts | None) -> None:
        """Nothing to do."""

    def started(self, entry: Entry) -> None:
        """Nothing to do."""

    def progress(self, entry: Entry, step: Step, progress: Progress) -> None:
        """Nothing to do."""


class WorkControl:
    """The `Control` of one step of one request."""

    def __init__(self, entry: Entry, step: Step, watcher: Watcher, cancelled: threading.Event) -> None:
        self._entry = entry
        self._step = step
        self._watcher = watcher
        self._cancelled = cancelled

    def checkpoint(self) -> None:
        """Raise Cancelled when the work is to stop."""
        if self._cancelled.is_set():
            raise Cancelled("asked to stop")

    def report(self, progress: Progress) -> None:
        """Pass on how far the work is."""
        self._watcher.progress(self._entry, self._step, progress)

    def started(self) -> None:
        """Pass on that the subject is being read."""
        self._watcher.started(self._entry)


class PlainControl:
    """The `Control` of work that belongs to no request: a restore, a verify from the command line."""

    def __init__(self, cancelled: threading.Event | None = None) -> None:
        self._cancelled = cancelled or threading.Event()
        self.latest = Progress()

    def checkpoint(self) -> None:
        """Raise Cancelled when the work is to stop."""
        if self._cancelled.is_set():
            raise Cancelled("asked to stop")

    def report(self, progress: Progress) -> None:
        """Remember how far the work is, for whoever draws it."""
        self.latest = progress

    def started(self) -> None:
        """Nothing to do."""
