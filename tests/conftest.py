"""Real servers, started once for a whole run of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import RedisServer
from tests.workshop.workers import Hire, Worker


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A RabbitMQ node; tests share it, so each uses names of its own."""
    server = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis server; tests share it, so each uses names of its own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def hire() -> Iterator[Hire]:
    """Makes worker processes, none of which outlives the test."""
    hired: list[Worker] = []

    def make(*place: Path, **settings: Any) -> Worker:
        hired.append(Worker(*place, **settings))
        return hired[-1]

    yield make
    for worker in hired:
        if not worker.ended:
            worker.kill()
