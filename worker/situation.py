"""Says in an operator's words where a request stands, and what happens to it next."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from enum import StrEnum

from pydantic import ValidationError

from config.hours import Hours, parse_hours
from config.settings import Settings
from handlers.tools.clock import Clock
from worker import health
from worker.app import zone_of
from worker.events import EventData, Word
from worker.health import STALE, Health
from worker.journal.protocol import Entry
from worker.journal.standing import Standing
from worker.lifecycle import State
from worker.overview import running
from worker.windows import opens_at


class Situation(StrEnum):
    """Where a request stands."""

    WAITING = "waiting"
    POSTPONED = "postponed"
    WAITING_FOR_STORE = "waiting for its store"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    REFUSED = "refused"
    PARKED = "parked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request at one moment."""

    entry: Entry
    situation: Situation
    announced: bool
    """False where it has an outcome whose events somebody has yet to take."""
    outcome: EventData | None
    next: str
    """What happens next; empty where nothing does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredPlan:
    """What the configuration says about a plan."""

    store: str
    hours: Sequence[Hours]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a request's situation depends on besides itself."""

    plans: Mapping[str, ConfiguredPlan]
    """The enabled ones."""
    busy: Collection[str]
    """Plans that a process of this host works on."""
    worker: Health | None
    """The worker's last word; None where none runs."""
    patience: timedelta
    now: datetime
    zone: tzinfo


def scene(settings: Settings, clock: Clock) -> Scene:
    """Look around; changes nothing."""
    now = clock()
    worker, silent = health.look(settings.state_dir, now=now) or (None, timedelta())
    return Scene(
        plans={
            name: ConfiguredPlan(
                store=settings.store_of(name)[0], hours=tuple(parse_hours(text) for text in plan.allowed_hours)
            )
            for name, plan in settings.plans.items()
            if plan.enabled
        },
        busy=frozenset(running(settings.state_dir, settings.plans)),
        worker=worker if silent < STALE else None,
        patience=timedelta(seconds=settings.retry.patience_seconds),
        now=now,
        zone=zone_of(settings),
    )


def see(entry: Entry, around: Scene) -> Seen:
    """Where the request stands."""
    if entry.outcome is None:
        situation, following = _open(entry, around)
        return Seen(entry=entry, situation=situation, announced=True, outcome=None, next=following)
    outcome = outcome_of(entry)
    announced = entry.state is State.ANNOUNCED
    situation = ended(entry)
    following = _afterwards(entry, situation, outcome)
    if not announced:
        following = "; ".join(filter(None, ("its outcome waits until somebody takes it", following)))
    return Seen(entry=entry, situation=situation, announced=announced, outcome=outcome, next=following)


def outcome_of(entry: Entry) -> EventData | None:
    """The request's outcome; None where it has none, or one that a newer holdfast wrote."""
    if entry.outcome is None:
        return None
    try:
        return EventData.model_validate_json(entry.outcome)
    except ValidationError:
        return None


def ended(entry: Entry) -> Situation:
    """How a request ended that has its outcome."""
    if entry.standing is Standing.PARKED:
        return Situation.PARKED
    outcome = outcome_of(entry)
    match outcome and (outcome.original or outcome.outcome):
        case Word.SUCCEEDED:
            return Situation.SUCCEEDED
        case Word.PARTIAL:
            return Situation.PARTIAL
        case Word.REFUSED:
            return Situation.REFUSED
        case _:
            # Also an outcome that a newer holdfast wrote: the journal can still say whether it was a good one.
            return Situation.SUCCEEDED if entry.standing is Standing.DONE else Situation.FAILED


def _open(entry: Entry, around: Scene) -> tuple[Situation, str]:
    plan = around.plans.get(entry.plan)
    # A try that has begun clears `retry_at`; one that its worker did not survive looks the same, but for the lock.
    if entry.attempt and entry.retry_at is None and entry.plan in around.busy:
        return Situation.RUNNING, f"attempt {entry.attempt} is under way"
    error = _first_line(entry.last_error)
    if entry.retry_at is not None and entry.retry_at > around.now:
        at = _when(entry.retry_at)
        if plan is not None and error.startswith(f"store {plan.store}:"):
            until = _when((entry.waiting_since or entry.updated) + around.patience)
            return Situation.WAITING_FOR_STORE, f"looked at again {at}, given up after {until}: {error}"
        return Situation.POSTPONED, f"tried again {at}: {error}"
    if plan is None:
        return Situation.WAITING, "fails when a worker takes it: its plan was removed or disabled"
    if entry.plan in around.busy:
        return Situation.WAITING, "waits for its plan: another request of it is worked on"
    if around.worker is None:
        return Situation.WAITING, "waits for a worker: none runs here"
    opening = opens_at(plan.hours, around.now, around.zone)
    if opening is None or opening > around.now:
        return Situation.WAITING, "waits for its plan's hours" + (f", from {_when(opening)}" if opening else "")
    if around.worker.causes:
        return Situation.WAITING, f"waits for the worker, which says: {around.worker.causes[0]}"
    return Situation.WAITING, "waits for a free slot of the worker"


def _afterwards(entry: Entry, situation: Situation, outcome: EventData | None) -> str:
    error = _first_line(outcome.error if outcome else None)
    if entry.again is not None:
        return f"asked again as {entry.again}"
    match situation:
        case Situation.PARKED:
            return f"nothing, until somebody asks again: {error}"
        case Situation.FAILED | Situation.REFUSED:
            return f"nothing: {error}" if error else "nothing"
    return ""


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0]


def _when(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"
