"""`holdfast verify`: read what is stored again."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handlers.errors import HoldfastError, IntegrityError
from handlers.tools.lock import Lock
from worker.commands import console, session
from worker.commands.options import BackupArgument, JsonOption

if TYPE_CHECKING:
    from worker.catalog import Catalog, Damaged, StoredSet
    from worker.commands.progress import MeterControl
    from worker.verify import Depth

DeepOption = Annotated[bool, typer.Option("--deep", help="Also restore the set into scratch, and compare.")]
AllOption = Annotated[bool, typer.Option("--all", help="Every set of the plan, not only the newest.")]
ScratchOption = Annotated[
    Path | None,
    typer.Option("--scratch", metavar="DIR", help="Where --deep restores to, with room for the whole set."),
]

VERIFY_PREFIX = ".verify-"
"""What the directories of `--deep` are called in the worker's scratch: no plan's name begins so."""
VERIFY_LOCK = ".lock"
"""A file in such a directory, locked as long as somebody works there."""

# The worst first: what a script should hear when several things went wrong.
_SEVERITY = (130, 6, 1, 7)


def verify(
    ctx: typer.Context,
    backup: BackupArgument,
    deep: DeepOption = False,
    every: AllOption = False,
    scratch: ScratchOption = None,
    as_json: JsonOption = False,
) -> int:
    """Read a set again and compare it with its manifest; --deep restores it on trial."""
    from worker.app import open_catalog
    from worker.commands.progress import MeterControl, meter

    cancelled = session.cancel_on_signals()
    loaded = session.load(ctx)
    catalog = open_catalog(loaded.settings)
    depth: Depth = "deep" if deep else "checksums"
    codes: list[int] = []
    bad: set[str] = set()
    for item in _all_of(catalog, backup) if every else [catalog.find(backup)]:
        with meter(wanted=not as_json) as shown, _scratch(scratch, loaded.settings.state_dir) as room:
            shown.begin(f"verify {item.name}")
            control = MeterControl(shown, cancelled)
            code = _verify_one(catalog, item, depth, room, control, bad, as_json=as_json)
        codes.append(code)
        if code == IntegrityError.exit_code:
            bad.add(item.name.backup_id)
        if code == 130:
            break
    return next((code for code in _SEVERITY if code in codes), max(codes, default=0))


def _verify_one(
    catalog: Catalog,
    item: StoredSet | Damaged,
    depth: Depth,
    scratch: Path,
    control: MeterControl,
    bad: Collection[str],
    *,
    as_json: bool,
) -> int:
    from worker import verify as verifying
    from worker.catalog import Damaged
    from worker.levels import ChainBroken

    began = time.monotonic()
    error: HoldfastError | None = None
    try:
        if isinstance(item, Damaged):
            raise item.error
        if item.manifest.parent in bad:
            raise ChainBroken(f"set {item.name} builds on {item.manifest.parent}, which is damaged")
        verifying.verify(catalog, item, depth, scratch, control)
    except HoldfastError as problem:
        error = problem
    _note(catalog, item, depth, error, control)
    took = timedelta(seconds=time.monotonic() - began)
    verdict = "ok" if error is None else "damaged" if isinstance(error, IntegrityError) else "not verified"
    if as_json:
        console.json_line(
            {
                "plan": item.name.plan,
                "backup_id": item.name.backup_id,
                "store": item.store.name,
                "verdict": verdict,
                "depth": depth,
                "bytes_read": control.latest.bytes_in,
                "seconds": round(took.total_seconds(), 3),
                "error": error.message if error else None,
                "exit_code": error.exit_code if error else 0,
            }
        )
    elif error is None:
        how = "restored on trial, no difference" if depth == "deep" else "every checksum agrees"
        console.out(f"{console.paint('ok', 'good')}: {item.name} in {item.store.name}: {how}, {console.duration(took)}")
    else:
        console.out(f"{console.paint(verdict, 'bad')}: {item.name} in {item.store.name}")
    if error is not None:
        again = f"`holdfast backup {item.name.plan} --level full` makes a set that needs no other one"
        console.error(error.message, error.hint or (again if isinstance(error, IntegrityError) else None))
    return error.exit_code if error is not None else 0


def _note(
    catalog: Catalog, item: StoredSet | Damaged, depth: Depth, error: HoldfastError | None, control: MeterControl
) -> None:
    """Have the store remember what was found; whoever may only read a store verifies it all the same."""
    from loguru import logger

    from handlers.tools.clock import system_clock
    from worker.catalog import StoredSet
    from worker.verified import note_damaged, note_verified
    from worker.verify import damage_depth, rotten_sets

    try:
        if error is None:
            note_verified(item.store, item.name, depth, system_clock())
        elif isinstance(error, IntegrityError) and isinstance(item, StoredSet):
            for rotten in rotten_sets(catalog, item, error, control):
                note_damaged(rotten.store, rotten.name, damage_depth(error), system_clock(), error.message)
    except HoldfastError as trouble:
        logger.warning(
            "verified_not_noted",
            set=str(item.name),
            error=str(trouble),
            next="retention does not know of this verification",
        )


def _all_of(catalog: Catalog, plan: str) -> Sequence[StoredSet | Damaged]:
    from handlers.contract import PlanName

    name = PlanName(plan)
    found = [item for store in catalog.stores_of(name) for item in catalog.look(store, name)]
    if not found:
        raise session.Usage(f"nothing is stored for a plan {plan!r}", hint="--all takes a plan; see `holdfast list`")
    return sorted(found, key=_parents_first)


def _parents_first(item: StoredSet | Damaged) -> tuple[str, int, str]:
    from worker.catalog import Damaged

    return item.store.name, -1 if isinstance(item, Damaged) else item.level, item.name.backup_id


@contextmanager
def _scratch(wanted: Path | None, state_dir: Path) -> Iterator[Path]:
    """A directory with nothing but a lock in it, removed afterwards."""
    import tempfile

    from handlers.tools.removal import remove_tree

    own = state_dir / "scratch"
    room = wanted or (own if os.access(own, os.W_OK | os.X_OK) else None)
    if room is not None and not room.is_dir():
        raise session.Usage(f"scratch {room} is not a directory")
    directory = Path(tempfile.mkdtemp(prefix=VERIFY_PREFIX, dir=room))
    try:
        # Should we be killed, the next start of the worker sees by the lock that nobody works here any more.
        with Lock.try_hold(directory / VERIFY_LOCK) or nullcontext():
            yield directory
    finally:
        with suppress(OSError):
            remove_tree(directory)
