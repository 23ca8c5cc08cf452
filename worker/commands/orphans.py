"""What plans left that are configured no more, for `holdfast list --orphans` and `holdfast expire --orphans`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from handlers.errors import HoldfastError
from worker.commands import console, session
from worker.commands.console import Cell
from worker.commands.expire import cells, document

if TYPE_CHECKING:
    from config.settings import Settings
    from handlers.contract import PlanName
    from worker.catalog import Catalog
    from worker.orphans import Leftover, Notes
    from worker.retention import Verdict
    from worker.stores.protocol import Store

_HEAD = ("plan", "set", "level", "when", "size", "outcome", "verdict", "store", "why")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Orphaned:
    """What a plan that is configured no more left in one store."""

    store: Store
    plan: PlanName
    verdicts: Sequence[Verdict]
    notes: Notes | None
    error: HoldfastError | None
    """Why nobody can tell what may go."""


def list_orphans(settings: Settings, catalog: Catalog, plan: str | None, *, as_json: bool) -> int:
    """Show it, with the sets of any plan that cannot be restored because what they build on is missing."""
    from worker.orphans import broken

    found, away = _orphaned(settings, catalog, plan)
    rest = _leftovers(settings, plan)
    torn = [
        (store, stored, reason)
        for store in catalog.stores_of(None)
        if store.name not in away
        for stored, reason in broken(catalog, store, _name(plan))
        if stored.manifest.plan in settings.plans
    ]
    if as_json:
        _say_json(found, rest)
        for store, stored, reason in torn:
            picked = stored.manifest.model_dump(mode="json", include={"plan", "backup_id", "level", "parent", "host"})
            console.json_line({"what": "broken", "store": store.name, **picked, "reasons": [reason]})
    else:
        _say(found, rest)
        for store, stored, reason in torn:
            console.out(console.clean(f"set {stored.name} in {store.name} cannot be restored: {reason}"))
        if not (found or rest or torn or away):
            console.note("no orphans")
    return _say_errors(found, away)


def expire_orphans(
    settings: Settings,
    catalog: Catalog,
    plan: str | None,
    checkpoint: Callable[[], None],
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Remove it, as far as this node made it."""
    from worker import orphans
    from worker.overview import running

    _require_orphans(settings, plan)
    found, away = _orphaned(settings, catalog, plan)
    rest = _leftovers(settings, plan)
    if as_json and dry_run:
        _say_json(found, rest)
    elif not as_json:
        _say(found, rest)
    if not (found or rest):
        if not away:
            console.note("no orphans")
    elif not dry_run:
        if not (yes or session.confirmed(_question(found))):
            console.note("nothing was removed")
            return 130
        # A worker that was not told yet may be at work on a set that builds on one of these.
        busy = set(running(settings.state_dir, {item.plan for item in found}))
        for item in found:
            if item.error is None and item.plan not in busy:
                _remove(catalog, item, checkpoint, as_json=as_json)
        for of in sorted({leftover.plan for leftover in rest} - busy):
            if not orphans.clear(settings.state_dir, of):
                busy.add(of)
        for working in sorted(busy):
            console.note(f"a process works on plan {working} right now: what it left stays")
    return _say_errors(found, away)


def _question(found: Sequence[_Orphaned]) -> str:
    going = [verdict.manifest.counts.bytes_out for item in found for verdict in item.verdicts if not verdict.keep]
    sets = f"{console.many(len(going), 'set')} ({console.size(sum(going))})" if going else "no set, but"
    return f"remove {sets} with what else is left of these plans, for good?"


def _remove(catalog: Catalog, item: _Orphaned, checkpoint: Callable[[], None], *, as_json: bool) -> None:
    from worker import orphans

    done = orphans.remove(catalog, item.store, item.plan, item.verdicts, checkpoint=checkpoint)
    for verdict in done.removed:
        if as_json:
            console.json_line({"what": "set", **document(item.store, verdict, removed=True)})
        else:
            console.out(f"gone: {item.plan}/{verdict.manifest.backup_id} in {item.store.name}")
    meant = {verdict.manifest.id for verdict in item.verdicts if verdict.keep}
    for verdict in done.kept:
        if verdict.manifest.id not in meant:
            console.note(f"stays after all: {verdict.manifest.backup_id}: {'; '.join(verdict.reasons)}")


