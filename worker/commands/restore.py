"""`holdfast restore`: bring a set back into an empty place."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands import console, session
from worker.commands.console import Cell
from worker.commands.options import BackupArgument, JsonOption

if TYPE_CHECKING:
    from worker.catalog import StoredSet

TargetArgument = Annotated[Path, typer.Argument(metavar="TARGET", help="A new or empty directory.")]
PathOption = Annotated[
    list[str] | None,
    typer.Option("--path", "-p", metavar="PATH", help="Only this path of the set; may be repeated."),
]
PlanOption = Annotated[bool, typer.Option("--plan", help="Only show the chain and what would be read.")]


def restore(
    ctx: typer.Context,
    backup: BackupArgument,
    target: TargetArgument,
    path: PathOption = None,
    plan: PlanOption = False,
    as_json: JsonOption = False,
) -> int:
    """Restore a set with the chain it needs, or single paths of it, into a new or empty directory."""
    from worker import restore as restoring
    from worker.app import open_catalog
    from worker.commands.progress import MeterControl, meter
    from worker.events import ExitCode

    cancelled = session.cancel_on_signals()
    loaded = session.load(ctx)
    catalog = open_catalog(loaded.settings)
    stored = catalog.find(backup)
    if plan:
        _tell_plan(catalog.chain(stored), path or (), as_json=as_json)
        return 0
    # Names are bytes: what the shell gave goes to the set's index as it is.
    paths = [_relative(os.fsencode(text)) for text in path or ()]
    began = time.monotonic()
    with meter(wanted=not as_json) as shown:
        shown.begin(f"restore {stored.backup_id}")
        restored, chain = restoring.restore(catalog, stored, target, paths, MeterControl(shown, cancelled))
    took = timedelta(seconds=time.monotonic() - began)
    notes = (*restored.notes, *_partial(stored))
    exit_code = ExitCode.PARTIAL if restored.warnings else ExitCode.DONE
    if as_json:
        console.json_line(
            {
                "backup_id": stored.backup_id,
                "target": str(target),
                "chain": [link.backup_id for link in chain],
                "files": restored.files,
                "bytes": restored.bytes_out,
                "bytes_read": restored.bytes_read,
                "seconds": round(took.total_seconds(), 3),
                "warnings": list(restored.warnings),
                "notes": list(notes),
                "exit_code": exit_code,
            }
        )
        return exit_code
    for warning in restored.warnings:
        console.note(f"{console.paint('warning:', 'warn', sys.stderr)} {console.clean(warning)}")
    for note in notes:
        console.note(f"note: {console.clean(note)}")
    console.out(
        f"{console.paint('restored', 'good')}: {console.many(restored.files, 'file')}, "
        f"{console.size(restored.bytes_out)} into {console.clean(str(target))} in {console.duration(took)}"
    )
    levels = f"{console.many(len(chain), 'set')} (levels {chain[0].level} to {chain[-1].level})"
    console.out(f"  read    {console.size(restored.bytes_read)} from store {stored.store.name}, {levels}")
    return exit_code


def _partial(stored: StoredSet) -> Sequence[str]:
    """What a person should know who takes this for the whole subject."""
    if stored.manifest.outcome != "partial":
        return ()
    tell = f"`holdfast show {stored.backup_id} --problems` names what could not be read when it was made"
    return (f"set {stored.backup_id} is partial: {tell}",)


def _relative(path: bytes) -> bytes:
    """As it lies below the subject: a person may well type the leading slash of `/etc` for a plan of `/`."""
    steps = [step for step in path.split(b"/") if step]
    return b"/".join(steps) if steps else path


def _tell_plan(chain: Sequence[StoredSet], paths: Sequence[str], *, as_json: bool) -> None:
    total = sum(part.bytes for link in chain for part in link.manifest.parts)
    if as_json:
        console.json_line(
            {
                "chain": [
                    {
                        "backup_id": link.backup_id,
                        "level": link.level,
                        "store": link.store.name,
                        "parts": [{"name": part.name, "bytes": part.bytes} for part in link.manifest.parts],
                    }
                    for link in chain
                ],
                "paths": list(paths),
                "bytes_at_most": total,
            }
        )
        return
    rows = [
        (
            Cell(link.backup_id, "bold"),
            Cell(str(link.level)),
            Cell(part.name),
            Cell(console.size(part.bytes), right=True),
            Cell(link.store.name),
        )
        for link in chain
        for part in link.manifest.parts
    ]
    console.table(("set", "level", "part", "size", "store"), rows)
    what = "the indexes and the frames of these paths, at most" if paths else "at most"
    console.out(
        f"\nwould read {what} {console.size(total)} from {console.many(len(chain), 'set')}; nothing was restored"
    )
