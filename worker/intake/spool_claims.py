"""Holds the claimed requests of a spool until each is settled.

A claim is a rename from `new/` into a slot of ours, a settlement a rename out of it. Whatever a crash interrupts, the
request is in exactly one directory, and if that is a slot, it is delivered again.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import assert_never

from loguru import logger

from handlers.tools.atomic import fsync_directory, write_durable
from handlers.tools.clock import Clock
from worker.intake.delivery import Settlement
from worker.intake.spool_dirs import SpoolDirectories, kept_name, move, shown
from worker.intake.spool_ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One request in one slot."""

    slot: Path
    name: str
    serial: int
    """Tells it from an earlier claim of the same file, which may still be settled once more."""

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.slot / self.name


class Claims:
    """Any thread may settle; one thread claims."""

    def __init__(
        self,
        directories: SpoolDirectories,
        *,
        clock: Clock,
        on_settled: Callable[[], None],
        on_kept: Callable[[Claim], None],
    ) -> None:
        """`on_kept` is given a claim that could not go back, because its name waits in `new/` again."""
        self._directories = directories
        self._clock = clock
        self._on_settled = on_settled
        self._on_kept = on_kept
        self._serial = itertools.count()
        self.handed_back_at = -math.inf
        """Of the monotonic clock: when something was handed back, set before others can see it."""
        self._ledger = Ledger(directories.done)
        self._mutex = threading.Lock()
        self._open: set[Claim] = set()
        self._unsettled: dict[Claim, tuple[Settlement, str]] = {}
        self._closed = False

    def claim(self, slot: Path, name: str) -> Claim:
        """Take a waiting request. Raises FileNotFoundError where another worker was faster.

        Raises FileExistsError while a request of the same name is in the slot: this one has to wait for it.
        """
        # No fsync: if the power fails, it lies in new/ again or in the slot, and comes again either way.
        move(self._directories.new / name, slot / name)
        return self.adopt(slot, name)

    def adopt(self, slot: Path, name: str) -> Claim:
        """Be responsible for what lies in a slot that we hold."""
        claim = Claim(slot=slot, name=name, serial=next(self._serial))
        with self._mutex:
            self._open.add(claim)
        return claim

    def settle(self, claim: Claim, settlement: Settlement, reason: str) -> None:
        """Carry it out, durably on return; what the disk does not allow now is tried again by `retry`.

        Only the first settlement of a claim counts, and none after `close`.
        """
        with self._mutex:
            if self._closed or claim not in self._open:
                return
            self._open.discard(claim)
            if settlement is Settlement.HAND_BACK:
                self.handed_back_at = time.monotonic()
            try:
                self._carry_out(claim, settlement, reason)
            except OSError as error:
                if not self._keeps(claim, settlement, error):
                    self._unsettled[claim] = (settlement, reason)
                    logger.warning(
                        "spool_settle_failed",
                        file=shown(claim.name),
                        settlement=settlement.value,
                        error=str(error),
                        next="it is tried again; after a restart the request is delivered again",
                    )
        self._on_settled()

    def retry(self) -> bool:
        """Carry out what could not be carried out; says whether nothing is left."""
        if not self._unsettled:
            return True
        with self._mutex:
            for claim, (settlement, reason) in list(self._unsettled.items()):
                try:
                    self._carry_out(claim, settlement, reason)
                except OSError as error:
                    if not self._keeps(claim, settlement, error):
                        continue
                del self._unsettled[claim]
            return not self._unsettled

    def slots_in_use(self) -> set[Path]:
        """Slots with a claim that is not settled."""
        with self._mutex:
            return {claim.slot for claim in (*self._open, *self._unsettled)}

    def tidy(self, keep: timedelta) -> None:
        """Remove accepted requests that have been kept for long enough."""
        removed = self._ledger.tidy(keep=keep, now=self._clock())
        if removed:
            logger.info("spool_tidied", directory=str(self._directories.done), removed=removed)

    def close(self) -> None:
        """From here on nothing moves: what is not settled stays in its slot for whoever comes next."""
        self.retry()
        with self._mutex:
            self._closed = True

    def _keeps(self, claim: Claim, settlement: Settlement, error: OSError) -> bool:
        """Whether it stays claimed to be delivered once more: it could not go back, its name waits again."""
        if settlement is not Settlement.HAND_BACK or not isinstance(error, FileExistsError):
            return False
        kept = replace(claim, serial=next(self._serial))
        self._open.add(kept)
        self._on_kept(kept)
        return True

    def _carry_out(self, claim: Claim, settlement: Settlement, reason: str) -> None:
        # The target is made durable, not the slot: should the power fail and the file come back there, the request is
        # delivered again, which does no harm and saves half of the time a settlement takes.
        try:
            match settlement:
                case Settlement.ACCEPT:
                    self._accept(claim)
                case Settlement.REJECT:
                    self._reject(claim, reason)
                case Settlement.HAND_BACK:
                    move(claim.path, self._directories.new / claim.name)
                    fsync_directory(self._directories.new)
                case _:
                    assert_never(settlement)
        except FileNotFoundError:
            if os.path.lexists(claim.path):
                raise
            logger.warning("spool_file_vanished", file=shown(claim.name), slot=str(claim.slot))

    def _accept(self, claim: Claim) -> None:
        file = claim.path.lstat()
        for turn in itertools.count():
            name = kept_name(claim.name, turn)
            if os.path.lexists(self._directories.done / name):
                continue
            self._ledger.record(name, file, now=self._clock())
            try:
                move(claim.path, self._directories.done / name)
            except FileExistsError:
                continue  # another worker keeps one of this name since an instant ago
            break
        fsync_directory(self._directories.done)

    def _reject(self, claim: Claim, reason: str) -> None:
        for turn in itertools.count():
            target = self._directories.failed / kept_name(claim.name, turn)
            note = target.with_name(f"{target.name}.reason")
            if os.path.lexists(note):
                continue
            try:
                move(claim.path, target)
            except FileExistsError:
                continue
            break
        fsync_directory(self._directories.failed)
        logger.warning("spool_rejected", file=shown(claim.name), kept=shown(target.name), reason=reason)
        try:
            # If we die here, the reason is in the log alone.
            write_durable(note, f"{reason}\n".encode("utf-8", "backslashreplace"))
        except OSError as error:
            logger.warning("spool_reason_lost", file=shown(target.name), error=str(error))
