"""Has a plan's handler tell its peers that their data is safe, or make them do something."""

from __future__ import annotations

from handlers.abilities import Acknowledging, Managed, Managing
from handlers.contract import Control
from handlers.errors import NothingNew
from worker.catalog import StoredSet
from worker.events import ActionRecord, EventData, ExitCode, Word
from worker.journal.protocol import Entry
from worker.plan import Plan
from worker.policy import RequestRefused


def acknowledge(plan: Plan, made: StoredSet, control: Control) -> tuple[str, ...]:
    """Tell those who wait that the set is committed, verified; a warning for each who could not be told.

    Does nothing where nobody waits. Safe to repeat. Raises Cancelled.
    """
    if not isinstance(plan.handler, Acknowledging):
        return ()
    return tuple(plan.handler.acknowledge(plan.options, made, control))


def nothing_new(entry: Entry, plan: Plan, error: NothingNew) -> EventData:
    """The outcome of a request whose data was backed up before it came; a set of nothing would hide the last one."""
    return EventData(
        outcome=Word.SUCCEEDED,
        exit_code=ExitCode.DONE,
        request_id=entry.request_id,
        plan=plan.name,
        operation="backup",
        warnings=(f"no new set was made: {error.message}",),
        labels={**entry.request.data.labels, **plan.labels},
    )


def managed_outcome(entry: Entry, plan: Plan, control: Control) -> EventData:
    """Do what a request of operation `manage` asks for; its outcome, with what became of each peer.

    A worker that dies meanwhile begins again after its restart: an action may be carried out twice. Raises
    RequestRefused for an action that the plan does not allow, Cancelled, or what the handler raises.
    """
    action = entry.request.data.action or ""
    allowed = plan.handler.actions(plan.options) if isinstance(plan.handler, Managing) else ()
    if not isinstance(plan.handler, Managing) or action not in allowed:
        raise RequestRefused(
            f"plan {plan.name} allows no action {action!r}",
            hint=f"it allows {', '.join(sorted(allowed))}" if allowed else "the plan's options list what is allowed",
        )
    full = entry.request.data.level == "full"
    done = plan.handler.manage(plan.options, action, full=full, control=control)
    failed = [each for each in done if each.error is not None or each.exit_code != 0]
    told = "; ".join(f"{each.peer}: {each.error or f'exit code {each.exit_code}'}" for each in failed)
    return EventData(
        outcome=_word(len(done), len(failed)),
        exit_code=_exit_code(len(done), len(failed)),
        request_id=entry.request_id,
        plan=plan.name,
        operation="manage",
        actions=tuple(_record(each) for each in done),
        error=f"action {action} failed on {len(failed)} of {len(done)} peers: {told}" if failed else None,
        labels={**entry.request.data.labels, **plan.labels},
    )


def _word(done: int, failed: int) -> Word:
    if not failed:
        return Word.SUCCEEDED
    return Word.PARTIAL if failed < done else Word.FAILED


def _exit_code(done: int, failed: int) -> int:
    if not failed:
        return ExitCode.DONE
    return ExitCode.PARTIAL if failed < done else ExitCode.FAILED


def _record(done: Managed) -> ActionRecord:
    return ActionRecord(peer=done.peer, exit_code=done.exit_code, output=done.output, error=done.error)
