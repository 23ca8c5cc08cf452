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
    from worker.pins import DamagedPin, Pin
    from worker.verified import Verification

AllProblems = Annotated[bool, typer.Option("--problems", help="Name every problem that the manifest lists.")]


def show(
    ctx: typer.Context, backup: BackupArgument, as_json: JsonOption = False, all_problems: AllProblems = False
) -> int:
    """Show one set: its manifest in words, its chain, its problems, and how to restore it without Holdfast."""
    from handlers.errors import IntegrityError
    from worker.app import open_catalog
    from worker.verified import damaged, verifications

    settings = session.load(ctx).settings
    catalog = open_catalog(settings)
    stored = catalog.find(backup)
    where = place(settings, stored.store.name, stored.manifest.plan, stored.backup_id)
    broken: IntegrityError | None = None
    chain: Sequence[StoredSet] = ()
    try:
        chain = catalog.chain(stored)
    except IntegrityError as error:  # a set of the chain is missing, or its manifest is damaged
        broken = error
    pins, damaged_pins = _pins(stored)
    verification = verifications(stored.store, stored.name.plan).get(stored.backup_id)
    rotten = damaged(stored.store, stored.name.plan)
    flaws = [f"set {link.backup_id} was {rotten[link.backup_id]}" for link in chain if link.backup_id in rotten]
    if as_json:
        console.json_line(
            {
                **stored.manifest.model_dump(mode="json"),
                "store": stored.store.name,
                "path": where,
                "chain": [link.backup_id for link in chain],
                "chain_error": broken.message if broken else flaws[0] if flaws else None,
                "pins": [{"pin": pin.name, "kept": pin.kept, "by": pin.by, "reason": pin.reason} for pin in pins],
                "verified": {"depth": verification.depth, "at": verification.at} if verification else None,
            }
        )
    else:
        whole = broken is None and not flaws
        _tell(stored, chain, where, _said_of_it(pins, verification), all_problems=all_problems, whole=whole)
    damage = [
        *([broken] if broken is not None else []),
        *(IntegrityError(flaw, hint=f"`holdfast verify {stored.name.plan} --all` looks again") for flaw in flaws),
        *(pin.error for pin in damaged_pins),
    ]
    for found in damage:
        console.error(found.message, found.hint)
    return damage[0].exit_code if damage else 0


def _pins(stored: StoredSet) -> tuple[Sequence[Pin], Sequence[DamagedPin]]:
    """The pins of the set, and those of its plan that may be."""
    from worker.pins import DamagedPin, Pin, all_pins

    found = sorted(all_pins(stored.store, stored.name.plan), key=lambda pin: pin.name)
    return (
        [pin for pin in found if isinstance(pin, Pin) and pin.backup_id == stored.backup_id],
        [pin for pin in found if isinstance(pin, DamagedPin)],
    )


def _said_of_it(pins: Sequence[Pin], verification: Verification | None) -> Sequence[tuple[str, str]]:
    """What became of the set after it was made."""
    kept = [f"{pin.name} ({console.when(pin.kept)}, {pin.by}{f': {pin.reason}' if pin.reason else ''})" for pin in pins]
    verified = f"{verification.depth}, {console.when(verification.at)}" if verification else "not known"
    return ("kept as", "\n".join(kept)), ("verified", verified)


def _tell(
    stored: StoredSet,
    chain: Sequence[StoredSet],
    where: str,
    said_of_it: Sequence[tuple[str, str]],
    *,
    all_problems: bool,
    whole: bool,
) -> None:
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
            *said_of_it,
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
    if manifest.trees:
        console.out("\ntrees:")
        trees = [
            (
                Cell(tree.name + "/"),
                Cell(console.size(tree.bytes), right=True),
                Cell(f"{tree.files:,}"),
                Cell(tree.listing),
            )
            for tree in manifest.trees
        ]
        console.table(("name", "size", "files", "listed in"), trees, indent="  ")
    if manifest.problem_counts:
        console.out("\nproblems:")
        problems(manifest, limit=None if all_problems else 10)
    if not whole:
        console.out(f"\nrestore   not as it is: see the error; `holdfast list {manifest.plan}` has other sets")
        return
    console.out(f"\nrestore   holdfast restore {manifest.backup_id} NEW_DIRECTORY")
    console.out(f"without   {where}/RESTORE.md has the exact commands for this set")


def _link(manifest: Manifest) -> Sequence[Cell]:
    return (
        Cell(manifest.backup_id),
        Cell(str(manifest.level)),
        Cell(console.when(manifest.finished)),
        Cell(console.size(manifest.counts.bytes_out), right=True),
    )
