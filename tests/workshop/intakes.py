"""The other side of each intake: how requests are put there, what comes back, what has not been settled."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Final, Protocol

import orjson
import redis
from kombu.connection import Connection

from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import RedisServer
from tests.workshop import checker
from tests.workshop.workers import Worker

_CONNECTION: Final[Any] = Connection  # kombu has no types


class Intake(Protocol):
    """How requests reach the worker of one cell, and how its outcomes come back."""

    settings: dict[str, Any]

    def ready(self, worker: Worker) -> bool:
        """Whether a request can be put there; asked after the worker has started."""

    def ask(self, worker: Worker, request: dict[str, Any]) -> None:
        """Put a request there."""

    def events(self, worker: Worker) -> list[dict[str, Any]]:
        """What was told so far."""

    def unsettled(self, worker: Worker) -> Sequence[str]:
        """Deliveries that the transport still has, as far as it can tell."""

    def dead(self, worker: Worker) -> int:
        """How many of them were refused."""

    def close(self) -> None:
        """Let go of connections."""


class SpoolSide:
    """The embedded intake."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {"spool": {"scan_seconds": 1}}

    def ready(self, worker: Worker) -> bool:
        """The worker has made the directories before it says that it runs."""
        return (worker.spool / "new").is_dir()

    def ask(self, worker: Worker, request: dict[str, Any]) -> None:
        """Write, then rename."""
        worker.ask(request["id"], **{name: value for name, value in request.items() if name != "id"})

    def events(self, worker: Worker) -> list[dict[str, Any]]:
        """The files of the spool."""
        return checker.events(worker.spool)

    def unsettled(self, worker: Worker) -> Sequence[str]:
        """What lies in `new/` or in a slot."""
        return checker.waiting(worker.spool)

    def dead(self, worker: Worker) -> int:
        """What lies in `failed/`, without the reasons."""
        return len([path for path in (worker.spool / "failed").glob("[!.]*") if path.suffix != ".reason"])

    def close(self) -> None:
        """Nothing is open."""


class RabbitSide:
    """A quorum queue, and a queue of our own for the events; the worker has no spool."""

    def __init__(self, server: RabbitMQ) -> None:
        mark = uuid.uuid4().hex[:8]
        self.queue = {
            "url": server.url,
            "name": f"requests-{mark}",
            "exchange": f"in-{mark}",
            "events_exchange": f"events-{mark}",
            "dead_letter_exchange": f"dead-{mark}",
        }
        self.settings: dict[str, Any] = {"queue": self.queue, "spool": {"enabled": False}}
        self._connection = _CONNECTION(server.url, transport_options={"confirm_publish": True})
        self._channel = self._connection.default_channel
        exchange = self.queue["events_exchange"]
        self._channel.exchange_declare(exchange=exchange, type="topic", durable=True, auto_delete=False)
        self._mine = self._channel.queue_declare(queue="", exclusive=True).queue
        self._channel.queue_bind(queue=self._mine, exchange=exchange, routing_key="#")
        self._heard: list[dict[str, Any]] = []

    def ready(self, worker: Worker) -> bool:
        """It says that it is connected when its queue is declared."""
        return b'"queue_connected"' in worker.log.read_bytes()

    def ask(self, worker: Worker, request: dict[str, Any]) -> None:
        """Publish."""
        self._connection.Producer().publish(
            orjson.dumps(request),
            exchange=self.queue["exchange"],
            routing_key=request["plan"],
            content_type="application/json",
            content_encoding="binary",
            serializer=None,
            delivery_mode=2,
            mandatory=True,
        )

    def events(self, worker: Worker) -> list[dict[str, Any]]:
        """What was published to the events exchange."""
        while (message := self._channel.basic_get(self._mine, no_ack=True)) is not None:
            self._heard.append(orjson.loads(bytes(message.body)))
        return self._heard

    def unsettled(self, worker: Worker) -> Sequence[str]:
        """What is ready; what a living worker holds cannot be seen from here."""
        return [self.queue["name"]] * self._count(self.queue["name"])

    def dead(self, worker: Worker) -> int:
        """What is in the queue of the dead letters."""
        return self._count(f"{self.queue['name']}.dead")

    def close(self) -> None:
        """Our queue goes with the connection; those of the worker stay with the server."""
        self._connection.release()

    def _count(self, queue: str) -> int:
        return int(self._channel.queue_declare(queue=queue, passive=True).message_count)


class RedisSide:
    """A list in Redis; the outcomes are told in the spool."""

    def __init__(self, server: RedisServer) -> None:
        self.name = f"requests-{uuid.uuid4().hex[:8]}"
        self.settings: dict[str, Any] = {
            "queue": {"url": server.url, "name": self.name, "visibility_timeout_seconds": 1}
        }
        self._connection = _CONNECTION(server.url)
        self._redis = redis.Redis.from_url(server.url)

    def ready(self, worker: Worker) -> bool:
        """Any name is a queue."""
        return True

    def ask(self, worker: Worker, request: dict[str, Any]) -> None:
        """Publish."""
        self._connection.Producer().publish(request, routing_key=self.name, serializer="json")

    def events(self, worker: Worker) -> list[dict[str, Any]]:
        """The files of the spool."""
        return checker.events(worker.spool)

    def unsettled(self, worker: Worker) -> Sequence[str]:
        """What waits in the list, and what somebody took without having settled it."""
        taken: Any = self._redis.hvals(f"{self.name}.unacked")
        waiting: Any = self._redis.llen(self.name)
        return [*["in the list"] * waiting, *(str(value) for value in taken if self.name.encode() in value)]

    def dead(self, worker: Worker) -> int:
        """What the worker put aside."""
        count: Any = self._redis.llen(f"{self.name}.dead")
        return int(count)

    def close(self) -> None:
        """Let go."""
        self._connection.release()
        self._redis.close()
