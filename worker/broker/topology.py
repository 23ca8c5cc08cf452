"""The exchanges and queues of a worker, as the broker has to have them.

```text
 producers -> exchange `holdfast` (topic) -> routing_keys -> queue `holdfast.requests` -> worker
                                                                     |  refused, or delivered too often
              exchange `holdfast.dead` (topic) <---------------------+
                        +-> key = name of the queue -> queue `holdfast.requests.dead`

 worker -> queue `holdfast.requests.retry.30` -> 30 s later -> queue `holdfast.requests`
```

Redis has neither dead letter exchanges nor arguments of queues: there the worker itself puts what it refuses into
`holdfast.requests.dead`, and keeps what is to be tried again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import amqp

from config.settings import Queue
from worker.broker.link import BrokerRefused, Kind, Link

RETRY_SECONDS: Final = (5, 30, 120, 600, 3_600)
"""How long messages stay in the queues for later. One queue with a time for each message would not do: RabbitMQ lets
go of the first in the queue only, and whatever is behind a long wait waits as well."""

_LONGEST_BY_ROUNDS: Final = RETRY_SECONDS.index(600)
_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<argument>[^']*)'.*received (?P<wanted>.*) but current is (?P<present>.*)"
)


def dead_queue(settings: Queue) -> str:
    """The queue of what was refused."""
    return f"{settings.name}.dead"


def queue_arguments(settings: Queue) -> dict[str, object]:
    """What RabbitMQ is told about the queue of requests."""
    arguments: dict[str, object] = {
        "x-queue-type": settings.type,
        "x-dead-letter-exchange": settings.dead_letter_exchange,
        # Not the message's own key: workers that share the exchange would get each other's dead letters.
        "x-dead-letter-routing-key": settings.name,
    }
    if settings.type == "quorum":
        arguments["x-delivery-limit"] = settings.delivery_limit
    return arguments


def retry_seconds(after: timedelta, *, rounds: int = 0) -> int:
    """The shortest wait there is a queue for that is not shorter than this; else the longest.

    Each round that was made before makes it longer, up to ten minutes: who waits for a day need not come every second.
    """
    wanted = max(after.total_seconds(), RETRY_SECONDS[min(rounds, _LONGEST_BY_ROUNDS)])
    return next((seconds for seconds in RETRY_SECONDS if seconds >= wanted), RETRY_SECONDS[-1])


def retry_queue(settings: Queue, seconds: int) -> str:
    """The queue whose messages return to the queue of requests after so long."""
    return f"{settings.name}.retry.{seconds}"


def retry_arguments(settings: Queue, seconds: int) -> dict[str, object]:
    """What RabbitMQ is told about such a queue.

    It does not expire when it is unused: RabbitMQ would remove it with the messages in it, for instance when the queue
    of requests had no leader for long.
    """
    arguments: dict[str, object] = {
        "x-queue-type": settings.type,
        "x-message-ttl": seconds * 1_000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": settings.name,
    }
    if settings.type == "quorum":
        # By default a message is let go of before the other queue has it: a restart in between would lose it.
        arguments["x-dead-letter-strategy"] = "at-least-once"
        arguments["x-overflow"] = "reject-publish"  # a condition of the former; no length is set
    return arguments


def declare_retry_queue(link: Link, seconds: int) -> None:
    """Make sure that the queue is there.

    Raises BrokerRefused where the broker does not allow it, or has it in another form; the link stays usable.
    """
    name = retry_queue(link.settings, seconds)
    channel = link.channel()  # of its own: a refusal closes it
    _declare(
        link,
        f"queue {name}",
        channel.queue_declare,
        queue=name,
        durable=True,
        auto_delete=False,
        arguments=retry_arguments(link.settings, seconds),
    )
    with link.translated("close a channel"):
        channel.close()


def declare_topology(link: Link) -> None:
    """Make sure that everything is there; changes nothing that is.

    Raises BrokerRefused, naming queue and argument, where something is there in another form.
    """
    settings = link.settings
    channel = link.channel()

    for name in (settings.exchange, settings.dead_letter_exchange, settings.events_exchange):
        _declare(
            link,
            f"exchange {name}",
            channel.exchange_declare,
            exchange=name,
            type="topic",
            durable=True,
            auto_delete=False,
        )
    dead = dead_queue(settings)
    # The dead letters' queue first: a queue of requests without one would drop what is refused.
    for name, arguments, exchange, keys in (
        (dead, {"x-queue-type": settings.type}, settings.dead_letter_exchange, (settings.name,)),
        (settings.name, queue_arguments(settings), settings.exchange, settings.routing_keys),
    ):
        own = arguments if link.kind is Kind.AMQP else {}
        _declare(
            link, f"queue {name}", channel.queue_declare, queue=name, durable=True, auto_delete=False, arguments=own
        )
        for key in keys:
            what = f"binding {key} of queue {name}"
            _declare(link, what, channel.queue_bind, queue=name, exchange=exchange, routing_key=key)
    with link.translated("close a channel"):
        channel.close()


def _declare(link: Link, what: str, method: Callable[..., object], **arguments: object) -> None:
    with link.translated(f"declare {what}"):
        try:
            method(**arguments)
        except amqp.PreconditionFailed as error:
            raise _other_form(what, str(error.reply_text), link) from error


def _other_form(what: str, text: str, link: Link) -> BrokerRefused:
    found = _INEQUIVALENT.search(text)
    if found is None:
        return BrokerRefused(f"{what} is there in another form: {link.address}: {text}")
    kind = what.partition(" ")[0]
    return BrokerRefused(
        f"{what} is there with another {found['argument']}: {link.address} has {found['present']}, "
        f"the configuration wants {found['wanted']}",
        hint=f"the broker cannot change it: put the old value into the configuration, choose another name for the "
        f"{kind}, or empty it, delete it and start the worker again",
    )
