"""Finds what plans left that are configured no more, and removes of it what this node made.

Several hosts may share a store, each with plans of its own: we never remove a set that another node made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from config.settings import NAME_PATTERN
from handlers.contract import BackupId, PlanName
from handlers.errors import PermanentError
from handlers.tools.lock import Lock
from handlers.tools.removal import remove_tree
from worker.catalog import Catalog, Damaged, StoredSet
from worker.expiry import Expired, carry_out, history_of
from worker.manifest import Manifest
from worker.pins import EXPIRING, PINS, DamagedPin, all_pins, pinned, release
from worker.retention import Verdict, broken_sets, with_chains
from worker.stores.protocol import SetName, Store
from worker.verified import KINDS, forget_verified

LOCK_SUFFIX = ".lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """Notes of a plan that is configured no more, in one store."""

    store: Store
    plan: PlanName
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """Something in the state directory that belongs to no configured plan."""

    plan: PlanName
    path: Path
    is_lock: bool
    """Else it is scratch of a request that a dead worker had begun."""


def plans(stores: Sequence[Store], configured: Mapping[str, object]) -> Sequence[tuple[Store, PlanName]]:
    """The stores with the plans that left sets or notes there, and are configured no more."""
    return [
        (store, plan)
        for store in stores
        for plan in sorted({name.plan for name in store.names()} | set(store.noted_plans()))
        if plan not in configured
    ]


def judge(catalog: Catalog, store: Store, plan: PlanName, *, node: str) -> tuple[Verdict, ...]:
    """What would become of the sets of a plan that is configured no more, newest first; changes nothing.

    Raises IntegrityError where a manifest or a pin is damaged: nobody knows then what may go.
    """
    return verdicts(history_of(catalog, store, plan), node=node, pins=pinned(store, plan))


def verdicts(history: Sequence[Manifest], *, node: str, pins: Mapping[BackupId, Sequence[str]]) -> tuple[Verdict, ...]:
    """What this node made goes, unless somebody keeps it, or something that stays builds on it. Pure; newest first."""
    wanted: dict[BackupId, list[str]] = {}
    for manifest in history:
        if manifest.id in pins:
            wanted.setdefault(manifest.id, []).append(
                "pinned as " + ", ".join(f"`{name}`" for name in pins[manifest.id])
            )
        if manifest.host != node:
            wanted.setdefault(manifest.id, []).append(f"made by {manifest.host}, which may still want it")
    return with_chains(history, wanted, lambda manifest: (f"plan {manifest.plan} is configured no more",))


def remove(
    catalog: Catalog,
    store: Store,
    plan: PlanName,
    judged: Sequence[Verdict],
    *,
    checkpoint: Callable[[], None],
) -> Expired:
    """Remove what is to go by these verdicts, then the plan's notes on sets that are gone; see `expiry.carry_out`."""
    done = carry_out(catalog, store, plan, judged, checkpoint=checkpoint)
    for name in {name for kind in (*KINDS, EXPIRING) for name in store.notes(plan, kind)}:
        where = SetName(plan=plan, backup_id=BackupId(name))
        if not store.exists(where):
            forget_verified(store, where)
            store.drop_note(plan, EXPIRING, name)
    for pin in all_pins(store, plan):
        if not isinstance(pin, DamagedPin) and not store.exists(SetName(plan=plan, backup_id=pin.backup_id)):
            release(store, plan, pin.name)
    return done


def notes(store: Store, plan: PlanName) -> Notes | None:
    """The notes that the plan left; None where there are none."""
    count = sum(len(store.notes(plan, kind)) for kind in (PINS, *KINDS, EXPIRING))
    return Notes(store=store, plan=plan, count=count) if count else None


def broken(catalog: Catalog, store: Store, plan: PlanName | None = None) -> Iterator[tuple[StoredSet, str]]:
    """The sets of the store that cannot be restored because of what they build on, with the reason, newest first.

    Sets with a damaged manifest are passed over: nobody knows what they build on.
    """
    found: dict[PlanName, dict[BackupId, StoredSet]] = {}
    for item in catalog.look(store, plan):
        if not isinstance(item, Damaged):
            found.setdefault(item.manifest.plan_name, {})[item.backup_id] = item
    for sets in found.values():
        reasons = broken_sets([stored.manifest for stored in sets.values()])
        in_order = sorted(reasons, key=lambda backup_id: sets[backup_id].manifest.finished, reverse=True)
        yield from ((sets[backup_id], reasons[backup_id]) for backup_id in in_order)


def leftovers(state_dir: Path, configured: Mapping[str, object]) -> Sequence[Leftover]:
    """What lies in the state directory for plans that are configured no more.

    Raises PermanentError where the directory cannot be read; one that does not exist has no leftovers.
    """
    locks = [name.removesuffix(LOCK_SUFFIX) for name in _names(state_dir / "locks") if name.endswith(LOCK_SUFFIX)]
    scratches = [name for name in _names(state_dir / "scratch") if not name.startswith(".")]
    found = [(name, state_dir / "locks" / f"{name}{LOCK_SUFFIX}", True) for name in locks]
    found += [(name, state_dir / "scratch" / name, False) for name in scratches]
    return [
        Leftover(plan=PlanName(name), path=path, is_lock=is_lock)
        for name, path, is_lock in sorted(found)
        if name not in configured and re.fullmatch(NAME_PATTERN, name)
    ]


def clear(state_dir: Path, plan: PlanName) -> bool:
    """Remove what lies in the state directory for a plan; False, and nothing removed, while a process works on it."""
    path = state_dir / "locks" / f"{plan}{LOCK_SUFFIX}"
    try:
        lock = Lock.try_hold(path)
        if lock is None:
            return False
        with lock:
            remove_tree(state_dir / "scratch" / plan)
            lock.remove()
    except FileNotFoundError:
        return True  # there is no directory of locks, and so no worker ever ran here
    except OSError as error:
        raise _unreadable(state_dir, error) from error
    return True


def _names(directory: Path) -> Sequence[str]:
    try:
        return sorted(path.name for path in directory.iterdir())
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise _unreadable(directory, error) from error


def _unreadable(path: Path, error: OSError) -> PermanentError:
    return PermanentError(
        f"{path} cannot be used: {error.strerror}", hint="run this as the user of the worker, on the worker's host"
    )
