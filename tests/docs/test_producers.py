"""The page about requests keeps its word: each snippet runs as it stands, against real brokers and workers."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import kombu
import orjson
import pytest

from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import RedisServer
from tests.services.server import program
from tests.workshop.workers import Worker, wait_for
from worker.intake.wire import parse

PAGE = Path(__file__).resolve().parents[2] / "docs" / "requests.md"
PATIENCE = 60.0


def sections() -> dict[str, list[tuple[str, str]]]:
    """The snippets below each heading, with their languages."""
    parts = re.split(r"^## (.*)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {
        title: re.findall(r"^```(\w+)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
        for title, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    return {title: snippets for title, snippets in found.items() if snippets}


def snippet(section: str, number: int = 0) -> str:
    """The text of one."""
    return sections()[section][number][1]


def environment(**settings: str) -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST_", "COV", "CELERY"))}
    return {**mine, **settings}


def run(language: str, text: str, *, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a snippet to its end."""
    argv = {"sh": ["sh", "-eu"], "python": [sys.executable, "-W", "error::DeprecationWarning", "-"]}[language]
    return subprocess.run(
        argv, input=text, env=environment(**settings), cwd=cwd, text=True, capture_output=True, timeout=PATIENCE
    )


@contextmanager
def running(argv: list[str], *, cwd: Path, log: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that goes on until the end of the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(argv, env=environment(**settings), cwd=cwd, stdout=output, stderr=output)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)


@contextmanager
def employed(place: Path, **settings: Any) -> Iterator[Worker]:
    """A worker that tests share; each of them asks with ids of its own."""
    subject = place / "subject"
    subject.mkdir(parents=True)
    (subject / "page").write_text("hello")
    worker = Worker(place / "n1", subject, place / "store", **settings)
    worker.start()
    try:
        if "queue" in settings:
            wait_for(lambda: b'"queue_connected"' in worker.log.read_bytes(), what="the broker connection")
        yield worker
        assert worker.stop() == 0
    finally:
        if not worker.ended:
            worker.kill()


@pytest.fixture(scope="module")
def amqp_url(rabbitmq: RabbitMQ) -> str:
    """A virtual host of our own, so that the default names are ours alone."""
    return virtual_host(rabbitmq)


