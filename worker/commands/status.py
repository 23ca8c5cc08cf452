"""`holdfast status`: what runs and what waits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handlers.errors import TemporaryError
from worker.commands import console, session
from worker.commands.console import Cell
from worker.commands.options import JsonOption

if TYPE_CHECKING:
    from worker.overview import Overview, PlanOverview
    from worker.situation import Seen

_SHOWN = 20


def status(
    ctx: typer.Context,
    as_json: JsonOption = False,
    ready: Annotated[
        bool, typer.Option("--ready", help="Only tell whether the worker can do its work: exit code 0, or 7.")
    ] = False,
    live: Annotated[
        bool, typer.Option("--live", help="Only tell whether the worker shows signs of life: exit code 0, or 7.")
    ] = False,
) -> int:
    """Show what runs and what waits, and each plan's newest set; works beside a running worker, and without one."""
    if ready or live:
        return _probe(session.state_dir(ctx), ready=ready)
    from handlers.tools.clock import system_clock
    from worker.overview import look
    from worker.situation import scene, see

    settings = session.load(ctx).settings
    seen = look(settings)
    around = scene(settings, system_clock)
    situations = [see(entry, around) for entry in seen.waiting[:_SHOWN]]
    if as_json:
        console.json_line(_document(seen))
    else:
        _tell(seen, situations)
    return 0


def _probe(state_dir: Path, *, ready: bool) -> int:
    from handlers.tools.clock import system_clock
    from worker.health import STALE, look

    seen = look(state_dir, now=system_clock())
    if seen is None:
        raise TemporaryError(f"no worker runs with the state directory {state_dir}", hint="start it: `holdfast run`")
    worker, silent = seen
    if silent > STALE:
        raise TemporaryError(
            f"worker {worker.node} (pid {worker.pid}) has shown no sign of life for {silent.total_seconds():.0f} s",
            hint="it is stuck or dead: look into its log, then start it again",
        )
    if ready and not worker.ready:
        raise TemporaryError("; ".join(worker.causes))
    console.out("ready" if ready else "alive")
    return 0


def _worker(seen: Overview) -> str:
    from worker.health import STALE

    if seen.worker is None:
        return "none runs"
    if seen.silent > STALE:
        return f"no sign of life for {seen.silent.total_seconds():.0f} s (pid {seen.worker.pid})"
    pid = f"pid {seen.worker.pid}"
    return f"ready ({pid})" if seen.worker.ready else f"not ready: {'; '.join(seen.worker.causes)} ({pid})"


def _tell(seen: Overview, situations: Sequence[Seen]) -> None:
    running = [plan.name for plan in seen.plans if plan.running]
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(seen.states.items()))
    unsent = f"{seen.unsent:,} not taken by anybody yet" if seen.unsent else ""
    console.fields(
        (
            ("worker", _worker(seen)),
            ("running", ", ".join(running) or "nothing"),
            ("requests", states or ("none" if seen.journal else "no worker has run with this state directory yet")),
            ("unfinished", f"{seen.unfinished:,}" if seen.unfinished else ""),
            ("events", unsent),
        ),
        indent="",
    )
    if seen.waiting:
        console.out("\nnot concluded, newest first:")
        rows = [_waiting_row(situation) for situation in situations]
        console.table(("request", "plan", "state", "tries", "since", "next"), rows, indent="  ")
        if seen.unfinished > _SHOWN:
            console.out(f"  ... {seen.unfinished - _SHOWN:,} more")
    if seen.plans:
        console.out("\nplans:")
        console.table(
            ("plan", "sets", "newest", "age", "outcome"), [_plan_row(plan) for plan in seen.plans], indent="  "
        )


def _waiting_row(seen: Seen) -> Sequence[Cell]:
    entry = seen.entry
    return (
        Cell(entry.request_id),
        Cell(entry.plan),
        Cell(seen.situation),
        Cell(str(entry.attempt), right=True),
        Cell(console.age(entry.accepted)),
        Cell(seen.next, "warn" if entry.retry_at else ""),
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
        "worker": None
        if seen.worker is None
        else {**seen.worker.model_dump(mode="json"), "silent_seconds": round(seen.silent.total_seconds(), 1)},
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
