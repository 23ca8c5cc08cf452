"""A process of its own that takes deliveries in without ever settling them."""

from __future__ import annotations

import sys

from config.secrets import Secret
from config.settings import Queue
from worker.intake.delivery import Delivery, Gate
from worker.intake.queue import QueueIntake


def main(url: str, name: str, exchange: str, dead: str) -> None:
    """Tell each delivery's body on standard output; until killed."""

    def hold(delivery: Delivery) -> None:
        sys.stdout.write(delivery.body.decode() + "\n")
        sys.stdout.flush()

    settings = Queue(url=Secret(url), name=name, exchange=exchange, dead_letter_exchange=dead)
    QueueIntake(settings, node="holder").run(Gate(deliver=hold, room=lambda: 1))


if __name__ == "__main__":
    main(*sys.argv[1:])
