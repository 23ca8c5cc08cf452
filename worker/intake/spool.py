"""The embedded intake: requests are files that a producer renames into a directory.

Described for producers in `docs/spool.md`. Hints only wake a look at the directory; what lies there is the truth.
"""

from __future__ import annotations

import errno
import heapq
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from loguru import logger

from handlers.tools.clock import Clock, system_clock
from worker.intake import spool_slots
from worker.intake.delivery import Delivery, Gate, Settlement
from worker.intake.hints import DirectoryHints
from worker.intake.spool_claims import Claim, Claims
from worker.intake.spool_dirs import SpoolDirectories, shown
from worker.intake.spool_files import Unfit, is_whole, read_message
from worker.intake.spool_slots import Slot

BATCH = 4096
"""Waiting requests kept in memory at once. One look at a full directory serves this many, so n waiting requests cost
n / BATCH looks."""

MAX_STUCK = 100_000
"""Waiting files that we cannot take and therefore pass over."""

SETTLING_SECONDS = 2.0
"""How long a file that is not JSON may be on its way: somebody may be writing it in place."""

_ROOM_SECONDS = 1.0
"""Between two questions for room, should nobody poke us."""
_TROUBLE_SECONDS = 5.0
"""Between two attempts while the disk refuses."""
_HAND_BACK_SECONDS = 1.0
"""How long we leave a request to others after it was handed back: whatever was in the way is likely still there."""
_RENEW_SECONDS = 1.0
"""How long a spool stays removed: whoever removes it should not find it growing under their hands."""
_TIDY_SECONDS = 3600.0
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
"""What the whole spool suffers from, not one file."""


