"""Does the steps of one request: what `worker.pipeline` decides, this carries out.

Each step returns the state to record, or the outcome that ends the request early. If we die inside a step, the step is
begun again after the restart, and finds what the dead one left: a draft that is swept, or a committed set that is taken
for what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from loguru import logger

from handlers.contract import JSON, BackupId, Control, Job, Prepared, Produced
from handlers.errors import Cancelled, HoldfastError, IntegrityError, NothingNew, PermanentError
from worker import events, manifest, policy
from worker.catalog import Catalog, StoredSet
from worker.control import Watcher, WorkControl
from worker.events import EventData, ExitCode, Word
from worker.gently import gently
from worker.journal.protocol import Entry
from worker.lease import Lease, LeasedControl
from worker.levels import Choice, LevelRefused, choose, newest
from worker.lifecycle import State, Step
from worker.parents import expiry_of_parents_is_temporary, nothing_on_expiring, require_parents
from worker.peers import acknowledge, managed_outcome, nothing_new
from worker.plan import Plan, Surroundings
from worker.set_record import chain_documents, write_up
from worker.stores.protocol import AlreadyCommitted, Draft, SetName, Store
from worker.throttle import Throttle, throttled
from worker.tidying import expire_of, expired_outcome, told
from worker.verified import damaged, note_damaged, note_verified
from worker.verify import Depth, check_parts, damage_depth, restore_on_trial, rotten_sets

T = TypeVar("T")


class MakeControl(Protocol):
    """Gives a step its control."""

    def __call__(self, step: Step) -> WorkControl:
        """The control of this step."""


class Work:
    """The steps of one request, with what they hand each other."""

    def __init__(
        self,
        entry: Entry,
        plan: Plan,
        around: Surroundings,
        watcher: Watcher,
        control: MakeControl,
        scratch: Path,
        *,
        last_try: bool = True,
    ) -> None:
        """`last_try` says that nobody tries again should this attempt fail for a passing reason."""
        self._entry = entry
        self._plan = plan
        self._around = around
        self._watcher = watcher
        self._control = control
        self._scratch = scratch
        self._last_try = last_try
        self._name = SetName(plan=plan.name, backup_id=entry.backup_id)
        self._lease: Lease | None = None
        self._draft: Draft | None = None
        self._subject: StoredSet | None = None
        self._made: tuple[Choice, Produced, datetime] | None = None
        self._gone: Sequence[BackupId] | None = None
        self._warnings: tuple[str, ...] = ()

    def produce(self) -> State | EventData:
        """Write the parts of the set, unless it is there already.

        Raises LeaseTaken, with nothing touched, while another worker makes it, RequestRefused where it is too late.
        """
        match self._entry.request.data.operation:
            case "verify":
                self._require_in_time()
                return State.STORED
            case "expire":
                self._require_in_time()
                return expired_outcome(self._entry, self._plan, self._around, self._control(Step.PRODUCE))
            case "manage":
                self._require_in_time()
                return managed_outcome(self._entry, self._plan, self._control(Step.PRODUCE))
            case "backup":
                return self._backed_up()

    def _backed_up(self) -> State | EventData:
        if self._plan.store.exists(self._name):
            return self._found_committed()
        self._lease = self._around.leases.hold(self._plan.store, self._name)
        if self._plan.store.exists(self._name):
            # Its maker released the lease between our look and our hold.
            return self._found_committed()
        if self._lease.fencing == 1:  # otherwise somebody has begun with it before us, perhaps in time
            self._require_in_time()
        choice = self._choose()
        try:
            self._write_parts(choice)
        except NothingNew as error:
            if next(iter(self._plan.store.names(self._plan.name)), None) is None:
                # Perhaps the store is a new one. What others were told of the old one holds for nobody here.
                raise PermanentError(
                    f"store {self._plan.store.name} has no set of plan {self._plan.name}, and yet {error.message}",
                    hint="touch the indicators, or set `again: true`, to have everything staged into this store",
                ) from error
            return nothing_new(self._entry, self._plan, error)
        except IntegrityError as error:
            if choice.parent is None:
                raise
            self._discard()
            logger.error(
                "parent_damaged", parent=choice.parent.backup_id, error=str(error), next="a full backup instead"
            )
            self._note_damaged([StoredSet(store=self._plan.store, manifest=choice.parent)], error)
            reason = f"set {choice.parent.backup_id}, to build upon, is damaged: {error.message}"
            self._write_parts(Choice(level=0, parent=None, reason=reason))
        return State.PRODUCED

    def commit(self) -> State | EventData:
        """Make the set exist.

        Raises LeaseLost where another worker has taken over, ParentGone where what it builds on was expired meanwhile.
        """
        if self._made is None or self._draft is None or self._lease is None:
            raise AssertionError("commit without parts: the lifecycle sends a dead worker's request back to produce")
        new = write_up(self._entry, self._plan, self._around, *self._made)
        with expiry_of_parents_is_temporary(new):
            chain = chain_documents(new, self._plan, self._around)
        files = {
            manifest.SUMS: manifest.sums(new.parts),
            manifest.GUIDE: self._plan.handler.restore_guide(chain).encode(),
        }
        self._lease.require()
        try:
            self._draft.commit(files, new.encode())
        except AlreadyCommitted:
            # Another worker was faster with the same request: its set is as good as ours.
            return self._found_committed(by_another=True)
        logger.info(
            "set_committed", store=self._plan.store.name, backup_level=new.level, bytes_out=new.counts.bytes_out
        )
        require_parents(self._around.catalog, StoredSet(store=self._plan.store, manifest=new))
        # From here on the set itself keeps others from making it; reading it again may take long.
        self._release()
        return State.STORED

    def verify(self) -> State:
        """Read what was stored again, as deep as the plan asks."""
        depth = self._plan.verify if self._entry.request.data.operation == "backup" else self._asked_depth()
        subject = self._subject = self._subject_set()
        control = self._control(Step.VERIFY)
        try:
            self._look_again(subject, depth, control)
        except IntegrityError as error:
            self._note_damaged(rotten_sets(self._around.catalog, subject, error, control), error)
            raise
        _noted(lambda: note_verified(subject.store, subject.name, depth, self._around.clock()))
        if self._entry.request.data.operation == "backup":
            self._tidy(control)
        return State.VERIFIED

    def _note_damaged(self, rotten: Sequence[StoredSet], error: IntegrityError) -> None:
        def write() -> None:
            for found in rotten:
                if found.store.exists(found.name):  # what we had just written was withdrawn
                    note_damaged(found.store, found.name, damage_depth(error), self._around.clock(), error.message)

        _noted(write)

    def _look_again(self, subject: StoredSet, depth: Depth, control: Control) -> None:
        if depth == "none":
            return
        if self._entry.request.data.operation == "verify":
            self._around.catalog.chain(subject)
        try:
            self._gently(lambda: check_parts(subject, control))
        except IntegrityError:
            if self._entry.request.data.operation == "backup":
                self._withdraw(subject)
            raise
        if depth == "deep":
            self._gently(lambda: restore_on_trial(self._around.catalog, subject, self._scratch, control))

    def _tidy(self, control: Control) -> None:
        """Let go of what the plan's retention no longer wants. Where that fails the new backup is none the worse."""
        if self._plan.retention.keeps_all:
            return
        try:
            self._gone = expire_of(self._plan, self._around, control)
        except Cancelled:
            logger.info("expiry_cut_short", next="the plan's next backup goes on with it")
        except HoldfastError as error:
            logger.warning("expiry_failed", error=str(error), next="the plan's next backup tries again")
            self._warnings = (f"old backups could not be expired: {error.message}",)

    def outcome(self) -> EventData:
        """The outcome of a request that came through; read from the store, so that a restart says the same."""
        if self._subject is None and self._entry.request.data.operation == "verify":
            self.verify()  # begun again after a crash: what was verified then is known to nobody
        subject = self._subject or self._subject_set()
        data = facts(self._around.catalog, subject.store, subject.name, verified=self._plan.verify)
        if self._entry.request.data.operation == "backup":
            untold = acknowledge(self._plan, subject, self._control(Step.CONCLUDE))
            return data.model_copy(update={**told(self._gone), "warnings": data.warnings + self._warnings + untold})
        return data.model_copy(
            update={
                "operation": "verify",
                "request_id": self._entry.request_id,
                "outcome": Word.SUCCEEDED,
                "exit_code": ExitCode.DONE,
                "verified": self._asked_depth(),
            }
        )

    def close(self) -> None:
        """Remove what is not committed, and let others make the set; where the first fails, the next sweep does it."""
        try:
            self._discard()
        except HoldfastError as error:
            logger.warning(
                "draft_left_behind", store=self._plan.store.name, error=str(error), next="the sweep removes it"
            )
        finally:
            self._release()

    def _release(self) -> None:
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def _asked_depth(self) -> Depth:
        return "deep" if self._plan.verify == "deep" else "checksums"

    def _subject_set(self) -> StoredSet:
        if self._entry.request.data.operation == "backup":
            return self._around.catalog.read(self._plan.store, self._name)
        newest_set = self._around.catalog.newest(self._plan.store, self._plan.name)
        if newest_set is None:
            raise PermanentError(f"plan {self._plan.name} has no set to verify")
        return newest_set

    def _withdraw(self, subject: StoredSet) -> None:
        # What we wrote a moment ago cannot be read back. Left in place it would be listed as a backup, and built upon.
        logger.error("set_withdrawn", store=subject.store.name, reason="it could not be read back as it was written")
        subject.store.expire(subject.name)

    def _found_committed(self, *, by_another: bool = False) -> State | EventData:
        stored = self._around.catalog.read(self._plan.store, self._name)
        if stored.manifest.request_digest != self._entry.request.content_digest:
            return EventData(
                outcome=Word.REFUSED,
                exit_code=ExitCode.CONFLICT,
                request_id=self._entry.request_id,
                backup_id=self._entry.backup_id,
                plan=self._plan.name,
                error=f"set {self._name} was made for another request of the same id",
                hint="every request needs an id of its own",
            )
        if self._entry.attempt > 1 and stored.manifest.host == self._around.node and not by_another:
            # We made it ourselves, and died before we could write that down; perhaps before we looked at its parents.
            require_parents(self._around.catalog, stored)
            return State.STORED
        # Whoever made it may have died before it was verified, and this may be the only answer the caller gets.
        depth: Depth = "none" if self._plan.verify == "none" else "checksums"
        if depth != "none":
            self._around.catalog.chain(stored)
            self._gently(lambda: check_parts(stored, self._control(Step.VERIFY)))
        # Its maker may have died before it could tell those who wait.
        untold = acknowledge(self._plan, stored, self._control(Step.CONCLUDE))
        data = facts(self._around.catalog, self._plan.store, self._name, verified=depth)
        return events.duplicate(data.model_copy(update={"warnings": data.warnings + untold}))

    def _require_in_time(self) -> None:
        # What a dead worker had begun goes on. What failed for a passing reason begins anew, which may be too late.
        if self._entry.attempt == 1 or self._entry.last_error is not None:
            policy.require_in_time(self._entry.request, self._around.clock())

    def _choose(self) -> Choice:
        made = [stored.manifest for stored in self._around.catalog.sets(self._plan.store, self._plan.name)]
        choice = choose(
            self._entry.request.data.level,
            made,
            scope=self._plan.scope,
            max_level=self._plan.highest_level,
            policy=self._plan.levels,
            now=self._around.clock(),
            damaged=damaged(self._plan.store, self._plan.name),
        )
        choice = nothing_on_expiring(choice, made, self._plan.store, self._plan.name)
        limit = self._plan.handler.max_level(self._plan.options)
        if limit is not None and choice.level > limit:
            raise LevelRefused(
                f"level {choice.level} was asked for, but as it is set up here handler {self._plan.handler.name} "
                f"makes no level above {limit}",
                hint="ask for level `auto` or `full`; `holdfast doctor` says why",
            )
        last = newest(item for item in made if item.level == choice.level)
        self._watcher.prepared(self._entry, choice, last.counts if last else None)
        return choice

    def _prepare(self, choice: Choice) -> Prepared:
        scratch = self._scratch / f"level-{choice.level}"
        scratch.mkdir()
        parent = choice.parent and StoredSet(store=self._plan.store, manifest=choice.parent)
        control = self._control(Step.PRODUCE)
        return self._plan.handler.prepare(
            Job(
                plan=self._plan.name,
                backup_id=self._entry.backup_id,
                options=self._plan.options,
                level=choice.level,
                parent=parent or None,
                scratch=scratch,
                control=control if self._lease is None else LeasedControl(control, self._lease),
                full_asked=self._entry.request.data.level == "full",
                bandwidth_bytes_per_second=self._plan.limits.bandwidth_bytes_per_second,
                last_try=self._last_try,
            )
        )

    def dry_run(self) -> tuple[Choice, Mapping[str, JSON]]:
        """What a backup would do now; nothing is written outside scratch."""
        choice = self._choose()
        return choice, self._prepare(choice).describe()

    def _write_parts(self, choice: Choice) -> None:
        prepared = self._prepare(choice)
        started = self._around.clock()
        self._draft = self._plan.store.draft(self._name)
        rate = self._plan.limits.bandwidth_bytes_per_second
        if rate is not None:
            self._draft = throttled(self._draft, Throttle(rate), self._control(Step.PRODUCE))
        draft = self._draft
        self._made = choice, self._gently(lambda: prepared.produce(draft)), started

    def _gently(self, work: Callable[[], T]) -> T:
        return gently(self._plan.name, self._plan.limits, work)

    def _discard(self) -> None:
        if self._draft is not None:
            self._draft.discard()
            self._draft = None


def _noted(write: Callable[[], None]) -> None:
    """A note in the store is worth a warning, no failure: it costs another verification, or keeps a set for longer."""
    try:
        write()
    except HoldfastError as error:
        logger.warning("verified_not_noted", error=str(error), next="the next verification of the set tries again")


def facts(catalog: Catalog, store: Store, name: SetName, *, verified: Depth = "none") -> EventData:
    """What there is to tell of a committed set. Raises SetMissing, IntegrityError, StoreUnavailable or StoreRefused."""
    content = store.read(name, manifest.MANIFEST)
    stored = catalog.read(store, name).manifest
    return events.stored(stored, digest=manifest.digest(content), store=store.name, verified=verified)
