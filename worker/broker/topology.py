"""The exchanges and queues of a worker, as the broker has to have them.

```text
 producers -> exchange `holdfast` (topic) -> routing_keys -> queue `holdfast.requests` -> worker
                                                                     |  refused, or delivered too often
              exchange `holdfast.dead` (topic) <---------------------+
                        +-> key = name of the queue -> queue `holdfast.requests.dead`
```

Redis has neither dead letter exchanges nor arguments of queues: there the worker itself puts what it refuses into
`holdfast.requests.dead`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import amqp

from config.settings import Queue
from worker.broker.link import BrokerRefused, Kind, Link

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


def declare_topology(link: Link) -> None:
    """Make sure that everything is there; changes nothing that is.

    Raises BrokerRefused, naming queue and argument, where something is there in another form.
    """
    settings = link.settings
    channel = link.channel()

    def declare(what: str, method: Callable[..., object], **arguments: object) -> None:
        with link.translated(f"declare {what}"):
            try:
                method(**arguments)
            except amqp.PreconditionFailed as error:
                raise _other_form(what, str(error.reply_text), link) from error

    for name in (settings.exchange, settings.dead_letter_exchange, settings.events_exchange):
        declare(
            f"exchange {name}", channel.exchange_declare, exchange=name, type="topic", durable=True, auto_delete=False
        )
    dead = dead_queue(settings)
    # The dead letters' queue first: a queue of requests without one would drop what is refused.
    for name, arguments, exchange, keys in (
        (dead, {"x-queue-type": settings.type}, settings.dead_letter_exchange, (settings.name,)),
        (settings.name, queue_arguments(settings), settings.exchange, settings.routing_keys),
    ):
        own = arguments if link.kind is Kind.AMQP else {}
        declare(f"queue {name}", channel.queue_declare, queue=name, durable=True, auto_delete=False, arguments=own)
        for key in keys:
            declare(
                f"binding {key} of queue {name}", channel.queue_bind, queue=name, exchange=exchange, routing_key=key
            )
    with link.translated("close a channel"):
        channel.close()


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
