"""Real servers, started once for a whole run of the tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import RedisServer
from tests.services.sshd import Sshd
from tests.workshop.workers import Hire, Worker

# Containers often forbid it. Then each of the thousand workers and commands that the tests start, and each process of
# pytest, compiles all its modules anew: a third of its time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


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
def doomed_rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A RabbitMQ node that is not started yet: for `mortal_rabbitmq` alone."""
    server = RabbitMQ(tmp_path_factory.mktemp("mortal-rabbitmq"))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def mortal_rabbitmq(doomed_rabbitmq: RabbitMQ) -> RabbitMQ:
    """A RabbitMQ node that the test may stop, kill and start again; the next one finds it running, with all it had."""
    if not doomed_rabbitmq.processes:
        doomed_rabbitmq.start()
    return doomed_rabbitmq


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
def mortal_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis server of the test's own, which it may stop, kill and start again."""
    server = RedisServer(tmp_path / "mortal-redis")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An ssh server for the present user, with blanks in the names of its keys; who stops it has one of his own."""
    server = Sshd(tmp_path_factory.mktemp("ssh server"))
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
