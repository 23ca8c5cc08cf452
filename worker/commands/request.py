"""`holdfast request`: ask a worker for a backup, as any program would."""

from __future__ import annotations

import shlex
from contextlib import closing
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from handlers.errors import TemporaryError
from worker.commands import console, session
from worker.commands.options import JsonOption, LabelOption, LevelOption, PlanArgument, ReasonOption

if TYPE_CHECKING:
    from config.settings import Settings
    from worker.caller import Letter, Way
    from worker.commands.progress import Meter
    from worker.events import EventData


class Operation(StrEnum):
    """What may be asked for."""

    BACKUP = "backup"
    VERIFY = "verify"
    EXPIRE = "expire"
    MANAGE = "manage"


class Receiver(StrEnum):
    """Where requests can be put."""

    QUEUE = "queue"
    SPOOL = "spool"


NotAfterOption = Annotated[
    str | None,
    typer.Option("--not-after", metavar="TIME", help="Refuse it when it has not begun by then, in ISO 8601."),
]
IdOption = Annotated[
    str | None, typer.Option("--id", metavar="ID", help="Your own id: the same id is the same request, once.")
]
OperationOption = Annotated[
    Operation,
    typer.Option(
        "--operation",
        metavar="WHAT",
        help="backup, verify (the newest set is read again), expire (what the plan's retention lets go), or manage.",
    ),
]
ActionOption = Annotated[
    str | None, typer.Option("--action", metavar="NAME", help="With --operation manage: what the peers are to do.")
]
WaitOption = Annotated[bool, typer.Option("--wait", help="Wait for the outcome; the exit code is its.")]
TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", min=0, help="With --wait: give up waiting (exit code 7)."),
]
ToOption = Annotated[
    Receiver | None,
    typer.Option("--to", metavar="WHERE", help="queue or spool; the queue where one is configured."),
]


def request(
    ctx: typer.Context,
    plan: PlanArgument,
    level: LevelOption = "auto",
    reason: ReasonOption = None,
    label: LabelOption = None,
    not_after: NotAfterOption = None,
    request_id: IdOption = None,
    operation: OperationOption = Operation.BACKUP,
    action: ActionOption = None,
    wait: WaitOption = False,
    timeout: TimeoutOption = None,
    to: ToOption = None,
    as_json: JsonOption = False,
) -> int:
    """Publish a request to the queue or the spool, and print its id; --wait follows it to its outcome."""
    from pydantic import ValidationError

    from handlers.tools.clock import system_clock
    from worker import caller
    from worker.intake.manual import new_id
    from worker.intake.wire import RequestData

    if timeout is not None and not wait:
        raise session.Usage("--timeout says how long to wait", hint="add --wait")
    wanted = session.level_of(level)
    labels = dict(session.labels_of(label or ()))
    deadline = _moment(not_after)
    loaded = session.load(ctx)
    settings = loaded.settings
    now = system_clock()
    event_id = request_id or new_id(now)
    try:
        data = RequestData(
            plan=plan,
            operation=operation.value,
            action=action,
            level=wanted,
            reason=reason,
            labels=labels,
            not_after=deadline,
        )
        letter = caller.compose(data, node=settings.node, event_id=event_id, now=now)
    except ValidationError as error:
        raise session.refused_value(error) from error
    way = caller.way_of(settings, to.value if to is not None else None)
    try:
        if wait:
            return _follow(settings, letter, way, timeout, as_json=as_json)
        caller.send(settings, letter, way)
    except TemporaryError as error:
        # Perhaps it arrived, perhaps it is being worked on: with its id, asking again does no harm and tells.
        again = f"repeat the command with --id {shlex.quote(event_id)}: the same id is the same request"
        raise TemporaryError(error.message, hint=f"{error.hint}; {again}" if error.hint else again) from error
    if as_json:
        console.json_line({"request_id": letter.request_id, "plan": letter.plan, "to": way})
    else:
        console.out(letter.request_id)
    return 0


def _follow(settings: Settings, letter: Letter, way: Way, timeout: float | None, *, as_json: bool) -> int:
    from worker import caller
    from worker.commands.progress import meter
    from worker.commands.summary import tell

    def on_sent() -> None:
        if not as_json:
            console.out(letter.request_id)
            shown.begin(f"{letter.plan}: waiting for a worker")

    answers = caller.ask(settings, letter, way, seconds=timeout, on_sent=on_sent)
    with meter(wanted=not as_json) as shown, closing(answers) as told:
        for data in told:
            if as_json:
                console.json_line(data)
            elif not data.outcome.is_outcome:
                _show(data, shown)
            if data.outcome.is_outcome:
                break
        else:
            limit = "no outcome came" if timeout is None else f"no outcome within {timeout:g} s"
            raise TemporaryError(f"{limit}: the request goes on")
    if not as_json:
        tell(data, settings)
    return data.exit_code or 0


def _show(data: EventData, shown: Meter) -> None:
    from handlers.contract import Progress

    if data.counts is None:
        shown.begin(f"{data.plan} level {data.level}" if data.level is not None else f"{data.plan}")
        return
    counts = data.counts
    shown.show(Progress(files=counts.files, bytes_in=counts.bytes_in, bytes_out=counts.bytes_out))


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise session.Usage(f"time {text!r} is none", hint="write 2026-12-31T23:00:00+01:00") from error
    # Without a zone it is the clock on the wall here.
    return moment if moment.tzinfo is not None else moment.astimezone()
