"""`holdfast requests`: what was asked for, what becomes of it, and an operator's two ways to change that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands import console, session
from worker.commands.console import Cell, Style
from worker.commands.options import JsonOption, complete_plan
from worker.commands.request_shown import document, show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from config.settings import Settings
    from handlers.errors import HoldfastError
    from worker.app import App
    from worker.dead_letters import DeadLetters
    from worker.journal.protocol import Entry
    from worker.requests import Again
    from worker.situation import Seen

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look over requests, ask again, or drop them.")

_HEAD = ("request", "plan", "state", "tries", "since", "next")
_ROWS = 200
"""So many are aligned with each other; more are not kept in memory."""
_NEXT = 200
"""Characters of an error that are shown here; `show` has all of it."""
_STYLES: Mapping[str, Style] = {
    "postponed": "warn",
    "waiting for its store": "warn",
    "running": "bold",
    "succeeded": "good",
    "partial": "warn",
    "failed": "bad",
    "refused": "bad",
    "parked": "bad",
}


class State(StrEnum):
    """Which requests are listed."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    PARKED = "parked"
    ALL = "all"


PlanOption = Annotated[
    str | None,
    typer.Option("--plan", metavar="PLAN", help="Only those for this plan.", autocompletion=complete_plan),
]
StateOption = Annotated[
    State | None,
    typer.Option("--state", metavar="STATE", help="waiting, running, done, failed, parked, or all."),
]
LimitOption = Annotated[int, typer.Option("--limit", metavar="N", min=0, help="So many at most; 0 for all of them.")]
IdArgument = Annotated[str | None, typer.Argument(metavar="ID", help="The request's id.", show_default=False)]
AllParkedOption = Annotated[bool, typer.Option("--all-parked", help="Every parked request, perhaps of one plan.")]
AllWaitingOption = Annotated[bool, typer.Option("--all-waiting", help="Every request of --plan that waits.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("list")
def list_requests(
    ctx: typer.Context,
    plan: PlanOption = None,
    state: StateOption = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> int:
    """List requests, newest first: those without an outcome and those that are parked, or those in one state."""
    from handlers.tools.clock import system_clock
    from worker.app import open_journal
    from worker.requests import look_over
    from worker.situation import scene

    settings = session.load(ctx).settings
    opened = open_journal(settings)
    if opened is None:
        console.note("no worker has run with this state directory yet")
        return 0
    with closing(opened) as journal:
        around = scene(settings, system_clock)
        found = look_over(journal, around, state.value if state is not None else None, plan)
        shown = islice(found, limit or None)
        if as_json:
            for seen in shown:
                console.json_line(document(seen))
            return 0
        if not _print(shown):
            console.note(f"no request is {state or 'open or parked'}" if state is not State.ALL else "no requests")
        elif limit and next(found, None) is not None:
            console.note(f"only the newest {limit:,} are shown; --limit 0 shows all of them")
    _print_dead_letters(settings)
    return 0


app.command("show")(show)


@app.command()
def requeue(
    ctx: typer.Context,
    request_id: IdArgument = None,
    all_parked: AllParkedOption = False,
    plan: PlanOption = None,
    as_json: JsonOption = False,
) -> int:
    """Ask again for what failed, was refused, or is partial, under a new id; a worker takes it within seconds."""
    from handlers.tools.clock import system_clock
    from worker import requests
    from worker.journal.standing import Standing

    _one_or_all(request_id, all_parked, "--all-parked")
    if plan is not None and not all_parked:
        raise session.Usage("--plan belongs to --all-parked", hint="an id names one request already")
    settings = session.load(ctx).settings
    with closing(requests.the_journal(settings)) as journal:

        def act(name: str) -> None:
            _told_again(requests.ask_again(settings, journal, name, now=system_clock()), as_json=as_json)

        if request_id is not None:
            act(request_id)
            return 0
        todo = requests.entries(journal, frozenset({Standing.PARKED}), plan)
        failures = Failures()
        count = requests.each(todo, lambda entry: act(entry.request_id), failures)
        if not count and not failures.exit_code:
            console.note("no request is parked")
        return failures.exit_code


@app.command()
def drop(
    ctx: typer.Context,
    request_id: IdArgument = None,
    all_waiting: AllWaitingOption = False,
    plan: PlanOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> int:
    """Conclude a request as failed that nobody works on; whoever asked for it is told."""
    from handlers.tools.clock import system_clock
    from worker import requests
    from worker.app import build
    from worker.situation import scene

    _one_or_all(request_id, all_waiting, "--all-waiting")
    if all_waiting != (plan is not None):
        raise session.Usage("--all-waiting and --plan belong together", hint="drop ID, or drop --all-waiting --plan P")
    loaded = session.load(ctx)
    with closing(requests.the_journal(loaded.settings)) as journal:
        if request_id is not None:
            todo: Sequence[Entry] = (requests.find(journal, request_id),)
            requests.require_open(todo[0])
            what = f"request {request_id} for plan {todo[0].plan}"
        else:
            around = scene(loaded.settings, system_clock)
            waiting = sum(1 for _ in requests.look_over(journal, around, "waiting", plan))
            what = f"{console.many(waiting, 'request')} for plan {plan}"
            if not waiting:
                console.note(f"no request for plan {plan} waits")
                return 0
    if not (yes or session.confirmed(f"drop {what}?")):
        console.note("nothing was dropped")
        return 130
    with closing(build(loaded)) as wired:
        failures = Failures()
        if request_id is not None:
            _drop_one(wired, todo[0], as_json=as_json)
        else:
            waits = requests.look_over(wired.journal, scene(loaded.settings, system_clock), "waiting", plan)
            requests.each(
                (seen.entry for seen in waits), lambda entry: _drop_one(wired, entry, as_json=as_json), failures
            )
        wired.announcer.flush()
    return failures.exit_code


class Failures:
    """Tells what went wrong with one of many, and remembers the first exit code."""

    def __init__(self) -> None:
        self.exit_code = 0

    def __call__(self, entry: Entry, error: HoldfastError) -> None:
        """Tell it."""
        console.error(error.message, error.hint)
        self.exit_code = self.exit_code or error.exit_code


def _print(shown: Iterator[Seen]) -> bool:
    printed = False
    while rows := [_row(seen) for seen in islice(shown, _ROWS)]:
        console.table(_HEAD, rows)
        printed = True
    return printed


def _row(seen: Seen) -> Sequence[Cell]:
    entry = seen.entry
    word = seen.situation.value + ("" if seen.announced else ", unannounced")
    return (
        Cell(entry.request_id, "bold"),
        Cell(entry.plan),
        Cell(word, _STYLES.get(seen.situation.value, "")),
        Cell(str(entry.attempt), right=True),
        Cell(console.age(entry.accepted if entry.outcome is None else entry.updated)),
        Cell(seen.next if len(seen.next) <= _NEXT else f"{seen.next[:_NEXT]}..."),
    )


def _print_dead_letters(settings: Settings) -> None:
    from worker import dead_letters

    # The broker last: where it is away, the list is there already.
    for look in (dead_letters.in_spool, dead_letters.in_queue):
        found = look(settings)
        if found is not None:
            console.note(_dead_letters(found))


def _dead_letters(found: DeadLetters) -> str:
    if found.count is None:
        return f"dead letters in {found.place}: not known: {found.trouble}"
    return f"dead letters in {found.place}: {f'{found.count:,}' if found.count else 'none'}"


def _told_again(again: Again, *, as_json: bool) -> None:
    entry, deadline = again.entry, again.dropped_deadline
    if deadline is not None:
        console.note(
            f"its deadline not_after={deadline.isoformat()} has passed: {entry.request_id} is asked without one"
        )
    if as_json:
        console.json_line(
            {
                "request_id": entry.request_id,
                "asked_again_for": again.instead_of.request_id,
                "plan": entry.plan,
                "dropped_not_after": deadline.isoformat() if deadline else None,
            }
        )
    else:
        console.out(console.clean(entry.request_id))


def _drop_one(wired: App, entry: Entry, *, as_json: bool) -> None:
    from worker import requests
    from worker.situation import outcome_of

    dropped = requests.drop(wired, entry)
    outcome = outcome_of(dropped)
    if as_json and outcome is not None:
        console.json_line(outcome)
    else:
        console.out(f"dropped: {console.clean(entry.request_id)}")


def _one_or_all(request_id: str | None, everything: bool, option: str) -> None:
    if (request_id is None) == (not everything):
        raise session.Usage("one id, or all of them", hint=f"name a request, or give {option}")
