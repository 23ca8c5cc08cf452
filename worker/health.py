"""Shows from outside whether the worker lives, and whether it can do its work: one small file in the state directory.

The file keeps its size and is written over in place, so that a full disk, which it is to tell of, does not silence it.
Nobody's promise depends on it: it is not fsynced.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from loguru import logger
from pydantic import BaseModel, ConfigDict, ValidationError

from handlers.errors import PermanentError

FILE = "health.json"
FILE_BYTES = 4096
"""One page: a reader sees the old content or the new one."""
STALE = timedelta(seconds=30)
"""A worker that has not written for so long is stuck, or dead."""

_LONGEST_CAUSE = 300
_MOST_CAUSES = 8


class Health(BaseModel):
    """A worker's word about itself."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pid: int
    pids: str = ""
    """Among which processes `pid` counts: those of one container, since one start of the machine."""
    node: str
    started: datetime
    causes: tuple[str, ...] = ()
    """Why it cannot do its work now; none when it is ready."""

    @property
    def ready(self) -> bool:
        """Whether it can do its work."""
        return not self.causes


class HealthFile:
    """Written by the worker, again and again; for one thread."""

    def __init__(self, state_dir: Path, node: str, started: datetime) -> None:
        """Raises PermanentError where the file cannot be made: the state directory is of no use then."""
        self._path = state_dir / FILE
        self._node = node
        self._started = started
        self._failing = False
        self._pids = _pids()
        try:
            self._descriptor = _open(self._path)
        except OSError as error:
            raise PermanentError(
                f"{self._path} cannot be written: {error.strerror}", hint="state_dir has to belong to the worker"
            ) from error
        self.beat(["it is starting"])

    def beat(self, causes: Sequence[str]) -> None:
        """A sign of life, with what keeps the worker from its work."""
        content = self._content(causes)
        try:
            if not self._is_ours():  # another worker of this directory has ended, or somebody tidied up
                os.close(self._descriptor)
                self._descriptor = _open(self._path)
            os.pwrite(self._descriptor, content.ljust(FILE_BYTES - 1) + b"\n", 0)
            os.utime(self._descriptor)
        except OSError as error:
            if not self._failing:
                logger.warning("health_not_written", path=str(self._path), error=str(error), next="tried again")
            self._failing = True
        else:
            self._failing = False

    def _content(self, causes: Sequence[str]) -> bytes:
        # Names of files in causes may be no UTF-8.
        clean = (cause[:_LONGEST_CAUSE].encode("utf-8", "backslashreplace").decode() for cause in causes)
        shown = tuple(clean)[:_MOST_CAUSES]
        while True:
            health = Health(pid=os.getpid(), pids=self._pids, node=self._node, started=self._started, causes=shown)
            content = health.model_dump_json().encode()
            if len(content) < FILE_BYTES:
                return content
            shown = shown[:-1] if len(shown) > 1 else ("see the log",)

    def close(self) -> None:
        """The worker ends in good order: nobody is to wait for its next sign of life."""
        with suppress(OSError, ValidationError):
            if self._is_ours() and Health.model_validate_json(self._path.read_bytes()).pid == os.getpid():
                self._path.unlink()
        os.close(self._descriptor)

    def _is_ours(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False


def _pids() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _is_dead(health: Health) -> bool:
    """Whether that process is known to be gone; one of another container may be alive for all we see."""
    return bool(health.pids) and health.pids == _pids() and not Path(f"/proc/{health.pid}").exists()


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def look(state_dir: Path, *, now: datetime) -> tuple[Health, timedelta] | None:
    """What the worker of this state directory said last, and how long ago; None where none runs, or none ever did.

    A word of one that was killed counts for nothing, where that can be seen from here.
    """
    path = state_dir / FILE
    try:
        health = Health.model_validate_json(path.read_bytes())
        beat = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, ValidationError):
        return None
    if _is_dead(health):
        return None
    return health, max(now - beat, timedelta())
