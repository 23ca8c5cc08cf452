"""Shows how far work is, to those who watch it at a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from worker.commands import console
from worker.control import PlainControl

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from handlers.contract import Progress
    from worker.journal.protocol import Entry
    from worker.levels import Choice
    from worker.lifecycle import Step
    from worker.manifest import Counts


class Meter(Protocol):
    """Somewhere to show progress."""

    def begin(self, what: str, expected_bytes: int | None = None) -> None:
        """A new stretch of work."""

    def show(self, progress: Progress) -> None:
        """So far."""

    def say(self, text: str) -> None:
        """One line that stays."""


class Silent:
    """Shows nothing but the lines that stay."""

    def begin(self, what: str, expected_bytes: int | None = None) -> None:
        """Nothing to show."""

    def show(self, progress: Progress) -> None:
        """Nothing to show."""

    def say(self, text: str) -> None:
        """On standard error."""
        console.note(_one_line(text))


class Drawn:
    """A line that moves, drawn by rich."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None, files=0, taken="", rate="")
        self._began = time.monotonic()

    def begin(self, what: str, expected_bytes: int | None = None) -> None:
        """Start from nothing; an estimate of the end is shown where the amount is known."""
        self._began = time.monotonic()
        self._bar.reset(self._task, description=console.clean(what), total=expected_bytes or None, start=True)
        self._bar.update(self._task, files="", taken="", rate="")

    def show(self, progress: Progress) -> None:
        """Move on."""
        passed = time.monotonic() - self._began
        stored = f" -> {console.size(progress.bytes_out)}" if progress.bytes_out else ""
        self._bar.update(
            self._task,
            completed=progress.bytes_in,
            files=console.many(progress.files, "file") if progress.files else "",
            taken=f"{console.size(progress.bytes_in)}{stored}",
            rate=f"{console.size(int(progress.bytes_in / passed))}/s" if passed > 0.5 else "",
        )

    def say(self, text: str) -> None:
        """Above the moving line."""
        self._bar.console.print(_one_line(text), markup=False, highlight=False)


def _one_line(text: str) -> str:
    return console.clean("; ".join(text.splitlines()))


@contextmanager
def meter(*, wanted: bool = True) -> Iterator[Meter]:
    """A meter that draws where standard error is a terminal, and is silent elsewhere."""
    if not wanted or sys.stderr is None or not sys.stderr.isatty():
        yield Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[files]}", markup=False),
        TextColumn("{task.fields[taken]}", markup=False),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        yield Drawn(bar)


class MeterWatcher:
    """Looks on while a request is worked on, and shows it."""

    def __init__(self, shown: Meter) -> None:
        self._meter = shown
        self._step: Step | None = None
        self._what = ""
        self._expected: int | None = None

    def prepared(self, entry: Entry, choice: Choice, expected: Counts | None) -> None:
        """Show what is made."""
        self._what = f"{entry.plan} level {choice.level}"
        self._expected = expected.bytes_in if expected else None
        self._meter.begin(self._what, self._expected)

    def started(self, entry: Entry) -> None:
        """The estimate counts from here."""
        self._meter.begin(self._what, self._expected)

    def progress(self, entry: Entry, step: Step, progress: Progress) -> None:
        """Show it."""
        if step is not self._step:
            self._step = step
            if step.value == "verify":
                self._meter.begin(f"{entry.plan} verify")
        self._meter.show(progress)


class MeterControl(PlainControl):
    """The `Control` of a restore or a verification at a terminal."""

    def __init__(self, shown: Meter, cancelled: threading.Event) -> None:
        super().__init__(cancelled)
        self._meter = shown

    def report(self, progress: Progress) -> None:
        """Remember it, and show it."""
        super().report(progress)
        self._meter.show(progress)
