"""Finds backup sets: what exists is what the manifests in the stores say."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from loguru import logger

from handlers.contract import BackupId, Part, PlanName, Tree
from handlers.errors import IntegrityError, PermanentError
from handlers.tools.checksum import checked
from worker.levels import ChainBroken, levels_to_restore, newest
from worker.manifest import MANIFEST, Manifest, decode, digest
from worker.stores.protocol import SetMissing, SetName, Store, StoreUnavailable

MAX_REMEMBERED_BYTES = 8 << 20
"""Manifests that are kept taken apart, some thousands: choosing a level looks at all of a plan's, and hashing one
takes a twentieth of the time of taking it apart. Counted as they are stored; in memory they take four times as much."""
NOWHERE: Mapping[str, str] = MappingProxyType({})


class SetNotFound(PermanentError):
    """No set, or more than one, answers to the name that was given."""

    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSet:
    """One committed set in one store; reads it as `handlers.contract.SetReader` promises."""

    store: Store
    manifest: Manifest

    @property
    def name(self) -> SetName:
        """Where it is."""
        return SetName(plan=self.manifest.plan_name, backup_id=self.manifest.id)

    @property
    def backup_id(self) -> BackupId:
        """Which set it is."""
        return self.manifest.id

    @property
    def level(self) -> int:
        """Its level."""
        return self.manifest.level

    @property
    def parts(self) -> Mapping[str, Part]:
        """The parts by name."""
        return {record.name: record.part() for record in self.manifest.parts}

    @property
    def trees(self) -> Mapping[str, Tree]:
        """The trees by name."""
        return {record.name: record.tree() for record in self.manifest.trees}

    def tree(self, name: str) -> Path:
        """The directory of a tree, to be read only. Raises IntegrityError where it is missing."""
        if name not in self.trees:
            raise IntegrityError(f"set {self.name} has no tree {name}")
        try:
            return self.store.tree(self.name, name)
        except SetMissing as error:
            raise IntegrityError(f"tree {name} of set {self.name} is missing from store {self.store.name}") from error

    def stream(self, name: str) -> Iterator[bytes]:
        """The whole part; raises IntegrityError at the end at the latest if it is not what the manifest tells of."""
        part = self._part(name)
        return checked(
            self._present(name),
            size_bytes=part.size_bytes,
            sha256=part.sha256,
            name=f"part {name} of set {self.name} in store {self.store.name}",
        )

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """These stored bytes of the part."""
        self._part(name)
        try:
            return self.store.read_range(self.name, name, offset, length)
        except SetMissing as error:
            raise self._lost(name) from error

    def _part(self, name: str) -> Part:
        part = self.parts.get(name)
        if part is None:
            raise IntegrityError(f"set {self.name} has no part {name}")
        return part

    def _present(self, name: str) -> Iterator[bytes]:
        try:
            yield from self.store.stream(self.name, name)
        except SetMissing as error:
            raise self._lost(name) from error

    def _lost(self, name: str) -> IntegrityError:
        return IntegrityError(f"part {name} of set {self.name} is missing from store {self.store.name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """A set whose manifest cannot be read."""

    store: Store
    name: SetName
    error: IntegrityError


class Catalog:
    """The sets of all configured stores."""

    def __init__(self, stores: Mapping[str, Store], homes: Mapping[str, str] = NOWHERE) -> None:
        """`homes` names the store that each configured plan writes to."""
        self._stores = stores
        self._homes = homes
        self._mutex = threading.Lock()
        self._remembered: OrderedDict[str, tuple[Manifest, int]] = OrderedDict()
        """By the digest of their bytes, which are read each time: taking them apart is what takes long."""
        self._remembered_bytes = 0

    def stores_of(self, plan: PlanName | None) -> Sequence[Store]:
        """Where a plan's sets are: its own store; every store for a plan that is not configured, or for all plans."""
        home = self._homes.get(plan) if plan is not None else None
        return [self._stores[home]] if home is not None else list(self._stores.values())

    def look(self, store: Store, plan: PlanName | None = None) -> Iterator[StoredSet | Damaged]:
        """Every set of a store, in no order. A set that is expired meanwhile is left out."""
        for name in store.names(plan):
            try:
                yield self.read(store, name)
            except SetMissing:
                continue
            except IntegrityError as error:
                yield Damaged(store=store, name=name, error=error)

    def read(self, store: Store, name: SetName) -> StoredSet:
        """One set. Raises SetMissing, or IntegrityError where the manifest is damaged."""
        manifest = self._decoded(store.read(name, MANIFEST), f"{MANIFEST} of set {name} in store {store.name}")
        if SetName(plan=manifest.plan_name, backup_id=manifest.id) != name:
            raise IntegrityError(
                f"{MANIFEST} of set {name} in store {store.name} belongs to {manifest.plan}/{manifest.id}"
            )
        return StoredSet(store=store, manifest=manifest)

    def _decoded(self, content: bytes, name: str) -> Manifest:
        key = digest(content)
        with self._mutex:
            known = self._remembered.get(key)
            if known is not None:
                self._remembered.move_to_end(key)
                return known[0]
        manifest = decode(content, name=name)
        with self._mutex:
            if key not in self._remembered:
                self._remembered_bytes += len(content)
            self._remembered[key] = manifest, len(content)
            while self._remembered_bytes > MAX_REMEMBERED_BYTES:
                _, (_, size) = self._remembered.popitem(last=False)
                self._remembered_bytes -= size
        return manifest

    def sets(self, store: Store, plan: PlanName) -> list[StoredSet]:
        """The readable sets of a plan, oldest first."""
        found = [item for item in self.look(store, plan) if isinstance(item, StoredSet)]
        return sorted(found, key=lambda stored: (stored.manifest.finished, stored.backup_id))

    def newest(self, store: Store, plan: PlanName) -> StoredSet | None:
        """The plan's newest set; None where it has none.

        Raises IntegrityError where a set of the plan has a damaged manifest: it may be the newest, nobody can tell.
        """
        found = list(self.look(store, plan))
        for item in found:
            if isinstance(item, Damaged):
                raise IntegrityError(
                    f"the newest set of plan {plan} is unknown: {item.error.message}",
                    hint="name the set you mean; `holdfast list` shows them all",
                ) from item.error
        readable = {item.backup_id: item for item in found if isinstance(item, StoredSet)}
        tip = newest(item.manifest for item in readable.values())
        return readable[tip.id] if tip else None

    def chain(self, upto: StoredSet) -> tuple[StoredSet, ...]:
        """The sets a restore needs, oldest first. Raises ChainBroken; reads manifests only."""
        manifests: dict[BackupId, Manifest] = {}
        wanted: str | None = upto.manifest.backup_id
        while wanted is not None and BackupId(wanted) not in manifests:
            name = SetName(plan=upto.manifest.plan_name, backup_id=BackupId(wanted))
            try:
                manifest = self.read(upto.store, name).manifest
            except SetMissing:
                break  # levels_to_restore says which set needs the missing one
            manifests[manifest.id] = manifest
            wanted = manifest.parent
        if wanted is not None and BackupId(wanted) in manifests:
            raise ChainBroken(f"the parents of set {upto.name} form a circle")
        return tuple(StoredSet(store=upto.store, manifest=m) for m in levels_to_restore(manifests, upto.backup_id))

    def find(self, text: str) -> StoredSet:
        """The set a person means: PLAN (its newest), a backup id or the start of one, or PLAN/ID.

        A store that is away is passed over with a warning where the set is found in another one. Raises SetNotFound,
        StoreUnavailable where the set may be in the store that is away, or IntegrityError where the one that is meant
        has a damaged manifest, or nobody can tell which is the newest.
        """
        plan, slash, start = text.rpartition("/")
        wanted = PlanName(plan) if slash else None
        if not slash and text in self._homes:
            wanted = PlanName(text)
        names, away = self._names(wanted)
        if not slash and any(name.plan == text for _, name in names):
            return self._newest(PlanName(text), away)
        exact = [(store, name) for store, name in names if name.backup_id == start]
        matches = exact or [(store, name) for store, name in names if start and name.backup_id.startswith(start)]
        if len(matches) > 1:
            listed = ", ".join(sorted(f"{name} in {store.name}" for store, name in matches)[:10])
            raise SetNotFound(f"{text!r} fits {len(matches)} backup sets", hint=f"say which: {listed}")
        if matches:
            for error in away:
                logger.warning("store_passed_over", error=str(error))
            return self.read(*matches[0])
        if away:
            raise away[0]
        if text in self._homes:
            raise SetNotFound(f"plan {text} has no backup set yet")
        raise SetNotFound(f"no backup set {text!r}", hint="`holdfast list` shows what is stored")

    def _names(self, plan: PlanName | None) -> tuple[list[tuple[Store, SetName]], list[StoreUnavailable]]:
        names: list[tuple[Store, SetName]] = []
        away: list[StoreUnavailable] = []
        for store in self.stores_of(plan):
            try:
                names += [(store, name) for name in store.names(plan)]
            except StoreUnavailable as error:
                away.append(error)
        return names, away

    def _newest(self, plan: PlanName, away: Sequence[StoreUnavailable]) -> StoredSet:
        if away:
            raise away[0]  # the newest may be there
        found = [item for store in self.stores_of(plan) if (item := self.newest(store, plan)) is not None]
        return max(found, key=lambda stored: (stored.manifest.finished, stored.backup_id))
