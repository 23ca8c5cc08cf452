"""Does work in a thread that stands back as a plan's limits say, with all that it starts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from loguru import logger

from config.settings import Limits
from handlers.tools.priority import stand_back

T = TypeVar("T")


def gently(name: str, limits: Limits, work: Callable[[], T]) -> T:
    """Do the work; returns what it returns, raises what it raises. Without limits it is done by the caller itself.

    Otherwise in a thread of its own: there is no way back for a thread, and the caller holds the journal's lock now and
    then, for which everybody else would have to wait.
    """
    if not limits.nice and limits.io_class == "normal":
        return work()

    def standing_back() -> T:
        for trouble in stand_back(limits.nice, limits.io_class):
            logger.warning("limit_not_set", error=trouble, next="the work goes on without it")
        return work()

    with ThreadPoolExecutor(1, thread_name_prefix=f"gently-{name}") as thread:
        # With the caller's context: the log's lines are to tell the request.
        return thread.submit(copy_context().run, standing_back).result()
