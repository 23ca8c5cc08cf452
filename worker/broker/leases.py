"""Keeps Redis from handing a message to another worker while the worker that holds it lives.

Redis knows no connection that breaks: a message that was taken and not settled for `visibility_timeout_seconds` is
anybody's. The time is counted from its entry in an index, which is renewed here. A worker that dies renews nothing.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from loguru import logger

from worker.broker.link import LEASE_SHARE, Link


class Leases:
    """The leases of one channel's unsettled messages; every method belongs to the thread of the link."""

    def __init__(self, link: Link, channel: Any) -> None:  # kombu has no types
        self._link = link
        self._channel = channel
        self._pause_seconds = link.settings.visibility_timeout_seconds * LEASE_SHARE
        self._due = 0.0
        self._gone: set[str] = set()

    def renew(self, tags: Collection[str]) -> None:
        """Renew them if it is time; call it often. A message that somebody else has or had is left alone."""
        if not tags or time.monotonic() < self._due:
            return
        renewed: list[int]
        with self._link.translated("renew the leases"), self._channel.conn_or_acquire() as client:
            pipeline = client.pipeline(transaction=False)
            for tag in tags:
                # Never added anew: what is not in the index any more has been settled, or handed to somebody else.
                pipeline.zadd(self._channel.unacked_index_key, {tag: time.time()}, xx=True, ch=True)
            renewed = pipeline.execute()
        self._due = time.monotonic() + self._pause_seconds
        gone = {tag for tag, changed in zip(tags, renewed, strict=True) if not changed}
        if gone - self._gone:
            logger.warning(
                "queue_leases_lost",
                queue=self._link.settings.name,
                messages=len(gone - self._gone),
                next="they are delivered again, and attach to the requests that this worker has",
            )
        self._gone = gone

    def give_up(self, tags: Collection[str]) -> None:
        """Put what a broken connection held back into the queue: otherwise nobody had it until the time has passed."""
        with self._link.translated("take back"):
            for tag in tags:
                self._channel.qos.restore_by_tag(tag)

    def make_room(self, count: int) -> None:
        """Let the channel take that many messages ahead of their settlements from now on."""
        with self._link.translated("set the prefetch count"):
            self._channel.basic_qos(0, count, False)
