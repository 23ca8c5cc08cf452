"""`holdfast manage`: have a plan's managed peers carry out an action, now."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.commands import session
from worker.commands.backup import carry_out
from worker.commands.options import JsonOption, PlanArgument, ReasonOption

ActionArgument = Annotated[
    str, typer.Argument(metavar="ACTION", help="One of those that the plan allows, such as collect or purge.")
]
FullOption = Annotated[bool, typer.Option("--full", help="Ask for the whole, instead of what is new.")]


def manage(
    ctx: typer.Context,
    plan: PlanArgument,
    action: ActionArgument,
    full: FullOption = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> int:
    """Have a plan's managed peers carry out an action; the exit code tells whether all of them did."""
    from pydantic import ValidationError

    from handlers.contract import PlanName
    from handlers.tools.clock import system_clock
    from worker.intake.manual import new_request

    cancelled = session.cancel_on_signals()
    try:
        request = new_request(
            PlanName(plan),
            now=system_clock(),
            operation="manage",
            action=action,
            level="full" if full else "auto",
            reason=reason,
        )
    except ValidationError as error:
        raise session.refused_value(error) from error
    return carry_out(session.load(ctx), request, cancelled, as_json=as_json)
