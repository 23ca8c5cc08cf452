"""Lets go of a plan's old sets for a request, and says so in its outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from handlers.contract import BackupId, Control
from worker.events import EventData, ExitCode, Word
from worker.expiry import expire
from worker.journal.protocol import Entry
from worker.plan import Plan, Surroundings

MAX_TOLD = 1000
"""Expired sets that an event names."""


def expire_of(plan: Plan, around: Surroundings, control: Control) -> Sequence[BackupId]:
    """Let go of what the plan's retention no longer wants now; the sets that went. Raises as `worker.expiry`."""
    expired = expire(
        around.catalog,
        plan.store,
        plan.name,
        plan.retention,
        now=around.clock(),
        zone=around.zone,
        checkpoint=control.checkpoint,
    )
    return [verdict.manifest.id for verdict in expired.removed]


def expired_outcome(entry: Entry, plan: Plan, around: Surroundings, control: Control) -> EventData:
    """Do what a request of operation `expire` asks for; its outcome."""
    return EventData(
        outcome=Word.SUCCEEDED,
        exit_code=ExitCode.DONE,
        request_id=entry.request_id,
        plan=plan.name,
        operation="expire",
        stores=(plan.store.name,),
        labels={**entry.request.data.labels, **plan.labels},
    ).model_copy(update=told(expire_of(plan, around, control)))


def told(gone: Sequence[BackupId] | None) -> Mapping[str, object]:
    """What an event says of expired sets; nothing where nobody looked."""
    return {} if gone is None else {"expired": tuple(gone[:MAX_TOLD]), "expired_count": len(gone)}
