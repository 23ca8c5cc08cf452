"""`holdfast list`: what is stored, so that one sees what builds on what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from handlers.errors import HoldfastError
from worker.commands import console, session
from worker.commands.console import Cell
from worker.commands.options import JsonOption, OptionalPlanArgument, OrphansOption

if TYPE_CHECKING:
    from config.settings import Settings
    from handlers.contract import PlanName
    from worker.catalog import Catalog, Damaged, StoredSet
    from worker.pins import DamagedPin
    from worker.stores.protocol import SetName

    Kept = Mapping[tuple[str, SetName], Sequence[str]]
    """The names of the pins of each set, by its store and its name."""
    Rotten = Mapping[tuple[str, SetName], str]
    """What was found wrong with sets, by store and name."""

ROTTEN_HINT = "nothing is built upon it; `holdfast verify {plan} --all` looks at all sets again"
_HEAD = ("plan", "set", "level", "when", "files", "size", "outcome", "store")


def list_sets(
    ctx: typer.Context,
    plan: OptionalPlanArgument = None,
    orphans: OrphansOption = False,
    as_json: JsonOption = False,
) -> int:
    """List what is stored; what has a damaged manifest is listed as damaged, and makes the exit code 6."""
    from handlers.contract import PlanName
    from worker.app import open_catalog
    from worker.catalog import Damaged, StoredSet

    settings = session.load(ctx).settings
    catalog = open_catalog(settings)
    if orphans:
        from worker.commands.orphans import list_orphans

        return list_orphans(settings, catalog, plan, as_json=as_json)
    wanted = PlanName(plan) if plan is not None else None
    found, away = _look(catalog, wanted)
    if plan is not None and not (found or away):
        _require_known(settings, plan)
    readable = [item for item in found if isinstance(item, StoredSet)]
    damaged = [item for item in found if isinstance(item, Damaged)]
    kept, damaged_pins = _pins(found)
    rotten = _rotten(readable)
    if as_json:
        for stored in sorted(readable, key=_order):
            console.json_line({**_document(stored, kept), "damage": rotten.get((stored.store.name, stored.name))})
        for item in damaged:
            console.json_line(_damaged_document(item, kept))
    elif found:
        rows = [(*_row(item, lead, rotten), *_mark(item, kept)) for item, lead in _tree(readable)]
        rows += [(*_damaged_row(item), *_mark(item, kept)) for item in damaged]
        console.table((*_HEAD, "kept as") if kept else _HEAD, rows)
    elif not away:
        console.note("no backups yet")
    for error in [*away, *(item.error for item in damaged), *(pin.error for pin in damaged_pins)]:
        console.error(error.message, error.hint)
    for (store, name), text in rotten.items():
        console.error(f"set {name} in store {store} was {text}", ROTTEN_HINT.format(plan=name.plan))
    if away:
        return away[0].exit_code
    return 6 if damaged or damaged_pins or rotten else 0


def _rotten(readable: Sequence[StoredSet]) -> Rotten:
    from worker.verified import damaged

    plans = {(item.store.name, item.name.plan): (item.store, item.name.plan) for item in readable}
    known = {key: damaged(store, plan) for key, (store, plan) in plans.items()}
    return {
        (item.store.name, item.name): text
        for item in readable
        if (text := known[item.store.name, item.name.plan].get(item.backup_id)) is not None
    }


def _look(catalog: Catalog, plan: PlanName | None) -> tuple[list[StoredSet | Damaged], list[HoldfastError]]:
    """What is in the stores, and why some of them cannot be looked at: those do not hide the others."""
    found: list[StoredSet | Damaged] = []
    away: list[HoldfastError] = []
    for store in catalog.stores_of(plan):
        try:
            found += catalog.look(store, plan)
        except HoldfastError as error:
            away.append(error)
    return found, away


def _pins(found: Sequence[StoredSet | Damaged]) -> tuple[Kept, Sequence[DamagedPin]]:
    from worker.pins import DamagedPin, all_pins
    from worker.stores.protocol import SetName

    kept: dict[tuple[str, SetName], list[str]] = {}
    damaged: list[DamagedPin] = []
    there = {(item.store.name, item.name) for item in found}
    for store, plan in {(item.store.name, item.name.plan): (item.store, item.name.plan) for item in found}.values():
        for pin in all_pins(store, plan):
            if isinstance(pin, DamagedPin):
                damaged.append(pin)
            elif (key := (store.name, SetName(plan=plan, backup_id=pin.backup_id))) in there:
                kept.setdefault(key, []).append(pin.name)
    return {key: sorted(names) for key, names in kept.items()}, damaged


def _mark(item: StoredSet | Damaged, kept: Kept) -> Sequence[Cell]:
    """The last column, which is there only where something is kept."""
    return (Cell(", ".join(kept.get((item.store.name, item.name), ()))),) if kept else ()


def _require_known(settings: Settings, plan: str) -> None:
    if plan not in settings.plans:
        known = ", ".join(sorted(settings.plans)) or "none"
        raise session.Usage(f"there is no plan {plan!r}, and nothing is stored under that name", hint=f"plans: {known}")


def _order(stored: StoredSet) -> tuple[str, str, object, str]:
    return stored.store.name, stored.manifest.plan, stored.manifest.finished, stored.backup_id


def _tree(readable: Sequence[StoredSet]) -> Iterator[tuple[StoredSet, str]]:
    """Plan by plan, each set below the one it builds on, with the lines that lead to it."""
    in_order = sorted(readable, key=_order)
    here = {_key(stored, stored.backup_id) for stored in in_order}
    children: dict[tuple[str, str, str], list[StoredSet]] = {}
    tops: list[StoredSet] = []
    for stored in in_order:
        parent = stored.manifest.parent
        if parent is not None and _key(stored, parent) in here:
            children.setdefault(_key(stored, parent), []).append(stored)
        else:
            tops.append(stored)
    drawn = set()
    for top in tops:
        for stored, lead in _branch(top, children, lead="", last=True, top=True):
            drawn.add(_key(stored, stored.backup_id))
            yield stored, lead
    # What somebody made build on itself, in a circle, is below nothing.
    yield from ((stored, "") for stored in in_order if _key(stored, stored.backup_id) not in drawn)


def _key(stored: StoredSet, backup_id: str) -> tuple[str, str, str]:
    """A set of the same plan and store."""
    return stored.store.name, stored.manifest.plan, backup_id


def _branch(
    stored: StoredSet,
    children: Mapping[tuple[str, str, str], Sequence[StoredSet]],
    *,
    lead: str,
    last: bool,
    top: bool = False,
) -> Iterator[tuple[StoredSet, str]]:
    # A stack, not a recursion: a chain may be a hundred levels deep.
    waiting = [(stored, lead, last, top)]
    while waiting:
        item, indent, is_last, is_top = waiting.pop()
        yield item, "" if is_top else f"{indent}{'└ ' if is_last else '├ '}"
        below = children.get(_key(item, item.backup_id), ())
        further = "" if is_top else f"{indent}{'  ' if is_last else '│ '}"
        for at, child in reversed(list(enumerate(below))):
            waiting.append((child, further, at == len(below) - 1, False))


def _row(stored: StoredSet, lead: str, rotten: Rotten) -> Sequence[Cell]:
    manifest = stored.manifest
    outcome = "damaged" if (stored.store.name, stored.name) in rotten else manifest.outcome
    orphan = manifest.parent is not None and not lead
    return (
        Cell(manifest.plan),
        Cell(lead + manifest.backup_id, "bold"),
        Cell(f"{manifest.level}, parent missing" if orphan else str(manifest.level), "bad" if orphan else ""),
        Cell(console.when(manifest.finished)),
        Cell(f"{manifest.counts.files:,}", right=True),
        Cell(console.size(manifest.counts.bytes_out), right=True),
        Cell(outcome, "bad" if outcome == "damaged" else console.outcome_style(outcome)),
        Cell(stored.store.name),
    )


def _damaged_row(item: Damaged) -> Sequence[Cell]:
    return (
        Cell(item.name.plan),
        Cell(item.name.backup_id, "bold"),
        Cell("?"),
        Cell("?"),
        Cell("?", right=True),
        Cell("?", right=True),
        Cell("damaged", "bad"),
        Cell(item.store.name),
    )


def _document(stored: StoredSet, kept: Kept) -> dict[str, object]:
    manifest = stored.manifest
    picked = manifest.model_dump(
        mode="json",
        include={"plan", "backup_id", "request_id", "handler", "level", "parent", "started", "finished", "host"}
        | {"outcome", "counts", "problem_counts", "labels"},
    )
    return {"store": stored.store.name, **picked, "pins": kept.get((stored.store.name, stored.name), ())}


def _damaged_document(item: Damaged, kept: Kept) -> dict[str, object]:
    return {
        "store": item.store.name,
        "plan": item.name.plan,
        "backup_id": item.name.backup_id,
        "outcome": "damaged",
        "error": item.error.message,
        "pins": kept.get((item.store.name, item.name), ()),
    }
