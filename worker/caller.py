"""Asks a worker for something as any other program would, listens for what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

import orjson
from pydantic import ValidationError

from config.settings import Settings
from handlers.errors import PermanentError
from worker.events import EventData
from worker.intake.wire import REQUEST_TYPE, CloudEvent, RequestData, parse
from worker.policy import may_answer

Way = Literal["queue", "spool"]

PATIENCE_SECONDS: Final = 31_536_000.0
"""How long somebody waits who set no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A request on the wire."""

    request_id: str
    """As events will name it: the CloudEvents source and id."""
    plan: str
    body: bytes


def compose(data: RequestData, *, node: str, event_id: str, now: datetime) -> Letter:
    """The CloudEvents message for a request. Raises pydantic's ValidationError for an id that no message can have."""
    event = CloudEvent(
        specversion="1.0",
        type=REQUEST_TYPE,
        source=f"/holdfast/{node}/cli",
        id=event_id,
        time=now,
        datacontenttype="application/json",
        subject=data.plan,
        data=data,
    )
    body = orjson.dumps(event.model_dump(mode="json", exclude_none=True))
    return Letter(request_id=f"{event.source} {event.id}", plan=data.plan, body=body)


def way_of(settings: Settings, wanted: Way | None) -> Way:
    """Where a request goes: as wanted, else to the queue if there is one. Raises PermanentError where there is none."""
    if wanted == "queue" and settings.queue is None:
        raise PermanentError("no queue is configured", hint="set queue.url, or send it to the spool")
    if wanted == "spool" or (wanted is None and settings.queue is None):
        if not settings.spool.enabled:
            raise PermanentError("the spool is disabled, so no worker would take the request", hint="set spool.enabled")
        return "spool"
    return "queue"


def send(settings: Settings, letter: Letter, way: Way, *, reply_to: str | None = None) -> None:
    """Hand the request over; on return it is durable there. Raises TemporaryError or PermanentError."""
    if way == "spool":
        from worker.spool_client import submit

        submit(settings.spool_path, letter.body, letter.request_id)
        return
    from worker.broker.publisher import publish_request

    assert settings.queue is not None
    publish_request(
        settings.queue,
        letter.body,
        request_id=letter.request_id,
        plan=letter.plan,
        reply_to=reply_to,
        correlation_id=letter.request_id if reply_to else None,
    )


def ask(
    settings: Settings, letter: Letter, way: Way, *, seconds: float | None, on_sent: Callable[[], None]
) -> Generator[EventData]:
    """Send the request, then the events that answer it, until so many seconds are over.

    What was told before the request was sent is not repeated. From the queue only the outcome comes back. Raises
    PermanentError, with nothing sent, where the settings allow no answer; TemporaryError where the way breaks while
    somebody waits: the request goes on then.
    """
    limit = PATIENCE_SECONDS if seconds is None else seconds
    if way == "spool":
        yield from _ask_spool(settings, letter, limit, on_sent)
    else:
        yield from _ask_queue(settings, letter, limit, on_sent)


def _ask_spool(settings: Settings, letter: Letter, seconds: float, on_sent: Callable[[], None]) -> Generator[EventData]:
    from worker.spool_client import follow

    before = set(follow(settings.spool_path, letter.request_id, 0))
    send(settings, letter, "spool")
    on_sent()
    for body in follow(settings.spool_path, letter.request_id, seconds):
        if body not in before:
            yield _told(body)


def _ask_queue(settings: Settings, letter: Letter, seconds: float, on_sent: Callable[[], None]) -> Generator[EventData]:
    from worker.broker.publisher import ReplyWaiter

    assert settings.queue is not None
    with ReplyWaiter(settings.queue) as waiter:
        # The worker would refuse the request without an answer, for an answer is what it refuses.
        if not may_answer(parse(letter.body, reply_to=waiter.reply_to), settings.queue.reply_to_allowed):
            raise PermanentError(
                f"nobody can wait for an answer: queue.reply_to_allowed has no place for {waiter.reply_to!r}",
                hint="allow such queues on the workers and here, or ask without --wait and listen to the events",
            )
        send(settings, letter, "queue", reply_to=waiter.reply_to)
        on_sent()
        for body in waiter.events(seconds):
            yield _told(body)


def _told(body: bytes) -> EventData:
    try:
        return EventData.model_validate_json(orjson.dumps(orjson.loads(body)["data"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValidationError) as error:
        raise PermanentError(
            "the worker answered with an event that this holdfast does not understand",
            hint="compare the versions: `holdfast --version` here and on the worker",
        ) from error
