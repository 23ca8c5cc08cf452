"""`holdfast show`: everything there is to know about one set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands import console, session
from worker.commands.console import Cell
from worker.commands.options import BackupArgument, JsonOption
from worker.commands.summary import place, problems

if TYPE_CHECKING:
    from worker.catalog import StoredSet
    from worker.manifest import Manifest

AllProblems = Annotated[bool, typer.Option("--problems", help="Name every problem that the manifest lists.")]


def show(
    ctx: typer.Context, backup: BackupArgument, as_json: JsonOption = False, all_problems: AllProblems = False
) -> int:
    """Show one set: its manifest in words, its chain, its problems, and how to restore it without Holdfast."""
    from worker.app import open_catalog
    from worker.levels import ChainBroken

    settings = session.load(ctx).settings
    catalog = open_catalog(settings)
    stored = catalog.find(backup)
    where = place(settings, stored.store.name, stored.manifest.plan, stored.backup_id)
    broken: ChainBroken | None = None
    chain: Sequence[StoredSet] = ()
    try:
        chain = catalog.chain(stored)
    except ChainBroken as error:
        broken = error
    if as_json:
        console.json_line(
            {
                **stored.manifest.model_dump(mode="json"),
                "store": stored.store.name,
                "path": where,
                "chain": [link.backup_id for link in chain],
                "chain_error": broken.message if broken else None,
            }
        )
    else:
        _tell(stored, chain, where, all_problems=all_problems)
    if broken is not None:
        console.error(broken.message, broken.hint)
        return broken.exit_code
    return 0


def _tell(stored: StoredSet, chain: Sequence[StoredSet], where: str, *, all_problems: bool) -> None:
    manifest = stored.manifest
    counts = manifest.counts
    console.out(
        f"{console.paint(manifest.backup_id, 'bold')}  "
        f"{console.paint(manifest.outcome, console.outcome_style(manifest.outcome))}"
    )
    console.fields(
        (
            ("plan", manifest.plan),
            ("subject", f"{manifest.subject} (handler {manifest.handler}, host {manifest.host})"),
            ("level", f"{manifest.level}: {manifest.level_reason}"),
            (
                "made",
                f"{console.when(manifest.started)}, took {console.duration(manifest.finished - manifest.started)}",
            ),
            ("files", f"{counts.files:,}"),
            ("bytes", f"{console.size(counts.bytes_in)} read, {console.size(counts.bytes_out)} stored"),
            ("where", where),
            ("reason", manifest.reason or ""),
            ("labels", " ".join(f"{name}={value}" for name, value in manifest.labels.items())),
            ("request", manifest.request_id),
            ("tools", ", ".join(f"{name} {version}" for name, version in manifest.tools.items())),
            ("excluded", " ".join(manifest.excluded)),
            ("configuration", manifest.config_digest),
            ("previous manifest", manifest.previous or ""),
            ("warnings", "\n".join(manifest.warnings)),
        )
    )
    if len(chain) > 1:
        console.out("\nchain, oldest first; a restore needs all of it:")
        console.table(("set", "level", "when", "size"), [_link(link.manifest) for link in chain], indent="  ")
    console.out("\nparts:")
    rows = [
        (Cell(part.name), Cell(console.size(part.bytes), right=True), Cell(part.codec), Cell(part.sha256, "dim"))
        for part in manifest.parts
    ]
    console.table(("name", "size", "codec", "sha256"), rows, indent="  ")
    if manifest.problem_counts:
        console.out("\nproblems:")
        problems(manifest, limit=None if all_problems else 10)
    console.out(f"\nrestore   holdfast restore {manifest.backup_id} NEW_DIRECTORY")
    console.out(f"without   {where}/RESTORE.md has the exact commands for this set")


def _link(manifest: Manifest) -> Sequence[Cell]:
    return (
        Cell(manifest.backup_id),
        Cell(str(manifest.level)),
        Cell(console.when(manifest.finished)),
        Cell(console.size(manifest.counts.bytes_out), right=True),
    )
