"""The ways requests take to a worker, all of a kind: publish, break, look at what is left."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, Protocol

import amqp
import orjson
import redis
from amqp.exceptions import MessageNacked

from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import RedisServer
from tests.workshop.producers import Producer
from tests.workshop.workers import Worker, wait_for
from worker.broker.topology import RETRY_SECONDS

PATIENCE = 120
"""Seconds: after a while without a broker, workers ask for it every half minute only."""


class Transport(Protocol):
    """One way to a worker."""

    settings: dict[str, Any]
    """What its workers have in their configuration."""

    def publish(self, request_id: str, copies: int = 1) -> None:
        """Ask for the plan `web`, that many times with one id."""

    def wait_ready(self, worker: Worker, *, times: int = 1) -> None:
        """Until the worker has been connected so often."""

    def break_connections(self) -> None:
        """End every connection from the broker's side."""

    def left(self) -> dict[str, int]:
        """Messages that are still somewhere, by place; none when no worker runs and all are settled."""


class AmqpTransport:
    """Queues in RabbitMQ."""

    def __init__(self, server: RabbitMQ, kind: str, **options: Any) -> None:
        self.server = server
        self.kind = kind
        self._queue = Producer(server.url, type=kind, **options).queue
        self.settings: dict[str, Any] = {"queue": self._queue}

    def publish(self, request_id: str, copies: int = 1) -> None:
        """Publish with confirms, again where the broker refuses; on return it has them."""
        body = orjson.dumps({"id": request_id, "plan": "web"})
        with self._connection() as connection:
            channel = connection.channel()

            def confirmed() -> bool:
                message = amqp.Message(body, content_type="application/json", delivery_mode=2)
                try:
                    channel.basic_publish(message, self._queue["exchange"], "web", mandatory=True)
                except MessageNacked:  # a quorum queue without a leader
                    return False
                return True

            for _ in range(copies):
                wait_for(confirmed, what="the broker to take a request", seconds=PATIENCE)

    def wait_ready(self, worker: Worker, *, times: int = 1) -> None:
        """Until the worker has said so often that it is connected."""
        _wait_connected(worker, times)

    def break_connections(self) -> None:
        """As an administrator would."""
        self.server.control("close_all_connections", "maintenance")

    def left(self) -> dict[str, int]:
        """Of the requests, the dead letters and those that come again later."""
        name = self._queue["name"]
        found: dict[str, int] = {}
        with self._connection() as connection:
            for queue in (name, f"{name}.dead", *(f"{name}.retry.{seconds}" for seconds in RETRY_SECONDS)):
                channel = connection.channel()
                try:
                    found[queue] = channel.queue_declare(queue, passive=True).message_count
                except amqp.NotFound:
                    continue
                channel.close()
        return {queue: count for queue, count in found.items() if count}

    def _connection(self) -> amqp.Connection:
        return amqp.Connection(f"127.0.0.1:{self.server.port}", confirm_publish=True)


class RedisTransport:
    """Lists in Redis."""

    def __init__(self, server: RedisServer, **options: Any) -> None:
        self.server = server
        self.kind = "redis"
        self._name = f"requests-{uuid.uuid4().hex[:8]}"
        self.settings: dict[str, Any] = {"queue": {"url": server.url, "name": self._name, **options}}

    def publish(self, request_id: str, copies: int = 1) -> None:
        """As `redis-cli LPUSH` would."""
        with redis.Redis.from_url(self.server.url) as client:
            for _ in range(copies):
                client.lpush(self._name, orjson.dumps({"id": request_id, "plan": "web"}))

    def wait_ready(self, worker: Worker, *, times: int = 1) -> None:
        """Until the worker has said so often that it is connected."""
        _wait_connected(worker, times)

    def break_connections(self) -> None:
        """As an administrator would."""
        with redis.Redis.from_url(self.server.url) as client:
            client.client_kill_filter(_type="normal", skipme=True)

    def left(self) -> dict[str, int]:
        """Of the requests, the unsettled and the dead letters."""
        with redis.Redis.from_url(self.server.url) as client:
            found = {key.decode(): _length(client, key) for key in client.scan_iter(f"{self._name}*")}
        return {key: count for key, count in found.items() if count and not key.endswith(".unacked_mutex")}


class SpoolTransport:
    """A directory of files, one for all workers of a test."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.settings: dict[str, Any] = {"spool": {"path": str(path), "scan_seconds": 1}}

    def publish(self, request_id: str, copies: int = 1) -> None:
        """Write, then rename."""
        for number in range(copies):
            file = self._path / "tmp" / f"{request_id}-{number}.json"
            file.write_bytes(orjson.dumps({"id": request_id, "plan": "web"}))
            file.rename(self._path / "new" / file.name)

    def wait_ready(self, worker: Worker, *, times: int = 1) -> None:
        """A worker that has started is ready."""

    def break_connections(self) -> None:
        """There are none."""

    def left(self) -> dict[str, int]:
        """Waiting, claimed and refused files."""
        places = {name: [*(self._path / name).rglob("*.json")] for name in ("new", "cur", "failed")}
        return {name: len(files) for name, files in places.items() if files}


def _wait_connected(worker: Worker, times: int) -> None:
    wait_for(
        lambda: worker.log.read_bytes().count(b'"queue_connected"') >= times,
        what=f"{times} connections",
        seconds=PATIENCE,
        told=worker.log.read_text,
    )


def _length(client: Any, key: bytes) -> int:
    match client.type(key):
        case b"list":
            return int(client.llen(key))
        case b"hash":
            return int(client.hlen(key))
        case b"zset":
            return int(client.zcard(key))
        case _:
            return 1
