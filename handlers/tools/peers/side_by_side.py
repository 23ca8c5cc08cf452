"""Walks through a peer's directory, and its place in the set, at the same time."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field

from handlers.contract import ProblemKind, printable
from handlers.errors import TemporaryError
from handlers.tools.deep_tree import NO_DIRECTORY, Way
from handlers.tools.peers.entering import AWAY, cannot
from handlers.tools.peers.files import NOT_HERE, NotTaken, our_disk
from handlers.tools.peers.ledger import Ledger
from handlers.tools.peers.outcome import Outcome, Rules
from handlers.tools.peers.pulse import Pulse


@dataclass(slots=True, kw_only=True)
class Sides:
    """The two directories, and all that the walks through them hand each other."""

    source: int
    """Open."""
    target: int
    """Open."""
    prefix: bytes
    """How the target's names begin in the ledger."""
    rules: Rules
    ledger: Ledger
    pulse: Pulse
    coarse_ns: int = 0
    """How far the time of a copy may be from that of its file."""
    outcome: Outcome = field(default_factory=Outcome)
    again: set[bytes] = field(default_factory=set)
    """Files that changed while they were read."""
    impossible: dict[bytes, str] = field(default_factory=dict)
    """What the file system of the set does not take, and why."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """For the outcome."""


class Round:
    """One walk through both directories, side by side."""

    def __init__(self, sides: Sides) -> None:
        self.sides = sides
        self.rules = sides.rules
        self.outcome = sides.outcome
        self.pulse = sides.pulse

    def alike(self, one: os.stat_result, other: os.stat_result) -> bool:
        """Whether these may be a file and its copy."""
        return (
            stat.S_ISREG(one.st_mode)
            and stat.S_ISREG(other.st_mode)
            and one.st_size == other.st_size
            and abs(one.st_mtime_ns - other.st_mtime_ns) <= self.sides.coarse_ns
        )

    def run(self) -> None:
        """Meet every name.

        Raises PermanentError or TemporaryError where the top cannot be read, TemporaryError where the peer's file
        system went away, OurDisk, and what the pulse raises.
        """
        with ExitStack() as stack:
            source = stack.enter_context(closing(Way(self.sides.source)))
            target = stack.enter_context(closing(Way(self.sides.target)))
            pending = [self._listed(source, target, b"")]
            paths = [b""]
            while pending:
                if not pending[-1]:
                    pending.pop()
                    path = paths.pop()
                    self.leaving(source.here, target.here)
                    if pending:
                        _leave(source, path)
                        with our_disk(path):
                            target.leave()
                    continue
                name = pending[-1].pop()
                below = self._entered(source, target, name, paths[-1] + name)
                if below is not None:
                    pending.append(below)
                    paths.append(paths[-1] + name + b"/")

    def _entered(self, source: Way, target: Way, name: bytes, path: bytes) -> list[bytes] | None:
        try:
            # What is in it is listed once both are entered: a step into the one can be taken back.
            source.enter(name, nothing)
        except OSError as error:
            self.shut(target.here, name)
            if isinstance(error, FileNotFoundError):
                return None
            if error.errno in AWAY:
                raise cannot(f"{printable(path)} cannot be entered", error) from error
            if error.errno in NO_DIRECTORY:
                self.differs(path, "it became something else while it was staged")
            else:
                self.outcome.add(path, ProblemKind.UNREADABLE, f"cannot enter: {error.strerror}")
            return None
        if not self.enter_target(target, name, path):
            _leave(source, path)
            return None
        return self._listed(source, target, path + b"/")

    def _listed(self, source: Way, target: Way, path: bytes) -> list[bytes]:
        """Deal with all that is in a directory; returns the directories in it, last one first."""
        directories: list[bytes] = []
        whole = True
        try:
            for entry in _entries(source.here, path):
                name = os.fsencode(entry.name)
                if not path and name in self.rules.left_out:
                    self.outcome.left_out.append(entry.name)
                elif self.sides.impossible and (why := self.sides.impossible.get(path + name)) is not None:
                    self.outcome.add(path + name, ProblemKind.OTHER, why)
                elif entry.is_dir(follow_symlinks=False) and self.rules.recursive:
                    directories.append(name)
                else:
                    self._other(entry, source.here, target.here, path, name)
        except NotTaken as trouble:
            self.outcome.add(path.rstrip(b"/"), trouble.kind, trouble.detail)
            whole = False
        self.listed(source.here, target.here, path, whole=whole)
        directories.sort(reverse=True)
        return directories

    def _other(self, entry: os.DirEntry[str], at: int, to: int, path: bytes, name: bytes) -> None:
        if entry.is_file(follow_symlinks=False):
            self.file(at, to, path, name)
        elif entry.is_symlink() and self.rules.links:
            self.symlink(at, to, path, name)
        else:
            with suppress(FileNotFoundError):
                self.refuse(to, path, name, *_odd(entry))

    def refuse(self, to: int, path: bytes, name: bytes, kind: ProblemKind, detail: str) -> None:
        """A name of a kind that is not taken."""
        if path + name not in self.outcome.problems:
            self.outcome.add(path + name, kind, detail)
            self.outcome.refused.append(path + name)

    def enter_target(self, target: Way, name: bytes, path: bytes) -> bool:
        """Go into the directory of this name in the target, too; whether it is worth it."""
        raise NotImplementedError

    def file(self, at: int, to: int, path: bytes, name: bytes) -> None:
        """A regular file; `path` is that of its directory, with a slash at the end."""
        raise NotImplementedError

    def symlink(self, at: int, to: int, path: bytes, name: bytes) -> None:
        """A symbolic link that is taken."""
        raise NotImplementedError

    def listed(self, at: int, to: int, path: bytes, *, whole: bool) -> None:
        """All names of a directory were dealt with, or as many as could be listed."""

    def shut(self, to: int, name: bytes) -> None:
        """The peer's directory of this name cannot be entered."""

    def leaving(self, at: int, to: int) -> None:
        """All below a directory was dealt with."""

    def differs(self, path: bytes, detail: str) -> None:
        """Something is not as it was when it was taken."""


