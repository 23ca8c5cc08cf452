"""Keeps two workers that share a store from making the same set at once.

A lease is a small record beside the set that its holder changes four times in each `lease_seconds`. Whoever sees it
unchanged for that long, by their own monotonic clock, takes it over: clocks of two hosts are never compared, and no
lease needs a person to unlock it. What a set is made by is decided by the conditional commit alone; a lease that is
lost, or held by two for a moment, costs work and nothing else.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import orjson
from loguru import logger
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from handlers.contract import Control, Progress
from handlers.errors import HoldfastError, TemporaryError
from worker.stores.protocol import SetName, Store

BEATS = 4
"""How often in `lease_seconds` a holder shows that it lives: three beats may fail before anybody takes over."""
MAX_SIGHTINGS = 10_000
"""Records of others to remember. As many requests would have to be worked on elsewhere, and wait here, to need more."""


class LeaseTaken(TemporaryError):
    """Another worker makes this set now, or did a moment ago: its outcome is known later."""

    uses_up_attempt = False
    in_other_hands = True


class LeaseLost(TemporaryError):
    """Another worker has taken over, or may have: what was made here is thrown away."""

    uses_up_attempt = False
    in_other_hands = True


class Record(BaseModel):
    """What a holder writes into the store. Fields that a later version adds are passed over."""

    model_config = ConfigDict(frozen=True, strict=True)

    node: str
    state: str
    """The holder's state directory, see `worker.identity`."""
    hold: str
    """Random, new for each time a lease is taken: no two holds are alike, even of one process."""
    fencing: int = Field(ge=1)
    """Grows by one with each takeover."""
    beat: int = Field(ge=0)
    lease_seconds: float = Field(gt=0, le=3_600)
    """The holder's own setting: it changes the record more often than that."""

    def encode(self) -> bytes:
        """One line of JSON."""
        return orjson.dumps(self.model_dump()) + b"\n"


def _parse(content: bytes | None) -> Record | None:
    """The record; None where there is none, or none that says anything: power may go while one is written."""
    try:
        return None if content is None else Record.model_validate_json(content)
    except ValidationError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sighting:
    content: bytes
    since: float


