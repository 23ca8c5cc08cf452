"""Other services, as a worker meets them: they publish requests and read what comes back."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import amqp
import kombu
import orjson


class Producer:
    """A service on RabbitMQ."""

    def __init__(self, url: str, **options: Any) -> None:
        """`options` go into the worker's queue section, `queue`, whose names no other test uses."""
        mark = uuid.uuid4().hex[:8]
        self.url = url
        self.queue: dict[str, Any] = {
            "url": url,
            "name": f"requests-{mark}",
            "exchange": f"in-{mark}",
            "events_exchange": f"events-{mark}",
            "dead_letter_exchange": f"dead-{mark}",
            **options,
        }
        self.connection = kombu.Connection(url)
        self.events: list[dict[str, Any]] = []

    def listen(self) -> None:
        """Bind a queue of our own to the events, before anything happens."""
        exchange = kombu.Exchange(self.queue["events_exchange"], type="topic", durable=True)
        self.mine = kombu.Queue(f"mine-{uuid.uuid4().hex}", exchange, routing_key="#", auto_delete=True)(
            self.connection.default_channel
        )
        self.mine.declare()

    def publish(self, body: bytes, **properties: Any) -> None:
        """Publish bytes as they are."""
        properties.setdefault("content_type", "application/json")
        self.connection.Producer().publish(
            body,
            exchange=self.queue["exchange"],
            routing_key="web",
            content_encoding="binary",
            serializer=None,
            delivery_mode=2,
            **properties,
        )

    def publish_all(self, messages: Iterable[tuple[bytes, str]]) -> None:
        """Publish bodies with their content types, thousands in a second; the broker has read them all on return."""
        host = self.url.rpartition("@")[2].rstrip("/")
        with amqp.Connection(host, userid="guest", password="guest") as connection:
            channel = connection.channel()
            for body, content_type in messages:
                message = amqp.Message(body, content_type=content_type, content_encoding="binary", delivery_mode=2)
                channel.basic_publish(message, self.queue["exchange"], "web")

    def read(self) -> list[dict[str, Any]]:
        """All events so far."""
        while (message := self.mine.get(no_ack=True, accept=None)) is not None:
            body = message.body
            self.events.append(orjson.loads(body.tobytes() if isinstance(body, memoryview) else body))
        return self.events

    def outcomes(self) -> list[str]:
        """The words of the outcomes so far."""
        words = [event["data"]["outcome"] for event in self.read()]
        return [word for word in words if word not in {"started", "progress"}]

    def dead(self) -> int:
        """Messages among the dead letters."""
        queue = kombu.Queue(f"{self.queue['name']}.dead", no_declare=True)(self.connection.default_channel)
        return int(queue.queue_declare(passive=True).message_count)

    def waiting(self) -> int:
        """Messages that no worker has taken."""
        queue = kombu.Queue(self.queue["name"], no_declare=True)(self.connection.default_channel)
        return int(queue.queue_declare(passive=True).message_count)