class SpoolIntake:
    """Brings requests from one spool; several workers may share it."""

    def __init__(
        self,
        path: Path,
        *,
        worker: str,
        scan_seconds: float,
        keep_done_days: float,
        max_request_bytes: int,
        clock: Clock = system_clock,
    ) -> None:
        """Makes the directories where they are missing; raises PermanentError where that is impossible."""
        self._directories = SpoolDirectories(path)
        self._directories.prepare()
        self._worker = worker
        self._scan_seconds = scan_seconds
        self._keep_done = timedelta(days=keep_done_days)
        self._max_request_bytes = max_request_bytes
        self._wake = threading.Event()
        self._stopping = False
        self._closing = False
        self._own: Slot | None = None
        self._adopted: dict[Path, Slot] = {}
        self._again: deque[Claim] = deque()
        self._claims = Claims(self._directories, clock=clock, on_settled=self._wake.set, on_kept=self._again.append)
        self._waiting: deque[str] = deque()
        self._stuck: set[str] = set()
        self._unread: list[Claim] = []
        self._trouble: str | None = None
        self._told_stuck = False
        # Moments of the monotonic clock.
        self._look_at = 0.0
        self._adopt_at = 0.0
        self._tidy_at = 0.0
        self._renew_at = 0.0

    @property
    def name(self) -> str:
        """For logs and `status`."""
        return "spool"

    @property
    def trouble(self) -> str | None:
        """Why nothing can be brought at this moment. Any thread."""
        return self._trouble

    def run(self, gate: Gate) -> None:
        """Bring deliveries until `stop`, carry out settlements until `close`."""
        hints = DirectoryHints(self._wake.set, scan_seconds=self._scan_seconds)
        try:
            while not self._closing:
                self._wake.clear()
                self._look_at = time.monotonic() + hints.patience
                delivery = self._next(gate.room, hints)
                if delivery is not None:
                    gate.deliver(delivery)
                else:
                    self._wake.wait(max(0.0, self._look_at - time.monotonic()))
        finally:
            hints.close()
            # First the claims: nothing may move any more when others can adopt the slots.
            self._claims.close()
            for slot in [*self._adopted.values(), *([self._own] if self._own else [])]:
                slot.release()

    def poke(self) -> None:
        """There is room again; any thread."""
        self._wake.set()

    def stop(self) -> None:
        """Bring nothing new; settlements are still carried out. Any thread."""
        self._stopping = True
        self._wake.set()

    def close(self) -> None:
        """No more settlements will come: `run` returns. Any thread."""
        self._stopping = True
        self._closing = True
        self._wake.set()

    def _next(self, room: Callable[[], int], hints: DirectoryHints) -> Delivery | None:
        """One more delivery, if there is one and room for it; survives what the disk does."""
        try:
            delivery = self._bring(room, hints)
        except OSError as error:
            self._look_by(_TROUBLE_SECONDS)
            if self._trouble is None:
                self._trouble = str(error)
                logger.error(
                    "spool_trouble",
                    spool=str(self._directories.path),
                    error=str(error),
                    next=f"tries again every {_TROUBLE_SECONDS:g} seconds; requests wait in the spool",
                )
            return None
        if self._trouble is not None:
            self._trouble = None
            logger.info("spool_recovered", spool=str(self._directories.path))
        return delivery

    def _bring(self, room: Callable[[], int], hints: DirectoryHints) -> Delivery | None:
        if not self._claims.retry():
            self._look_by(_TROUBLE_SECONDS)
        if self._stopping:
            return None
        pause = self._claims.handed_back_at + _HAND_BACK_SECONDS - time.monotonic()
        if pause > 0:
            self._look_by(pause)
            return None
        if room() <= 0:
            self._look_by(_ROOM_SECONDS)
            return None
        slot = self._slot()
        if slot is None:
            return None
        # The watch first, the look second: what comes between them is seen by both.
        hints.watch(self._directories.new)
        self._look_by(hints.patience)
        self._do_periodic_work()
        while self._again and not self._stopping:
            delivery = self._read(self._again.popleft(), redelivered=True)
            if delivery is not None:
                return delivery
        if not self._waiting:
            self._waiting.extend(self._oldest())
        while self._waiting and not self._stopping:
            delivery = self._take(slot, self._waiting.popleft())
            if delivery is not None:
                return delivery
        return None

    def _look_by(self, seconds: float) -> None:
        self._look_at = min(self._look_at, time.monotonic() + seconds)

    def _slot(self) -> Slot | None:
        """Our slot; where somebody removed the spool, None for a moment and then a new one."""
        if self._own is not None:
            if self._own.intact and self._directories.complete:
                return self._own
            logger.warning("spool_removed", spool=str(self._directories.path), next="it is made again")
            self._own.release()
            self._own = None
            self._renew_at = time.monotonic() + _RENEW_SECONDS
        pause = self._renew_at - time.monotonic()
        if pause > 0:
            self._look_by(pause)
            return None
        self._directories.make()
        self._own = spool_slots.take(self._directories.cur, worker=self._worker)
        self._queue_again(self._own)
        return self._own

    def _do_periodic_work(self) -> None:
        now = time.monotonic()
        if now >= self._adopt_at:
            self._adopt_at = now + self._scan_seconds
            self._stuck.clear()
            self._again.extend(self._unread)
            self._unread.clear()
            self._adopt()
        if now >= self._tidy_at:
            self._tidy_at = now + _TIDY_SECONDS
            self._claims.tidy(self._keep_done)

    def _adopt(self) -> None:
        """Take over what dead workers had claimed; let go of their slots when it is settled."""
        for path in self._adopted.keys() - self._claims.slots_in_use():
            self._adopted.pop(path).release()
        own = [self._own.path] if self._own else []
        for slot in spool_slots.free(self._directories.cur, besides={*own, *self._adopted}):
            if slot.names():
                self._adopted[slot.path] = slot
                self._queue_again(slot)
            else:
                slot.release()

    def _queue_again(self, slot: Slot) -> None:
        names = slot.names()
        for name in names:
            self._again.append(self._claims.adopt(slot.path, name))
        if names:
            logger.info("spool_adopted", slot=str(slot.path), requests=len(names), next="they are delivered again")

    def _oldest(self) -> list[str]:
        """Names of the requests that waited longest, in that order, at most a batch of them."""
        with os.scandir(self._directories.new) as entries:
            return [name for _, name in heapq.nsmallest(BATCH, self._candidates(entries))]

    def _candidates(self, entries: Iterable[os.DirEntry[str]]) -> Iterator[tuple[int, str]]:
        for entry in entries:
            if entry.name.startswith(".") or entry.name in self._stuck:
                continue
            try:
                yield entry.stat(follow_symlinks=False).st_mtime_ns, entry.name
            except FileNotFoundError:
                continue  # another worker has it

    def _take(self, slot: Slot, name: str) -> Delivery | None:
        try:
            if not self._is_ready(name):
                return None
            claim = self._claims.claim(slot.path, name)
        except FileNotFoundError:
            return None  # another worker has it
        except FileExistsError:
            # One of this name is being worked on. Its settlement wakes us.
            return None
        except OSError as error:
            if error.errno in _DISK:
                raise
            # Somebody else's directory, a sticky bit on new/, a mount point: no reason to let the others wait.
            self._set_aside(name, error)
            return None
        return self._read(claim, redelivered=False)

    def _is_ready(self, name: str) -> bool:
        """Whether it may be taken: a file that is young and not JSON may be half written."""
        path = self._directories.new / name
        try:
            age = time.time() - path.lstat().st_mtime
            if abs(age) >= SETTLING_SECONDS or is_whole(read_message(path, max_bytes=self._max_request_bytes)):
                return True
        except Unfit:
            return True
        self._look_by(SETTLING_SECONDS - age)
        return False

    def _set_aside(self, name: str, error: OSError) -> None:
        if not self._told_stuck:
            self._told_stuck = True
            logger.warning(
                "spool_file_stuck",
                file=shown(name),
                error=str(error),
                next=f"it stays where it is, tried again every {self._scan_seconds:g} seconds; others are not named",
                hint="new/ should belong to the worker's user; see docs/spool.md",
            )
        if len(self._stuck) < MAX_STUCK:
            self._stuck.add(name)

    def _read(self, claim: Claim, *, redelivered: bool) -> Delivery | None:
        try:
            body = read_message(claim.path, max_bytes=self._max_request_bytes)
        except Unfit as error:
            self._claims.settle(claim, Settlement.REJECT, str(error))
            return None
        except FileNotFoundError:
            self._claims.settle(claim, Settlement.ACCEPT, "")  # somebody removed it; that is logged there
            return None
        except OSError as error:
            # The claim is ours and must not be forgotten; the others need not wait for it.
            logger.warning("spool_file_unread", file=shown(claim.name), error=str(error), next="it is read again later")
            self._unread.append(claim)
            return None
        return SpoolDelivery(body=body, claim=claim, redelivered=redelivered, claims=self._claims)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolDelivery:
    """One claimed file."""

    body: bytes
    claim: Claim
    redelivered: bool
    claims: Claims = field(repr=False)
    intake: str = "spool"
    reply_to: str | None = None
    correlation_id: str | None = None

    @property
    def message_id(self) -> str | None:
        """The file's name without `.json`: the id of a plain request that names none.

        None where the name is no clean text; such a request must bring its id.
        """
        stem = self.claim.name.removesuffix(".json")
        return stem if stem.isprintable() else None

    def settle(self, settlement: Settlement, reason: str = "") -> None:
        """Carried out and durable on return, unless the disk refuses: then it is tried again."""
        self.claims.settle(self.claim, settlement, reason)

    def defer(self, after: timedelta) -> None:
        """Nothing to do: it stays in its slot, where it is in nobody's way, and is adopted should this worker die."""
