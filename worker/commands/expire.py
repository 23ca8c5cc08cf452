"""`holdfast expire`: let go of what the retention rules no longer want."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands import console, session
from worker.commands.console import Cell
from worker.commands.options import JsonOption, OptionalPlanArgument, OrphansOption

if TYPE_CHECKING:
    from config.settings import Settings
    from worker.catalog import Catalog
    from worker.expiry import Expired
    from worker.retention import Verdict
    from worker.stores.protocol import Store

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would go and why; remove nothing.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="With --orphans: do not ask.")]

_HEAD = ("set", "level", "when", "size", "outcome", "verdict", "why")


def expire(
    ctx: typer.Context,
    plan: OptionalPlanArgument = None,
    orphans: OrphansOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> int:
    """Show what goes and what stays by the plan's retention rules, and why; then it goes."""
    from handlers.contract import PlanName
    from handlers.tools.clock import system_clock
    from worker import expiry
    from worker.app import open_catalog, zone_of
    from worker.control import PlainControl

    control = PlainControl(session.cancel_on_signals())
    settings = session.load(ctx).settings
    catalog = open_catalog(settings)
    if orphans:
        from worker.commands.orphans import expire_orphans

        return expire_orphans(settings, catalog, plan, control.checkpoint, dry_run=dry_run, yes=yes, as_json=as_json)
    if plan is None or yes:
        raise session.Usage("name a plan" if plan is None else "--yes belongs to --orphans", hint="expire PLAN")
    name = PlanName(plan)
    _require_configured(settings, catalog, name)
    (store,) = catalog.stores_of(name)
    rules = settings.plans[plan].retention
    verdicts = expiry.judge(catalog, store, name, rules, now=system_clock(), zone=zone_of(settings))
    if not as_json:
        show(verdicts)
    if rules.keeps_all:
        console.note(f"plan {plan} has no retention rule: nothing expires")
    if dry_run:
        tell(store, verdicts, None, as_json=as_json)
        return 0
    done = expiry.carry_out(catalog, store, name, verdicts, checkpoint=control.checkpoint)
    tell(store, verdicts, done, as_json=as_json)
    return 0


def show(verdicts: Sequence[Verdict]) -> None:
    """The table of verdicts, newest first."""
    rows = [(*cells(verdict), Cell("; ".join(verdict.reasons))) for verdict in verdicts]
    if rows:
        console.table(_HEAD, rows)
    else:
        console.note("no backups yet")


def cells(verdict: Verdict) -> Sequence[Cell]:
    """What a table says of a set and its verdict; the reasons are left out."""
    manifest = verdict.manifest
    return (
        Cell(manifest.backup_id, "bold" if verdict.keep else "dim"),
        Cell(str(manifest.level)),
        Cell(console.when(manifest.finished)),
        Cell(console.size(manifest.counts.bytes_out), right=True),
        Cell(manifest.outcome, console.outcome_style(manifest.outcome)),
        Cell("stays", "good") if verdict.keep else Cell("goes", "warn"),
    )


def tell(store: Store, verdicts: Sequence[Verdict], done: Expired | None, *, as_json: bool) -> None:
    """What became of the sets; where nothing was `done`, what would."""
    final = verdicts if done is None else (*done.kept, *done.removed)
    if as_json:
        removed = {verdict.manifest.id for verdict in done.removed} if done else set()
        for verdict in sorted(final, key=lambda each: (each.manifest.finished, each.manifest.backup_id), reverse=True):
            console.json_line(document(store, verdict, removed=verdict.manifest.id in removed))
        return
    wanted = {verdict.manifest.id for verdict in verdicts if verdict.keep}
    for verdict in done.kept if done else ():
        if verdict.manifest.id not in wanted:
            console.note(f"stays after all: {verdict.manifest.backup_id}: {'; '.join(verdict.reasons)}")
    going = [verdict for verdict in verdicts if not verdict.keep] if done is None else list(done.removed)
    word = "would go" if done is None else "gone"
    console.out(f"{word}: {_amount(going)}; {console.many(len(final) - len(going), 'set')} {_stay(final, going)}")


def document(store: Store, verdict: Verdict, *, removed: bool) -> dict[str, object]:
    """A set and its verdict for scripts."""
    manifest = verdict.manifest
    picked = manifest.model_dump(
        mode="json", include={"plan", "backup_id", "level", "parent", "host", "finished", "outcome"}
    )
    return {
        "store": store.name,
        **picked,
        "bytes": manifest.counts.bytes_out,
        "verdict": "stays" if verdict.keep else "goes",
        "reasons": verdict.reasons,
        "removed": removed,
    }


def _amount(going: Iterable[Verdict]) -> str:
    sizes = [verdict.manifest.counts.bytes_out for verdict in going]
    return f"{console.many(len(sizes), 'set')}, {console.size(sum(sizes))}" if sizes else "nothing"


def _stay(final: Sequence[Verdict], going: Sequence[Verdict]) -> str:
    return "stays" if len(final) - len(going) == 1 else "stay"


def _require_configured(settings: Settings, catalog: Catalog, plan: str) -> None:
    from handlers.contract import PlanName

    if plan in settings.plans:
        return
    stored = any(True for store in catalog.stores_of(None) for _ in store.names(PlanName(plan)))
    known = ", ".join(sorted(settings.plans)) or "none"
    hint = f"`holdfast expire --orphans {plan}` removes what it left" if stored else f"plans: {known}"
    raise session.Usage(f"there is no plan {plan!r}, and so there are no rules for it", hint=hint)
