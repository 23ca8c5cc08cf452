"""Takes one request from its arrival to its outcome.

`accept` takes a delivery in: from then on the request is in the journal, and ends in an outcome. `work` does it, step
by step, as `worker.lifecycle` has them; the new state is recorded before the next step. What the steps do is in
`worker.steps`.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from loguru import logger

from handlers.contract import PlanName
from handlers.errors import HoldfastError, IntegrityError, PermanentError
from worker import disposition, lifecycle, policy
from worker.control import Watcher, WorkControl
from worker.disposition import Fail, HandBack, Retry, RetryPolicy, Wait
from worker.events import EventData, ExitCode, Word
from worker.intake import wire
from worker.intake.delivery import Delivery, Settlement
from worker.intake.held import HeldDeliveries
from worker.intake.wire import BackupRequest, MessageRefused, RequestId
from worker.journal.protocol import Attached, Begun, Conflict, Entry, Journal, JournalUnavailable, Known
from worker.lifecycle import State, Step
from worker.outbox import Outbox
from worker.plan import Plan, Surroundings
from worker.policy import Denied, RequestRefused
from worker.scratch import scratch_of
from worker.steps import Work, facts
from worker.store_watch import StoreWatch
from worker.stores.protocol import SetName, StoreUnavailable

DEATHS = 3
"""How often a worker may die over a request, however few attempts are configured: few kills are its fault."""
BUG_HINT = "this is a bug: the worker's log has the traceback"


class WorkerDied(PermanentError):
    """The request's workers died over it, one after the other: it is parked until somebody asks again."""

    exit_code = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings a request meets on its way."""

    retry: RetryPolicy
    reply_to_allowed: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """What the configuration has to say about requests; replaced as a whole when it is read again."""

    plans: Mapping[PlanName, Plan]
    rules: Rules
    around: Surroundings


class Pipeline:
    """The way of every request; used by all work threads at once."""

    def __init__(
        self,
        configured: Configured,
        *,
        journal: Journal,
        outbox: Outbox,
        stores: StoreWatch,
        held: HeldDeliveries | None,
    ) -> None:
        """`held` keeps deliveries until their outcome is announced; None settles them once they are journalled."""
        self._configured = configured
        self._journal = journal
        self._outbox = outbox
        self._stores = stores
        self._held = held

    def use(self, configured: Configured) -> None:
        """Go by this from the next delivery, and the next attempt, on."""
        self._configured = configured

    def plan(self, name: PlanName) -> Plan | None:
        """The plan of this name as it is configured now."""
        return self._configured.plans.get(name)

    def accept(self, delivery: Delivery) -> Entry | None:
        """Take a delivery in; returns the entry when there is new work to do.

        On return the delivery is settled, or held until its outcome is out. Raises JournalUnavailable, with nothing
        done, when nothing can be promised now.
        """
        try:
            request = wire.parse(
                delivery.body,
                message_id=delivery.message_id,
                reply_to=delivery.reply_to,
                correlation_id=delivery.correlation_id,
            )
        except MessageRefused as error:
            self._outbox.refuse_message(delivery.body, error)
            self._reject(delivery, str(error))
            return None
        configured = self._configured
        verdict = policy.authorise(
            request,
            plans=configured.plans,
            reply_to_allowed=configured.rules.reply_to_allowed,
            now=self._now(),
            known=self._journal.entry(RequestId(request.request_id)) is not None,
        )
        if isinstance(verdict, Denied):
            answer = policy.may_answer(request, configured.rules.reply_to_allowed)
            self._outbox.refuse(request, verdict.reason, hint=verdict.hint, exit_code=ExitCode.REFUSED, answer=answer)
            self._reject(delivery, verdict.reason)
            return None
        return self._begin(delivery, request)

    def require_allowed(self, request: BackupRequest) -> None:
        """Raise RequestRefused unless a request of somebody at the command line is allowed."""
        plans = self._configured.plans
        verdict = policy.authorise(request, plans=plans, reply_to_allowed=(), now=self._now(), known=False)
        if isinstance(verdict, Denied):
            raise RequestRefused(verdict.reason, hint=verdict.hint)

    def begin_manual(self, request: BackupRequest) -> Entry:
        """Take in a request that somebody waits for in this process."""
        return self._journal.begin(request, intake="manual", redelivered=False, now=self._now()).entry

    def work(self, request_id: RequestId, watcher: Watcher, cancelled: threading.Event) -> Entry:
        """Bring a request to its outcome, from wherever it stands; the caller holds the plan's lock.

        Returns the entry: concluded, or postponed after a temporary error, or as it was after a cancellation.
        """
        entry = self._journal.attempt(request_id, now=self._now())
        configured = self._configured
        plan: Plan | None = None
        with logger.contextualize(request_id=request_id, backup_id=entry.backup_id, plan=entry.plan):
            try:
                entry = self._resume(entry, configured.rules.retry)
                plan = _plan(entry, configured.plans)
                return self._do(entry, plan, configured.around, watcher, cancelled)
            except Exception as error:  # noqa: BLE001 - the one place where every error becomes a disposition
                current = self._journal.entry(request_id) or entry
                return self._dispose(current, error, plan)

    def _do(
        self, entry: Entry, plan: Plan, around: Surroundings, watcher: Watcher, cancelled: threading.Event
    ) -> Entry:
        def control(step: Step) -> WorkControl:
            return WorkControl(entry, step, watcher, cancelled)

        with (
            scratch_of(around.scratch, plan.name, entry.backup_id) as scratch,
            closing(Work(entry, plan, around, watcher, control, scratch, last_try=self._is_last_try(entry))) as work,
        ):
            while True:
                step = lifecycle.next_step(entry.state)
                match step:
                    case Step.PRODUCE:
                        result = work.produce()
                    case Step.COMMIT:
                        result = work.commit()
                    case Step.VERIFY:
                        result = work.verify()
                    case Step.CONCLUDE:
                        result = work.outcome()
                    case Step.ANNOUNCE | Step.NOTHING:
                        return entry
                if step is not Step.PRODUCE or isinstance(result, EventData):
                    self._stores.worked(plan.store.name)  # a draft alone may still fail at its commit
                if isinstance(result, EventData):
                    return self._conclude(entry, result)
                entry = self._journal.advance(entry.request_id, result, now=self._now())
                logger.info("request_advanced", state=entry.state.value)

    def _is_last_try(self, entry: Entry) -> bool:
        deadline = entry.request.data.not_after
        left = None if deadline is None else deadline - self._now()
        return disposition.is_last_try(entry.attempt, self._configured.rules.retry, left)

    def _now(self) -> datetime:
        return self._configured.around.clock()

    def _resume(self, entry: Entry, retry: RetryPolicy) -> Entry:
        if entry.attempt > max(retry.attempts, DEATHS):
            raise WorkerDied(
                f"given up after {entry.attempt - 1} attempts, the last of which the worker did not survive",
                hint="the worker's log tells what happened last; then `holdfast requests requeue` asks again",
            )
        state = lifecycle.after_crash(entry.state)
        if state is not entry.state:
            return self._journal.advance(entry.request_id, state, now=self._now())
        return entry

    def _conclude(self, entry: Entry, data: EventData, *, idle: bool = False) -> Entry:
        data = data.model_copy(update={"attempt": entry.attempt})
        concluded = self._outbox.conclude(entry, data, idle=idle)
        logger.info("request_concluded", outcome=data.outcome.value, exit_code=data.exit_code, error=data.error)
        return concluded

    def give_up(
        self, entry: Entry, error: Exception, exit_code: int, *, plan: Plan | None = None, idle: bool = False
    ) -> Entry:
        """Conclude with this error. Where the set was committed before it, the outcome says where it is.

        `plan` is the one that the work went by, the configured one where none is given.

        With `idle`, raises IllegalMove where somebody may be working on the request.
        """
        current = self._journal.entry(entry.request_id) or entry
        return self._conclude(current, _failure(current, error, exit_code, self._committed(current, plan)), idle=idle)

    def _committed(self, entry: Entry, plan: Plan | None) -> EventData | None:
        plan = plan or self._configured.plans.get(entry.plan)
        if plan is None or entry.state not in {State.STORED, State.VERIFIED}:
            return None
        try:
            return facts(
                self._configured.around.catalog, plan.store, SetName(plan=plan.name, backup_id=entry.backup_id)
            )
        except HoldfastError:
            return None  # withdrawn, or the store is away: nothing can be said of it

    def _dispose(self, entry: Entry, error: Exception, plan: Plan | None) -> Entry:
        now = self._now()
        deadline = entry.request.data.not_after
        # S311: jitter keeps workers apart, it keeps no secret.
        verdict = disposition.disposition(
            error,
            attempt=entry.attempt,
            policy=self._configured.rules.retry,
            jitter=random.random(),  # noqa: S311
            waited=now - (entry.waiting_since or now),
            left=None if deadline is None else deadline - now,
        )
        if isinstance(error, StoreUnavailable) and plan is not None:
            self._stores.failed(plan.store.name, error, plan.name)
        match verdict:
            case HandBack():
                logger.info("request_handed_back", next="the next start goes on with it")
                return self._journal.hand_back(entry.request_id, now=now)
            case Wait(after=after):
                # Once for each cause: a request may wait for its store for a day.
                log = logger.debug if entry.last_error == str(error) else logger.info
                log("request_waits", error=str(error), next=f"looked at again in {after.total_seconds():.0f} s")
                waiting = self._journal.wait(entry.request_id, until=now + after, error=str(error), now=now)
                self._defer(entry, after)
                return waiting
            case Retry(after=after):
                _log(error, "request_postponed", next=f"tried again in {after.total_seconds():.0f} s")
                postponed = self._journal.postpone(entry.request_id, until=now + after, error=str(error), now=now)
                self._defer(entry, after)
                return postponed
            case Fail(exit_code=exit_code):
                _log(error, "request_failed", next="nothing more is tried; the outcome is announced")
                return self.give_up(entry, error, exit_code, plan=plan)

    def _defer(self, entry: Entry, after: timedelta) -> None:
        if self._held is not None:
            self._held.defer(entry.request_id, after)

    def _promise(self, delivery: Delivery, entry: Entry) -> None:
        if self._held is None:
            delivery.settle(Settlement.ACCEPT)
            return
        self._held.hold(entry.request_id, delivery)
        if entry.retry_at is not None and (left := entry.retry_at - self._now()) > timedelta():
            self._held.defer(entry.request_id, left)
        with suppress(JournalUnavailable):  # the request is taken in: the worker looks again after a while
            now = self._journal.entry(entry.request_id)
            if now is not None and now.state is State.ANNOUNCED:
                self._held.settle(entry.request_id)  # it came to its end between the journal's answer and our hold

    def _reject(self, delivery: Delivery, reason: str) -> None:
        logger.warning("delivery_refused", intake=delivery.intake, reason=reason)
        delivery.settle(Settlement.REJECT, reason)

    def _begin(self, delivery: Delivery, request: BackupRequest) -> Entry | None:
        match self._journal.begin(request, intake=delivery.intake, redelivered=delivery.redelivered, now=self._now()):
            case Begun(entry=entry):
                logger.info("request_accepted", request_id=entry.request_id, plan=entry.plan, intake=delivery.intake)
                self._promise(delivery, entry)
                return entry
            case Attached(entry=entry):
                self._promise(delivery, entry)
            case Known(entry=entry):
                self._outbox.answer_again(request, entry, redelivered=delivery.redelivered)
                self._promise(delivery, entry)
            case Conflict(entry=entry):
                reason = f"another request has the id {entry.request_id!r} already"
                hint = "every request needs an id of its own; the first one stands"
                self._outbox.refuse(request, reason, hint=hint, exit_code=ExitCode.CONFLICT, answer=True)
                self._reject(delivery, reason)
        return None


def _plan(entry: Entry, plans: Mapping[PlanName, Plan]) -> Plan:
    plan = plans.get(entry.plan)
    if plan is None:
        raise PermanentError(f"plan {entry.plan!r} was removed or disabled after the request was accepted")
    return plan


def _failure(entry: Entry, error: Exception, exit_code: int, committed: EventData | None) -> EventData:
    failed = EventData(
        outcome=Word.REFUSED if exit_code == ExitCode.REFUSED else Word.FAILED,
        exit_code=exit_code,
        request_id=entry.request_id,
        backup_id=entry.backup_id,
        plan=entry.plan,
        operation=entry.request.data.operation,
        # Messages of the system may quote names that are no UTF-8, which JSON does not take.
        error=_clean(error.message if isinstance(error, HoldfastError) else f"{type(error).__name__}: {error}"),
        hint=error.hint and _clean(error.hint) if isinstance(error, HoldfastError) else BUG_HINT,
        labels=entry.request.data.labels,
    )
    if committed is None:
        return failed
    told = {"outcome", "exit_code", "error", "hint", "attempt"}
    return committed.model_copy(update={name: getattr(failed, name) for name in told})


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _log(error: Exception, name: str, **facts: str) -> None:
    if isinstance(error, HoldfastError):
        level = "ERROR" if isinstance(error, IntegrityError) else "WARNING"
        logger.log(level, name, error=str(error), **facts)
    else:
        logger.opt(exception=error).error(name, error=f"{type(error).__name__}: {error}", **facts)
