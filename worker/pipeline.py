"""Takes one request from its arrival to its outcome.

`accept` takes a delivery in: from then on the request is in the journal, and ends in an outcome. `work` does it, step
by step, as `worker.lifecycle` has them; the new state is recorded before the next step. What the steps do is in
`worker.steps`.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from loguru import logger

from handlers.contract import PlanName
from handlers.errors import HoldfastError, IntegrityError, PermanentError
from worker import disposition, lifecycle, policy
from worker.control import Watcher, WorkControl
from worker.disposition import Fail, HandBack, Retry, RetryPolicy
from worker.events import EventData, ExitCode, Word
from worker.intake import wire
from worker.intake.delivery import Delivery, Settlement
from worker.intake.held import HeldDeliveries
from worker.intake.wire import BackupRequest, MessageRefused, RequestId
from worker.journal.protocol import Attached, Begun, Conflict, Entry, Journal, Known
from worker.lifecycle import State, Step
from worker.outbox import Outbox
from worker.policy import Denied
from worker.steps import Plan, Surroundings, Work, facts, scratch_of
from worker.stores.protocol import SetName

DEATHS = 3
"""How often a worker may die over a request, however few attempts are configured: few kills are its fault."""
BUG_HINT = "this is a bug: the worker's log has the traceback"


class RequestRefused(PermanentError):
    """The policy does not allow the request."""

    exit_code = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings a request meets on its way."""

    retry: RetryPolicy
    reply_to_allowed: Sequence[str]


