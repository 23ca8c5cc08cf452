"""The last words of a command: what became of a request."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from worker.commands import console

if TYPE_CHECKING:
    from config.settings import Settings
    from worker.events import EventData
    from worker.manifest import Manifest

FIRST_PROBLEMS = 10


def tell(data: EventData, settings: Settings) -> None:
    """Say how a request ended; what went wrong goes to standard error as every error does."""
    _head(data)
    _actions(data)
    if data.error is not None:
        console.error(data.error, data.hint)
        return
    counts = data.counts
    took = data.finished - data.started if data.finished and data.started else None
    where = [place(settings, store, data.plan or "", data.backup_id or "") for store in data.stores]
    console.fields(
        (
            ("level", f"{data.level}: {data.level_reason}" if data.level is not None else ""),
            ("files", f"{counts.files:,}" if counts else ""),
            ("bytes", _bytes(counts.bytes_in, counts.bytes_out) if counts else ""),
            ("time", console.duration(took) if took is not None else ""),
            ("where", "\n".join(where)),
            ("verified", _verified(data)),
            ("expired", _expired(data.expired_count)),
            ("warnings", "\n".join(data.warnings)),
        )
    )
    if data.problem_counts:
        _problems_of(data, settings)


def place(settings: Settings, store: str, plan: str, backup_id: str) -> str:
    """Where a set lies, as a person would look for it."""
    configured = settings.stores.get(store)
    return str(configured.path / plan / backup_id) if configured else f"{plan}/{backup_id} in store {store}"


def problems(manifest: Manifest, limit: int | None = FIRST_PROBLEMS) -> None:
    """Name what is not in a set as it should be, the first of them, and where the rest is told."""
    counted = ", ".join(f"{count:,} {kind}" for kind, count in sorted(manifest.problem_counts.items()))
    console.out(f"  {counted}")
    shown = manifest.problems[:limit]
    for problem in shown:
        console.out(console.clean(f"    {problem.kind}: {problem.path}: {problem.detail}"))
    rest = sum(manifest.problem_counts.values()) - len(shown)
    if rest > 0:
        listed = len(manifest.problems) - len(shown)
        more = f"`holdfast show {manifest.backup_id} --problems` names {listed:,} of them" if listed else ""
        console.out(f"    ... {rest:,} more; {more or 'the part problems.zst of the set names all'}")


def _head(data: EventData) -> None:
    word = console.paint(data.outcome, console.outcome_style(data.outcome))
    original = f" (it was {data.original} before)" if data.original else ""
    what = "" if data.operation in (None, "backup") else f" {data.operation}"
    name = console.paint(data.backup_id or "", "bold")
    line = f"{word}{original}: plan {console.clean(data.plan or '?')}{what} {name}".rstrip()
    # A set that does not exist must not look like one to whoever reads standard output.
    console.out(line) if data.error is None else console.note(_uncoloured_for_stderr(line, data))


def _uncoloured_for_stderr(line: str, data: EventData) -> str:
    if sys.stderr is not None and sys.stderr.isatty():
        return line
    return f"{data.outcome}: plan {console.clean(data.plan or '?')} {data.backup_id or ''}".rstrip()


def _actions(data: EventData) -> None:
    for done in data.actions:
        told = done.error or f"exit code {done.exit_code}"
        console.out(console.clean(f"  {done.peer}: {told}"))
        for line in done.output.splitlines():
            console.out(console.clean(f"    {line}"))


def _expired(count: int | None) -> str:
    if count is None:
        return ""
    return f"{console.many(count, 'older set')} that retention no longer wants" if count else "nothing"


def _bytes(taken: int, stored: int) -> str:
    ratio = f" ({stored / taken:.0%})" if taken else ""
    return f"{console.size(taken)} -> {console.size(stored)}{ratio}"


def _verified(data: EventData) -> str:
    match data.verified:
        case "checksums":
            return "every part read again, checksums agree"
        case "deep":
            return "every part read again, restored on trial and compared"
        case "none":
            return "not verified (the plan says verify: none)" if data.original is None else ""
    return ""


def _problems_of(data: EventData, settings: Settings) -> None:
    from handlers.contract import BackupId, PlanName
    from handlers.errors import HoldfastError
    from worker.app import open_stores
    from worker.catalog import Catalog
    from worker.stores.protocol import SetName

    counted = ", ".join(f"{count:,} {kind}" for kind, count in sorted(data.problem_counts.items()))
    stores = open_stores(settings)
    name = SetName(plan=PlanName(data.plan or ""), backup_id=BackupId(data.backup_id or ""))
    try:
        stored = Catalog(stores).read(stores[data.stores[0]], name)
    except (HoldfastError, LookupError):
        # The worker that made it may have stores of its own.
        console.out(f"  problems  {counted}; the set's manifest names them")
        return
    console.out(console.paint("  not in the set as they should be:", "warn"))
    problems(stored.manifest)