class Leases:
    """The leases of one worker, with what it saw of those of others; any thread."""

    def __init__(
        self, *, node: str, state: str, lease_seconds: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`state` names the state directory, whose kernel locks keep two processes of ours from one plan."""
        self.node = node
        self.state = state
        self.lease_seconds = lease_seconds
        self.monotonic = monotonic
        self._mutex = threading.Lock()
        self._sightings: OrderedDict[tuple[str, SetName], _Sighting] = OrderedDict()
        self._copied = False

    def hold(self, store: Store, name: SetName) -> Lease:
        """Take the lease of a set, and keep it until it is released. The caller holds the plan's lock.

        Never waits: raises LeaseTaken while another worker seems to live, and knows at the next call what it saw at
        this one. What a former process on our own state directory left is taken over at once: the plan's lock, which
        we have now, proves that it is dead. Raises StoreUnavailable or StoreRefused as the store does.
        """
        looked = self.monotonic()
        content = store.read_lease(name)
        record = _parse(content)
        if content is not None and record is not None and not self._is_former(record):
            self._require_dead(store, name, record, content, looked)
        ours = Record(
            node=self.node,
            state=self.state,
            hold=secrets.token_hex(8),
            fencing=1 if record is None else record.fencing + 1,
            beat=0,
            lease_seconds=self.lease_seconds,
        )
        begun = self.monotonic()
        if not store.swap_lease(name, content, ours.encode()):
            raise LeaseTaken(f"set {name} was just taken by another worker", retry_after=self._later())
        with self._mutex:
            self._sightings.pop((store.name, name), None)
        if content is not None:
            former = record.node if record else None
            logger.info("lease_taken_over", of=former, fencing=ours.fencing, next="the set is made here")
        return Lease(self, store, name, ours, begun)

    def found_copy(self) -> None:
        """Somebody else has our state directory: from now on, nobody is taken for a former process of ours."""
        if not self._copied:
            self._copied = True
            logger.error(
                "state_directory_is_copied",
                node=self.node,
                hint="two workers run on copies of one state_dir: give each its own, then remove state-id from one",
            )

    def _is_former(self, record: Record) -> bool:
        return not self._copied and (record.node, record.state) == (self.node, self.state)

    def _require_dead(self, store: Store, name: SetName, record: Record, content: bytes, looked: float) -> None:
        key = store.name, name
        with self._mutex:
            seen = self._sightings.get(key)
            if seen is None or seen.content != content:
                # The time after this look, and above the one before it: what we measure is never longer than it was.
                seen = self._sightings[key] = _Sighting(content=content, since=self.monotonic())
            self._sightings.move_to_end(key)
            while len(self._sightings) > MAX_SIGHTINGS:
                self._sightings.popitem(last=False)
        left = max(self.lease_seconds, record.lease_seconds) - (looked - seen.since)
        if left > 0:
            raise LeaseTaken(
                f"set {name} is being made by worker {record.node}",
                hint="nothing to do: it is taken over here when that worker gives no sign of life any more",
                retry_after=min(self._later(), timedelta(seconds=left)),
            )

    def _later(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds / BEATS)


class Lease:
    """A lease that is held, and renewed by a thread of its own until `release`; `Leases.hold` makes it."""

    def __init__(self, leases: Leases, store: Store, name: SetName, record: Record, renewed: float) -> None:
        self._leases = leases
        self._store = store
        self._name = name
        self._record = record
        self._content = record.encode()
        self._renewed = renewed
        """When the last change that went through was begun."""
        self._trouble: HoldfastError | None = None
        self._lost: str | None = None
        self._released = threading.Event()
        self._mutex = threading.Lock()
        self._log = logger.bind(store=store.name, plan=name.plan, backup_id=name.backup_id, fencing=record.fencing)
        self._thread = threading.Thread(target=self._renew, name=f"lease-{name.plan}", daemon=True)
        self._thread.start()

    @property
    def fencing(self) -> int:
        """One more than the fencing number of whoever this was taken over from; 1 where nobody held it."""
        return self._record.fencing

    def check(self) -> None:
        """Raise LeaseLost if another worker is known to have taken over; asks nobody, costs nothing."""
        if self._lost is not None:
            raise LeaseLost(self._lost, retry_after=timedelta(seconds=self._leases.lease_seconds / BEATS))

    def require(self) -> None:
        """Make sure, with the store's own answer, that nobody has taken over; to be called before the commit.

        Raises LeaseLost, also where the store has given no answer for `lease_seconds`.
        """
        self.beat()
        self.check()
        silent = self._leases.monotonic() - self._renewed
        if silent >= self._leases.lease_seconds:
            raise LeaseLost(
                f"the lease of set {self._name} could not be renewed for {silent:.0f} s",
                hint="look at the store: others may have taken the worker for dead",
                retry_after=timedelta(seconds=self._leases.lease_seconds / BEATS),
            ) from self._trouble

    def beat(self) -> None:
        """Show that we live. That the store cannot be reached is no reason to stop: nobody else reaches it either."""
        with self._mutex:
            if self._released.is_set() or self._lost is not None:
                return
            try:
                self._swap(self._record.model_copy(update={"beat": self._record.beat + 1}))
            except HoldfastError as error:
                if self._trouble is None:
                    self._log.warning("lease_not_renewed", error=str(error), next="tried again until the set is made")
                self._trouble = error

    def release(self) -> None:
        """Let go, so that nobody has to wait; safe to repeat. Where that fails, the lease dies by itself."""
        self._released.set()
        with self._mutex:
            if self._lost is None:
                try:
                    self._swap(None)
                except HoldfastError as error:
                    self._log.warning("lease_left_behind", error=str(error), next="others take it over after a while")
        self._thread.join()

    def _renew(self) -> None:
        while not self._released.wait(self._leases.lease_seconds / BEATS) and self._lost is None:
            self.beat()

    def _swap(self, new: Record | None) -> None:
        begun = self._leases.monotonic()
        content = None if new is None else new.encode()
        if not self._store.swap_lease(self._name, self._content, content):
            found = self._store.read_lease(self._name)
            record = _parse(found)
            if found is None or record is None or record.hold != self._record.hold:
                self._lose(record)
                return
            # Ours all the same: an earlier change went through although the store could not tell, or somebody tries
            # to take over right now, in vain.
            self._record, self._content = record, found
            if not self._store.swap_lease(self._name, found, content):
                return
        if new is not None and content is not None:
            self._record, self._content = new, content
        self._renewed, self._trouble = begun, None

    def _lose(self, found: Record | None) -> None:
        by = f"worker {found.node}" if found else "another worker"
        self._lost = f"{by} has taken over set {self._name}: this one was silent for too long"
        if self._released.is_set():
            return  # the set is committed or given up: nothing of ours is left to lose
        if found is not None and (found.node, found.state) == (self._leases.node, self._leases.state):
            self._leases.found_copy()
        self._log.warning("lease_lost", by=found and found.node, next="the work stops; what became of it is looked up")


class LeasedControl:
    """A handler's control that also stops it once its lease is lost."""

    def __init__(self, control: Control, lease: Lease) -> None:
        self._control = control
        self._lease = lease

    def checkpoint(self) -> None:
        """Raise Cancelled or LeaseLost when the work is to stop."""
        self._control.checkpoint()
        self._lease.check()

    def report(self, progress: Progress) -> None:
        """Pass on how far the work is."""
        self._control.report(progress)

    def started(self) -> None:
        """Pass on that the subject is being read."""
        self._control.started()
