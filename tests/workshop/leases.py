"""A store, a clock and workers that want a lease, as a test turns them."""

from __future__ import annotations

import pytest

from handlers.contract import BackupId, PlanName
from worker.lease import Lease, Leases, LeaseTaken
from worker.stores.memory import MemoryStore
from worker.stores.protocol import SetName, StoreUnavailable

NAME = SetName(plan=PlanName("web"), backup_id=BackupId("first"))


class Shop:
    """A store, a clock, and workers at it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.store = ShakyStore("disk")
        self.held: list[Lease] = []

    def worker(self, node: str, *, state: str | None = None, seconds: float = 60.0, ahead: float = 0.0) -> Leases:
        """A worker process; its clock is ahead by so much, as monotonic clocks of two hosts are."""
        return Leases(
            node=node, state=state or f"state of {node}", lease_seconds=seconds, monotonic=lambda: self.now + ahead
        )

    def hold(self, worker: Leases) -> Lease:
        """Take the lease; it is released after the test."""
        self.held.append(worker.hold(self.store, NAME))
        return self.held[-1]

    def record(self) -> bytes | None:
        """What is in the store."""
        return self.store.read_lease(NAME)

    def refused(self, worker: Leases) -> LeaseTaken:
        """What a worker hears that may not have the lease."""
        with pytest.raises(LeaseTaken) as caught:
            worker.hold(self.store, NAME)
        return caught.value


class ShakyStore(MemoryStore):
    """A store whose leases can be away, or go away right after a change went through."""

    away = False
    deaf = False

    def read_lease(self, name: SetName) -> bytes | None:
        """Unless it is away."""
        self._require_there()
        return super().read_lease(name)

    def swap_lease(self, name: SetName, old: bytes | None, new: bytes | None) -> bool:
        """Unless it is away; deaf, it makes the change and cannot say so."""
        self._require_there()
        swapped = super().swap_lease(name, old, new)
        if self.deaf:
            raise StoreUnavailable("the answer was lost")
        return swapped

    def _require_there(self) -> None:
        if self.away:
            raise StoreUnavailable("store disk is away")
