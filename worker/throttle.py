"""Lets what is written to a store through no faster than the plan allows.

One `Throttle` for all parts of a set, whichever threads write them: together they keep its rate.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from handlers.contract import Control, Part, PartWriter
from worker.stores.protocol import Draft

_PIECE_SECONDS: Final = 0.125
"""What flows at once, as a share of a second's bytes: so often others may write, and a cancellation is heard."""
_CREDIT_SECONDS: Final = 0.125
"""How much of the time in which nothing flowed may be made up for, so that a late wake-up costs no throughput."""
_LOOK_SECONDS: Final = 0.25
"""How long a wait goes on without a checkpoint."""


class Throttle:
    """So many bytes a second, and no more than a quarter of a second's at once; any thread.

    In any interval at most `bytes_per_second` times its length pass, and `burst_bytes`.
    """

    def __init__(
        self,
        bytes_per_second: int,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if bytes_per_second < 1:
            raise ValueError(f"at least one byte a second must pass, not {bytes_per_second}")
        self._rate = bytes_per_second
        self._monotonic = monotonic
        self._sleep = sleep
        self._mutex = threading.Lock()
        self._paid_at = monotonic()
        """When all that has passed is made up for; before that nothing more passes."""
        self.piece_bytes: Final = max(1, int(bytes_per_second * _PIECE_SECONDS))
        """The most that passes in one go."""
        self.burst_bytes: Final = self.piece_bytes + math.ceil(bytes_per_second * _CREDIT_SECONDS)
        """By how much an interval may exceed the rate."""

    def wait(self, size_bytes: int, checkpoint: Callable[[], None]) -> None:
        """Wait until this many bytes, at most `piece_bytes`, may pass.

        Calls `checkpoint` at least twice a second meanwhile, and whatever it raises passes through: nothing counts as
        passed then.
        """
        if not 0 <= size_bytes <= self.piece_bytes:
            raise ValueError(f"{size_bytes} bytes cannot pass at once, only {self.piece_bytes}")
        while True:
            checkpoint()
            missing = self._pass(size_bytes)
            if missing <= 0:
                return
            self._sleep(min(missing, _LOOK_SECONDS))

    def _pass(self, size_bytes: int) -> float:
        """Count the bytes as passed, or the seconds until they may."""
        with self._mutex:
            # What passes is paid for afterwards, by whoever comes next: were it saved up for before, a thread with
            # small chunks could keep one with a large chunk waiting for ever.
            now = self._monotonic()
            if now < self._paid_at:
                return self._paid_at - now
            self._paid_at = max(self._paid_at, now - _CREDIT_SECONDS) + size_bytes / self._rate
            return 0.0


def throttled(draft: Draft, throttle: Throttle, control: Control) -> Draft:
    """The same draft, whose parts are written no faster than the throttle lets them.

    A write raises what `control.checkpoint()` raises, in whichever thread it is called, within half a second and the
    time the store needs for one piece; the part is of no use then. The small files of a commit are not delayed.
    """
    return _ThrottledDraft(draft, throttle, control)


class _ThrottledDraft:
    def __init__(self, draft: Draft, throttle: Throttle, control: Control) -> None:
        self._draft = draft
        self._throttle = throttle
        self._control = control

    def open_part(self, name: str) -> PartWriter:
        """A writer for a new part."""
        return _ThrottledPart(self._draft.open_part(name), self._throttle, self._control)

    def open_tree(self, name: str) -> Path:
        """A new directory. What is written into it passes us by: `Job.bandwidth_bytes_per_second` is for that."""
        return self._draft.open_tree(name)

    def leftover(self, name: str) -> Path | None:
        """What an earlier attempt left."""
        return self._draft.leftover(name)

    def commit(self, files: Mapping[str, bytes], manifest: bytes) -> None:
        """Make the set exist."""
        self._draft.commit(files, manifest)

    def discard(self) -> None:
        """Remove what was written."""
        self._draft.discard()


class _ThrottledPart:
    def __init__(self, part: PartWriter, throttle: Throttle, control: Control) -> None:
        self._part = part
        self._throttle = throttle
        self._control = control

    def write(self, chunk: bytes | bytearray | memoryview, /) -> int:
        """Append the whole chunk, piece by piece; nothing is copied."""
        with memoryview(chunk) as shaped, shaped.cast("B") as view:
            if not view:
                return self._part.write(view)
            for at in range(0, len(view), self._throttle.piece_bytes):
                with view[at : at + self._throttle.piece_bytes] as piece:
                    self._throttle.wait(len(piece), self._control.checkpoint)
                    self._part.write(piece)
            return len(view)

    def close(self) -> Part:
        """Make the part durable."""
        return self._part.close()