def _odd(entry: os.DirEntry[str]) -> tuple[ProblemKind, str]:
    mode = entry.stat(follow_symlinks=False).st_mode
    if stat.S_ISDIR(mode):
        return ProblemKind.OTHER, "a directory, and the peer is not staged recursively"
    if stat.S_ISLNK(mode):
        return ProblemKind.OTHER, "a symbolic link, and links are refused"
    if stat.S_ISSOCK(mode):
        return ProblemKind.SOCKET, "a socket; there is nothing in it"
    if stat.S_ISFIFO(mode):
        return ProblemKind.UNKNOWN_TYPE, "a named pipe; there is nothing in it"
    return ProblemKind.UNKNOWN_TYPE, "a device, which is never staged"


def _entries(directory: int, path: bytes) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            yield from found
    except OSError as error:
        if not path or error.errno in AWAY:
            raise cannot(f"{printable(path) or 'collect directory'} cannot be read", error) from error
        raise NotTaken(ProblemKind.UNREADABLE, f"cannot be read: {error.strerror}") from error


def link_at(at: int, name: bytes) -> tuple[bytes, os.stat_result]:
    """What a symbolic link says, and its attributes. Raises OSError."""
    return os.readlink(name, dir_fd=at), os.stat(name, dir_fd=at, follow_symlinks=False)


def stat_at(at: int, name: bytes) -> os.stat_result | None:
    """What is at a name itself; None where there is nothing, and can be nothing. Raises OSError."""
    try:
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOENT or error.errno in NOT_HERE:
            return None
        raise


def nothing(directory: int) -> None:
    """For `Way.enter`: no look is wanted."""


def _leave(source: Way, path: bytes) -> None:
    try:
        source.leave()
    except OSError as error:
        raise TemporaryError(f"directory {printable(path)} was moved away while it was staged") from error
