"""Wakes a reader when something may have happened in a directory.

An event is a hint, never a fact: whoever is woken looks at the directory. Hints get lost (full kernel queue, changes
made by another machine), so a reader also looks when `patience` is over. For very many directories there is
`worker.intake.watches`; these two are watchdog's only homes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loguru import logger
from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver, ObservedWatch
from watchdog.observers.inotify import InotifyEmitter
from watchdog.observers.inotify_c import InotifyConstants, Mask

from worker.mounts import file_system

POLL_SECONDS = 2.0
"""How long a change may go unseen where the kernel does not tell of it."""

_REMOTE = re.compile(
    r"^(overlay|nfs4?|cifs|smb\w*|9p|virtiofs|fuse(\..+)?|ceph|afs|lustre|beegfs|gfs2|ocfs2|gpfs|vboxsf|vmhgfs|fakeowner)$"
)
_OVERFLOW_LOGGER = "watchdog.observers.inotify_c"
_GONE = (DirDeletedEvent, FileDeletedEvent)
_EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileClosedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirMovedEvent,
    # Only of the watched directory itself: the mask below asks for no other deletion.
    *_GONE,
]


class DirectoryHints:
    """Watches directories, not what is below their subdirectories."""

    def __init__(self, wake: Callable[[], None], *, scan_seconds: float) -> None:
        self._wake = wake
        self._scan_seconds = scan_seconds
        self._watched: dict[Path, _Watched] = {}
        self._observer: BaseObserver | None = None
        self._overflow = _OverflowHandler(wake)
        logging.getLogger(_OVERFLOW_LOGGER).addHandler(self._overflow)

    def watch(self, directory: Path) -> None:
        """Watch the directory from now on, or make sure that it still is watched; look into it afterwards.

        Cheap when nothing changed, so call it before every look: a directory that was removed and made again is
        watched again. Never raises for a directory that is missing or cannot be watched: it is polled.
        """
        identity = _identity(directory)
        watched = self._watched.get(directory)
        if watched is not None and identity == watched.identity and not watched.handler.gone:
            return
        self._drop(watched)
        self._watched[directory] = self._fresh(directory, identity, watched)

    @property
    def patience(self) -> float:
        """After how many seconds to look without a hint."""
        if all(watched.reliable for watched in self._watched.values()):
            return self._scan_seconds
        return min(self._scan_seconds, POLL_SECONDS)

    def close(self) -> None:
        """No hints from here on; safe to repeat."""
        logging.getLogger(_OVERFLOW_LOGGER).removeHandler(self._overflow)
        if self._observer is not None:
            self._observer.stop()
            if self._observer.is_alive():  # Ctrl-C may have come before it was started
                self._observer.join()
            self._observer = None
        self._watched.clear()

    def _fresh(self, directory: Path, identity: tuple[int, int] | None, before: _Watched | None) -> _Watched:
        handler = _Handler(self._wake)
        watch = None
        if identity is not None:
            try:
                watch = self._running().schedule(handler, str(directory), event_filter=_EVENTS)
            except OSError as error:
                # Not for every look: a limit on watches stays where it is until somebody raises it.
                if before is None or before.watch is not None or before.identity is None:
                    logger.warning(
                        "watch_failed",
                        directory=str(directory),
                        error=str(error),
                        next=f"looks every {POLL_SECONDS:g} seconds",
                        hint="see fs.inotify.max_user_watches and max_user_instances",
                    )
        # A watch does no harm on a remote file system: it tells at once what this machine does there.
        reliable = watch is not None and not is_remote(directory)
        return _Watched(identity=identity, handler=handler, watch=watch, reliable=reliable)

    def _running(self) -> BaseObserver:
        if self._observer is None:
            self._observer = BaseObserver(_Emitter)
            self._observer.start()
        return self._observer

    def _drop(self, watched: _Watched | None) -> None:
        if watched is not None and watched.watch is not None and self._observer is not None:
            self._observer.unschedule(watched.watch)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watched:
    identity: tuple[int, int] | None
    handler: _Handler
    watch: ObservedWatch | None
    reliable: bool


class _Handler(FileSystemEventHandler):
    """Turns every event into a wake-up."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.gone = False
        """The directory was removed; one made in its place may well have the same inode number."""

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called in watchdog's thread."""
        if isinstance(event, _GONE):
            self.gone = True
        self._wake()


class _Emitter(InotifyEmitter):
    """Watches what comes, not what goes.

    watchdog's own mask includes moves out of the directory, and its queue holds each of them back for half a second
    in case the other half follows, *with everything behind it*: whoever renames files away as fast as they come sees
    each next one 500 ms late (measured, watchdog 7.1.0).
    """

    def get_event_mask_from_filter(self) -> Mask:
        """The kernel's events to ask for."""
        return Mask(
            InotifyConstants.IN_CREATE
            | InotifyConstants.IN_MOVED_TO
            | InotifyConstants.IN_CLOSE_WRITE
            | InotifyConstants.IN_DELETE_SELF
            | InotifyConstants.IN_ONLYDIR
        )


class _OverflowHandler(logging.Handler):
    """The only sign of a full kernel queue is a line in watchdog's log."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__(level=logging.WARNING)
        self._wake = wake

    def emit(self, record: logging.LogRecord) -> None:
        """Hints were lost: look."""
        self._wake()


def is_remote(directory: Path, mounts: str | None = None) -> bool:
    """Whether others may change this directory without the kernel telling us. `mounts` as in /proc/self/mountinfo."""
    return is_remote_kind(file_system(directory, mounts))


def is_remote_kind(kind: str | None) -> bool:
    """The same of a directory on a file system of this type; None is an unknown one."""
    return kind is None or _REMOTE.match(kind) is not None


def _identity(directory: Path) -> tuple[int, int] | None:
    try:
        found = directory.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
