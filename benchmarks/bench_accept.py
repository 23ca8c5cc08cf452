"""How fast a worker takes requests in, how soon one begins behind 10 000 others; against consumers that do nothing.

The same persistent messages, on classic queues: taken by Holdfast, by a bare kombu consumer that acknowledges, by
Celery with `acks_late` whose task does nothing. It is not the same work: Holdfast answers for a request from then on,
with an fsynced transaction of its journal for each; the others forget the message. The plan of the many is held from
outside, so that no backup is made meanwhile; the single requests that are timed are for another plan.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from benchmarks.harness import HOLDFAST, workplace
from handlers.tools.lock import Lock
from tests.services.rabbitmq import RabbitMQ
from worker.spool_events import request_mark

COUNT = 10_000
PROBES = 100
ROUNDS = 3
MANY, SINGLE = "many", "single"

KOMBU_CONSUMER = """
import os, sys, time
import kombu

url, queue, file = sys.argv[1:]
starts = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def start(message):
    os.write(starts, b"%s %.6f\\n" % (message.properties["message_id"].encode(), time.time()))
    message.ack()

with kombu.Connection(url) as connection:
    with connection.Consumer(kombu.Queue(queue), on_message=start):
        while True:
            connection.drain_events()
"""

CELERY_TASKS = """
import os, time
from celery import Celery

