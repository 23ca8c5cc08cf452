"""A worker's inside on memory, at a time that a test sets."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

from config.retention import Retention
from handlers.contract import Job, PlanName
from tests.workshop.handlers import TextHandler, TextOptions
from worker.announcer import Announcer
from worker.catalog import Catalog
from worker.disposition import RetryPolicy
from worker.events import EventData
from worker.intake.delivery import Settlement
from worker.intake.held import HeldDeliveries
from worker.intake.wire import RequestId
from worker.journal.memory import MemoryJournal
from worker.journal.protocol import Announcement, Entry
from worker.lease import Leases
from worker.outbox import EventWatcher, Outbox
from worker.pipeline import Configured, Pipeline, Rules
from worker.plan import Plan, Surroundings
from worker.store_watch import StoreWatch
from worker.stores.memory import MemoryStore

WEB = PlanName("web")


@dataclass
class Message:
    """A delivery that remembers how it was settled."""

    body: bytes
    intake: str = "spool"
    message_id: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    redelivered: bool = False
    settled: list[tuple[Settlement, str]] = field(default_factory=list)
    deferred: list[timedelta] = field(default_factory=list)

    def settle(self, settlement: Settlement, reason: str = "") -> None:
        """Write it down."""
        self.settled.append((settlement, reason))

    def defer(self, after: timedelta) -> None:
        """Write it down."""
        self.deferred.append(after)


def asked(request_id: str = "r1", **more: object) -> bytes:
    """A request's bytes."""
    return orjson.dumps({"id": request_id, "plan": "web", **more})


class LonelyLeases(MemoryStore):
    """The sets of another store, with leases that nobody else sees, as on a network file system without locks."""

    def __init__(self, shared: MemoryStore) -> None:
        super().__init__(shared.name)
        self._sets = shared._sets


class Taker:
    """An event sink that keeps what it takes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.taken: list[Announcement] = []

    def send(self, announcement: Announcement) -> None:
        """Keep it."""
        self.taken.append(announcement)

    def close(self) -> None:
        """Nothing to let go of."""


class Bench:
    """A worker's inside on memory, at a time that a test sets."""

    def __init__(self, tmp_path: Path, *, announced: bool = False, verify: str = "checksums", node: str = "n1") -> None:
        self.now = datetime(2026, 11, 21, tzinfo=UTC)
        self.ticks = 0.0
        self.journal = MemoryJournal()
        self.store = MemoryStore("disk")
        self.handler = TextHandler()
        self.tmp_path = tmp_path
        self.node = node
        self.verify = verify
        self.options = TextOptions()
        self.retention = Retention()
        self.held = HeldDeliveries() if announced else None
        self.spool, self.reply = Taker("spool"), Taker("reply")
        self.wire()

    def wire(self) -> None:
        """Put it together, again after a change."""
        around = Surroundings(
            catalog=Catalog({"disk": self.store}),
            node=self.node,
            scratch=self.tmp_path / "scratch",
            config_digest="0" * 64,
            clock=lambda: self.now,
            leases=Leases(node=self.node, state=self.node, lease_seconds=60, monotonic=lambda: self.ticks),
        )
        sinks = {"spool": self.spool, "reply": self.reply}
        self.announcer = Announcer(self.journal, sinks, lambda: self.now)
        self.outbox = Outbox(
            journal=self.journal, sinks=("spool",), node=self.node, clock=lambda: self.now, wake=lambda: None
        )
        plan = Plan(
            name=WEB,
            handler=self.handler,
            options=self.options,
            store=self.store,
            verify=self.verify,  # type: ignore[arg-type]
            max_level=9,
            labels={"team": "a"},
            retention=self.retention,
        )
        retry = RetryPolicy(
            attempts=3,
            first_delay=timedelta(seconds=10),
            max_delay=timedelta(hours=1),
            patience=timedelta(hours=1),
        )
        self.watch = StoreWatch(lambda: self.now)
        self.configured = Configured(
            plans={WEB: plan}, rules=Rules(retry=retry, reply_to_allowed=("amq.gen-*",)), around=around
        )
        self.pipeline = Pipeline(
            self.configured,
            journal=self.journal,
            outbox=self.outbox,
            stores=self.watch,
            held=self.held,
        )

    def accept(self, message: Message) -> Entry | None:
        """Bring a delivery."""
        return self.pipeline.accept(message)

    def work(self, request_id: str = "r1", cancelled: threading.Event | None = None) -> Entry:
        """Do the work of a request."""
        watcher = EventWatcher(self.outbox, period_seconds=0)
        return self.pipeline.work(RequestId(request_id), watcher, cancelled or threading.Event())

    def run(self, body: bytes, request_id: str = "r1") -> EventData:
        """Bring a request and work on it to its outcome."""
        self.accept(Message(body))
        return outcome(self.work(request_id))

    def words(self) -> list[str]:
        """What the spool was told, in order."""
        self.announcer.flush()
        return [orjson.loads(letter.body)["data"]["outcome"] for letter in self.spool.taken]


def outcome(entry: Entry) -> EventData:
    """The outcome in the journal."""
    assert entry.outcome is not None
    return EventData.model_validate_json(entry.outcome)


def raising(error: Exception) -> Callable[[Job], None]:
    """Makes the handler fail."""

    def during(job: Job) -> None:
        raise error

    return during