def _require_orphans(settings: Settings, plan: str | None) -> None:
    if plan is not None and plan in settings.plans:
        raise session.Usage(
            f"plan {plan} is configured, so nothing of it is an orphan",
            hint=f"`holdfast expire {plan}` goes by its rules",
        )
    if plan is None and not settings.plans:
        # Rather a wrong configuration than a wish to remove everything.
        raise session.Usage(
            "no plan is configured at all: everything would be an orphan",
            hint="is this the right configuration? else name the plan whose sets are to go",
        )


def _name(plan: str | None) -> PlanName | None:
    from handlers.contract import PlanName

    return None if plan is None else PlanName(plan)


def _orphaned(
    settings: Settings, catalog: Catalog, wanted: str | None
) -> tuple[Sequence[_Orphaned], Mapping[str, HoldfastError]]:
    """What there is, and why stores, by name, cannot be looked at: those do not hide the others."""
    found: list[_Orphaned] = []
    away: dict[str, HoldfastError] = {}
    for store in catalog.stores_of(None):
        try:
            found += _orphaned_in(store, settings, catalog, wanted)
        except HoldfastError as error:
            away[store.name] = error
    return found, away


def _orphaned_in(store: Store, settings: Settings, catalog: Catalog, wanted: str | None) -> Iterator[_Orphaned]:
    from handlers.errors import IntegrityError
    from worker import orphans

    for of, plan in orphans.plans([store], settings.plans):
        if wanted in {None, plan}:
            verdicts: Sequence[Verdict] = ()
            error: HoldfastError | None = None
            try:
                verdicts = orphans.judge(catalog, of, plan, node=settings.node)
            except IntegrityError as problem:
                error = problem
            notes = orphans.notes(of, plan)
            if verdicts or notes or error:
                yield _Orphaned(store=of, plan=plan, verdicts=verdicts, notes=notes, error=error)


def _leftovers(settings: Settings, wanted: str | None) -> Sequence[Leftover]:
    from handlers.errors import PermanentError
    from worker.orphans import leftovers

    try:
        found = leftovers(settings.state_dir, settings.plans)
    except PermanentError as error:
        console.note(f"what lies in the state directory is not known: {error.message}")
        return ()
    return [leftover for leftover in found if wanted in {None, leftover.plan}]


def _say(found: Sequence[_Orphaned], rest: Sequence[Leftover]) -> None:
    rows = [
        (Cell(item.plan), *cells(verdict), Cell(item.store.name), Cell("; ".join(verdict.reasons)))
        for item in found
        for verdict in item.verdicts
    ]
    if rows:
        console.table(_HEAD, rows)
    for item in found:
        if item.notes is not None:
            console.out(f"{console.many(item.notes.count, 'note')} of plan {item.plan} in {item.store.name}")
    for leftover in rest:
        console.out(
            console.clean(f"{'lock' if leftover.is_lock else 'scratch'} of plan {leftover.plan}: {leftover.path}")
        )


def _say_json(found: Sequence[_Orphaned], rest: Sequence[Leftover]) -> None:
    for item in found:
        for verdict in item.verdicts:
            console.json_line({"what": "set", **document(item.store, verdict, removed=False)})
        if item.notes is not None:
            console.json_line({"what": "notes", "store": item.store.name, "plan": item.plan, "count": item.notes.count})
    for leftover in rest:
        what = "lock" if leftover.is_lock else "scratch"
        console.json_line({"what": what, "plan": leftover.plan, "path": str(leftover.path)})


def _say_errors(found: Sequence[_Orphaned], away: Mapping[str, HoldfastError]) -> int:
    """Say what nobody can tell; the exit code."""
    errors = [*away.values(), *(item.error for item in found if item.error is not None)]
    for error in errors:
        console.error(error.message, error.hint)
    return errors[0].exit_code if errors else 0
