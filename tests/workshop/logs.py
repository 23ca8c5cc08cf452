"""What the log was told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from loguru import logger


@contextmanager
def heard_names() -> Iterator[list[str]]:
    """The names of the events logged in the block, in order."""
    names: list[str] = []
    sink = logger.add(lambda message: names.append(message.record["message"]), level="DEBUG")
    try:
        yield names
    finally:
        logger.remove(sink)
