"""Decides whether a well-formed request is allowed.

Pure. A message can only name a plan that the operator configured, and narrow it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Literal

from handlers.contract import PlanName, ProblemKind, Produced
from handlers.errors import PermanentError
from worker.intake.wire import BackupRequest

_SHOWN_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The request may be worked on."""

    plan: PlanName


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """The request is answered with `refused`."""

    reason: str
    hint: str | None = None


class SubjectUnreadable(PermanentError):
    """Files of the subject could not be read, and the plan wants all of it or nothing."""


class RequestRefused(PermanentError):
    """The policy does not allow the request."""

    exit_code = 4


def authorise(
    request: BackupRequest,
    *,
    plans: Collection[PlanName],
    reply_to_allowed: Sequence[str],
    now: datetime,
    known: bool,
) -> Allowed | Denied:
    """Whether this request may run on a worker with these enabled plans.

    One that is `known` was allowed before: neither its deadline nor a plan removed since makes a second outcome of it.
    """
    plan = PlanName(request.data.plan)
    if not known and plan not in plans:
        # The other plans are not named: the answer goes to whoever sent the message.
        return Denied(
            reason=f"this worker has no plan {plan!r}",
            hint="`holdfast config show` lists the plans and which are enabled",
        )
    if not may_answer(request, reply_to_allowed):
        return Denied(
            reason=f"answers may not be sent to {request.reply_to!r}",
            hint="the setting queue.reply_to_allowed lists what reply queues may be called",
        )
    if not known and request.data.not_after is not None and request.data.not_after < now:
        return Denied(reason=f"its deadline not_after={request.data.not_after.isoformat()} has passed")
    return Allowed(plan=plan)


def require_in_time(request: BackupRequest, now: datetime) -> None:
    """Raise RequestRefused where the request's deadline has passed before its work could begin."""
    deadline = request.data.not_after
    if deadline is not None and deadline < now:
        raise RequestRefused(f"its deadline not_after={deadline.isoformat()} passed before it could begin")


def may_answer(request: BackupRequest, reply_to_allowed: Sequence[str]) -> bool:
    """Whether an answer may go where the request wants it: a message must not write into any queue it likes."""
    return request.reply_to is None or any(fnmatchcase(request.reply_to, allowed) for allowed in reply_to_allowed)


def outcome_of(
    made: Produced, *, on_unreadable: Literal["partial", "fail"], on_changed: Literal["warn", "partial"]
) -> Literal["succeeded", "partial"]:
    """What a set is, by what is wrong with its files. Raises SubjectUnreadable where the plan wants all or nothing."""
    lost = sum(count for kind, count in made.problem_counts.items() if kind.is_loss)
    if lost and on_unreadable == "fail":
        named = "; ".join(f"{problem.path}: {problem.detail}" for problem in made.problems if problem.kind.is_loss)
        raise SubjectUnreadable(
            f"{lost} files could not be read, and the plan says on_unreadable: fail: {named[:_SHOWN_CHARACTERS]}",
            hint="let the worker read them, exclude them, or allow partial backups with on_unreadable: partial",
        )
    changed = made.problem_counts.get(ProblemKind.CHANGED, 0)
    return "partial" if lost or (changed and on_changed == "partial") else "succeeded"
