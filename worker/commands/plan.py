"""`holdfast plan`: what the next backup of each plan would be, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, assert_never

import typer

from handlers.errors import HoldfastError, IntegrityError, TemporaryError
from worker.commands import console, session
from worker.commands.console import Cell
from worker.commands.options import JsonOption, OptionalPlanArgument

if TYPE_CHECKING:
    from config.settings import Settings
    from worker.manifest import Manifest
    from worker.outlook import Disabled, Outlook, StoreAway
    from worker.plan import Plan

_HEAD = ("level", "set", "when", "age", "files", "size", "of level 0", "outcome")


def plan(ctx: typer.Context, plan: OptionalPlanArgument = None, as_json: JsonOption = False) -> int:
    """Show what the next backup of each plan would be: its level and why, and what it would build upon."""
    from handlers.contract import PlanName
    from worker.outlook import look_ahead

    loaded = session.load(ctx)
    if plan is not None:
        _require_known(loaded.settings, plan)
    elif not loaded.settings.plans:
        console.note("no plan is configured")
    errors: list[HoldfastError] = []
    for at, seen in enumerate(look_ahead(loaded, PlanName(plan) if plan is not None else None)):
        if as_json:
            console.json_line(_document(seen))
        else:
            if at:
                console.out()
            _tell(seen)
        for error in _errors(seen):
            console.error(error.message, error.hint)
            errors.append(error)
    return _exit_code(errors)


def _require_known(settings: Settings, plan: str) -> None:
    if plan not in settings.plans:
        known = ", ".join(sorted(settings.plans)) or "none"
        raise session.Usage(f"there is no plan {plan!r}", hint=f"plans: {known}")


def _errors(seen: Outlook | StoreAway | Disabled) -> Iterator[HoldfastError]:
    from worker.outlook import Outlook, StoreAway

    match seen:
        case StoreAway(error=error):
            yield error
        case Outlook(damaged=damaged):
            yield from (item.error for item in damaged)


def _exit_code(errors: Sequence[HoldfastError]) -> int:
    """A store that is away comes first: nobody knows yet what else there is to tell of it."""
    for kind in (TemporaryError, IntegrityError, HoldfastError):
        for error in errors:
            if isinstance(error, kind):
                return error.exit_code
    return 0


def _tell(seen: Outlook | StoreAway | Disabled) -> None:
    from worker.outlook import Disabled, Outlook, StoreAway

    match seen:
        case Disabled(name=name, handler=handler, store=store):
            console.out(f"{console.paint(name, 'bold')}: disabled, requests for it are refused")
            console.fields([("handler", handler), ("store", store)])
        case StoreAway(plan=plan):
            unknown = console.paint("unknown, its store cannot be looked at", "bad")
            console.out(f"{console.paint(plan.name, 'bold')}: {unknown}")
            console.fields(_configured(plan))
        case Outlook(plan=plan, choice=choice):
            console.out(f"{console.paint(plan.name, 'bold')}: next is level {choice.level}")
            console.fields(
                [
                    ("why", choice.reason),
                    ("parent", choice.parent.backup_id if choice.parent else ""),
                    *_configured(plan),
                    ("on request", f"levels 0 to {seen.highest_possible}" if seen.highest_possible else "level 0"),
                    ("begins", _begins(seen.opens)),
                    ("damaged", ", ".join(item.name.backup_id for item in seen.damaged)),
                ]
            )
            if seen.chain:
                console.out(f"  {console.paint('chain', 'dim')}")
                console.table(_HEAD, [_row(manifest, seen.chain[0]) for manifest in seen.chain], indent="    ")
        case _:
            assert_never(seen)


def _configured(plan: Plan) -> list[tuple[str, str]]:
    rules = [("max_level", plan.highest_level), *plan.levels.model_dump(exclude_none=True).items()]
    return [
        ("subject", plan.handler.subject(plan.options)),
        ("handler", plan.handler.name),
        ("store", plan.store.name),
        ("levels", ", ".join(f"{name} {value:.10g}" for name, value in rules)),
    ]


def _begins(opens: datetime | None) -> str:
    if opens is None:
        return "never: allowed_hours are never open"
    return f"not before {console.when(opens)} (allowed_hours)" if opens > datetime.now(UTC) else ""


def _row(manifest: Manifest, base: Manifest) -> Sequence[Cell]:
    share = 100 * manifest.counts.bytes_out / max(1, base.counts.bytes_out)
    return (
        Cell(str(manifest.level)),
        Cell(manifest.backup_id, "bold"),
        Cell(console.when(manifest.finished)),
        Cell(console.age(manifest.finished)),
        Cell(f"{manifest.counts.files:,}", right=True),
        Cell(console.size(manifest.counts.bytes_out), right=True),
        Cell(f"{share:.1f} %", right=True),
        Cell(manifest.outcome, console.outcome_style(manifest.outcome)),
    )


def _document(seen: Outlook | StoreAway | Disabled) -> dict[str, object]:
    from worker.outlook import Disabled, Outlook, StoreAway

    match seen:
        case Disabled(name=name, handler=handler, store=store):
            return {"plan": name, "enabled": False, "handler": handler, "store": store}
        case StoreAway(plan=plan, error=error):
            return {**_plan_document(plan), "error": error.message, "hint": error.hint}
        case Outlook(plan=plan, choice=choice, chain=chain):
            return {
                **_plan_document(plan),
                "level": choice.level,
                "level_reason": choice.reason,
                "parent": choice.parent.backup_id if choice.parent else None,
                "restarts": choice.restarts,
                "highest_possible": seen.highest_possible,
                "opens_at": seen.opens.isoformat() if seen.opens else None,
                "chain": [_set_document(manifest) for manifest in chain],
                "damaged": [item.name.backup_id for item in seen.damaged],
            }
        case _:
            assert_never(seen)


def _plan_document(plan: Plan) -> dict[str, object]:
    return {
        "plan": plan.name,
        "enabled": True,
        "subject": plan.handler.subject(plan.options),
        "handler": plan.handler.name,
        "store": plan.store.name,
        "max_level": plan.highest_level,
        "levels": plan.levels.model_dump(mode="json"),
    }


def _set_document(manifest: Manifest) -> dict[str, object]:
    return manifest.model_dump(
        mode="json", include={"backup_id", "level", "restarts", "level_reason", "finished", "outcome", "counts"}
    )
