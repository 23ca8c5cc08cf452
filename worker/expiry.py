"""Removes the sets that retention lets go, without ever leaving one that lost what it builds on.

Somebody may keep a set at the same time, on another host, and there is no lock. Whoever expires puts a note "expiring"
first, then reads the pins; whoever keeps puts the pin first, then looks for such a note, see `worker.pins`. So at least
one of the two sees the other. Only the expiry that put a note takes it away, and nothing goes on the strength of an old
one. So the note of a dead expiry is known by this: it stays the same for longer.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo

from loguru import logger

from config.retention import Retention
from handlers.contract import BackupId, PlanName
from handlers.errors import IntegrityError
from worker.catalog import Catalog, Damaged
from worker.manifest import Manifest
from worker.pins import EXPIRING, pinned
from worker.retention import Verdict, built_upon, decide, parents_of, removal_order
from worker.stores.protocol import SetMissing, SetName, Store, StoreRefused
from worker.verified import damaged, forget_verified, verified

DEAD_AFTER = timedelta(seconds=30)
"""How long the note of an expiry stays unchanged before it counts as dead. A living one trusts it for half as long."""
BATCH = 50
"""Sets that are noted at once, so that a long history is not looked through again for each of them."""
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """What an expiry did to the sets of one plan in one store."""

    removed: tuple[Verdict, ...]
    """What went and why, newest first. A set that somebody else removed in the meantime is among them."""
    kept: tuple[Verdict, ...]
    """What stayed and why, newest first."""


def judge(
    catalog: Catalog, store: Store, plan: PlanName, rules: Retention, *, now: datetime, zone: tzinfo
) -> tuple[Verdict, ...]:
    """What would become of the plan's sets in this store, newest first; changes nothing.

    Raises IntegrityError where a manifest or a pin is damaged: nobody knows then what may go. Raises StoreUnavailable
    or StoreRefused.
    """
    history = history_of(catalog, store, plan)
    return decide(
        history,
        rules,
        now=now,
        zone=zone,
        pins=pinned(store, plan),
        verified=verified(store, plan),
        damaged=damaged(store, plan),
    )


def expire(
    catalog: Catalog,
    store: Store,
    plan_name: PlanName,
    rules: Retention,
    *,
    now: datetime,
    zone: tzinfo,
    checkpoint: Callable[[], None],
    dead_after: timedelta = DEAD_AFTER,
) -> Expired:
    """Remove what the rules let go. `checkpoint` is called before each set, and may raise to stop there.

    However it ends, also by SIGKILL: every set that is left has all that it builds on. Raises what `judge` and
    `carry_out` raise.
    """
    verdicts = judge(catalog, store, plan_name, rules, now=now, zone=zone)
    return carry_out(catalog, store, plan_name, verdicts, checkpoint=checkpoint, dead_after=dead_after)


def carry_out(
    catalog: Catalog,
    store: Store,
    plan: PlanName,
    verdicts: Sequence[Verdict],
    *,
    checkpoint: Callable[[], None],
    dead_after: timedelta = DEAD_AFTER,
) -> Expired:
    """Remove what is to go by these verdicts, each set before the one it builds on, by its recorded name.

    What was pinned since, or what a new set builds on, stays with its chain. Safe to repeat. Raises StoreUnavailable
    or StoreRefused, IntegrityError where a pin is damaged, and what `checkpoint` raises.
    """
    work = _Expiry(catalog, store, plan, verdicts, checkpoint, dead_after)
    work.clean_up()
    work.remove(removal_order(verdicts))
    return Expired(
        removed=tuple(each for each in verdicts if each.manifest.id in work.removed),
        kept=tuple(
            replace(each, keep=True, reasons=(work.spared[each.manifest.id],)) if not each.keep else each
            for each in verdicts
            if each.manifest.id not in work.removed
        ),
    )


def history_of(catalog: Catalog, store: Store, plan: PlanName) -> list[Manifest]:
    """The manifests of all of the plan's sets in this store, in no order.

    Raises IntegrityError where one is damaged: nobody knows what that set builds on.
    """
    history: list[Manifest] = []
    for item in catalog.look(store, plan):
        if isinstance(item, Damaged):
            raise IntegrityError(
                f"nothing of plan {plan} is expired, for nobody knows what set {item.name} builds on: "
                f"{item.error.message}",
                hint=f"look at {item.name} in store {store.name}; once it is repaired or gone, expiry goes on",
            ) from item.error
        history.append(item.manifest)
    return history


class _Expiry:
    """One expiry, from its first note to its last."""

    def __init__(
        self,
        catalog: Catalog,
        store: Store,
        plan: PlanName,
        verdicts: Sequence[Verdict],
        checkpoint: Callable[[], None],
        dead_after: timedelta,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._plan = plan
        self._checkpoint = checkpoint
        self._dead_after = dead_after
        self._parents = parents_of([verdict.manifest for verdict in verdicts])
        self._new: set[BackupId] = set()
        self._leaving: BackupId | None = None
        """What may still go although the store said that it is away: its note is needed."""
        self._mark = f"{secrets.token_hex(16)}\n".encode()
        self.removed: set[BackupId] = set()
        self.spared: dict[BackupId, str] = {}
        """What was to go and stays, with the reason."""

    def clean_up(self) -> None:
        """Drop the notes that dead expiries left. Waits while one of them may be alive."""
        waiting: dict[str, bytes] = {}
        for name, content in self._store.notes(self._plan, EXPIRING).items():
            if self._store.exists(self._name(BackupId(name))):
                waiting[name] = content
            else:
                self._forget(BackupId(name))
        deadline = time.monotonic() + self._dead_after.total_seconds()
        while waiting and time.monotonic() < deadline:
            self._checkpoint()
            time.sleep(_LOOK_SECONDS)
            waiting = _unchanged(waiting, self._store.notes(self._plan, EXPIRING))
        for name in waiting:
            logger.warning("expiry_note_dropped", plan=self._plan, backup_id=name, next="the set may expire again")
            self._store.drop_note(self._plan, EXPIRING, name)

    def remove(self, order: Sequence[Manifest]) -> None:
        """Remove these sets in this order, or spare them. If we die inside, the next expiry finds our notes."""
        todo = [manifest.id for manifest in order]
        at_once = BATCH
        while todo:
            batch = todo[:at_once]
            # Where none is done: so slow a store, or so long a sleep, that others may soon take our note for a dead
            # one's. A slow disk may still be quick enough for fewer.
            done = self._remove_batch(batch)
            if not done and len(batch) > 1:
                at_once = max(1, len(batch) // 4)
            elif not done:
                self._spare(
                    batch[0], "the store is too slow to be sure that nobody keeps it; the next expiry tries again"
                )
            todo = [backup_id for backup_id in todo if backup_id not in self.removed and backup_id not in self.spared]

    def _remove_batch(self, batch: Sequence[BackupId]) -> bool:
        """Remove or spare as many as there is time for; False where that is none."""
        before = len(self.removed) + len(self.spared)
        deadline = time.monotonic() + self._dead_after.total_seconds() / 2
        try:
            for backup_id in batch:
                self._checkpoint()
                if not self._store.put_note(self._plan, EXPIRING, backup_id, self._mark, replace=False):
                    self._spare(backup_id, "another expiry is at it")
            self._spare_what_is_wanted(batch)
            if not self.spared.keys().isdisjoint(batch):
                # Whoever keeps one of them waits for our note to go, and not as long as the rest may take.
                self._drop_own_notes(self.spared)
            for backup_id in batch:
                self._checkpoint()
                if time.monotonic() > deadline:
                    break
                if backup_id not in self.spared:
                    self._remove_one(backup_id)
        finally:
            self._drop_own_notes()
        return len(self.removed) + len(self.spared) > before

    def _remove_one(self, backup_id: BackupId) -> None:
        self._leaving = backup_id
        try:
            self._store.expire(self._name(backup_id))
        except StoreRefused:
            self._leaving = None
            raise
        self._forget(backup_id)
        self._leaving = None
        self.removed.add(backup_id)
        logger.info("set_expired", store=self._store.name, plan=self._plan, backup_id=backup_id)

    def _drop_own_notes(self, among: Container[str] | None = None) -> None:
        for name, content in self._store.notes(self._plan, EXPIRING).items():
            if content == self._mark and name != self._leaving and (among is None or name in among):
                self._store.drop_note(self._plan, EXPIRING, name)

    def _spare_what_is_wanted(self, batch: Sequence[BackupId]) -> None:
        """Look for what came after the verdicts; our notes on the batch are there already."""
        pins = pinned(self._store, self._plan)
        self._look_for_new_sets()
        wanted = built_upon(self._parents, {*pins, *self._new})
        for backup_id in batch:
            if backup_id in pins:
                self._spare(backup_id, "pinned meanwhile as " + ", ".join(f"`{name}`" for name in pins[backup_id]))
            elif backup_id in wanted:
                self._spare(backup_id, "a set that was made or pinned meanwhile builds on it")

    def _look_for_new_sets(self) -> None:
        """Raises IntegrityError where one of them is damaged: it may build on anything."""
        for name in self._store.names(self._plan):
            if name.backup_id not in self._parents:
                try:
                    parent = self._catalog.read(self._store, name).manifest.parent
                except SetMissing:
                    continue
                self._parents[name.backup_id] = BackupId(parent) if parent is not None else None
                self._new.add(name.backup_id)

    def _spare(self, backup_id: BackupId, reason: str) -> None:
        self.spared.setdefault(backup_id, reason)
        for below in built_upon(self._parents, [backup_id]):
            self.spared.setdefault(below, f"set {backup_id}, which stays, builds on it")

    def _forget(self, backup_id: BackupId) -> None:
        # In this order: should we die between the two, the first note is what the next expiry cleans up by.
        forget_verified(self._store, self._name(backup_id))
        self._store.drop_note(self._plan, EXPIRING, backup_id)

    def _name(self, backup_id: BackupId) -> SetName:
        return SetName(plan=self._plan, backup_id=backup_id)


def _unchanged(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in before.items() if after.get(name) == content}
