"""`holdfast status`: what runs and what waits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from worker.commands import console, session
from worker.commands.console import Cell
from worker.commands.options import JsonOption

if TYPE_CHECKING:
    from worker.journal.protocol import Entry
    from worker.overview import Overview, PlanOverview

_SHOWN = 20


def status(ctx: typer.Context, as_json: JsonOption = False) -> int:
    """Show what runs and what waits, and each plan's newest set; works beside a running worker, and without one."""
    from worker.overview import look

    seen = look(session.load(ctx).settings)
    if as_json:
        console.json_line(_document(seen))
    else:
        _tell(seen)
    return 0


def _tell(seen: Overview) -> None:
    running = [plan.name for plan in seen.plans if plan.running]
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(seen.states.items()))
    unsent = f"{seen.unsent:,} not taken by anybody yet" if seen.unsent else ""
    console.fields(
        (
            ("running", ", ".join(running) or "nothing"),
            ("requests", states or ("none" if seen.journal else "no worker has run with this state directory yet")),
            ("unfinished", f"{seen.unfinished:,}" if seen.unfinished else ""),
            ("events", unsent),
        ),
        indent="",
    )
    if seen.waiting:
        console.out("\nnot concluded, newest first:")
        rows = [_waiting_row(entry, running) for entry in seen.waiting[:_SHOWN]]
        console.table(("request", "plan", "state", "tries", "since", "next"), rows, indent="  ")
        if seen.unfinished > _SHOWN:
            console.out(f"  ... {seen.unfinished - _SHOWN:,} more")
    if seen.plans:
        console.out("\nplans:")
        console.table(
            ("plan", "sets", "newest", "age", "outcome"), [_plan_row(plan) for plan in seen.plans], indent="  "
        )


def _waiting_row(entry: Entry, running: Sequence[str]) -> Sequence[Cell]:
    if entry.retry_at is not None:
        following = f"tried again {console.when(entry.retry_at)}: {entry.last_error or ''}".splitlines()[0]
    elif entry.plan in running and entry.attempt:
        following = "works, or waits for its plan"
    else:
        following = "waits for a worker"
    return (
        Cell(entry.request_id),
        Cell(entry.plan),
        Cell(entry.state),
        Cell(str(entry.attempt), right=True),
        Cell(console.age(entry.accepted)),
        Cell(following, "warn" if entry.retry_at else ""),
    )


def _plan_row(plan: PlanOverview) -> Sequence[Cell]:
    name = Cell(plan.name if plan.enabled else f"{plan.name} (disabled)", "bold")
    if plan.error is not None:
        return name, Cell("?", right=True), Cell("-"), Cell("-"), Cell(plan.error, "bad")
    if plan.newest is None:
        return name, Cell("0", right=True), Cell("-"), Cell("-"), Cell("no backup yet", "warn")
    newest = plan.newest.manifest
    return (
        name,
        Cell(f"{plan.sets:,}", right=True),
        Cell(newest.backup_id),
        Cell(console.age(newest.finished)),
        Cell(newest.outcome, console.outcome_style(newest.outcome)),
    )


def _document(seen: Overview) -> dict[str, object]:
    return {
        "running": [plan.name for plan in seen.plans if plan.running],
        "requests": dict(seen.states),
        "unfinished": seen.unfinished,
        "unsent_events": seen.unsent,
        "waiting": [
            {
                "request_id": entry.request_id,
                "plan": entry.plan,
                "state": entry.state.value,
                "attempt": entry.attempt,
                "accepted": entry.accepted.isoformat(),
                "retry_at": entry.retry_at.isoformat() if entry.retry_at else None,
                "last_error": entry.last_error,
            }
            for entry in seen.waiting
        ],
        "plans": [
            {
                "plan": plan.name,
                "enabled": plan.enabled,
                "running": plan.running,
                "sets": plan.sets,
                "newest": plan.newest.backup_id if plan.newest else None,
                "finished": plan.newest.manifest.finished.isoformat() if plan.newest else None,
                "outcome": plan.newest.manifest.outcome if plan.newest else None,
                "error": plan.error,
            }
            for plan in seen.plans
        ],
    }
