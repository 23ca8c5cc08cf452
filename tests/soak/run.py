"""One soak: a time of trouble, a time to come to rest, a verdict."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson
from kombu.connection import Connection

from tests.services.rabbitmq import RabbitMQ
from tests.soak import verdict
from tests.soak.asking import Asked, Letters
from tests.soak.crew import Crew, Member
from tests.soak.subject import Subject
from tests.workshop import checker
from tests.workshop.workers import Worker, wait_for

PLANS = ("web", "docs")
WORKERS = 2
REST_SECONDS = 240.0
"""How long everything may take to come to rest afterwards; a RabbitMQ that was killed needs a minute of it."""
BROKER_DEATH_EVERY_SECONDS = 60.0

_CONNECTION: Final[Any] = Connection  # kombu has no types


class Soak:
    """Two workers, each with a spool of its own; one queue, one store, two plans."""

    def __init__(
        self, place: Path, *, seed: int, seconds: float, say: Callable[[str], None], settle: str | None = None
    ) -> None:
        """The settle mode is drawn by lot where none is given."""
        self.place = place
        self.judged: Counter[str] = Counter()
        self._seconds = seconds
        self._say = say
        self._rng = random.Random(seed)
        self._settle = settle or self._rng.choice(["journalled", "announced"])
        self._subjects = {plan: Subject(place / "subjects" / plan, self._rng) for plan in PLANS}
        self._broker = RabbitMQ(place / "broker")
        self._crew = Crew(members=[Member(worker=worker) for worker in self._workers()], rng=self._rng)
        self._letters = Letters(rng=self._rng, plans=PLANS)
        self._publisher: Any = None
        self._broker_dies_at = BROKER_DEATH_EVERY_SECONDS * self._rng.uniform(0.3, 1)
        self._scene = verdict.Scene(
            store=place / "store",
            places=[member.worker.place for member in self._crew.members],
            subjects=self._subjects,
            scratch=place / "restored",
        )

    @property
    def compared(self) -> int:
        """How many sets were restored and compared with what the subject was."""
        return sum(count for what, count in self.judged.items() if what.startswith("compared"))

    def run(self) -> list[str]:
        """Everything; what is wrong in the end, in words. No process outlives it."""
        self._say(f"soak: {self._seconds:g} s in {self.place}, settle: {self._settle}")
        try:
            self._broker.start()
            self._begin()
            self._trouble()
            trouble = self._come_to_rest()
            return trouble or self._judge()
        finally:
            for member in self._crew.members:
                if not member.worker.ended:
                    member.worker.kill()
            self._hang_up()
            self._broker.stop()

    def _workers(self) -> list[Worker]:
        mark = uuid.uuid4().hex[:8]
        self._queue = {
            "url": self._broker.url,
            "name": f"requests-{mark}",
            "exchange": f"in-{mark}",
            "dead_letter_exchange": f"dead-{mark}",
            "connect_timeout_seconds": 5,
            "delivery_limit": 10_000,
        }
        plans = {
            plan: {"handler": "tar", "options": {"root": str(subject.root)}} for plan, subject in self._subjects.items()
        }
        return [
            Worker(
                self.place / f"n{number + 1}",
                self.place,
                self.place / "store",
                plans=plans,
                settle=self._settle,
                queue=self._queue,
                spool={"scan_seconds": 1},
                # A request may meet many deaths here, none of which is its fault.
                retry={"attempts": 1000, "first_delay_seconds": 0.1, "max_delay_seconds": 0.5},
            )
            for number in range(WORKERS)
        ]

    def _begin(self) -> None:
        """All workers run, and each plan has a set to build upon, to verify."""
        for member in self._crew.members:
            member.wanted = True
            member.worker.start()
            wait_for(partial(_is_connected, member.worker), what="the queue")
        for plan in PLANS:
            self._send(*self._letters.backup(plan))
        wait_for(lambda: not self._unanswered(), what="the first sets", told=self._unanswered)

    def _trouble(self) -> None:
        begun = time.monotonic()
        while (elapsed := time.monotonic() - begun) < self._seconds:
            match self._rng.choices(["ask", "change", "harm", "calm"], [60, 12, 14, 6])[0]:
                case "ask":
                    self._send(*self._letters.next())
                case "change":
                    self._rng.choice(list(self._subjects.values())).change()
                case "harm":
                    self._crew.harm()
                case "calm":
                    self._let_them_work()
            self._crew.look_after(restart=0.3)
            if elapsed > self._broker_dies_at:
                self._kill_broker()
                self._broker_dies_at = time.monotonic() - begun + BROKER_DEATH_EVERY_SECONDS
            time.sleep(self._rng.expovariate(8))  # the pace of events, not a wait for anything

    def _let_them_work(self) -> None:
        """A time without harm, after which a subject changes: most sets are to be made of one that stands still."""
        self._crew.bring_up()
        with suppress(AssertionError):
            wait_for(lambda: not self._unanswered(), seconds=5, what="quiet")
        for subject in self._subjects.values():
            subject.change()

    def _kill_broker(self) -> None:
        self._crew.done["broker killed"] += 1
        self._broker.kill()
        self._hang_up()
        self._broker.start()

    def _send(self, asked: Asked, body: bytes) -> None:
        asked.sent += 1
        if self._rng.random() < 0.5:
            self._put(self._rng.choice(self._crew.members).worker.spool, asked, body)
        else:
            self._publish(asked, body)

    def _put(self, spool: Path, asked: Asked, body: bytes) -> None:
        name = f"{asked.request_id}.{asked.sent}.json"
        (spool / "tmp" / name).write_bytes(body)
        (spool / "tmp" / name).rename(spool / "new" / name)
        asked.accepted.add(orjson.loads(body)["reason"])

    def _publish(self, asked: Asked, body: bytes) -> None:
        try:
            if self._publisher is None:
                self._publisher = _CONNECTION(self._broker.url, transport_options={"confirm_publish": True})
            self._publisher.Producer().publish(
                body,
                exchange=self._queue["exchange"],
                routing_key=orjson.loads(body)["plan"],
                content_type="application/json",
                content_encoding="binary",
                serializer=None,
                delivery_mode=2,
                timeout=5,
                confirm_timeout=5,
            )
        except (OSError, *Connection.recoverable_connection_errors) as error:
            self._say(f"soak: whether {asked.request_id} was published nobody knows: {error!r}")
            self._hang_up()
        else:
            asked.accepted.add(orjson.loads(body)["reason"])

    def _hang_up(self) -> None:
        if self._publisher is not None:
            with suppress(Exception):
                self._publisher.collect()
            self._publisher = None

    def _unanswered(self) -> list[str]:
        told = verdict.outcomes(self._scene)
        return [name for name, asked in self._letters.asked.items() if asked.accepted and not told.get(name)]

    def _come_to_rest(self) -> list[str]:
        """Let them end what there is to do, then stop them; what kept them from it."""
        self._crew.bring_up()
        try:
            wait_for(lambda: not self._unrest(), seconds=REST_SECONDS, what="rest", told=self._unrest)
        except AssertionError as error:
            return [str(error), *self._crew.trouble]
        self._crew.end()
        return self._crew.trouble

    def _unrest(self) -> Sequence[str]:
        """Why it is not over; the broker, which is slow to tell, is asked last."""
        self._crew.look_after(restart=1)
        for unrest in (self._unanswered(), self._unconcluded(), self._in_spools()):
            if unrest:
                return unrest
        return self._in_queue()

    def _unconcluded(self) -> list[str]:
        found = []
        for place in self._scene.places:
            state = place / "state"
            found += [name for name, known in checker.journal(state).items() if known.state != "announced"]
            found += ["an event"] * checker.unsent(state)
        return found

    def _in_spools(self) -> list[str]:
        return [name for place in self._scene.places for name in checker.waiting(place / "state" / "spool")]

    def _in_queue(self) -> list[str]:
        """Taken or not."""
        lines = self._broker.control("list_queues", "name", "messages").splitlines()
        return [name for name, count in map(str.split, lines) if name == self._queue["name"] and count != "0"]

    def _dead_letters(self) -> list[bytes]:
        found = [path for place in self._scene.places for path in (place / "state" / "spool" / "failed").glob("[!.]*")]
        letters = [path.read_bytes() for path in found if path.suffix != ".reason"]
        with _CONNECTION(self._broker.url) as connection:
            channel = connection.default_channel
            while (message := channel.basic_get(f"{self._queue['name']}.dead", no_ack=True)) is not None:
                letters.append(bytes(message.body))
        self.judged["dead letters"] = len(letters)
        return letters

    def _judge(self) -> list[str]:
        asked = self._letters.asked
        self._scene.scratch.mkdir()
        found = [
            *verdict.of_requests(asked, self._scene),
            *verdict.of_leftovers(self._scene, [*self._in_spools(), *self._in_queue()]),
            *verdict.of_dead_letters(asked, self._dead_letters()),
            *verdict.of_sets(asked, self._scene),
            *verdict.of_contents(self._scene, self.judged),
        ]
        sent = sum(each.sent for each in asked.values())
        changes = sum(subject.versions for subject in self._subjects.values())
        self._say(f"soak: {len(asked)} requests sent {sent} times, subjects changed {changes} times")
        for what, count in (*self._crew.done.items(), *sorted(self.judged.items())):
            self._say(f"soak: {what}: {count}")
        return found


def _is_connected(worker: Worker) -> bool:
    return b'"queue_connected"' in worker.log.read_bytes()
