"""Looks over the requests in the journal, asks again for one, or drops one; beside a running worker or without one."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from config.settings import Settings
from handlers.contract import PlanName
from handlers.errors import HoldfastError, PermanentError, TemporaryError
from handlers.tools.lock import Lock
from worker import policy
from worker.app import App, open_journal
from worker.events import ExitCode
from worker.intake.wire import BackupRequest, RequestId
from worker.journal.protocol import Entry, Journal
from worker.journal.standing import EVERY, Standing
from worker.lifecycle import IllegalMove
from worker.policy import Denied, RequestRefused
from worker.scheduler import plan_lock
from worker.situation import Scene, Seen, Situation, ended, see

PAGE = 200
"""How many requests are in memory at once, however many there are."""

STATES = {
    "waiting": frozenset({Standing.UNFINISHED}),
    "running": frozenset({Standing.UNFINISHED}),
    "done": frozenset({Standing.DONE}),
    "failed": frozenset({Standing.FAILED, Standing.PARKED}),
    "parked": frozenset({Standing.PARKED}),
    "all": EVERY,
}
"""What may be asked for, and the standings in which it is found."""
OPEN = frozenset({Standing.UNFINISHED, Standing.PARKED})
"""What a person may want to do something about."""

_NUMBERED = re.compile(r"(?P<first>.+)~(?P<number>[1-9][0-9]{0,8})")
_ASKED_AGAIN = "asked again for "
_MOST_REASON = 1024


class NoSuchRequest(PermanentError):
    """The journal does not know the request."""

    exit_code = 2


class Moved(TemporaryError):
    """The request is no longer, or not now, where the command needs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A request that asks once more for what another one asked for."""

    entry: Entry
    instead_of: Entry
    dropped_deadline: datetime | None
    """Of the other, where it had passed: nobody could have met it any more."""


def the_journal(settings: Settings) -> Journal:
    """The journal, open. Raises PermanentError where there is none, and what opening it raises."""
    journal = open_journal(settings)
    if journal is None:
        raise PermanentError(
            f"there is no journal in {settings.state_dir}",
            hint="no worker has run with this state directory yet; compare state_dir with the worker's",
        )
    return journal


def find(journal: Journal, request_id: str) -> Entry:
    """The request of this id. Raises NoSuchRequest."""
    entry = journal.entry(RequestId(request_id))
    if entry is None:
        raise NoSuchRequest(
            f"the journal knows no request {request_id!r}",
            hint="`holdfast requests list --state all` lists those it knows; old ones are forgotten after a while",
        )
    return entry


def entries(journal: Journal, standings: frozenset[Standing], plan: str | None) -> Iterator[Entry]:
    """The requests that stand so, newest first, read page by page."""
    before: int | None = None
    while True:
        page = journal.page(standings, limit=PAGE, plan=None if plan is None else PlanName(plan), before=before)
        yield from page.entries
        if page.older is None:
            return
        before = page.older


def look_over(journal: Journal, around: Scene, state: str | None, plan: str | None) -> Iterator[Seen]:
    """The requests in this state (see STATES), newest first; without one those that are open or parked."""
    for entry in entries(journal, OPEN if state is None else STATES[state], plan):
        seen = see(entry, around)
        if state not in {"waiting", "running"} or (state == "running") == (seen.situation is Situation.RUNNING):
            yield seen


def ask_again(settings: Settings, journal: Journal, request_id: str, *, now: datetime) -> Again:
    """Put a request into the journal that asks for the same as this one, or as the last that was asked instead of it.

    It has an id of its own, since a request has one outcome. Raises NoSuchRequest, RequestRefused where a request of
    today could not ask for it, and PermanentError where there is nothing to ask again for.
    """
    named = find(journal, request_id)
    old = _last(journal, named)
    _require_ended_badly(old, named)
    data = old.request.data
    passed = data.not_after if data.not_after is not None and data.not_after < now else None
    request = BackupRequest(
        request_id=_free_id(journal, old),
        data=data.model_copy(
            update={"reason": _reason(old), "not_after": None if passed is not None else data.not_after}
        ),
        reply_to=old.request.reply_to,
        correlation_id=old.request.correlation_id,
    )
    verdict = policy.authorise(
        request,
        plans=[PlanName(name) for name, plan in settings.plans.items() if plan.enabled],
        reply_to_allowed=settings.queue.reply_to_allowed if settings.queue else (),
        now=now,
        known=False,
    )
    if isinstance(verdict, Denied):
        raise RequestRefused(f"request {old.request_id} cannot be asked again: {verdict.reason}", hint=verdict.hint)
    try:
        entry = journal.begin_again(request, instead_of=old.request_id, intake="manual", now=now)
    except IllegalMove as error:
        raise Moved(
            f"request {old.request_id} changed in this moment: {error.message}", hint="look at it, then decide again"
        ) from error
    return Again(entry=entry, instead_of=old, dropped_deadline=passed)


def require_open(entry: Entry) -> None:
    """Raise PermanentError where the request has its outcome already."""
    if entry.outcome is not None:
        raise PermanentError(
            f"request {entry.request_id} has its outcome already: {ended(entry)}",
            hint="there is nothing to drop any more",
        )


def drop(app: App, entry: Entry) -> Entry:
    """Conclude a request that nobody works on as failed, so that whoever asked for it hears that nothing comes.

    Its events are in the outbox on return. Raises Moved while somebody works on it, PermanentError where it has its
    outcome already.
    """
    who = f"{user()}@{app.settings.node}"
    dropped = PermanentError(
        f"dropped by {who}", hint=f"`holdfast requests requeue '{entry.request_id}'` asks for it again"
    )
    lock = _try_hold(app.settings, entry.plan)
    try:
        # Without the lock somebody works on the plan, perhaps for hours, but not on what is put off or not begun: the
        # journal looks at that and concludes in one step, and no attempt begins on what is concluded.
        return app.pipeline.give_up(entry, dropped, ExitCode.INTERRUPTED, idle=lock is None)
    except IllegalMove as error:
        require_open(find(app.journal, entry.request_id))
        raise Moved(
            f"request {entry.request_id} is being worked on",
            hint="wait for its end, or stop the worker: it hands the request back, then it can be dropped",
        ) from error
    finally:
        if lock is not None:
            lock.release()


def each(todo: Iterator[Entry], act: Callable[[Entry], None], failed: Callable[[Entry, HoldfastError], None]) -> int:
    """Do something for each of many; says how often it succeeded. One error does not keep the others from it."""
    done = 0
    for entry in todo:
        try:
            act(entry)
        except (PermanentError, Moved) as error:
            failed(entry, error)
        else:
            done += 1
    return done


def _last(journal: Journal, entry: Entry) -> Entry:
    while entry.again is not None and (later := journal.entry(entry.again)) is not None:
        entry = later
    return entry


def _require_ended_badly(entry: Entry, named: Entry) -> None:
    name = f"request {named.request_id}"
    if entry is not named:
        name += f" was asked again as {entry.request_id}, which"
    if entry.outcome is None:
        raise PermanentError(
            f"{name} has no outcome yet",
            hint=f"`holdfast requests show '{entry.request_id}'` tells what happens next to it",
        )
    if ended(entry) is Situation.SUCCEEDED:
        raise PermanentError(f"{name} has succeeded", hint=f"`holdfast request {entry.plan}` asks for another backup")


def _free_id(journal: Journal, old: Entry) -> str:
    first, number = _split(old.request_id)
    # Beyond a number that was used and forgotten: its set may still be there.
    number = max(number, _split(old.again)[1] if old.again is not None else 1) + 1
    while journal.entry(RequestId(f"{first}~{number}")) is not None:
        number += 1
    return f"{first}~{number}"


def _split(request_id: str) -> tuple[str, int]:
    numbered = _NUMBERED.fullmatch(request_id)
    return (numbered["first"], int(numbered["number"])) if numbered else (request_id, 1)


def _reason(old: Entry) -> str:
    reason = old.request.data.reason or ""
    if reason.startswith(_ASKED_AGAIN):
        reason = reason.partition(": ")[2]
    return f"{_ASKED_AGAIN}{old.request_id}{': ' if reason else ''}{reason}"[:_MOST_REASON]


def _try_hold(settings: Settings, plan: PlanName) -> Lock | None:
    path = plan_lock(settings.state_dir, plan)
    try:
        return Lock.try_hold(path)
    except OSError as error:
        raise TemporaryError(
            f"lock {path} cannot be opened: {error.strerror}", hint="run as the user that runs the worker"
        ) from error


def user() -> str:
    """Who runs this process, for the record of what a person did."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
