"""Counts the messages that were refused on arrival and wait for a person; reads none of them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from config.settings import Settings
from handlers.errors import HoldfastError
from worker.intake.spool_dirs import SpoolDirectories


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetters:
    """What lies in one place."""

    place: str
    count: int | None
    """None where the place could not be looked at."""
    trouble: str | None = None
    """Why not."""


def in_spool(settings: Settings) -> DeadLetters | None:
    """The files in the spool's `failed/`; None without a spool."""
    failed = SpoolDirectories(settings.spool_path).failed
    if not settings.spool.enabled or not failed.is_dir():
        return None
    try:
        with os.scandir(failed) as files:
            count = sum(1 for file in files if not file.name.endswith(".reason"))
    except OSError as error:
        return DeadLetters(place=str(failed), count=None, trouble=error.strerror or str(error))
    return DeadLetters(place=str(failed), count=count)


def in_queue(settings: Settings) -> DeadLetters | None:
    """The messages in the dead letter queue; None without a broker. A broker that is away is no error."""
    if settings.queue is None:
        return None
    from worker.broker.publisher import ping
    from worker.broker.topology import dead_queue

    place = f"queue {dead_queue(settings.queue)}"
    try:
        return DeadLetters(place=place, count=ping(settings.queue).dead or 0)
    except HoldfastError as error:
        return DeadLetters(place=place, count=None, trouble=error.message)
