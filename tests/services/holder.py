"""A process of its own that takes deliveries in without ever settling them."""

from __future__ import annotations

import sys

import orjson

from config.secrets import Secret
from config.settings import Queue
from worker.intake.delivery import Delivery, Gate
from worker.intake.queue import QueueIntake


def main(settings: str) -> None:
    """Tell each delivery's body on standard output; until killed. `settings` is a queue's, as JSON."""

    def hold(delivery: Delivery) -> None:
        sys.stdout.write(delivery.body.decode() + "\n")
        sys.stdout.flush()

    given = orjson.loads(settings)
    queue = Queue.model_validate({**given, "url": Secret(given["url"])})
    QueueIntake(queue, node="holder").run(Gate(deliver=hold, room=lambda: 1))


if __name__ == "__main__":
    main(*sys.argv[1:])
