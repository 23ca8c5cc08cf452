"""Says which worker holds which claimed request of a spool.

`cur/` is divided into numbered slots. A worker holds a slot by the kernel's lock on its `.lock`, which names the worker
for a person who looks. When the worker dies the lock is free, and what lies in the slot is for anybody to adopt.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from handlers.tools.lock import Lock

_LOCK = ".lock"
_NUMBER = re.compile(r"[1-9][0-9]{0,8}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A slot that this process holds."""

    path: Path
    lock: Lock
    inode: int

    @classmethod
    def try_hold(cls, path: Path) -> Slot | None:
        """The slot, or None while another holds it."""
        lock = Lock.try_hold(path / _LOCK)
        if lock is None:
            return None
        try:
            return cls(path=path, lock=lock, inode=(path / _LOCK).stat().st_ino)
        except OSError:
            lock.release()
            raise

    @property
    def intact(self) -> bool:
        """Whether the directory we hold is still the one under this path."""
        try:
            return (self.path / _LOCK).stat().st_ino == self.inode
        except OSError:
            return False

    def names(self) -> list[str]:
        """The claimed requests in it, by name."""
        with os.scandir(self.path) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith("."))

    def release(self) -> None:
        """Let others have it; what is in it will be adopted."""
        self.lock.release()


def take(cur: Path, *, worker: str) -> Slot:
    """A slot for this worker: the first that nobody holds, with whatever a dead worker left in it, or a new one."""
    for slot in free(cur, besides=()):
        return _signed(slot, worker)
    number = 1 + max((int(path.name) for path in _paths(cur)), default=0)
    while True:
        path = cur / str(number)
        path.mkdir(mode=0o750, exist_ok=True)
        # Somebody who looks for abandoned slots may hold it for an instant: then the next one is ours.
        if (fresh := Slot.try_hold(path)) is not None:
            return _signed(fresh, worker)
        number += 1


def free(cur: Path, *, besides: Collection[Path]) -> Iterator[Slot]:
    """Slots that nobody holds, each held for the caller, who releases it. `besides` are not tried."""
    for path in _paths(cur):
        if path in besides:
            continue
        slot = Slot.try_hold(path)
        if slot is not None:
            yield slot


def _paths(cur: Path) -> list[Path]:
    with os.scandir(cur) as entries:
        numbers = [int(entry.name) for entry in entries if _NUMBER.match(entry.name) and entry.is_dir()]
    return [cur / str(number) for number in sorted(numbers)]


def _signed(slot: Slot, worker: str) -> Slot:
    # For people only: a full disk is no reason to stay without a slot.
    with contextlib.suppress(OSError):
        (slot.path / _LOCK).write_text(f"{worker}\n", encoding="utf-8", errors="backslashreplace")
    return slot
