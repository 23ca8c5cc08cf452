"""A broker seen from outside of the worker: what a test puts in, and what is left."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import amqp
import redis

from config.settings import Queue
from tests.services.server import wait_until
from worker.broker.publisher import ping, publish_request


@contextmanager
def raw_channel(settings: Queue) -> Iterator[Any]:
    """A channel of the AMQP library itself, for what kombu would not send."""
    host = settings.url.reveal().rpartition("@")[2].rstrip("/")
    with amqp.Connection(host, userid="guest", password="guest", virtual_host="/", confirm_publish=True) as connection:
        yield connection.channel()


def raw_redis(settings: Queue) -> Any:
    """A Redis client without kombu."""
    return redis.Redis.from_url(settings.url.reveal())


def request(settings: Queue, body: bytes = b"{}", **options: str) -> None:
    """Publish one request."""
    publish_request(settings, body, **{"request_id": uuid.uuid4().hex, "plan": "web", **options})


def declared(settings: Queue) -> None:
    """Wait until the worker consumes from its queue."""
    wait_until(lambda: (found := ping(settings)).ready is not None and found.consumers != 0, what="a worker consumes")


def emptied(settings: Queue, *, dead: int = 0) -> None:
    """Wait until nothing is left but so many dead letters."""
    wait_until(lambda: (found := ping(settings)).ready == 0 and (found.dead or 0) == dead, what="the queue is empty")
