"""Does the steps of one request: what `worker.pipeline` decides, this carries out.

Each step returns the state to record, or the outcome that ends the request early. If we die inside a step, the step is
begun again after the restart, and finds what the dead one left: a draft that is swept, or a committed set that is taken
for what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from loguru import logger
from pydantic import BaseModel

from config.hours import Hours
from config.settings import Limits
from handlers.contract import JSON, BackupId, Handler, Job, PlanName, Prepared, Produced
from handlers.errors import HoldfastError, IntegrityError, PermanentError, TemporaryError
from handlers.tools.clock import Clock
from handlers.tools.priority import stand_back
from handlers.tools.removal import remove_tree
from worker import events, manifest, policy
from worker.catalog import Catalog, StoredSet
from worker.control import Watcher, WorkControl
from worker.events import EventData, ExitCode, Word
from worker.journal.protocol import Entry
from worker.lease import Lease, LeasedControl, Leases
from worker.levels import Choice, choose, newest
from worker.lifecycle import State, Step
from worker.manifest import Counts, Manifest, PartRecord, ProblemRecord
from worker.stores.protocol import AlreadyCommitted, Draft, SetName, Store
from worker.throttle import Throttle, throttled
from worker.verify import Depth, check_parts, restore_on_trial

NO_LIMITS = Limits()
EMPTY = "the subject is empty"
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One plan of the configuration, with everything found that it names."""

    name: PlanName
    handler: Handler
    options: BaseModel
    store: Store
    verify: Depth
    max_level: int
    labels: Mapping[str, str]
    priority: int = 5
    hours: tuple[Hours, ...] = ()
    """When a worker may begin its requests; empty for always."""
    limits: Limits = NO_LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all requests of a worker share."""

    catalog: Catalog
    node: str
    scratch: Path
    config_digest: str
    clock: Clock
    leases: Leases


class MakeControl(Protocol):
    """Gives a step its control."""

    def __call__(self, step: Step) -> WorkControl:
        """The control of this step."""


class Work:
    """The steps of one request, with what they hand each other."""

    def __init__(
        self, entry: Entry, plan: Plan, around: Surroundings, watcher: Watcher, control: MakeControl, scratch: Path
    ) -> None:
        self._entry = entry
        self._plan = plan
        self._around = around
        self._watcher = watcher
        self._control = control
        self._scratch = scratch
        self._name = SetName(plan=plan.name, backup_id=entry.backup_id)
        self._lease: Lease | None = None
        self._draft: Draft | None = None
        self._subject: StoredSet | None = None
        self._made: tuple[Choice, Produced, datetime] | None = None

    def produce(self) -> State | EventData:
        """Write the parts of the set, unless it is there already.

        Raises LeaseTaken, with nothing touched, while another worker makes it, RequestRefused where it is too late.
        """
        if self._entry.request.data.operation == "verify":
            self._require_in_time()
            return State.STORED
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
        except IntegrityError as error:
            if choice.parent is None:
                raise
            self._discard()
            logger.error(
                "parent_damaged", parent=choice.parent.backup_id, error=str(error), next="a full backup instead"
            )
            reason = f"set {choice.parent.backup_id}, to build upon, is damaged: {error.message}"
            self._write_parts(Choice(level=0, parent=None, reason=reason))
        return State.PRODUCED

    def commit(self) -> State | EventData:
        """Make the set exist. Raises LeaseLost where another worker has taken over."""
        if self._made is None or self._draft is None or self._lease is None:
            raise AssertionError("commit without parts: the lifecycle sends a dead worker's request back to produce")
        new = self._manifest(*self._made)
        chain = self._chain_documents(new)
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
        # From here on the set itself keeps others from making it; reading it again may take long.
        self._release()
        return State.STORED

    def verify(self) -> State:
        """Read what was stored again, as deep as the plan asks."""
        depth = self._plan.verify if self._entry.request.data.operation == "backup" else self._asked_depth()
        subject = self._subject = self._subject_set()
        control = self._control(Step.VERIFY)
        if depth != "none":
            try:
                self._gently(lambda: check_parts(subject, control))
            except IntegrityError:
                if self._entry.request.data.operation == "backup":
                    self._withdraw(subject)
                raise
        if depth == "deep":
            self._gently(lambda: restore_on_trial(self._around.catalog, subject, self._scratch, control))
        return State.VERIFIED

    def outcome(self) -> EventData:
        """The outcome of a request that came through; read from the store, so that a restart says the same."""
        if self._subject is None and self._entry.request.data.operation == "verify":
            self.verify()  # begun again after a crash: what was verified then is known to nobody
        subject = self._subject or self._subject_set()
        data = facts(self._around.catalog, subject.store, subject.name, verified=self._plan.verify)
        if self._entry.request.data.operation == "backup":
            return data
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
            return State.STORED  # we made it ourselves, and died before we could write that down
        # Whoever made it may have died before it was verified, and this may be the only answer the caller gets.
        depth: Depth = "none" if self._plan.verify == "none" else "checksums"
        if depth != "none":
            self._gently(lambda: check_parts(stored, self._control(Step.VERIFY)))
        return events.duplicate(facts(self._around.catalog, self._plan.store, self._name, verified=depth))

    def _require_in_time(self) -> None:
        # What a dead worker had begun goes on. What failed for a passing reason begins anew, which may be too late.
        if self._entry.attempt == 1 or self._entry.last_error is not None:
            policy.require_in_time(self._entry.request, self._around.clock())

    def _choose(self) -> Choice:
        made = [stored.manifest for stored in self._around.catalog.sets(self._plan.store, self._plan.name)]
        limit = self._plan.handler.max_level(self._plan.options)
        highest = self._plan.max_level if limit is None else min(limit, self._plan.max_level)
        choice = choose(self._entry.request.data.level, made, scope=self._scope(), max_level=highest)
        last = newest(item for item in made if item.level == choice.level)
        self._watcher.prepared(self._entry, choice, last.counts if last else None)
        return choice

    def _scope(self) -> str:
        return manifest.scope_digest(self._plan.handler.name, self._plan.handler.scope(self._plan.options))

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
        """Do the work in a thread that stands back as the plan says, with all that it starts.

        Not in the caller's: there is no way back for a thread, and the caller holds the journal's lock now and then,
        for which everybody else would have to wait.
        """
        limits = self._plan.limits
        if not limits.nice and limits.io_class == "normal":
            return work()

        def standing_back() -> T:
            for trouble in stand_back(limits.nice, limits.io_class):
                logger.warning("limit_not_set", error=trouble, next="the work goes on without it")
            return work()

        with ThreadPoolExecutor(1, thread_name_prefix=f"gently-{self._plan.name}") as thread:
            # With the caller's context: the log's lines are to tell the request.
            return thread.submit(copy_context().run, standing_back).result()

    def _discard(self) -> None:
        if self._draft is not None:
            self._draft.discard()
            self._draft = None

    def _manifest(self, choice: Choice, made: Produced, started: datetime) -> Manifest:
        siblings = self._around.catalog.sets(self._plan.store, self._plan.name)
        last = siblings[-1] if siblings else None
        request = self._entry.request
        partial = any(kind.is_loss and count for kind, count in made.problem_counts.items())
        parts = tuple(PartRecord.of(part) for part in made.parts)
        return Manifest(
            backup_id=self._entry.backup_id,
            request_id=request.request_id,
            request_digest=request.content_digest,
            plan=self._plan.name,
            handler=self._plan.handler.name,
            subject=self._plan.handler.subject(self._plan.options),
            scope=self._scope(),
            level=choice.level,
            parent=choice.parent.backup_id if choice.parent else None,
            level_reason=choice.reason,
            host=self._around.node,
            started=started,
            finished=self._around.clock(),
            outcome="partial" if partial else "succeeded",
            counts=Counts(files=made.files, bytes_in=made.bytes_in, bytes_out=sum(part.bytes for part in parts)),
            parts=parts,
            excluded=made.excluded,
            problems=tuple(ProblemRecord(kind=p.kind, path=p.path, detail=p.detail) for p in made.problems),
            problem_counts={kind.value: count for kind, count in made.problem_counts.items()},
            warnings=_warnings(made, last.manifest if last else None),
            tools=dict(made.tools),
            labels={**request.data.labels, **self._plan.labels},
            reason=request.data.reason,
            config_digest=self._around.config_digest,
            previous=manifest.digest(self._plan.store.read(last.name, manifest.MANIFEST)) if last else None,
        )

    def _chain_documents(self, new: Manifest) -> list[Mapping[str, JSON]]:
        older: tuple[Manifest, ...] = ()
        if new.parent is not None:
            parent = SetName(plan=self._plan.name, backup_id=BackupId(new.parent))
            chain = self._around.catalog.chain(self._around.catalog.read(self._plan.store, parent))
            older = tuple(stored.manifest for stored in chain)
        return [item.model_dump(mode="json") for item in (*older, new)]


def facts(catalog: Catalog, store: Store, name: SetName, *, verified: Depth = "none") -> EventData:
    """What there is to tell of a committed set. Raises SetMissing, IntegrityError, StoreUnavailable or StoreRefused."""
    content = store.read(name, manifest.MANIFEST)
    stored = catalog.read(store, name).manifest
    return events.stored(stored, digest=manifest.digest(content), store=store.name, verified=verified)


def _warnings(made: Produced, last: Manifest | None) -> tuple[str, ...]:
    if made.empty and last is not None and not any(text.startswith(EMPTY) for text in last.warnings):
        return (f"{EMPTY}; it was not when set {last.backup_id} was made: is something not mounted?",)
    return ()


@contextmanager
def scratch_of(root: Path, plan: PlanName, backup_id: str) -> Iterator[Path]:
    """An empty directory for one request; the caller holds the plan's lock, so what is there is a dead worker's."""
    mine = root / plan
    directory = mine / backup_id
    try:
        remove_tree(mine)
        directory.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise TemporaryError(
            f"scratch directory {directory} cannot be made: {error.strerror}",
            hint="look at the disk of state_dir: room, rights, health",
        ) from error
    try:
        yield directory
    finally:
        try:
            remove_tree(mine)
        except OSError as error:
            logger.warning("scratch_left_behind", path=str(mine), error=str(error), next="the plan's next backup tries")
