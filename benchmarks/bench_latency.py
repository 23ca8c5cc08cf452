"""From `rename` into the spool, and from publish on RabbitMQ, to the start of the handler; what an idle worker costs.

Goals: p99 <= 50 ms each; an idle worker < 1 % of a core.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

import orjson
import psutil

from benchmarks.harness import HOLDFAST, workplace
from tests.services.rabbitmq import RabbitMQ

REQUESTS = 300


def main() -> None:
    """Print the percentiles."""
    with workplace() as place, worker(place, {}) as process:
        report("rename into the spool", place, partial(into_spool, place))
        idle(process)
    with workplace() as place:
        server = RabbitMQ(place / "broker")
        server.start()
        try:
            over_rabbitmq(place, server.url)
        finally:
            server.stop()


def over_rabbitmq(place: Path, url: str) -> None:
    """The same through the broker."""
    with worker(place, {"queue": {"url": url}}) as process, publishing(url) as publish:
        report("publish on RabbitMQ", place, publish)
        idle(process)


@contextmanager
def worker(place: Path, more: dict[str, object]) -> Iterator[psutil.Process]:
    """A worker with one small plan."""
    for name in ("store", "subject"):
        (place / name).mkdir()
    (place / "subject" / "file").write_text("hello")
    settings = {
        "node": "bench",
        "state_dir": str(place / "state"),
        "stores": {"disk": {"kind": "local", "path": str(place / "store")}},
        "plans": {"tiny": {"handler": "tar", "max_level": 0, "options": {"root": str(place / "subject")}}},
        "log": {"level": "warning"},
        **more,
    }
    (place / "config.yaml").write_bytes(orjson.dumps(settings))
    process = subprocess.Popen([str(HOLDFAST), "--config", str(place / "config.yaml"), "run"])
    try:
        wait_for((place / "state/spool/new").is_dir)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def wait_for(done: Callable[[], bool], seconds: float = 60) -> None:
    """Until it is so."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit("the worker does not come along")
        time.sleep(0.005)


def into_spool(place: Path, request_id: str) -> None:
    """As any producer does."""
    spool = place / "state/spool"
    file = spool / "tmp" / f"{request_id}.json"
    file.write_bytes(orjson.dumps({"id": request_id, "plan": "tiny"}))
    file.rename(spool / "new" / file.name)


@contextmanager
def publishing(url: str) -> Iterator[Callable[[str], None]]:
    """A producer with an open connection."""
    import kombu

    with kombu.Connection(url) as connection:
        producer = connection.Producer()

        def publish(request_id: str) -> None:
            producer.publish({"id": request_id, "plan": "tiny"}, exchange="holdfast", routing_key="tiny")

        time.sleep(3)  # the worker declares its queue meanwhile
        yield publish


def report(name: str, place: Path, send: Callable[[str], None]) -> None:
    """Send one request after the other; compare its time with that of the `started` event."""
    sent: dict[str, float] = {}
    spool = place / "state/spool/events"
    for number in range(REQUESTS + 20):
        request_id = f"b{number:05}-{os.getpid()}"
        sent[request_id] = time.time()
        send(request_id)
        wanted = 2 * (number + 1)
        wait_for(partial(has_events, spool, wanted))
    delays = []
    for file in spool.glob("*.json"):
        event = orjson.loads(file.read_bytes())
        if event["type"].endswith(".started"):
            began = datetime.fromisoformat(event["time"]).timestamp()
            delays.append(1000 * (began - sent[event["data"]["request_id"]]))
    delays = sorted(delays[20:])
    p99 = delays[int(len(delays) * 0.99)]
    print(
        f"{name} -> handler's start: p50 {statistics.median(delays):.1f} ms, p99 {p99:.1f} ms, {len(delays)} requests"
    )


def has_events(spool: Path, wanted: int) -> bool:
    """Whether so many events are there."""
    return sum(1 for _ in spool.glob("*.json")) >= wanted


def idle(process: psutil.Process, seconds: float = 20) -> None:
    """What the worker costs while nothing happens."""
    time.sleep(2)
    before = process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    used = (after.user + after.system - before.user - before.system) / seconds
    memory = process.memory_info().rss / (1 << 20)
    print(f"    idle: {used:.2%} of a core, {memory:.0f} MiB")


if __name__ == "__main__":
    main()