class Pipeline:
    """The way of every request; used by all work threads at once."""

    def __init__(
        self,
        *,
        journal: Journal,
        outbox: Outbox,
        plans: Mapping[PlanName, Plan],
        rules: Rules,
        around: Surroundings,
        held: HeldDeliveries | None,
    ) -> None:
        """`held` keeps deliveries until their outcome is announced; None settles them once they are journalled."""
        self._journal = journal
        self._outbox = outbox
        self._plans = plans
        self._rules = rules
        self._around = around
        self._held = held

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
        verdict = policy.authorise(
            request,
            plans=self._plans,
            reply_to_allowed=self._rules.reply_to_allowed,
            now=self._around.clock(),
            known=self._journal.entry(RequestId(request.request_id)) is not None,
        )
        if isinstance(verdict, Denied):
            answer = policy.may_answer(request, self._rules.reply_to_allowed)
            self._outbox.refuse(request, verdict.reason, hint=verdict.hint, exit_code=ExitCode.REFUSED, answer=answer)
            self._reject(delivery, verdict.reason)
            return None
        return self._begin(delivery, request)

    def require_allowed(self, request: BackupRequest) -> None:
        """Raise RequestRefused unless a request of somebody at the command line is allowed."""
        now = self._around.clock()
        verdict = policy.authorise(request, plans=self._plans, reply_to_allowed=(), now=now, known=False)
        if isinstance(verdict, Denied):
            raise RequestRefused(verdict.reason, hint=verdict.hint)

    def begin_manual(self, request: BackupRequest) -> Entry:
        """Take in a request that somebody waits for in this process."""
        now = self._around.clock()
        return self._journal.begin(request, intake="manual", redelivered=False, now=now).entry

    def work(self, request_id: RequestId, watcher: Watcher, cancelled: threading.Event) -> Entry:
        """Bring a request to its outcome, from wherever it stands; the caller holds the plan's lock.

        Returns the entry: concluded, or postponed after a temporary error, or as it was after a cancellation.
        """
        entry = self._journal.attempt(request_id, now=self._around.clock())
        with logger.contextualize(request_id=request_id, backup_id=entry.backup_id, plan=entry.plan):
            try:
                entry = self._resume(entry)
                plan = self._plan(entry)

                def control(step: Step) -> WorkControl:
                    return WorkControl(entry, step, watcher, cancelled)

                with (
                    scratch_of(self._around.scratch, plan.name, entry.backup_id) as scratch,
                    closing(Work(entry, plan, self._around, watcher, control, scratch)) as work,
                ):
                    while True:
                        match lifecycle.next_step(entry.state):
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
                        if isinstance(result, EventData):
                            return self._conclude(entry, result)
                        entry = self._journal.advance(entry.request_id, result, now=self._around.clock())
                        logger.info("request_advanced", state=entry.state)
            except Exception as error:  # noqa: BLE001 - the one place where every error becomes a disposition
                return self._dispose(entry, error)

    def _resume(self, entry: Entry) -> Entry:
        if entry.attempt > max(self._rules.retry.attempts, DEATHS):
            raise PermanentError(
                f"given up after {entry.attempt - 1} attempts, the last of which the worker did not survive",
                hint="its log tells what happened last; ask again with a new id when that is mended",
            )
        deadline = entry.request.data.not_after
        if entry.attempt == 1 and entry.state is State.ACCEPTED and deadline and deadline < self._around.clock():
            raise RequestRefused(f"its deadline not_after={deadline.isoformat()} passed before it could begin")
        state = lifecycle.after_crash(entry.state)
        if state is not entry.state:
            return self._journal.advance(entry.request_id, state, now=self._around.clock())
        return entry

    def _plan(self, entry: Entry) -> Plan:
        plan = self._plans.get(entry.plan)
        if plan is None:
            raise PermanentError(f"plan {entry.plan!r} was removed or disabled after the request was accepted")
        return plan

    def _conclude(self, entry: Entry, data: EventData) -> Entry:
        data = data.model_copy(update={"attempt": entry.attempt})
        concluded = self._outbox.conclude(entry, data)
        logger.info("request_concluded", outcome=data.outcome, exit_code=data.exit_code, error=data.error)
        return concluded

    def give_up(self, entry: Entry, error: Exception, exit_code: int) -> Entry:
        """Conclude with this error. Where the set was committed before it, the outcome says where it is."""
        current = self._journal.entry(entry.request_id) or entry
        return self._conclude(current, _failure(current, error, exit_code, self._committed(current)))

    def _committed(self, entry: Entry) -> EventData | None:
        plan = self._plans.get(entry.plan)
        if plan is None or entry.state not in {State.STORED, State.VERIFIED}:
            return None
        try:
            return facts(self._around.catalog, plan.store, SetName(plan=plan.name, backup_id=entry.backup_id))
        except HoldfastError:
            return None  # withdrawn, or the store is away: nothing can be said of it

    def _dispose(self, entry: Entry, error: Exception) -> Entry:
        # S311: jitter keeps workers apart, it keeps no secret.
        verdict = disposition.disposition(
            error,
            attempt=entry.attempt,
            policy=self._rules.retry,
            jitter=random.random(),  # noqa: S311
        )
        match verdict:
            case HandBack():
                logger.info("request_handed_back", next="the next start goes on with it")
                return self._journal.hand_back(entry.request_id, now=self._around.clock())
            case Retry(after=after):
                now = self._around.clock()
                _log(error, "request_postponed", next=f"tried again in {after.total_seconds():.0f} s")
                return self._journal.postpone(entry.request_id, until=now + after, error=str(error), now=now)
            case Fail(exit_code=exit_code):
                _log(error, "request_failed", next="nothing more is tried; the outcome is announced")
                return self.give_up(entry, error, exit_code)

    def _promise(self, delivery: Delivery, entry: Entry) -> None:
        if self._held is None:
            delivery.settle(Settlement.ACCEPT)
            return
        self._held.hold(entry.request_id, delivery)
        now = self._journal.entry(entry.request_id)
        if now is not None and now.state is State.ANNOUNCED:
            self._held.settle(entry.request_id)  # it came to its end between the journal's answer and our hold

    def _reject(self, delivery: Delivery, reason: str) -> None:
        logger.warning("delivery_refused", intake=delivery.intake, reason=reason)
        delivery.settle(Settlement.REJECT, reason)

    def _begin(self, delivery: Delivery, request: BackupRequest) -> Entry | None:
        now = self._around.clock()
        match self._journal.begin(request, intake=delivery.intake, redelivered=delivery.redelivered, now=now):
            case Begun(entry=entry):
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