def virtual_host(rabbitmq: RabbitMQ) -> str:
    name = f"producers-{uuid.uuid4().hex[:8]}"
    rabbitmq.control("add_vhost", name)
    rabbitmq.control("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
    return f"amqp://guest:guest@127.0.0.1:{rabbitmq.port}/{name}"


@pytest.fixture(scope="module")
def amqp_worker(amqp_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker with the default settings of RabbitMQ."""
    with employed(tmp_path_factory.mktemp("amqp"), queue={"url": amqp_url}) as worker:
        yield worker


@pytest.fixture(scope="module")
def redis_url(redis_server: RedisServer) -> str:
    """A database of our own."""
    return redis_server.url.removesuffix("/0") + "/7"


@pytest.fixture(scope="module")
def redis_worker(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker with the default settings of Redis."""
    with employed(tmp_path_factory.mktemp("redis"), queue={"url": redis_url}) as worker:
        yield worker


def asked_twice(worker: Worker, request_id: str, ask: Callable[[], object]) -> None:
    """Ask, wait for the outcome, ask again: one set, and the answer that it is done already."""
    ask()
    worker.wait_outcome(request_id)
    ask()
    worker.wait_outcome(request_id, count=2)

    assert worker.outcomes(request_id) == ["succeeded", "duplicate"]
    assert requests_of_sets(worker).count(request_id) == 1


def requests_of_sets(worker: Worker) -> list[str]:
    return [orjson.loads((found / "manifest.json").read_bytes())["request_id"] for found in worker.sets()]


@pytest.mark.parametrize(("section", "request_id"), [("kombu", "web-dump-4711"), ("pika", "web-dump-4712")])
def test_producer_for_rabbitmq_asks_for_one_backup_however_often_it_runs(
    amqp_worker: Worker, amqp_url: str, tmp_path: Path, section: str, request_id: str
) -> None:
    """The reason is in the manifest, the second run is answered with `duplicate`."""

    def ask() -> None:
        done = run("python", snippet(section), cwd=tmp_path, BROKER_URL=amqp_url)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    asked_twice(amqp_worker, request_id, ask)

    manifests = [orjson.loads((found / "manifest.json").read_bytes()) for found in amqp_worker.sets()]
    assert [m["reason"] for m in manifests if m["request_id"] == request_id] == ["the dump is ready"]


@pytest.mark.parametrize(("section", "error"), [("kombu", "NO_ROUTE"), ("pika", "UnroutableError")])
def test_producer_for_rabbitmq_fails_aloud_where_no_worker_takes_its_request(
    rabbitmq: RabbitMQ, tmp_path: Path, section: str, error: str
) -> None:
    """The exchange is there, a queue is not: with `mandatory` this is an error instead of a loss."""
    url = virtual_host(rabbitmq)
    with kombu.Connection(url) as connection:
        kombu.Exchange("holdfast", type="topic")(connection.default_channel).declare()

    done = run("python", snippet(section), cwd=tmp_path, BROKER_URL=url)

    assert done.returncode == 1
    assert error in done.stderr


def test_producer_that_waits_for_its_reply_ends_with_the_outcome(
    amqp_worker: Worker, amqp_url: str, tmp_path: Path
) -> None:
    """Asked again, it hears of the same set and has the same exit code."""
    text = snippet("pika, with a reply")

    first, second = (run("python", text, cwd=tmp_path, BROKER_URL=amqp_url) for _ in range(2))

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    backup_id = amqp_worker.wait_outcome("web-dump-4713")["backup_id"]
    assert (first.stdout, second.stdout) == (f"succeeded {backup_id}\n", f"duplicate {backup_id}\n")


def test_celery_task_asks_for_one_backup_however_often_it_runs(
    amqp_worker: Worker, amqp_url: str, tmp_path: Path
) -> None:
    """A worker of Celery's runs the task of the page, called as the page says."""
    module, call = snippet("A Celery task"), snippet("A Celery task", 1)
    (tmp_path / "tasks.py").write_text(module)
    log = tmp_path / "celery.log"
    (command,) = re.findall(r"`(celery --app tasks worker)`", PAGE.read_text())
    name, *arguments = command.split()
    celery = [str(Path(sys.executable).with_name(name)), *arguments, "--pool", "solo", "--loglevel", "info"]

    def ask() -> None:
        done = run("python", call, cwd=tmp_path, BROKER_URL=amqp_url, PYTHONPATH=str(tmp_path))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    with running(celery, cwd=tmp_path, log=log, BROKER_URL=amqp_url) as process:
        wait_for(
            lambda: b" ready." in log.read_bytes() or process.poll() is not None, what="Celery", told=log.read_text
        )
        asked_twice(amqp_worker, "web-dump-4714", ask)


def test_producer_with_redis_alone_ends_with_the_outcome(redis_worker: Worker, redis_url: str, tmp_path: Path) -> None:
    """Asked again, it hears of the same set and has the same exit code."""
    text = snippet("redis-py")

    first, second = (run("python", text, cwd=tmp_path, BROKER_URL=redis_url) for _ in range(2))

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    backup_id = redis_worker.wait_outcome("web-dump-4715")["backup_id"]
    assert (first.stdout, second.stdout) == (f"succeeded {backup_id}\n", f"duplicate {backup_id}\n")


def test_command_that_pushes_a_request_asks_for_one_backup(
    redis_worker: Worker, redis_server: RedisServer, tmp_path: Path
) -> None:
    """The one line with redis-cli."""
    (line,) = re.findall(r"`(redis-cli LPUSH [^`]*)`", PAGE.read_text())
    _, *words = shlex.split(line)
    argv = [str(program("redis-cli")), "-p", str(redis_server.port), "-n", "7", *words]

    asked_twice(redis_worker, "web-dump-4716", lambda: subprocess.run(argv, check=True, capture_output=True))


def test_producer_with_kombu_on_redis_asks_for_one_backup(redis_worker: Worker, redis_url: str, tmp_path: Path) -> None:
    """The queue is named, not the exchange."""

    def ask() -> None:
        done = run("python", snippet("kombu on Redis"), cwd=tmp_path, BROKER_URL=redis_url)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    asked_twice(redis_worker, "web-dump-4717", ask)


@pytest.mark.parametrize(("plan", "outcome", "exit_code"), [("web", "succeeded", 0), ("mail", "refused", 4)])
def test_shell_without_a_broker_ends_with_the_outcome(tmp_path: Path, plan: str, outcome: str, exit_code: int) -> None:
    """The name of the event is printed, its exit code taken over; a worker that has no plan `web` refuses."""
    plans = {plan: {"handler": "tar", "options": {"root": str(tmp_path)}}}
    with employed(tmp_path / "w", plans=plans) as worker:
        done = run("sh", snippet("A shell, without a broker"), cwd=tmp_path, SPOOL=str(worker.spool))

        assert (done.returncode, done.stderr) == (exit_code, "")
        assert f"-{outcome}-web-" in done.stdout
        assert worker.outcomes("web-dump-4718") == [outcome]
        assert list((worker.spool / "tmp").iterdir()) == []


def rows(database: Path) -> list[tuple[str, str]]:
    """What the listener has written down: requests and their outcomes."""
    if not database.exists():
        return []
    with closing(sqlite3.connect(database)) as connection:
        try:
            found = connection.execute("SELECT request_id, outcome FROM backups ORDER BY rowid").fetchall()
        except sqlite3.OperationalError:
            return []
    return [(request_id, outcome) for request_id, outcome in found]


@pytest.mark.parametrize(
    ("number", "queue", "broker"),
    [(0, "shop.backups", "amqp"), (1, "shop.backups.pika", "amqp"), (0, "shop.backups", "redis")],
    ids=["kombu", "pika", "kombu-on-redis"],
)
def test_listener_writes_each_event_down_once(
    request: pytest.FixtureRequest, tmp_path: Path, number: int, queue: str, broker: str
) -> None:
    """What comes while it is dead waits for it, and an event that comes again changes nothing."""
    worker, url = request.getfixturevalue(f"{broker}_worker"), request.getfixturevalue(f"{broker}_url")
    listener, database, log = tmp_path / "listener.py", tmp_path / "backups.sqlite", tmp_path / "log"
    listener.write_text(snippet("Listening to all outcomes", number))
    argv = [sys.executable, "-W", "error", str(listener)]
    ids = [f"heard-{uuid.uuid4().hex[:8]}" for _ in range(3)]

    def ask(name: str) -> str:
        done = worker.run("request", "web", "--id", name, "--wait", "--timeout", "30", "--json")
        assert done.returncode == 0, done.stderr
        return str(orjson.loads(done.stdout.splitlines()[-1])["request_id"])

    def heard(request_id: str) -> list[str]:
        return [outcome for told, outcome in rows(database) if told == request_id]

    with running(argv, cwd=tmp_path, log=log, BROKER_URL=url, DATABASE=str(database)) as process:
        wait_for(lambda: bound(url, queue) or process.poll() is not None, what="the queue", told=log.read_text)
        first = ask(ids[0])
        wait_for(lambda: "succeeded" in heard(first), what="the first outcome", told=log.read_text)
        process.kill()
        process.wait(20)
    second = ask(ids[1])
    again = [event for event in worker.events(second) if event["data"]["outcome"] == "succeeded"] * 3
    with kombu.Connection(url) as connection:
        exchange = kombu.Exchange("holdfast.events", type="topic")
        for event in again:
            connection.Producer().publish(
                orjson.dumps(event),
                exchange=exchange,
                declare=[exchange],
                routing_key="web.succeeded",
                serializer=None,
                content_type="application/cloudevents+json",
                content_encoding="utf-8",
            )
    third = ask(ids[2])
    with running(argv, cwd=tmp_path, log=log, BROKER_URL=url, DATABASE=str(database)):
        wait_for(lambda: "succeeded" in heard(third), what="the third outcome", told=log.read_text)

    assert [heard(name) for name in (first, second, third)] == [["started", "succeeded"]] * 3
    assert log.read_text() == ""


def bound(url: str, queue: str) -> bool:
    """Whether events reach this queue."""
    with kombu.Connection(url) as connection:
        channel = connection.default_channel
        if url.startswith("redis"):
            return any(queue in entry.decode() for entry in channel.client.smembers("_kombu.binding.holdfast.events"))
        try:
            return int(channel.queue_declare(queue=queue, passive=True).consumer_count) > 0
        except connection.channel_errors:
            return False


@pytest.mark.parametrize("number", [0, 1])
def test_requests_of_the_page_are_requests(number: int) -> None:
    """Plain, and as a CloudEvent."""
    request = parse(snippet("What a request says", number).encode())

    assert (request.request_id, request.data.plan) in {("web-dump-4711", "web"), ("/shop/dumper 4711", "web")}


def test_every_snippet_of_the_page_is_run_here() -> None:
    """A new one wants a test of its own."""
    assert {title: [language for language, _ in found] for title, found in sections().items()} == {
        "What a request says": ["json", "json"],
        "kombu": ["python"],
        "pika": ["python"],
        "pika, with a reply": ["python"],
        "A Celery task": ["python", "python"],
        "redis-py": ["python"],
        "kombu on Redis": ["python"],
        "A shell, without a broker": ["sh"],
        "Listening to all outcomes": ["python", "python"],
    }
