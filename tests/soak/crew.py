"""The workers of a soak, and what may happen to them."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.workshop.workers import Worker, wait_for

LONGEST_STOP_SECONDS = 60.0
"""A worker that was told to end and is still there after this is stuck."""

LONGER_THAN_A_LEASE_SECONDS = 7.0
"""The workers of a soak have `lease_seconds: 5`: who sleeps so long finds its work taken over."""


@dataclass(slots=True, kw_only=True)
class Member:
    """One worker."""

    worker: Worker
    wanted: bool = False
    """Whether it should be running: it was started, and nobody has ended it."""
    ends_by: float | None = None
    """Of the monotonic clock: told to end, it must be gone by then."""
    wakes_at: float | None = None
    """It is stopped until then."""


@dataclass(slots=True, kw_only=True)
class Crew:
    """All of them; `trouble` collects what should not have happened."""

    members: list[Member]
    rng: random.Random
    done: Counter[str] = field(default_factory=Counter)
    trouble: list[str] = field(default_factory=list)

    def harm(self) -> None:
        """Do something to one of them."""
        member = self.rng.choice(self.members)
        if member.worker.ended:
            return
        match self.rng.choices(["kill", "terminate", "stop"], [5, 3, 3])[0]:
            case "kill":
                self.done["killed"] += 1
                member.wanted = False
                member.worker.kill()
                self._gone(member)
            case "terminate" if member.ends_by is None:
                self.done["terminated"] += 1
                member.wanted = False
                member.ends_by = time.monotonic() + LONGEST_STOP_SECONDS
                self._signal(member, signal.SIGTERM)
            case "stop" if member.wakes_at is None:
                self.done["stopped for a while"] += 1
                member.wakes_at = time.monotonic() + self.rng.choice([0.2, 1.0, LONGER_THAN_A_LEASE_SECONDS])
                self._signal(member, signal.SIGSTOP)

    def look_after(self, *, restart: float) -> None:
        """Wake who slept long enough, notice who is gone, start each of those again with this probability."""
        now = time.monotonic()
        for member in self.members:
            if member.wakes_at is not None and (now >= member.wakes_at or restart >= 1):
                member.wakes_at = None
                self._signal(member, signal.SIGCONT)
            if member.ends_by is not None and now > member.ends_by:
                self.trouble.append(f"{member.worker.place.name} does not end after SIGTERM")
                member.ends_by = None
            if member.worker.ended:
                self._notice(member)
                if self.rng.random() < restart:
                    self.done["started"] += 1
                    member.wanted = True
                    member.worker.start_quietly()

    def bring_up(self) -> None:
        """All of them run, none of them stopped."""
        wait_for(self._all_up, what="all workers up")

    def end(self) -> None:
        """Stop all of them in an orderly way."""
        for member in self.members:
            member.wanted = False
            code = member.worker.stop()
            if code != 0:
                self.trouble.append(f"{member.worker.place.name} ended with {code} after SIGTERM")

    def _all_up(self) -> bool:
        self.look_after(restart=1)
        return all(member.wanted and not member.worker.ended for member in self.members)

    def _notice(self, member: Member) -> None:
        process = member.worker.process
        if process is None:
            return
        code = process.returncode
        early = member.ends_by is not None and code == -signal.SIGTERM  # it came before the worker listened
        if member.wanted or (code not in {0, -signal.SIGKILL} and not early):
            self.trouble.append(f"{member.worker.place.name} ended with {code} by itself")
        member.wanted = False
        member.worker.process = None
        self._gone(member)

    def _gone(self, member: Member) -> None:
        member.ends_by = None
        member.wakes_at = None

    def _signal(self, member: Member, number: signal.Signals) -> None:
        process = member.worker.process
        if process is not None and process.poll() is None:
            os.kill(process.pid, number)
