"""Decides at a look whether the indicator in a directory is a request by now.

A file that is just being touched changes its time more than once (`touch` makes it, then sets its times), and each time
would be a request of its own. So one that was closed, or came by rename, counts at once, and any other when it has been
left alone for a moment.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from loguru import logger

from config.indicators import Indicators
from worker.intake.indicator_acts import Own, is_newer, put_back
from worker.intake.indicator_sighting import Sighting
from worker.intake.indicator_tree import Node
from worker.intake.spool_dirs import shown
from worker.intake.watches import ATTRIBUTES, COMPLETE, CREATED

MOMENT_SECONDS: Final = 0.25
"""How long an indicator must have been left alone of which nobody told that it is finished."""
_LONGEST_ANSWER: Final = 4096


def request_in(line: bytes) -> str | None:
    """The request that a file written by an answer names."""
    for word in line[:_LONGEST_ANSWER].split():
        if word.startswith(b"request="):
            return word.removeprefix(b"request=").decode("utf-8", "replace")
    return None


class Looks:
    """Looks with the settings of one name in the configuration."""

    def __init__(
        self, intake: str, indicators: Indicators, told_by_handler: Callable[[str], bool] = lambda plan: False
    ) -> None:
        """`told_by_handler` says whether a plan's handler itself tells those whose data is safe."""
        self._told_by_handler = told_by_handler
        self._success = indicators.on_success
        self._own = Own(intake)
        self._name = indicators.name
        self._plan = indicators.plan
        self._level = indicators.level
        self._settle_seconds = indicators.settle_seconds
        both = (indicators.on_success, indicators.on_failure)
        names = {afterwards.write for afterwards in both if afterwards.write is not None}
        # Where the indicator is to go, too, and is still there, somebody died before that was done.
        half = {afterwards.write for afterwards in both if afterwards.indicator != "leave"}
        self._answers = sorted(names - half)

    def look(self, node: Node, descriptor: int, bits: int) -> Sighting | float | None:
        """What is new in an opened directory, after these events of inotify.

        An indicator that asks; or the seconds after which to look again; or nothing. Remembers in the node what it saw.
        """
        if not node.looked_at:
            node.looked_at = True
            put_back(descriptor, self._name, self._own)
        found = self._status(node, descriptor)
        if found is None:
            return None
        sighting = Sighting.of(found, plan=self._plan.replace("{directory}", node.place.name), level=self._level)
        before = node.taken
        if before is not None and (before.inode, before.mtime_ns) == (sighting.inode, sighting.mtime_ns):
            return None
        sure = bits & COMPLETE or (
            # No new file, so no half of a `touch`: somebody set the times of one that was there.
            bits & ATTRIBUTES and not bits & CREATED and before is not None and before.inode == sighting.inode
        )
        if (missing := self._missing(node, found, sure=bool(sure))) > 0:
            return missing
        if self._is_answered(descriptor, sighting) or self._was_told(descriptor, sighting, found):
            node.taken = sighting
            return None
        return sighting

    def _status(self, node: Node, descriptor: int) -> os.stat_result | None:
        try:
            found = os.stat(self._name, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:
            node.taken = node.seen = node.odd = None
            return None
        except OSError as error:
            self._tell(node, "indicator_unseen", str(error.strerror), next="looked for again and again")
            return None
        if stat.S_ISREG(found.st_mode):
            node.odd = None
            return found
        self._tell(node, "indicator_ignored", "it is no regular file", next="it asks for nothing")
        return None

    def _tell(self, node: Node, event: str, odd: str, *, next: str) -> None:  # noqa: A002 - the log's own word
        # Once for each time it begins, not once for each look.
        if node.odd != odd:
            path = os.path.join(node.place.path, self._name)  # noqa: PTH118 - only to be shown
            logger.warning(event, indicator=shown(path), error=odd, next=next)
        node.odd = odd

    def _missing(self, node: Node, found: os.stat_result, *, sure: bool) -> float:
        """For how many seconds it has yet to be left alone."""
        wanted = self._settle_seconds or (0.0 if sure else MOMENT_SECONDS)
        if wanted == 0.0:
            return 0.0
        looks_like = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        now = time.monotonic()
        if node.seen is None or node.seen[0] != looks_like:
            node.seen = (looks_like, now)
        alone = now - node.seen[1]
        if node.reliable:
            # Nobody can set this time, and here it is of our own clock; another machine's may be wrong.
            alone = max(alone, (time.time_ns() - found.st_ctime_ns) / 1e9)
        return wanted - alone

    def _was_told(self, descriptor: int, sighting: Sighting, found: os.stat_result) -> bool:
        """Whether the handler has told of a set since the indicator was touched, and nothing else was to be done."""
        told = self._success.write
        if told is None or self._success.indicator != "leave" or not self._told_by_handler(sighting.plan):
            return False
        with suppress(OSError):
            return is_newer(descriptor, told, found)
        return False

    def _is_answered(self, descriptor: int, sighting: Sighting) -> bool:
        """Whether a file beside it says that it had its answer: the journal may be lost, the device's number new."""
        return any(
            (request := request_in(self._content(descriptor, name))) is not None and sighting.is_same_file(request)
            for name in self._answers
        )

    def _content(self, descriptor: int, name: str) -> bytes:
        with suppress(OSError):
            # Not to wait for the other end of a named pipe.
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=descriptor)
            try:
                if stat.S_ISREG(os.fstat(file).st_mode):
                    return os.read(file, _LONGEST_ANSWER)
            finally:
                os.close(file)
        return b""