app = Celery("tasks", broker=os.environ["BENCH_URL"])
app.conf.update(task_acks_late=True, task_ignore_result=True, task_default_queue=os.environ["BENCH_QUEUE"])
starts = os.open(os.environ["BENCH_STARTS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

@app.task(name="start")
def start(name):
    os.write(starts, b"%s %.6f\\n" % (name.encode(), time.time()))
"""

Send = Callable[[str, str], None]
"""Sends a request of this id for this plan."""


@dataclass(frozen=True)
class Seen:
    """One round of one contender."""

    rate: float
    """Messages taken in a second, from the first to the last of the many."""
    behind: float
    """Seconds from the first of the many to the start of the one that was published after them."""
    delays: list[float]
    """Milliseconds from publish to start, one message at a time, when the many have been taken."""


@dataclass(frozen=True)
class Bench:
    """Where a round takes place."""

    place: Path
    url: str
    queue: str

    @property
    def starts(self) -> Path:
        """Where the others write down what they start."""
        return self.place / "starts"


class Holdfast:
    """Our worker, with a queue of this type, or with its spool alone."""

    def __init__(self, kind: str) -> None:
        self.name = f"holdfast, {kind}"
        self._kind = kind

    @contextmanager
    def running(self, bench: Bench) -> Iterator[None]:
        """One worker; the plan of the many is held by somebody else."""
        place = bench.place
        for name in ("store", "subject", "state/locks"):
            (place / name).mkdir(parents=True, exist_ok=True)
        (place / "subject" / "file").write_text("hello")
        plan = {"handler": "tar", "verify": "none", "max_level": 0, "options": {"root": str(place / "subject")}}
        names = {"name": bench.queue, "exchange": f"{bench.queue}.in", "events_exchange": f"{bench.queue}.events"}
        settings = {
            "node": "bench",
            "state_dir": str(place / "state"),
            "max_accepted": 1_000_000,
            "accept_ahead": 1_000_000,
            "stores": {"disk": {"kind": "local", "path": str(place / "store")}},
            "plans": {MANY: plan, SINGLE: plan},
            "log": {"level": "warning"},
            **({} if self._kind == "spool" else {"queue": {"url": bench.url, "type": self._kind, **names}}),
        }
        (place / "config.yaml").write_bytes(orjson.dumps(settings))
        lock = Lock.try_hold(place / "state/locks" / f"{MANY}.lock")
        assert lock is not None
        with lock, process([str(HOLDFAST), "--config", str(place / "config.yaml"), "run"]):
            wait_for((place / "state/spool/new").is_dir)
            if self._kind != "spool":
                wait_for(partial(is_declared, bench))
            yield

    @contextmanager
    def sending(self, bench: Bench) -> Iterator[Send]:
        """As any producer does."""
        spool = bench.place / "state/spool"

        def into_spool(request_id: str, plan: str) -> None:
            draft = spool / "tmp" / f"{request_id}.json"
            draft.write_bytes(orjson.dumps({"id": request_id, "plan": plan}))
            draft.rename(spool / "new" / draft.name)

        if self._kind == "spool":
            yield into_spool
            return
        with publishing(bench, plain) as publish:
            yield publish

    def taken(self, bench: Bench) -> tuple[int, float, float]:
        """As the journal has it: how many of the many, the moments of the first and the last."""
        with closing(sqlite3.connect(f"file:{bench.place}/state/journal.sqlite3?mode=ro", uri=True)) as journal:
            count, first, last = journal.execute(
                "SELECT count(*), min(accepted), max(accepted) FROM requests WHERE plan = ?", (MANY,)
            ).fetchone()
        return count, (first or 0) / 1e6, (last or 0) / 1e6

    def started(self, bench: Bench, request_id: str) -> float | None:
        """As its `started` event says; asked again until there is an outcome, as its plan is busy till then."""
        events = bench.place / "state/spool/events"
        mark = f"{SINGLE}-{request_mark(request_id)}"
        if not any(events.glob(f"*-succeeded-{mark}-*")):
            return None
        event = orjson.loads(next(events.glob(f"*-started-{mark}-*")).read_bytes())
        return datetime.fromisoformat(event["time"]).timestamp()


class Other:
    """A consumer that writes down when it starts a message, and does nothing."""

    def __init__(self, name: str, pool: list[str] | None = None) -> None:
        self.name = name
        self._pool = pool

    @contextmanager
    def running(self, bench: Bench) -> Iterator[None]:
        """A process of its own."""
        if self._pool is None:
            argv = [sys.executable, "-c", KOMBU_CONSUMER, bench.url, bench.queue, str(bench.starts)]
        else:
            (bench.place / "tasks.py").write_text(CELERY_TASKS)
            celery = str(HOLDFAST.with_name("celery"))
            argv = [celery, "--quiet", "--app", "tasks", "worker", "--loglevel", "error", *self._pool]
        environment = {"BENCH_URL": bench.url, "BENCH_QUEUE": bench.queue, "BENCH_STARTS": str(bench.starts)}
        with (
            (bench.place / "log").open("ab") as log,
            process(argv, cwd=bench.place, env={**os.environ, **environment}, stdout=log, stderr=log),
        ):
            wait_for(partial(is_declared, bench))
            yield

    @contextmanager
    def sending(self, bench: Bench) -> Iterator[Send]:
        """The same request, for Celery in its own envelope."""
        with publishing(bench, plain if self._pool is None else as_task) as publish:
            yield publish

    def taken(self, bench: Bench) -> tuple[int, float, float]:
        """As it wrote down."""
        lines = bench.starts.read_text().splitlines() if bench.starts.exists() else []
        moments = [float(line.split()[1]) for line in lines if line.startswith(MANY)]
        return len(moments), min(moments, default=0), max(moments, default=0)

    def started(self, bench: Bench, request_id: str) -> float | None:
        """As it wrote down."""
        with bench.starts.open("rb") as file:
            file.seek(max(0, bench.starts.stat().st_size - 4096))
            lines = [line.split() for line in file.read().decode().splitlines(keepends=True) if line.endswith("\n")]
        return next((float(line[1]) for line in lines if line[0] == request_id), None)


Contender = Holdfast | Other

OTHERS = (
    Other("bare kombu consumer"),
    Other("celery, solo pool", ["--pool", "solo"]),
    Other("celery, 2 processes", ["--pool", "prefork", "--concurrency", "2"]),
)


def main() -> None:
    """Print rates, delays and ratios."""
    ours = (Holdfast("classic"), Holdfast("quorum"), Holdfast("spool"))
    seen: dict[str, list[Seen]] = {contender.name: [] for contender in (*ours, *OTHERS)}
    with workplace() as place:
        server = RabbitMQ(place / "broker")
        server.start()
        try:
            for turn in range(ROUNDS):
                for number, contender in enumerate((*ours, *OTHERS)):
                    bench = Bench(place / f"{turn}-{number}", server.url, f"accept-{turn}-{number}")
                    bench.place.mkdir()
                    seen[contender.name].append(one_round(contender, bench))
        finally:
            server.stop()
    report(seen)


def one_round(contender: Contender, bench: Bench) -> Seen:
    """The many wait and one behind them; then a consumer comes; then one after the other."""
    with contender.running(bench):
        pass  # it has made its queue or spool
    with contender.sending(bench) as send:
        for number in range(COUNT):
            send(f"{MANY}-{number:06}", MANY)
        send(f"{SINGLE}-behind", SINGLE)
        with contender.running(bench):
            wait_for(lambda: contender.taken(bench)[0] >= COUNT, pause=0.1)
            _, first, last = contender.taken(bench)
            behind = start_of(contender, bench, f"{SINGLE}-behind") - first
            delays = []
            for number in range(PROBES):
                sent = time.time()
                send(f"{SINGLE}-{number:06}", SINGLE)
                delays.append(1000 * (start_of(contender, bench, f"{SINGLE}-{number:06}") - sent))
    seen = Seen(rate=(COUNT - 1) / (last - first), behind=behind, delays=delays)
    print(f"    {contender.name}: {seen.rate:.0f}/s", flush=True)
    return seen


def report(seen: dict[str, list[Seen]]) -> None:
    """Medians over the rounds; delays of all rounds together."""
    rates = {name: statistics.median(one.rate for one in rounds) for name, rounds in seen.items()}
    print(f"{COUNT} messages, {ROUNDS} rounds:")
    for name, rounds in seen.items():
        delays = sorted(delay for one in rounds for delay in one.delays)
        p50, p99 = statistics.median(delays), delays[int(len(delays) * 0.99)]
        behind = statistics.median(one.behind for one in rounds)
        print(f"{name}: {rates[name]:.0f}/s; the one behind them started after {behind:.1f} s")
        print(f"    then, one at a time, publish -> start: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    for ours in (name for name in rates if name.startswith("holdfast")):
        against = ", ".join(f"{rates[ours] / rates[other.name]:.2f} of {other.name}" for other in OTHERS)
        print(f"    rate of {ours}: {against}")


def start_of(contender: Contender, bench: Bench, request_id: str) -> float:
    """When this one began."""
    moments: list[float] = []

    def known() -> bool:
        if bench.place.exists() and (moment := contender.started(bench, request_id)) is not None:
            moments.append(moment)
        return bool(moments)

    wait_for(known)
    return moments[0]


def plain(request_id: str, plan: str) -> dict[str, Any]:
    """A request as plain JSON."""
    body = orjson.dumps({"id": request_id, "plan": plan})
    return {"body": body, "content_type": "application/json", "content_encoding": "utf-8", "message_id": request_id}


def as_task(request_id: str, plan: str) -> dict[str, Any]:
    """The task that does nothing, as Celery publishes it."""
    from celery import Celery

    message = Celery("bench", set_as_current=False).amqp.as_task_v2(request_id, "start", args=(request_id,))
    return {"body": message.body, "headers": message.headers, "serializer": "json", **message.properties}


@contextmanager
def publishing(bench: Bench, message: Callable[[str, str], dict[str, Any]]) -> Iterator[Send]:
    """Straight into the queue, from an open connection."""
    import kombu

    with kombu.Connection(bench.url) as connection:
        producer = connection.Producer()
        yield lambda request_id, plan: producer.publish(
            **message(request_id, plan), exchange="", routing_key=bench.queue, delivery_mode=2
        )


def is_declared(bench: Bench) -> bool:
    """Whether somebody consumes from the queue."""
    import kombu

    with kombu.Connection(bench.url) as connection:
        try:
            return bool(connection.default_channel.queue_declare(queue=bench.queue, passive=True).consumer_count)
        except connection.channel_errors:
            return False


@contextmanager
def process(argv: list[str], **options: Any) -> Iterator[None]:
    """A process that is asked to end after the block."""
    running = subprocess.Popen(argv, **options)
    try:
        yield
    finally:
        running.terminate()
        running.wait()


def wait_for(done: Callable[[], bool], *, pause: float = 0.002, seconds: float = 900) -> None:
    """Until it is so."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit("it does not come along")
        time.sleep(pause)


if __name__ == "__main__":
    main()
