"""`holdfast requests show`: everything there is to know about one request."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands import console, session
from worker.commands.options import JsonOption

if TYPE_CHECKING:
    from config.settings import Settings
    from worker.events import EventData
    from worker.journal.protocol import Announcement, Caller, Entry
    from worker.situation import Seen

_MOST = 100
"""Callers and events that are named; a request may have any number of them."""

RequestArgument = Annotated[str, typer.Argument(metavar="ID", help="The request's id.")]


def show(ctx: typer.Context, request_id: RequestArgument, as_json: JsonOption = False) -> int:
    """Show one request: what was asked for, who waits for it, how far it is, what became of it."""
    from handlers.tools.clock import system_clock
    from worker.requests import find, the_journal
    from worker.situation import scene, see

    settings = session.load(ctx).settings
    with closing(the_journal(settings)) as journal:
        entry = find(journal, request_id)
        callers = journal.callers(entry.request_id, limit=_MOST + 1)
        unsent = journal.unsent(entry.request_id, limit=_MOST + 1)
    seen = see(entry, scene(settings, system_clock))
    in_store = _in_store(settings, entry)
    if as_json:
        console.json_line(_document(seen, callers, unsent, in_store))
    else:
        _tell(seen, callers, unsent, in_store)
    return 0


def document(seen: Seen) -> dict[str, object]:
    """What a script is told of a request."""
    entry, outcome = seen.entry, seen.outcome
    return {
        "request_id": entry.request_id,
        "plan": entry.plan,
        "operation": entry.request.data.operation,
        "state": seen.situation.value,
        "attempt": entry.attempt,
        "accepted": entry.accepted.isoformat(),
        "updated": entry.updated.isoformat(),
        "retry_at": entry.retry_at.isoformat() if entry.retry_at else None,
        "last_error": entry.last_error,
        "next": seen.next or None,
        "outcome": outcome.outcome.value if outcome else None,
        "exit_code": outcome.exit_code if outcome else None,
        "error": outcome.error if outcome else None,
        "announced": seen.announced if entry.outcome is not None else None,
        "asked_again_as": entry.again,
        "backup_id": entry.backup_id,
        "intake": entry.intake,
    }


def _tell(seen: Seen, callers: Sequence[Caller], unsent: Sequence[Announcement], in_store: str) -> None:
    entry = seen.entry
    word = seen.situation.value + ("" if seen.announced else ", unannounced")
    console.out(f"{console.paint(console.clean(entry.request_id), 'bold')}  {word}")
    console.fields(
        (
            ("next", seen.next),
            ("plan", entry.plan),
            ("request", _json(entry.request.data.model_dump(mode="json", exclude_none=True, exclude_defaults=True))),
            ("answer to", _caller(entry.request.reply_to, entry.request.correlation_id)),
            ("intake", entry.intake),
            ("accepted", f"{console.when(entry.accepted)}, {console.age(entry.accepted)}"),
            ("changed", f"{console.when(entry.updated)}, {console.age(entry.updated)}"),
            ("state", entry.state.value),
            ("attempts", str(entry.attempt)),
            ("not before", console.when(entry.retry_at) if entry.retry_at else ""),
            ("last error", entry.last_error or ""),
            ("set", f"{entry.backup_id}: {in_store}" if in_store else ""),
            ("callers", _listed([_caller(caller.reply_to, caller.correlation_id) or "-" for caller in callers])),
            ("events", _listed([f"{item.event_id} waits for {_place(item)}" for item in unsent])),
        )
    )
    if seen.outcome is not None:
        _tell_outcome(seen.outcome)


def _tell_outcome(outcome: EventData) -> None:
    console.out("outcome:")
    counts = outcome.counts
    console.fields(
        (
            ("word", outcome.outcome.value + (f", it was {outcome.original} before" if outcome.original else "")),
            ("exit code", str(outcome.exit_code) if outcome.exit_code is not None else ""),
            ("error", outcome.error or ""),
            ("hint", outcome.hint or ""),
            ("level", f"{outcome.level}: {outcome.level_reason}" if outcome.level is not None else ""),
            ("files", f"{counts.files:,}" if counts else ""),
            (
                "bytes",
                f"{console.size(counts.bytes_in)} read, {console.size(counts.bytes_out)} stored" if counts else "",
            ),
            ("verified", outcome.verified or ""),
            ("stores", ", ".join(outcome.stores)),
            ("warnings", "\n".join(outcome.warnings)),
        )
    )


def _document(
    seen: Seen, callers: Sequence[Caller], unsent: Sequence[Announcement], in_store: str
) -> dict[str, object]:
    return {
        **document(seen),
        "request": seen.entry.request.model_dump(mode="json", exclude_none=True),
        "journal_state": seen.entry.state.value,
        "callers": [
            {"reply_to": caller.reply_to, "correlation_id": caller.correlation_id} for caller in callers[:_MOST]
        ],
        "unsent_events": [
            {"event_id": item.event_id, "sink": item.sink, "reply_to": item.caller.reply_to} for item in unsent[:_MOST]
        ],
        "more_callers": len(callers) > _MOST,
        "more_events": len(unsent) > _MOST,
        "set": in_store or None,
        "outcome_event": seen.outcome.model_dump(mode="json", exclude_none=True) if seen.outcome else None,
    }


def _in_store(settings: Settings, entry: Entry) -> str:
    from handlers.errors import HoldfastError
    from worker.app import open_catalog
    from worker.commands.summary import place
    from worker.stores.protocol import SetMissing, SetName

    if entry.request.data.operation != "backup":
        return ""
    catalog = open_catalog(settings)
    name = SetName(plan=entry.plan, backup_id=entry.backup_id)
    troubles: list[str] = []
    for store in catalog.stores_of(entry.plan):
        try:
            stored = catalog.read(store, name)
        except SetMissing:
            continue
        except HoldfastError as error:
            troubles.append(error.message)
        else:
            return f"{stored.manifest.outcome}, in {place(settings, store.name, entry.plan, entry.backup_id)}"
    return "; ".join(troubles) or "not in the store"


def _caller(reply_to: str | None, correlation_id: str | None) -> str:
    told = (f"queue {reply_to}" if reply_to else "", f"correlation {correlation_id}" if correlation_id else "")
    return ", ".join(filter(None, told))


def _place(item: Announcement) -> str:
    return f"{item.sink} {item.caller.reply_to}" if item.sink == "reply" else item.sink


def _listed(items: Sequence[str]) -> str:
    return "\n".join([*items[:_MOST], *(["..."] if len(items) > _MOST else [])])


def _json(value: dict[str, object]) -> str:
    import orjson

    return orjson.dumps(value).decode()
