"""Listens to any number of directories with one inotify instance, and to the table of mounts.

What is heard is a hint, never a fact, and is kept until somebody asks: a thousand changes in one place are one hint.
watchdog's observers make a thread for each directory, so this goes below them: `InotifyFD` is one instance and one
thread for all. The other home of watchdog is `worker.intake.hints`.
"""

from __future__ import annotations

import errno
import itertools
import os
import select
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchDescriptor,
)

from worker.mounts import MOUNTS

COMPLETE: Final = InotifyConstants.IN_CLOSE_WRITE | InotifyConstants.IN_MOVED_TO
"""Events of a file that is as it is meant to be: its writer closed it, or it came by rename."""
ATTRIBUTES: Final = InotifyConstants.IN_ATTRIB
"""A file's times, owner or permissions changed."""
CREATED: Final = InotifyConstants.IN_CREATE
"""A new name."""
ITSELF: Final = InotifyConstants.IN_DELETE_SELF | InotifyConstants.IN_MOVE_SELF | InotifyConstants.IN_UNMOUNT
"""Events of the watched directory itself, which is not where it was any more."""
_DIRECTORY: Final = InotifyConstants.IN_ISDIR
_MASK: Final = Mask(
    COMPLETE
    | ATTRIBUTES
    | CREATED
    | InotifyConstants.IN_DELETE_SELF
    | InotifyConstants.IN_MOVE_SELF
    | InotifyConstants.IN_ONLYDIR
)
_MOST_HINTS: Final = 50_000
"""More are not kept apart: then everything is looked at."""

TagT = TypeVar("TagT")


class Audience(Protocol):
    """Whoever a watch is for."""

    def cares_for(self, name: str, *, directory: bool) -> bool:
        """Whether a change of this name, in the watched directory, is worth a hint. Any thread; must not raise."""


@dataclass(slots=True, eq=False)
class Watch(Generic[TagT]):
    """One watched directory."""

    tag: TagT
    number: CallbackId
    descriptor: WatchDescriptor = field(default=WatchDescriptor(-1))
    dead: bool = False
    """The kernel has let go of it; a directory that is there now is another one, whatever its inode number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard(Generic[TagT]):
    """What happened since the last time somebody asked."""

    hints: Mapping[tuple[TagT, str], int]
    """What happened to which name, as bits of inotify; an empty name is the watched directory itself."""
    lost: bool
    """Hints were lost, or something was mounted: look everywhere."""


AudienceT = TypeVar("AudienceT", bound=Audience)


class Watches(Generic[AudienceT]):
    """One thread asks and waits, any thread may wake it."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._numbers = itertools.count(1)
        self._inotify: InotifyFD | None = None
        self._hints: dict[tuple[AudienceT, str], int] = {}
        self._lost = False
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        try:
            self._mounts = os.open(MOUNTS, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._mounts = -1
        else:
            # The kernel's way to say that something was mounted, or unmounted: no data, only an exceptional state.
            self._poll.register(self._mounts, select.POLLPRI | select.POLLERR)

    def watch(self, descriptor: int, audience: AudienceT) -> Watch[AudienceT]:
        """Listen to an opened directory; look into it afterwards.

        Raises OSError: ENOSPC where the kernel's number of watches is used up, EMFILE where that of instances is.
        """
        watch = Watch(audience, CallbackId(next(self._numbers)))
        # By the descriptor, not by a path: nobody can put another directory under it in between.
        path = os.fsencode(f"/proc/self/fd/{descriptor}")
        # The callback may be needed before we know the number it is called with.
        watch.descriptor = self._running().add_callback(path, _MASK, _Listener(self, watch), watch.number)
        if watch.descriptor == -1:
            # watchdog 7 takes EACCES for a success.
            self.drop(watch)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return watch

    def drop(self, watch: Watch[AudienceT]) -> None:
        """Listen to it no more."""
        if not watch.dead and self._inotify is not None:
            watch.dead = True
            with suppress(OSError):
                self._inotify.remove_callbacks([(watch.descriptor, watch.number)])

    def wake(self) -> None:
        """Make `wait` return; any thread, even after `close`."""
        with self._mutex, suppress(BlockingIOError):  # it rings already
            if self._bell != -1:
                os.eventfd_write(self._bell, 1)

    @property
    def any_heard(self) -> bool:
        """Whether `take` has something to give."""
        return self._lost or bool(self._hints)

    def wait(self, seconds: float) -> None:
        """Until something is heard, somebody wakes us, or the time is over."""
        for descriptor, _ in self._poll.poll(max(0.0, seconds) * 1000):
            if descriptor == self._bell:
                with suppress(BlockingIOError):
                    os.eventfd_read(self._bell)
            else:
                self._lost = True

    def take(self) -> Heard[AudienceT]:
        """What was heard so far; it is forgotten here."""
        with self._mutex:
            heard = Heard(hints=self._hints, lost=self._lost)
            self._hints = {}
            self._lost = False
        return heard

    def close(self) -> None:
        """Nothing is heard from here on."""
        if self._inotify is not None:
            self._inotify.stop()
            self._inotify.join()
        with self._mutex:
            os.close(self._bell)
            self._bell = -1
        if self._mounts != -1:
            os.close(self._mounts)

    def hear(self, watch: Watch[AudienceT], name: str, bits: int) -> None:
        """Called in watchdog's thread."""
        with self._mutex:
            if len(self._hints) >= _MOST_HINTS:
                self._hints.clear()
                self._lost = True
            place = (watch.tag, name)
            self._hints[place] = self._hints.get(place, 0) | bits
        self.wake()

    def lose(self) -> None:
        """Called in watchdog's thread: the kernel's queue was full."""
        self._lost = True
        self.wake()

    def _running(self) -> InotifyFD:
        # An instance of our own, made when it is needed: there may be none to be had.
        if self._inotify is None:
            self._inotify = InotifyFD()
            self._inotify.start()
        return self._inotify


class _Listener(Generic[AudienceT]):
    """Turns what watchdog tells of one directory into hints."""

    __slots__ = ("_watch", "_watches")

    def __init__(self, watches: Watches[AudienceT], watch: Watch[AudienceT]) -> None:
        self._watches = watches
        self._watch = watch

    def on_event(self, event: InotifyEvent) -> None:
        """Something happened in the directory, or to it."""
        name = os.fsdecode(event.name)
        itself = bool(event.mask & ITSELF)
        if itself or not name or self._watch.tag.cares_for(name, directory=bool(event.mask & _DIRECTORY)):
            self._watches.hear(self._watch, "" if itself else name, event.mask)

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """The directory was removed, or unmounted, or nobody listens any more."""
        if not self._watch.dead:
            self._watch.dead = True
            self._watches.hear(self._watch, "", InotifyConstants.IN_DELETE_SELF)

    def on_queue_overflow(self) -> None:
        """Hints were lost."""
        self._watches.lose()
