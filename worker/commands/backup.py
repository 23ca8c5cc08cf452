"""`holdfast backup`: one backup now, in this process."""

from __future__ import annotations

import shlex
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from handlers.errors import HoldfastError
from worker.commands import console, session
from worker.commands.options import JsonOption, LabelOption, LevelOption, PlanArgument, ReasonOption

if TYPE_CHECKING:
    from config.load import Loaded
    from handlers.contract import Progress
    from worker.events import EventData
    from worker.intake.wire import BackupRequest
    from worker.journal.protocol import Entry
    from worker.levels import Choice
    from worker.lifecycle import Step
    from worker.manifest import Counts

_JSON_SECONDS = 1.0

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be done; write nothing.")]


def backup(
    ctx: typer.Context,
    plan: PlanArgument,
    level: LevelOption = "auto",
    reason: ReasonOption = None,
    label: LabelOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> int:
    """Make one backup now, with its progress; the exit code is the outcome's."""
    from pydantic import ValidationError

    from handlers.contract import PlanName
    from handlers.tools.clock import system_clock
    from worker.intake.manual import new_request

    cancelled = session.cancel_on_signals()
    wanted = session.level_of(level)
    labels = session.labels_of(label or ())
    try:
        request = new_request(PlanName(plan), now=system_clock(), level=wanted, reason=reason, labels=labels)
    except ValidationError as error:
        raise session.refused_value(error) from error
    loaded = session.load(ctx)
    if dry_run:
        return _rehearse(loaded, request, cancelled, as_json=as_json)
    return carry_out(loaded, request, cancelled, as_json=as_json)


def carry_out(loaded: Loaded, request: BackupRequest, cancelled: threading.Event, *, as_json: bool) -> int:
    """Do what a request asks for in this process, and tell its outcome; returns the outcome's exit code."""
    from worker.app import build
    from worker.attended import run_now
    from worker.commands.progress import MeterWatcher, meter
    from worker.commands.summary import tell

    with closing(build(loaded, attended=True)) as app:
        try:
            with meter(wanted=not as_json) as shown:
                watcher = JsonWatcher() if as_json else MeterWatcher(shown)
                data = run_now(app, request, watcher, cancelled, on_wait=shown.say)
        except HoldfastError as error:
            if as_json:
                console.json_line(_refusal(request, error))
            raise
    if as_json:
        console.json_line(data)
    else:
        tell(data, loaded.settings)
    return data.exit_code or 0


def _rehearse(loaded: Loaded, request: BackupRequest, cancelled: threading.Event, *, as_json: bool) -> int:
    from worker.rehearsal import rehearse

    choice, description, store = rehearse(loaded, request, cancelled)
    parent = choice.parent.backup_id if choice.parent else None
    if as_json:
        console.json_line(
            {
                "plan": request.data.plan,
                "level": choice.level,
                "level_reason": choice.reason,
                "parent": parent,
                "store": store,
                "description": description,
            }
        )
        return 0
    console.out(f"dry run of plan {request.data.plan}: nothing is written")
    rows = [("level", f"{choice.level}: {choice.reason}"), ("parent", parent or ""), ("store", store)]
    rows += [(name, _words(value)) for name, value in description.items() if name not in {"level", "parent"}]
    console.fields(rows)
    return 0


def _words(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return shlex.join(value)
    import orjson

    return orjson.dumps(value, default=str).decode()


def _refusal(request: BackupRequest, error: HoldfastError) -> EventData:
    from worker.events import EventData, ExitCode, Word

    return EventData(
        outcome=Word.REFUSED if error.exit_code == ExitCode.REFUSED else Word.FAILED,
        exit_code=error.exit_code,
        request_id=request.request_id,
        plan=request.data.plan,
        operation=request.data.operation,
        error=error.message,
        hint=error.hint,
        labels=request.data.labels,
    )


class JsonWatcher:
    """Tells a script how far the work is, in the words of the events."""

    def __init__(self) -> None:
        import time

        self._now = time.monotonic
        self._last = self._now()
        self._choice: Choice | None = None

    def prepared(self, entry: Entry, choice: Choice, expected: Counts | None) -> None:
        """Remember the level for the line."""
        self._choice = choice

    def started(self, entry: Entry) -> None:
        """One line."""
        choice = self._choice
        if choice is not None:
            parent = choice.parent.backup_id if choice.parent else None
            self._line(entry, "started", level=choice.level, level_reason=choice.reason, parent=parent)

    def progress(self, entry: Entry, step: Step, progress: Progress) -> None:
        """One line a second."""
        from worker.manifest import Counts

        if step.value == "produce" and self._now() - self._last >= _JSON_SECONDS:
            self._last = self._now()
            counts = Counts(files=progress.files, bytes_in=progress.bytes_in, bytes_out=progress.bytes_out)
            self._line(entry, "progress", counts=counts)

    def _line(self, entry: Entry, word: str, **facts: object) -> None:
        from worker.events import EventData

        told = {
            "outcome": word,
            "request_id": entry.request_id,
            "backup_id": entry.backup_id,
            "plan": entry.plan,
            "operation": entry.request.data.operation,
            "attempt": entry.attempt,
            "labels": entry.request.data.labels,
        }
        console.json_line(EventData.model_validate({**told, **facts}))
